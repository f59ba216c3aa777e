"""`Merging`: merge sorted sources, each of which has a part of the memory that is refilled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emsqrt.long_row import LongRow

if TYPE_CHECKING:
    from emsqrt._kernel import Merger
    from emsqrt.external.output_buffer import OutputBuffer
    from emsqrt.spill import SegmentWriter

_DONE = -2  # why a merger stopped, as in _kernel/merge.h


class Merging:
    """One merge; a subclass reads its sources.

    Args:
        memory: the memory of the merger.
        merger: the merger; the subclass fills its sources before the first row is asked for.
    """

    def __init__(self, memory: memoryview, merger: Merger) -> None:
        self._memory = memory
        self._merger = merger

    def _refill(self, source: int) -> None:
        """Fill the part of an empty source; with no rows, the source has ended."""
        raise NotImplementedError

    def blocks(
        self, out: OutputBuffer, limit: int | None, ending: bytes | None
    ) -> Iterator[tuple[int, int]]:
        """Fill `out` repeatedly; raise CapTooSmall for a row that does not fit."""
        for filled, rows in self._fill(out, limit, ending):
            if rows == 0:
                start, stop = self._head()
                raise _too_long(len(out.room), stop - start)
            yield filled, rows

    def write_to(self, writer: SegmentWriter, out: OutputBuffer, limit: int | None) -> None:
        """Write all rows to a segment; a row longer than `out` becomes a block of its own."""
        for filled, rows in self._fill(out, limit, None):
            if rows:
                writer.append(out.room[:filled], rows)
                continue
            start, stop = self._head()
            writer.append(self._memory[start:stop], 1)
            source = self._merger.skip()
            if source >= 0:
                self._refill(source)

    def _fill(
        self, out: OutputBuffer, limit: int | None, ending: bytes | None
    ) -> Iterator[tuple[int, int]]:
        """Yield each time `out` is full, or is empty because the next row is longer than `out`."""
        left = -1 if limit is None else limit  # rows still wanted; negative for all of them
        filled = rows = 0  # of `out`, which is handed over when no further row fits
        while left:
            most = {} if left < 0 else {"rows_max": left}
            came, rows_read, why = self._merger.run(out.room[filled:], ending, **most)
            filled, rows = filled + came, rows + rows_read
            if left > 0:
                left -= rows_read
            # Nothing is wrong and nothing is complete: one source's blocks are merged, and its next
            # ones are due.
            if why >= 0:
                self._refill(why)
                continue
            if why == _DONE and rows == 0:
                return
            # The next row is longer than half of the output; with all of it, the row may fit.
            if rows == 0 and out.widen():
                continue
            # Without rows, the next one is longer than `out`: the caller writes or refuses it.
            yield filled, rows
            if rows == 0 and left > 0:
                left -= 1  # the merge that fills `out` has passed the long row on
            filled = rows = 0
            out.advance()
            if why == _DONE:
                return
        if rows:
            yield filled, rows

    def _head(self) -> tuple[int, int]:
        head = self._merger.head()
        assert head is not None, "there is a row that did not fit"
        return head


def _too_long(out_bytes: int, row_bytes: int) -> LongRow:
    return LongRow(
        cap_bytes=out_bytes,
        needed_bytes=row_bytes,
        because=f"a row has {row_bytes} bytes",
        row_bytes=row_bytes,
    )
