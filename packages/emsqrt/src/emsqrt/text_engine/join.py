"""Join text: records travel whole, C parses the keys and writes joined records."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from emsqrt._kernel import KeySpec, join_lines, pack_join_rows
from emsqrt.execution_context import ExecutionContext
from emsqrt.external.cross import CrossJoin
from emsqrt.external.join import ExternalJoin, join_bytes
from emsqrt.external.join_output import JoinOutput
from emsqrt.long_row import LongRow
from emsqrt.metering import prefetch_first
from emsqrt.text_engine.buffers import new_buffer
from emsqrt.text_engine.text import Block, ColumnReader, TextRows
from sennit_core.errors import CapTooSmall
from sennit_core.schema import Field, Schema
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt._kernel import Columns
    from emsqrt.external.join_output import HashJoinKind

BUFFER_BYTES_MAX = 1 << 18
"""Used beyond the front of a buffer only when memory is large enough for longer records."""
_ROW_SHARE = 48
_LEFT_ALONE = ("semi", "anti")


class JoinText:
    """Records of two inputs joined where their keys are equal, with their original bytes.

    Args:
        left: the output keeps its order.
        right: the side that is held in memory, or partitioned when it does not fit, unless the left
            side is chosen instead.
        on: (left column, right column) of each key, of the same type.
        how: inner, left, right, full, semi, anti or cross.
        dropped: columns of the right side that are not in the output.
        run: provides working memory and spill.
    """

    def __init__(
        self,
        left: TextRows,
        right: TextRows,
        on: Sequence[tuple[str, str]],
        how: HashJoinKind | Literal["cross"],
        dropped: Sequence[str],
        run: ExecutionContext,
    ) -> None:
        self.dialect = left.dialect
        self.rows = 0
        self._left, self._right = left, right
        names = run.choice.merge
        # A merge join compares keys in the order in which both sides are sorted.
        on = sorted(on, key=lambda pair: names.index(pair[0])) if names else on
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
        parsed = any(field.type.name == "Utf8" for field in self._left_keys)
        self._row_bytes, key_bytes = (1 + parsed) * run.row_bytes, parsed * run.row_bytes
        two_bytes = 2 * run.row_bytes + key_bytes
        self._long_bytes = (two_bytes, two_bytes, *(1 + bool(names)) * (key_bytes, self._row_bytes))
        run.expect_packed_growth(1 + parsed)
        run.expect_holder(_ROW_SHARE + 1, self._bytes_for_long_rows if run.met else 0)

    @property
    def _bytes_for_long_rows(self) -> int:
        """The minimum memory for the longest known row."""
        buffers = sum(max(BUFFER_BYTES_MAX, each) for each in self._long_bytes)
        return join_bytes(self._row_bytes) + buffers

    def blocks(self) -> Generator[Block]:
        """Yield the joined records."""
        merged = self._run.choice.merge
        with ExitStack() as stack:
            # Joined lines, joined rows, parsed keys, packed rows; a merge join needs the last two
            # for both
            # sides. A merge join needs both inputs at once; a hash join reads the probe side after
            # the build.
            left = stack.enter_context(prefetch_first(self._left.blocks())) if merged else None
            build = stack.enter_context(self._run.prefetch_first(self._sides[0].blocks()))
            held = stack.enter_context(self._run.acquire_working_memory("join"))
            whole = len(held.memory)
            #     | the join | joined lines | joined rows | parsed keys | packed rows |
            #       `memory`   `lines`        `block`       `rooms`, in a merge join of both sides
            size = max(min(BUFFER_BYTES_MAX, whole // 16), whole // _ROW_SHARE)
            sizes = [max(size, long) for long in self._long_bytes]
            ends = [*accumulate(sizes, initial=whole - sum(sizes))]
            memory, lines, block, *rooms = (
                stack.enter_context(held.memory[start:end])
                for start, end in zip([0, *ends], ends, strict=False)
            )
            joined = JoinOutput(block)
            made = (
                self._hash(build, memory, joined, *rooms)
                if left is None
                else self._merge((left, build), memory, joined, rooms)
            )
            with closing(made):
                for filled, _ in made:
                    yield from self._lines(joined.memory[:filled], lines)

    def _hash(
        self,
        build: Iterator[Block],
        memory: memoryview,
        joined: JoinOutput,
        parsed: memoryview,
        packed: memoryview,
    ) -> Generator[tuple[int, int]]:
        """Yield blocks of joined rows: one side is built, the other probes it."""
        join = self._join(memory)
        built, probing = self._sides
        with self._run.working(join):
            if not join.is_built:
                for block in self._rows(built, build, parsed, packed):
                    join.add_build(block)
            join.finish_build()
            with closing(probing.blocks()) as probe:
                if not join.is_probed:
                    for block in self._rows(probing, probe, parsed, packed):
                        yield from join.probe(block, joined)
            yield from join.finish(joined)

    def _merge(
        self,
        sides: tuple[Iterator[Block], Iterator[Block]],
        memory: memoryview,
        joined: JoinOutput,
        rooms: Sequence[memoryview],
    ) -> Generator[tuple[int, int]]:
        """Yield blocks of joined rows of two sides that are sorted by the keys."""
        from emsqrt.external.merge_join import MergeJoin  # most joins hash

        assert self._how != "cross", "a cross join has no keys"
        join = MergeJoin(memory, self._run.spill, self._how, check=self._run.check)
        with self._run.working(join):
            yield from join.blocks(
                self._rows(self._left, sides[0], rooms[0], rooms[1]),
                self._rows(self._right, sides[1], rooms[2], rooms[3]),
                joined,
            )

    @property
    def _sides(self) -> tuple[TextRows, TextRows]:
        """The build side and the probe side."""
        sides = self._right, self._left
        return sides[::-1] if self._run.choice.build_left else sides

    def _rows(
        self, side: TextRows, blocks: Iterator[Block], parsed: memoryview, packed: memoryview
    ) -> Iterator[memoryview]:
        if side is self._left:
            return self._packed(ColumnReader(side, self._left_keys, parsed), blocks, packed)
        reader = ColumnReader(side, self._right_keys, parsed)
        if not self._right_comes:
            return self._packed(reader, blocks, packed, None)
        return self._packed(reader, blocks, packed, "line", self._dropped)

    @property
    def _right_comes(self) -> bool:
        """Whether any column of the right side is in the output."""
        return self._how not in _LEFT_ALONE

    def _join(self, memory: memoryview) -> ExternalJoin | CrossJoin:
        spill, check, choice = self._run.spill, self._run.check, self._run.choice
        if self._how == "cross":
            return CrossJoin(memory, spill, ordered=choice.ordered, check=check)
        return ExternalJoin(
            memory,
            spill,
            self._how,
            ordered=choice.ordered,
            build_left=choice.build_left,
            build_bytes=choice.build_bytes,
            row_bytes=self._row_bytes,
            check=check,
            journal=self._run.journal(),
        )

    def _packed(
        self,
        reader: ColumnReader,
        blocks: Iterator[Block],
        packed: memoryview,
        payload: Literal["line"] | None = "line",
        dropped: array[int] = array("I"),  # noqa: B008 - never changed
    ) -> Iterator[memoryview]:
        """Yield blocks of packed rows: the key, and the record or nothing as payload."""
        spec = KeySpec([(at, False, False) for at in range(len(self._left_keys))])
        # To find fields of a record, where columns of the right side are dropped from it.
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
                        arguments = columns, spec, payload, start
                        row_bytes = _row_bytes(arguments, packed, dropped, marks)
                        raise self._too_long(row_bytes) from None
                    start += count
                    yield packed[:filled]

    def _lines(self, joined: memoryview, out: memoryview) -> Iterator[Block]:
        # A side without a row is a record of empty fields: only delimiters, one fewer than fields.
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
                raise self._too_long(_length_at(joined, at)) from None
            yield Block(out[:filled], rows=rows)

    def _too_long(self, row_bytes: int) -> CapTooSmall:
        return LongRow.met(row_bytes, f"a row to be joined needs {format_bytes(row_bytes)}")


def _length_at(rows: memoryview, at: int) -> int:
    return int.from_bytes(rows[at : at + 4], "little")


def _row_bytes(
    arguments: tuple[Columns, KeySpec, Literal["line"] | None, int],
    room: memoryview,
    dropped: array[int],
    marks: bytes,
) -> int:
    """Return the length of a row that does not fit a buffer; a bound where it is much longer.

    Args:
        arguments: those of `pack_join_rows` before the buffer, the row first.
        room: the buffer that is too small.
        dropped: as for `pack_join_rows`.
        marks: as for `pack_join_rows`.
    """
    with new_buffer(len(room) * 5 // 4) as larger:
        try:
            pack_join_rows(*arguments, larger, dropped, marks)
        except ValueError:
            return 2 * len(room)
        return _length_at(larger, 0)
