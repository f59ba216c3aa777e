"""Emit a stream of bytes in pieces: small writes are collected, large ones are passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["PIECE_BYTES", "BufferedEmitter", "Emit"]

Emit = Callable[[Any], object]
"""Receives one piece of a stream, any buffer of bytes, which is only valid during the call."""

PIECE_BYTES = 128 << 10
"""Each piece wakes its reader; a larger piece would not stay in the CPU cache."""
_FIRST_BYTES = 8 << 10


class BufferedEmitter:
    """Collects writes up to 128 KiB; a write of more than half of that is emitted without a copy.

    Args:
        emit: receives the pieces, in order.
    """

    def __init__(self, emit: Emit) -> None:
        self.bytes = 0
        """Bytes written so far."""
        self._emit = emit
        # Most results are short, and zeroing the whole piece costs more than growing it once.
        self._gathered = memoryview(bytearray(_FIRST_BYTES))
        self._count = 0

    def put(self, data: Buffer) -> int:
        """Append to the stream; return the number of bytes."""
        view = memoryview(data).cast("B")
        size = len(view)
        self.bytes += size
        if self._count + size > PIECE_BYTES:
            self.flush()
        if self._count == 0 and size > PIECE_BYTES // 2:
            self._emit(view)
        else:
            end = self._count + size
            if end > len(self._gathered):
                whole = memoryview(bytearray(PIECE_BYTES))
                whole[: self._count] = self._gathered[: self._count]
                self._gathered = whole
            self._gathered[self._count : end] = view
            self._count = end
        return size

    def flush(self) -> None:
        """Emit the collected bytes."""
        count, self._count = self._count, 0
        if count:
            self._emit(self._gathered[:count])
