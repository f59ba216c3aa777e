"""Sources of bytes: one small interface for text readers and Parquet.

A text reader calls `peek` for names and types, then `open` once. Parquet calls `read_at`. Only
standard input cannot be read again: it keeps the bytes of `peek` and returns them again in `open`.
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
from emsqrt.io.locations import Location, parse_location
from emsqrt.system_errors import system_error, translating_os_errors
from sennit_core.errors import NotFound, Unsupported, UsageError

_PEEK_HEADER_BYTES = 32
_SKIP_BYTES = 64 << 10


Reader = Callable[[int, int], bytes]
"""Returns a part of a source, from its offset and size."""


class SourceStream:
    """A source's decompressed bytes from its beginning; a context manager.

    `stored_bytes` counts bytes read from the file itself, fewer than the decompressed bytes.
    """

    def __init__(self, plain: RawStream, counter: _Counter) -> None:
        self._plain = plain
        self._counter = counter

    @classmethod
    def over(cls, plain: RawStream, stream: SourceStream) -> SourceStream:
        """Return a stream of bytes that `plain` derives from another stream."""
        return cls(plain, stream._counter)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that have been read."""
        return self._counter.bytes_read

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, with less only at the end; return the number of bytes."""
        held = 0
        while held < len(buffer) and (count := self._plain.readinto(buffer[held:])):
            held += count
        return held

    def skip(self, count: int) -> None:
        """Skip `count` bytes: by a seek if possible, else by reading."""
        if self._plain is self._counter and self._counter.try_skip(count):
            return
        scratch = memoryview(bytearray(min(count, _SKIP_BYTES)))
        while count > 0 and (got := self.readinto(scratch[: min(count, len(scratch))])):
            count -= got

    def close(self) -> None:
        """Close the file."""
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
        name: its name in errors.
    """

    path: Path | None = None
    """Its path, if it is a local file that is not compressed."""
    can_reopen = True
    """Whether `open` may be called again."""
    state: tuple[str | int, ...] | None = None
    """The name, inode, size and times of a local file when it was opened; they change with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._codec: str | bool | None = False
        self._start = b""

    @property
    @abstractmethod
    def stored_bytes(self) -> int | None:
        """Length as stored, None if unknown."""

    @abstractmethod
    def open_raw(self) -> RawStream:
        """Open the stored bytes from the beginning."""

    @abstractmethod
    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` stored bytes from `offset`: less only at the end."""

    @contextmanager
    def open_ranges(self) -> Iterator[Callable[[int, int], bytes]]:
        """Keep the file open for many reads of parts: yields a function of offset and size."""
        yield self.read_at

    @property
    def codec(self) -> str | None:
        """The compression, "gzip", "zstd" or None, recognized by the first bytes."""
        if self._codec is False:
            self._start = self._raw_start(_PEEK_HEADER_BYTES)
            self._codec = codec_of(self._start[:MAGIC_BYTES])
        assert self._codec is None or isinstance(self._codec, str)
        return self._codec

    @property
    def need_bytes(self) -> int:
        """Memory in addition to the reader's own buffer, mainly for the decompressor."""
        return decoder_bytes(self.codec, self._start)

    @property
    def plain_bytes(self) -> int | None:
        """Decompressed length, None if it is not known before reading."""
        return None if self.codec else self.stored_bytes

    def open(self) -> SourceStream:
        """Open the decompressed bytes from the beginning.

        Raises:
            Unsupported: it is compressed with zstd, and no decoder is installed.
        """
        counter = _Counter(self.open_raw())
        plain = open_decoder(self.codec, counter, self.name) if self.codec else counter
        return SourceStream(plain, counter)

    def peek(self, size: int) -> bytes:
        """Return the first `size` decompressed bytes, or all if there are fewer."""
        if self.codec is None:
            return self._raw_start(size)
        with self.open() as stream:
            return _read_up_to(stream, size)

    def stored_offset(self, offset: int) -> int | None:
        """Return the file's offset of a byte of `open`, for errors; None if unknown."""
        return offset

    def _raw_start(self, size: int) -> bytes:
        return self.read_at(0, size)


