"""Read DuckDB's result as Arrow batches of bounded size in bytes.

DuckDB splits a result into batches by rows only, and doubles the one buffer of a batch's strings as
it grows: 8,192 rows of 10 KB allocated 128 MiB at once. So rows of unknown width are read a few at
a time, and small batches are joined.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeAlias

import duckdb
import pyarrow as pa

__all__ = ["Form", "KnownForms", "read_batches"]

Form: TypeAlias = tuple[bytes, ...]
"""The text of one SELECT without its numbers (`guard.Statement.form`); () stands for other statements."""

_BATCH_BYTES = 1 << 20
_BATCH_ROWS_MAX = 8192
_ROWS_OF_UNKNOWN_WIDTH = 256
"""DuckDB itself holds 2,048 rows at once, so an eighth of that adds little memory. Fewer rows cost
more CPU: 0.04 µs per row at 256 rows per batch, 0.14 µs at 64."""
_ROOM_BYTES = 768 << 20
_ROWS_WITH_ROOM = 2048
"""With more memory than `_ROOM_BYTES`: as many as DuckDB holds itself. Reading four million rows of six
columns takes 0.28 s of CPU, at 256 rows 0.98 s."""


@contextmanager
def read_batches(
    relation: duckdb.DuckDBPyRelation, memory_bytes: int = 0
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Open a result; yield its schema and its batches, about 1 MiB each unless a row is larger.

    Args:
        relation: the query; it runs while its batches are read.
        memory_bytes: memory that the process may use for the query.

    Raises:
        duckdb.Error, OSError, pa.ArrowException: the query failed; see `failures.as_duckdb_error`.
    """
    unknown = _rows_of_unknown_width(memory_bytes)
    rows = _rows_at_once(relation, unknown)
    with relation.to_arrow_reader(rows) as reader:
        yield reader.schema, _bounded(reader, rows, unknown)


class _Columns(NamedTuple):
    """The types of a result, and how many of its rows are read at once."""

    types: list[pa.DataType]
    rows: int


class KnownForms:
    """Reads results of statements; knows the columns of those that ran before.

    A relation is bound for its columns, and again when it runs, which takes 0.1 to 0.6 ms. Rows have
    to be counted before the statement runs, so the columns of an earlier run of the same form are
    taken, and compared with those that it has.

    Args:
        count_max: the number of forms, the least recently used of which is forgotten first.
    """

    def __init__(self, count_max: int = 256) -> None:
        self._count_max = count_max
        self._known: OrderedDict[tuple[Form, int], _Columns] = OrderedDict()

    @contextmanager
    def read(
        self,
        connection: duckdb.DuckDBPyConnection,
        sql: str,
        form: Form,
        bind: Callable[[], duckdb.DuckDBPyRelation],
        memory_bytes: int,
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """As `read_batches`.

        Args:
            connection: the connection of the query.
            sql: one statement without parameters, unless `form` is ().
            form: the form of the statement.
            bind: returns the relation of the statement.
            memory_bytes: as for `read_batches`.
        """
        unknown = _rows_of_unknown_width(memory_bytes)
        known = self._known.get((form, unknown))
        if known is not None:
            with _run(connection, sql, known.rows) as reader:
                if reader.schema.types == known.types:
                    self._known.move_to_end((form, unknown))
                    yield reader.schema, _bounded(reader, known.rows, unknown)
                    return
            # A dataset has got other columns, or a number names a column, as in `SELECT #2`.
            del self._known[form, unknown]
        relation = bind()
        rows = _rows_at_once(relation, unknown)
        with relation.to_arrow_reader(rows) as reader:
            if form:
                self._note((form, unknown), _Columns(reader.schema.types, rows))
            yield reader.schema, _bounded(reader, rows, unknown)

    def _note(self, key: tuple[Form, int], columns: _Columns) -> None:
        self._known[key] = columns
        if len(self._known) > self._count_max:
            self._known.popitem(last=False)


def _run(connection: duckdb.DuckDBPyConnection, sql: str, rows: int) -> Any:
    """Run one statement; return the reader of its batches.

    This is what a relation calls after it has bound its statement. There is no public name for it:
    `execute` has a result whose rows are copied on their way to Arrow.
    """
    return connection._submit(sql, None, "stream", rows).arrow_reader()  # noqa: SLF001


def _rows_of_unknown_width(memory_bytes: int) -> int:
    return _ROWS_WITH_ROOM if memory_bytes >= _ROOM_BYTES else _ROWS_OF_UNKNOWN_WIDTH


def _bounded(reader: Any, rows: int, unknown: int) -> Iterator[pa.RecordBatch]:
    return _joined(reader) if rows <= unknown else iter(reader)


def _rows_at_once(relation: duckdb.DuckDBPyRelation, unknown: int) -> int:
    row_bytes = 0
    for kind in relation.types:
        width = _WIDTHS.get(kind.id)
        if width is None:
            return unknown
        row_bytes += width
    return min(max(_BATCH_BYTES // max(row_bytes, 1), _ROWS_OF_UNKNOWN_WIDTH), _BATCH_ROWS_MAX)


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join batches up to the size limits; a batch that is already large is not copied."""
    held: list[pa.RecordBatch] = []
    held_bytes = held_rows = 0
    for batch in batches:
        size = batch.nbytes
        if held_bytes + size > _BATCH_BYTES or held_rows + batch.num_rows > _BATCH_ROWS_MAX:
            yield from _as_one(held)
            held_bytes = held_rows = 0
        held.append(batch)
        held_bytes += size
        held_rows += batch.num_rows
        del batch  # otherwise it would stay in memory while the next one is created
    yield from _as_one(held)


def _as_one(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches as one, or unjoined if memory is too small for a copy; clear the list."""
    if len(batches) > 1:
        with suppress(MemoryError):  # includes Arrow's error; small batches cost only time
            batches[:] = [pa.concat_batches(batches)]
    while batches:
        yield batches.pop(0)


_WIDTHS = {
    "boolean": 1, "tinyint": 1, "utinyint": 1, "smallint": 2, "usmallint": 2, "integer": 4,
    "uinteger": 4, "bigint": 8, "ubigint": 8, "hugeint": 16, "uhugeint": 16, "float": 4,
    "double": 8, "decimal": 16, "date": 4, "time": 8, "time with time zone": 8, "timestamp": 8,
    "timestamp_s": 8, "timestamp_ms": 8, "timestamp_ns": 8, "timestamp with time zone": 8,
    "interval": 16, "uuid": 36,
}  # fmt: skip
"""Bytes of a value in Arrow; types not listed have no fixed width."""
