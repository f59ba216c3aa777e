"""The verbs share, unshare and fork: which nodes read or change a dataset, and where copies are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (share, unshare, fork):
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
                copies=copies or 1,
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


def _lines(name: str, found: dict[str, Any]) -> list[str]:
    if not found["shared"]:
        return [f"{name} is private: `platform share {name} --with NODE` shares it"]
    read_only = found["readOnly"] or found["restricted"]
    if found["writer"] is not None:
        how = "" if read_only else ", which makes changes of this node"
        lines = [f"{name} is written by {found['writer']}{how}"]
    else:
        readers = "all nodes" if found["nodes"] is None else ", ".join(found["nodes"])
        how = "which read it" if read_only else "which may change its rows"
        lines = [f"{name} is shared with {readers}, {how}"]
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
