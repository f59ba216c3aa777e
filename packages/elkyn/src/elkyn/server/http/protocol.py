"""HTTP/1.1 on httptools with limits: on connections, pipelined requests, heads and waiting times.

A request that was received completely is first offered to `fast_path`, which answers requests that
need no waiting without ASGI: no scope, no task, and an answer that is encoded already. Every other
request becomes a cycle of uvicorn, and the app runs as a task. The base class is uvicorn's protocol
for everything else: opening and closing connections, WebSockets, flow control.

A request's path through this class:

    data_received -> _unparsed -> _parse (16 KiB at once) -> httptools -> _reading
                                                                            |
    received completely, or its piece ended within the body:            _enqueue
                                                                            |
      no other request is being answered  -> _current ----------> fast_path.add, or start_app
      one is                              -> pending, and reading is paused
                                                                            |
    answer / on_response_complete: the next of `pending`, then the rest of `_unparsed`

A long body whose length is known does not pass the parser after the piece that has its head: the parser
would copy it in pieces of 16 KiB, and only count its bytes (`_take_body`). An app can have it read in a
thread, to which this class lends the socket (`body_thread`).

HTTP/1.1 answers pipelined requests in order (RFC 9112, section 9.3.2), so one request at a time is
answered, and a connection holds at most one piece of requests that were parsed but not started.
All methods run in the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import re
from asyncio import BaseTransport
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from elkyn.server.asgi import BODY_READER, DIRECT_SEND
from elkyn.server.http.body_thread import BODY_BYTES_MIN, BodyReader, BodyThreads, Lent, duplicate
from elkyn.server.http.joined import JoinedWrites
from elkyn.server.http.request_cycle import RequestCycle, to_scope
from elkyn.server.http.request_head import Headers, checked_headers
from elkyn.server.http.timeouts import PendingRead, ReadTimeouts
from elkyn.server.http.unchunked import UnchunkedCycle
from elkyn.server.limits import Limits
from elkyn.server.slow_clients import SlowClientCloser
from sennit_core.errors import Busy, DeadlineExceeded, SennitError, TooLarge, UsageError

__all__ = ["HEAD_BYTES_MAX", "RequestHandler", "Show", "bounded_protocol", "show_error"]

# A head announces no length, so its bytes are counted by pieces as they come. Of a piece in which
# another request ended nothing is counted: the parser does not report where it ended.
HEAD_BYTES_MAX = 64 * 1024
_PROGRESS_BYTES = 256  # of a body; a client that sends fewer in time is closed
_LONG_BODY_BYTES = 64 * 1024  # from here on a body does not pass the parser
_PIECE_BYTES = 16 * 1024  # parsed at once, so at most this many bytes of requests are pending
# The progress of an idle connection: it never changes, so that only a new request ends the wait.
_NOTHING = object()
_H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)

Show: TypeAlias = Callable[[SennitError], bytes]
"""Returns the JSON body of an error response."""


class RequestHandler(Protocol):
    """Answers requests without ASGI where it can; `FastPath` is the one of this server."""

    def add(self, request_cycle: RequestCycle) -> None:
        """Answer a request in the next iteration of the loop, or call its `start_app`."""
        ...

    def yield_to_writer(self) -> None:
        """Let the committing thread have the interpreter before more requests are parsed."""
        ...


def show_error(error: SennitError) -> bytes:
    """Return an error as the JSON that Firebase's clients expect."""
    return b'{"error":"%b"}' % str(error).encode()


def bounded_protocol(
    limits: Limits,
    slow_clients: SlowClientCloser | None = None,
    fast_path: RequestHandler | None = None,
    show: Show = show_error,
) -> type[_BoundedHttp]:
    """Return uvicorn's HTTP protocol with the connection limits and timeouts of a server.

    Args:
        limits: `connections`, `head_seconds` and `send_seconds` apply.
        slow_clients: closes connections whose client does not read; by default made from `limits`.
        fast_path: is offered complete requests first. None: the app, with its middleware, answers
            every request through ASGI, and is disconnected when the client closes its sending side.
        show: encodes the error of a request that is refused before it has an ASGI scope.
    """
    members = {
        "limit": limits.connections,
        "fast_path": fast_path,
        "show": staticmethod(show),
        "read_timeouts": ReadTimeouts(limits.head_seconds / 2),
        "slow_clients": slow_clients or SlowClientCloser(limits.send_seconds),
        "body_threads": BodyThreads(),
    }
    return type("BoundedHttp", (_BoundedHttp,), members)


