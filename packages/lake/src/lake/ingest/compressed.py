"""Unpack compressed uploads into the ingest's folder, within limits.

The readers must seek back (a widened column is read again from the start of the file), which a
compressed stream does not support, so the file is unpacked once. Its size has three limits: the
ratio to the upload's size, the largest accepted upload, and the disk space that must stay free. See
`design/0065-formats-and-their-limits.md`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import pyarrow as pa

from lake.encryption.files import Source
from lake.ingest.source import PartsFile
from lake.objects.disk_space import WriteLimit
from lake.objects.durable import storage_errors
from sennit_core.errors import BadInput, TooLarge
from sennit_core.units import MIB, format_bytes

__all__ = ["Compression", "find_compression", "unpack"]

RATIO_MAX = 250
"""Tables compress by 3 to 30 times, logs of one repeated line by 100; gzip can reach 1,000."""
# This much does no harm at any ratio: the ratio is for files that would fill the disk.
_ALWAYS_ALLOWED_BYTES = 256 * MIB
_XZ_MEMORY_BYTES = 128 * MIB  # a file may ask for up to 4 GiB; `xz -9` needs 65 MiB
_LISTED = 3
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowInvalid)


Packed: TypeAlias = "io.BufferedReader[PartsFile]"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Compression:
    """A compression format.

    Args:
        name: Its name in reports and errors.
        mark: Its magic number.
        open: Opens the unpacked bytes; raises one of `_DAMAGE` or `BadInput`.
    """

    name: str
    mark: bytes
    open: Callable[[Packed, str], AbstractContextManager[_Readable]]


def find_compression(head: bytes) -> Compression | None:
    """Return a file's compression format by its first bytes; None if it is not compressed."""
    return next((each for each in COMPRESSIONS if head.startswith(each.mark)), None)


def unpack(  # noqa: PLR0913 - all but three by keyword
    paths: Sequence[Source],
    compression: Compression,
    target: Source,
    *,
    what: str,
    bytes_max: int | None,
    space: WriteLimit,
    tick: Callable[[int], None],
) -> None:
    """Unpack an upload to `target`.

    Args:
        paths: The upload's parts.
        compression: As `find_compression` found it.
        target: A new file.
        what: The upload's name, for errors.
        bytes_max: Largest accepted upload; None for no such limit.
        space: What of the disk stays free.
        tick: Called after each piece with the compressed bytes read so far.

    Raises:
        BadInput: The file is damaged, encrypted, or contains several files.
        TooLarge: The unpacked file exceeds a limit.
        StorageFull: The disk has too little free space.
    """
    with PartsFile(paths) as file:
        limit = max(_ALWAYS_ALLOWED_BYTES, RATIO_MAX * file.size)
        limit = limit if bytes_max is None else min(limit, bytes_max)
        written = 0
        with storage_errors(target.parent, 0), target.open("xb") as sink:
            for piece in _pieces(file, compression, what):
                written += len(piece)
                # Before the piece is written: a bomb is noticed at the limit, not after it filled
                # the disk.
                if written > limit:
                    raise _too_large(what, compression, file.size, limit)
                space.check(target.parent, 0, len(piece), f"unpacking {what!r}")
                sink.write(piece)
                tick(file.tell())


def _pieces(file: PartsFile, compression: Compression, what: str) -> Iterator[bytes]:
    try:
        with (
            io.BufferedReader(file, MIB) as packed,
            compression.open(packed, what) as unpacked,
        ):
            while piece := unpacked.read(MIB):
                yield piece
    except _DAMAGE as error:
        raise BadInput(
            what=what,
            reason=f"not a readable {compression.name} file: {error}",
            hint="the file is damaged or incomplete: test it locally, then upload it again",
        ) from error


def _too_large(what: str, compression: Compression, size: int, limit: int) -> TooLarge:
    return TooLarge(
        what=f"{what}, unpacked from {format_bytes(size)} of {compression.name},",
        limit_bytes=limit,
        hint=f"a compressed file may unpack to {RATIO_MAX} times its size, but not above the "
        "upload limit; unpack it, split it, and upload the pieces",
    )


def _gzip(packed: Packed, what: str) -> AbstractContextManager[_Readable]:
    del what
    return gzip.GzipFile(fileobj=packed)  # reads all members


def _bzip2(packed: Packed, what: str) -> AbstractContextManager[_Readable]:
    del what
    return bz2.BZ2File(packed)


# Only where the standard library has no reader: Arrow's gzip reader is much slower than Python's
# (`design/0065`).
def _by_arrow(codec: str) -> Callable[[Packed, str], AbstractContextManager[_Readable]]:
    @contextmanager
    def opened(packed: Packed, what: str) -> Iterator[_Readable]:
        del what
        with (
            pa.PythonFile(packed, mode="r") as source,
            pa.CompressedInputStream(source, codec) as unpacked,
        ):
            yield unpacked

    return opened


class _XzReader:
    """As `lzma.LZMAFile`, with a memory limit."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._stream = _new_xz()
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while True:
            # An xz file may consist of several streams, with zero bytes between them as padding
            # (.xz file format, section 2.2). Each stream needs a decompressor of its own.
            if self._stream.eof:
                self._rest = (self._stream.unused_data + self._packed.read(size)).lstrip(b"\0")
                if not self._rest:
                    return b""
                self._stream = _new_xz()
            data = self._rest
            if not data and self._stream.needs_input:
                data = self._packed.read(size)
                if not data:
                    raise EOFError("it ends before its end-of-stream marker")
            self._rest = b""
            if piece := self._stream.decompress(data, size):
                return piece


def _new_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


@contextmanager
def _xz(packed: Packed, what: str) -> Iterator[_Readable]:
    del what
    yield _XzReader(packed)


@contextmanager
def _zip(packed: Packed, what: str) -> Iterator[_Readable]:
    """Open the only file of a ZIP archive; directories and macOS metadata are ignored."""
    with zipfile.ZipFile(packed) as archive:
        found = [
            entry
            for entry in archive.infolist()
            if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
        ]
        if len(found) != 1:
            names = ", ".join(entry.filename for entry in found[:_LISTED])
            more = ", …" if len(found) > _LISTED else ""
            reason = f"this ZIP archive holds {len(found)} files ({names}{more})"
            hint = "unpack it and upload its files one by one"
            raise BadInput(what=what, reason=reason if found else "this ZIP is empty", hint=hint)
        # Bit 0 of the general purpose flags: encrypted (APPNOTE.TXT, section 4.4.4).
        if found[0].flag_bits & 1:
            reason = "this ZIP archive is encrypted"
            raise BadInput(what=what, reason=reason, hint="unpack it and upload the file in it")
        try:
            member = archive.open(found[0])
        except NotImplementedError as error:  # a compression method that Python does not support
            raise BadInput(what=what, reason=f"this ZIP archive: {error}") from error
        with member:
            yield member


COMPRESSIONS: tuple[Compression, ...] = (
    Compression("gzip", b"\x1f\x8b", _gzip),
    Compression("Zstandard", b"\x28\xb5\x2f\xfd", _by_arrow("zstd")),
    Compression("bzip2", b"BZh", _bzip2),
    Compression("xz", b"\xfd7zXZ\x00", _xz),
    Compression("LZ4", b"\x04\x22\x4d\x18", _by_arrow("lz4")),
    Compression("ZIP", b"PK\x03\x04", _zip),
)
