"""The verbs share, unshare, fork, hand-over and accept-hand-over: who reads, copies and writes a dataset."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import WRITER_REVOKED, Url
from sennit.cli.node_verbs import Data, Json

_ALL = "all"
_POLL_SECONDS = 0.3


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (share, unshare, fork, hand_over, accept_hand_over):
        app.command()(verb)


def share(
    name: Annotated[str, typer.Argument(help="Name or id of a dataset.")],
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NODE", help="A node, or all; repeatable."),
    ] = None,
    copies: Annotated[
        int | None,
        typer.Option("--copies", min=1, max=16, help="Nodes that hold each shard, this one too."),
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(
            "--hold-on", metavar="NODE", help="A node that holds every shard; repeatable."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only-on", metavar="NODE", help="Hold copies only there; repeatable."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="The nodes read it, and change no rows.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Share a dataset with other nodes, or show how it is shared."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if with_ is None and (copies or hold or only or read_only):
        raise UsageError("sharing needs the nodes", hint="add --with NODE or --with all")
    with Session.open(url, token=None, data=data) as session:
        if with_ is None:
            found = session.network.sharing(name)
        else:
            found = session.network.share(
                name,
                None if _ALL in with_ else with_,
                copies=copies,
                pins=hold or (),
                only=only or (),
                read_only=read_only or _ALL in with_,
            )
    if as_json:
        emit_json(found)
    else:
        typer.echo("\n".join(_lines(name, found)))


def unshare(
    name: Annotated[str, typer.Argument(help="Name or id of a dataset.")],
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a dataset private again; other nodes forget it."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        was_shared = session.network.unshare(name)
    if as_json:
        emit_json({"unshared": was_shared})
    else:
        typer.echo(f"{name} is private" if was_shared else f"{name} was private")


def fork(
    name: Annotated[str, typer.Argument(help="Name or id of a dataset, also of another node's.")],
    new: Annotated[str, typer.Argument(help="Name of the new dataset.")],
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create a dataset of this node with the rows of another one, without copying them."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        info = session.network.fork(name, new)
    if as_json:
        emit_json(info)
    else:
        typer.echo(f"{info['name']} has the {info['rows']:,} rows of {name}")


def hand_over(
    name: Annotated[str, typer.Argument(help="Name or id of a dataset.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="NODE", help="The node that is to write it.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="End it, while the other node cannot write yet.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Let another node become the writer of a shared dataset, when an admin there accepts that."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if (to is None) != undo:
        raise UsageError("handing a dataset over needs the node", hint="--to NODE, or --undo")
    with Session.open(url, token=None, data=data) as session:
        network = session.network
        found = network.undo_hand_over(name) if to is None else network.hand_over(name, to)
    if as_json:
        emit_json(found)
    elif to is None:
        typer.echo(f"{name} is not handed over")
    else:
        typer.echo(
            f"{name} goes to {to} when an admin runs there: platform accept-hand-over {name}"
        )


def accept_hand_over(
    name: Annotated[str, typer.Argument(help="Name or id of a dataset of another node.")],
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait until this node writes it.")
    ] = 60.0,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="USER", help="The user who owns it then; you if not given."
        ),
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Become the writer of a dataset that another node hands over to this one."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    end = time.monotonic() + wait
    with Session.open(url, token=None, data=data) as session:
        found = session.network.accept_hand_over(name, owner)
        dataset = found["dataset"]  # its name may change
        while _is_accepting(found) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            found = session.network.sharing(dataset)
    if as_json:
        emit_json(found)
    elif found["writer"] is None:
        typer.echo(f"{name} is written here")
    elif _is_accepting(found):
        typer.echo(f"{name} is being handed over by {found['writer']}; that goes on")
    else:
        reason = found["handOverRefusal"]
        why = "" if reason is None else f": {reason}"
        typer.echo(f"{name} is written by {found['writer']}: it was not handed over{why}")
        raise typer.Exit(1)


def _is_accepting(found: dict[str, Any]) -> bool:
    moving = found["handOver"]
    is_accepting: bool = moving is not None and moving["state"] == "accepting"
    return found["writer"] is not None and is_accepting


_HAND_OVER_STATES = {
    "offered": "it is handed over when an admin of {node} runs: platform accept-hand-over {name}",
    "stopped": "it is being handed over to {node}: it accepts no changes until then, or --undo",
    "signed": "it was handed over to {node}, which does not write it yet",
    "accepting": "it is being handed over to this node by {node}",
    "refused": "this node does not accept it; {node} writes on when it hears of that",
}


_SHORT_ID = 16


def _lines(name: str, found: dict[str, Any]) -> list[str]:
    origin = found["forkOf"]
    forked = (
        [] if origin is None
        else [f"{name} is a fork of {origin['name']} version {origin['version']}"]
    )  # fmt: skip
    if not found["shared"]:
        return [f"{name} is private: `platform share {name} --with NODE` shares it", *forked]
    read_only = found["readOnly"] or found["restricted"]
    if found["writerRevoked"]:
        lines = [f"{name} is written by {found['writer'][:_SHORT_ID]}, {WRITER_REVOKED}"]
    elif found["writer"] is not None:
        how = "" if read_only else ", which makes changes of this node"
        lines = [f"{name} is written by {found['writer']}{how}"]
    else:
        readers = "all nodes" if found["nodes"] is None else ", ".join(found["nodes"])
        how = "which read it" if read_only else "which may change its rows"
        lines = [f"{name} is shared with {readers}, {how}"]
    lines += forked
    if (moving := found["handOver"]) is not None:
        lines.append(_HAND_OVER_STATES[moving["state"]].format(name=name, node=moving["node"]))
    if (refusal := found["handOverRefusal"]) is not None:
        lines.append(f"it was not handed over: {refusal}")
    state = found["state"]
    if found["restricted"]:
        lines.append("restricted: its writer answers queries, with what the user may see")
        if state is None or not state["objects"]:
            return lines
    lines.append(f"copies: {found['copies']}")
    if state is not None:
        under, gone = state["underReplicated"], state["unavailable"]
        lines.append(
            f"shards: {state['objects']:,}, {under:,} with too few copies, {gone:,} without any"
        )
        lines += [f"{node} lacks {count:,}" for node, count in state["lacking"].items()]
    return lines
