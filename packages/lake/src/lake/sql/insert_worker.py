"""INSERT: its rows, with the defaults of the columns that they have no values for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from lake.sql.changing_statement import ChangingStatement
from lake.sql.defaults import default_of, set_defaults
from lake.sql.query_text import NEW_TABLE, QueryText, rows_query
from lake.sql.restricted_writes import (
    check_assigned,
    check_insertable,
    check_new_rows,
    writable_schema,
)
from lake.sql.returning import open_returned
from lake.sql.session import rows_of_schema
from lake.sql.tables import Table
from lake.sql.types import column_types, quoted
from lake.sql.write_response import check_names, inputs_of, of_target, reports_of, row_count
from lake.sql.write_statements import Insert
from sennit_core.errors import SqlError
from sennit_core.schema import Schema

__all__ = ["insert"]

_FILLED = "__lake_filled"


def insert(write: Insert, statement: ChangingStatement) -> dict[str, Any]:
    """Write the shards of INSERT; return its response."""
    target = statement.target(write.table)
    writable = writable_schema(target)
    check_assigned(target, write.columns or ())
    check_names(write.columns or (), writable)
    check_insertable(target)
    is_list = write.query is None or write.query.text[:6].casefold() == "values"
    query = rows_query(write)
    with (
        open_returned(statement, write, target) as returned,
        # A layout with buckets needs a function in the database.
        statement.session(query, keeps=not target.layout) as (connection, read),
    ):
        if is_list:
            query.is_bound = True
            rows: str | None = _listed(write, target, statement, connection)
        else:
            text = _queried(write, target, statement, connection, query)
            rows = None
            if target.policy is not None or returned is not None:
                # Kept, as the rows that are checked or returned must be those that are written.
                statement.keep(connection, text, NEW_TABLE)
                rows = f"FROM {NEW_TABLE}"
        if rows is None:
            relation = statement.bind(connection, text)
        else:
            check_new_rows(connection, f"({rows})", target)
            relation = connection.sql(rows)
        shards = statement.write(relation, target)
        reads_target = any(table.id == target.id for table in read)
        answer = {
            "action": "append" if shards else "none",
            **of_target(target),
            "shards": reports_of(shards),
            "count": row_count(shards),
            "inputs": inputs_of(read if reads_target else [*read, target]),
        }
        if returned is not None:
            assert rows is not None, "kept"
            returned.add(connection, rows)
            answer |= returned.finish(connection)
        return answer


def _listed(
    write: Insert,
    target: Table,
    statement: ChangingStatement,
    connection: duckdb.DuckDBPyConnection,
) -> str:
    """Insert a list of values into a temporary table; return the query of its rows.

    Each value is cast to its column's type by itself; as rows of a query they would first be cast to
    the types that they have in common.
    """
    writable = writable_schema(target)
    connection.execute(f"CREATE TEMP TABLE {NEW_TABLE} AS {rows_of_schema(writable)}")
    set_defaults(connection, NEW_TABLE, target)
    stop = write.place.offset + len(write.place.text)
    end = None if write.returning is None else write.returning.start
    sql = f"{statement.sql[: write.place.offset]}{NEW_TABLE}{statement.sql[stop:end]}"
    statement.execute(connection, sql)
    if writable == target.schema:
        return f"FROM {NEW_TABLE}"
    # Kept, because a default such as random() would have another value each time.
    values = ", ".join(
        quoted(name)
        if name in writable.names
        else f"{default_of(target, name, kind)} AS {quoted(name)}"
        for name, kind in column_types(target.schema).items()
    )
    connection.execute(f"CREATE TEMP TABLE {_FILLED} AS SELECT {values} FROM {NEW_TABLE}")
    return f"FROM {_FILLED}"


def _queried(
    write: Insert,
    target: Table,
    statement: ChangingStatement,
    connection: duckdb.DuckDBPyConnection,
    query: QueryText,
) -> str:
    """Bind the query of INSERT; return it with all columns of the dataset."""
    found = statement.bind(connection, query.text).columns
    check_assigned(target, found if write.by_name else ())
    places = _places(write, found, writable_schema(target))
    columns = sorted(places, key=places.__getitem__)
    values = ", ".join(
        f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}"
        if name in places
        else f"{default_of(target, name, kind)} AS {quoted(name)}"
        for name, kind in column_types(target.schema).items()
    )
    query.is_bound = True
    return f"SELECT {values} FROM ({query.text}) AS q({', '.join(map(quoted, columns))})"


def _places(write: Insert, found: Sequence[str], schema: Schema) -> dict[str, int]:
    """Return for each column that gets values the index of the query's column."""
    known = {name.casefold(): name for name in schema.names}
    wanted = found if write.by_name else write.columns or schema.names
    check_names(wanted, schema)
    if len(found) != len(wanted):
        raise SqlError(
            f"the rows have {len(found)} values for {len(wanted)} columns",
            hint=f"the columns are {', '.join(wanted)}",
        )
    return {known[name.casefold()]: index for index, name in enumerate(wanted)}
