"""The text of a query that is put together from clauses of a statement, and places of errors in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from lake.sql.write_statements import Clause, CreateTable, Insert
from sennit_core.errors import SqlError, UnknownColumn

__all__ = ["NEW_TABLE", "Numbered", "Part", "QueryText", "rows_query", "with_before"]

NEW_TABLE = "__lake_new"
"""The temporary table that a list of values is inserted into, in the place of the dataset."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A part of a query that has two forms.

    Args:
        checked: The form that the guard checks and DuckDB binds, for errors. It has no other names
            than the user's.
        run: The form that runs, with the numbers of rows. The names that this adds are those of
            `read_parquet`, which `*` and a row as a whole do not include.
    """

    checked: str
    run: str


Part: TypeAlias = "str | Clause | Numbered"


class QueryText:
    """The text of a query that is put together from clauses of the statement.

    Args:
        parts: Text, and clauses of the statement.

    Attributes:
        text: The query as it is checked.
        numbered: The query as it runs.
        is_bound: Whether its names are resolved; errors after that have no place in the statement.
    """

    def __init__(self, *parts: Part) -> None:
        self.is_bound = False
        self.text = self.numbered = ""
        self._clauses: list[tuple[int, Clause]] = []
        for part in parts:
            if isinstance(part, Clause):
                self._clauses.append((len(self.text), part))
                part = part.text
            checked, run = (part.checked, part.run) if isinstance(part, Numbered) else (part, part)
            self.text += checked
            self.numbered += run

    def runs_as(self, other: QueryText) -> None:
        """Let it run as another form of the same query, with fewer shards."""
        assert self.text == other.text, "the same query"
        self.numbered = other.numbered

    @contextmanager
    def placed_errors(self, sql: str) -> Iterator[None]:
        """Give errors in the query their position in the statement, if it is in one of its clauses."""
        try:
            yield
        except UnknownColumn as error:  # its message has the position in the query
            raise UnknownColumn(
                name=error.name, known=error.known, suggestion=error.suggestion
            ) from error
        except SqlError as error:
            message = error.message.replace(f'"{NEW_TABLE}"', "the dataset")
            # Later errors are of another form of the query.
            found = -1 if self.is_bound or error.offset is None else error.offset
            for start, clause in self._clauses:
                if start <= found <= start + len(clause.text):
                    offset = clause.offset + found - start
                    line = sql.count("\n", 0, offset) + 1
                    column = offset - (sql.rfind("\n", 0, offset) + 1) + 1
                    raise SqlError(
                        message, line=line, column=column, offset=offset, hint=error.hint
                    ) from error
            raise SqlError(message, hint=error.hint) from error


def rows_query(write: Insert | CreateTable) -> QueryText:
    """Return the query for the rows of an INSERT or CREATE TABLE AS."""
    prelude = with_before(write.prelude) if isinstance(write, Insert) else ()
    return QueryText(*prelude, "SELECT * FROM (", write.query or "SELECT 1", ")")


def with_before(prelude: Clause) -> tuple[str | Clause, ...]:
    """Return the parts for a WITH clause before a query; none if there is none."""
    # Without a space at the start: DuckDB removes it, and counts the places of errors from there.
    return (prelude, " ") if prelude.text else ()
