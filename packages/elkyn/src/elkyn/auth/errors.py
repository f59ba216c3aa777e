"""Errors about tokens and accounts, with Firebase's texts where clients parse them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sennit_core.errors import Unauthenticated, UsageError

__all__ = ["AccountError", "BadToken", "Fault"]

Fault: TypeAlias = Literal[
    "malformed",
    "algorithm",
    "signature",
    "issuer",
    "audience",
    "claims",
    "early",
    "expired",
    "revoked",
]

_TEXTS: dict[Fault, str] = {
    "malformed": "Could not parse auth token.",
    "algorithm": "Could not parse auth token.",
    "signature": "Invalid token: signature is not valid.",
    "issuer": "Invalid claim 'iss' in auth token.",
    "audience": "Invalid claim 'aud' in auth token.",
    "claims": "Missing or invalid claims in auth token.",
    "early": "Auth token is not valid yet.",
    "expired": "Auth token is expired",
    "revoked": "Auth token has been revoked.",
}


@dataclass(eq=False)
class BadToken(Unauthenticated):
    """An invalid token; `fault` is the reason. The error never contains the token."""

    code = "bad-token"
    action: str = "using an auth token"
    fault: Fault = field(default="malformed", kw_only=True)

    def describe(self) -> str:
        """Return Firebase's text for the fault."""
        return _TEXTS[self.fault]

    @property
    def wire_status(self) -> str:
        """The status of the refusal of `auth` in the WebSocket protocol."""
        return "expired_token" if self.fault in ("expired", "revoked") else "invalid_token"


@dataclass(eq=False)
class AccountError(UsageError):
    """A refusal of the Identity Toolkit: `reason` is its code, `detail` a readable sentence."""

    code = "account"
    message: str = field(default="", kw_only=True)
    reason: str
    detail: str = ""
    status: int = field(default=400, kw_only=True)

    def describe(self) -> str:
        """Return code and sentence in the format that SDKs parse."""
        return f"{self.reason} : {self.detail}" if self.detail else self.reason
