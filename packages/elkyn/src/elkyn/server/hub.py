"""Fan-out: the events of a store to many clients, each event handled once for all of them.

A `Channel` listens to one node of one store. The committing thread only appends to it and wakes the
event loop once a tick; there the events of the tick become one `Batch`, which all followers of the
node share, encoded bytes included. A follower that takes too long loses what waits for it and starts
again from a fresh value.

Handing a batch to very many takes the loop a while. If all of them are patient, their channel rests as
long before the next batch: requests have their turn, and what is written meanwhile leaves together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from elkyn._lmdb.tree import ReadLimit
from elkyn.events import Event
from elkyn.paths import Path
from elkyn.server.feed import INLINE_ROWS, Batch, Feed, Opener, Opening

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["Channel", "Follower", "Hub"]

EVENTS_MAX = 1024
BYTES_MAX = 8 * 1024 * 1024
_CHANNEL_EVENTS_MAX = 20_000
_CHANNEL_BYTES_MAX = 64 * 1024 * 1024
_MANY = 100  # followers: a batch for fewer takes a millisecond at most
_REST_SECONDS_MAX = 0.02


class Hub:
    """The channels of one event loop.

    Args:
        loop: this one.
        settle: called between taking events and handing them out; see `Clients.settle`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settle: Callable[[], None] = lambda: None
    ) -> None:
        self.loop = loop
        self.settle = settle
        self._channels: dict[tuple[ElkynStore, Path], Channel] = {}
        self._dirty: deque[Channel] = deque()
        self._scheduled = False

    def follow(
        self,
        store: ElkynStore,
        path: Path,
        wake: Callable[[Feed], None],
        *,
        patient: bool = False,
    ) -> Follower:
        """Return a follower of `path`; call its `start`, and `close` when it is done.

        Args:
            store: what to follow.
            path: where in it.
            wake: see `Follower`.
            patient: whether events may come some milliseconds after the answer to their write.
        """
        channel = self._channels.get((store, path))
        if channel is None:
            channel = self._channels[store, path] = Channel(self, store, path)
        follower = Follower(channel, wake, patient=patient)
        channel.join(follower)
        return follower

    def notify(self, channel: Channel) -> None:
        """Have `channel` flushed in the loop's next turn; called on the committing thread."""
        if not channel.dirty:
            channel.dirty = True
            self._dirty.append(channel)
        if not self._scheduled and not self.loop.is_closed():
            self._scheduled = True
            self.loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._dirty:
            self._dirty.popleft().flush()

    def forget(self, channel: Channel) -> None:
        """Drop a channel that nobody follows any more."""
        del self._channels[channel.store, channel.path]


class Channel:
    """The one listener of this loop at a node; see the module."""

    def __init__(self, hub: Hub, store: ElkynStore, path: Path) -> None:
        self.hub = hub
        self.store = store
        self.path = path
        self.followers: set[Follower] = set()
        self.dirty = False
        self.delivered = 0  # events so far; changes on the committing thread alone
        self._attached = False
        self._waiting: deque[tuple[int, Event]] = deque()
        self._bytes_in = 0  # changes on the committing thread alone
        self._bytes_out = 0  # changes in the loop alone
        self._overrun = False
        self._impatient = 0  # followers
        self._resting = False

    def join(self, follower: Follower) -> None:
        """Add a follower."""
        self.followers.add(follower)
        self._impatient += not follower.patient

    def deliver(self, event: Event) -> None:
        """Take an event on the committing thread."""
        self.delivered += 1
        waiting_bytes = self._bytes_in - self._bytes_out
        if len(self._waiting) >= _CHANNEL_EVENTS_MAX or waiting_bytes > _CHANNEL_BYTES_MAX:
            self._overrun = True
        else:
            self._bytes_in += event.weight_bytes
            self._waiting.append((self.delivered, event))
        self.hub.notify(self)

    def flush(self) -> None:
        """Hand what waits to the followers, in the loop; not while the channel rests."""
        self.dirty = False
        if self._resting and not self._impatient and not self._overrun:
            return
        if self._overrun:
            self._drop_all()
            return
        waiting = self._waiting
        numbered = [waiting.popleft() for _ in range(len(waiting))]
        if not numbered:
            return
        started = time.monotonic()
        self.hub.settle()
        batch = Batch([event for _number, event in numbered], numbered[0][0])
        self._bytes_out += batch.weight_bytes
        first = batch.first
        for follower in tuple(self.followers):
            if not (follower.level and first > follower.mark and follower.sink(batch)):
                follower.receive(batch)
        if len(self.followers) >= _MANY and not self._resting:
            self._resting = True
            self.hub.loop.call_soon(self._rest, started)

    def _rest(self, started: float) -> None:
        """Rest as long as it took to hand out a batch: this runs when it has been sent."""
        seconds = min(time.monotonic() - started, _REST_SECONDS_MAX)
        self.hub.loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self.flush()

    def _drop_all(self) -> None:
        self._overrun = False
        for _ in range(len(self._waiting)):
            self._bytes_out += self._waiting.popleft()[1].weight_bytes
        for follower in tuple(self.followers):
            follower.lose()

    def begin(self, opener: Opener, *, at_once: bool = False) -> tuple[Opening, int]:
        """Return what a follower starts with, and the count of events already in it; blocks.

        Raises:
            BlockingIOError, ReadLimit: it takes long, and was to be `at_once`.
        """
        if not self._attached:
            self._attached = True
            self.store.attach(self.path, self)
        mark = 0

        def note() -> None:
            nonlocal mark
            mark = self.delivered

        rows_max = INLINE_ROWS if at_once else None
        with self.store.snapshot_at(note, rows_max=rows_max, wait=not at_once) as view:
            return opener(view), mark

    def leave(self, follower: Follower) -> None:
        """Forget a follower, and the whole channel with the last one."""
        self.followers.discard(follower)
        self._impatient -= not follower.patient
        if not self.followers:
            self.hub.forget(self)
            self.store.detach(self.path, self)


