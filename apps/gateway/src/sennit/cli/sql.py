"""`platform sql`: run a query and print the result as a table, CSV or JSON.

The node formats every value, so all three show the same text: decimals in full, instants in UTC,
bytes in base64, lists and structs as JSON. Tables are received as JSON, so Arrow is not imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sennit.cli.plain_http import open_response
from sennit.cli.rows import Rows, parse_rows, show
from sennit.find import find_node
from sennit_core.errors import UsageError

__all__ = ["Query", "queued_note", "run_query"]

_PATH = "/api/query"
_PIECE_BYTES = 1 << 16
_ROWS_MAX = (1 << 63) - 1
"""Sent to request all rows: without maxRows, JSON is cut at analytics.json_rows_max."""


@dataclass(frozen=True, slots=True)
class Query:
    """The options of `platform sql`; `limit` 0 shows all rows."""

    sql: str
    limit: int = 100
    as_csv: bool = False
    as_json: bool = False
    engine: str = "auto"
    priority: str = "interactive"
    allow_partial: bool = False
    queue: bool = False
    data: Path | None = None
    url: str | None = None


def run_query(query: Query) -> None:
    """Run the query and print its result.

    Raises:
        UsageError: the limit is negative.
        SennitError: the node's error.
    """
    if query.limit < 0:
        raise UsageError(f"--limit is {query.limit}", hint="0 shows all rows")
    address = find_node(query.data, query.url)
    if query.as_csv:
        _print_csv(query, address)
    elif query.as_json:
        found, headers = _fetch(query, address, None)
        engine = headers.get("Sennit-Engine")
        document: dict[str, Any] = {
            "columns": found.columns, "rows": found.rows, "engine": engine
        }  # fmt: skip
        if (missing := _missing(headers)) is not None:
            document["missing"] = missing
        indent = 2 if sys.stdout.isatty() else None
        print(json.dumps(document, ensure_ascii=False, indent=indent))
    else:
        _print_table(query, address)


def _print_csv(query: Query, address: tuple[str, str | None]) -> None:
    sys.stdout.flush()
    with open_response(*address, _PATH, _document(query), accept="text/csv") as response:
        _note_missing(response.headers)
        while piece := response.read(_PIECE_BYTES):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _print_table(query: Query, address: tuple[str, str | None]) -> None:
    found, headers = _fetch(query, address, query.limit or None)
    show(found)
    sys.stdout.flush()
    _note_missing(headers)
    if found.truncated:
        print("… there are more rows; --limit 0 shows all", file=sys.stderr)


def _fetch(
    query: Query, address: tuple[str, str | None], max_rows: int | None
) -> tuple[Rows, Mapping[str, str]]:
    """Return the rows, at most `max_rows` (None: all), and the headers of the response."""
    document = _document(query) | {"maxRows": max_rows or _ROWS_MAX}
    with open_response(*address, _PATH, document, accept="application/json") as response:
        return parse_rows(response.read()), response.headers


def _document(query: Query) -> dict[str, Any]:
    document: dict[str, Any] = {
        "sql": query.sql, "engine": query.engine, "priority": query.priority
    }  # fmt: skip
    # A node of an earlier version refuses a member that it does not know.
    members = {"allowPartial": query.allow_partial, "queue": query.queue}
    return document | {name: True for name, value in members.items() if value}


def queued_note(append: str) -> str:
    """Return the note for a user about an append that waits."""
    return (
        f"append {append} waits until the node that writes the dataset is back; until then no query "
        "has its rows (platform net queue)"
    )


def _missing(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a partial result leaves out; None of a whole one."""
    text = headers.get("Sennit-Missing")
    return None if text is None else json.loads(text)


def _note_missing(headers: Mapping[str, str]) -> None:
    if (awaited := headers.get("Sennit-Awaited-Version")) is not None:
        print(f"the change is made, but its version {awaited} is not here yet", file=sys.stderr)
    if (queued := headers.get("Sennit-Queued")) is not None:
        print(queued_note(queued), file=sys.stderr)
    missing = _missing(headers)
    if missing is not None:
        note_missing(missing)


def note_missing(missing: Mapping[str, Any]) -> None:
    """Print what a partial result leaves out, apart from the result."""
    print(
        f"the result is partial: {missing['shards']} shards with {missing['rows']} rows are missing",
        file=sys.stderr,
    )
    for each in missing["datasets"]:
        nodes = ", ".join(each["nodes"]) or "unknown"
        print(
            f"  {each['dataset']}: {each['shards']} shards, {each['rows']} rows; on nodes: {nodes}",
            file=sys.stderr,
        )
