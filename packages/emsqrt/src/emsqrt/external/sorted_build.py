"""The build side of a join while its rows are sorted by their keys: they are spilled in order.

As long as the probe side is sorted too, both sides are merged and the probe side is not spilled.
When it is not, the build side is partitioned already: its segments are key ranges that fit memory.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import TYPE_CHECKING

from emsqrt._kernel import key_run, mark_matched, sorted_run
from emsqrt.external.partition import (
    FAN_OUT_MAX,
    PartitionFunction,
    PartitionWriter,
    blocks_of,
    too_long,
)

if TYPE_CHECKING:
    from emsqrt.spill import Segment, SegmentWriter, SpillManager

BLOCK_BYTES_MAX = 1 << 18
ENTRY_BYTES = 12  # memory per stored row, in addition to the row
_KEY_BYTES_MAX = 512  # the longest bound; bounds are not in the working memory
# The first 35 ranges fit memory. From there on the size doubles every four ranges, and the last one
# is unlimited, so 64 segments are enough for a side of any size. A range that does not fit is
# joined like any partition that does not.
_RANGES_THAT_FIT = FAN_OUT_MAX // 2


def is_sorted(rows: memoryview) -> bool:
    """Return whether rows have ascending keys, with NULL keys last."""
    # Ascending keys up to `end`, and after that only rows with a NULL in their key.
    end, _, _ = sorted_run(rows, 0, len(rows), b"")
    return key_run(rows, end, b"") == len(rows)


class SortedBuild:
    """Rows with ascending keys, in segments that end where a key ends; NULL keys are last.

    Args:
        memory_bytes: the memory in which a segment will be joined.
        spill: the spill manager for the segments.
        name: the name of the segments.
        row_bytes_max: longer rows are refused.
        buffers: memory to buffer rows before they are spilled, if the join writes unmatched rows
            of this side; None drops rows with a NULL key.
        numbered: write each row's number before its payload; only with buffers.
    """

    def __init__(
        self,
        memory_bytes: int,
        spill: SpillManager,
        name: str,
        row_bytes_max: int,
        *,
        buffers: memoryview | None = None,
        numbered: bool = False,
    ) -> None:
        self.bounds: list[bytes] = []
        """The first keys of all segments but the first."""
        self.segments: list[Segment] = []
        self.nulls: Segment | None = None
        """Rows with a NULL key, if they are kept."""
        self.rows_numbered: int | None = 0 if numbered else None
        self.spilled_bytes = 0
        self._buffers = buffers
        # The ranges may become partitions, which are joined in the same memory next to a block and
        # the joined rows.
        self._fits_bytes = memory_bytes * 3 // 4
        self._block_bytes = min(BLOCK_BYTES_MAX, memory_bytes // 16)
        self._spill = spill
        self._name = name
        self._row_bytes_max = row_bytes_max
        self._writer: SegmentWriter | None = None
        self._keeper: PartitionWriter | None = None
        self._filled = 0
        # The last key that was spilled; `_ended` once a row with a NULL in its key came: from then
        # on a row with a key is out of order.
        self._last = b""
        self._ended = False

    def add(self, rows: memoryview, at: int = 0) -> int:
        """Spill rows from byte `at` on; return the position of the first that is not in order."""
        while at < len(rows):
            end, count, last = sorted_run(rows, at, self._block_bytes, self._last)
            if end > at and not self._ended:
                self._append(rows[at:end], count)
                self._last = _key(rows, last)
                at = end
                continue
            end = key_run(rows, at, b"")
            if end == at:
                break
            if self._buffers is not None:
                self._keep(self._buffers, rows[at:end])
            self._ended, at = True, end
        return at

    def finish(self) -> None:
        """End the side."""
        self._end_range()

    @property
    def block_bytes(self) -> int:
        """The size of a buffer for any block."""
        return max((segment.block_raw_max for segment in self._all()), default=0)

    def blocks(self, buffer: memoryview) -> Generator[memoryview]:
        """Yield the blocks in order, each read into `buffer`."""
        for segment in self._all():
            for rows, _ in blocks_of(segment, self._spill, buffer):
                yield rows

    def mark(self, last: bytes, rest: Segment | None, memory: memoryview) -> None:
        """Rewrite the rows of keys up to `last`, marked as matched unless they are in `rest`.

        Args:
            last: the last key that was joined.
            rest: the unmatched rows among these, in order; the segment is removed.
            memory: memory for a block of this side and one of `rest`.
        """
        buffer, others = memory[: self.block_bytes], memory[self.block_bytes :]
        unmatched = _Rest(rest, self._spill, others)
        try:
            for place, segment in enumerate(self.segments):
                # Rewritten, not changed in place: a spilled block carries a checksum.
                with self._spill.create(self._name) as writer:
                    ended = False
                    for rows, count in blocks_of(segment, self._spill, buffer):
                        ended = ended or unmatched.mark(rows, last)
                        writer.append(rows, count)
                    self.segments[place] = writer.finish()
                self._spill.remove(segment)
                self.spilled_bytes += segment.raw_bytes
                if ended:
                    break
        finally:
            unmatched.close()
            if rest is not None:
                self._spill.remove(rest)

    def close(self) -> None:
        """Remove the spilled rows."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._keeper is not None:
            self._keeper.abort()
            self._keeper = None
        for segment in self._all():
            self._spill.remove(segment)
        self.segments.clear()
        self.nulls = None

    def _all(self) -> list[Segment]:
        return self.segments if self.nulls is None else [*self.segments, self.nulls]

    def _append(self, rows: memoryview, count: int) -> None:
        if count == 1 and len(rows) > self._row_bytes_max:
            raise too_long(len(rows), self._row_bytes_max)
        if self._filled + len(rows) + ENTRY_BYTES * count > self._range_bytes():
            # A range ends where a key ends, so that all rows of a key are in one segment: skip what
            # is left of the last key. A long key cannot be a bound, and the range grows on.
            end = key_run(rows, 0, self._last)
            if end < len(rows) and len(_key(rows, end)) <= _KEY_BYTES_MAX:
                same = sorted_run(rows, 0, end, self._last)[1] if end else 0
                self._write(rows[:end], same)
                self._begin_range(_key(rows, end))
                rows, count = rows[end:], count - same
        self._write(rows, count)

    def _range_bytes(self) -> int:
        """Return the most bytes of a range: more than fits memory if there are many already."""
        ranges = len(self.segments) + 1
        # No further segment: all that is left goes to the last range.
        if ranges == FAN_OUT_MAX:
            return 1 << 62
        return self._fits_bytes << max(0, ranges - _RANGES_THAT_FIT) // 4

    def _begin_range(self, first: bytes) -> None:
        if self._writer is not None or self._keeper is not None:
            self._end_range()
            self.bounds.append(first)
        self._filled = 0

    def _end_range(self) -> None:
        if self._writer is not None:
            self.segments.append(self._writer.finish())
            self._writer = None
        if self._keeper is not None:
            keyed, self.nulls = self._keeper.finish()
            self.segments += [] if keyed is None else [keyed]
            self.spilled_bytes += self._keeper.spilled_bytes
            if self.rows_numbered is not None:
                self.rows_numbered = self._keeper.next_number
            self._keeper = None

    def _write(self, rows: memoryview, count: int) -> None:
        if not count:
            return
        self._filled += len(rows) + ENTRY_BYTES * count
        if self._buffers is not None:
            self._keep(self._buffers, rows)
            return
        if self._writer is None:
            self._writer = self._spill.create(self._name)
        self._writer.append(rows, count)
        self.spilled_bytes += len(rows)

    def _keep(self, buffers: memoryview, rows: memoryview) -> None:
        """Spill rows of one range, and rows with a NULL key separately."""
        if self._keeper is None:
            self._keeper = PartitionWriter(
                buffers,
                self._spill,
                PartitionFunction(1),
                name=self._name,
                first=self.rows_numbered,
                row_bytes_max=self._row_bytes_max,
            )
        self._keeper.add(rows)


class _Rest:
    """Reads the unmatched rows in parallel with all rows."""

    def __init__(self, segment: Segment | None, spill: SpillManager, buffer: memoryview) -> None:
        self._blocks = blocks_of(segment, spill, buffer)
        self._rows = buffer[:0]
        self._at = 0
        self._ended = False

    def mark(self, rows: memoryview, last: bytes) -> bool:
        """Mark the matched rows of a block; return whether it has a key above `last`."""
        at, above = 0, False
        while at < len(rows) and not above:
            if self._at == len(self._rows) and not self._ended:
                self._rows, self._at = next(self._blocks, (self._rows[:0], 0))[0], 0
                self._ended = not self._rows
            at, self._at, above = mark_matched(rows, at, self._rows, self._at, self._ended, last)
        return above

    def close(self) -> None:
        """Close the segment."""
        self._blocks.close()


def _key(rows: memoryview, at: int) -> bytes:
    (key_bytes,) = struct.unpack_from("<I", rows, at + 4)
    return bytes(rows[at + 8 : at + 8 + key_bytes])
