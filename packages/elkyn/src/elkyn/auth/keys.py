"""The keys of a server: signing keys of ID tokens, and named admin keys."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from elkyn.auth.account_store import AccountStore, AdminKey, Pages, digest
from elkyn.auth.jws import Key, PrivateKey
from sennit_core.clock import Clock
from sennit_core.errors import NotFound, UsageError

__all__ = ["KEY_ROLES", "AdminKeys", "SigningKeys", "is_admin_key", "server_secret"]

KEY_ROLES = ("admin", "reader", "writer", "worker")
# Longer than the hour for which an ID token is valid, so that none becomes invalid by a rotation.
_RETIRED_MS = 2 * 3600 * 1000
_ADMIN_KEY = re.compile(r"elk_([a-z0-9]{12})_([A-Za-z0-9_-]{43})\Z")


class SigningKeys:
    """The RS256 keys of this server's ID tokens; the first is generated on first use.

    Args:
        account_store: stores the keys.
        clock: decides when a retired key is deleted.
    """

    def __init__(self, account_store: AccountStore, clock: Clock) -> None:
        self._account_store = account_store
        self._clock = clock
        self._lock = threading.Lock()
        # All keys of the account store, retired ones too: they still verify. Guarded by `_lock`.
        self._loaded: dict[str, PrivateKey] = {}
        # The newest key that is not retired; None until it is loaded.
        self._current: PrivateKey | None = None

    def current(self) -> PrivateKey:
        """Return the current signing key."""
        with self._lock:
            if self._current is None:
                self._load()
            if self._current is None:
                self._add()
            assert self._current is not None
            return self._current

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys that may have signed a token."""
        if kid is None or algorithm != "RS256":
            return ()
        with self._lock:
            if kid not in self._loaded:  # another process may have generated it
                self._load()
            key = self._loaded.get(kid)
        return () if key is None else (key,)

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JWKS."""
        self.current()
        with self._lock:
            return {"keys": [key.to_jwk() for key in self._loaded.values()]}

    def rotate(self) -> str:
        """Sign with a new key from now on; the old one verifies for two hours. Returns the new id."""
        self.current()
        with self._lock:
            self._add()
            assert self._current is not None
            return str(self._current.kid)

    def _add(self) -> None:
        kid = secrets.token_hex(20)
        key = PrivateKey.generate(kid)
        now_ms = int(self._clock.now() * 1000)
        row = {"der": key.to_der(), "created_ms": now_ms, "retired_ms": 0}

        def body(pages: Pages) -> None:
            # In one transaction: at most one key is not retired, also when two processes rotate at
            # once.
            for other, old in pages.signing_keys():
                if not old["retired_ms"]:
                    pages.put_signing_key(other, {**old, "retired_ms": now_ms})
                elif old["retired_ms"] + _RETIRED_MS < now_ms:
                    pages.put_signing_key(other, None)
            pages.put_signing_key(kid, row)

        self._account_store.write(body)
        self._load()

    def _load(self) -> None:
        with self._account_store.read() as pages:
            rows = pages.signing_keys()
        known = self._loaded
        self._loaded = {
            kid: known.get(kid) or PrivateKey.from_der(row["der"], kid) for kid, row in rows
        }
        self._current = next(
            (self._loaded[kid] for kid, row in reversed(rows) if not row["retired_ms"]), None
        )


class AdminKeys:
    """Named admin keys with roles, which can be revoked individually.

    A key with the role `admin` bypasses the rules. For other roles the rules decide: they see
    `auth.uid` as `key:<name>` and `auth.token.roles.<role>` as true.
    """

    def __init__(self, account_store: AccountStore, clock: Clock) -> None:
        self._account_store = account_store
        self._clock = clock

    def create(self, name: str, roles: Sequence[str] = ("admin",)) -> tuple[AdminKey, str]:
        """Create a key; returns it and its text, which is not stored and cannot be shown again.

        Raises:
            UsageError: the name is empty, too long or in use, or a role is unknown.
        """
        unknown = sorted(set(roles) - set(KEY_ROLES))
        if unknown or not roles:
            hint = f"the roles are {', '.join(KEY_ROLES)}"
            raise UsageError(f"unknown role of a key: {', '.join(unknown) or 'none'}", hint=hint)
        if not 0 < len(name) <= 100 or not name.isprintable():
            raise UsageError("the name of a key must have 1 to 100 printable characters")
        # The id selects the row, so that one hash is compared and not all. The secret has 256
        # random bits: unlike a password it needs no slow hash.
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        now_ms = int(self._clock.now() * 1000)
        key = AdminKey(key_id, name, digest(secret), tuple(dict.fromkeys(roles)), now_ms)

        def body(pages: Pages) -> None:
            if any(other.name == name and not other.revoked_ms for other in pages.admin_keys()):
                raise UsageError(f"there is a key named {name!r} already")
            pages.put_admin_key(key)

        self._account_store.write(body)
        return key, f"elk_{key_id}_{secret}"

    def verify(self, text: str) -> AdminKey | None:
        """Return the key with this text; None when there is none or it was revoked."""
        match = _ADMIN_KEY.match(text)
        if match is None:
            return None
        with self._account_store.read() as pages:
            key = pages.admin_key(match[1])
        if key is None or key.revoked_ms:
            return None
        # In constant time, though both sides are hashes already.
        return key if hmac.compare_digest(key.secret_sha256, digest(match[2])) else None

    def list(self) -> list[AdminKey]:
        """Return all keys, revoked ones too, the oldest first."""
        with self._account_store.read() as pages:
            return sorted(pages.admin_keys(), key=lambda key: key.created_ms)

    def revoke(self, name_or_id: str) -> AdminKey:
        """Revoke a key; returns it.

        Raises:
            NotFound: no valid key has this name or id.
        """
        now_ms = int(self._clock.now() * 1000)

        def body(pages: Pages) -> AdminKey:
            for key in pages.admin_keys():
                if name_or_id in (key.id, key.name) and not key.revoked_ms:
                    pages.put_admin_key(replace(key, revoked_ms=now_ms))
                    pages.count_revocation()
                    return key
            raise NotFound("admin key", name_or_id)

        return self._account_store.write(body)


def is_admin_key(text: str) -> bool:
    """Whether a credential has the form of an admin key."""
    return _ADMIN_KEY.match(text) is not None


def server_secret(account_store: AccountStore) -> bytes:
    """Return the random secret that signs tokens of `/auth/token`; created on first use."""

    def body(pages: Pages) -> bytes:
        row = pages.meta("secret")
        if not row:
            row = {"bytes": secrets.token_bytes(32)}
            pages.put_meta("secret", row)
        return bytes(row["bytes"])

    with account_store.read() as pages:
        row = pages.meta("secret")
    # `body` looks again inside the transaction: another process may have created it in between.
    return bytes(row["bytes"]) if row else account_store.write(body)
