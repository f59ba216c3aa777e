"""The verb `platform net queue`: appends that wait for the nodes that write their datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_TEXT_MAX = 60


def queue(
    remove: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Take an append back, or remove one that has ended.",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Queue an append again that was refused or has expired.",
            show_default=False,
        ),
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="With --remove: also one that may be committed.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the appends that wait for other nodes, or that these have refused."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if (remove is not None and retry is not None) or (forget and remove is None):
        raise UsageError("--remove and --retry exclude each other, and --forget needs --remove")
    with Session.open(url, token=None, data=data) as session:
        if remove is not None:
            found = [session.network.unqueue(remove, forget=forget)]
        elif retry is not None:
            found = [session.network.requeue(retry)]
        else:
            found = session.network.queue()
    if as_json:
        emit_json(found)
    elif remove is not None:
        typer.echo(f"removed {remove}, which was {found[0]['state']}")
    elif retry is not None:
        typer.echo(f"queued again as {found[0]['id']}")
    else:
        _print(found)


def _print(found: Sequence[dict[str, Any]]) -> None:
    from sennit.cli.output import table
    from sennit_core.text import escape_controls
    from sennit_core.units import format_bytes

    if not found:
        typer.echo("no append waits")
        return
    rows = [
        [
            each["id"], each["state"], each["dataset"], each["writer"][:20], each["user"],
            format_bytes(each["bytes"]), escape_controls(each["statement"])[:_TEXT_MAX],
        ]
        for each in found
    ]  # fmt: skip
    names = ["id", "state", "dataset", "writer", "user", "size", "statement"]
    table("Queued appends", names, rows, right=["size"])
    for each in found:
        if each["error"] is not None:
            typer.echo(f"{each['id']}: {escape_controls(each['error']['error'])}")
