"""`platform sql`: a query, and its answer as a table, as CSV or as JSON.

The node writes the text of every value, so all three show the same: decimals in full, instants in
UTC, bytes in base64, lists and structs as JSON. Small answers travel as JSON and need no Arrow here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sennit.cli.plain_http import open_answer
from sennit.cli.rows import Rows, as_rows, parse_rows, show
from sennit.find import find_node
from sennit_core.errors import UsageError

__all__ = ["Query", "run_query"]

_PATH = "/api/query"
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked on the command line; `limit` 0 shows all rows."""

    sql: str
    limit: int = 100
    as_csv: bool = False
    as_json: bool = False
    engine: str = "auto"
    data: Path | None = None
    url: str | None = None


def run_query(query: Query) -> None:
    """Run the query and print its answer.

    Raises:
        UsageError: the limit is negative.
        SennitError: what the node answered.
    """
    if query.limit < 0:
        raise UsageError(f"--limit is {query.limit}", hint="0 shows all rows")
    address = find_node(query.data, query.url)
    if query.as_csv:
        _print_csv(query, address)
    elif query.as_json:
        found, engine = _fetch(query, address, None)
        document = {"columns": found.columns, "rows": found.rows, "engine": engine}
        indent = 2 if sys.stdout.isatty() else None
        print(json.dumps(document, ensure_ascii=False, indent=indent))
    else:
        _print_table(query, address)


def _print_csv(query: Query, address: tuple[str, str | None]) -> None:
    document = {"sql": query.sql, "engine": query.engine}
    sys.stdout.flush()
    with open_answer(*address, _PATH, document, accept="text/csv") as answer:
        while piece := answer.read(_PIECE_BYTES):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _print_table(query: Query, address: tuple[str, str | None]) -> None:
    found, _engine = _fetch(query, address, query.limit or None)
    show(found)
    if found.truncated:
        sys.stdout.flush()
        print("… there are more rows; --limit 0 shows all", file=sys.stderr)


def _fetch(
    query: Query, address: tuple[str, str | None], max_rows: int | None
) -> tuple[Rows, str | None]:
    """Return the rows, at most `max_rows` (all of them where that is None), and the engine."""
    document: dict[str, Any] = {"sql": query.sql, "engine": query.engine}
    if max_rows is not None:
        document["maxRows"] = max_rows
    with open_answer(*address, _PATH, document, accept="application/json") as answer:
        engine = answer.headers.get("Sennit-Engine")
        found = parse_rows(answer.read())
    if found.truncated and len(found.rows) != max_rows:
        # The node ends JSON answers at analytics.json_rows_max; Arrow has no such limit.
        return _fetch_large(query, max_rows)
    return found, engine


def _fetch_large(query: Query, max_rows: int | None) -> tuple[Rows, str | None]:
    from sennit.client import Session

    with Session.open(query.url, token=None, data=query.data) as session:
        result = session.sql(query.sql, engine=query.engine)
        arrow = result.to_arrow()
    found = as_rows(arrow.schema, arrow.to_batches(), max_rows=max_rows)
    return found, result.manifest.get("engine")