class Follower(Feed):
    """One client's place in a channel.

    Args:
        channel: of the node.
        wake: called in the loop with the follower when something waits.
        patient: see `Hub.follow`.

    Attributes:
        sink: takes a batch at once and returns True, or False to have it wait.
        level: whether all events so far were handed out.
        mark: the number of the last event that the follower has had with its start.
    """

    __slots__ = (  # there are hundreds of thousands
        "_bytes",
        "_closed",
        "_events",
        "_lost",
        "_pending",
        "_starting",
        "_wake",
        "channel",
        "level",
        "mark",
        "patient",
        "sink",
    )

    def __init__(
        self, channel: Channel, wake: Callable[[Feed], None], *, patient: bool = False
    ) -> None:
        self.channel = channel
        self.patient = patient
        self.sink: Callable[[Batch], bool] = _take_none
        self.level = False
        self.mark = 0
        self._wake = wake
        self._pending: list[Batch] = []
        self._events = 0
        self._bytes = 0
        self._starting = True
        self._lost = False
        self._closed = False

    def receive(self, batch: Batch) -> None:
        """Keep what is new of a batch for `take`, or fall behind."""
        newer = batch.since(self.mark)
        if newer is None or self._lost:
            return
        self.level = False
        self._events += len(batch.events)
        self._bytes += batch.weight_bytes
        over = self._events > EVENTS_MAX or self._bytes > BYTES_MAX
        if over and (self._pending or self._starting):
            self.lose()
            return
        self._pending.append(newer)
        if not self._starting:
            self._wake(self)

    def lose(self) -> None:
        """Forget what waits: the client is too slow."""
        self._clear()
        self._lost = True
        self.level = False
        if not self._starting:
            self._wake(self)

    def _clear(self) -> None:
        self._pending = []
        self._events = self._bytes = 0

    async def start(self, opener: Opener) -> Opening:
        """Return the value now (see `Feed.start`)."""
        while True:
            self._clear()
            self._lost = False
            self._starting = True
            self.level = False
            try:
                opening, mark = self.channel.begin(opener, at_once=True)
            except (BlockingIOError, ReadLimit):
                opening, mark = await asyncio.to_thread(self.channel.begin, opener)
            if self._lost:
                continue
            self._starting = False
            self._skip(mark)
            self.level = not self._pending
            if self._pending:
                self._wake(self)
            return opening

    def _skip(self, mark: int) -> None:
        newer = [batch.since(mark) for batch in self._pending]
        self._pending = [batch for batch in newer if batch is not None]
        self.mark = mark

    def take(self) -> list[Batch] | None:
        """Return what waits, None when it was lost."""
        if self._lost:
            return None
        batches = self._pending
        self._clear()
        self.level = not self._starting
        return batches

    def close(self) -> None:
        """Leave the channel; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._clear()
            self.channel.leave(self)


def _take_none(_batch: Batch) -> bool:
    return False
