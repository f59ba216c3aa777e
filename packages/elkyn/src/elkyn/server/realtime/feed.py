"""Feeds that streams and sockets follow, and the batches of events that feeds deliver."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from elkyn.storage.transactions import ReadTransaction
from elkyn.tree.events import Event
from elkyn.tree.query import Query
from elkyn.tree.watch import Subscription
from sennit_core.errors import Closed

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["INLINE_ROWS", "Batch", "Feed", "Opener", "Opening", "QueryFeed"]

INLINE_ROWS = 64
"""A read of more rows runs on a thread: reading this many takes under half a millisecond."""


@dataclass(slots=True)
class Opening:
    """The first frames of a client; encoded on the thread that reads them, as that may take long.

    Args:
        frames: bytes or text, or events that are still to be encoded.
        position: of the state that the frames show; 0 when no caller uses it.
    """

    frames: Sequence[Any]
    position: int = 0


Opener: TypeAlias = Callable[[ReadTransaction], Opening]
"""Reads and encodes the opening of a client; may run on a thread."""


class Batch:
    """Events of one tick at one node; the encoded bytes are shared by all clients of the node.

    Args:
        events: in commit order.
        first: the number of the first event, counted over all events of its node.
    """

    __slots__ = ("encoded", "events", "first", "weight_bytes")

    def __init__(self, events: Sequence[Event], first: int = 0) -> None:
        self.events = events
        self.first = first
        self.weight_bytes = sum(event.weight_bytes for event in events)
        self.encoded: dict[Any, Any] = {}

    def since(self, mark: int) -> Batch | None:
        """Return the part with numbers above `mark`; None when there is none."""
        skipped = mark + 1 - self.first
        if skipped <= 0:
            return self
        return Batch(self.events[skipped:], mark + 1) if skipped < len(self.events) else None


class Feed(ABC):
    """One client's subscription to one place."""

    __slots__ = ()

    @abstractmethod
    async def start(self, opener: Opener) -> Opening:
        """Start, or restart after a loss; returns what `opener` makes of the current state."""

    @abstractmethod
    def dequeue(self) -> list[Batch] | None:
        """Return queued batches in commit order; None when the queue was dropped: `start` again."""

    @abstractmethod
    def close(self) -> None:
        """End the subscription; closing twice is fine."""


class QueryFeed(Feed):
    """A query's window, computed for one client by the store.

    Args:
        store: the watched store.
        path: the node that the query is about.
        query: a query that selects or orders; whole nodes are followed through the hub.
        wake: called in the loop with the feed when events are queued.
    """

    def __init__(
        self, store: ElkynStore, path: str, query: Query, wake: Callable[[Feed], None]
    ) -> None:
        self._store = store
        self._path = path
        self._query = query
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        # None until the store has computed the first window; kept for restarts.
        self._subscription: Subscription | None = None
        self._closed = False

    async def start(self, opener: Opener) -> Opening:
        """Start, or resume after a loss; `opener` is not used, the first event holds the window."""
        if self._subscription is not None:
            return Opening(await asyncio.to_thread(self._subscription.resume))
        subscription = await asyncio.to_thread(self._store.watch, self._path, self._query)
        # Closed while the thread opened the subscription: this is the only reference to it.
        if self._closed:
            subscription.close()
            raise Closed("the listen")
        self._subscription = subscription
        # Read here and not by `dequeue`: it is the opening. `wake` is set after it; `ready` finds
        # what came in between.
        first = await subscription.next(None)
        subscription.wake = self._woken
        if subscription.ready:
            self._wake(self)
        return Opening((first,))

    def _woken(self) -> None:
        # Called on the thread that caused it, usually the committing one.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, self)

    def dequeue(self) -> list[Batch] | None:
        """Return the queued events; None when the queue was dropped."""
        subscription = self._subscription
        if subscription is None or subscription.closed:
            return []
        if subscription.overflowed:
            return None
        # Applies the events to the window here, on the listener's side, not on the committing
        # thread.
        events = subscription.drain()
        if subscription.ready:  # lost: the window needs a fresh state to continue
            self._wake(self)
        return [Batch(events)] if events else []

    def close(self) -> None:
        """End the subscription."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()
