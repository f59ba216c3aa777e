"""Limits on the size and duration of requests, enforced before a request is parsed.

Uploads stream to disk and the tree has its own limits; routes read all other bodies whole.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from starlette.responses import JSONResponse

from elkyn.server.limits import Limits
from elkyn.server.protocols import bounded_protocols
from sennit._asgi import App, Message, Receive, Scope, Send
from sennit_core.errors import SennitError, TooLarge
from sennit_core.units import KIB

# Opening a session needs only a token, so this is generous.
UNAUTHENTICATED_BYTES_MAX = 64 * KIB
FRAME_BYTES_MAX = 1024 * KIB  # of a message on a WebSocket
STREAMED_PATHS = ("/api/upload", "/tus/")  # also /api/upload-chunk and /api/uploads/…
_STREAMED = re.compile(r"/api/jobs/[^/]+/partials/")  # results of remote workers
CONNECTIONS = Limits(head_seconds=60.0)  # also between two pieces of a body: an upload may pause


def protocols_for(listener: socket.socket, limits: Limits = CONNECTIONS) -> dict[str, Any]:
    """Return uvicorn's options for the protocols of a node at `listener`: Elkyn's protocols.

    Messages of sockets are not compressed: it costs five times the throughput with any browser.
    """
    socket_options = {"ws_max_size": FRAME_BYTES_MAX, "ws_per_message_deflate": False}
    return bounded_protocols(listener, limits, show=_show) | socket_options


def _show(refusal: SennitError) -> bytes:
    return json.dumps(refusal.to_json()).encode("ascii")


class BodyLimit:
    """ASGI middleware: reads the body of a non-upload request, up to a limit, before it is parsed.

    Unauthenticated clients can only open a session, so their limit is lower.

    Args:
        app: Handles the request.
        bytes_max: Largest accepted body.
    """

    def __init__(self, app: App, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        if scope["type"] != "http" or _is_streamed(scope["path"]):
            await self._app(scope, receive, send)
            return
        is_known = scope.get("state", {}).get("principal") is not None
        try:
            limit_bytes = self._bytes_max
            if not is_known:
                limit_bytes = min(limit_bytes, UNAUTHENTICATED_BYTES_MAX)
            receive = await _read(scope, receive, limit_bytes)
        except TooLarge as refusal:
            await JSONResponse(refusal.to_json(), status_code=413)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_streamed(path: str) -> bool:
    return path.startswith(STREAMED_PATHS) or _STREAMED.match(path) is not None


async def _read(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """Read the body; return a `receive` that yields it as one message, then later messages."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    # Refused before a byte of the body is read. Cut to 20 digits, which are enough for 64 bits:
    # parsing a longer text would only cost time.
    if announced.isdigit() and int(announced[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    # The header may be missing (chunked bodies) or wrong, so the bytes are counted as well.
    body = bytearray()
    message: Message = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            return receive
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    # Consumed once; later calls wait for the disconnect, as the application expects.
    waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def hand_on() -> Message:
        return waiting.pop() if waiting else await receive()

    return hand_on


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(
        what="the request body",
        limit_bytes=limit_bytes,
        hint="send files through /api/upload; the limit is the setting security.body_bytes_max",
    )
