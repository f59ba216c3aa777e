"""The verb queries: what runs now, and how to stop it."""

from __future__ import annotations

from typing import Annotated

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_SHOWN_MAX = 60


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(queries)


def queries(
    query: Annotated[str | None, typer.Argument(help="With --stop: the id of a query.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the named query.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the queries that run or are queued, or stop one."""
    import time

    from sennit.cli.output import emit_json, table
    from sennit.client import Session
    from sennit_core.errors import UsageError
    from sennit_core.units import format_duration

    if stop != (query is not None):
        raise UsageError("an id goes with --stop", hint="platform queries ID --stop")
    with Session.open(url, token=None, data=data) as session:
        if query is not None:
            session.stop_query(query)
        found = session.queries()
    if as_json:
        emit_json(found)
        return
    now = time.time()
    rows = [
        [
            each["id"],
            each["user"],
            each["state"],
            each["engine"],
            format_duration(max(0.0, now - each["since"])),
            " ".join((each.get("statement") or "").split())[:_SHOWN_MAX],
        ]
        for each in found
    ]
    table(None, ["query", "user", "state", "engine", "time", "statement"], rows, right=("time",))
