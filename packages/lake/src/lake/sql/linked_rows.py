"""The rows of a linked CSV file, read by the parser of its ingest, as a table of DuckDB.

The parser needs two thirds of the time of DuckDB's reader, and its values are those of the ingest by
construction. So it replaces the expressions of `lake.sql.linked_files` where a query reads
one linked file:

    file ─▶ blocks of whole records ─▶ parsed on `threads` threads ─▶ in order, to the scan of DuckDB

The plan of the query shows which columns its scans read; the others are NULL, and are not parsed. What
the parser refuses ends the read, and the query is run again with the expressions, which have the better
errors.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from emsqrt.background import thread_stack
from emsqrt.io.records import CsvDialect
from emsqrt.memory.malloc_tuning import keep_freed_blocks, return_freed_blocks
from lake.ingest.columns import KINDS, read_column
from lake.ingest.direct import DirectReader
from lake.ingest.source import PartsFile, TextBlock, TextSource
from lake.links.local_files import LocalFile
from lake.sql.types import quoted
from sennit_core.errors import Conflict
from sennit_core.units import MIB

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext
    from emsqrt.memory import BudgetGuard
    from lake.sql.linked_files import LinkedFile
    from lake.sql.tables import Table

__all__ = ["LINKED_BYTES", "LinkedRows", "find_linked"]

_AHEAD = 2
"""Blocks that are read ahead of those that are being parsed, for threads that wait for DuckDB."""
_BLOCK_MEMORY = 5 * MIB
"""A block of 1 MiB, and the memory that its columns are parsed into."""
_THREADS_MAX = 4
_STACK_BYTES = MIB
_KEPT_BYTES = 16 * MIB
LINKED_BYTES = _KEPT_BYTES + (_THREADS_MAX + _AHEAD) * _BLOCK_MEMORY + _THREADS_MAX * _STACK_BYTES
"""Memory of a `LinkedRows` with one scan."""
_BOM = b"\xef\xbb\xbf"
_SCAN = "PYTHON_ARROW_SCAN"


def find_linked(used: Sequence[Table]) -> Table | None:
    """Return the one linked CSV file among datasets that a query reads; None if its view serves.

    A view or a policy names the dataset's own view, and a plan does not show which of two files a scan reads.
    """
    linked = [table for table in used if table.link is not None]
    is_plain = all(table.view is None and table.policy is None for table in used)
    if len(linked) != 1 or not is_plain:
        return None
    (table,) = linked
    return table if table.link is not None and table.link.format == "csv" else None


class LinkedRows:
    """The rows of a linked file; DuckDB opens a stream of them for each scan.

    Args:
        table: The dataset.
        context: Says when to stop.
        guard: The reservation of `LINKED_BYTES`; released by `close`.
        threads: Threads that parse.
    """

    def __init__(
        self, table: Table, context: EntryContext, guard: BudgetGuard, threads: int
    ) -> None:
        assert table.link is not None
        self.link: LinkedFile = table.link
        self.error: Exception | None = None
        """What ended a read: a record or a value that the parser refuses."""
        self._table = table
        self._names = table.schema.names
        self._schema = pa.schema(
            pa.field(name, KINDS[kind].type)
            for name, kind in zip(self._names, self.link.kinds, strict=True)
        )
        self._wanted: Sequence[int] = range(len(self._names))
        self._context = context
        self._guard = guard
        self._threads = min(threads, _THREADS_MAX)
        self._pool: ThreadPoolExecutor | None = None
        if context.owns_process:
            # Else the system clears the pages of every block anew, at a fifth of the time.
            keep_freed_blocks(context.budget, _KEPT_BYTES)

    def __arrow_c_schema__(self) -> object:
        """Return the columns (the Arrow PyCapsule interface)."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a stream of the rows from the first one (the Arrow PyCapsule interface)."""
        batches = self._batches()
        return pa.RecordBatchReader.from_batches(self._schema, batches).__arrow_c_stream__()

    @contextmanager
    def registered(
        self,
        connection: duckdb.DuckDBPyConnection,
        names: Sequence[str],
        sql: str,
        params: list[Any] | dict[str, Any] | None,
    ) -> Iterator[None]:
        """Put the rows in the place of the dataset's view in a connection.

        Args:
            connection: The connection; the view ends with it.
            names: The names of the dataset.
            sql: The query that will run.
            params: Its parameters.
        """
        try:
            for name in names:
                connection.register(name, self)
            self._wanted = self._columns_read(connection, sql, params)
            yield
        finally:
            for name in names:
                with suppress(duckdb.Error):  # after an error it ends with the connection
                    connection.unregister(name)

    def close(self) -> None:
        """End the threads; no connection has the rows any more."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._context.owns_process:
            return_freed_blocks()
        self._guard.release()

    def names_in(self, written: Iterable[str]) -> list[str]:
        """Return the names of the dataset that a query uses, of the names as written in it."""
        ids = {self._table.id} & {name.casefold() for name in written}
        return [self._table.name, *ids]

    def _columns_read(
        self,
        connection: duckdb.DuckDBPyConnection,
        sql: str,
        params: list[Any] | dict[str, Any] | None,
    ) -> Sequence[int]:
        """Return the columns that the scans of the query's plan read; all if it does not show them."""
        try:
            found = connection.execute(f"EXPLAIN (FORMAT json) {sql}", params).fetchall()
            plan = json.loads(found[0][1])
        except (duckdb.ProgrammingError, ValueError):
            return self._wanted
        read: set[int] = set()
        for node in _nodes(plan):
            if node.get("name") == _SCAN:
                columns = node["extra_info"].get("Projections", [])
                for name in [columns] if isinstance(columns, str) else columns:
                    if name not in self._names:
                        return self._wanted
                    read.add(self._names.index(name))
        return sorted(read) or self._wanted

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, block by block, in the order of the file."""
        parsed: deque[Future[pa.RecordBatch]] = deque()
        blocks = self._blocks()
        try:
            for block in blocks:
                self._context.check()
                parsed.append(self._submit(block))
                if len(parsed) >= self._threads + _AHEAD:
                    yield parsed.popleft().result()
            while parsed:
                yield parsed.popleft().result()
        except Exception as error:
            self.error = error
            raise
        finally:
            for future in parsed:
                future.cancel()
            blocks.close()

    def _submit(self, block: TextBlock) -> Future[pa.RecordBatch]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="lake-linked")
        with thread_stack(_STACK_BYTES):
            return self._pool.submit(self._parse, block)

    def _blocks(self) -> Any:
        file = self.link.file
        source = TextSource(
            [Path(file.path)], "utf-8", CsvDialect(delimiter=self.link.delimiter), what=file.name
        )
        return source.blocks(_start(file, self.link.skip), file.size, self.link.skip + 1)

    def _parse(self, block: TextBlock) -> pa.RecordBatch:
        kinds = self.link.kinds
        # For each block anew: threads share none, and a column with another form in one block is
        # typed again in the next.
        reader = DirectReader(self._names, self.link.delimiter, self._wanted)
        read = reader.read(block.data, kinds)
        if read is None:
            raise self._refused(block)
        columns = [pa.nulls(read.num_rows, field.type) for field in self._schema]
        for index, column in zip(self._wanted, read.columns, strict=True):
            is_typed = reader.is_typed(index, kinds[index])
            values = column if is_typed else read_column(kinds[index], column)
            if values is None:
                raise self._refused(block)
            columns[index] = values
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _refused(self, block: TextBlock) -> Conflict:
        return Conflict(
            f"{self.link.file.name} (dataset {quoted(self._table.name)}): a record after line {block.line:,} "
            "does not fit the columns that the beginning of the file shows",
            hint="query again when the ingest job of the file is done (`platform jobs`)",
        )


def _start(file: LocalFile, skip: int) -> int:
    """Return the offset of the record after the skipped lines."""
    with PartsFile([Path(file.path)]) as parts:
        if not skip:
            return len(_BOM) if parts.read(len(_BOM)) == _BOM else 0
        offset = 0
        while piece := parts.read(MIB):
            at = -1
            while skip and (at := piece.find(b"\n", at + 1)) >= 0:
                skip -= 1
            if not skip:
                return offset + at + 1
            offset += len(piece)
        return offset


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for node in plan:
        yield node
        yield from _nodes(node.get("children", ()))
