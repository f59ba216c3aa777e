"""The node's Ed25519 key, which signs the manifests of its snapshots and identifies it to peers.

The private key is `lake/node.key`, 32 bytes with mode 0600, made when it is used first; or an entry of
`lake/keys.json`, encrypted with the lake's passphrase or key file (`lake.encryption.keys`). The node's id is the SHA-256 of the public key in hex. A signature carries the public key, so whoever has only the
signed bytes can verify them, and decides by the id whether to trust the signer (design 0134):

    ed25519:<public key, hex>:<signature, hex>

Signatures need the extra `encryption` (cryptography). Without it nothing is signed or checked.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lake.objects.durable import storage_errors, write_whole
from sennit_core.errors import Corrupt, Denied
from sennit_core.hashing import sha256_hex

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from lake.encryption.keys import KeyRing

__all__ = ["NodeKey", "can_sign", "check_signature", "node_id", "signer_of"]

_ALGORITHM = "ed25519"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_OTHERS = 0o077
_ENTRY = "node:key"


@cache
def can_sign() -> bool:
    """Return whether signatures can be made and checked here."""
    return find_spec("cryptography") is not None


def node_id(public_key: bytes) -> str:
    """Return the id of the node with a public key."""
    return sha256_hex(public_key)


class NodeKey:
    """The key of one node; thread-safe.

    Args:
        path: The file of the private key.
        keys: The keys of the lake, which may have it instead.
        encrypt: Whether it is to be among them; one that is stays there.
    """

    def __init__(self, path: Path, keys: KeyRing | None = None, *, encrypt: bool = False) -> None:
        self._path = path
        self._keys = keys
        self._encrypt = encrypt
        self._lock = threading.Lock()
        self._key: Ed25519PrivateKey | None = None
        self._public = b""

    @property
    def id(self) -> str:
        """The node's id; makes the key if there is none."""
        self._loaded()
        return node_id(self._public)

    def private_key(self) -> Ed25519PrivateKey:
        """Return the private key, for TLS; raises as `sign`."""
        return self._loaded()

    def sign(self, domain: bytes, data: bytes) -> str:
        """Return the signature of some bytes, as text.

        Args:
            domain: What the bytes are, so that a signature of one kind is not valid for another.
            data: The bytes.

        Raises:
            Corrupt: The file of the key is not a key.
            Denied: Other accounts can read it, or it is encrypted and the lake has no secret.
        """
        signature = self._loaded().sign(domain + data)
        return f"{_ALGORITHM}:{self._public.hex()}:{signature.hex()}"

    def _loaded(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        with self._lock:
            if self._key is None:
                self._key = Ed25519PrivateKey.from_private_bytes(self._stored())
                self._public = self._key.public_key().public_bytes_raw()
            return self._key

    def _stored(self) -> bytes:
        """Return the private key; it is made, or moved, if it is not where it is to be."""
        if self._keys is not None and _ENTRY in self._keys.entries():
            found = self._keys.key(_ENTRY, what="the node's key")
            self._path.unlink(missing_ok=True)  # a crash has left it
            return found
        if self._keys is None or not self._encrypt:
            return self._read() or self._make()
        key = self._read() or os.urandom(_KEY_BYTES)
        self._keys.put(_ENTRY, key, "encrypt the node's key")
        self._path.unlink(missing_ok=True)
        return key

    def _read(self) -> bytes | None:
        """Return the key of the file; None if there is none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & _OTHERS:
                raise Denied(
                    "using the node's key: other accounts can access its file",
                    hint=f"chmod 600 {self._path.name} in the lake's folder, or replace the key",
                )
            found = file.read(_KEY_BYTES + 1)
        if len(found) != _KEY_BYTES:
            raise Corrupt(
                "the node's key",
                expected=f"{_KEY_BYTES} bytes",
                found=f"{len(found)} bytes or more",
                hint=f"restore {self._path.name} from a backup, or remove it to get a new identity",
            )
        return found

    def _make(self) -> bytes:
        new = os.urandom(_KEY_BYTES)
        with storage_errors(self._path, _KEY_BYTES):
            write_whole(self._path, new)
        return new


def signer_of(signature: str) -> str | None:
    """Return the id of the node that a signature says it is of; None if it is not a signature."""
    parts = _parts(signature)
    return None if parts is None else node_id(parts[0])


def check_signature(signature: str, domain: bytes, data: bytes) -> bool:
    """Return whether a signature is that of the bytes, by the key that it names."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    parts = _parts(signature)
    if parts is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(parts[0]).verify(parts[1], domain + data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parts(signature: str) -> tuple[bytes, bytes] | None:
    """Return the public key and the signature; None if the text has another form."""
    algorithm, _, rest = signature.partition(":")
    public, _, signed = rest.partition(":")
    try:
        found = bytes.fromhex(public), bytes.fromhex(signed)
    except ValueError:
        return None
    if algorithm != _ALGORITHM or tuple(map(len, found)) != (_KEY_BYTES, _SIGNATURE_BYTES):
        return None
    # One text for one signature: `fromhex` also takes upper case and spaces.
    return found if f"{public}:{signed}" == f"{found[0].hex()}:{found[1].hex()}" else None
