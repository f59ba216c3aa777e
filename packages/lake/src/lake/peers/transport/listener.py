"""A listening socket that bounds what connections may cost that have proved no identity yet.

Each TLS connection has a quarter of a MiB of buffers in asyncio, from its first byte, and the files of the
whole process are limited. So connections are counted when they are accepted, all together and by their
address. One is no longer counted when it has proved to be of a member, or is closed.

Beyond the limit of its address a new connection is closed at once. Beyond that of all together the oldest
one of the address with the most is: a member proves itself in a fraction of a second, so many silent
connections of many addresses do not keep it out.

The first byte of a connection says what it is: TLS with a WebSocket, or the preface of a bulk stream
(`lake.peers.transport.bulk_frames`). So one port is enough for both. Until that byte comes, the connection waits in an epoll
set with the listening socket, and asyncio polls that set (epoll(7): such a set is a file that can be polled too).
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lake.peers.transport.addresses import network_of
from lake.peers.transport.bulk_frames import PREFACE

__all__ = ["UNVERIFIED_MAX", "UNVERIFIED_PER_HOST_MAX", "PeerListener"]

UNVERIFIED_MAX = 64
UNVERIFIED_PER_HOST_MAX = 16
"""Fewer than all, so that one machine alone keeps no member of another from connecting."""
_END_SECONDS = 1.0
Address = tuple[str, int]
OnStream = Callable[[socket.socket, Callable[[], None]], None]
"""Takes a connection that begins a bulk stream, and what to call when it is of a member, or closed."""


class PeerListener(socket.socket):
    """A listening TCP socket; asyncio accepts from it.

    Args:
        host: Address or name to listen on.
        port: Port; 0 for any free one.
        on_stream: Serves bulk streams.
        silent_seconds: After which a connection without a byte is closed.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        on_stream: OnStream,
        silent_seconds: float,
    ) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        super().__init__(family, kind, protocol)
        # Those that have proved nothing, by address and port.
        self._unverified: dict[Address, _Counted] = {}
        self._by_host: Counter[str] = Counter()
        self._on_stream = on_stream
        self._silent_seconds = silent_seconds
        # Those without a byte, by their file.
        self._silent: dict[int, _Counted] = {}
        self._polled = select.epoll()
        self.refused = 0
        """Connections that were closed because of the limits."""
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.setblocking(False)
            self.bind(address)
            self.listen()
            # Noted, as another thread may ask for them while the socket is closed.
            self.host, self.port = str(self.getsockname()[0]), int(self.getsockname()[1])
            self._polled.register(super().fileno(), select.EPOLLIN)
        except OSError:
            self.close()
            raise

    @property
    def unverified(self) -> int:
        """Open connections that have proved no identity."""
        return len(self._unverified)

    def fileno(self) -> int:
        """Return the file that asyncio polls: readable if a connection came, or the first byte of one."""
        return -1 if self._polled.closed else self._polled.fileno()

    def close(self) -> None:
        """Close it, and the connections without a byte."""
        self._polled.close()
        for connection in list(self._silent.values()):
            connection.close()
        self._silent.clear()
        super().close()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection of a WebSocket that is within the limits, and its address.

        Raises:
            BlockingIOError: There is none now.
        """
        while ready := self._polled.poll(0, 1):
            connection = self._silent.pop(ready[0][0], None)
            if connection is None:
                self._accept_silent()
                continue
            self._polled.unregister(connection.fileno())
            connection.stop_timer()
            if _first_byte(connection) != PREFACE[:1]:
                return connection, connection.address
            # It closes in another thread, and says so in the loop.
            connection.on_close = None
            self._on_stream(connection, partial(self.verified, connection.address))
        raise BlockingIOError

    def _accept_silent(self) -> None:
        """Accept a connection within the limits, and wait for its first byte."""
        accepted, address = super().accept()
        connection = _Counted(fileno=accepted.detach())
        connection.address = address
        connection.setblocking(False)
        found = (str(address[0]), int(address[1]))
        host = network_of(found[0])
        if self._by_host[host] >= UNVERIFIED_PER_HOST_MAX:
            self.refused += 1
            connection.close()
            return
        if len(self._unverified) >= UNVERIFIED_MAX:
            self._end_oldest()
        self._unverified[found] = connection
        self._by_host[host] += 1
        connection.on_close = partial(self.verified, found)
        self._silent[connection.fileno()] = connection
        self._polled.register(connection.fileno(), select.EPOLLIN)
        # Its end can be read, so that it is returned, and closed as any other that ends.
        connection.timer = asyncio.get_running_loop().call_later(
            self._silent_seconds, _end, connection
        )

    def verified(self, address: Address) -> None:
        """Count a connection no longer; it is of a member, or closed."""
        found = (str(address[0]), int(address[1]))
        if self._unverified.pop(found, None) is not None:
            host = network_of(found[0])
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]

    def _end_oldest(self) -> None:
        """End the oldest connection of the host with the most of them."""
        most = max(self._by_host.values())
        oldest = next(
            each for each in self._unverified if self._by_host[network_of(each[0])] == most
        )
        connection = self._unverified[oldest]
        self.refused += 1
        self.verified(oldest)
        _end(connection)

    async def end_unverified(self) -> None:
        """End the connections that have proved nothing, as no server knows them yet."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                while self._unverified:
                    for connection in self._unverified.values():
                        _end(connection)
                    await asyncio.sleep(0)


def _end(connection: socket.socket) -> None:
    # asyncio has the file, and closes it when it reads the end.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _first_byte(connection: socket.socket) -> bytes:
    """Return the first byte, which stays to be read; b"" if the connection has ended."""
    try:
        return connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return b""


class _Counted(socket.socket):
    """An accepted connection."""

    on_close: Callable[[], None] | None = None
    address: Any = None
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Let it be silent for longer."""
        if self.timer is not None:
            self.timer.cancel()

    def close(self) -> None:
        """Close it."""
        self.stop_timer()
        if self.on_close is not None:
            self.on_close()
        super().close()
