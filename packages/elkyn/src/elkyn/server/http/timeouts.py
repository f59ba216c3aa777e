"""Close connections whose client does not send in time: heads, bodies, further requests."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

__all__ = ["PendingRead", "ReadTimeouts"]


class PendingRead(NamedTuple):
    """What a connection waits to receive, and for how long.

    `request` identifies the request and `progress` the progress of its body, both by object identity:
    while neither object changes, nothing was received. After `seconds` without progress the
    connection is closed.
    """

    request: object
    progress: object
    seconds: float


class ReadingConnection(Protocol):
    """A connection that may wait for its client."""

    def pending_read(self) -> PendingRead | None:
        """Return what the client is to send; None while the server is not waiting for it."""
        ...

    def close_on_timeout(self) -> None:
        """Close the connection: its client did not send in time."""
        ...


class ReadTimeouts:
    """Checks all connections periodically, so that a request needs no timer of its own.

    Args:
        every_seconds: interval of the checks.
    """

    def __init__(self, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        # What each connection waited for at the last check, and since when. Weak keys, because
        # between two checks a connection may be closed; the objects inside are compared by identity
        # only.
        self._seen: weakref.WeakKeyDictionary[Any, tuple[PendingRead, float]] = (
            weakref.WeakKeyDictionary()
        )
        # True iff a check is scheduled: one timer for all connections, none while there are none.
        self._running = False

    def start(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        """Check those of `connections` that have `pending_read`, until the collection is empty."""
        if not self._running:
            self._running = True
            loop.call_later(self.every_seconds, self._check, loop, connections)

    def _check(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        self._running = False
        before, self._seen = self._seen, weakref.WeakKeyDictionary()
        now = loop.time()
        for connection in list(connections):
            pending = connection.pending_read() if hasattr(connection, "pending_read") else None
            if pending is None:
                continue
            # A connection seen for the first time gets its full time from now on.
            seen, since = before.get(connection, (pending, now))
            if seen.request is not pending.request or seen.progress is not pending.progress:
                since = now
            if now - since >= pending.seconds:
                connection.close_on_timeout()
            else:
                self._seen[connection] = pending, since
        if connections:
            self.start(loop, connections)
