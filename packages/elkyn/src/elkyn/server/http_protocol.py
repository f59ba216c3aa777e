"""uvicorn's HTTP/1.1 on httptools with bounds: on connections, and size and time of heads.

It also takes answers, and parts of them, as they go over the wire (`asgi.Direct`).
"""

from __future__ import annotations

import weakref
from asyncio import BaseTransport
from typing import Any, TypeAlias, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from elkyn.server.asgi import DIRECT
from elkyn.server.limits import Limits

__all__ = ["bounded_protocol"]

HEAD_BYTES_MAX = 64 * 1024
_PROGRESS_BYTES = 256
_NOTHING = object()

_Awaited: TypeAlias = tuple[object, object]


def bounded_protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """Return the protocol for a server that keeps at most so many connections open, for so long."""
    sweeper = _Sweeper(limits.head_seconds / 2)
    return type("BoundedHttp", (_BoundedHttp,), {"limit": limits.connections, "sweeper": sweeper})


class _Sweeper:
    """Closes connections whose request does not come, or comes by drops; costs a request nothing.

    It looks at each connection twice in the time they have: one that it sees waiting for the end of
    the same head again, or for `_PROGRESS_BYTES` more of the same body, is closed.
    """

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._waiting: weakref.WeakKeyDictionary[_BoundedHttp, _Awaited] = (
            weakref.WeakKeyDictionary()
        )
        self._running = False

    def start(self, of: _BoundedHttp) -> None:
        """Look from now on at the connections of a server, as long as there are any."""
        if not self._running:
            self._running = True
            of.loop.call_later(self._every_seconds, self._sweep, of)

    def _sweep(self, of: _BoundedHttp) -> None:
        before, self._waiting = self._waiting, weakref.WeakKeyDictionary()
        for connection in list(of.connections):
            if not isinstance(connection, _BoundedHttp):
                continue
            awaited = connection.awaited()
            if awaited is None:
                continue
            request, moved = before.get(connection, (None, None))
            if request is awaited[0] and moved is awaited[1]:
                connection.turn_out()
            else:
                self._waiting[connection] = awaited
        self._running = bool(of.connections)
        if self._running:
            of.loop.call_later(self._every_seconds, self._sweep, of)


class _BoundedHttp(HttpToolsProtocol):
    limit = 0
    sweeper = _Sweeper(Limits().head_seconds / 2)
    _head_bytes = 0
    _body_bytes = 0  # of bodies that come in parts, since `_moved` was set
    _moved: object = None
    _expects_head = True
    _refused = False  # what still comes is not read
    _turned_away = False  # the connection was never opened

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limit:
            self._refused = self._turned_away = True
            _refuse(transport, b"429 Too Many Requests", b"too many connections; try again later")
        else:
            super().connection_made(transport)
            self.sweeper.start(self)

    def awaited(self) -> _Awaited | None:
        """Return what stands for the request that is awaited, and how far its body has come.

        None when none is, or may come later.
        """
        if self._refused:
            return None
        if not self._expects_head or self._head_bytes:
            return self.headers, self._moved
        # after a request uvicorn's own timer runs
        return (_NOTHING, _NOTHING) if self.cycle is None else None

    def turn_out(self) -> None:
        """Close the connection: its request takes too long to come."""
        self._refused = True
        _refuse(self.transport, b"408 Request Timeout", b"the request took too long to come")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._turned_away:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._expects_head:
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
            if self._body_bytes >= _PROGRESS_BYTES:
                self._body_bytes, self._moved = 0, object()
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
        cycle.scope["extensions"] = {}  # a circle, which would wait for the garbage collector
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
