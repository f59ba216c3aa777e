"""A follower's copy of its leader's account state: only public keys and revocations.

The leader sends the state as one MessagePack map, with a tag that changes whenever the state does. A
follower stores it in its own account store, so that it can verify tokens while the leader is down.
Private keys, hashes of passwords, refresh tokens and admin keys never leave the leader: of revoked
keys it sends only the ids.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ormsgpack

from elkyn.auth.account_store import Pages, digest
from elkyn.auth.jws import Key, PublicKey
from elkyn.auth.revocations import Revoked
from elkyn.auth.tokens import Trust
from sennit_core.errors import BadInput

if TYPE_CHECKING:
    from elkyn.auth.account_store import AccountStore
    from elkyn.auth.keys import SigningKeys
    from elkyn.auth.revocations import Revocations
    from elkyn.auth.settings import AuthSettings
    from sennit_core.clock import Clock

__all__ = ["LeaderTrust", "state_for_followers"]

_ROW = "leader"
_AFTER_PROMOTION_SECONDS = 2 * 3600  # as long as a server's own retired key verifies


def state_for_followers(
    account_store: AccountStore,
    signing: SigningKeys,
    settings: AuthSettings,
    admin_secrets_tag: str,
    known_tag: str,
) -> bytes | None:
    """Return the account state for followers; None when `known_tag` shows that they have it."""
    keys = signing.jwks()["keys"]
    with account_store.read() as pages:
        named = [
            *(settings.project, admin_secrets_tag, pages.revocations),
            sorted(key["kid"] for key in keys),
        ]
        tag = digest(repr(named)).hex()
        if tag == known_tag:
            return None
        state = {
            "tag": tag,
            "issuer": settings.issuer,
            "project": settings.project,
            "keys": keys,
            "cutoffs": pages.cutoffs(),
            "revoked": pages.revoked_tokens(),
            "disabled": pages.disabled_users(),
            "revoked_keys": [key.id for key in pages.admin_keys() if key.revoked_ms],
            "admin_secrets": admin_secrets_tag,
        }
    return ormsgpack.packb(state, default=list)


class LeaderTrust:
    """A follower's copy of its leader's account state; thread-safe.

    Args:
        account_store: the follower's account store, which keeps the copy.
        revocations: the follower's revocations, notified of those of the leader.
        clock: decides how long the keys of an old leader are valid.
    """

    def __init__(self, account_store: AccountStore, revocations: Revocations, clock: Clock) -> None:
        self._account_store = account_store
        self._revocations = revocations
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, PublicKey] = {}
        self._ended: set[str] = set()  # ids of the leader's revoked admin keys
        with account_store.read() as pages:
            # The copy as it is in the account store; empty before the first one. Replaced, never
            # changed.
            self._row = pages.meta(_ROW)
        self._load()

    @property
    def tag(self) -> str:
        """The tag of the copy; empty before the first one."""
        return str(self._row.get("tag", ""))

    def trusts(self) -> list[Trust]:
        """Return the leader as a trusted signer; empty before the first copy."""
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

    def apply(self, packed: bytes) -> None:
        """Store and apply the state that the leader sent.

        Raises:
            BadInput: the state is malformed.
        """
        state = _checked(packed)
        row = {name: state[name] for name in ("tag", "issuer", "project", "keys")}
        row |= {
            "revoked_keys": state.get("revoked_keys", []),
            "admin_secrets": state.get("admin_secrets", ""),
        }
        now = int(self._clock.now())

        def body(pages: Pages) -> None:
            for uid, seconds in state["cutoffs"].items():
                # A cutoff never moves back: revocations at this server, from before it followed,
                # remain.
                if pages.cutoff(uid) < seconds:
                    pages.put_cutoff(uid, seconds)
            pages.add_revoked(state["revoked"], now)
            pages.put_disabled(state["disabled"])
            pages.put_meta(_ROW, row)
            pages.count_revocation()

        # On the disk first: after a restart without the leader the same tokens are revoked.
        self._account_store.write(body)
        with self._lock:
            before = self._row.get("admin_secrets")
            if before and before != row["admin_secrets"]:
                # The leader's unnamed credentials have changed: principals made of the old ones
                # end.
                self._ended.add(before)
            self._row = row
            self._load()
        self._revocations.poll()

    def _has_ended(self, key: str) -> bool:
        return key in self._ended or "ends" in self._row

    def leave(self) -> None:
        """Trust the old leader's keys for two more hours only: this server leads now."""
        if not self._row or "ends" in self._row:
            return
        # Users of the old leader keep their ID tokens until these expire by themselves.
        row = {**self._row, "ends": self._clock.now() + _AFTER_PROMOTION_SECONDS}
        self._account_store.write(lambda pages: pages.put_meta(_ROW, row))
        with self._lock:
            self._row = row
        self._revocations.notify(Revoked())

    def _load(self) -> None:
        known, self._keys = self._keys, {}
        for jwk in self._row.get("keys", ()):
            self._keys[jwk["kid"]] = known.get(jwk["kid"]) or PublicKey.from_jwk(jwk)
        self._ended.update(self._row.get("revoked_keys", ()))
        self._revocations.users_at_leader = bool(self._row)
        self._revocations.is_leader_key_revoked = self._has_ended

    def _find(self, kid: str | None, _algorithm: str) -> Sequence[Key]:
        with self._lock:
            key = None if kid is None else self._keys.get(kid)
            ends = self._row.get("ends")
        if key is None or (ends is not None and self._clock.now() > ends):
            return ()
        return (key,)


def _checked(packed: bytes) -> Mapping[str, Any]:
    try:
        state: Any = ormsgpack.unpackb(packed)
        keys = [PublicKey.from_jwk(jwk) for jwk in state["keys"]]
        texts = [state[name] for name in ("tag", "issuer", "project")]
        lists = isinstance(state["cutoffs"], dict) and isinstance(state["disabled"], list)
        ids = all(isinstance(key, str) for key in state.get("revoked_keys", []))
        tokens = all(isinstance(key, bytes) and int(until) for key, until in state["revoked"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("the accounts of a leader", reason=repr(error)) from None
    if not (lists and tokens and ids and all(isinstance(text, str) for text in texts)):
        raise BadInput("the accounts of a leader", reason="a member has the wrong type")
    if any(key.kid is None for key in keys):
        raise BadInput("the accounts of a leader", reason="a key has no id")
    found: Mapping[str, Any] = state
    return found
