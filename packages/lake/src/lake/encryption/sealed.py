"""The format of encrypted objects: AES-256-GCM over chunks of 1 MiB.

    "SNTSEAL1" | salt, 32 bytes | plain size, u64 | chunk 0 | chunk 1 | …       little-endian

Each chunk is the ciphertext of up to 1 MiB, and its tag of 16 bytes. Each object has a key of its own,
HKDF-SHA256(data key of the dataset, salt, "sennit sealed object 1"); the nonce of a chunk is its
index. The authenticated data of a chunk is the header, the dataset's id and the index, so that no
chunk can be moved within an object, to another object or to another dataset, and none can be cut
off (`design/0120-encrypted-datasets.md`).

The object's id is that of the file, the ciphertext: a scrub needs no key.
"""

from __future__ import annotations

import hmac
import os
import resource
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sennit_core.errors import Corrupt
from sennit_core.hashing import canonical_json
from sennit_core.optional import import_optional
from sennit_core.private_files import FILE_MODE
from sennit_core.units import MIB

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "KEY_BYTES",
    "Seal",
    "file_cipher",
    "forbid_core_dumps",
    "new_cipher",
    "seal_file",
    "unseal_file",
]

KEY_BYTES = 32
_MAGIC = b"SNTSEAL1"
_HEADER = struct.Struct("<8s32sQ")
_CHUNK_BYTES = MIB
_TAG_BYTES = 16
_INFO = b"sennit sealed object 1"
# Before what is hashed: the data key is otherwise only an input of HKDF, whose text is another one.
_PARTITION = b"sennit partition 1"


@dataclass(frozen=True, slots=True)
class Seal:
    """What an executor needs to encrypt the shards of a dataset.

    Args:
        key: The dataset's data key.
        dataset: The dataset's id.
        folder: A folder in memory for files before they are encrypted.
        memory_bytes: The most bytes of an ingest's other files there.
    """

    key: bytes
    dataset: str
    folder: Path
    memory_bytes: int = 0

    def __repr__(self) -> str:
        return f"Seal(dataset={self.dataset!r})"  # a key is in no log and no traceback

    def hidden(self, partition: Mapping[str, Any]) -> dict[str, str]:
        """Return a shard's partition with a keyed hash in the place of each value.

        A manifest is not encrypted. It shows which shards are of one partition, which compaction has to
        know, and not of which.
        """
        return {
            name: hmac.digest(self.key, _PARTITION + canonical_json([name, value]), "sha256").hex()
            for name, value in partition.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return the form of executor requests, which travel over a pipe."""
        return {
            "key": self.key,
            "dataset": self.dataset,
            "folder": str(self.folder),
            "memoryBytes": self.memory_bytes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Seal:
        """Read the form of `to_json`."""
        forbid_core_dumps()
        return cls(data["key"], data["dataset"], Path(data["folder"]), data["memoryBytes"])


def forbid_core_dumps() -> None:
    """Let this process and its children write no core files: they would hold keys and rows."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def new_cipher(key: bytes) -> AESGCM:
    """Return AES-256-GCM with a key; needs the extra `encryption`."""
    import_optional("cryptography", "encrypted datasets")
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def seal_file(plain: Path, target: Path, key: bytes, dataset: str) -> None:
    """Encrypt a file.

    Args:
        plain: The file.
        target: A new file.
        key: The dataset's data key.
        dataset: The dataset's id.
    """
    salt = os.urandom(32)
    with plain.open("rb", buffering=0) as source, _new(target) as sink:
        header = _HEADER.pack(_MAGIC, salt, os.fstat(source.fileno()).st_size)
        cipher = _object_cipher(key, salt)
        sink.write(header)
        index = 0
        while piece := source.read(_CHUNK_BYTES):
            sink.write(cipher.encrypt(_nonce(index), piece, _bound(header, dataset, index)))
            index += 1


def unseal_file(
    path: Path,
    target: Path,
    key: bytes,
    dataset: str,
    checkpoint: Callable[[], object] = lambda: None,
) -> int:
    """Decrypt a file; return its plain size. Nothing that was not authenticated is written.

    Args:
        path: The encrypted file.
        target: A new file.
        key: The dataset's data key.
        dataset: The dataset's id.
        checkpoint: Called after each chunk; raises to stop.

    Raises:
        Corrupt: A chunk, or the header, is not the one that was written.
    """
    from cryptography.exceptions import InvalidTag

    with path.open("rb", buffering=0) as source, _new(target) as sink:
        header = source.read(_HEADER.size)
        size = plain_size(path.name, header, os.fstat(source.fileno()).st_size)
        cipher = _object_cipher(key, header[8:40])
        for index in range(-(-size // _CHUNK_BYTES)):
            sealed = source.read(_CHUNK_BYTES + _TAG_BYTES)
            try:
                sink.write(cipher.decrypt(_nonce(index), sealed, _bound(header, dataset, index)))
            except InvalidTag:
                what = f"encrypted chunk {index} of object {path.name}"
                raise Corrupt(what, expected="its authentication tag", found="another") from None
            checkpoint()
    return size


def plain_size(name: str, header: bytes, file_bytes: int) -> int:
    """Return the size of the decrypted file; raise Corrupt if the file cannot have it."""
    if len(header) == _HEADER.size:
        magic, _, size = _HEADER.unpack(header)
        expected = _HEADER.size + size + _TAG_BYTES * -(-size // _CHUNK_BYTES)
        if magic == _MAGIC and expected == file_bytes:
            return int(size)
    what = f"the header of encrypted object {name}"
    raise Corrupt(what, expected="one that fits its size", found=f"{file_bytes} bytes")


def _object_cipher(key: bytes, salt: bytes) -> AESGCM:
    return file_cipher(key, salt, _INFO)


def file_cipher(key: bytes, salt: bytes, use: bytes) -> AESGCM:
    """Return AES-256-GCM with the key of one file, derived from another key by a random salt."""
    import_optional("cryptography", "encrypted datasets")
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return new_cipher(HKDF(SHA256(), KEY_BYTES, salt, use).derive(key))


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "little")


def _bound(header: bytes, dataset: str, index: int) -> bytes:
    return header + dataset.encode() + index.to_bytes(8, "little")


def _new(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, FILE_MODE), "wb", buffering=_CHUNK_BYTES)
