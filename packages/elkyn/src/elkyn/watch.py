"""Subscriptions: the events of one path, to iterate, to await, or to have called back.

What waits for a slow listener is bounded. When the bound is passed the queue is dropped and the
listener gets the current value as a fresh `put "/"`, after which events go on from there.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Self

from elkyn.events import Event, replay
from elkyn.paths import Path, format_path
from elkyn.values import Stored, present
from sennit_core.errors import Closed
from sennit_core.logs import get_logger

__all__ = ["Callback", "Subscription"]

QUEUE_EVENTS_MAX = 1024
QUEUE_BYTES_MAX = 8 * 1024 * 1024

_log = get_logger(__name__)


class Subscription:
    """The events of one path in commit order, without gap or duplicate; for one consumer.

    Iterate it, `async for` over it, or `poll` it; close it, or use it as a context manager. The
    first event is `put "/"` with the value at the time of the call that made it.

    Args:
        path: the watched path.
        restart: empties the queue by `reset`, reads the value at that instant and returns it as the
            event to go on from.
        release: tells the store that the subscription is closed.
        queue_events: how many events may wait.
        queue_bytes: how much memory they may take, estimated.
    """

    def __init__(
        self,
        path: Path,
        restart: Callable[[Subscription], Event],
        release: Callable[[Subscription], None],
        *,
        queue_events: int = QUEUE_EVENTS_MAX,
        queue_bytes: int = QUEUE_BYTES_MAX,
    ) -> None:
        self.keys = path
        self._restart = restart
        self._release = release
        self._queue_events = queue_events
        self._queue_bytes = queue_bytes
        self._events: deque[Event] = deque()
        self._waiting_bytes = 0
        self._lost = False
        self._closed = False
        self._changed = threading.Condition()
        self._wake: Callable[[], None] | None = None

    @property
    def path(self) -> str:
        """The watched path."""
        return format_path(self.keys)

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self._closed

    def deliver(self, event: Event) -> None:
        """Queue `event` (the store calls this)."""
        with self._changed:
            if self._closed or self._lost:
                return
            bytes_now = self._waiting_bytes + event.weight_bytes
            too_many = len(self._events) >= self._queue_events
            if too_many or (self._events and bytes_now > self._queue_bytes):
                self._clear()
                self._lost = True
            else:
                self._events.append(event)
                self._waiting_bytes = bytes_now
            self._notify()

    def reset(self) -> None:
        """Forget what waits; the store calls this at the instant of a fresh value."""
        with self._changed:
            self._clear()
            self._lost = False

    def start(self) -> None:
        """Queue the first event (the store calls this)."""
        first = self._restart(self)
        with self._changed:
            self._events.appendleft(first)
            self._waiting_bytes += first.weight_bytes
            self._notify()

    def _clear(self) -> None:
        self._events.clear()
        self._waiting_bytes = 0

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            self._wake()

    def _ready(self) -> bool:
        return bool(self._events) or self._lost or self._closed

    def _take(self) -> Event | None:
        """Return a queued event; None when the listener was too slow and must restart.

        Raises:
            Closed: there will be no more.
        """
        with self._changed:
            if self._closed:
                raise Closed(f"the subscription to {self.path}")
            if self._lost:
                return None
            event = self._events.popleft()
            self._waiting_bytes -= event.weight_bytes
            return event

    def poll(self, timeout_seconds: float | None = 0.0) -> Event | None:
        """Return the next event, None when none came within `timeout_seconds` (None: wait).

        Raises:
            Closed: the subscription or its store is closed.
        """
        with self._changed:
            if not self._changed.wait_for(self._ready, timeout_seconds):
                return None
        event = self._take()
        return self._restart(self) if event is None else event

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            event = self.poll(None)
        except Closed:
            raise StopIteration from None
        assert event is not None
        return event

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.aiter()

    async def aiter(self) -> AsyncIterator[Event]:
        """Iterate in the running event loop."""
        while True:
            try:
                event = await self.next(None)
            except Closed:
                return
            assert event is not None
            yield event

    async def next(self, timeout_seconds: float | None) -> Event | None:
        """Await the next event; otherwise as `poll`."""
        if not self._ready() and not await self._wait_ready(timeout_seconds):
            return None
        event = self._take()
        return await asyncio.to_thread(self._restart, self) if event is None else event

    async def _wait_ready(self, timeout_seconds: float | None) -> bool:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed under a listener that left
                loop.call_soon_threadsafe(ready.set)

        self._wake = wake
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self._ready():
                    ready.clear()
                    await ready.wait()
        except TimeoutError:
            return False
        finally:
            self._wake = None
        return True

    def take_waiting(self) -> list[Event]:
        """Return what waits now, all at once; empty also when the listener must restart."""
        with self._changed:
            events = list(self._events)
            self._clear()
            return events

    def close(self) -> None:
        """End: iterators stop, waiting ones at once; closing twice is fine."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._clear()
            self._notify()
        self._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Callback:
    """Calls a function with the value of a path, now and after every change, on its own thread.

    What the function raises is logged; the next change is delivered all the same.
    """

    def __init__(self, subscription: Subscription, function: Callable[[Any], object]) -> None:
        self._subscription = subscription
        self._function = function
        self._thread = threading.Thread(
            target=self._run, name=f"elkyn-on{subscription.path}", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        value: Stored = None
        for event in self._subscription:
            value = replay(value, event)
            try:
                self._function(present(value))
            except Exception:  # noqa: BLE001 - the user's function; the next change still counts
                _log.exception("a callback on %s failed", self._subscription.path)

    def close(self) -> None:
        """Call no more; waits for a call under way unless it is the one that closes."""
        self._subscription.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
