"""A copy of the rows that a plan writes to a file, for a caller that wants them if they are few."""

from __future__ import annotations

from typing import Any

from emsqrt.io.emitter import PIECE_BYTES, Emit
from emsqrt.io.formats import open_format
from emsqrt.memory import MemoryBudget

_FREE_SHARE = 16
"""The copy is optional, so it is made only where it needs a small part of the free memory."""
_COPIES = 2
"""The collected stream, and the message that is being written."""


class SmallCopy:
    """Collects rows as an Arrow IPC stream, until they are too many.

    Args:
        schema: the rows' Arrow schema.
        bytes_max: the most bytes of the stream; 0 collects nothing.
        budget: the copy's memory is reserved in it.
    """

    def __init__(self, schema: Any, bytes_max: int, budget: MemoryBudget) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        needed = _COPIES * max(bytes_max, PIECE_BYTES)
        self._guard = None
        if bytes_max and budget.free_bytes // _FREE_SHARE >= needed:
            self._guard = budget.try_acquire(needed, "small result")
        self._writer = open_format("arrow", schema, self._collect) if self._guard else None

    def write(self, batch: Any) -> None:
        """Append the batch's rows, or drop all rows if they are too many."""
        if self._writer is None:
            return
        if self._writer.bytes + batch.nbytes > self._bytes_max:
            self.drop()
        else:
            self._writer.write(batch)

    def emit_to(self, emit: Emit) -> None:
        """Emit the whole stream in one piece; nothing if the rows were too many."""
        if self._writer is not None:
            self._writer.finish()
            stream = b"".join(self._pieces)
            if len(stream) <= self._bytes_max:
                emit(stream)
        self.drop()

    def drop(self) -> None:
        """Free the collected rows. May be called twice."""
        self._writer = None
        self._pieces.clear()
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def _collect(self, piece: Any) -> None:
        self._pieces.append(bytes(piece))
