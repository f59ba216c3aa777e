"""Validation of a token's claims, and their conversion to a principal.

Three kinds of claims are supported: plain ones (`sub` or `uid`, and any further claims of the signer),
those of a Firebase ID token (`firebase.sign_in_provider`), and those of a legacy token (`v` is 0, `d`
is the value of `auth` in rules).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from elkyn.auth.errors import BadToken
from elkyn.auth.principal import Principal
from sennit_core.errors import UsageError

__all__ = [
    "CLAIMS_BYTES_MAX",
    "RESERVED",
    "SKEW_SECONDS",
    "UID_MAX",
    "check_audience",
    "check_custom",
    "check_times",
    "check_uid",
    "is_legacy",
    "principal_of",
]

UID_MAX = 128
# A uid is a key of the account store, which has at most 500 bytes (`KEY_BYTES_MAX`).
_UID_BYTES_MAX = 480
CLAIMS_BYTES_MAX = 8 * 1024
# Tolerated difference between the clocks of issuer and server.
SKEW_SECONDS = 60
# Legacy tokens of Firebase without `exp` are valid for a day.
_LEGACY_SECONDS = 24 * 3600

_REGISTERED = frozenset(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "auth_time"])
_PROTOCOL = _REGISTERED | {"uid", "user_id", "firebase", "provider", "provider_id"}
_PROFILE = frozenset(["email", "email_verified", "phone_number", "name", "picture", "roles"])

RESERVED = _PROTOCOL | {"acr", "amr", "at_hash", "azp", "c_hash", "cnf", "nonce"}
"""Names that custom claims must not use."""


def check_times(claims: Mapping[str, Any], now: float, skew_seconds: float = SKEW_SECONDS) -> None:
    """Check `exp`, `nbf`, `iat` and `auth_time`, where present.

    Raises:
        BadToken: the token is expired, not yet valid, or has an invalid time.
    """
    expires = _expiry(claims)
    if expires is not None and now >= expires + skew_seconds:
        raise BadToken(fault="expired")
    for name in ("nbf", "iat", "auth_time"):
        begins = _seconds(claims, name)
        if begins is not None and now < begins - skew_seconds:
            raise BadToken(fault="early")


def check_audience(claims: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Check that `aud` names one of `allowed`.

    Raises:
        BadToken: it does not name one.
    """
    found = claims.get("aud")
    audiences = found if isinstance(found, list) else [found]
    if not any(isinstance(audience, str) and audience in allowed for audience in audiences):
        raise BadToken(fault="audience")


def check_uid(uid: object) -> str:
    """Return `uid` if it is valid: 1 to 128 printable characters, up to 480 bytes in UTF-8.

    Raises:
        UsageError: it is not valid.
    """
    fits = isinstance(uid, str) and 0 < len(uid) <= UID_MAX and uid.isprintable()
    if not fits or len(str(uid).encode(errors="replace")) > _UID_BYTES_MAX:
        raise UsageError(f"a uid must be a text of 1 to {UID_MAX} printable characters")
    return str(uid)


def check_custom(claims: Mapping[str, Any]) -> None:
    """Check the names of custom claims.

    Raises:
        UsageError: one of the names is `RESERVED`.
    """
    reserved = sorted(RESERVED & claims.keys())
    if reserved:
        raise UsageError(
            f"the claim {reserved[0]!r} is reserved", hint="choose another name for it"
        )


def is_legacy(claims: Mapping[str, Any]) -> bool:
    """Whether these are the claims of a legacy token of Firebase."""
    version = claims.get("v")
    # `False == 0` in Python: a boolean is no version.
    return version == 0 and not isinstance(version, bool) and isinstance(claims.get("d"), dict)


def principal_of(claims: Mapping[str, Any], *, provider: str = "custom") -> Principal:
    """Return the principal of verified claims; no role or claim makes it an admin.

    Args:
        claims: the claims of a token whose signature and times were checked.
        provider: the sign-in provider if the claims name none.

    Raises:
        BadToken: the claims name no user.
    """
    if is_legacy(claims):
        return _legacy_principal(claims)
    firebase = claims.get("firebase")
    named = firebase.get("sign_in_provider") if isinstance(firebase, dict) else None
    for other in (claims.get("provider_id"), claims.get("provider"), provider):
        named = named if isinstance(named, str) else other
    uid = next((claims[name] for name in ("sub", "user_id", "uid") if name in claims), None)
    hidden = _PROTOCOL | _PROFILE if isinstance(firebase, dict) else _PROTOCOL
    return Principal(
        uid=_valid_uid(uid),
        provider=str(named),
        claims=claims,
        custom=tuple(name for name in claims if name not in hidden),
        expires_ms=_milliseconds(_expiry(claims)),
    )


def _legacy_principal(claims: Mapping[str, Any]) -> Principal:
    data: dict[str, Any] = claims["d"]
    uid = data.get("uid")
    principal = Principal(
        uid=None if uid is None else _valid_uid(uid),
        claims=data,
        custom=tuple(name for name in data if name not in _PROTOCOL),
        expires_ms=_milliseconds(_expiry(claims)),
    )
    # Without a uid the token's data are `auth` as they are.
    return principal if uid is not None else replace(principal, override=data)


def _valid_uid(uid: object) -> str:
    try:
        return check_uid(uid)
    except UsageError:
        raise BadToken(fault="claims") from None


def _expiry(claims: Mapping[str, Any]) -> float | None:
    expires = _seconds(claims, "exp")
    if expires is None and is_legacy(claims):
        return (_seconds(claims, "iat") or 0) + _LEGACY_SECONDS
    return expires


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken(fault="claims")
    if abs(value) > 1e13 or not math.isfinite(value):
        raise BadToken(fault="claims")
    return float(value)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
