"""Views in an executor: which ones a statement reads, and their queries, checked once more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb

from lake.sql.guard import Statement, check_statement
from lake.sql.tables import Table
from lake.sql.types import quoted
from lake.views.graph import check_view_graph
from sennit_core.errors import Corrupt, SennitError, SqlError

__all__ = ["broken_view", "checked_view", "create_view", "names_of", "views_read"]


def views_read(tables: Mapping[str, Table], name: str) -> list[Table]:
    """Return the view with a name after the views that it reads, each after those that it reads.

    Args:
        tables: What the statement may read, by casefolded name.
        name: The view.

    Raises:
        SqlError: The view, or one that it reads, cannot be used.
    """
    queries = {key: t.view for key, t in tables.items() if t.view is not None}
    order = check_view_graph(name, {key: view.reads for key, view in queries.items()})
    found = [tables[key] for key in order]
    for table in found:
        checked_view(table)
        for each in table.view.reads if table.view is not None else ():
            if each.casefold() not in tables:
                raise broken_view(table, f"there is no dataset or view {each!r}")
    return found


def checked_view(table: Table) -> Statement:
    """Return what a view's query reads: it has been checked when the view was created.

    Raises:
        Corrupt: The row of the view is damaged.
        SqlError: This version of DuckDB does not accept it.
    """
    view = table.view
    assert view is not None, "a view"
    if view.damaged is not None:
        raise Corrupt(
            f"view {table.name!r}", found=view.damaged, hint=f"DROP VIEW {quoted(table.name)}"
        )
    try:
        return check_statement(view.sql, frozenset(view.reads))
    except SennitError as error:
        raise broken_view(table, str(error)) from error


def create_view(connection: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    """Create the view in a database that has what it reads.

    Raises:
        SqlError: What it reads has changed.
    """
    view = table.view
    assert view is not None, "a view"
    columns = f"({', '.join(map(quoted, view.columns))})" if view.columns else ""
    try:
        connection.execute(f"CREATE VIEW {quoted(name)}{columns} AS {view.sql}")
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        raise broken_view(table, _reason(error)) from None


def names_of(tables: Iterable[Table]) -> frozenset[str]:
    """Return the names in the queries of the views among tables."""
    return frozenset(
        name for table in tables if table.view is not None for name in table.view.reads
    )


def broken_view(table: Table, reason: str) -> SqlError:
    """Return the error for a view that cannot be used, because what it reads has changed."""
    shown = table.view is not None and table.view.shown
    return SqlError(
        f"view {table.name!r} cannot be read any more"
        + (f": {reason}" if shown else "; its owner can see why"),
        hint="a dataset under it was changed, renamed or deleted: change it back, or use "
        f"CREATE OR REPLACE VIEW {quoted(table.name)} AS …",
    )


def _reason(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's message, without the kind of error."""
    first = str(error).strip().split("\n")[0]
    return first.partition("Error: ")[2] or first
