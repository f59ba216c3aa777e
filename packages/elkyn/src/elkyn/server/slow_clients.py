"""Close connections whose client does not read: slow or stalled readers.

Unacknowledged bytes in the kernel's send buffer are watched by the kernel (`TCP_USER_TIMEOUT`, RFC
5482; accepted connections inherit the option from their listener). Bytes in this process's write
buffers are checked several times within the timeout.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

from sennit_core.logs import get_logger

__all__ = ["Connection", "SlowClientCloser", "watch_listener"]

_CHECKS = 4  # per timeout: a connection is closed at most a quarter of the timeout too late
_PROGRESS_BYTES = 1024  # within the timeout; a client that reads less counts as stalled
_KERNEL_FACTOR = 1.25  # the kernel's timeout is longer, so that this process closes and logs first
_ACKED = struct.Struct("=Q")
_ACKED_AT = 120  # tcpi_bytes_acked in Linux's struct tcp_info
_INFO_BYTES = _ACKED_AT + _ACKED.size

_log = get_logger("elkyn.connections")


class Connection(Protocol):
    """An asyncio protocol, for HTTP or WebSockets."""

    transport: asyncio.Transport
    client: tuple[str, int] | None


class _Progress(NamedTuple):
    """The state of a connection when its client last made progress."""

    at: float  # the event loop's time
    waiting: int  # bytes in the transport's write buffer
    acked: int  # bytes that the client's kernel has acknowledged


class SlowClientCloser:
    """Closes connections whose client reads nothing for a number of seconds while data wait.

    Args:
        seconds: how long a client may read nothing while data wait to be sent.
        closed: called for each connection that is closed.
    """

    def __init__(self, seconds: float, closed: Callable[[], None] = lambda: None) -> None:
        self._seconds = seconds
        self._closed = closed
        # Rebuilt by each check, so that it never holds a connection that is closed.
        self._last: dict[Any, _Progress] = {}  # connections with data that wait
        # True iff a check is scheduled: one timer for all connections, none while there are none.
        self._running = False

    def start(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        """Check `connections` periodically until the collection is empty."""
        if not self._running:
            self._running = True
            loop.call_later(self._seconds / _CHECKS, self._check, loop, connections)

    def _check(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        self._running = False
        before, self._last = self._last, {}
        now = loop.time()
        for connection in list(connections):
            # Nothing in this process's buffer: what may be in the kernel's is the kernel's timeout
            # to watch.
            waiting = connection.transport.get_write_buffer_size()
            if not waiting:
                continue
            current = _Progress(now, waiting, _acked(connection.transport))
            last = before.get(connection, current)
            if _has_progressed(last, current):
                last = current
            if now - last.at >= self._seconds:
                self._close(connection, waiting)
            else:
                self._last[connection] = last
        if connections:
            self.start(loop, connections)

    def _close(self, connection: Connection, waiting: int) -> None:
        self._report(connection, waiting)
        # Not `close`, which would wait until the client has read the buffer.
        connection.transport.abort()

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """Report a connection that the kernel has closed because its client read nothing."""
        if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            self._report(connection, 0)

    def _report(self, connection: Connection, waiting: int) -> None:
        self._closed()
        client = connection.client or ("", 0)
        line = {"closed": "slow client", "client": client[0], "port": client[1]}
        _log.info("%s", json.dumps({**line, "seconds": self._seconds, "waiting_bytes": waiting}))


def watch_listener(listener: socket.socket, seconds: float) -> None:
    """Have the kernel close connections of `listener` whose client acknowledges no data in time."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, round(seconds * _KERNEL_FACTOR * 1000))


def _has_progressed(last: _Progress, current: _Progress) -> bool:
    """Whether the client has read data; the write buffer may have grown all the same."""
    # A client that reads slowly while the server goes on writing has a growing buffer, so the bytes
    # that its kernel has acknowledged count as well. `TCP_INFO` is Linux's: elsewhere only the
    # buffer counts.
    return (
        last.waiting - current.waiting >= min(_PROGRESS_BYTES, last.waiting)
        or current.acked - last.acked >= _PROGRESS_BYTES
    )


def _acked(transport: asyncio.Transport) -> int:
    """Return how many bytes the client's kernel has acknowledged; 0 without `TCP_INFO`."""
    connection = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if connection is None or option is None:
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, option, _INFO_BYTES)
    except (OSError, TypeError):
        return 0
    return int(_ACKED.unpack_from(info, _ACKED_AT)[0]) if len(info) == _INFO_BYTES else 0
