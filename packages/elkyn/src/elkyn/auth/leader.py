"""What a follower knows of its leader's accounts: public keys and what was revoked, no more.

The leader tells all of it as one MessagePack map, with a tag that changes with any of it. A follower
keeps it in its own account store, so that tokens are judged there while the leader is away. Private keys,
hashes of passwords, refresh tokens and admin keys stay where they are: of keys that were revoked it
tells the ids.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ormsgpack

from elkyn.auth.jws import Key, PublicKey
from elkyn.auth.revocations import Revoked
from elkyn.auth.tokens import Trust
from elkyn.auth.vault import Pages, digest
from sennit_core.errors import BadInput

if TYPE_CHECKING:
    from elkyn.auth.authenticator import Authenticator
    from elkyn.auth.revocations import Revocations
    from elkyn.auth.vault import AccountStore
    from sennit_core.clock import Clock

__all__ = ["LeaderTrust", "tell_followers"]

_ROW = "leader"
_AFTER_PROMOTION_SECONDS = 2 * 3600  # as long as a retired key of one's own


def tell_followers(auth: Authenticator, known_tag: str) -> bytes | None:
    """Return what followers of this server are told; None when they know, as their tag says."""
    keys, masters = auth.signing.jwks()["keys"], auth.masters_tag
    with auth.account_store.read() as pages:
        named = [
            *(auth.settings.project, masters, pages.revocations),
            sorted(key["kid"] for key in keys),
        ]
        tag = digest(repr(named)).hex()
        if tag == known_tag:
            return None
        told = {
            "tag": tag,
            "issuer": auth.settings.issuer,
            "project": auth.settings.project,
            "keys": keys,
            "cutoffs": pages.cutoffs(),
            "revoked": pages.revoked_tokens(),
            "disabled": pages.disabled_users(),
            "revoked_keys": [key.id for key in pages.admin_keys() if key.revoked_ms],
            "masters": masters,
        }
    return ormsgpack.packb(told, default=list)


class LeaderTrust:
    """The accounts of a leader, from a follower's point of view; safe for threads.

    Args:
        account_store: of the follower; keeps what was told.
        revocations: of the follower; told of what was revoked at the leader.
        clock: tells how long the keys of an old leader are good.
    """

    def __init__(self, account_store: AccountStore, revocations: Revocations, clock: Clock) -> None:
        self._account_store = account_store
        self._revocations = revocations
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, PublicKey] = {}
        self._ended: set[str] = set()  # keys of administrators
        with account_store.read() as pages:
            self._row = pages.meta(_ROW)
        self._load()

    @property
    def tag(self) -> str:
        """Names what is known; empty when that is nothing."""
        return str(self._row.get("tag", ""))

    def trusts(self) -> list[Trust]:
        """Return who is believed: nobody before anything was told."""
        if not self._row:
            return []
        return [
            Trust(
                find=self._find,
                algorithms=frozenset({"RS256"}),
                issuer=self._row["issuer"],
                audience=frozenset({self._row["project"]}),
                roles=True,
            )
        ]

    def take(self, packed: bytes) -> None:
        """Keep what the leader told.

        Raises:
            BadInput: it makes no sense.
        """
        told = _checked(packed)
        row = {name: told[name] for name in ("tag", "issuer", "project", "keys")}
        row |= {"revoked_keys": told.get("revoked_keys", []), "masters": told.get("masters", "")}
        now = int(self._clock.now())

        def body(pages: Pages) -> None:
            for uid, seconds in told["cutoffs"].items():
                if pages.cutoff(uid) < seconds:
                    pages.put_cutoff(uid, seconds)
            pages.add_revoked(told["revoked"], now)
            pages.put_disabled(told["disabled"])
            pages.put_meta(_ROW, row)
            pages.count_revocation()

        self._account_store.write(body)
        with self._lock:
            before = self._row.get("masters")
            if before and before != row["masters"]:
                self._ended.add(before)
            self._row = row
            self._load()
        self._revocations.poll()

    def _has_ended(self, key: str) -> bool:
        return key in self._ended or "ends" in self._row

    def leave(self) -> None:
        """Believe the leader's keys for two more hours alone: this server leads now."""
        if not self._row or "ends" in self._row:
            return
        row = {**self._row, "ends": self._clock.now() + _AFTER_PROMOTION_SECONDS}
        self._account_store.write(lambda pages: pages.put_meta(_ROW, row))
        with self._lock:
            self._row = row
        self._revocations.tell(Revoked())

    def _load(self) -> None:
        known, self._keys = self._keys, {}
        for jwk in self._row.get("keys", ()):
            self._keys[jwk["kid"]] = known.get(jwk["kid"]) or PublicKey.from_jwk(jwk)
        self._ended.update(self._row.get("revoked_keys", ()))
        self._revocations.members_elsewhere = bool(self._row)
        self._revocations.keys_elsewhere = self._has_ended

    def _find(self, kid: str | None, _algorithm: str) -> Sequence[Key]:
        with self._lock:
            key = None if kid is None else self._keys.get(kid)
            ends = self._row.get("ends")
        if key is None or (ends is not None and self._clock.now() > ends):
            return ()
        return (key,)


def _checked(packed: bytes) -> Mapping[str, Any]:
    try:
        told: Any = ormsgpack.unpackb(packed)
        keys = [PublicKey.from_jwk(jwk) for jwk in told["keys"]]
        texts = [told[name] for name in ("tag", "issuer", "project")]
        lists = isinstance(told["cutoffs"], dict) and isinstance(told["disabled"], list)
        ids = all(isinstance(key, str) for key in told.get("revoked_keys", []))
        tokens = all(isinstance(key, bytes) and int(until) for key, until in told["revoked"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("the accounts of a leader", reason=repr(error)) from None
    if not (lists and tokens and ids and all(isinstance(text, str) for text in texts)):
        raise BadInput("the accounts of a leader", reason="a part is of another kind")
    if any(key.kid is None for key in keys):
        raise BadInput("the accounts of a leader", reason="a key has no id")
    found: Mapping[str, Any] = told
    return found
