"""How a server is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from elkyn.server.limits import Limits
from elkyn.server.origins import Origins
from sennit_core.errors import UsageError

__all__ = ["ACK_SECONDS", "KEEP_ALIVE_SECONDS", "Settings", "check_keep_alive"]

ACK_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 25.0
KEEP_ALIVE_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is set up.

    Args:
        default_namespace: for requests without `?ns=`.
        create_namespaces: ask the stores also for namespaces that they do not list.
        keep_alive_seconds: silence on a stream after which a keep-alive is sent; at most 30.
        limits: what clients may ask for.
        origins: which web pages may use the server.
        host: what sockets are told the server's name is.
        dashboard: how one signs in to the dashboard, to which browsers that open a path are sent:
            with the admin's `token`, or as the `owner` of an emulator. None: they are not sent there.
        ack: how many followers must have a write before it is answered.
        ack_seconds: how long to wait for them, or until this server has reached a position.

    Raises:
        UsageError: keep-alives would come too seldom for clients, or without a pause.
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
    """Raise `UsageError` when clients would give a silent stream up, or hear nothing else."""
    if not 0 < seconds <= KEEP_ALIVE_SECONDS_MAX:
        raise UsageError(
            f"a keep-alive cannot come every {seconds:g} s",
            hint=f"more than 0 and at most {KEEP_ALIVE_SECONDS_MAX:g} s: clients wait no longer",
        )
