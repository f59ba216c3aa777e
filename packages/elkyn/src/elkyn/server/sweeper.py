"""Closes connections over which nothing comes that should: heads, bodies, further requests."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

__all__ = ["Awaited", "ReadTimeouts"]


class Awaited(NamedTuple):
    """What a connection waits for.

    `request` stands for the request, `moved` for how far its body has come: while both are the same
    objects nothing has come. After `seconds` of that the client is turned out.
    """

    request: object
    moved: object
    seconds: float


class Watched(Protocol):
    """A connection that may wait for its client."""

    def awaited(self) -> Awaited | None:
        """Return what it waits for; None when it is not the client's turn."""
        ...

    def close_on_timeout(self) -> None:
        """Close it: the client had its time."""
        ...


class ReadTimeouts:
    """Looks at all connections again and again; costs a request nothing.

    Args:
        every_seconds: how often.
    """

    def __init__(self, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self._seen: weakref.WeakKeyDictionary[Any, tuple[Awaited, float]] = (
            weakref.WeakKeyDictionary()
        )
        self._running = False

    def start(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        """Look from now on at those of `connections` that can wait, as long as there are any."""
        if not self._running:
            self._running = True
            loop.call_later(self.every_seconds, self._sweep, loop, connections)

    def _sweep(self, loop: asyncio.AbstractEventLoop, connections: Collection[Any]) -> None:
        self._running = False
        before, self._seen = self._seen, weakref.WeakKeyDictionary()
        now = loop.time()
        for connection in list(connections):
            awaited = connection.awaited() if hasattr(connection, "awaited") else None
            if awaited is None:
                continue
            seen, since = before.get(connection, (awaited, now))
            if seen.request is not awaited.request or seen.moved is not awaited.moved:
                since = now
            if now - since >= awaited.seconds:
                connection.close_on_timeout()
            else:
                self._seen[connection] = awaited, since
        if connections:
            self.start(loop, connections)
