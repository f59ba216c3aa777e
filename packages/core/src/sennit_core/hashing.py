"""SHA-256, canonical JSON, and the content address of an object.

An object's id is the hex SHA-256 of `"sennit1"`, its size (u64), its chunk size (u32), both
little-endian, and the SHA-256 of each chunk in order. A reader that has the list of chunk digests
can therefore verify any single chunk.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sennit_core.canonical import canonical_json
from sennit_core.errors import UsageError

__all__ = [
    "CHUNK_BYTES",
    "ObjectDigest",
    "ObjectHasher",
    "canonical_json",
    "hash_file",
    "object_id",
    "sha256_hex",
]

if sys.version_info >= (3, 12):
    from _sha2 import sha256 as _short_sha256
else:
    from _sha256 import sha256 as _short_sha256  # type: ignore[import-not-found,unused-ignore]

CHUNK_BYTES = 1024 * 1024
_SHORT_BYTES = 16 << 10
"""Data below this size is hashed without OpenSSL, which costs half a MiB of memory to load."""
_DOMAIN = b"sennit1"
_READ_BYTES = 1024 * 1024


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hex digits."""
    hashed = _short_sha256 if len(data) < _SHORT_BYTES else hashlib.sha256
    return str(hashed(data).hexdigest())


def object_id(size: int, chunk_bytes: int, chunk_digests: Sequence[str]) -> str:
    """Return the id of an object of `size` bytes cut into chunks of `chunk_bytes`.

    Args:
        size: bytes in all.
        chunk_bytes: bytes of each chunk; only the last may be shorter.
        chunk_digests: hex SHA-256 of each chunk, in order.

    Raises:
        UsageError: the number of digests does not fit the size, or one is not a SHA-256.
    """
    if size < 0 or not 0 < chunk_bytes < 2**32:
        raise UsageError(f"no object has {size} bytes in chunks of {chunk_bytes}")
    expected = -(-size // chunk_bytes)
    if len(chunk_digests) != expected:
        raise UsageError(
            f"{size} bytes in chunks of {chunk_bytes} are {expected} chunks, "
            f"but there are {len(chunk_digests)} digests"
        )
    whole = hashlib.sha256(_DOMAIN + struct.pack("<QI", size, chunk_bytes))
    for index, digest in enumerate(chunk_digests):
        whole.update(_digest_bytes(digest, index))
    return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class ObjectDigest:
    """The result of hashing a whole object: its id, size and its chunks' digests."""

    object: str
    size: int
    chunk_bytes: int
    chunks: tuple[str, ...]


class ObjectHasher:
    """Hashes an object as a stream, in constant memory plus 64 bytes per chunk."""

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        if not 0 < chunk_bytes < 2**32:
            raise UsageError(f"chunk_bytes must be from 1 to 2^32 - 1, not {chunk_bytes}")
        self.chunk_bytes = chunk_bytes
        self.size = 0
        self._chunk = hashlib.sha256()
        self._chunk_filled = 0
        self._chunks: list[str] = []

    def update(self, data: bytes | bytearray | memoryview) -> ObjectHasher:
        """Hash the next bytes; return self."""
        with memoryview(data) as raw, raw.cast("B") as view:
            start = 0
            while start < len(view):
                stop = min(len(view), start + self.chunk_bytes - self._chunk_filled)
                self._chunk.update(view[start:stop])
                self._chunk_filled += stop - start
                start = stop
                if self._chunk_filled == self.chunk_bytes:
                    self._close_chunk()
            self.size += len(view)
        return self

    def finish(self) -> ObjectDigest:
        """Return the digest of all bytes hashed so far; more may follow."""
        open_chunk = (self._chunk.hexdigest(),) if self._chunk_filled else ()
        chunks = (*self._chunks, *open_chunk)
        return ObjectDigest(
            object=object_id(self.size, self.chunk_bytes, chunks),
            size=self.size,
            chunk_bytes=self.chunk_bytes,
            chunks=chunks,
        )

    def _close_chunk(self) -> None:
        self._chunks.append(self._chunk.hexdigest())
        self._chunk = hashlib.sha256()
        self._chunk_filled = 0


def hash_file(path: str | PathLike[str], chunk_bytes: int = CHUNK_BYTES) -> ObjectDigest:
    """Return the digest of a file's bytes, read once in pieces of 1 MiB."""
    hasher = ObjectHasher(chunk_bytes)
    buffer = bytearray(_READ_BYTES)
    with Path(path).open("rb", buffering=0) as file, memoryview(buffer) as view:
        while count := file.readinto(buffer):
            with view[:count] as read:
                hasher.update(read)
    return hasher.finish()


def _digest_bytes(digest: str, index: int) -> bytes:
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise UsageError(f"chunk {index}: not a hex SHA-256: {digest!r}")
    return raw
