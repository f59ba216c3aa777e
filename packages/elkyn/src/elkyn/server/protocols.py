"""uvicorn's protocols for HTTP and WebSockets, bounded and watched: for this server and others."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from elkyn.server.http_protocol import Plain, Show, bounded_protocol, show_error
from elkyn.server.limits import Limits
from elkyn.server.stalls import SlowClientCloser, watch_listener
from elkyn.server.websocket_protocol import watched_socket

__all__ = ["bounded_protocols"]


def bounded_protocols(
    listener: socket.socket,
    limits: Limits,
    plain: Plain | None = None,
    *,
    show: Show = show_error,
    stalled: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the options `http` and `ws` of `uvicorn.Config` for a server at `listener`.

    A client is let go that takes too long to say what it wants, or takes nothing of what waits for it.

    Args:
        listener: is made to watch its connections.
        limits: `connections`, `head_seconds` and `send_seconds` count.
        plain: see `bounded_protocol`.
        show: see `bounded_protocol`.
        stalled: called for each client that took nothing.
    """
    watch_listener(listener, limits.send_seconds)
    stalls = SlowClientCloser(limits.send_seconds, stalled)
    return {
        "http": bounded_protocol(limits, stalls, plain, show),
        "ws": watched_socket(stalls),
    }
