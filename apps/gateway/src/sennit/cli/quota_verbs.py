"""The verb quota: how much each user may store and run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_FOREIGN = re.compile(r"\*@(?P<node>[0-9a-f]{64})")
_SHORT_ID = 16


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(quota)


def quota(
    user: Annotated[str | None, typer.Argument(help="The user.", show_default=False)] = None,
    disk: Annotated[str | None, typer.Option("--disk", help="Stored bytes, as 10GiB.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory of all running statements, as 1GiB.")
    ] = None,
    statements: Annotated[
        int | None, typer.Option("--statements", help="Statements at once.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option("--per-minute", help="Statements in a minute.")
    ] = None,
    weight: Annotated[
        int | None, typer.Option("--weight", help="Share of the workers of jobs, 1 to 100.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the quota.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the quotas of users, or show, set or remove one; 0 is no limit."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError
    from sennit_core.units import parse_bytes

    limits: dict[str, int | None] = {
        "diskBytes": None if disk is None else parse_bytes(disk),
        "memoryBytes": None if memory is None else parse_bytes(memory),
        "statements": statements,
        "statementsPerMinute": per_minute,
        "jobWeight": weight,
    }
    changes = {name: value for name, value in limits.items() if value is not None}
    if (changes or clear) and user is None:
        raise UsageError("a quota has a user", hint="platform quota USER --disk 10GiB")
    if changes and clear:
        raise UsageError("--clear contradicts the other options", hint="use one of them")
    with Session.open(url, token=None, data=data) as session:
        if user is None:
            found = session.quotas()
        else:
            if clear:
                session.clear_quota(user)
            before = session.quota(user)
            if changes:
                # Those that are not named stay.
                before = session.set_quota(user, {name: before[name] for name in limits} | changes)
            found = [before]
        names = {} if as_json else _node_names(session, found)
    if as_json:
        emit_json(found if user is None else found[0])
    else:
        _print(found, names)


def _node_names(session: Any, quotas: list[dict[str, Any]]) -> dict[str, str]:
    """Return the names of nodes by their ids, if a quota is of users of other nodes."""
    if not any(_FOREIGN.fullmatch(each["user"]) for each in quotas):
        return {}
    return {each["id"]: each["name"] for each in session.network.show()["nodes"]}


def _shown_user(user: str, names: Mapping[str, str]) -> str:
    """Return `*@` with the name of the node, or the beginning of its id if it is no member."""
    found = _FOREIGN.fullmatch(user)
    if found is None:
        return user
    return f"*@{names.get(found['node'], found['node'][:_SHORT_ID])}"


def _print(quotas: list[dict[str, Any]], names: Mapping[str, str]) -> None:
    from sennit.cli.output import table
    from sennit_core.units import format_bytes

    def size(value: int) -> str:
        return format_bytes(value) if value else "no limit"

    rows = [
        [
            _shown_user(each["user"], names),
            format_bytes(each["storedBytes"]),
            format_bytes(each["queuedBytes"]),
            size(each["diskBytes"]),
            size(each["memoryBytes"]),
            f"{each['statements']:,}" if each["statements"] else "no limit",
            f"{each['statementsPerMinute']:,}" if each["statementsPerMinute"] else "no limit",
            str(each["jobWeight"]),
        ]
        for each in quotas
    ]
    columns = ["user", "stored", "queued", "disk", "memory", "statements", "per minute", "weight"]
    table(None, columns, rows, right=columns[1:])
