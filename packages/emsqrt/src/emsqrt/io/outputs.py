"""Outputs for bytes: each output appears whole at its end, or not at all.

Standard output cannot be undone, but a truncated stream is not mistaken for a complete one: an
error ends the process with its exit code. A reader that closes the pipe early (`emsqrt … | head`)
ends the run with `ReaderGone`, without a message.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from emsqrt.io.codecs import Encoder, split_suffix
from emsqrt.io.files import open_whole
from emsqrt.io.locations import Location
from emsqrt.system_errors import translating_os_errors
from sennit_core.errors import Cancelled

_WRITE_BYTES = 1 << 20


@dataclass(eq=False)
class ReaderGone(Cancelled):
    """The reader of standard output closed the pipe."""

    code = "reader-gone"
    what: str = "standard output"

    def describe(self) -> str:
        """Name the output whose reader has closed it."""
        return f"the reader of {self.what} closed it"


class Output(Protocol):
    """The output of a sink."""

    @property
    def bytes(self) -> int:
        """Bytes written to the file."""

    def write(self, data: Any, /) -> int:
        """Append bytes."""


class CountedOutput:
    """Counts the bytes that are written to a file.

    Args:
        file: the file.
    """

    closed = False

    def __init__(self, file: BinaryIO | StandardOutput) -> None:
        self._file = file
        self.bytes = 0

    def write(self, data: Any, /) -> int:
        """Append bytes."""
        size = memoryview(data).nbytes
        self._file.write(data)
        self.bytes += size
        return size

    def flush(self) -> None:
        """Do nothing: the owner flushes at the end."""

    def close(self) -> None:
        """Do nothing: the owner closes the file."""

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.bytes


class StandardOutput:
    """Standard output as bytes, unbuffered.

    Args:
        descriptor: the file descriptor.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor

    def write(self, data: Any, /) -> int:
        """Write all of `data`.

        Raises:
            ReaderGone: the other end of the pipe is closed.
        """
        view = memoryview(data).cast("B")
        at = 0
        with translating_os_errors("standard output", "writing"):
            try:
                while at < len(view):
                    at += os.write(self._descriptor, view[at : at + _WRITE_BYTES])
            except BrokenPipeError as error:
                raise ReaderGone from error
        return at


class _Encoded:
    """Compresses bytes for a counted output."""

    def __init__(self, codec: str, out: CountedOutput) -> None:
        self._encoder = Encoder(codec, out)
        self._out = out

    @property
    def bytes(self) -> int:
        return self._out.bytes

    def write(self, data: Any, /) -> int:
        return self._encoder.write(data)

    def finish(self) -> None:
        self._encoder.finish()


@contextmanager
def open_output(place: Location, codec: str | None = None) -> Iterator[Output]:
    """Open an output; it appears when the context is left without an error, else never.

    Args:
        place: a local file (its folder is created), an object, or standard output.
        codec: "gzip" or "zstd" to compress the output; None for none.

    Raises:
        StorageFull: the disk is full.
        ReaderGone: the reader of standard output closed it.
    """
    with _open_plain(place) as file:
        counted = CountedOutput(file)
        if codec is None:
            yield counted
            return
        encoded = _Encoded(codec, counted)
        yield encoded
        encoded.finish()


@contextmanager
def _open_plain(place: Location) -> Iterator[BinaryIO | StandardOutput]:
    if place.is_standard:
        yield StandardOutput()
    elif place.is_local:
        path = Path(place.path)
        with translating_os_errors(str(path), "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(path) as file:
            yield file
    else:
        from emsqrt.io.objects import open_object

        with open_object(place) as upload:
            yield cast("BinaryIO", upload)


def codec_by_name(place: Location) -> str | None:
    """Return the codec for an output's suffix, ".gz" or ".zst", else None."""
    return split_suffix(place.path)[1]
