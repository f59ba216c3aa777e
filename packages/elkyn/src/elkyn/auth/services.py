"""The services that the endpoints use: users, sessions, codes, audit log."""

from __future__ import annotations

from dataclasses import dataclass

from elkyn.auth.audit import Audit
from elkyn.auth.codes import Codes
from elkyn.auth.revocations import Revocations
from elkyn.auth.sessions import Sessions
from elkyn.auth.users import Users
from sennit_core.clock import Clock

__all__ = ["AuthServices", "Policy"]


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
