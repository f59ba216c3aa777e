"""Bytes to read, wherever they are: one small interface for text readers and Parquet alike.

A text reader takes `peek` for names and types, then one `open`. Parquet takes `read_at`. Only
standard input cannot be begun again: it keeps what was peeked at and gives it out once more.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from emsqrt.io.codecs import MAGIC_BYTES, RawStream, codec_of, decoder_bytes, open_decoder
from emsqrt.io.places import Place, parse_place
from emsqrt.system_errors import system_error, translating_os_errors
from sennit_core.errors import NotFound, Unsupported, UsageError

_PEEK_HEADER_BYTES = 32
_SKIP_BYTES = 64 << 10


Reader = Callable[[int, int], bytes]
"""Returns a part of a source, given its offset and size."""


class SourceStream:
    """A source's plain bytes from its beginning; a context manager.

    `stored_bytes` counts what was taken from the file itself, which is less than what came out
    when it is compressed.
    """

    def __init__(self, plain: RawStream, counter: _Counter) -> None:
        self._plain = plain
        self._counter = counter

    @classmethod
    def over(cls, plain: RawStream, stream: SourceStream) -> SourceStream:
        """Return a stream whose bytes are made of those of another one."""
        return cls(plain, stream._counter)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that have been taken."""
        return self._counter.taken

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, with less only at the end; return how much it was."""
        held = 0
        while held < len(buffer) and (count := self._plain.readinto(buffer[held:])):
            held += count
        return held

    def skip(self, count: int) -> None:
        """Go on `count` bytes further: by a seek where that is possible, else by reading."""
        if self._plain is self._counter and self._counter.try_skip(count):
            return
        scratch = memoryview(bytearray(min(count, _SKIP_BYTES)))
        while count > 0 and (got := self.readinto(scratch[: min(count, len(scratch))])):
            count -= got

    def close(self) -> None:
        """Let go of the file."""
        self._plain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ByteSource(ABC):
    """One file, object or stream.

    Args:
        name: what errors call it.
    """

    path: Path | None = None
    """Where it is on this machine, if it is there and not compressed."""
    can_reopen = True
    """Whether `open` may be called again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._codec: str | bool | None = False
        self._start = b""

    @property
    @abstractmethod
    def stored_bytes(self) -> int | None:
        """Length as stored, None when nobody can tell."""

    @abstractmethod
    def open_raw(self) -> RawStream:
        """Open the stored bytes from the beginning."""

    @abstractmethod
    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` stored bytes from `offset`: less only at the end."""

    @contextmanager
    def open_ranges(self) -> Iterator[Callable[[int, int], bytes]]:
        """Hold the file open for many reads of parts: a function of offset and size."""
        yield self.read_at

    @property
    def codec(self) -> str | None:
        """How the source is compressed: "gzip", "zstd" or None, told by its first bytes."""
        if self._codec is False:
            self._start = self._raw_start(_PEEK_HEADER_BYTES)
            self._codec = codec_of(self._start[:MAGIC_BYTES])
        assert self._codec is None or isinstance(self._codec, str)
        return self._codec

    @property
    def need_bytes(self) -> int:
        """What reading takes beside the reader's own buffer: the decompressor, chiefly."""
        return decoder_bytes(self.codec, self._start)

    @property
    def plain_bytes(self) -> int | None:
        """Length of what comes out, None when it is not known before reading."""
        return None if self.codec else self.stored_bytes

    def open(self) -> SourceStream:
        """Open the plain bytes from the beginning.

        Raises:
            Unsupported: it is zstd, and nothing here reads that.
        """
        counter = _Counter(self.open_raw())
        plain = open_decoder(self.codec, counter, self.name) if self.codec else counter
        return SourceStream(plain, counter)

    def peek(self, size: int) -> bytes:
        """Return the first `size` plain bytes, or all when there are fewer."""
        if self.codec is None:
            return self._raw_start(size)
        with self.open() as stream:
            return _read_up_to(stream, size)

    def stored_offset(self, offset: int) -> int | None:
        """Return where a byte that `open` gave lies in the file, for errors; None if unknown."""
        return offset

    def _raw_start(self, size: int) -> bytes:
        return self.read_at(0, size)


class LocalSource(ByteSource):
    """A file of this machine.

    Raises:
        NotFound: nothing is there.
        UsageError: what is there is no file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("file", str(path)) from None
        except OSError as error:
            raise system_error(error, str(path), "reading") from error
        _check_file(found.st_mode, path)
        self._size = found.st_size
        self._path = path

    @property
    def path(self) -> Path | None:  # type: ignore[override]
        """The file, when readers may open it by themselves."""
        return None if self.codec else self._path

    @property
    def stored_bytes(self) -> int:
        """The file's length when it was first looked at."""
        return self._size

    def open_raw(self) -> RawStream:
        """Open the file."""
        return _LocalStream(self._open(), self.name)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return a part of the file."""
        with self.open_ranges() as read:
            return read(offset, size)

    @contextmanager
    def open_ranges(self) -> Iterator[Callable[[int, int], bytes]]:
        """Hold the file open for many reads of parts."""

        def read(offset: int, size: int) -> bytes:
            with translating_os_errors(self.name, "reading"):
                return os.pread(file.fileno(), size, offset)

        with self._open() as file:
            yield read

    def _open(self) -> io.FileIO:
        with translating_os_errors(self.name, "reading"):
            return self._path.open("rb", buffering=0)


class _LocalStream:
    """An open file whose trouble is told by its name."""

    def __init__(self, file: io.FileIO, name: str) -> None:
        self._file, self._name = file, name

    def readinto(self, buffer: memoryview, /) -> int:
        with translating_os_errors(self._name, "reading"):
            return self._file.readinto(buffer) or 0

    def try_skip(self, count: int) -> bool:
        """Seek; False when what is read has no places."""
        if not self._file.seekable():
            return False
        self._file.seek(count, os.SEEK_CUR)
        return True

    def close(self) -> None:
        self._file.close()


def _check_file(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise UsageError(f"reading {path}: it is a folder", hint="name its files, or a glob")
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise Unsupported(
            f"{path} is a pipe or a socket; it has no parts",
            hint="read it as standard input: name it - and redirect",
        )


class StandardSource(ByteSource):
    """Standard input: read once, but what was peeked at is given out again.

    Args:
        descriptor: the file descriptor.
    """

    can_reopen = False

    def __init__(self, descriptor: int = 0) -> None:
        super().__init__("standard input")
        self._descriptor = descriptor
        self._held = bytearray()
        self._opened = False

    @property
    def stored_bytes(self) -> None:
        """Nobody can tell."""
        return

    def open_raw(self) -> RawStream:
        """Begin to read; only once."""
        if self._opened:
            raise Unsupported("standard input can be read only once")
        self._opened = True
        return _HeldStream(self._descriptor, self._held)

    def read_at(self, offset: int, size: int) -> bytes:
        """Refuse: a stream has no parts."""
        raise Unsupported(
            "standard input can only be read from beginning to end, and this format needs more",
            hint="write it to a file first",
        )

    def peek(self, size: int) -> bytes:
        """Return the first `size` plain bytes; compressed ones are held back until then."""
        if self._opened:
            raise Unsupported("standard input can be read only once")
        if self.codec is None:
            return self._raw_start(size)
        raw = _HeldStream(self._descriptor, bytearray(self._held), keep=self._held)
        with SourceStream(open_decoder(self.codec, raw, self.name), _Counter(raw)) as stream:
            return _read_up_to(stream, size)

    def _raw_start(self, size: int) -> bytes:
        with translating_os_errors(self.name, "reading"):
            while len(self._held) < size and (data := os.read(self._descriptor, size)):
                self._held += data
        return bytes(self._held[:size])


class _HeldStream:
    """What was held back of a descriptor, then the rest of it, which `keep` also collects."""

    def __init__(self, descriptor: int, held: bytearray, keep: bytearray | None = None) -> None:
        self._descriptor, self._held, self._keep, self._at = descriptor, held, keep, 0

    def readinto(self, buffer: memoryview, /) -> int:
        if self._at < len(self._held):
            part = self._held[self._at : self._at + len(buffer)]
            buffer[: len(part)] = part
            self._at += len(part)
            if self._at == len(self._held) and self._keep is None:
                self._held.clear()
                self._at = 0
            return len(part)
        with translating_os_errors("standard input", "reading"):
            count = os.readv(self._descriptor, [buffer])
        if self._keep is not None:
            self._keep += buffer[:count]
        return count

    def close(self) -> None:
        """The descriptor belongs to the process."""


class _Counter:
    """Counts what goes through it."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self.taken = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._raw.readinto(buffer) or 0
        self.taken += count
        return count

    def try_skip(self, count: int) -> bool:
        """Seek, counting what is passed over; False when what is read has no places."""
        if not isinstance(self._raw, _LocalStream) or not self._raw.try_skip(count):
            return False
        self.taken += count
        return True

    def close(self) -> None:
        self._raw.close()


def _read_up_to(stream: SourceStream, size: int) -> bytes:
    data = bytearray(size)
    with memoryview(data) as view:
        held = stream.readinto(view)
    return bytes(data[:held])


_standard: StandardSource | None = None
_standard_lock = threading.Lock()


def standard_source() -> StandardSource:
    """Return this process's standard input; one object, so that a peek is not lost."""
    global _standard
    with _standard_lock:
        if _standard is None:
            _standard = StandardSource()
        return _standard


def open_source(place: Place | Path | str, folder: Path | None = None) -> ByteSource:
    """Return the bytes of a place.

    Raises:
        NotFound: nothing is there.
        Unsupported: its scheme cannot be read here.
    """
    if isinstance(place, Path):
        return LocalSource(place)
    if isinstance(place, str):
        place = parse_place(place, folder)
    if place.is_standard:
        return standard_source()
    if place.is_local:
        return LocalSource(Path(place.path))
    from emsqrt.io.objects import ObjectSource

    return ObjectSource(place)


def line_at(source: ByteSource, end: int) -> int | None:
    """Return the line that a byte offset is in, counted from 1; None when nobody can look again."""
    if not source.can_reopen:
        return None
    line, buffer = 1, bytearray(1 << 18)
    with source.open() as stream, memoryview(buffer) as view:
        while end > 0 and (count := stream.readinto(view[: min(end, len(view))])):
            line += buffer.count(b"\n", 0, count)
            end -= count
    return line
