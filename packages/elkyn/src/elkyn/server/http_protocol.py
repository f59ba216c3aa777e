"""uvicorn's HTTP/1.1 on httptools with bounds: on connections, requests in line, and heads.

It also takes answers, and parts of them, as they go over the wire (`asgi.Direct`).
"""

from __future__ import annotations

import re
import weakref
from asyncio import BaseTransport
from typing import Any, TypeAlias, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from elkyn.server.asgi import DIRECT
from elkyn.server.limits import Limits
from elkyn.server.stalls import Stalls

__all__ = ["bounded_protocol"]

HEAD_BYTES_MAX = 64 * 1024
_PROGRESS_BYTES = 256
_PIECE_BYTES = 16 * 1024  # read together: so many bytes of requests may wait in line, parsed
_NOTHING = object()
_H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)

_Awaited: TypeAlias = tuple[object, object]


def bounded_protocol(limits: Limits, stalls: Stalls | None = None) -> type[HttpToolsProtocol]:
    """Return the protocol for a server that keeps at most so many connections open, for so long.

    Args:
        limits: of the server.
        stalls: closes connections whose client takes nothing; made of `limits` when there is none.
    """
    members = {
        "limit": limits.connections,
        "sweeper": _Sweeper(limits.head_seconds / 2),
        "stalls": stalls or Stalls(limits.send_seconds),
    }
    return type("BoundedHttp", (_BoundedHttp,), members)


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
    stalls = Stalls(Limits().send_seconds)
    _head_bytes = 0
    _body_bytes = 0  # of bodies that come in parts, since `_moved` was set
    _moved: object = None
    _expects_head = True
    _refused = False  # what still comes is not read
    _turned_away = False  # the connection was never opened
    _answered: RequestResponseCycle | None = None  # others wait in `pipeline`
    _unparsed = b""  # has come, while requests wait in line
    _ended = False  # no more will come

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limit:
            self._refused = self._turned_away = True
            _refuse(transport, b"429 Too Many Requests", b"too many connections; try again later")
        else:
            super().connection_made(transport)
            self.sweeper.start(self)
            self.stalls.start(self.loop, self.connections)

    def awaited(self) -> _Awaited | None:
        """Return what stands for the request that is awaited, and how far its body has come.

        None when none is, or may come later: also while it is this server that reads no further.
        """
        if self._refused or self.pipeline or self.flow.read_paused:
            return None
        if not self._expects_head:
            return self.headers, self._moved
        if self._head_bytes:
            answering = self.cycle is not None and not self.cycle.response_complete
            return None if answering else (self.headers, self._moved)
        # after a request uvicorn's own timer runs
        return (_NOTHING, _NOTHING) if self.cycle is None else None

    def turn_out(self) -> None:
        """Close the connection: its request takes too long to come."""
        self._refused = True
        if self.cycle is not None and self.cycle.response_started and not self._expects_head:
            self.transport.close()  # the answer came before the whole request
            return
        _refuse(self.transport, b"408 Request Timeout", b"the request took too long to come")

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        if self._turned_away:
            return
        self.stalls.lost(self, exc)
        answered = self._answered
        if answered is not None and not answered.response_complete:
            answered.disconnected = True  # uvicorn tells the last of those in line alone
            answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        data = self._unparsed + data if self._unparsed else data
        start = 0
        while start < len(data) and not self.pipeline:
            if self._refused or self.transport.is_closing():
                self._unparsed = b""
                return
            self._parse(data[start : start + _PIECE_BYTES])
            start += _PIECE_BYTES
        self._unparsed = data[start:]
        if self._unparsed:
            self.flow.pause_reading()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio looks at the answer
        """Stay open for the answer to a client that has said all it has to say."""
        last, now = self.cycle, self._answered
        if self.scheme != "http" or last is None or now is None:
            return False
        if last.more_body and not self._unparsed:
            return False
        streaming = now.response_started and not now.response_complete and now.chunked_encoding
        if last.response_complete or streaming:
            return False
        self._ended = True
        self._close_after_last()
        return True

    def _close_after_last(self) -> None:
        if self._ended and not self._unparsed:
            self.cycle.keep_alive = False

    def _parse(self, data: bytes) -> None:
        if self._expects_head:
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
            if self._body_bytes >= _PROGRESS_BYTES:
                self._body_bytes, self._moved = 0, object()
        if self._expects_head and b"h2c" in data:
            data = _without_h2c(data)
        super().data_received(data)
        if self._expects_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refused = True
            _refuse(self.transport, b"431 Request Header Fields Too Large", b"the head is too long")

    def _should_upgrade(self) -> bool:
        return bool(self.scope["method"] == "GET" and super()._should_upgrade())

    def on_headers_complete(self) -> None:
        self._expects_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._expects_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._unparsed:
            self.data_received(b"")
            self._close_after_last()
        if self.pipeline:
            self.flow.pause_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
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


def _without_h2c(data: bytes) -> bytes:
    """Leave an offer of HTTP/2 out of a head: httptools would not read the body that comes with it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return b"".join((_H2C.sub(b"", head + end[:2]), end[2:], rest))


def _refuse(transport: BaseTransport, status: bytes, text: bytes) -> None:
    if transport.is_closing():
        return
    body = b'{"error":"%b"}' % text
    transport.write(  # type: ignore[attr-defined]  # a connection's transport writes
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
    )
    transport.close()
