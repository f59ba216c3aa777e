"""Bytes to write, wherever they go: each output appears whole at its end, or not at all.

Standard output cannot be taken back, but nobody mistakes a cut stream for a whole one: an error
ends the process with its code. A reader that goes away early (`emsqrt … | head`) ends the run
with `ReaderGone`, quietly.
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
from emsqrt.io.places import Place
from emsqrt.system_errors import translating_os_errors
from sennit_core.errors import Cancelled

_WRITE_BYTES = 1 << 20


@dataclass(eq=False)
class ReaderGone(Cancelled):
    """Whoever read standard output went away; there is nobody left to write for."""

    code = "reader-gone"
    what: str = "standard output"

    def describe(self) -> str:
        """Say that nobody reads any more."""
        return f"nobody reads {self.what} any more"


class Output(Protocol):
    """What a sink writes to."""

    @property
    def bytes(self) -> int:
        """How much reached the file."""

    def write(self, data: Any, /) -> int:
        """Append bytes."""


class CountedOutput:
    """Counts what reaches the file itself.

    Args:
        file: takes the bytes.
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
        """The owner flushes at the end."""

    def close(self) -> None:
        """The owner closes."""

    def tell(self) -> int:
        """Return how much was written."""
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
    """Compresses on the way to a counted output."""

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
def open_output(place: Place, codec: str | None = None) -> Iterator[Output]:
    """Open a place for writing; leaving in peace makes the output visible, an error leaves nothing.

    Args:
        place: a local file (its folder is made), an object, or standard output.
        codec: "gzip" or "zstd" to compress what is written.

    Raises:
        StorageFull: the disk is full.
        ReaderGone: standard output has no reader any more.
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
def _open_plain(place: Place) -> Iterator[BinaryIO | StandardOutput]:
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


def codec_by_name(place: Place) -> str | None:
    """Return the codec that an output's name asks for: ".gz" or ".zst"."""
    return split_suffix(place.path)[1]
