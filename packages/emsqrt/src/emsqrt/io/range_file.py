"""A source as a random-access file object for Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from emsqrt.io.sources import ByteSource


def open_for_arrow(source: ByteSource) -> Any:
    """Return a random-access Arrow file over a source; the caller closes it.

    Raises:
        Unsupported: the source has no random access, such as standard input.
    """
    if source.path is not None:
        return pa.OSFile(str(source.path), "rb")
    return pa.PythonFile(_RangeFile(source), mode="r")


class _RangeFile:
    """Reads ranges without reading ahead, because Arrow's buffers do that."""

    closed = False

    def __init__(self, source: ByteSource) -> None:
        source.read_at(0, 1)  # raises for a source without random access
        self._source = source
        self._size = source.stored_bytes or 0
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        size = left if size < 0 else min(size, left)
        data = self._source.read_at(self._position, size) if size else b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self._position, self._size)[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self.closed = True

    def flush(self) -> None:
        """Do nothing: the file is read-only."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False
