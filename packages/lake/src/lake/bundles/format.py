"""The format of a bundle: objects of datasets in one encrypted file that its node has signed.

    "SNTBNDL1" | salt, 32 bytes | check, 32 bytes | SHA-256 of these 72 bytes | encrypted file

The key is scrypt(passphrase, salt), and the check a MAC by it, which distinguishes another
passphrase from damage. The rest is a file of `lake.encryption.files`, whose content is

    size of the head, u32 | head, JSON | for each object: id, 32 bytes, and size, u64 | the objects

with numbers in little-endian order. The objects follow each other in the order of their ids, each once.
The head names the datasets, has the SHA-256 of the list of objects, and is signed by the node's key
(`lake.catalog.node_key`); an object's id is a hash of its bytes. So the signature covers all of it, and the
reader of a bundle knows who made it.

All is compared with the file's size before it is used: a list of a million objects needs 40 MB.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from lake.catalog.node_key import NodeKey, check_signature, signer_of
from lake.encryption.files import EncryptedReader, EncryptedWriter
from sennit_core.errors import BadInput, Corrupt, Denied, UsageError
from sennit_core.hashing import CHUNK_BYTES, ObjectHasher, canonical_json
from sennit_core.ids import is_id
from sennit_core.optional import import_optional
from sennit_core.records import Record
from sennit_core.units import KIB, MIB

__all__ = [
    "DATASETS_MAX",
    "OBJECTS_MAX",
    "Bundle",
    "BundleDataset",
    "BundleHead",
    "BundleReport",
    "BundleWriter",
    "file_bytes_of",
]

DATASETS_MAX = 1000
OBJECTS_MAX = 1_000_000
_MAGIC = b"SNTBNDL1"
_SALT_BYTES = 32
_SECRET_BYTES = len(_MAGIC) + _SALT_BYTES + 32
_HEADER_BYTES = _SECRET_BYTES + 32
_HEAD_BYTES_MAX = MIB
_HEAD_SIZE = struct.Struct("<I")
_OBJECT = struct.Struct("<32sQ")
_LISTED_AT_ONCE = 4096
_NAME = "bundle"
_CHECK = b"sennit bundle check 1"
_DOMAIN = b"sennit-bundle-1\n"
# Of the format, not settings: a file could ask for any cost. As of `lake.encryption.keys`.
_SCRYPT = {"n": 2**15, "r": 8, "p": 3}
_SCRYPT_MEMORY_BYTES = 64 * MIB
_PASSPHRASE_MIN, _PASSPHRASE_MAX = 12, 4096
_NODE_NAME_MAX = 256
_HINT = "copy the file again, or export the datasets again"


@dataclass(frozen=True, slots=True)
class BundleDataset(Record):
    """A dataset of a bundle.

    Args:
        id: Its id at the node that has exported it.
        name: Its name there.
        snapshot: The snapshot that the bundle has.
        version: The number of that.
        manifest: Object id of its manifest.
    """

    id: str
    name: str
    snapshot: str
    version: int
    manifest: str


@dataclass(frozen=True, slots=True)
class BundleHead(Record):
    """What a bundle has.

    Args:
        v: Version of the format.
        datasets: The datasets.
        objects: The number of objects.
        digest: SHA-256 of the list of objects, in hex.
        name: What the node that has made it is called.
        created_at: Unix seconds.
        signature: Of the head without this member; names the node.
    """

    v: int
    datasets: tuple[BundleDataset, ...]
    objects: int
    digest: str
    name: str
    created_at: float
    signature: str = ""

    def signed(self, key: NodeKey) -> BundleHead:
        """Return the head with a signature."""
        return replace(self, signature=key.sign(_DOMAIN, self._unsigned()))

    def check(self) -> str:
        """Return the id of the node that has made the bundle.

        Raises:
            Corrupt: A member is out of range, or the signature is not one of the head.
        """
        ids = {each.id for each in self.datasets}
        is_valid = (
            self.v == 1
            and 0 < len(self.datasets) <= DATASETS_MAX
            and len(ids) == len(self.datasets)
            and all(is_id(each.id) and is_id(each.snapshot) for each in self.datasets)
            and 0 < self.objects <= OBJECTS_MAX
            and len(self.name) <= _NODE_NAME_MAX
        )
        if not is_valid:
            raise _damaged("the head", "one that this version writes", "another")
        node = signer_of(self.signature)
        if node is None or not check_signature(self.signature, _DOMAIN, self._unsigned()):
            raise _damaged("the signature", "one of the node that it names", "another")
        return node

    def _unsigned(self) -> bytes:
        return canonical_json(replace(self, signature="").to_json())


@dataclass(frozen=True, slots=True)
class BundleReport(Record):
    """The progress of an export or import or, when `done`, its result.

    Args:
        phase: `export`, `read`, or `adopt` while the datasets become visible.
        bytes_done: Bytes of objects that were written or read.
        bytes_total: Those of all.
        objects: The number of objects.
        datasets: The names of the datasets; of imported ones here.
        node: The id of the node that has made the bundle.
        seeded: Whether they are datasets of the network; else they are new ones.
        file_bytes: The size of the bundle.
        done: Whether the work has ended.
    """

    phase: str
    bytes_done: int
    bytes_total: int
    objects: int
    datasets: tuple[str, ...]
    node: str
    seeded: bool = False
    file_bytes: int = 0
    done: bool = False


def file_bytes_of(objects: int, object_bytes: int) -> int:
    """Return the size, rounded up, of a bundle with so many objects of so many bytes in all."""
    content = _HEAD_SIZE.size + _HEAD_BYTES_MAX + objects * _OBJECT.size + object_bytes
    return content + (content // (256 * KIB) + 1) * 16 + 2 * KIB


class BundleWriter:
    """Writes a bundle: `start`, the bytes of all objects by `write`, `finish`.

    Args:
        write: Receives the bytes of the file.
        passphrase: Encrypts it.

    Raises:
        UsageError: The passphrase is too short.
    """

    def __init__(self, write: Callable[[bytes], object], passphrase: str) -> None:
        salt = os.urandom(_SALT_BYTES)
        key = _key_of(passphrase, salt)
        secret = _MAGIC + salt + _check_of(key)
        write(secret + hashlib.sha256(secret).digest())
        self._content = EncryptedWriter(write, _NAME, key)

    def start(self, head: BundleHead, sizes: Mapping[str, int], key: NodeKey) -> None:
        """Write the head and the list of objects.

        Args:
            head: The head, without `objects`, `digest` and the signature.
            sizes: The bytes of each object.
            key: Signs it.
        """
        listed = b"".join(_OBJECT.pack(bytes.fromhex(n), sizes[n]) for n in sorted(sizes))
        digest = hashlib.sha256(listed).hexdigest()
        whole = replace(head, objects=len(sizes), digest=digest).signed(key)
        document = canonical_json(whole.to_json())
        if len(document) > _HEAD_BYTES_MAX:
            raise UsageError("the names of the datasets are too long for one bundle")
        self._content.write(_HEAD_SIZE.pack(len(document)) + document)
        self._content.write(listed)

    def write(self, data: bytes) -> None:
        """Append bytes of the objects, which come in the order of their ids."""
        self._content.write(data)

    def finish(self) -> None:
        """Write what is left."""
        self._content.finish()


class Bundle:
    """An open bundle whose head, signature and list of objects are right; a context manager.

    Args:
        path: The file.
        passphrase: Decrypts it.

    Raises:
        BadInput: It is not a bundle.
        Denied: The passphrase is another one.
        Corrupt: It is damaged, or was cut off.
    """

    def __init__(self, path: Path, passphrase: str) -> None:
        source = path.open("rb", buffering=0)
        try:
            header = source.read(_HEADER_BYTES)
            key = _checked_key(header, passphrase)
            with _reading():
                self._content = EncryptedReader(source, _NAME, key, _HEADER_BYTES)
        except BaseException:
            source.close()
            raise
        try:
            self._read_head()
        except BaseException:
            self._content.close()
            raise

    def _read_head(self) -> None:
        left = self._content.plain_bytes - _HEAD_SIZE.size
        (size,) = _HEAD_SIZE.unpack(self._exactly(_HEAD_SIZE.size))
        if size > min(left, _HEAD_BYTES_MAX):
            raise _damaged("the head", f"at most {min(left, _HEAD_BYTES_MAX)} bytes", str(size))
        try:
            self.head = BundleHead.from_json(json.loads(self._exactly(size)))
            self.node = self.head.check()
        except (ValueError, UsageError, RecursionError) as error:
            raise _damaged("the head", "JSON of a head", str(error)[:200]) from None
        self._read_list(left - size)

    def _read_list(self, left: int) -> None:
        """Read the list of objects, of which this keeps 40 bytes each.

        Args:
            left: The bytes of the list and the objects, as the file's size says.
        """
        count = self.head.objects
        left -= count * _OBJECT.size
        if left < 0:
            raise _damaged("the list of objects", "one that fits into it", f"{count} objects")
        hasher, names, ends = hashlib.sha256(), bytearray(), array("Q")
        last, end = b"", 0
        for start in range(0, count, _LISTED_AT_ONCE):
            listed = self._exactly(min(_LISTED_AT_ONCE, count - start) * _OBJECT.size)
            hasher.update(listed)
            for name, size in _OBJECT.iter_unpack(listed):
                if name <= last:
                    raise _damaged("the list of objects", "each once, in order", "another order")
                last, end = name, end + size
                if end > left:
                    raise _damaged("the list of objects", f"{left} bytes in all", f"{end} or more")
                names += name
                ends.append(end)
        if hasher.hexdigest() != self.head.digest:
            raise _damaged("the list of objects", "the one that was signed", "another")
        if end != left:
            raise _damaged("it", f"{end} bytes of objects", f"{left}")
        self._names, self._ends = bytes(names), ends
        self._start = self._content.plain_bytes - left

    @property
    def object_bytes(self) -> int:
        """The bytes of all objects."""
        return self._ends[-1]

    def __iter__(self) -> Iterator[str]:
        """The ids of the objects in their order in the file."""
        return (self._names[at : at + 32].hex() for at in range(0, len(self._names), 32))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def size_of(self, name: str) -> int:
        """Return the bytes of an object.

        Raises:
            Corrupt: The bundle does not have it.
        """
        place = self._find(name)
        if place is None:
            raise _damaged("it", f"object {name[:64]}", "none")
        return self._ends[place] - self._begin(place)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an object, at most 1 MiB at a time; raises as `size_of`."""
        size, place = self.size_of(name), self._find(name)
        assert place is not None, "it has a size"
        position = self._start + self._begin(place)
        while size:
            # Others may have read from the file since the last piece.
            self._content.seek(position)
            piece = self._exactly(min(size, CHUNK_BYTES))
            position += len(piece)
            size -= len(piece)
            yield piece

    def verified(self, name: str) -> Iterator[bytes]:
        """As `pieces`; at the end compare them with the object's id.

        Raises:
            Corrupt: They are those of another object.
        """
        hasher = ObjectHasher(CHUNK_BYTES)
        for piece in self.pieces(name):
            hasher.update(piece)
            yield piece
        found = hasher.finish().object
        if found != name:
            raise _damaged(f"object {name}", name, found)

    def _find(self, name: str) -> int | None:
        try:
            wanted = bytes.fromhex(name)
        except ValueError:
            return None
        if wanted.hex() != name:  # upper case, or spaces
            return None
        places = range(len(self._ends))
        place = bisect_left(places, wanted, key=self._name_at)
        return place if place < len(places) and self._name_at(place) == wanted else None

    def _name_at(self, place: int) -> bytes:
        return self._names[place * 32 : place * 32 + 32]

    def _begin(self, place: int) -> int:
        return self._ends[place - 1] if place else 0

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        with _reading():
            while len(found) < size:
                piece = self._content.read(size - len(found))
                if not piece:
                    raise _damaged("it", f"{size - len(found)} more bytes", "its end")
                found += piece
        return bytes(found)

    def close(self) -> None:
        """Close the file."""
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _reading:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Say of damage to the encrypted file what it means for a bundle."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Corrupt) and error.hint != _HINT:
            raise Corrupt(f"the bundle ({error.what})", hint=_HINT) from None


