"""Joining text: records travel whole, C parses the keys, and joined records are written side by side."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from emsqrt._kernel import KeySpec, join_lines, pack_join_rows
from emsqrt.external.cross import CrossJoin
from emsqrt.external.join import ExternalJoin
from emsqrt.metering import begun
from emsqrt.run import Run
from emsqrt.thin.text import Block, ColumnReader, TextRows
from sennit_core.errors import TooLarge
from sennit_core.schema import Field, Schema

if TYPE_CHECKING:
    from emsqrt.external.joined import HashJoinKind

BUFFER_BYTES_MAX = 1 << 18
"""More only when memory is large enough for records that are longer."""
_BUFFERS = 4
"""Parsed keys, packed rows, joined rows, joined lines: each as large."""
_LEFT_ALONE = ("semi", "anti")


class JoinText:
    """Records of two inputs put together where their keys are equal, as they were spelled.

    Args:
        left: its order is kept.
        right: what is held in memory, or partitioned, when it does not fit.
        on: (left column, right column) of each key, of the same type.
        how: inner, left, right, full, semi, anti or cross.
        dropped: columns of the right side that do not come out.
        run: working memory and spill.
    """

    def __init__(
        self,
        left: TextRows,
        right: TextRows,
        on: Sequence[tuple[str, str]],
        how: HashJoinKind | Literal["cross"],
        dropped: Sequence[str],
        run: Run,
    ) -> None:
        self.dialect = left.dialect
        self.rows = 0
        self._left, self._right = left, right
        self._left_keys = [left.schema.field(name) for name, _ in on]
        self._right_keys = [right.schema.field(name) for _, name in on]
        self._how = how
        self._run = run
        places = sorted(right.schema.names.index(name) for name in dropped)
        self._dropped = array("I", places)
        self._kept = len(right.schema) - len(places)
        self.schema = left.schema
        if how not in _LEFT_ALONE:
            fields = [Field(f"left{i}", field.type) for i, field in enumerate(left.schema)]
            fields += [
                Field(f"right{i}", field.type)
                for i, field in enumerate(right.schema)
                if field.name not in dropped
            ]
            self.schema = Schema(tuple(fields))
        run.expect_holder()

    def blocks(self) -> Generator[Block]:
        """Yield the joined records."""
        with (
            begun(self._right.blocks()) as right,
            self._run.take_working_memory("join") as held,
        ):
            whole = len(held.memory)
            size = max(min(BUFFER_BYTES_MAX, whole // 16), whole // 48)
            rest = len(held.memory) - _BUFFERS * size
            with (
                held.memory[:rest] as memory,
                held.memory[rest : rest + size] as parsed,
                held.memory[rest + size : rest + 2 * size] as packed,
                held.memory[rest + 2 * size : rest + 3 * size] as joined,
                held.memory[rest + 3 * size :] as lines,
            ):
                join = self._join(memory)
                with self._run.working(join):
                    reader = ColumnReader(self._right, self._right_keys, parsed)
                    shape: Literal["line"] | None = "line" if self._right_comes else None
                    for block in self._packed(reader, right, packed, shape, self._dropped):
                        join.add_build(block)
                    join.finish_build()
                    reader = ColumnReader(self._left, self._left_keys, parsed)
                    with closing(self._left.blocks()) as left:
                        for block in self._packed(reader, left, packed):
                            for filled, _ in join.probe(block, joined):
                                yield from self._lines(joined[:filled], lines)
                    for filled, _ in join.finish(joined):
                        yield from self._lines(joined[:filled], lines)

    @property
    def _right_comes(self) -> bool:
        """Whether anything of the right side comes out."""
        return self._how not in _LEFT_ALONE

    def _join(self, memory: memoryview) -> ExternalJoin | CrossJoin:
        spill, check = self._run.spill, self._run.check
        if self._how == "cross":
            return CrossJoin(memory, spill, check=check)
        return ExternalJoin(memory, spill, self._how, check=check)

    def _packed(
        self,
        reader: ColumnReader,
        blocks: Iterator[Block],
        packed: memoryview,
        payload: Literal["line"] | None = "line",
        dropped: array[int] = array("I"),  # noqa: B008 - never changed
    ) -> Iterator[memoryview]:
        """Yield blocks of packed rows: the key, and as payload the record or nothing."""
        spec = KeySpec([(at, False, False) for at in range(len(self._left_keys))])
        marks = (self.dialect.delimiter + (self.dialect.quote or "")).encode()
        with closing(reader):
            for columns in reader.batches(blocks):
                start = 0
                while start < len(columns):
                    try:
                        filled, count = pack_join_rows(
                            columns, spec, payload, start, packed, dropped, marks
                        )
                    except ValueError:
                        raise _too_long(packed) from None
                    start += count
                    yield packed[:filled]

    def _lines(self, joined: memoryview, out: memoryview) -> Iterator[Block]:
        mark = self.dialect.delimiter
        between = mark.encode() if self._kept else b""
        at = 0
        while at < len(joined):
            try:
                at, filled, rows = join_lines(
                    joined,
                    at,
                    out,
                    between if self._right_comes else None,
                    (mark * (len(self._left.schema) - 1)).encode(),
                    (mark * (self._kept - 1)).encode(),
                )
            except ValueError:
                raise _too_long(out) from None
            yield Block(out[:filled], rows=rows)


def _too_long(room: memoryview) -> TooLarge:
    """Return the error of a row that does not fit a buffer, which grows with the cap."""
    return TooLarge(
        what="a record with its keys", limit_bytes=len(room), actual_bytes=8 * len(room)
    )
