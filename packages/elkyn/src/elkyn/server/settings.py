"""Settings of the ASGI app."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from elkyn.server.cors import Origins
from elkyn.server.limits import Limits
from sennit_core.errors import UsageError

__all__ = ["ACK_SECONDS", "KEEP_ALIVE_SECONDS", "Settings", "check_keep_alive"]

ACK_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 25.0
KEEP_ALIVE_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the ASGI app.

    Args:
        default_namespace: for requests without `?ns=`.
        create_namespaces: look up in the stores also namespaces that they do not list.
        keep_alive_seconds: silence on a stream after which a keep-alive is sent; at most 30.
        limits: limits on what clients may use.
        origins: which web pages may use the server.
        host: the server name that is sent to sockets; None: the Host header of the request.
        dashboard: how users sign in to the dashboard: with the admin's `token`, or as the `owner` of
            an emulator. Browsers that open a path of the tree are redirected there. None: no redirect.
        ack: how many followers must acknowledge a write before it is answered.
        ack_seconds: how long to wait for acknowledgements, or until this server reaches a position.

    Raises:
        UsageError: `keep_alive_seconds` is out of range.
    """

    default_namespace: str = "default"
    create_namespaces: bool = False
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    limits: Limits = field(default_factory=Limits)
    origins: Origins = field(default_factory=Origins)
    host: str | None = None
    dashboard: Literal["token", "owner"] | None = None
    ack: int = 0
    ack_seconds: float = ACK_SECONDS

    def __post_init__(self) -> None:
        check_keep_alive(self.keep_alive_seconds)


def check_keep_alive(seconds: float) -> None:
    """Raise `UsageError` for an interval that is not positive, or longer than clients wait."""
    if not 0 < seconds <= KEEP_ALIVE_SECONDS_MAX:
        raise UsageError(
            f"the keep-alive interval cannot be {seconds:g} s",
            hint=f"use more than 0 and at most {KEEP_ALIVE_SECONDS_MAX:g} s: clients wait no longer",
        )
