"""Step `fragment` of executors: a part of a query of another node that reads rows which came with it.

Request: `sql`, `tables` as of other queries, `sent` (`name`, `columns` as pairs of a name and a type, `files` of Arrow
IPC streams), `sentBytesMax`, and the members that say how a result is sent. A part without such rows is
an ordinary query.

The rows come from another node, so they are checked before DuckDB reads them, and go into temporary tables, which
end with the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from lake.objects.verification import verify_shards
from lake.sql.arrived_rows import insert_arrived
from lake.sql.duckdb_worker import (
    interrupted_on_cancel,
    kept_session,
    limits_of,
    stream_result,
    translated_errors,
)
from lake.sql.guard import check_statement
from lake.sql.sent_columns import declared
from lake.sql.session import SqlLimits, open_write_session
from lake.sql.tables import Table
from lake.sql.types import quoted
from sennit_core.errors import BadInput, Corrupt

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["open_for_rows", "run_fragment"]

_SENT = "rows that came with a part of a query"


@contextmanager
def open_for_rows(
    tables: list[Table], limits: SqlLimits, context: EntryContext
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection that may have temporary tables next to datasets.

    Args:
        tables: The datasets, whose shards are verified first.
        limits: Of the database.
        context: The process.
    """
    verify_shards((shard for table in tables for shard in table.shards), context)
    names = tuple(table.name for table in tables)
    kept = kept_session(tables, names, limits, context, read_only=False)
    with (
        kept or open_write_session(tables, names, limits) as connection,
        interrupted_on_cancel(connection, context),
    ):
        if kept is None:
            context.forgive_reserved()
        yield connection


def run_fragment(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Create tables of the rows, and stream the result of the query.

    Raises:
        BadInput: The rows are not what they should be.
        TooLarge: They are too many.
        SennitError: The error of the query.
    """
    tables = [Table.from_json(table) for table in request["tables"]]
    sql, sent = request["sql"], request["sent"]
    with translated_errors(sql, tables, context):
        check_statement(sql, frozenset(each["name"] for each in (*request["tables"], *sent)))
        limits = limits_of(request, context)
        with open_for_rows(tables, limits, context) as connection:
            left = request["sentBytesMax"]
            for each in sent:
                left -= _insert(connection, each, left, context)
            answer = stream_result(connection, request, context, limits)
    inputs = [table.snapshot for table in tables if table.snapshot is not None]
    return answer | {"inputs": inputs, "engine": "duckdb", "repeatable": False}


def _insert(
    connection: duckdb.DuckDBPyConnection,
    sent: dict[str, Any],
    bytes_max: int,
    context: EntryContext,
) -> int:
    """Create a table of rows; return their size."""
    name = sent["name"]
    connection.execute(f"CREATE TEMP TABLE {quoted(name)} ({declared(sent['columns'])})")
    try:
        return insert_arrived(connection, name, map(Path, sent["files"]), _SENT, context, bytes_max)
    except Corrupt as error:
        # Of the request, and not of a shard: nothing here is damaged.
        raise BadInput(_SENT, reason=error.found or str(error)) from error
