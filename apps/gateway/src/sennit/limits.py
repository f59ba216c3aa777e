"""How large a request may be: its head before it is parsed, its JSON before it is held in memory.

Uploads stream to disk and the tree bounds itself; every other body is read whole by its route.
"""

from __future__ import annotations

from asyncio import Transport

from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sennit._asgi import App, Message, Receive, Scope, Send
from sennit_core.errors import TooLarge
from sennit_core.units import KIB, MIB

HEAD_BYTES_MAX = 64 * KIB
BODY_BYTES_MAX = 2 * MIB
STREAMED_PATHS = ("/api/upload", "/tus/")  # also /api/upload-chunk and /api/uploads/…
_HEAD_TOO_LARGE = (
    b'{"error":"the request line and headers are over the limit of 64.0 KiB","code":"too-large",'
    b'"hint":"send less in the address and the cookies","details":{}}'
)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools, which by itself collects a head of any length."""

    _head_bytes = 0
    _expects_head = True

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, unless the head grows beyond its bound."""
        if self._expects_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._expects_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Stop counting: what follows is a body."""
        self._expects_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count from here on: what follows is the head of the next request."""
        self._expects_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _refuse_head(self) -> None:
        transport: Transport = self.transport
        if not transport.is_closing():
            transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"content-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(_HEAD_TOO_LARGE), _HEAD_TOO_LARGE)
            )
            transport.close()


class BodyLimit:
    """ASGI middleware: reads a body that is no upload, within its bound, before anybody parses it.

    Strangers, who can only open a session, are given less room.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http" or scope["path"].startswith(STREAMED_PATHS):
            await self._app(scope, receive, send)
            return
        is_known = scope.get("state", {}).get("principal") is not None
        try:
            receive = await _read(scope, receive, BODY_BYTES_MAX if is_known else HEAD_BYTES_MAX)
        except TooLarge as refusal:
            await JSONResponse(refusal.to_json(), status_code=413)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _read(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """Read the body, and return what hands it on in one message and then listens as before."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    message: Message = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            return receive
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def hand_on() -> Message:
        return waiting.pop() if waiting else await receive()

    return hand_on


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(
        what="the request body",
        limit_bytes=limit_bytes,
        hint="data goes through /api/upload, which takes files of any size",
    )
