"""A listening socket that bounds what connections may cost that have proved no identity yet.

Each TLS connection has a quarter of a MiB of buffers in asyncio, from its first byte, and the files of the
whole process are limited. So connections are counted when they are accepted, all together and by their
address. One is no longer counted when it has proved to be of a member, or is closed.

Beyond the limit of its address a new connection is closed at once. Beyond that of all together the oldest
one of the address with the most is: a member proves itself in a fraction of a second, so many silent
connections of many addresses do not keep it out.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lake.peers.transport.addresses import network_of

__all__ = ["UNVERIFIED_MAX", "UNVERIFIED_PER_HOST_MAX", "PeerListener"]

UNVERIFIED_MAX = 64
UNVERIFIED_PER_HOST_MAX = 16
"""Fewer than all, so that one machine alone keeps no member of another from connecting."""
_END_SECONDS = 1.0
Address = tuple[str, int]


class PeerListener(socket.socket):
    """A listening TCP socket; asyncio accepts from it.

    Args:
        host: Address or name to listen on.
        port: Port; 0 for any free one.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, host: str, port: int) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        super().__init__(family, kind, protocol)
        # Those that have proved nothing, by address and port.
        self._unverified: dict[Address, _Counted] = {}
        self._by_host: Counter[str] = Counter()
        self.refused = 0
        """Connections that were closed because of the limits."""
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.setblocking(False)
            self.bind(address)
            self.listen()
            # Noted, as another thread may ask for them while the socket is closed.
            self.host, self.port = str(self.getsockname()[0]), int(self.getsockname()[1])
        except OSError:
            self.close()
            raise

    @property
    def unverified(self) -> int:
        """Open connections that have proved no identity."""
        return len(self._unverified)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that is within the limits, and its address."""
        while True:
            accepted, address = super().accept()
            connection = _Counted(fileno=accepted.detach())
            found = (str(address[0]), int(address[1]))
            host = network_of(found[0])
            if self._by_host[host] >= UNVERIFIED_PER_HOST_MAX:
                self.refused += 1
                connection.close()
                continue
            if len(self._unverified) >= UNVERIFIED_MAX:
                self._end_oldest()
            self._unverified[found] = connection
            self._by_host[host] += 1
            connection.on_close = partial(self.verified, found)
            return connection, address

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


class _Counted(socket.socket):
    """An accepted connection."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close it."""
        if self.on_close is not None:
            self.on_close()
        super().close()
