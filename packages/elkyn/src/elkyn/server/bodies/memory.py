"""Memory limit of request bodies, counted over all requests from their arrival to the commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from elkyn.server.asgi import Receive, Scope
from sennit_core.errors import Busy, Closed, TooLarge

__all__ = [
    "INLINE_BYTES",
    "LARGE_FACTOR",
    "BodyMemory",
    "MemoryReservation",
    "memory_of",
    "read_body",
]

INLINE_BYTES = 64 * 1024
"""Bodies up to this size are parsed in the event loop, larger ones in pieces on a thread."""

LARGE_FACTOR = 6
"""Upper bound of memory per byte of a large body: packed nodes, log row, pages to be written."""
_NODE_BYTES = 150  # memory of a node of a small body: its object, its key and its dict entry


class BodyMemory:
    """Counts the memory of bodies; a body that would exceed the limit is refused.

    Args:
        bytes_max: limit of all clients together.

    Attributes:
        bytes: estimated memory of all bodies now.
    """

    def __init__(self, bytes_max: int) -> None:
        # The sum of `_of_client`. Counted in the event loop as bytes come, not from
        # `Content-Length`: a client that announces much and sends nothing would hold the memory of
        # others.
        self.bytes = 0
        self._bytes_max = bytes_max
        self._of_client: dict[str, int] = {}  # a Counter is slower

    def reserve(self, client: str) -> MemoryReservation:
        """Return a counter for the memory of one request of the client at an address."""
        return MemoryReservation(self, client)

    def change(self, client: str, size: int) -> None:
        """Add `size` bytes to the counters; a negative size subtracts.

        Raises:
            Busy: all clients would exceed the maximum, or this one half of it while others are
                active.
        """
        own = self._of_client.get(client, 0)
        # Releasing memory is never refused.
        if size > 0:
            # Half is for others only while there are others: one import may use all of it.
            is_alone = own == self.bytes
            own_max = self._bytes_max if is_alone else self._bytes_max // 2
            if self.bytes + size > self._bytes_max or own + size > own_max:
                raise Busy("request bodies use too much memory; try again in a second")
        self.bytes += size
        if own + size:
            self._of_client[client] = own + size
        else:
            self._of_client.pop(client, None)


class MemoryReservation:
    """The memory of one request's body; a context manager, released at its end."""

    __slots__ = ("_body_memory", "_client", "bytes")

    def __init__(self, body_memory: BodyMemory, client: str) -> None:
        self._body_memory = body_memory
        self._client = client
        self.bytes = 0

    def add(self, size: int) -> None:
        """Add `size` bytes of memory; raises `Busy` when they exceed the limit."""
        self._body_memory.change(self._client, size)
        self.bytes += size

    def release(self) -> None:
        """Subtract all counted memory; releasing twice is fine."""
        self._body_memory.change(self._client, -self.bytes)
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.release()


def memory_of(body: bytes) -> int:
    """Estimate the memory of a small body when parsed; it may hold a node in every two bytes."""
    return len(body) + _NODE_BYTES * body.count(b",")


async def read_body(
    scope: Scope,
    receive: Receive,
    bytes_max: int,
    held: MemoryReservation,
    check: Callable[[], Awaitable[None]] | None = None,
) -> bytes:
    """Return the body of a request.

    Args:
        scope: the ASGI scope of the request.
        receive: ASGI's.
        bytes_max: a larger body is refused, before it is read if its length is announced.
        held: counts the body's memory.
        check: awaited once before more than a small body is read; raises to refuse the request.

    Raises:
        TooLarge: the body has more than `bytes_max` bytes.
        Busy: request bodies use too much memory already.
        Closed: the client has disconnected.
    """
    announced = _content_length(scope)
    # The rest of a refused body is read and dropped by the server: most clients send on, and would
    # see a reset connection instead of the answer if it were closed.
    if announced > bytes_max:
        raise TooLarge("the request body", bytes_max, announced)
    # Once more below for bodies that announce no length.
    if check is not None and announced > INLINE_BYTES:
        await check()
        check = None
    parts: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise Closed("the connection")
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise TooLarge("the request body", bytes_max)
        # Its parsed nodes, and what the write makes of them (see `LARGE_FACTOR`).
        if size <= INLINE_BYTES and not parts and not message.get("more_body"):  # most of them
            held.add(size * LARGE_FACTOR + memory_of(part))
            return bytes(part)
        if check is not None and size > INLINE_BYTES:
            await check()
            check = None
        held.add(len(part) * LARGE_FACTOR)
        parts.append(part)
        if not message.get("more_body"):
            break
    if size <= INLINE_BYTES:
        body = b"".join(parts)
        held.add(memory_of(body))
        return body
    return b"".join(parts)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])
    return 0