def _checked_key(header: bytes, passphrase: str) -> bytes:
    if header[: len(_MAGIC)] != _MAGIC:
        raise BadInput("the file", reason="it is not a bundle of Sennit")
    secret, digest = header[:_SECRET_BYTES], header[_SECRET_BYTES:]
    if hashlib.sha256(secret).digest() != digest:
        raise _damaged("its header", "bytes with their checksum", "others")
    key = _key_of(passphrase, secret[len(_MAGIC) :][:_SALT_BYTES])
    if not hmac.compare_digest(secret[-32:], _check_of(key)):
        raise Denied("reading the bundle", needed="the passphrase that it was exported with")
    return key


def _key_of(passphrase: str, salt: bytes) -> bytes:
    import_optional("cryptography", "bundles")
    if not _PASSPHRASE_MIN <= len(passphrase) <= _PASSPHRASE_MAX:
        raise UsageError(
            f"the passphrase of a bundle has {_PASSPHRASE_MIN} to {_PASSPHRASE_MAX:,} characters"
        )
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, dklen=32, maxmem=_SCRYPT_MEMORY_BYTES, **_SCRYPT
    )


def _check_of(key: bytes) -> bytes:
    # The key is otherwise only an input of HKDF, which has a salt and another text.
    return hmac.digest(key, _CHECK, "sha256")


def _damaged(part: str, expected: str, found: str) -> Corrupt:
    what = "the bundle" if part == "it" else f"{part} of the bundle"
    return Corrupt(what, expected=expected, found=found, hint=_HINT)
