"""uvicorn's WebSocket protocol, whose connections are watched as those for HTTP are."""

from __future__ import annotations

from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from elkyn.server.stalls import SlowClientCloser

__all__ = ["watched_socket"]


def watched_socket(stalls: SlowClientCloser) -> type[WebSocketsSansIOProtocol]:
    """Return the protocol for a server that tells `stalls` how its connections end."""
    return type("WatchedSocket", (_WatchedSocket,), {"stalls": stalls})


class _WatchedSocket(WebSocketsSansIOProtocol):
    stalls: ClassVar[SlowClientCloser]

    def connection_lost(self, exc: Exception | None) -> None:
        self.stalls.lost(self, exc)
        super().connection_lost(exc)
