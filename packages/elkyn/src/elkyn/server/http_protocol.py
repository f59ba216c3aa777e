"""uvicorn's HTTP/1.1 on httptools with bounds: on the head of a request, and on connections.

It also takes answers, and parts of them, as they go over the wire (`asgi.Direct`).
"""

from __future__ import annotations

from asyncio import BaseTransport
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from elkyn.server.asgi import DIRECT

__all__ = ["bounded_protocol"]

HEAD_BYTES_MAX = 64 * 1024


def bounded_protocol(connections_max: int) -> type[HttpToolsProtocol]:
    """Return the protocol for a server that keeps at most so many connections open."""
    return type("BoundedHttp", (_BoundedHttp,), {"limit": connections_max})


class _BoundedHttp(HttpToolsProtocol):
    limit = 0
    _head_bytes = 0
    _expects_head = True
    _refused = False  # what still comes is not read
    _turned_away = False  # the connection was never opened

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limit:
            self._refused = self._turned_away = True
            _refuse(transport, b"429 Too Many Requests", b"too many connections; try again later")
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._turned_away:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._expects_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._expects_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refused = True
            _refuse(self.transport, b"431 Request Header Fields Too Large", b"the head is too long")

    def on_headers_complete(self) -> None:
        self._expects_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._expects_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = cast("Any", {DIRECT: _Direct(cycle)})
        super()._start_asgi_task(cycle, app)


class _Direct:
    """Does what `RequestResponseCycle.send` does, for heads and chunks that are good."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def whole(self, head: bytes, body: bytes) -> bool:
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.response_started or cycle.disconnected:
            return False
        cycle.response_started = cycle.response_complete = True
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        cycle.transport.write(b"".join((head, end, body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def chunk(self, data: bytes) -> bool:
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or not cycle.chunked_encoding:
            return False
        cycle.transport.write(data)
        return True


def _refuse(transport: BaseTransport, status: bytes, text: bytes) -> None:
    if transport.is_closing():
        return
    body = b'{"error":"%b"}' % text
    transport.write(  # type: ignore[attr-defined]  # a connection's transport writes
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
    )
    transport.close()
