"""Subscriptions: the events of one path, for iteration, `await`, or a callback.

The queue of a slow listener is bounded. When it exceeds the bound it is dropped, and the listener is
resynchronised with a fresh state: by a new `put "/"` for plain events, and for a window's events by
the difference between the state that the listener has seen and the fresh one.

The two sides of a feed:

    committing thread                  |  the one consumer
    deliver -> _events (bounded)       |  _next_event -> authorize -> lens.apply -> _shown -> poll
      over a bound: `_overflowed`      |  overflowed, or the lens needs more: resume -> resync

A window is computed on the consumer's side, so that the one writer does not work for slow
listeners.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, Protocol, Self, TypeVar

from elkyn.tree.events import Event
from elkyn.tree.live_query import ViewEvent
from elkyn.tree.paths import Path, format_path
from sennit_core.errors import Closed, Denied
from sennit_core.logs import get_logger

__all__ = ["Callback", "Feed", "Lens", "Source", "Subscription", "ViewSubscription"]

Item = TypeVar("Item")

QUEUE_EVENTS_MAX = 1024
QUEUE_BYTES_MAX = 8 * 1024 * 1024

_log = get_logger(__name__)


class Source(Protocol):
    """The store that a feed reads from."""

    def restart(self, feed: Feed[Any], /) -> Event:
        """Empty the queue with `feed.reset`, and return a `put "/"` of the value at that instant."""
        ...

    def release(self, feed: Feed[Any], /) -> None:
        """Forget the feed, which is closed."""
        ...


class Lens(Protocol[Item]):
    """Translates the events of a path into the items that a feed yields."""

    def apply(self, event: Event, /) -> list[Item] | None:
        """Return the items for `event`; None when only a fresh state can determine them."""
        ...

    def resync(self, event: Event, /) -> list[Item]:
        """Return the items that lead to the fresh state that `event` puts."""
        ...


class Feed(Generic[Item]):
    """The changes of one path in commit order, without gap or duplicate; for one consumer.

    Iterate it, `async for` over it, or `poll` it; close it, or use it as a context manager.

    Args:
        path: the watched path.
        source: the store of the events.
        lens: translates the events into items.
        queue_events: the maximum number of waiting events.
        queue_bytes: the maximum estimated memory of waiting events.

    Attributes:
        wake: called when an item is ready or the feed closed, on the thread that caused it; must
            not block. For servers that have no task for each feed.
        authorize: called before an event is delivered; an exception that it raises ends the feed.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        lens: Lens[Item],
        *,
        queue_events: int = QUEUE_EVENTS_MAX,
        queue_bytes: int = QUEUE_BYTES_MAX,
    ) -> None:
        self.keys = path
        self.wake: Callable[[], object] | None = None
        self.authorize: Callable[[], object] | None = None
        self._source = source
        self._lens = lens
        self._queue_events = queue_events
        self._queue_bytes = queue_bytes
        self._shown: deque[Item] = deque()  # the consumer's side: items of the last event
        # Delivered and not translated yet. Guarded by `_changed`, with the fields up to `_why`.
        self._events: deque[Event] = deque()
        self._waiting_bytes = 0
        # True from an overflow until `reset`: deliveries are ignored meanwhile, as the fresh state
        # includes them.
        self._overflowed = False
        self._closed = False
        # Raised by the next read of an ended feed, once; None for an ordinary end.
        self._why: BaseException | None = None
        self._changed = threading.Condition()
        # Set while a task waits in `_wait_ready`.
        self._awaken: Callable[[], None] | None = None

    @property
    def path(self) -> str:
        """The watched path, as text."""
        return format_path(self.keys)

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self._closed

    def deliver(self, event: Event) -> None:
        """Queue `event`; called by the store."""
        with self._changed:
            if self._closed or self._overflowed:
                return
            bytes_now = self._waiting_bytes + event.weight_bytes
            too_many = len(self._events) >= self._queue_events
            # A single event of any size is accepted: it is the only way to hand it on.
            if too_many or (self._events and bytes_now > self._queue_bytes):
                self._clear()
                self._overflowed = True
            else:
                self._events.append(event)
                self._waiting_bytes = bytes_now
            self._notify()

    def reset(self) -> None:
        """Drop the queued events; called by the store at the instant of a fresh value."""
        with self._changed:
            self._clear()
            self._overflowed = False

    def resume(self) -> list[Item]:
        """Read a fresh state and continue from it; returns the items that lead to it."""
        return self._lens.resync(self._source.restart(self))

    def start(self) -> None:
        """Read the first state; called by the store."""
        first = self._source.restart(self)
        with self._changed:
            # Events may have been delivered since the state was read; they follow it.
            if not self._overflowed:
                self._events.appendleft(first)
                self._waiting_bytes += first.weight_bytes
            self._notify()

    @property
    def overflowed(self) -> bool:
        """Whether only `resume` can continue the feed."""
        return self._overflowed

    def _clear(self) -> None:
        self._events.clear()
        self._waiting_bytes = 0

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._awaken is not None:
            self._awaken()
        if self.wake is not None:
            self.wake()

    @property
    def ready(self) -> bool:
        """Whether an item is ready, or the feed is closed."""
        return bool(self._shown) or self._ready()

    def _ready(self) -> bool:
        return bool(self._events) or self._overflowed or self._closed

    def _next_event(self) -> Event | None:
        """Return a queued event; None when the feed must continue from a fresh state.

        Raises:
            Closed: the feed has ended.
        """
        with self._changed:
            if self._closed:
                raise self._ended()
            if self._overflowed:
                return None
            event = self._events.popleft()
            self._waiting_bytes -= event.weight_bytes
            return event

    def _look(self) -> bool:
        """Translate the next event; returns False when that needs a fresh state."""
        event = self._next_event()
        # After the event was dequeued: a permission that a write has ended since is noticed before
        # its effect or anything later is handed on.
        self._ask()
        shown = None if event is None else self._lens.apply(event)
        if shown is not None:
            self._shown.extend(shown)
        return shown is not None

    def _ask(self) -> None:
        if self.authorize is None:
            return
        try:
            self.authorize()
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_seconds: float | None = 0.0) -> Item | None:
        """Return the next event, None when none came within `timeout_seconds` (None: wait).

        Raises:
            Closed: the subscription or its store is closed.
            Denied: the rules or the expiry of the token have ended the subscription.
        """
        end = None if timeout_seconds is None else monotonic() + timeout_seconds
        while not self._shown:
            left = None if end is None else max(0.0, end - monotonic())
            if not self._ready() and not self._await_ready(left):
                return None
            if not self._look():
                self._shown.extend(self.resume())
        return self._next_shown()

    def _await_ready(self, timeout_seconds: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(self._ready, timeout_seconds)

    def _next_shown(self) -> Item:
        if self._closed:
            raise self._ended()
        return self._shown.popleft()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            event = self.poll(None)
        except Closed:
            raise StopIteration from None
        assert event is not None
        return event

    def __aiter__(self) -> AsyncIterator[Item]:
        return self.aiter()

    async def aiter(self) -> AsyncIterator[Item]:
        """Iterate in the running event loop."""
        while True:
            try:
                event = await self.next(None)
            except Closed:
                return
            assert event is not None
            yield event

    async def next(self, timeout_seconds: float | None) -> Item | None:
        """Await the next event; otherwise like `poll`."""
        end = None if timeout_seconds is None else monotonic() + timeout_seconds
        while not self._shown:
            left = None if end is None else max(0.0, end - monotonic())
            if not self._ready() and not await self._wait_ready(left):
                return None
            if not self._look():
                self._shown.extend(await asyncio.to_thread(self.resume))
        return self._next_shown()

    async def _wait_ready(self, timeout_seconds: float | None) -> bool:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the event loop of an abandoned listener is closed
                loop.call_soon_threadsafe(ready.set)

        self._awaken = wake
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self._ready():
                    ready.clear()
                    await ready.wait()
        except TimeoutError:
            return False
        finally:
            self._awaken = None
        return True

    def drain(self) -> list[Item]:
        """Return all ready items; if the feed is `overflowed` afterwards, `resume` continues it."""
        self._ask()
        shown, self._shown = list(self._shown), deque()
        with self._changed:
            events = list(self._events)
            self._clear()
        for event in events:
            found = self._lens.apply(event)
            if found is None:
                with self._changed:
                    self._clear()
                    # The rest of the queue is dropped: the fresh state that must be read now
                    # includes it.
                    self._overflowed = True
                break
            shown += found
        return shown

    def _ended(self) -> BaseException:
        why, self._why = self._why, None
        return why or Closed(f"the subscription to {self.path}")

    def end(self, why: BaseException) -> None:
        """End with an error: drop the queue, and raise `why` from the next read, once."""
        self._end(why)

    def close(self) -> None:
        """End the feed: iterators stop, waiting ones at once; idempotent."""
        self._end(None)

    def _end(self, why: BaseException | None) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed, self._why = True, why
            self._clear()
            self._notify()
        self._source.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _Plain:
    def apply(self, event: Event) -> list[Event]:
        return [event]

    def resync(self, event: Event) -> list[Event]:
        return [event]


PLAIN: Lens[Event] = _Plain()
"""Yields the events of the path unchanged."""


class Subscription(Feed[Event]):
    """A feed of `put` and `patch`; the first is `put "/"` with the value at the subscription."""


class ViewSubscription(Feed[ViewEvent]):
    """A feed of `value` and the four child events; those of existing children come first."""


class Callback:
    """Calls a function for each event of a feed, on its own thread.

    An exception of the function is logged; the next event is delivered nevertheless.

    Args:
        feed: closed with the callback.
        function: gets the value, and for the child events the child's key and the previous one.
    """

    def __init__(self, feed: ViewSubscription, function: Callable[..., object]) -> None:
        self._feed = feed
        self._function = function
        self._thread = threading.Thread(target=self._run, name=f"elkyn-on{feed.path}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except Denied as denied:
            _log.warning("the callback on %s has ended: %s", self._feed.path, denied)

    def _call(self) -> None:
        for event in self._feed:
            try:
                if event.type == "value":
                    self._function(event.value)
                else:
                    self._function(event.value, event.key, event.previous_key)
            except Exception:  # noqa: BLE001 - the user's function; the next change still counts
                _log.exception("a callback on %s failed", self._feed.path)

    def close(self) -> None:
        """Stop calling; waits for a call under way, unless that call is the one that closes."""
        self._feed.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
