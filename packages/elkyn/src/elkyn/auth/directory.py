"""What the endpoints work with: the users of a server and all that goes with them."""

from __future__ import annotations

from dataclasses import dataclass

from elkyn.auth.audit import Audit
from elkyn.auth.codes import Codes
from elkyn.auth.revocations import Revocations
from elkyn.auth.sessions import Sessions
from elkyn.auth.users import Users
from sennit_core.clock import Clock

__all__ = ["Directory", "Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What people may do by themselves; see `AuthSettings`."""

    emulator: bool = False
    sign_up: bool = True
    anonymous: bool = True
    recent_seconds: int | None = None
    sign_ups_max: int | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """Users, their sessions and codes, who is no longer welcome, and where it is written down."""

    users: Users
    sessions: Sessions
    revocations: Revocations
    codes: Codes
    audit: Audit
    policy: Policy
    clock: Clock
