"""What the endpoints use: users, sessions, codes, audit log, and the keys of the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from elkyn.auth.audit import Audit
from elkyn.auth.codes import Codes
from elkyn.auth.keys import AdminKeys, SigningKeys
from elkyn.auth.principal import Principal
from elkyn.auth.revocations import Revocations
from elkyn.auth.sessions import Sessions
from elkyn.auth.settings import AuthSettings
from elkyn.auth.users import Users
from sennit_core.clock import Clock

__all__ = ["AuthServer", "AuthServices", "Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What users may do without an administrator; see `AuthSettings`."""

    emulator: bool = False
    sign_up: bool = True
    anonymous: bool = True
    recent_seconds: int | None = None
    sign_ups_max: int | None = None


@dataclass(frozen=True, slots=True)
class AuthServices:
    """Users, their sessions, revocations and codes, and the audit log."""

    users: Users
    sessions: Sessions
    revocations: Revocations
    codes: Codes
    audit: Audit
    policy: Policy
    clock: Clock


class AuthServer(Protocol):
    """The part of `Authenticator` that the endpoints use: they need not import what calls them."""

    settings: AuthSettings
    signing: SigningKeys
    admin_keys: AdminKeys
    revocations: Revocations
    audit: Audit

    def sign(self, uid: str, claims: Mapping[str, Any], expires_seconds: float | None) -> str:
        """Return a token for `uid`."""
        ...

    def authenticate_sync(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: Mapping[str, str],
        client: str | None = None,
    ) -> Principal:
        """Return the principal of a request."""
        ...

    def authenticate_token_sync(self, credential: str, client: str | None = None) -> Principal:
        """Return the principal of a credential."""
        ...
