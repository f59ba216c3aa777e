"""uvicorn's WebSocket protocol, which reports connections closed by the kernel's send timeout."""

from __future__ import annotations

from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from elkyn.server.slow_clients import SlowClientCloser

__all__ = ["websocket_protocol"]


def websocket_protocol(slow_clients: SlowClientCloser) -> type[WebSocketsSansIOProtocol]:
    """Return a protocol that reports to `slow_clients` how its connections end."""
    return type("WebSocketProtocol", (_WebSocketProtocol,), {"slow_clients": slow_clients})


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    slow_clients: ClassVar[SlowClientCloser]

    def connection_lost(self, exc: Exception | None) -> None:
        self.slow_clients.lost(self, exc)
        super().connection_lost(exc)
