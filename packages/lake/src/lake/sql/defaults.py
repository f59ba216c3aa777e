"""The defaults of columns: expressions without columns, kept as text by the ids of the columns.

DuckDB computes them as it does for its own tables: `now()` is constant within a statement, and
`random()` and `uuid()` have another value in each row. `design/0146-column-defaults.md`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from lake.sql.batches import read_batches
from lake.sql.changing_statement import ChangingStatement, stored_batch
from lake.sql.column_definitions import ColumnDefinition
from lake.sql.duckdb_worker import translated_errors
from lake.sql.guard import expression_nodes, open_parser
from lake.sql.query_text import QueryText
from lake.sql.statement_reader import Clause
from lake.sql.types import column_types, quoted
from lake.sql.volatility import is_volatile_name
from sennit_core.errors import TooLarge, Unsupported
from sennit_core.records import ColumnDefault
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.sql.tables import Table

__all__ = [
    "check_default",
    "check_defaults",
    "default_of",
    "no_encrypted_default",
    "set_defaults",
    "values_of_defaults",
]

_TEXT_MAX = 4 << 10
_ROWWISE = frozenset(("random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"))
# What has another value at another time, and is of use as a default.
_ALLOWED = _ROWWISE | frozenset(
    ("now", "current_timestamp", "get_current_timestamp", "transaction_timestamp", "current_date",
     "today", "current_time", "get_current_time", "localtime", "localtimestamp",
     "current_localtime", "current_localtimestamp")
)  # fmt: skip
# Consistent in DuckDB's list, and about a session, which no user of a node has.
_SESSION = frozenset(
    ("user", "session_user", "current_user", "current_role", "current_catalog", "current_database",
     "current_schema", "current_schemas", "current_query")
)  # fmt: skip


def check_default(
    column: str, kind: str, default: Clause, statement: ChangingStatement
) -> str | None:
    """Return the text of a default; None if it is NULL.

    Args:
        column: The column.
        kind: Its type, in SQL.
        default: The expression.
        statement: The statement.

    Raises:
        SqlError: It is no expression without columns, or has no value of this type.
        Denied: It uses a function that does not only compute.
        Unsupported: It depends on the session.
    """
    if len(default.text) > _TEXT_MAX:
        raise TooLarge(f"the default of column {column!r}", _TEXT_MAX, len(default.text))
    name = quoted(column)
    query = QueryText(f"CREATE TEMP TABLE t ({name} {kind} DEFAULT (", default, "\n))")
    with (
        query.placed_errors(statement.sql),
        translated_errors(query.text, [], statement.context),
        closing(open_parser()) as connection,
    ):
        # Binds it, and refuses subqueries, columns, aggregates and window functions by name.
        connection.execute(query.text)
        _check_functions(column, default.text)
        query.is_bound = True
        connection.execute("INSERT INTO t DEFAULT VALUES")
    return None if default.text.casefold() == "null" else default.text


def check_defaults(
    columns: Sequence[ColumnDefinition], statement: ChangingStatement
) -> list[dict[str, Any]]:
    """Check the defaults of a new dataset's columns; return them as records (`ColumnDefault`)."""
    found = []
    for number, column in enumerate(columns, 1):
        if column.default is not None:
            sql = check_default(column.name, column.type.text, column.default, statement)
            if sql is not None:
                found.append(ColumnDefault(number, sql).to_json())
    return found


def _functions(text: str) -> set[str]:
    """Return the names of the functions in an expression; `current_date` is a column in its tree."""
    found: set[str] = set()
    for node in expression_nodes(text):
        names = [node["function_name"]] if "function_name" in node else node.get("column_names", [])
        found.update(str(name).casefold() for name in names[-1:])
    return found


def _check_functions(column: str, text: str) -> None:
    for used in sorted(_functions(text)):
        if used in _SESSION or (is_volatile_name(used) and used not in _ALLOWED):
            raise Unsupported(
                f"{used} in the default of column {column!r}",
                hint="use constants, the clock, random() or uuid()",
            )


def default_of(table: Table, name: str, kind: str) -> str:
    """Return the value that a new row has in a column for which there is none, as an expression."""
    return f"CAST(({table.defaults.get(name, 'NULL')}\n) AS {kind})"


def set_defaults(connection: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    """Set the defaults of the columns of a temporary table, which are some of a dataset."""
    shown = {column[0] for column in connection.execute(f"DESCRIBE {name}").fetchall()}
    for column, default in table.defaults.items():
        if column in shown:
            connection.execute(
                f"ALTER TABLE {name} ALTER COLUMN {quoted(column)} SET DEFAULT ({default}\n)"
            )


def values_of_defaults(request: dict[str, Any]) -> dict[str, Any]:
    """Compute the defaults of a dataset for a file that lacks columns: step `defaults` of `lake.sql`.

    Args:
        request: `schema` of the dataset, and `defaults` by the names of columns.

    Returns:
        `values`, an Arrow IPC stream of one row in base64, and `rowwise`, the names of columns whose
        default has another value in each row.
    """
    schema = Schema.from_json(request["schema"])
    types, defaults = column_types(schema), request["defaults"]
    rowwise = [name for name, sql in defaults.items() if _functions(sql) & _ROWWISE]
    fields = [each for each in schema if each.name in defaults and each.name not in rowwise]
    columns = ", ".join(
        f"CAST(({defaults[field.name]}\n) AS {types[field.name]}) AS {quoted(field.name)}"
        for field in fields
    )
    found = Schema(tuple(fields)).to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found) as writer, closing(open_parser()) as connection:
        if columns:
            with read_batches(connection.sql(f"SELECT {columns}")) as (_, batches):
                for batch in batches:
                    writer.write_batch(stored_batch(batch, found))
    return {"values": base64.b64encode(sink.getvalue()).decode(), "rowwise": rowwise}


def no_encrypted_default(table: str) -> Unsupported:
    """Return the error for a default in a dataset whose values are not to be in its manifest."""
    return Unsupported(
        f"a default in {table!r}, which is encrypted",
        hint="its value would be in the manifest, which is not encrypted: say it in each INSERT",
    )
