"""Read Arrow IPC streams from the pieces of an HTTP body."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sennit_core.optional import import_optional

if TYPE_CHECKING:
    import pyarrow as pa

    from sennit_core.arrow_ipc import ArrowReader


class _Pieces(io.RawIOBase):
    """A readable file over an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def open_batches(pieces: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the validated record batches of an IPC stream as its bytes arrive.

    Raises:
        BadInput: The stream is damaged, cut off, or not Arrow.
    """
    with _open(pieces) as reader:
        yield from reader


def read_table(pieces: Iterator[bytes]) -> pa.Table:
    """Read and validate a whole IPC stream; raises as `open_batches` does."""
    with _open(pieces) as reader:
        return reader.read_all()


@contextmanager
def _open(pieces: Iterator[bytes]) -> Iterator[ArrowReader]:
    arrow = import_optional("pyarrow", "reading a result")
    from sennit_core.arrow_ipc import open_arrow

    with (
        io.BufferedReader(_Pieces(pieces), 1 << 20) as file,
        arrow.PythonFile(file, mode="r") as source,
        open_arrow(source, "the server's response") as reader,
    ):
        yield reader
