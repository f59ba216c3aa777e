"""A store of EM-√'s spill files that encrypts them, for queries that read encrypted datasets.

AES-256-CTR, with a key that only this process has: what a crash leaves on the disk is noise. CTR lets
blocks be read from any offset, and needs no more room. That bytes were changed is found by the
segments' own checksums, as without encryption.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lake.encryption.sealed import KEY_BYTES, forbid_core_dumps
from sennit_core.optional import import_optional
from sennit_core.units import KIB

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    from emsqrt.executor import EntryContext
    from emsqrt.spill.store import Sink, Store, StoredFile

__all__ = ["EncryptedStore", "open_encrypted_spill"]

_BLOCK_BYTES = 16
_PIECE_BYTES = 64 * KIB
"""Encrypted at once; memory outside of EM-√'s budget, so it is small."""


@contextmanager
def open_encrypted_spill(context: EntryContext) -> Iterator[EncryptedStore]:
    """Open the store of a plan that reads encrypted datasets, and write no core files from now on."""
    from emsqrt.spill.placement import open_local_store

    forbid_core_dumps()
    store = EncryptedStore(open_local_store(context.spill_dir)[0])
    try:
        yield store
    finally:
        store.close()


class EncryptedStore:
    """Encrypts the files of another store; implements `emsqrt.spill.store.Store`.

    Args:
        store: The other store; closed with this one.
    """

    def __init__(self, store: Store) -> None:
        import_optional("cryptography", "encrypted datasets")
        self._store = store
        self._key = os.urandom(KEY_BYTES)
        # A number for each file, so that no two blocks of the run share a counter.
        self._numbers: dict[str, int] = {}
        self._count = 0
        self.place = store.place
        self.is_remote = store.is_remote

    @property
    def buffer_bytes(self) -> int:
        """Memory that the store uses now."""
        return self._store.buffer_bytes + _PIECE_BYTES

    def create(self, name: str) -> Sink:
        """Begin a file."""
        self._count += 1
        self._numbers[name] = self._count
        return _EncryptingSink(self._store.create(name), _Stream(self._key, self._count))

    def open(self, name: str, size_bytes: int) -> StoredFile:
        """Open a finished file."""
        source = self._store.open(name, size_bytes)
        return _DecryptingFile(source, _Stream(self._key, self._numbers[name]))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._store.remove(name)
        self._numbers.pop(name, None)

    def close(self) -> None:
        """Remove all files."""
        self._store.close()


class _Stream:
    """The key stream of one file: the counter's upper half is the file, the lower one the block."""

    def __init__(self, key: bytes, number: int) -> None:
        self._key = key
        self._number = number

    def apply(self, offset: int, data: memoryview) -> bytes:
        """Encrypt or decrypt the bytes from an offset on."""
        block, skipped = divmod(offset, _BLOCK_BYTES)
        stream = self._cipher(block).encryptor()
        stream.update(bytes(skipped))
        return stream.update(data)

    def _cipher(self, block: int) -> Cipher[CTR]:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import CTR

        counter = self._number.to_bytes(8, "big") + block.to_bytes(8, "big")
        return Cipher(AES(self._key), CTR(counter))


class _EncryptingSink:
    """A file being written."""

    def __init__(self, sink: Sink, stream: _Stream) -> None:
        self._sink = sink
        self._stream = stream
        self._offset = 0

    def write(self, parts: Sequence[memoryview]) -> None:
        """Append all parts."""
        for part in parts:
            data = memoryview(part).cast("B")
            for start in range(0, len(data), _PIECE_BYTES):
                sealed = self._stream.apply(self._offset, data[start : start + _PIECE_BYTES])
                self._sink.write([memoryview(sealed)])
                self._offset += len(sealed)

    def finish(self) -> None:
        """End the file."""
        self._sink.finish()

    def abort(self) -> None:
        """Remove the file."""
        self._sink.abort()


class _DecryptingFile:
    """A finished file being read."""

    def __init__(self, source: StoredFile, stream: _Stream) -> None:
        self._source = source
        self._stream = stream

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill the target from `offset` on."""
        self._source.read_into(offset, target)
        data = target.cast("B")
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            piece[:] = self._stream.apply(offset + start, piece)

    def close(self) -> None:
        """End reading."""
        self._source.close()
