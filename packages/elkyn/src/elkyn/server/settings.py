"""How a server is set up."""

from __future__ import annotations

from dataclasses import dataclass, field

from elkyn.server.limits import Limits
from elkyn.server.origins import Origins

__all__ = ["ACK_SECONDS", "KEEP_ALIVE_SECONDS", "Settings"]

ACK_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 25.0


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
        ack: how many followers must have a write before it is answered.
        ack_seconds: how long to wait for them, or until this server has reached a position.
    """

    default_namespace: str = "default"
    create_namespaces: bool = False
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    limits: Limits = field(default_factory=Limits)
    origins: Origins = field(default_factory=Origins)
    host: str | None = None
    ack: int = 0
    ack_seconds: float = ACK_SECONDS
