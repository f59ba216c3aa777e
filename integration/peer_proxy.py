"""A TCP proxy in front of a node's port for peers, which does what bad lines do."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

__all__ = ["PeerProxy", "free_port", "peer_proxy"]

_BLOCK_BYTES = 64 << 10
_ACCEPTING_TURNS = 3
"""Of the event loop, from a socket that was accepted to a transport that is known here."""


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Line:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)

    def reset(self) -> None:
        """End it at once, so that both sides see a reset."""
        for end in self.ends:
            found = end.get_extra_info("socket")
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.transport.abort()


class PeerProxy:
    """Forwards connections to a port; methods are for any thread.

    Args:
        target: The port on the loopback interface.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.passed_bytes = 0
        """Bytes that were forwarded, in both directions."""
        self._target = target
        self._blocked: Callable[[int], bool] = lambda _pid: False
        self._flows = asyncio.Event()
        self._flows.set()
        self._lines: set[_Line] = set()
        self._server: asyncio.Server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def open(self) -> None:
        """Listen."""
        self._thread.start()
        serving = asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End all connections, and listen no more."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        # The task of a connection that was just accepted closes its socket only once it has begun.
        for _ in range(_ACCEPTING_TURNS):
            await asyncio.sleep(0)
        for line in list(self._lines):
            line.reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # in which the transports close their sockets

    # What lines do

    def stall(self) -> None:
        """Forward nothing, and end nothing, as a line that loses all packets."""
        self._call(self._flows.clear)

    def resume(self) -> None:
        """Forward what has waited, and what comes."""
        self._call(self._flows.set)

    def reset(self) -> None:
        """Reset all connections."""

        def reset() -> None:
            for line in list(self._lines):
                line.reset()

        self._call(reset)

    def half_close(self) -> None:
        """Tell the nodes behind the proxy that the others send no more, and go on otherwise."""

        def close() -> None:
            for line in self._lines:
                with suppress(OSError, RuntimeError):
                    line.ends[1].write_eof()

        self._call(close)

    def block(self, is_blocked: Callable[[int], bool]) -> None:
        """Refuse the connections of some processes, by their ids, and reset those that they have."""
        self._blocked = is_blocked
        self.reset()

    def _call(self, work: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    # Connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        try:
            if self._blocked(await asyncio.to_thread(_owner, port)):
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        line = _Line(writer, far_writer)
        self._lines.add(line)
        try:
            await asyncio.gather(
                self._forward(reader, far_writer), self._forward(far_reader, writer)
            )
        except OSError:
            pass  # one side has gone: so does the other
        finally:
            self._lines.discard(line)
            line.reset()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(_BLOCK_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            await self._flows.wait()
            writer.write(block)
            self.passed_bytes += len(block)
            await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()


def _owner(port: int) -> int:
    """Return the id of the process with a connection from a port; 0 if it is not found."""
    for each in psutil.net_connections("tcp4"):
        if each.laddr and each.laddr.port == port and each.pid is not None:
            return each.pid
    return 0


@contextmanager
def peer_proxy(target: int) -> Iterator[PeerProxy]:
    """Open a proxy to a port, and close it."""
    proxy = PeerProxy(target)
    proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()
