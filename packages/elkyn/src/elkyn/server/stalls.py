"""Connections whose client takes nothing of what waits for it: they are closed.

What the kernel has taken and the client has not is the kernel's to watch (`TCP_USER_TIMEOUT`, RFC
5482, which accepted connections have from their listener); what waits in this process is looked at
some times in the seconds that a client has.
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

_LOOKS = 4
_PROGRESS_BYTES = 1024  # in all its seconds: less is as good as nothing
_KERNEL_MORE = 1.25  # what waits in this process is found here first
_ACKED = struct.Struct("=Q")
_ACKED_AT = 120  # tcpi_bytes_acked in Linux's struct tcp_info
_INFO_BYTES = _ACKED_AT + _ACKED.size

_log = get_logger("elkyn.connections")


class Connection(Protocol):
    """A protocol of asyncio, for HTTP or WebSockets."""

    transport: asyncio.Transport
    client: tuple[str, int] | None


class _Look(NamedTuple):
    """What was seen when the client had taken something last."""

    at: float
    waiting: int
    acked: int


class SlowClientCloser:
    """Closes the connections of a server whose client takes nothing for some seconds.

    Args:
        seconds: how long it may take nothing while something waits for it.
        closed: called for each connection that was closed.
    """

    def __init__(self, seconds: float, closed: Callable[[], None] = lambda: None) -> None:
        self._seconds = seconds
        self._closed = closed
        self._looks: dict[Any, _Look] = {}
        self._running = False

    def start(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        """Look from now on at `connections`, as long as there are any."""
        if not self._running:
            self._running = True
            loop.call_later(self._seconds / _LOOKS, self._look, loop, connections)

    def _look(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        self._running = False
        before, self._looks = self._looks, {}
        now = loop.time()
        for connection in list(connections):
            waiting = connection.transport.get_write_buffer_size()
            if not waiting:
                continue
            look = _Look(now, waiting, _acked(connection.transport))
            last = before.get(connection, look)
            if _moved(last, look):
                last = look
            if now - last.at >= self._seconds:
                self._close(connection, waiting)
            else:
                self._looks[connection] = last
        if connections:
            self.start(loop, connections)

    def _close(self, connection: Connection, waiting: int) -> None:
        self._tell(connection, waiting)
        connection.transport.abort()

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """Note the end of a connection: the kernel may have closed it for the same reason."""
        if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            self._tell(connection, 0)

    def _tell(self, connection: Connection, waiting: int) -> None:
        self._closed()
        client = connection.client or ("", 0)
        line = {"closed": "takes nothing", "client": client[0], "port": client[1]}
        _log.info("%s", json.dumps({**line, "seconds": self._seconds, "waiting_bytes": waiting}))


def watch_listener(listener: socket.socket, seconds: float) -> None:
    """Have the kernel close connections of `listener` whose client acknowledges nothing for so long."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, round(seconds * _KERNEL_MORE * 1000))


def _moved(last: _Look, look: _Look) -> bool:
    """Whether the client has taken something; what waits may have become more all the same."""
    return (
        last.waiting - look.waiting >= min(_PROGRESS_BYTES, last.waiting)
        or look.acked - last.acked >= _PROGRESS_BYTES
    )


def _acked(transport: asyncio.Transport) -> int:
    """Return how many bytes the client's system has acknowledged; 0 where none tells that."""
    connection = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if connection is None or option is None:
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, option, _INFO_BYTES)
    except (OSError, TypeError):
        return 0
    return int(_ACKED.unpack_from(info, _ACKED_AT)[0]) if len(info) == _INFO_BYTES else 0
