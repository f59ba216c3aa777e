"""Files that are encrypted while they are written, and read in place: parts of uploads, and staging.

    "SNTPART1" | salt, 32 bytes | chunk 0 | chunk 1 | …

Each chunk is AES-256-GCM of 256 KiB, the last of up to that, and its tag of 16 bytes. Unlike a sealed
object (`lake.encryption.sealed`), such a file has no size in its header, since a part is encrypted as it arrives.
So the last chunk says in its authenticated data that it is the last, as in STREAM (Hoang, Reyhanitabar,
Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015): a file
that was cut off at a chunk does not read. The key is HKDF-SHA256(key, salt), and the nonce of a chunk
its index, as for objects; the authenticated data have the file's name too.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from lake.encryption.sealed import file_cipher
from sennit_core.errors import Corrupt
from sennit_core.private_files import FILE_MODE
from sennit_core.units import KIB

__all__ = [
    "EncryptedFile",
    "EncryptedReader",
    "EncryptedWriter",
    "Source",
    "plain_bytes",
    "source_bytes",
    "source_from_json",
]

_MAGIC = b"SNTPART1"
_SALT_BYTES = 32
_HEADER_BYTES = len(_MAGIC) + _SALT_BYTES
# Excel and Parquet files are read in small pieces at many places, each of which decrypts a chunk.
_CHUNK_BYTES = 256 * KIB
_TAG_BYTES = 16
_SEALED_BYTES = _CHUNK_BYTES + _TAG_BYTES
_INFO = b"sennit encrypted file 1"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class EncryptedFile:
    """A file on the disk whose content is encrypted.

    Args:
        path: The file.
        name: What it is, such as the upload and the part's index; another name does not decrypt it.
        key: The key.
    """

    path: Path
    name: str
    key: bytes = field(repr=False)

    @property
    def parent(self) -> Path:
        """The folder of the file."""
        return self.path.parent

    @property
    def plain_bytes(self) -> int:
        """The size of the content, from the file's size."""
        return plain_bytes(self.path)

    def open(self, mode: str = "rb", buffering: int = 0) -> BinaryIO:
        """Open the content for reading (`rb`), or the new file for writing (`xb`)."""
        del buffering
        if mode == "rb":
            source = self.path.open("rb", buffering=0)
            return EncryptedReader(source, self.name, self.key)  # type: ignore[return-value]  # read, readinto and seek are all
        sink = os.fdopen(os.open(self.path, _NEW, FILE_MODE), "wb", buffering=0)
        return io.BufferedWriter(_Closing(sink, self), _CHUNK_BYTES)

    def to_json(self) -> dict[str, Any]:
        """Return the form of executor requests, which travel over a pipe."""
        return {"path": str(self.path), "name": self.name, "key": self.key}


