"""Who a client is: the `auth` variable of rules, and whether rules apply at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ADMIN", "UNAUTHENTICATED", "Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, as its credential proves.

    Args:
        uid: the user's id; None for an unauthenticated client.
        provider: how the user signed in: `anonymous`, `password`, `custom`, or an issuer.
        claims: all claims of the token, including the user's custom claims.
        custom: the names of the custom claims in `claims`: rules see them as `auth.<name>` too.
        admin: rules do not apply.
        expires_ms: the token's expiry, in milliseconds since 1970; None for never.
        override: the exact value of `auth` in rules, regardless of the other fields: an admin's
            `auth_variable_override`, or a legacy token without a uid.
    """

    uid: str | None = None
    provider: str = "custom"
    claims: Mapping[str, Any] = field(default_factory=dict)
    custom: tuple[str, ...] = ()
    admin: bool = False
    expires_ms: int | None = None
    override: Mapping[str, Any] | None = None

    def as_auth(self) -> dict[str, Any] | None:
        """Return the variable `auth` of rules; None for an unauthenticated client."""
        if self.override is not None:
            return dict(self.override)
        if self.uid is None:
            return None
        own = {name: self.claims[name] for name in self.custom if name in self.claims}
        return {**own, "uid": self.uid, "provider": self.provider, "token": dict(self.claims)}


ADMIN = Principal(admin=True)
UNAUTHENTICATED = Principal()
