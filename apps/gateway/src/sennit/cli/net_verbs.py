"""The verbs of `platform net`: the network of nodes."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.net_discover_verb import discover, find_announced, is_fingerprint
from sennit.cli.net_health_verbs import check, heal, network_map
from sennit.cli.net_leave_verb import leave
from sennit.cli.net_queue_verb import queue
from sennit.cli.node_verbs import Data, Json

_POLL_SECONDS = 2.0
_LOCAL = (
    "only nodes of this machine can use it, as this node listens on a loopback address; "
    "set network.peer_host for others (docs/network.md)"
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    net = typer.Typer(no_args_is_help=True, help="Form a network with other nodes.")
    for verb in (nodes, discover, check, heal, invite, join, accept, revoke, leave, queue):
        net.command()(verb)
    net.command("map")(network_map)
    app.add_typer(net, name="net")


def nodes(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """List the nodes of the network, and those that wait to join."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        found = session.network.show()
    if as_json:
        emit_json(found)
    else:
        _print(found)


def invite(
    admin: Annotated[
        bool, typer.Option("--admin", help="The new node may admit and remove others.")
    ] = False,
    hours: Annotated[
        float, typer.Option("--hours", min=0.01, max=720, help="How long it can be used.")
    ] = 24.0,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print an invite for one node; the first one founds a network."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        text = session.network.invite(seconds=hours * 3600, admin=admin)
        addresses = session.network.show()["nodes"][0]["addresses"]
    if as_json:
        emit_json({"invite": text})
    else:
        typer.echo(text)
        if addresses and not _reaches_others(addresses):
            typer.echo(f"note: {_LOCAL}", err=True)


def join(
    invite_or_address: Annotated[
        str,
        typer.Argument(
            metavar="INVITE|HOST:PORT|FINGERPRINT",
            help="An invite (- reads it from stdin), a node to ask, or one that `discover` lists.",
        ),
    ],
    node: Annotated[
        str | None, typer.Option("--node", help="The id of the node to ask.", show_default=False)
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait to be accepted.")
    ] = 600.0,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Join a network, by an invite or by asking a node whose owner accepts this one."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if invite_or_address == "-":
        invite_or_address = sys.stdin.readline().strip()
    is_invite = invite_or_address.startswith("sennit-invite:")
    is_announced = not is_invite and node is None and is_fingerprint(invite_or_address)
    if not (is_invite or is_announced) and node is None:
        raise UsageError(
            "asking a node needs its id",
            hint="--node ID: `platform net nodes` shows it there; or use an invite",
        )
    with Session.open(url, token=None, data=data) as session:
        if is_invite:
            found = session.network.join(invite_or_address)
        elif is_announced:
            node, addresses = find_announced(session.network, invite_or_address)
            found = _ask(session.network, addresses, node, wait)
        else:
            assert node is not None, "checked above"
            found = _ask(session.network, [invite_or_address], node, wait)
    if as_json:
        emit_json(found)
    else:
        typer.echo(f"joined network {found['network'][:16]}")
        _print(found)


def accept(
    fingerprint: Annotated[str, typer.Argument(help="As the owner of the node reads it out.")],
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Admit a node that waits to join."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        member = session.network.accept(fingerprint)
    if as_json:
        emit_json(member)
    else:
        typer.echo(f"{member['name']} is a member now")


def revoke(
    node: Annotated[str, typer.Argument(help="Name or id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Remove a node from the network for ever."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        if not yes:
            # Before the question: an unknown name, or a refusal, needs no answer.
            found = session.network.revocable(node)
            which = f"{found['name']} ({found['id'][:16]})"
            if not typer.confirm(f"Remove {which} for ever?", err=True):
                raise typer.Exit(1)
            node = found["id"]
        member = session.network.revoke(node)
    if as_json:
        emit_json(member)
    else:
        typer.echo(f"{member['name']} is no member any more")


def _ask(network: Any, addresses: list[str], node: str, wait: float) -> dict[str, Any]:
    """Ask to join, at the first address that answers, until an admin accepts this node."""
    from sennit_core.errors import Unavailable, WaitingToJoin

    end = time.monotonic() + wait
    shown = False
    while True:
        try:
            return dict(network.ask_to_join(addresses[0], node))
        except Unavailable:
            if len(addresses) == 1:
                raise
            addresses = addresses[1:]
        except WaitingToJoin:
            if time.monotonic() >= end:
                raise
            if not shown:
                own = network.show()["node"]["fingerprint"]
                typer.echo(
                    f"waiting until an admin there runs: platform net accept {own}", err=True
                )
                shown = True
            time.sleep(_POLL_SECONDS)


def _reaches_others(addresses: list[str]) -> bool:
    """Whether one of a node's addresses leads to it from another machine."""
    from sennit.settings import is_loopback

    hosts = [address.rpartition(":")[0].strip("[]") for address in addresses]
    return not all(map(is_loopback, hosts))


def _print(found: dict[str, Any]) -> None:
    from sennit.cli.output import table

    own = found["node"]
    typer.echo(f"this node: {own['name']}   fingerprint {own['fingerprint']}   id {own['id']}")
    if found["network"] is None:
        typer.echo("it is in no network: `platform net invite` founds one, net join joins one")
        return
    if found["revoked"]:
        typer.echo("it was removed from its network: `platform net leave` forgets that network")
    rows = [
        [
            each["name"],
            each["state"],
            each["zone"] or "",
            "admin" if each["admin"] else "",
            ", ".join(each["addresses"]) or "not dialable",
            "" if each["rttSeconds"] is None else f"{each['rttSeconds'] * 1000:.0f} ms",
            ", ".join(each["cannot"]),
        ]
        for each in found["nodes"]
    ]
    columns = ["node", "state", "zone", "role", "address", "round trip", "cannot"]
    table(None, columns, rows, right=["round trip"])
    for each in found["waiting"]:
        typer.echo(f"waits to join: {each['name']}   fingerprint {each['fingerprint']}")