class LocalSource(ByteSource):
    """A file on this machine.

    Raises:
        NotFound: the path does not exist.
        UsageError: the path is not a file.
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
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        self.state = str(path), *identity

    @property
    def path(self) -> Path | None:  # type: ignore[override]
        """The path, if readers may open the file themselves."""
        return None if self.codec else self._path

    @property
    def stored_bytes(self) -> int:
        """The file's length when the source was opened."""
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
        """Keep the file open for many reads of parts."""

        def read(offset: int, size: int) -> bytes:
            with translating_os_errors(self.name, "reading"):
                return os.pread(file.fileno(), size, offset)

        with self._open() as file:
            yield read

    def _open(self) -> io.FileIO:
        with translating_os_errors(self.name, "reading"):
            return self._path.open("rb", buffering=0)


class _LocalStream:
    """An open file whose errors contain its name."""

    def __init__(self, file: io.FileIO, name: str) -> None:
        self._file, self._name = file, name

    def readinto(self, buffer: memoryview, /) -> int:
        with translating_os_errors(self._name, "reading"):
            return self._file.readinto(buffer) or 0

    def try_skip(self, count: int) -> bool:
        """Seek; return False if the file cannot seek."""
        if not self._file.seekable():
            return False
        self._file.seek(count, os.SEEK_CUR)
        return True

    def close(self) -> None:
        self._file.close()


def _check_file(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise UsageError(f"reading {path}: it is a folder", hint="use its files, or a glob")
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise Unsupported(
            f"{path} is a pipe or a socket, which can only be read from beginning to end",
            hint="read it as standard input: use the path - and redirect",
        )


class StandardSource(ByteSource):
    """Standard input: read once, but the bytes of `peek` are returned again by `open`.

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
        """Unknown."""
        return

    def open_raw(self) -> RawStream:
        """Begin to read; may be called once."""
        if self._opened:
            raise Unsupported("standard input can be read only once")
        self._opened = True
        return _HeldStream(self._descriptor, self._held)

    def read_at(self, offset: int, size: int) -> bytes:
        """Refuse: a stream has no random access."""
        raise Unsupported(
            "standard input can only be read from beginning to end, and this format needs more",
            hint="write it to a file first",
        )

    def peek(self, size: int) -> bytes:
        """Return the first `size` decompressed bytes; the compressed bytes are kept for `open`."""
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
    """The bytes kept of a descriptor, then the rest of it, which `keep` also collects."""

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
        """Do nothing: the descriptor belongs to the process."""


class _Counter:
    """Counts the bytes that are read through it."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self.bytes_read = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._raw.readinto(buffer) or 0
        self.bytes_read += count
        return count

    def try_skip(self, count: int) -> bool:
        """Seek, counting the skipped bytes; return False if the stream cannot seek."""
        if not isinstance(self._raw, _LocalStream) or not self._raw.try_skip(count):
            return False
        self.bytes_read += count
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
    """Return this process's standard input; always the same object, which keeps a peek."""
    global _standard
    with _standard_lock:
        if _standard is None:
            _standard = StandardSource()
        return _standard


def open_source(place: Location | Path | str, folder: Path | None = None) -> ByteSource:
    """Return the source of a location.

    Raises:
        NotFound: it does not exist.
        Unsupported: its scheme cannot be read.
    """
    if isinstance(place, Path):
        return LocalSource(place)
    if isinstance(place, str):
        place = parse_location(place, folder)
    if place.is_standard:
        return standard_source()
    if place.is_local:
        return LocalSource(Path(place.path))
    from emsqrt.io.objects import ObjectSource

    return ObjectSource(place)


def line_at(source: ByteSource, end: int) -> int | None:
    """Return the line of a byte offset, counted from 1; None if the source cannot be read again."""
    if not source.can_reopen:
        return None
    line, buffer = 1, bytearray(1 << 18)
    with source.open() as stream, memoryview(buffer) as view:
        while end > 0 and (count := stream.readinto(view[: min(end, len(view))])):
            line += buffer.count(b"\n", 0, count)
            end -= count
    return line
