"""Run a statement that ran before without binding it for its columns first.

DuckDB binds a relation for its columns, and again when it runs: 0.1 to 0.6 ms. The number of rows that are
read at once depends on the columns, and must be known before the run. So the columns of an earlier run
of the same form are used, and compared with those of the result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import duckdb
import pyarrow as pa

__all__ = ["Form", "KnownForms", "Repeatable"]

Form: TypeAlias = tuple[bytes, ...]
"""The text of one SELECT without its numbers (`guard.Statement.form`); () for all other statements."""


class _Columns(NamedTuple):
    """The types of a result, and how many of its rows are read at once."""

    types: list[pa.DataType]
    rows: int


class KnownForms:
    """The columns of statements that ran.

    Args:
        count_max: The number of forms, the least recently used of which is forgotten first.
    """

    def __init__(self, count_max: int = 256) -> None:
        self._count_max = count_max
        self._known: OrderedDict[tuple[object, ...], _Columns] = OrderedDict()

    def find(self, key: tuple[object, ...]) -> _Columns | None:
        """Return what is known of a statement, which then counts as used."""
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def note(self, key: tuple[object, ...], types: list[pa.DataType], rows: int) -> None:
        """Remember the columns of a statement, also in the place of others."""
        self._known[key] = _Columns(types, rows)
        self._known.move_to_end(key)
        if len(self._known) > self._count_max:
            self._known.popitem(last=False)


@dataclass(frozen=True)
class Repeatable:
    """A statement that may have run before.

    Args:
        forms: Knows those that did.
        connection: The connection of the query.
        sql: One statement; without parameters, unless `form` is ().
        form: Its form.
        bind: Returns its relation.
    """

    forms: KnownForms
    connection: duckdb.DuckDBPyConnection
    sql: str
    form: Form
    bind: Callable[[], duckdb.DuckDBPyRelation]

    @contextmanager
    def open(
        self, rows_of: Callable[[duckdb.DuckDBPyRelation], int], *limits: int
    ) -> Iterator[tuple[Any, int]]:
        """Run it; yield the reader of its batches, and how many rows a batch has.

        Args:
            rows_of: Returns this number for a relation.
            limits: All that the number depends on apart from the columns.
        """
        key = (self.form, *limits)
        known = self.forms.find(key) if self.form and _CAN_RUN else None
        if known is not None:
            with _run(self.connection, self.sql, known.rows) as reader:
                if reader.schema.types == known.types:
                    yield reader, known.rows
                    return
            # A dataset has got other columns, or a number names a column, as in `SELECT #2`: it
            # runs once more.
        relation = self.bind()
        rows = rows_of(relation)
        with relation.to_arrow_reader(rows) as reader:
            if self.form:
                self.forms.note(key, reader.schema.types, rows)
            yield reader, rows


# Without it, by a later version of DuckDB, every statement is bound first.
_CAN_RUN = hasattr(duckdb.DuckDBPyConnection, "_submit")


def _run(connection: duckdb.DuckDBPyConnection, sql: str, rows: int) -> Any:
    """Run one statement; return the reader of its batches.

    This is what a relation calls after it has bound its statement. There is no public name for it:
    `execute` has a result whose rows are copied on their way to Arrow.
    """
    return connection._submit(sql, None, "stream", rows).arrow_reader()  # noqa: SLF001
