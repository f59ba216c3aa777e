"""Changes by users of whom a policy hides rows or columns.

Such a user changes the dataset as if it were what they see: rows outside of the view are neither
found nor touched, and masked and hidden columns are neither read nor set; their values stay. A new or
changed row must be in the view, as PostgreSQL's WITH CHECK demands. What the user sees is kept in a
temporary table, on which the user's conditions are computed; shards are then written anew whole, by
queries without a word of the user's. What cannot be done so is refused: `design/0139-changes-under-a-policy.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lake.sql.policies import bound_expression, restricted_rows
from lake.sql.session import columns_of, numbered_shards
from lake.sql.tables import Table
from lake.sql.write_statements import CreateTable, Delete, Insert, Merge, Update, Write
from sennit_core.errors import Denied
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "SEEN",
    "check_assigned",
    "check_insertable",
    "check_kind",
    "check_new_rows",
    "hidden_rows",
    "in_order",
    "keep_visible_rows",
    "numbers_of_seen",
    "visible_condition",
    "writable_schema",
]

SEEN = "__lake_seen"
_SEEN_NUMBERS = "__lake_seen_numbers"


def check_kind(write: Write, tables: Iterable[Table]) -> None:
    """Refuse statements that change more than rows of a dataset that the user sees a part of."""
    name = write.table.casefold()
    target = next((t for t in tables if name in (t.name.casefold(), t.id)), None)
    if (
        target is None
        or target.policy is None
        or isinstance(write, Insert | Update | Delete | Merge)
    ):
        return
    if isinstance(write, CreateTable) and not write.replaces:
        return  # the dataset exists, and stays
    raise Denied(
        f"changing dataset {target.name!r}, of which your policy shows a part, in this way",
        needed="a policy without rows and columns",
        hint="INSERT, UPDATE, DELETE and MERGE change the rows that you see; its owner, and users who "
        "see all of it, change its columns, replace and drop it",
    )


def writable_schema(table: Table) -> Schema:
    """Return the columns that the user may set: those that are shown as they are."""
    if table.policy is None:
        return table.schema
    fields = (field for field in table.schema.fields if field.name not in table.policy.columns)
    return Schema(tuple(fields))


def check_assigned(table: Table, names: Iterable[str]) -> None:
    """Refuse to set a masked column; a hidden one does not exist, which the caller reports."""
    masks = {} if table.policy is None else table.policy.columns
    masked = {name.casefold(): name for name, mask in masks.items() if mask is not None}
    for name in names:
        if name.casefold() in masked:
            raise Denied(
                f"setting column {masked[name.casefold()]!r} of {table.name!r}, which is masked",
                needed="a policy that shows the column",
            )


def check_insertable(table: Table) -> None:
    """Refuse new rows that would lack a value; it names no column, since one may be hidden."""
    columns = {} if table.policy is None else table.policy.columns
    required = (f.name for f in table.schema if not f.nullable and f.name not in table.defaults)
    if any(name in columns for name in required):
        raise Denied(
            f"inserting into {table.name!r}: new rows need values that your policy does not let "
            "you set",
            needed="a policy that shows the columns which are NOT NULL",
        )


def keep_visible_rows(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Keep what the user sees in `SEEN`, and the numbers of these rows in another table.

    As further columns, the numbers would be in a row as a whole (`to_json(t)`) and in
    COLUMNS(*), and their gaps would count the hidden rows. A table's own `rowid` is in neither, and
    only counts what is seen.

    Args:
        connection: A connection of the statement.
        table: The dataset; nothing is done unless `is_kept`.
    """
    if not table.is_kept:
        return
    numbers = ", ".join(table.number_columns)
    source = numbered_shards(table)
    if table.policy is None:
        rows = f"SELECT {columns_of(table, 's')}, {numbers} FROM {source} AS s"
    else:
        rows = restricted_rows(source, table.name, table.schema, table.policy, table.number_columns)
    ordered = f"FROM ({rows}) ORDER BY {numbers}"
    # Both in the same order, so that a row's numbers are those of the same `rowid`.
    connection.execute(f"CREATE TEMP TABLE {SEEN} AS SELECT * EXCLUDE ({numbers}) {ordered}")
    connection.execute(f"CREATE TEMP TABLE {_SEEN_NUMBERS} AS SELECT {numbers} {ordered}")


def numbers_of_seen(alias: str, table: Table) -> str:
    """Return the numbers of a row of `SEEN`, as two columns."""
    return ", ".join(
        f"(SELECT n.{number} FROM {_SEEN_NUMBERS} AS n WHERE n.rowid = {alias}.rowid)"
        for number in table.number_columns
    )


def visible_condition(table: Table) -> str:
    """Return the condition of the rows that the user sees; "true" for all."""
    if table.policy is None or table.policy.rows is None:
        return "true"
    return f"TRY((\n{bound_expression(table.policy.rows, table.policy)}\n))"


def hidden_rows(table: Table, source: str) -> str:
    """Return the query of the rows of some shards that the user does not see, in order."""
    return (
        f"SELECT {columns_of(table, 's')} FROM {source} AS s "
        f"WHERE {visible_condition(table)} IS NOT TRUE ORDER BY {in_order('s', table)}"
    )


def in_order(alias: str, table: Table) -> str:
    """Return the terms of ORDER BY for the order of rows in shards."""
    return ", ".join(f"{alias}.{number}" for number in table.number_columns)


def check_new_rows(connection: duckdb.DuckDBPyConnection, rows: str, table: Table) -> None:
    """Refuse rows that the user would not see.

    Args:
        connection: A connection of the statement.
        rows: The new rows, with all columns of the dataset, as an item of FROM.
        table: The dataset.

    Raises:
        Denied: There is one. The error says no more, and nothing was written.
    """
    if table.policy is None or table.policy.rows is None:
        return
    query = f"SELECT count(*) FROM {rows} WHERE {visible_condition(table)} IS NOT TRUE"
    ((found,),) = connection.execute(query).fetchall()
    if found:
        raise Denied(
            f"writing rows into {table.name!r} that your policy would hide from you",
            needed="rows that fulfil the condition of your policy",
        )
