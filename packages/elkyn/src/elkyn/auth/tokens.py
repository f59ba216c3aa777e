"""Signing tokens, and verifying those of the issuers one trusts.

Which key may verify a token is decided by who is trusted, never by the token: its issuer selects the
`Trust`, that one lists keys, and a key has one algorithm (RFC 8725). Nothing of a token is used
before its signature holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elkyn.auth.claims import (
    SKEW_SECONDS,
    check_audience,
    check_custom,
    check_times,
    check_uid,
    identity_of,
    is_legacy,
)
from elkyn.auth.errors import BadToken
from elkyn.auth.jws import Key, SecretKey, Token, parse_token, sign_token
from elkyn.identity import Identity
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import UsageError

__all__ = ["ID_TOKEN_SECONDS", "TokenSigner", "Trust", "Verifier"]

ID_TOKEN_SECONDS = 3600

FindKeys = Callable[[str | None, str], Sequence[Key]]
"""`find(kid, algorithm)` returns the keys that may have signed."""


class TokenSigner:
    """Signs tokens that `Verifier.of_secret` with the same secret takes.

    Args:
        secret: shared with whoever verifies; 32 random bytes are right.
        clock: gives the time of issue.
    """

    def __init__(self, secret: str | bytes, clock: Clock = SYSTEM) -> None:
        if not secret:
            raise UsageError("an empty secret signs nothing")
        self._key = SecretKey(secret)
        self._clock = clock

    def sign(
        self,
        uid: str,
        claims: Mapping[str, Any] | None = None,
        expires_seconds: float | None = ID_TOKEN_SECONDS,
        signed_in: int = 0,
    ) -> str:
        """Return a token for `uid`.

        Args:
            uid: who shows the token, 1 to 128 characters.
            claims: what else rules see of them, as `auth.<name>` and `auth.token.<name>`.
            expires_seconds: how long the token is good; None for ever.
            signed_in: its `auth_time` in seconds since 1970, where that is later than now.

        Raises:
            UsageError: the uid cannot be one, or a claim has a reserved name.
        """
        own = dict(claims or {})
        check_custom(own)
        now = int(self._clock.now())
        times = {} if expires_seconds is None else {"exp": int(now + expires_seconds)}
        if signed_in > now:
            times["auth_time"] = signed_in
        registered = {"sub": check_uid(uid), "iat": now, "jti": secrets.token_urlsafe(12), **times}
        try:
            return sign_token({**own, **registered}, self._key)
        except (TypeError, ValueError) as error:
            raise UsageError(f"claims are JSON values: {error}") from None


@dataclass(frozen=True, slots=True)
class Trust:
    """One signer that is believed.

    Args:
        find: gives its keys.
        algorithms: the only ones its tokens may use.
        issuer: what `iss` must say; None when its tokens need none.
        audience: what `aud` must name one of; None when its tokens need none.
        provider: how its users signed in, when a token does not say.
        uid_prefix: put before its users' ids, so that those of two issuers never meet.
        expiry_required: whether a token without `exp` is refused.
        roles: whether its claim `roles` makes admins.
        legacy: whether legacy tokens are taken, and their `admin` is believed.
    """

    find: FindKeys
    algorithms: frozenset[str]
    issuer: str | None = None
    audience: frozenset[str] | None = None
    provider: str = "custom"
    uid_prefix: str = ""
    expiry_required: bool = True
    roles: bool = False
    legacy: bool = False

    @classmethod
    def of_secret(cls, secret: str | bytes) -> Trust:
        """Trust whoever has `secret`: HS256, no issuer asked for, legacy tokens too."""
        if not secret:
            raise UsageError("an empty secret verifies nothing")
        key = SecretKey(secret)
        return cls(
            find=lambda _kid, _algorithm: (key,),
            algorithms=frozenset({"HS256"}),
            expiry_required=False,
            legacy=True,
        )


class Verifier:
    """Turns tokens into identities; safe for threads.

    Args:
        trusts: who is believed.
        skew_seconds: how far clocks may differ.
        unsigned: take tokens with algorithm `none`, whatever times they name, as an emulator does;
            never over a network.
        clock: gives the time when `verify` is not told.
    """

    def __init__(
        self,
        trusts: Sequence[Trust],
        *,
        skew_seconds: float = SKEW_SECONDS,
        unsigned: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self._trusts = tuple(trusts)
        self._skew_seconds = skew_seconds
        self._unsigned = unsigned
        self._clock = clock

    @classmethod
    def of_secret(cls, secret: str | bytes, clock: Clock = SYSTEM) -> Verifier:
        """Return a verifier for tokens of `TokenSigner(secret)`."""
        return cls([Trust.of_secret(secret)], clock=clock)

    def verify(self, text: str, now: float | None = None) -> Identity:
        """Return who shows the token.

        Args:
            text: the token.
            now: Unix time in seconds.

        Raises:
            BadToken: it is not signed by anybody trusted, not for here, not yet or no longer good.
        """
        claims, trust = self.verify_claims(text, now)
        if trust is None:
            return replace(identity_of(claims), expires_ms=None)
        return _identity(trust, claims)

    def verify_claims(
        self, text: str, now: float | None = None
    ) -> tuple[dict[str, Any], Trust | None]:
        """Return the claims of a token and who is believed about them, None for an unsigned one.

        Raises:
            BadToken: see `verify`.
        """
        token = parse_token(text)
        if self._is_unsigned(token):
            # Firebase's emulator reads no times of such tokens, and `@firebase/rules-unit-testing`
            # relies on it: its tokens say `iat: 0, exp: 3600`.
            return token.claims, None
        trust = self._signed_by(token)
        check_times(token.claims, self._clock.now() if now is None else now, self._skew_seconds)
        if trust.audience is not None:
            check_audience(token.claims, trust.audience)
        if trust.expiry_required and token.claims.get("exp") is None:
            raise BadToken(fault="claims")
        return token.claims, trust

    def _is_unsigned(self, token: Token) -> bool:
        if token.algorithm != "none":
            return False
        if not self._unsigned or token.signature:
            raise BadToken(fault="algorithm")
        return True

    def _signed_by(self, token: Token) -> Trust:
        """Return the trust one of whose keys made the signature."""
        issuer = token.claims.get("iss")
        candidates = [trust for trust in self._trusts if trust.issuer in (None, issuer)]
        if not candidates:
            raise BadToken(fault="issuer")
        candidates = [trust for trust in candidates if token.algorithm in trust.algorithms]
        if not candidates:
            raise BadToken(fault="algorithm")
        for trust in candidates:
            for key in trust.find(token.key_id, token.algorithm):
                if key.algorithm == token.algorithm and key.verify(token.signed, token.signature):
                    return trust
        raise BadToken(fault="signature")


def _identity(trust: Trust, claims: Mapping[str, Any]) -> Identity:
    if is_legacy(claims):
        if not trust.legacy:
            raise BadToken(fault="claims")
        return replace(identity_of(claims), admin=claims.get("admin") is True)
    identity = identity_of(claims, provider=trust.provider)
    roles = claims.get("roles")
    admin = trust.roles and isinstance(roles, dict) and roles.get("admin") is True
    if not trust.uid_prefix and not admin:
        return identity
    return replace(identity, uid=f"{trust.uid_prefix}{identity.uid}", admin=admin)
