"""Signs tokens, and verifies those of trusted issuers.

The configuration, never the token, decides which key may verify a token: the token's issuer selects a
configured `Trust`, which lists keys, and each key has one algorithm (RFC 8725). No other part of a
token is used before its signature is verified.
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
    is_legacy,
    principal_of,
)
from elkyn.auth.errors import BadToken
from elkyn.auth.jws import Key, SecretKey, Token, parse_token, sign_token
from elkyn.auth.principal import Principal
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import UsageError

__all__ = ["ID_TOKEN_SECONDS", "TokenSigner", "Trust", "Verifier"]

ID_TOKEN_SECONDS = 3600

FindKeys = Callable[[str | None, str], Sequence[Key]]
"""`find(kid, algorithm)` returns the keys that may have signed."""


class TokenSigner:
    """Signs tokens that `Verifier.of_secret` with the same secret accepts.

    Args:
        secret: shared with the verifier; use 32 random bytes.
        clock: the time source of `iat`.
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
            uid: the user of the token, 1 to 128 characters.
            claims: custom claims; rules see them as `auth.<name>` and `auth.token.<name>`.
            expires_seconds: how long the token is valid; None: it never expires.
            signed_in: the `auth_time` in seconds since 1970, if it is later than now.

        Raises:
            UsageError: the uid is invalid, or a claim has a reserved name.
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
            raise UsageError(f"claims must be JSON values: {error}") from None


@dataclass(frozen=True, slots=True)
class Trust:
    """One trusted signer.

    Args:
        find: returns its keys.
        algorithms: the only algorithms that its tokens may use.
        issuer: the required value of `iss`; None: not checked.
        audience: the accepted values of `aud`; None: not checked.
        provider: the sign-in provider of its users if a token names none.
        uid_prefix: the prefix of its users' ids, so that ids of two issuers never collide.
        expiry_required: whether a token without `exp` is refused.
        roles: whether its claim `roles` makes admins.
        legacy: whether legacy tokens, and their `admin`, are accepted.
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
        """Trust every signer with `secret`: HS256, any issuer, legacy tokens too."""
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
    """Verifies tokens and returns their principals; thread-safe.

    Args:
        trusts: the trusted signers.
        skew_seconds: the tolerated difference between clocks.
        unsigned: accept tokens with algorithm `none` and any times, as an emulator does; never
            over a network.
        clock: the time source when `verify` gets no time.
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

    def verify(self, text: str, now: float | None = None) -> Principal:
        """Verify a token and return its principal.

        Args:
            text: the token.
            now: Unix time in seconds.

        Raises:
            BadToken: no trusted signer signed the token, its audience is another one, or it is expired
                or not yet valid.
        """
        claims, trust = self.verify_claims(text, now)
        if trust is None:
            return replace(principal_of(claims), expires_ms=None)
        return _principal(trust, claims)

    def verify_claims(
        self, text: str, now: float | None = None
    ) -> tuple[dict[str, Any], Trust | None]:
        """Return the claims of a token and its trusted signer, None for an unsigned token.

        Raises:
            BadToken: see `verify`.
        """
        token = parse_token(text)
        if self._is_unsigned(token):
            # Firebase's emulator ignores the times of such tokens, and `@firebase/rules-unit-testing`
            # relies on it: its tokens have `iat: 0, exp: 3600`.
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
        """Return the trusted signer whose key verifies the signature."""
        issuer = token.claims.get("iss")
        # `iss` and `alg` only narrow down what the configuration trusts (RFC 8725, sections 3.1 and
        # 3.8): a token cannot make a public RSA key be used as an HMAC secret, as each key has one
        # algorithm.
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


def _principal(trust: Trust, claims: Mapping[str, Any]) -> Principal:
    if is_legacy(claims):
        if not trust.legacy:
            raise BadToken(fault="claims")
        return replace(principal_of(claims), admin=claims.get("admin") is True)
    principal = principal_of(claims, provider=trust.provider)
    roles = claims.get("roles")
    admin = trust.roles and isinstance(roles, dict) and roles.get("admin") is True
    # With prefixes, ids of two issuers never collide. The roles of a token count only for issuers
    # that may make admins.
    if not trust.uid_prefix and not admin:
        return principal
    return replace(principal, uid=f"{trust.uid_prefix}{principal.uid}", admin=admin)
