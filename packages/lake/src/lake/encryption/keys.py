"""The data keys of encrypted datasets, in one file, each wrapped by a key-encryption key.

The key-encryption key is derived from a passphrase (scrypt) or from a key file (HKDF), and is only in
memory. `lake/keys.json` is replaced as a whole, by an atomic rename: a crash during a rotation leaves
the old file or the new one. A rotation wraps the data keys anew and leaves every object as it is.

    {"v": 1, "kdf": {"name", "salt", …}, "check": wrapped, "keys": {dataset id: wrapped}}

A wrapped key is a random nonce and AES-256-GCM of the key, with the dataset's id as authenticated data,
so that two entries cannot be exchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lake._failpoints import reached
from lake.encryption.sealed import KEY_BYTES, forbid_core_dumps, new_cipher
from lake.objects.durable import write_whole
from sennit_core.errors import BadInput, Corrupt, Denied, NotFound, UsageError
from sennit_core.hashing import canonical_json
from sennit_core.units import MIB

__all__ = ["NO_KEY_HINT", "KeyRing", "Secret", "read_secret"]

NO_KEY_HINT = (
    "start the node with security.key_file or security.passphrase_file, or open the lake with "
    "key_file= or passphrase="
)

_VERSION = 1
_NONCE_BYTES = 12
_CHECK = "check"
# One of the settings that OWASP's cheat sheet on password storage lists as equal in strength; this
# one needs 32 MiB, which a node's gateway has.
_SCRYPT = {"n": 2**15, "r": 8, "p": 3}
_SCRYPT_MEMORY_BYTES = 64 * MIB
_PASSPHRASE_MIN = 12
_FILE_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """What the key-encryption key is derived from.

    Args:
        kind: `scrypt` for a passphrase, `file` for the content of a key file.
        content: Its bytes.
    """

    kind: str
    content: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind!r})"


def read_secret(
    *,
    passphrase: str | None = None,
    key_file: Path | str | None = None,
    passphrase_file: Path | str | None = None,
) -> Secret | None:
    """Return the secret of the one argument that is set; None if none is.

    Args:
        passphrase: A passphrase.
        key_file: A file of 32 or more random bytes.
        passphrase_file: A file whose first line is the passphrase.

    Raises:
        UsageError: More than one is set, or the secret is too short.
        NotFound: There is no such file.
        Denied: Other accounts can access the file.
    """
    if sum(each is not None for each in (passphrase, key_file, passphrase_file)) > 1:
        raise UsageError("set one of passphrase, key file and passphrase file")
    if key_file is not None:
        content = _private_bytes(key_file)
        if len(content) < KEY_BYTES:
            raise UsageError(
                f"the key file has {len(content)} bytes; it needs {KEY_BYTES}",
                hint=f"make one: head -c {KEY_BYTES} /dev/urandom > FILE; chmod 600 FILE",
            )
        return Secret("file", content)
    if passphrase_file is not None:
        try:
            passphrase = _private_bytes(passphrase_file).decode().split("\n")[0]
        except UnicodeDecodeError:
            raise BadInput(what="the passphrase file", reason="it is not text in UTF-8") from None
    if passphrase is None:
        return None
    if len(passphrase) < _PASSPHRASE_MIN:
        raise UsageError(f"the passphrase is shorter than {_PASSPHRASE_MIN} characters")
    return Secret("scrypt", passphrase.encode())


class KeyRing:
    """The data keys of a lake; thread-safe.

    Args:
        path: The file; created with the first key.
        secret: Unlocks it; None leaves encrypted datasets locked.

    Raises:
        Denied: The secret is not the one that the file was made with.
        Corrupt: The file is damaged.
    """

    def __init__(self, path: Path, secret: Secret | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._document = _read(path)
        self._wrapping: bytes | None = None
        if secret is not None:
            forbid_core_dumps()
            if self._document is None:
                self._document = _new_document(secret)
            self._wrapping = _unlock(self._document, secret)

    @property
    def is_locked(self) -> bool:
        """Whether no secret was given."""
        return self._wrapping is None

    def check_unlocked(self, action: str) -> None:
        """Raise Denied if no secret was given."""
        with self._lock:
            self._unlocked(action)

    def create(self, dataset: str) -> bytes:
        """Return the data key of a new dataset, durable before anything is encrypted with it.

        Raises:
            Denied: The lake has no secret.
        """
        key = secrets.token_bytes(KEY_BYTES)
        self.put(dataset, key, "encrypt a dataset")
        return key

    def put(self, entry: str, key: bytes, action: str) -> None:
        """Store a key, durably.

        Args:
            entry: What has the key: the id of a dataset, or a name with a colon.
            key: 32 bytes.
            action: What needs it, for errors.

        Raises:
            Denied: The lake has no secret.
        """
        with self._lock:
            wrapping, document = self._unlocked(action)
            keys = {**document["keys"], entry: _wrap(wrapping, key, entry)}
            self._write({**document, "keys": keys})

    def key(self, dataset: str, name: str = "", *, what: str = "") -> bytes:
        """Return the data key of a dataset.

        Args:
            dataset: Its id.
            name: Its name, for errors.
            what: Instead, what else has the key.

        Raises:
            Denied: The lake has no secret.
            Corrupt: There is no key, or it is damaged.
        """
        whose = what or f"dataset {name!r}"
        with self._lock:
            wrapping, document = self._unlocked(f"read {whose}, which is encrypted")
            wrapped = document["keys"].get(dataset)
        what = f"the data key of {whose}"
        hint = "restore lake/keys.json from a backup"
        if wrapped is None:
            raise Corrupt(what, expected="an entry in lake/keys.json", found="none", hint=hint)
        return _unwrap(wrapping, wrapped, dataset, Corrupt(what, found="damaged", hint=hint))

    def forget(self, datasets: Iterable[str]) -> None:
        """Remove keys for good, which makes what they have encrypted unreadable, copies too."""
        with self._lock:
            if self._document is None:
                return
            gone = set(datasets)
            keys = {name: key for name, key in self._document["keys"].items() if name not in gone}
            if len(keys) < len(self._document["keys"]):
                self._write({**self._document, "keys": keys})

    def entries(self) -> list[str]:
        """Return what has a key: ids of datasets, and others that have a colon."""
        with self._lock:
            return [] if self._document is None else list(self._document["keys"])

    def datasets(self) -> list[str]:
        """Return the ids of the datasets that have a key."""
        return [each for each in self.entries() if ":" not in each]

    def rotate(self, secret: Secret) -> int:
        """Wrap all data keys by another secret, which is needed from then on; return their number.

        Raises:
            Denied: The lake has no secret.
        """
        with self._lock:
            wrapping, old = self._unlocked("change its key")
            plain = {
                dataset: _unwrap(wrapping, wrapped, dataset, _damaged(dataset))
                for dataset, wrapped in old["keys"].items()
            }
            document = _new_document(secret)
            wrapping = _unlock(document, secret)
            document["keys"] = {
                dataset: _wrap(wrapping, key, dataset) for dataset, key in plain.items()
            }
            reached("rotate-wrapped")
            self._write(document)
            reached("rotate-written")
            self._wrapping = wrapping
            return len(plain)

    def _unlocked(self, action: str) -> tuple[bytes, dict[str, Any]]:
        if self._wrapping is None or self._document is None:
            raise Denied(
                action,
                needed="the lake's key",
                hint=NO_KEY_HINT,
            )
        return self._wrapping, self._document

    def _write(self, document: dict[str, Any]) -> None:
        write_whole(self._path, canonical_json(document))
        self._document = document


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
        if document["v"] != _VERSION:
            raise ValueError(f"version {document['v']}")
        if not isinstance(document["keys"], dict) or not isinstance(document["kdf"], dict):
            raise TypeError("a member of another type")
        bytes.fromhex(document[_CHECK])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        hint = "restore it from a backup: without it, encrypted datasets cannot be read"
        raise Corrupt("lake/keys.json", found=str(error)[:100], hint=hint) from None
    found: dict[str, Any] = document
    return found


def _new_document(secret: Secret) -> dict[str, Any]:
    kdf = {"name": secret.kind, "salt": os.urandom(32).hex()}
    if secret.kind == "scrypt":
        kdf |= _SCRYPT  # type: ignore[arg-type]
    document: dict[str, Any] = {"v": _VERSION, "kdf": kdf, "keys": {}}
    document[_CHECK] = _wrap(_derive(kdf, secret), bytes(KEY_BYTES), _CHECK)
    return document


def _unlock(document: dict[str, Any], secret: Secret) -> bytes:
    kdf = document["kdf"]
    if kdf.get("name") != secret.kind:
        words = {"scrypt": "a passphrase", "file": "a key file"}
        needed = words.get(kdf.get("name"), "another version of Sennit")
        raise Denied("unlock the lake", needed=f"{needed}, with which it was encrypted")
    wrapping = _derive(kdf, secret)
    wrong = Denied(
        "unlock the lake",
        needed="another passphrase: this one is wrong"
        if secret.kind == "scrypt"
        else "another key file: this one is wrong",
        hint="nothing was changed; if lake/keys.json is damaged, restore it from a backup",
    )
    _unwrap(wrapping, document[_CHECK], _CHECK, wrong)
    return wrapping


def _derive(kdf: dict[str, Any], secret: Secret) -> bytes:
    try:
        salt = bytes.fromhex(kdf["salt"])
        if secret.kind == "scrypt":
            cost = {name: int(kdf[name]) for name in _SCRYPT}
            return hashlib.scrypt(
                secret.content, salt=salt, dklen=KEY_BYTES, maxmem=_SCRYPT_MEMORY_BYTES, **cost
            )
    except (ValueError, LookupError, TypeError) as error:
        raise Corrupt("lake/keys.json", found=f"its derivation: {error}") from None
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt, b"sennit key file 1").derive(secret.content)


def _wrap(wrapping: bytes, key: bytes, dataset: str) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    return (nonce + new_cipher(wrapping).encrypt(nonce, key, dataset.encode())).hex()


def _unwrap(wrapping: bytes, wrapped: str, dataset: str, problem: Exception) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        raw = bytes.fromhex(wrapped)
        return new_cipher(wrapping).decrypt(
            raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], dataset.encode()
        )
    except (InvalidTag, ValueError, TypeError):
        raise problem from None


def _damaged(dataset: str) -> Corrupt:
    return Corrupt(f"the data key of dataset {dataset}", found="damaged")


def _private_bytes(name: Path | str) -> bytes:
    path = Path(name)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise Denied(f"use {path}: other accounts can access it", hint=f"chmod 600 {path}")
            return file.read(_FILE_MAX)
    except OSError as error:
        if isinstance(error, Denied):
            raise
        raise NotFound("key file", str(path), hint=str(error.strerror)) from None
