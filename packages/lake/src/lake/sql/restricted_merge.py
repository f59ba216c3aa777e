"""MERGE by users from whom a policy hides or masks columns.

MERGE runs as it is written on a temporary table of what the user sees, so masked values are all that its
conditions can meet. The rows are then put together again: DuckDB keeps the `rowid` of a row that it
updates in place, by which the row gets its hidden and masked values back; a row that was added has another
one, and gets the defaults of these columns. Columns whose values DuckDB does not update in place (lists)
are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lake.sql.defaults import default_of
from lake.sql.policies import shown_columns
from lake.sql.restricted_writes import check_assigned, check_insertable
from lake.sql.tables import Table
from lake.sql.types import column_types, quoted
from lake.sql.write_statements import Merge
from sennit_core.errors import Denied, Unsupported

if TYPE_CHECKING:
    import duckdb

__all__ = ["check_restricted_merge", "hides_columns", "keep_for_merge", "merged_rows"]

_WHOLE = "__lake_whole"
_MERGED = "__lake_merged"


def hides_columns(target: Table) -> bool:
    """Return whether the user sees some columns of a dataset not, or masked."""
    return target.policy is not None and bool(target.policy.columns)


def check_restricted_merge(write: Merge, target: Table) -> None:
    """Refuse a MERGE that sets what the user does not see, or whose rows would lose hidden values.

    Raises:
        Denied: It sets masked columns, or inserts rows that need hidden values.
        Unsupported: A column is of a type that is not updated in place.
    """
    if not hides_columns(target):
        return
    assert target.policy is not None
    if write.assigned is None and any(target.policy.columns.values()):
        raise Denied(
            f"setting all columns of {target.name!r}, of which some are masked",
            needed="a policy that shows them",
            hint="name columns: UPDATE SET a = s.a, and INSERT (a, b) VALUES (s.a, s.b)",
        )
    if any(name.casefold() == "rowid" for name in target.schema.names):  # which may be hidden
        raise Unsupported(
            f"MERGE into {target.name!r} under your policy",
            hint="UPDATE … FROM, DELETE … USING and INSERT do the same",
        )
    check_assigned(target, write.assigned or ())
    if write.inserts:
        check_insertable(target)
    for field in target.schema:
        if field.name in target.names and field.type.name in ("List", "Struct"):
            raise Unsupported(
                f"MERGE into {target.name!r}, of which your policy hides columns and which has a "
                f"column of the type {field.type}",
                hint="UPDATE … FROM, DELETE … USING and INSERT do the same",
            )


def keep_for_merge(
    connection: duckdb.DuckDBPyConnection, target: Table, rows: str, table: str
) -> None:
    """Keep the rows that MERGE may change, whole and as the user sees them, in the same order.

    Args:
        connection: A connection of the statement. A transaction begins, which it never commits: no
            `rowid` changes in it.
        target: The dataset.
        rows: The query of the rows, with all columns.
        table: The name of the table of what the user sees, quoted.
    """
    assert target.policy is not None
    connection.execute("BEGIN TRANSACTION")
    connection.execute(f"CREATE TEMP TABLE {_WHOLE} AS {rows}")
    shown = ", ".join(shown_columns(target.name, target.schema, target.policy))
    connection.execute(f"CREATE TEMP TABLE {table} AS SELECT {shown} FROM {_WHOLE} ORDER BY rowid")


def merged_rows(connection: duckdb.DuckDBPyConnection, target: Table, table: str) -> str:
    """Keep the rows after MERGE with all columns; return the table.

    Args:
        connection: A connection of the statement.
        target: The dataset.
        table: The table that MERGE has changed, quoted.
    """
    assert target.policy is not None
    hidden = target.policy.columns
    columns = ", ".join(
        f"CASE WHEN w.rowid IS NULL THEN {default_of(target, name, kind)} ELSE w.{quoted(name)} END "
        f"AS {quoted(name)}"
        if name in hidden
        else f"m.{quoted(name)}"
        for name, kind in column_types(target.schema).items()
    )
    connection.execute(
        f"CREATE TEMP TABLE {_MERGED} AS SELECT {columns} FROM {table} AS m "
        f"LEFT JOIN {_WHOLE} AS w ON w.rowid = m.rowid ORDER BY m.rowid"
    )
    return _MERGED
