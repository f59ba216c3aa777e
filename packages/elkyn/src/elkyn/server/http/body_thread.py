"""Read a long body from its socket in a thread of its own, in place of the event loop.

The loop reads all connections on one core and hands each read to another thread. A thread that
receives, hashes and writes a piece needs no hand-over, finds the piece in the processor's cache, and shares
the cores with other bodies. The protocol lends the body: it stops reading, and counts what was read when
the thread returns it.

    loop    head -> app ... read_into -+                    +-> rest of the body, timeouts, next request
    thread                             +-> recv -> sink ... +   at the end, at a slow client, an error

Timeouts and the detection of lost connections stay with the loop: a body whose client is slow is returned,
and is received as any other.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

__all__ = ["BODY_BYTES_MIN", "BodyReader", "BodyThreads", "Lent", "duplicate"]

BODY_BYTES_MIN = 1 << 20
"""A thread starts in about 0.1 ms, in which 0.1 MiB are received."""
THREADS_MAX = 8
"""More bodies at once are received by the loop. Each thread has a buffer."""
# With 256 KiB, which stay in a core's cache, more calls wait for the interpreter's lock: 1.15 × the CPU.
_BUFFER_BYTES = 1 << 20
_WAIT_SECONDS = 0.25  # without a byte; also how long a stop waits at most
_RATE_SECONDS = 1.0
_RATE_BYTES_MIN = 1 << 20  # in these seconds; a slower body needs no thread


class Lent(NamedTuple):
    """A body that is being received, from which the event loop reads nothing more.

    `connection` is a duplicate of the socket, `waiting` what was received already, and `left` the number
    of bytes that are to come.
    """

    connection: socket.socket
    waiting: bytes
    left: int


class BodyThreads:
    """Counts the threads of a server; used by its event loop only."""

    def __init__(self, maximum: int = THREADS_MAX) -> None:
        self._free = maximum

    def try_take(self) -> bool:
        """Count a thread; return False if there are too many."""
        if self._free:
            self._free -= 1
            return True
        return False

    def give_back(self) -> None:
        """Count a thread that has ended."""
        self._free += 1


class BodyReader:
    """Reads one request's body in a thread.

    Args:
        lend: Stops the loop's reading; returns None if no thread may read the body.
        take_back: Has the loop go on, after so many bytes were read from the socket.
        threads: Limits the threads.
    """

    def __init__(
        self,
        lend: Callable[[], Lent | None],
        take_back: Callable[[int], None],
        threads: BodyThreads,
    ) -> None:
        self._lend = lend
        self._take_back = take_back
        self._threads = threads
        self._stopped = False
        # Bytes that the thread has read from the socket; read by others once it has ended.
        self._count = 0

    async def read_into(self, sink: Callable[[memoryview], None]) -> int:
        """Pass pieces of the body to a function in a thread; the rest comes by ASGI as usual.

        Args:
            sink: Called with each piece, which is valid during the call only. It runs in another
                thread, one call at a time.

        Returns:
            The bytes passed on; 0 if no thread may be used for this body.

        Raises:
            Exception: What `sink` raised.
        """
        if not self._threads.try_take():
            return 0
        try:
            lent = self._lend()
            if lent is None:
                return 0
            try:
                await self._run(lent, sink)
            finally:
                self._take_back(self._count)
            return len(lent.waiting) + self._count
        finally:
            self._threads.give_back()

    def stop(self) -> None:
        """Have the thread end soon."""
        self._stopped = True

    async def _run(self, lent: Lent, sink: Callable[[memoryview], None]) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def run() -> None:
            error: BaseException | None = None
            # Closed by the thread alone: the number of a descriptor that another one closes may be
            # that of another connection by the next read.
            with lent.connection:
                try:
                    self._read(lent, sink)
                except BaseException as raised:  # noqa: BLE001 - the app raises it
                    error = raised
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(ended.set_result, error)

        try:
            threading.Thread(target=run, name="elkyn-body", daemon=True).start()
        except RuntimeError:
            lent.connection.close()
            raise
        cancelled = False
        while not ended.done():
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError:
                # Not before the thread has ended: the caller closes what it writes to.
                cancelled = True
                self.stop()
        if cancelled:
            raise asyncio.CancelledError
        error = ended.result()
        if error is not None:
            raise error

    def _read(self, lent: Lent, sink: Callable[[memoryview], None]) -> None:
        connection, waiting, left = lent
        if waiting:
            sink(memoryview(waiting))
        buffer = memoryview(bytearray(min(_BUFFER_BYTES, left)))
        connection.settimeout(_WAIT_SECONDS)
        since, before = time.monotonic(), 0
        while self._count < left and not self._stopped:
            try:
                count = connection.recv_into(buffer[: left - self._count])
            except OSError:  # no byte in time, or a lost connection, which the loop finds too
                return
            if not count:
                return
            self._count += count
            sink(buffer[:count])
            now = time.monotonic()
            if now - since >= _RATE_SECONDS:
                if self._count - before < _RATE_BYTES_MIN:
                    return
                since, before = now, self._count


def duplicate(transport: asyncio.BaseTransport) -> socket.socket | None:
    """Return another descriptor of a connection's socket; None if it has no socket, or there is none left."""
    found = transport.get_extra_info("socket")
    if found is None:
        return None
    try:
        descriptor = os.dup(found.fileno())
    except OSError:
        return None
    return socket.socket(fileno=descriptor)
