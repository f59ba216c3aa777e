"""One bit for each row of a segment that is read repeatedly: whether the row has matched yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emsqrt.spill import Segment, SegmentReader, SegmentWriter, SpillManager


class MatchedBits:
    """Bits in a window that moves with the reader; the other windows are in a spilled segment.

    Every pass reads the same blocks, so the windows are the same each time. Call `begin`, `place`
    for each block, then `end`.

    Args:
        window: memory for the bits of some blocks.
        spill: the spill manager for the other windows.
    """

    def __init__(self, window: memoryview, spill: SpillManager, name: str) -> None:
        self._window = window
        self._spill = spill
        self._name = name
        # `_last`    the bits as the pass before left them; None while all fit the window
        # `_reader`  reads `_last` in the current pass, `_writer` writes the next version
        # `_used`    bits of the window that belong to blocks of this pass
        self._last: Segment | None = None
        self._reader: SegmentReader | None = None
        self._writer: SegmentWriter | None = None
        self._used = 0
        self._clear()

    def begin(self) -> None:
        """Begin a pass at the first block."""
        self._used = 0
        if self._last is not None:
            self._reader = self._spill.open(self._last)
            self._load()

    def place(self, block_bytes: int, rows: int) -> tuple[memoryview, int]:
        """Return (bits, index of the first bit) for the next block; rows have at least 8 bytes."""
        # A window ends before a block whose bits might not fit. All passes read the same blocks, so
        # it ends before the same one each time.
        if self._used + block_bytes // 8 > len(self._window) * 8:
            self._store()
            self._load()
        first = self._used
        self._used += rows
        return self._window, first

    def end(self) -> None:
        """End a pass; the next pass sees the bits that were set."""
        if self._writer is None:
            return
        self._store()
        finished = self._writer.finish()
        self._writer = None
        self.close()
        self._last = finished

    def close(self) -> None:
        """Remove the spilled bits."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._last is not None:
            self._spill.remove(self._last)
            self._last = None

    def _store(self) -> None:
        if self._writer is None:
            self._writer = self._spill.create(self._name)
        self._writer.append(self._window, self._used)
        self._used = 0

    def _load(self) -> None:
        self._used = 0
        # Without a reader this is the first pass: no row has matched yet.
        if self._reader is None or self._reader.read_into(self._window) == (0, 0):
            self._clear()

    def _clear(self) -> None:
        self._window[:] = bytes(len(self._window))
