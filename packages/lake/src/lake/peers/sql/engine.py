"""What the planner asks DuckDB. Its package must not import it, so the caller passes these answers in.

`lake.sql` runs DuckDB in executors; a planner that ran there uses these methods in the same process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lake.peers.sql.tables import Column, Table

__all__ = ["EmptyTables", "Engine"]


class EmptyTables(Protocol):
    """A database that has the tables of a query without their rows."""

    def define(self, name: str, sql: str) -> None:
        """Create an empty table with the columns of a query over the tables that are there."""

    def columns(self, sql: str) -> tuple[Column, ...]:
        """Return names and types of a query's result. Raises an error if it is not valid."""


class Engine(Protocol):
    """DuckDB's answers about statements, none of which reads rows."""

    @property
    def aggregates(self) -> frozenset[str]:
        """The names of all aggregate functions, in lower case."""

    def is_volatile(self, sql: str) -> bool:
        """Return whether a statement may have another result each time it runs."""

    def tree(self, sql: str) -> Any:
        """Return the syntax tree of a statement, as of `json_serialize_sql`."""

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Run a query that reads no table."""

    def empty(self, tables: Sequence[Table]) -> AbstractContextManager[EmptyTables]:
        """Open a database with these tables, empty."""
