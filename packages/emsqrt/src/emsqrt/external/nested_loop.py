"""Block nested loop: join a partition that cannot be divided slice by slice of its right side.

A hash table is built of as many right rows as fit and probed with all left rows, then the next
table is built, and so on. One bit per left row records across slices whether it has matched: what
kinds other than inner and right write of a left row depends on all slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import JoinTable, null_extend_rows
from emsqrt.external.join_output import FORWARD, MATCHED, UNMATCHED, HashJoinKind, JoinOutput, drain
from emsqrt.external.matched_bits import MatchedBits
from emsqrt.external.partition import blocks_of
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from emsqrt.spill import Segment, SegmentReader, SpillManager

_BITS_SHARE = 64


class NestedLoop:
    """Joins two segments of any size.

    Args:
        memory: memory for a block of either side, bits and the table of a slice.
        block_bytes: the size of the longest block.
        spill: the spill manager with the segments, also for bits that do not fit.
        how: the kind of join.
        flags: the sides that have row numbers.
        name: the name of the segment of bits.
    """

    def __init__(
        self,
        memory: memoryview,
        block_bytes: int,
        spill: SpillManager,
        how: HashJoinKind,
        flags: int,
        name: str,
    ) -> None:
        self._spill = spill
        self._emission = FORWARD[how]
        self._flags = flags
        self._block = memory[:block_bytes]
        needs_bits = bool(self._emission.flags & (UNMATCHED | MATCHED))
        bits_bytes = max(len(memory), block_bytes) // _BITS_SHARE + 64 if needs_bits else 0
        # A row has at least 8 bytes, so a block of B bytes has at most B / 8 rows: B / 64 bytes of
        # bits. The window therefore has room for the longest block in any case.
        window = memory[block_bytes : block_bytes + bits_bytes]
        self._bits = MatchedBits(window, spill, name) if needs_bits else None
        self._room = memory[block_bytes + bits_bytes :]
        self.slices = 0

    def join(self, left: Segment, right: Segment, joined: JoinOutput) -> Iterator[bool]:
        """Join; yield False when `joined` is full, True at the end of a slice."""
        # All left rows are read once for each slice of the right side, as many of its rows as fit:
        # left bytes · ⌈right bytes / table⌉ in all. Which left rows have a match is known only after
        # the last slice, so it is kept in bits.
        place: tuple[int, int] | None = (0, 0)
        table = JoinTable(self._room)
        try:
            with self._spill.open(right) as reader:
                while place is not None:
                    table.clear()
                    place = self._fill(table, reader, place)
                    self.slices += 1
                    yield from self._pass(table, left, joined)
                    yield True
            if self._emission.flags & UNMATCHED:
                yield from self._write_unmatched(left, joined)
        finally:
            if self._bits is not None:
                self._bits.close()

    def _fill(
        self, table: JoinTable, reader: SegmentReader, place: tuple[int, int]
    ) -> tuple[int, int] | None:
        """Fill a table with rows from `place` (block, byte) on; return where the next one begins."""
        number, at = place
        reader.seek(number)
        while size := reader.read_into(self._block)[0]:
            at = table.add_rows(self._block[:size], at)
            if at < size:
                if table.rows == 0:
                    raise CapTooSmall(
                        cap_bytes=len(self._room),
                        needed_bytes=2 * size,
                        because="a row of the join does not fit its memory",
                    )
                break
            number, at = number + 1, 0
        table.index()
        return (number, at) if size else None

    def _pass(self, table: JoinTable, left: Segment, joined: JoinOutput) -> Iterator[bool]:
        """Probe one slice with all left rows."""
        flags = self._emission.flags & ~UNMATCHED | self._flags
        bits, first = None, 0
        if self._bits is not None:
            self._bits.begin()
        for rows, count in blocks_of(left, self._spill, self._block):
            if self._bits is not None:
                bits, first = self._bits.place(len(rows), count)
            at = 0
            while at < len(rows):
                at, filled, wrote, passed = table.probe(rows, at, joined.room(), flags, bits, first)
                joined.wrote(filled, wrote)
                first += passed
                if at < len(rows):
                    yield False
        if self._bits is not None:
            self._bits.end()
        yield from drain(table, self._emission, self._flags, joined)

    def _write_unmatched(self, left: Segment, joined: JoinOutput) -> Iterator[bool]:
        """Write the left rows that have no match in any slice."""
        assert self._bits is not None, "kinds that keep left rows have bits"
        self._bits.begin()
        for rows, count in blocks_of(left, self._spill, self._block):
            bits, first = self._bits.place(len(rows), count)
            at = 0
            while at < len(rows):
                at, filled, wrote, passed = null_extend_rows(
                    rows, at, joined.room(), False, self._flags, bits, first
                )
                joined.wrote(filled, wrote)
                first += passed
                if at < len(rows):
                    yield False
        yield True
