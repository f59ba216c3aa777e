"""Joining text: records travel whole, C parses the keys, and joined records are written side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from emsqrt._kernel import KeySpec, join_lines, pack_join_rows
from emsqrt.external.join import ExternalJoin
from emsqrt.metering import begun
from emsqrt.run import Run
from emsqrt.thin.text import Block, ColumnReader, TextRows
from sennit_core.schema import Field, Schema

if TYPE_CHECKING:
    from emsqrt.external.joined import HashJoinKind

BUFFER_BYTES_MAX = 1 << 18
_BUFFERS = 4
"""Parsed keys, packed rows, joined rows, joined lines: each as large."""
_LEFT_ALONE = ("semi", "anti")


class JoinText:
    """Records of two inputs put together where their keys are equal, all fields of both.

    Args:
        left: its order is kept.
        right: what is held in memory, or partitioned, when it does not fit.
        on: (left column, right column) of each key, of the same type.
        how: inner, left, right, full, semi or anti.
        run: working memory and spill.
    """

    def __init__(
        self,
        left: TextRows,
        right: TextRows,
        on: Sequence[tuple[str, str]],
        how: HashJoinKind,
        run: Run,
    ) -> None:
        self.dialect = left.dialect
        self.rows = 0
        self._left, self._right = left, right
        self._left_keys = [left.schema.field(name) for name, _ in on]
        self._right_keys = [right.schema.field(name) for _, name in on]
        self._how: HashJoinKind = how
        self._run = run
        self.schema = left.schema
        if how not in _LEFT_ALONE:
            fields = [Field(f"left{i}", field.type) for i, field in enumerate(left.schema)]
            fields += [Field(f"right{i}", field.type) for i, field in enumerate(right.schema)]
            self.schema = Schema(tuple(fields))
        run.expect_holder()

    def blocks(self) -> Generator[Block]:
        """Yield the joined records."""
        with (
            begun(self._right.blocks()) as right,
            self._run.take_working_memory("join") as held,
        ):
            size = min(BUFFER_BYTES_MAX, len(held.memory) // 16)
            rest = len(held.memory) - _BUFFERS * size
            with (
                held.memory[:rest] as memory,
                held.memory[rest : rest + size] as parsed,
                held.memory[rest + size : rest + 2 * size] as packed,
                held.memory[rest + 2 * size : rest + 3 * size] as joined,
                held.memory[rest + 3 * size :] as lines,
            ):
                join = ExternalJoin(memory, self._run.spill, self._how, check=self._run.check)
                with self._run.working(join):
                    reader = ColumnReader(self._right, self._right_keys, parsed)
                    for block in self._packed(reader, right, packed):
                        join.add_build(block)
                    join.finish_build()
                    reader = ColumnReader(self._left, self._left_keys, parsed)
                    with closing(self._left.blocks()) as left:
                        for block in self._packed(reader, left, packed):
                            for filled, _ in join.probe(block, joined):
                                yield from self._lines(joined[:filled], lines)
                    for filled, _ in join.finish(joined):
                        yield from self._lines(joined[:filled], lines)

    def _packed(
        self, reader: ColumnReader, blocks: Iterator[Block], packed: memoryview
    ) -> Iterator[memoryview]:
        """Yield blocks of packed rows: the key, and the whole record as payload."""
        spec = KeySpec([(at, False, False) for at in range(len(self._left_keys))])
        with closing(reader):
            for columns in reader.batches(blocks):
                start = 0
                while start < len(columns):
                    filled, count = pack_join_rows(columns, spec, "line", start, packed)
                    start += count
                    yield packed[:filled]

    def _lines(self, joined: memoryview, out: memoryview) -> Iterator[Block]:
        mark = self.dialect.delimiter
        alone = self._how in _LEFT_ALONE
        at = 0
        while at < len(joined):
            at, filled, rows = join_lines(
                joined,
                at,
                out,
                None if alone else mark.encode(),
                (mark * (len(self._left.schema) - 1)).encode(),
                (mark * (len(self._right.schema) - 1)).encode(),
            )
            yield Block(out[:filled], rows=rows)
