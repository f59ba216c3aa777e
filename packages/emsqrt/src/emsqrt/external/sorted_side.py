"""The build side of a join, while its rows come sorted by their keys: spilled as they are.

As long as the other side comes sorted too, it is merged with this one and nothing of it is spilled.
When it does not, this side is partitioned already: its segments are ranges of keys that fit memory.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import TYPE_CHECKING

from emsqrt._kernel import key_run, sorted_run
from emsqrt.external.partition import FAN_OUT_MAX, blocks_of, too_long

if TYPE_CHECKING:
    from emsqrt.spill import Segment, SegmentWriter, SpillManager

BLOCK_BYTES_MAX = 1 << 18
ENTRY_BYTES = 12  # what a stored row takes beside itself
_KEY_BYTES_MAX = 512  # of a bound; they lie outside the memory
_RANGES_THAT_FIT = FAN_OUT_MAX // 2


def is_sorted(rows: memoryview) -> bool:
    """Return whether rows have ascending keys, those without one last."""
    end, _, _ = sorted_run(rows, 0, len(rows), b"")
    return key_run(rows, end, b"") == len(rows)


class SortedSide:
    """Rows with ascending keys, cut into segments where a key ends. Rows without a key are dropped.

    Args:
        memory_bytes: a segment is to be joined in.
        spill: where they lie.
        name: of the segments.
        row_bytes_max: a longer row is refused.
    """

    def __init__(
        self, memory_bytes: int, spill: SpillManager, name: str, row_bytes_max: int
    ) -> None:
        self.bounds: list[bytes] = []
        """The first keys of all segments but the first."""
        self.segments: list[Segment] = []
        self.spilled_bytes = 0
        self._fits_bytes = memory_bytes * 3 // 4
        self._block_bytes = min(BLOCK_BYTES_MAX, memory_bytes // 16)
        self._spill = spill
        self._name = name
        self._row_bytes_max = row_bytes_max
        self._writer: SegmentWriter | None = None
        self._filled = 0
        self._last = b""
        self._ended = False

    def add(self, rows: memoryview, at: int = 0) -> int:
        """Spill rows from byte `at` on; return where the first lies that is not in order."""
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
            self._ended, at = True, end
        return at

    def finish(self) -> None:
        """End the side."""
        if self._writer is not None:
            self.segments.append(self._writer.finish())
            self._writer = None

    @property
    def block_bytes(self) -> int:
        """A buffer for any block."""
        return max((segment.block_raw_max for segment in self.segments), default=0)

    def blocks(self, buffer: memoryview) -> Generator[memoryview]:
        """Yield the blocks in order, each read into `buffer`."""
        for segment in self.segments:
            for rows, _ in blocks_of(segment, self._spill, buffer):
                yield rows

    def close(self) -> None:
        """Remove what was spilled."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        for segment in self.segments:
            self._spill.remove(segment)
        self.segments.clear()

    def _append(self, rows: memoryview, count: int) -> None:
        if count == 1 and len(rows) > self._row_bytes_max:
            raise too_long(len(rows), self._row_bytes_max)
        if self._filled + len(rows) + ENTRY_BYTES * count > self._range_bytes():
            end = key_run(rows, 0, self._last)
            if end < len(rows) and len(_key(rows, end)) <= _KEY_BYTES_MAX:
                same = sorted_run(rows, 0, end, self._last)[1] if end else 0
                self._write(rows[:end], same)
                self._begin_range(_key(rows, end))
                rows, count = rows[end:], count - same
        self._write(rows, count)

    def _range_bytes(self) -> int:
        """Return how much a range may take: more than memory, when there are many already."""
        ranges = len(self.segments) + 1
        if ranges == FAN_OUT_MAX:
            return 1 << 62
        return self._fits_bytes << max(0, ranges - _RANGES_THAT_FIT) // 4

    def _begin_range(self, first: bytes) -> None:
        if self._writer is not None:
            self.segments.append(self._writer.finish())
            self._writer = None
            self.bounds.append(first)
        self._filled = 0

    def _write(self, rows: memoryview, count: int) -> None:
        if not count:
            return
        if self._writer is None:
            self._writer = self._spill.create(self._name)
        self._writer.append(rows, count)
        self._filled += len(rows) + ENTRY_BYTES * count
        self.spilled_bytes += len(rows)


def _key(rows: memoryview, at: int) -> bytes:
    (key_bytes,) = struct.unpack_from("<I", rows, at + 4)
    return bytes(rows[at + 8 : at + 8 + key_bytes])
