"""Sort text: C parses the keys; records travel whole, with their original bytes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from emsqrt._kernel import KeySpec
from emsqrt.execution_context import ExecutionContext
from emsqrt.external.output_buffer import OutputBuffer
from emsqrt.external.sort import ExternalSort, sort_bytes
from emsqrt.metering import prefetch_first
from emsqrt.text_engine.resuming import Resumption
from emsqrt.text_engine.text import Block, ColumnReader, TextRows

PARSE_BYTES_MAX = 1 << 18
OUT_BYTES_MAX = 1 << 18
"""Used beyond the front of a buffer only when memory is large enough for longer records."""
_PARSE_SHARE, _OUT_SHARE = 32, 16
"""Such records may use this fraction of the memory."""
_LINE_END = b"\n"

Key = tuple[str, bool, bool]
"""(column, descending, nulls first)"""


class SortText:
    """Records in the order of some columns; equal ones stay in input order.

    Args:
        rows: the records.
        keys: the sort keys, most significant first.
        run: provides working memory and spill.
        limit: only this many first records are needed; all when None.
    """

    def __init__(
        self,
        rows: TextRows,
        keys: Sequence[Key],
        run: ExecutionContext,
        limit: int | None = None,
    ) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.rows = 0
        self._rows = rows
        self._keys = keys
        self._run = run
        self._limit = limit
        # A text key is in the row twice: in the key and in the record.
        parsed = any(rows.schema.field(name).type.name == "Utf8" for name, _, _ in keys)
        self._long_bytes = run.row_bytes, parsed * run.row_bytes
        run.expect_packed_growth(1 + parsed)
        run.expect_holder(
            _PARSE_SHARE if parsed else _OUT_SHARE, self._bytes_for_long_rows if run.met else 0
        )

    @property
    def _bytes_for_long_rows(self) -> int:
        """The minimum memory for the longest known row: sorted with keys, parsed and written."""
        row, key = self._long_bytes
        return sort_bytes(row + key) + row + key + PARSE_BYTES_MAX + OUT_BYTES_MAX

    def blocks(self) -> Generator[Block]:
        """Yield the sorted records."""
        resumption = Resumption(self._rows, self._run)
        with (
            prefetch_first(resumption.blocks()) as blocks,
            self._run.acquire_working_memory("sort") as held,
        ):
            #     | the sort: rows, entries, block | parsed keys | sorted records |
            whole, (out_long, parse_long) = len(held.memory), self._long_bytes
            parse_bytes = max(min(PARSE_BYTES_MAX, whole // 8), whole // _PARSE_SHARE, parse_long)
            out_bytes = max(min(OUT_BYTES_MAX, whole // 8), whole // _OUT_SHARE, out_long)
            rest = len(held.memory) - parse_bytes - out_bytes
            with (
                held.memory[:rest] as memory,
                held.memory[rest : rest + parse_bytes] as parse,
                held.memory[rest + parse_bytes :] as out,
            ):
                fields = [self.schema.field(name) for name, _, _ in self._keys]
                spec = KeySpec([(at, *key[1:]) for at, key in enumerate(self._keys)])
                sorter = ExternalSort(
                    memory,
                    self._run.spill,
                    spec,
                    "line",
                    limit=self._limit,
                    check=self._run.check,
                    journal=resumption.journal,
                )
                with self._run.working(sorter):
                    reader = ColumnReader(self._rows, fields, parse)
                    with closing(reader):
                        for columns, start in resumption.rest(reader, blocks):
                            sorter.add(columns, start)
                    sorter.finish()
                    yield from self._output(sorter, out)

    def _output(self, sorter: ExternalSort, out: memoryview) -> Generator[Block]:
        background = self._run.background
        out_buffer = OutputBuffer(out, background.wait if background.is_second else None)
        try:
            for size, count in sorter.blocks(out_buffer, ending=_LINE_END):
                yield Block(out_buffer.room[:size], rows=count, stays=background.is_second)
        finally:
            # The second thread may still write the last block, whose memory is released next. The
            # sorter waits only for its own spilling, which another thread does in resumable runs.
            background.wait_idle()
