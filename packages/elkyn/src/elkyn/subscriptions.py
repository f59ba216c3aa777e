"""The feeds of a store: started between two commits, restarted when the consumer is too slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, TypedDict, TypeVar

from elkyn.storage.disk import Disk
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Writer
from elkyn.tree.events import Event, Watchers
from elkyn.tree.live_query import EVENTS, ChildEvents, EventName, WindowEvents
from elkyn.tree.paths import Path
from elkyn.tree.query import EVERYTHING, Query, run_query
from elkyn.tree.values import Stored
from elkyn.tree.watch import PLAIN, Callback, Feed, Subscription, ViewSubscription
from sennit_core.errors import Closed, Unsupported, nearest

__all__ = ["Bounds", "Subscriptions"]


AnyFeed = TypeVar("AnyFeed", bound=Feed[Any])


class Bounds(TypedDict, total=False):
    """Limits of a listener's queue; beyond them the listener is resynchronised.

    Args:
        queue_events: the maximum number of waiting events.
        queue_bytes: the maximum estimated memory of waiting events.
    """

    queue_events: int
    queue_bytes: int


class Subscriptions:
    """Opens feeds, and closes the open ones together with the store."""

    def __init__(self, disk: Disk, writer: Writer, watchers: Watchers) -> None:
        self._disk = disk
        self._writer = writer
        self._watchers = watchers
        # Open feeds, with the callback that calls a function for each of its events, if there is
        # one.
        self._feeds: dict[Feed[Any], Callback | None] = {}
        self._queries: dict[Feed[Any], Query] = {}
        self._lock = threading.Lock()
        self._closed = False

    def changes(self, path: Path, query: Query | None, bounds: Bounds) -> Subscription:
        """Return a feed of `put` and `patch` of a path, or of a query's window on it."""
        if query is None or query.loads_all:
            return self._start(Subscription(path, self, PLAIN, **bounds), None)
        return self._start(Subscription(path, self, WindowEvents(query), **bounds), query)

    def events(
        self, path: Path, query: Query | None, wanted: Iterable[str], bounds: Bounds
    ) -> ViewSubscription:
        """Return a feed of some of `EVENTS` for a path.

        Raises:
            Unsupported: one of the events is unknown.
        """
        query = query or EVERYTHING
        lens = ChildEvents(query, [_event_name(name) for name in wanted])
        return self._start(ViewSubscription(path, self, lens, **bounds), query)

    def call(
        self,
        path: Path,
        query: Query | None,
        event: str,
        function: Callable[..., object],
        attach: Callable[[Feed[Any]], object] | None,
    ) -> Callback:
        """Call `function` for each event of one kind, after `attach(feed)`."""
        feed = self.events(path, query, (event,), {})
        if attach is not None:
            attach(feed)
        callback = Callback(feed, function)
        with self._lock:
            if feed in self._feeds:
                self._feeds[feed] = callback
        return callback

    def _start(self, feed: AnyFeed, query: Query | None) -> AnyFeed:
        with self._lock:
            if self._closed:
                raise Closed("the store")
            self._feeds[feed] = None
            if query is not None:
                self._queries[feed] = query
        try:
            feed.start()
        except BaseException:
            feed.close()
            raise
        return feed

    def restart(self, feed: Feed[Any]) -> Event:
        """Read the state that `feed` continues from; the queued events are included in it."""
        keys = feed.keys
        with ExitStack() as reading:
            with self._writer.between_commits():
                view = reading.enter_context(self._disk.snapshot())
                # Between two commits: the snapshot, the emptied queue and the place among the
                # listeners agree. Every event up to here is in the state, and every later one is
                # delivered.
                feed.reset()
                # Removed first, since a restart finds it attached already.
                self._watchers.remove(keys, feed)
                self._watchers.add(keys, feed)
            # Closed by another thread before it was added again: `release` could not remove it.
            if feed.closed:
                self._watchers.remove(keys, feed)
            # Outside of the lock, in the snapshot: writes go on while a large value is read.
            value = _read(view, keys, self._queries.get(feed))
            return Event("put", "/", position=view.position, changes=(((), value),))

    def release(self, feed: Feed[Any]) -> None:
        """Forget a closed feed."""
        self._watchers.remove(feed.keys, feed)
        with self._lock:
            self._feeds.pop(feed, None)
            self._queries.pop(feed, None)

    def close(self) -> None:
        """Close every feed, and end the callbacks."""
        with self._lock:
            self._closed = True
            feeds = list(self._feeds.items())
        for feed, callback in feeds:
            (callback or feed).close()


def _read(view: ReadTransaction, path: Path, query: Query | None) -> Stored:
    if query is None or query.loads_all:
        return view.get(path)
    return run_query(query, view, path) or None


def _event_name(name: str) -> EventName:
    for known in EVENTS:
        if name == known:
            return known
    suggestion = nearest(name, EVENTS)
    hint = f"did you mean {suggestion!r}?" if suggestion else f"use one of {', '.join(EVENTS)}"
    raise Unsupported(f'unknown event "{name}"', hint=hint)
