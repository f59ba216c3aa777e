"""Revocation of users, single tokens and admin keys; open streams are notified."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from elkyn.auth.account_store import AccountStore, Pages
from elkyn.auth.claims import SKEW_SECONDS
from elkyn.auth.principal import Principal
from sennit_core.clock import Clock
from sennit_core.logs import get_logger

__all__ = ["DISABLED", "KEY_CLAIM", "LEADER_CLAIM", "Revocations", "Revoked", "revoke_in"]

KEY_CLAIM = "elkyn_key"
"""The claim of an admin key's principal that holds the key's id."""

LEADER_CLAIM = "elkyn_leader_key"
"""The claim with the id of a leader's admin key, or with the tag of its unnamed admin credentials."""

DISABLED = "user was disabled"
"""The reason of refusal for a user whose account is disabled."""

# Later than any time, and still exact where numbers are doubles.
_EVER = 2**53
_REVOKED = "credential was revoked"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Revoked:
    """The object of a revocation: all tokens of a uid, one token, one admin key, or unknown."""

    uid: str | None = None
    token_id: str | None = None
    key_id: str | None = None


class Revocations:
    """Checks principals against revocations; thread-safe.

    Args:
        account_store: stores the revocations; other processes may add to it (see `poll`).
        issuer: the issuer of this server's own ID tokens.
        clock: the time source of revocations.
        members_only: whether ID tokens are valid only while their user is in the account store.

    `notified` counts the revocations that subscribers were notified of: while it is unchanged, a
    result of `reason` is still valid as far as this process knows. `users_at_leader` is set on a
    follower, whose users are in the leader's account store: the leader revokes the tokens of users
    that it deletes. `is_leader_key_revoked` checks the value of a `LEADER_CLAIM`.
    """

    def __init__(
        self, account_store: AccountStore, issuer: str, clock: Clock, *, members_only: bool = True
    ) -> None:
        self._account_store = account_store
        self._issuer = issuer
        self._members_only = members_only
        self.users_at_leader = False
        # Fails closed: until it is replaced, no credential of a leader is valid.
        self.is_leader_key_revoked: Callable[[str], bool] = lambda _key: True
        self._clock = clock
        self._lock = threading.Lock()
        # `_lock` guards changes of `_callbacks`, `_seen` and `notified`.
        self._callbacks: dict[object, Callable[[Revoked], object]] = {}
        # The counter in the account store when subscribers were last notified. Another process's
        # revocation makes the two differ, and `poll` finds it with one read.
        self._seen = self._count()
        # Counted up after the revocation is stored, so that a result that was looked up before it
        # is not trusted.
        self.notified = 0

    def subscribe(self, callback: Callable[[Revoked], object]) -> Callable[[], None]:
        """Call `callback` after every revocation, on the revoking thread.

        Returns:
            The function that ends the subscription.
        """
        # Not the callback itself, which may be subscribed twice.
        handle = object()
        with self._lock:
            self._callbacks[handle] = callback

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks.pop(handle, None)

        return unsubscribe

    def reason(self, principal: Principal, now: float | None = None) -> str | None:
        """Return why a principal is no longer valid, None while it is.

        Args:
            principal: the principal of a token or key.
            now: Unix time in seconds.
        """
        now_seconds = self._clock.now() if now is None else now
        ends_ms = principal.expires_ms
        if ends_ms is not None and now_seconds * 1000 >= ends_ms + SKEW_SECONDS * 1000:
            return "credential is no longer valid"
        key_id = principal.claims.get(KEY_CLAIM)
        leader_key = principal.claims.get(LEADER_CLAIM)
        if leader_key is not None and self.is_leader_key_revoked(str(leader_key)):
            return _REVOKED
        # An unnamed admin, or an unauthenticated caller: there is nothing that could be revoked.
        if principal.uid is None and key_id is None:
            return None
        with self._account_store.read() as pages:
            if key_id is not None and _is_revoked_key(pages, str(key_id)):
                return _REVOKED
            if principal.uid is None or principal.override is not None:
                return None
            return self._token_reason(pages, principal)

    def _token_reason(self, pages: Pages, principal: Principal) -> str | None:
        uid, claims = str(principal.uid), principal.claims
        token_id = claims.get("jti")
        if isinstance(token_id, str) and pages.is_revoked(token_id):
            return _REVOKED
        if _issued(claims) < pages.cutoff(uid):
            return _REVOKED
        if pages.is_disabled(uid):
            return DISABLED
        # Tokens of other issuers may be for users that this store does not have.
        user, own = pages.user(uid), claims.get("iss") == self._issuer
        if user is None:
            needed = own and self._members_only and not self.users_at_leader
            return "user was deleted" if needed else None
        if user.disabled:
            return DISABLED
        return _REVOKED if own and _issued(claims) < user.valid_since else None

    def revoke_user(self, uid: str) -> None:
        """Revoke all tokens that were issued to `uid` until now, including refresh tokens."""
        self.revoke_many([uid])

    def revoke_many(self, uids: list[str]) -> None:
        """Revoke the tokens of several users in one commit."""
        now = int(self._clock.now())

        def body(pages: Pages) -> None:
            for uid in uids:
                revoke_in(pages, uid, now)

        self._account_store.write(body)
        self.notify(*(Revoked(uid=uid) for uid in uids))

    def revoke_token(self, principal: Principal) -> None:
        """Revoke the token of `principal`; without a `jti`, revoke all tokens of its user."""
        token_id = principal.claims.get("jti")
        if not isinstance(token_id, str):
            if principal.uid is not None:
                self.revoke_user(principal.uid)
            return
        now = int(self._clock.now())
        # Kept a little longer than the token is valid, as clocks may differ.
        until = _EVER if principal.expires_ms is None else principal.expires_ms // 1000 + 120
        self._account_store.write(lambda pages: pages.revoke_token(token_id, until, now))
        self.notify(Revoked(token_id=token_id))

    def notify(self, *revoked: Revoked) -> None:
        """Notify all subscribers of revocations that are already stored."""
        with self._lock:
            self._seen = self._count()
            self.notified += 1
            callbacks = list(self._callbacks.values())
        # Outside the lock: a callback may subscribe or end a subscription.
        for one in revoked:
            for callback in callbacks:
                try:
                    callback(one)
                except Exception:  # noqa: BLE001 - one stream's trouble must not keep others open
                    _log.exception("a subscriber to revocations failed")

    def poll(self) -> bool:
        """Check for revocations of other processes; notifies subscribers with `Revoked()` if any."""
        if self._count() == self._seen:
            return False
        self.notify(Revoked())
        return True

    def _count(self) -> int:
        with self._account_store.read() as pages:
            return pages.revocations


def revoke_in(pages: Pages, uid: str, now: int) -> None:
    """Revoke a user's tokens in a transaction.

    Tokens of the current second are revoked too. A user who signs in again within that second gets
    the next second as `auth_time`.
    """
    pages.end_sessions(uid)
    # Also without a user in this store, because tokens of other issuers have a uid as well.
    pages.put_cutoff(uid, now + 1)
    user = pages.user(uid)
    if user is not None:
        pages.put_user(replace(user, valid_since=now + 1))


def _is_revoked_key(pages: Pages, key_id: str) -> bool:
    key = pages.admin_key(key_id)
    return key is None or key.revoked_ms > 0


def _issued(claims: Mapping[str, Any]) -> float:
    """Return when the user signed in; a token without that time counts as oldest possible."""
    for name in ("auth_time", "iat"):
        value = claims.get(name)
        if isinstance(value, int | float):
            return value
    return 0