class _BoundedHttp(HttpToolsProtocol):
    limit = 0
    fast_path: RequestHandler | None = None
    show = staticmethod(show_error)
    read_timeouts = ReadTimeouts(Limits().head_seconds / 2)
    slow_clients = SlowClientCloser(Limits().send_seconds)
    # Bytes of the pieces that were parsed since the last request ended, while a head was expected.
    _head_bytes = 0
    _body_bytes = 0  # of a body received since `_progress` was last replaced
    _progress: object = None  # replaced whenever `_PROGRESS_BYTES` of a body were received
    # Of a long body: the bytes that have not come yet; 0 for others. The parser is replaced when a
    # body has ended that it has seen only a part of.
    _body_left = 0
    _body_reader: BodyReader | None = None  # of the last long body
    body_threads = BodyThreads()
    _expects_head = True  # between requests and within a head; False within a body
    address = ""  # IP address of the client
    _refused = False  # an error was sent: further bytes are ignored
    _rejected = False  # refused at the connection limit: the base class never saw it open
    _reading: RequestCycle | None = None  # its head was parsed, its end was not
    _current: RequestCycle | None = None  # the request that is being answered
    _last: RequestCycle | None = None  # the request received last
    # Not empty only while `pending` is not empty; reading is paused meanwhile.
    _unparsed = b""  # received while requests are pending; parsed when they are answered
    # Set only where `eof_received` keeps the connection open; the last request then closes it.
    _ended = False  # the client has closed its sending side

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Requests parsed while `_current` is being answered, in the order of their arrival. While
        # it is not empty, nothing more is parsed, which bounds it to the requests of one piece.
        self.pending: deque[RequestCycle] = deque()

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limit:
            # `super().connection_made` is not called, so `connection_lost` must not call its
            # counterpart either, which uses what that sets.
            self._refused = self._rejected = True
            error = Busy("too many connections; try again later")
            self._refuse(transport, b"429 Too Many Requests", error)
        else:
            super().connection_made(transport)
            self.address = "" if self.client is None else self.client[0]
            self.read_timeouts.start(self.loop, self.connections)
            self.slow_clients.start(self.loop, self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        if self._rejected:
            return
        self.slow_clients.lost(self, exc)
        if self._body_reader is not None:
            self._body_reader.stop()
        # Cycles in `pending` have no task yet. `_current` and `_reading` may be one and the same.
        for request_cycle in (self._current, self._reading):
            if request_cycle is not None:
                request_cycle.drop()
        super().connection_lost(exc)

    def pending_read(self) -> PendingRead | None:
        """Return what the client is to send; None while this server does not read from it."""
        # In these cases the server does not read, so that the client must not time out.
        if self._refused or self.pending or self.flow.read_paused:
            return None
        # The client waits for an answer; no input is expected until it has come.
        if self._expects_head and self._current is not None:
            return None
        if self._is_idle:
            return PendingRead(self._last, _NOTHING, self.timeout_keep_alive)
        # `headers` is a new list for each head (`on_message_begin`), so it identifies the request.
        # Below one interval, so that the second check counts even if its timer fires a little
        # early: the client has between one and two intervals, at most `head_seconds`.
        return PendingRead(self.headers, self._progress, self.read_timeouts.every_seconds * 0.9)

    @property
    def _is_idle(self) -> bool:
        """Whether the connection is kept alive between requests: a next one may or may not come."""
        answered = self._current is None and self._last is not None
        return answered and self._expects_head and not self._head_bytes

    def close_on_timeout(self) -> None:
        """Close the connection: the request was not received in time, or none was sent."""
        self._refused = True
        reading = self._reading
        # No 408 between requests, where it could be read as the answer to a request that is just
        # being sent, nor within an answer that has begun.
        if self._is_idle or (reading is not None and reading.answering):
            self.transport.close()
        else:
            error = DeadlineExceeded("the request", message="the request was not received in time")
            self._refuse(self.transport, b"408 Request Timeout", error)

    def shutdown(self) -> None:
        """Close the connection after the current answer."""
        if self._current is None:
            self.transport.close()
        elif self._last is not None:
            self._last.close_after()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self.fast_path is not None:
            # Before the loop works on: a group of writes that is being made needs the interpreter,
            # and parsing would only keep it waiting (see `Committer.yield_to_writer`).
            self.fast_path.yield_to_writer()
        data = self._unparsed + data if self._unparsed else data
        start = 0
        # Stops at the first pipelined request that must wait; `on_response_complete` goes on from
        # here.
        while start < len(data) and not self.pending:
            if self._refused or self.transport.is_closing():
                self._unparsed = b""
                return
            if self._body_left:
                start += self._take_body(data, start)
            else:
                self._parse(data[start : start + _PIECE_BYTES])
                start += _PIECE_BYTES
        self._unparsed = data[start:]
        if self._unparsed:
            self.flow.pause_reading()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio uses the result
        """Keep the connection open for the answer when the client closes its sending side.

        Not over TLS, not for an event stream, and not without a fast path, where the app may answer
        slowly: in these cases the client is treated as gone, as most clients are that close it.
        """
        if self.fast_path is None:
            return False
        last, current = self._last, self._current
        # asyncio has no half-closed TLS connections: there the result would be ignored.
        if self.scheme != "http" or last is None or current is None or current.streaming:
            return False
        # The last request was cut off: no answer is possible.
        if not last.whole and not self._unparsed:
            return False
        self._ended = True
        self._close_after_last()
        return True

    def _close_after_last(self) -> None:
        if self._ended and not self._unparsed and self._last is not None:
            self._last.close_after()

    def _take_body(self, data: bytes, start: int) -> int:
        """Pass on bytes of a long body without the parser; return their number."""
        piece = data[start : start + self._body_left]  # `data` itself, if that is all of it
        self._note_progress(len(piece))
        self.on_body(piece)
        if not self._body_left:
            self._end_body()
        return len(piece)

    def lend_body(self, request_cycle: RequestCycle) -> Lent | None:
        """Let a thread read the rest of a request's body; None if it may not, or there is none."""
        cycle = request_cycle.asgi_cycle
        if cycle is None or self._reading is not request_cycle or not self._body_left:
            return None
        if cycle.disconnected or cycle.response_complete or self.transport.is_closing():
            return None
        # What was read was passed on before this call returns: neither loop reads ahead.
        self.flow.pause_reading()
        connection = duplicate(self.transport)
        if connection is None:
            return None
        waiting, cycle.body = bytes(cycle.body), cast("Any", b"")
        cycle.message_event.clear()
        return Lent(connection, waiting, self._body_left)

    def take_body_back(self, count: int) -> None:
        """Receive the rest of a body of which a thread has read so many bytes."""
        self._body_left -= count
        self._note_progress(count)
        if count and not self._body_left:
            self._end_body()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _end_body(self) -> None:
        self.parser = _new_parser(self)
        self.on_message_complete()

    def _note_progress(self, count: int) -> None:
        self._body_bytes += count
        # A new object is a new identity: `ReadTimeouts` compares identities and needs no counter.
        if self._body_bytes >= _PROGRESS_BYTES:
            self._body_bytes, self._progress = 0, object()

    def _parse(self, data: bytes) -> None:
        if self._expects_head:
            self._head_bytes += len(data)
            if b"h2c" in data:
                data = _without_h2c(data)
        else:
            self._note_progress(len(data))
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:
            self._upgrade()
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        # The request is not complete after this piece. A task begins now, so that the rules can
        # refuse it before its body is received; `on_body` adds what comes later to the ASGI cycle.
        reading = self._reading
        if reading is not None and reading.asgi_cycle is None and not self.transport.is_closing():
            reading.asgi_cycle = self._cycle_of(reading)
            self._enqueue(reading)
        if self._expects_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refused = True
            hint = "send less in the address and the headers"
            error = TooLarge("the head of the request", HEAD_BYTES_MAX, hint=hint)
            self._refuse(self.transport, b"431 Request Header Fields Too Large", error)

    def _refuse(self, transport: BaseTransport, status: bytes, error: SennitError) -> None:
        if transport.is_closing():
            return
        body = self.show(error)
        # Written directly: there is no ASGI cycle yet that could send it.
        transport.write(  # type: ignore[attr-defined]  # a connection's transport writes
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"retry-after: 1\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
        )
        transport.close()

    def _upgrade(self) -> None:
        if self._refused:
            return
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            self._unsupported_upgrade_warning()

    def _should_upgrade(self) -> bool:
        # RFC 6455, section 4.1: the handshake of a WebSocket is a GET.
        return self.parser.get_method() == b"GET" and bool(super()._should_upgrade())

    def on_message_begin(self) -> None:
        # Unlike the base class, without a scope: most requests are answered without one.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        if self._refused:  # requests after a refused one are not answered
            return
        # From here on silence is measured by the progress of the body.
        self._expects_head = False
        method = self.parser.get_method().decode("ascii")
        version = self.parser.get_http_version()
        try:
            self.headers = checked_headers(self.url, version, self.headers)
        except UsageError as error:
            self._refused = True
            self._refuse(self.transport, b"400 Bad Request", error)
            return
        if self.parser.should_upgrade() and self._should_upgrade():
            # `handle_websocket_upgrade` of the base class reads only these two fields.
            self.scope = cast("Any", {"method": method, "headers": self.headers})
            return
        self._reading = self._last = RequestCycle(
            self,
            method,
            self.url,
            self.headers,
            version=version,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
        )
        if self._reading.keep_alive:
            self._body_left = _long_body_bytes(self.headers)

    def on_body(self, body: bytes) -> None:
        # Also of the bytes in the head's piece, which pass the parser.
        if self._body_left:
            self._body_left -= len(body)
        reading = self._reading
        if reading is None:
            return
        cycle = reading.asgi_cycle
        if cycle is None:
            reading.body += body
        elif not cycle.response_complete:
            _add(cycle, body)
            # Back-pressure of the base class: its `receive` resumes reading once the app has read
            # the body.
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._expects_head, self._head_bytes = True, 0
        reading, self._reading = self._reading, None
        if reading is None:
            return
        reading.whole = True
        if reading.asgi_cycle is None:
            self._enqueue(reading)
        elif not reading.asgi_cycle.response_complete:
            reading.asgi_cycle.more_body = False
            reading.asgi_cycle.message_event.set()

    def _enqueue(self, request_cycle: RequestCycle) -> None:
        if self._current is None:
            self._begin(request_cycle)
        else:
            self.flow.pause_reading()
            self.pending.append(request_cycle)

    def _begin(self, request_cycle: RequestCycle) -> None:
        self._current = request_cycle
        # Not the fast path while writing is paused: it sends without waiting for the client.
        if self.fast_path is None or request_cycle.asgi_cycle is not None or self.flow.write_paused:
            self.start_app(request_cycle)
        else:
            self.fast_path.add(request_cycle)

    def start_app(self, request_cycle: RequestCycle) -> None:
        """Have the ASGI app answer the current request."""
        if self.transport.is_closing():
            return
        if request_cycle.asgi_cycle is None:
            request_cycle.asgi_cycle = self._cycle_of(request_cycle)
        self._start_asgi_task(request_cycle.asgi_cycle, self.app)

    def _cycle_of(self, request_cycle: RequestCycle) -> RequestResponseCycle:
        shared = {
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "state": self.app_state.copy(),
        }
        scope = to_scope(request_cycle, shared)
        kind = UnchunkedCycle if request_cycle.version == "1.0" else RequestResponseCycle
        joined = JoinedWrites(self.transport)

        def complete() -> None:
            joined.flush()  # before anything of the next response
            self.on_response_complete()

        # `_body_left` is that of the request being read, which pipelined ones before it are not.
        is_long = request_cycle is self._reading and self._body_left >= BODY_BYTES_MIN
        if is_long and self.scheme == "http":  # over TLS the socket has other bytes
            lend = functools.partial(self.lend_body, request_cycle)
            self._body_reader = BodyReader(lend, self.take_body_back, self.body_threads)
            scope["extensions"][BODY_READER] = self._body_reader
        cycle = kind(
            scope=cast("Any", scope),
            transport=cast("Any", joined),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            # A client that has sent its whole body does not wait for "100 Continue" (RFC 9110,
            # section 10.1.1).
            expect_100_continue=self.expect_100_continue and not request_cycle.whole,
            keep_alive=request_cycle.keep_alive,
            on_response=complete,
        )
        if self.fast_path is not None:
            scope["extensions"][DIRECT_SEND] = _DirectSend(cycle, self.transport)
        cycle.body += request_cycle.body
        cycle.more_body = not request_cycle.whole
        if request_cycle.whole or request_cycle.body:
            cycle.message_event.set()
        return cycle

    def answer(self, request_cycle: RequestCycle, head: bytes, body: bytes) -> None:
        """Send the answer to the current request, and begin the next one."""
        transport = self.transport
        if not transport.is_closing():
            end = b"\r\n" if request_cycle.keep_alive else b"connection: close\r\n\r\n"
            transport.write(b"".join((head, end, body)))
            if not request_cycle.keep_alive:
                transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._current = None
        if self.transport.is_closing():
            return
        # Resume first and pause again at the end: the next requests decide whether reading must
        # wait.
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pending:
            self._begin(self.pending.popleft())
        if self._unparsed:
            # Parses `_unparsed`, up to the next request that must wait.
            self.data_received(b"")
            self._close_after_last()
        if self.pending:
            self.flow.pause_reading()


class _DirectSend:
    """Does what `RequestResponseCycle.send` does, for heads and chunks that are known valid."""

    __slots__ = ("_cycle", "_flow", "_transport", "_write")

    def __init__(self, cycle: RequestResponseCycle, transport: asyncio.Transport) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._transport = transport
        self._write = cycle.transport.write  # after a head that the cycle has sent

    def whole(self, head: bytes, body: bytes) -> bool:
        cycle = self._cycle
        # Each of these is a case in which `send` waits, or drops the message.
        if cycle.flow.write_paused or cycle.response_started or cycle.disconnected:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.scope[
            "extensions"
        ] = {}  # breaks a reference cycle, so that no garbage collection is needed
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self._transport.write(b"".join((head, end, body)))
        # Wakes an app that waits in `receive` for a disconnect.
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._transport.close()
        cycle.on_response()
        return True

    def chunk(self, data: bytes) -> bool:
        cycle = self._cycle
        if self._flow.write_paused or cycle.disconnected or not cycle.chunked_encoding:
            return False
        self._write(data)
        return True


def _new_parser(protocol: HttpToolsProtocol) -> HttpRequestParser:
    parser = HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the base class does
    return parser


def _long_body_bytes(headers: Headers) -> int:
    """Return the length of a body that needs no parser; 0 if it is short, chunked, or unknown.

    `checked_headers` has refused a repeated Content-Length, the parser one that is no number.
    """
    length = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return 0
        if name == b"content-length":
            length = int(value)
    return length if length >= _LONG_BODY_BYTES else 0


def _add(cycle: RequestResponseCycle, body: bytes) -> None:
    """Append to the body that the app has not read yet, without a copy of a long piece."""
    waiting: bytes | bytearray = cycle.body
    if not waiting and len(body) >= _PIECE_BYTES:
        waiting = body  # the cycle's `receive` passes on `bytes(body)`, which is then no copy
    elif isinstance(waiting, bytearray):
        waiting += body
    else:
        # A bytearray grows in place. Of bytes, each small piece would copy all before it.
        waiting = bytearray(waiting) + body
    cycle.body = cast("Any", waiting)


def _without_h2c(data: bytes) -> bytes:
    """Remove an offer of HTTP/2 (h2c) from a head: httptools would not read the body after it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return b"".join((_H2C.sub(b"", head + end[:2]), end[2:], rest))