def plain_bytes(path: Path) -> int:
    """Return the size of the content of an encrypted file, for which no key is needed."""
    body = max(0, path.stat().st_size - _HEADER_BYTES)
    return max(0, body - _TAG_BYTES * -(-body // _SEALED_BYTES))


Source: TypeAlias = Path | EncryptedFile
"""A file to read: as it is, or encrypted."""


def source_from_json(data: str | dict[str, Any]) -> Source:
    """Read a path, or the form of `EncryptedFile.to_json`."""
    if isinstance(data, str):
        return Path(data)
    return EncryptedFile(Path(data["path"]), data["name"], data["key"])


def source_bytes(source: Source) -> int:
    """Return the size of what is read."""
    return source.plain_bytes if isinstance(source, EncryptedFile) else source.stat().st_size


class EncryptedWriter:
    """Encrypts bytes as they come.

    Args:
        write: Receives the encrypted bytes.
        name: As of `EncryptedFile`.
        key: The key.
    """

    def __init__(self, write: Callable[[bytes], object], name: str, key: bytes) -> None:
        salt = os.urandom(_SALT_BYTES)
        self._write = write
        self._header = _MAGIC + salt
        self._name = name
        self._cipher = file_cipher(key, salt, _INFO)
        # Never empty once there was a byte, as only `finish` knows which chunk is the last.
        self._rest = bytearray()
        self._index = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        self._rest += data
        start = 0
        while len(self._rest) - start > _CHUNK_BYTES:
            self._emit(bytes(self._rest[start : start + _CHUNK_BYTES]), is_last=False)
            start += _CHUNK_BYTES
        del self._rest[:start]

    def finish(self) -> None:
        """Write the last chunk."""
        self._emit(bytes(self._rest), is_last=True)
        self._rest.clear()

    def _emit(self, piece: bytes, *, is_last: bool) -> None:
        if not self._index:
            self._write(self._header)
        bound = _bound(self._header, self._name, self._index, is_last=is_last)
        self._write(self._cipher.encrypt(_nonce(self._index), piece, bound))
        self._index += 1


class _Closing(io.RawIOBase):
    """A new encrypted file; closing it writes the last chunk."""

    def __init__(self, sink: BinaryIO, file: EncryptedFile) -> None:
        super().__init__()
        self._sink = sink
        self._writer = EncryptedWriter(sink.write, file.name, file.key)
        self._position = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: `tell` works."""
        return True

    def tell(self) -> int:
        """Bytes written."""
        return self._position

    def write(self, data: Any, /) -> int:
        """Append bytes."""
        count = memoryview(data).nbytes
        self._writer.write(data)
        self._position += count
        return count

    def close(self) -> None:
        """Write the last chunk, and close the file."""
        if not self.closed:
            try:
                self._writer.finish()
            finally:
                self._sink.close()
        super().close()


class EncryptedReader(io.RawIOBase):
    """The content of an encrypted file; holds one chunk, so that small reads decrypt it once.

    Args:
        source: The file, unbuffered; closed with the reader, and if it cannot be read.
        name: As of `EncryptedFile`.
        key: The key.
        start: Where the encrypted part of the file begins, in bytes; it ends with the file.

    Raises:
        Corrupt: Its header, or a chunk that is read later, is not the one that was written.
    """

    def __init__(self, source: BinaryIO, name: str, key: bytes, start: int = 0) -> None:
        super().__init__()
        self._source = source
        self._name = name
        self._body = start + _HEADER_BYTES
        body = os.fstat(source.fileno()).st_size - self._body
        self._count = -(-body // _SEALED_BYTES)
        self._size = body - _TAG_BYTES * self._count
        source.seek(start)
        self._header = source.read(_HEADER_BYTES)
        if body < _TAG_BYTES or self._header[: len(_MAGIC)] != _MAGIC:
            source.close()
            raise self._damage("header")
        self._cipher = file_cipher(key, self._header[len(_MAGIC) :], _INFO)
        self._chunk = (-1, b"")
        self._position = 0
        if not self._size:
            self._load(0)  # an empty file is authenticated too

    @property
    def plain_bytes(self) -> int:
        """The size of the content."""
        return self._size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position of the content."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read up to the end of the chunk at the position."""
        if self._position >= self._size:
            return 0
        index, start = divmod(self._position, _CHUNK_BYTES)
        piece = memoryview(self._load(index))[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        """Close the file."""
        self._source.close()
        super().close()

    def _load(self, index: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        if self._chunk[0] != index:
            self._source.seek(self._body + index * _SEALED_BYTES)
            is_last = index == self._count - 1
            bound = _bound(self._header, self._name, index, is_last=is_last)
            try:
                sealed = self._source.read(_SEALED_BYTES)
                self._chunk = (index, self._cipher.decrypt(_nonce(index), sealed, bound))
            except InvalidTag:
                raise self._damage(f"chunk {index}") from None
        return self._chunk[1]

    def _damage(self, part: str) -> Corrupt:
        return Corrupt(
            f"the {part} of encrypted file {Path(self._source.name).name}",
            hint="abort the upload, and send the file again",
        )


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "little")


def _bound(header: bytes, name: str, index: int, *, is_last: bool) -> bytes:
    return header + name.encode() + index.to_bytes(8, "little") + bytes([is_last])
