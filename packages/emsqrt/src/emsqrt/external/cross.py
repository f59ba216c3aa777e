"""Cross join: every left row with every right row, in the order of the left input."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import join_cross
from emsqrt.external.join_output import JoinOutput, JoinStats
from emsqrt.external.partition import blocks_of, too_long
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.spill import Segment, SegmentWriter, SpillManager

MEMORY_BYTES_MIN = 64 << 10
# A row may use 1 / 8 of the memory, as in a hash join.
ROW_SHARE = 8


class CrossJoin:
    """A join without keys, with the interface of `ExternalJoin`.

    The right side is held in memory, or else spilled and read again for each left row: no more
    bytes are read than the result has.

    Args:
        memory: the working memory.
        spill: the spill manager for a right side that does not fit.
        ordered: keep the order; False reads a spilled right side only once for each left block.
        name: the name of the segment.
        check: called often; an exception that it raises ends the work.

    Raises:
        CapTooSmall: the memory is below `MEMORY_BYTES_MIN`, or a row needs more than an eighth.
    """

    def __init__(
        self,
        memory: memoryview,
        spill: SpillManager,
        *,
        ordered: bool = True,
        name: str = "cross",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        if len(memory) < MEMORY_BYTES_MIN:
            raise CapTooSmall(
                cap_bytes=len(memory), needed_bytes=MEMORY_BYTES_MIN, because="a join works in it"
            )
        self.stats = JoinStats()
        self.is_built = self.is_probed = False
        self._memory = memory
        self._spill = spill
        self._ordered = ordered
        self._name = name
        self._check = check
        self._filled = 0
        self._rows = 0
        self._writer: SegmentWriter | None = None
        self._right: Segment | None = None

    def add_build(self, block: Buffer) -> None:
        """Add rows of the right side."""
        self._check()
        with memoryview(block) as rows:
            at = 0
            while at < len(rows):
                # Whole rows are copied until the memory is full. Then it is spilled as one block,
                # so a block of the right side is at most as long as the memory into which it is
                # read back.
                stop, count = self._whole_rows(rows, at, len(self._memory) - self._filled)
                self._memory[self._filled : self._filled + stop - at] = rows[at:stop]
                self._filled += stop - at
                self._rows += count
                at = stop
                if at < len(rows):
                    self._flush()

    def finish_build(self) -> None:
        """End the right side; rows of the left side may be added from now on."""
        if self._writer is None:
            return
        self._flush()
        self._right, self._writer = self._writer.finish(), None
        self.stats.spilled_bytes = self._right.raw_bytes

    def probe(self, block: Buffer, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        """Join each row of the left side with all right rows; the iterator must be consumed.

        Args:
            block: the rows.
            joined: the output buffer; the same in each call, because rows accumulate in it.

        Yields:
            (bytes, rows) of joined rows at the start of the output buffer.
        """
        with memoryview(block) as rows:
            if self._right is None:
                yield from self._cross(rows, self._memory[: self._filled], joined)
            # In order: one pass over the right side per left row. Otherwise one per left block.
            elif self._ordered:
                at = 0
                while at < len(rows):
                    (row_bytes,) = struct.unpack_from("<I", rows, at)
                    yield from self._replay(rows[at : at + row_bytes], self._right, joined)
                    at += row_bytes
            else:
                yield from self._replay(rows, self._right, joined)
        if joined.is_due:
            yield joined.flush()

    def finish(self, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        """End the left side; yields as `probe` does."""
        if joined.rows:
            yield joined.flush()

    def close(self) -> None:
        """Remove the spilled rows."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._right is not None:
            self._spill.remove(self._right)
            self._right = None

    def _replay(
        self, left: memoryview, right: Segment, joined: JoinOutput
    ) -> Iterator[tuple[int, int]]:
        for rows, _ in blocks_of(right, self._spill, self._memory):
            self._check()
            yield from self._cross(left, rows, joined)

    def _cross(
        self, left: memoryview, right: memoryview, joined: JoinOutput
    ) -> Iterator[tuple[int, int]]:
        left_at = right_at = 0
        while left_at < len(left):
            left_at, right_at, *wrote = join_cross(left, left_at, right, right_at, joined.room())
            joined.wrote(*wrote)
            if left_at < len(left):
                yield joined.flush()

    def _whole_rows(self, rows: memoryview, at: int, room: int) -> tuple[int, int]:
        """Return the end of the rows from `at` on that fit `room`, and their number."""
        stop, count = at, 0
        while stop < len(rows):
            # A row begins with its length (rows.h).
            (row_bytes,) = struct.unpack_from("<I", rows, stop)
            if row_bytes > len(self._memory) // ROW_SHARE:
                raise too_long(row_bytes, len(self._memory) // ROW_SHARE)
            if stop + row_bytes - at > room:
                break
            stop, count = stop + row_bytes, count + 1
        return stop, count

    def _flush(self) -> None:
        """Spill the rows in memory as one block."""
        self._writer = self._writer or self._spill.create(self._name)
        self._writer.append(self._memory[: self._filled], self._rows)
        self._filled = self._rows = 0
