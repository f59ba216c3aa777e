"""uvicorn's protocols for HTTP and WebSockets with limits and timeouts, for this server and others."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from elkyn.server.http.protocol import RequestHandler, Show, bounded_protocol, show_error
from elkyn.server.limits import Limits
from elkyn.server.realtime.websocket_protocol import websocket_protocol
from elkyn.server.slow_clients import SlowClientCloser, watch_listener

__all__ = ["bounded_protocols"]


def bounded_protocols(
    listener: socket.socket,
    limits: Limits,
    fast_path: RequestHandler | None = None,
    *,
    show: Show = show_error,
    on_slow_client: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the options `http` and `ws` of `uvicorn.Config` for a server at `listener`.

    Connections are closed whose client does not send its request, or does not read, in time.

    Args:
        listener: its accepted connections get the kernel's send timeout.
        limits: `connections`, `head_seconds` and `send_seconds` apply.
        fast_path: see `bounded_protocol`.
        show: see `bounded_protocol`.
        on_slow_client: called for each connection that is closed because its client does not read.
    """
    watch_listener(listener, limits.send_seconds)
    slow_clients = SlowClientCloser(limits.send_seconds, on_slow_client)
    return {
        "http": bounded_protocol(limits, slow_clients, fast_path, show),
        "ws": websocket_protocol(slow_clients),
    }
