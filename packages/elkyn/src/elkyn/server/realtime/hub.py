"""Fan-out: deliver the events of a store to many clients, handling each event once for all of them.

A `Channel` listens to one node of one store. The committing thread only appends events to it and
wakes the event loop once per tick; there the events of the tick become one `Batch`, which all
followers of the node share, including the encoded bytes. A follower that is too slow drops its
queue and restarts from a fresh value.

Delivering a batch to very many followers keeps the loop busy for a while. If all of them are
batched (`Hub.follow`), their channel pauses for the same time before the next batch: requests are
served meanwhile, and the events of the pause are sent together.

The path of an event:

    committing thread                        |  event loop
    Channel.deliver -> _waiting, _bytes_in   |
    Hub.notify -> _dirty, one wake-up        |  Hub._flush -> Channel.flush -> Batch
                                             |     sink(batch)       connection accepts it at once
                                             |     receive(batch)    queued; `wake` -> dequeue
                                             |     over the bounds   queue dropped; `start` again

An opening is read at a place in the order of commits (`StoreAdmin.snapshot_at`): its mark is the
number of the last event that it includes, and a follower is sent exactly the events with greater
numbers.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from elkyn.server.realtime.feed import INLINE_ROWS, Batch, Feed, Opener, Opening
from elkyn.storage.row_tree import ReadLimit
from elkyn.tree.events import Event
from elkyn.tree.paths import Path

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["Channel", "Follower", "Hub"]

# Bounds of memory, not of correctness: a follower whose queue was dropped reads the value again.
EVENTS_MAX = 1024  # queued for one follower; over this or `BYTES_MAX` its queue is dropped
BYTES_MAX = 8 * 1024 * 1024
# Reached only when the loop itself is busy for long: it empties the channel in each iteration.
_CHANNEL_EVENTS_MAX = 20_000  # waiting for the event loop, for all followers of a node
_CHANNEL_BYTES_MAX = 64 * 1024 * 1024
# An event for many streams keeps the loop busy.
_PAUSE_FOLLOWERS_MIN = 100  # no pause for fewer: their batch is soon delivered
# An event is delivered at most this much later than without a pause.
_PAUSE_SECONDS_MAX = 0.02


class Hub:
    """The channels of one event loop.

    Args:
        loop: the event loop.
        recheck_affected: called between dequeuing events and delivering them; see `Clients.recheck_affected`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, recheck_affected: Callable[[], None] = lambda: None
    ) -> None:
        self.loop = loop
        self.recheck_affected = recheck_affected
        # A channel is here iff it has followers.
        self._channels: dict[tuple[ElkynStore, Path], Channel] = {}
        # Channels with `dirty` set. Appended by committing threads, popped in the loop; both are
        # atomic.
        self._dirty: deque[Channel] = deque()
        # True while a `_flush` is queued to the loop, so that a burst of commits wakes it once.
        # `_flush` resets it before it looks at `_dirty`: a channel appended later schedules the
        # next one.
        self._scheduled = False

    def follow(
        self,
        store: ElkynStore,
        path: Path,
        wake: Callable[[Feed], None],
        *,
        batched: bool = False,
    ) -> Follower:
        """Return a follower of `path`; call its `start`, and `close` at the end.

        Args:
            store: the store to follow.
            path: the node to follow.
            wake: see `Follower`.
            batched: whether events may be delivered some milliseconds after the answer to their
                write.
        """
        channel = self._channels.get((store, path))
        if channel is None:
            channel = self._channels[store, path] = Channel(self, store, path)
        follower = Follower(channel, wake, batched=batched)
        channel.join(follower)
        return follower

    def notify(self, channel: Channel) -> None:
        """Flush `channel` in the loop's next iteration; called on the committing thread."""
        # Called under the lock of the store's writer. Two stores may commit at the same time; at
        # worst `_flush` is then scheduled twice, and the second one finds nothing.
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
        """Remove a channel that has no followers any more."""
        del self._channels[channel.store, channel.path]


class Channel:
    """The only listener of this event loop at a node; see the module."""

    def __init__(self, hub: Hub, store: ElkynStore, path: Path) -> None:
        self.hub = hub
        self.store = store
        self.path = path
        self.followers: set[Follower] = set()
        self.dirty = False  # whether the hub has scheduled a flush
        # The event's number; `mark` of an opening refers to it. Never reset.
        self.delivered = 0  # events so far; written by the committing thread only
        self._attached = False  # whether the store delivers events here
        self._waiting: deque[tuple[int, Event]] = deque()  # appended there, popped in the loop
        # Two counters with one writer each need no lock: their difference is what waits.
        self._bytes_in = 0  # written by the committing thread only
        self._bytes_out = 0  # written by the event loop only
        self._overrun = False  # events were dropped: every follower must restart
        self._unbatched = 0  # count of followers that are not batched
        # True from the end of a delivery to at least `_PAUSE_FOLLOWERS_MIN` followers until
        # `_end_pause`.
        self._pausing = False

    def join(self, follower: Follower) -> None:
        """Add a follower."""
        self.followers.add(follower)
        self._unbatched += not follower.batched

    def deliver(self, event: Event) -> None:
        """Queue an event; called on the committing thread."""
        self.delivered += 1
        waiting_bytes = self._bytes_in - self._bytes_out
        if len(self._waiting) >= _CHANNEL_EVENTS_MAX or waiting_bytes > _CHANNEL_BYTES_MAX:
            self._overrun = True
        else:
            self._bytes_in += event.weight_bytes
            self._waiting.append((self.delivered, event))
        self.hub.notify(self)

    def flush(self) -> None:
        """Deliver queued events to the followers, unless the channel pauses; runs in the loop."""
        self.dirty = False
        # Events stay in `_waiting`, and `_end_pause` flushes them together. Sockets are unbatched:
        # their clients count on the events of their own write before the answer to it.
        if self._pausing and not self._unbatched and not self._overrun:
            return
        if self._overrun:
            self._drop_all()
            return
        waiting = self._waiting
        # Only as many as there are now: the committing thread may append meanwhile.
        numbered = [waiting.popleft() for _ in range(len(waiting))]
        if not numbered:
            return
        started = time.monotonic()
        # After dequeuing: what the commits of these events wrote was noted before they were
        # delivered, so every permission that one of them ends is held before the event is sent (see
        # `Clients`).
        self.hub.recheck_affected()
        batch = Batch([event for _number, event in numbered], numbered[0][0])
        self._bytes_out += batch.weight_bytes
        first = batch.first
        # A copy, because a sink may close its follower. A follower with an empty queue whose
        # opening is older than the batch may send it at once; any other order would let it overtake
        # queued events.
        for follower in tuple(self.followers):
            if not (follower.caught_up and first > follower.mark and follower.sink(batch)):
                follower.receive(batch)
        if len(self.followers) >= _PAUSE_FOLLOWERS_MIN and not self._pausing:
            self._pausing = True
            # In the next iteration, so that the time of the writes to the connections is included.
            self.hub.loop.call_soon(self._pause, started)

    def _pause(self, started: float) -> None:
        """Pause for as long as the delivery of a batch took; runs after the batch was sent."""
        seconds = min(time.monotonic() - started, _PAUSE_SECONDS_MAX)
        self.hub.loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._pausing = False
        self.flush()

    def _drop_all(self) -> None:
        self._overrun = False
        # Event by event, so that `_bytes_out` remains the sum of what has left.
        for _ in range(len(self._waiting)):
            self._bytes_out += self._waiting.popleft()[1].weight_bytes
        for follower in tuple(self.followers):
            follower.overflow()

    def begin(self, opener: Opener, *, at_once: bool = False) -> tuple[Opening, int]:
        """Return a follower's opening, and the number of the last event that it includes; blocks.

        Raises:
            BlockingIOError, ReadLimit: `at_once` is set, and the read would block or is long.
        """
        if not self._attached:
            # Before the first opening is read, so that no event after its mark is missed. Always in
            # the loop, because `Follower.start` first tries `at_once`: no other follower can read
            # in between.
            self._attached = True
            self.store.admin.attach(self.path, self)
        mark = 0

        def note() -> None:
            nonlocal mark
            mark = self.delivered

        rows_max = INLINE_ROWS if at_once else None
        # `note` runs while no commit is under way: every event up to `mark` is in the snapshot, and
        # no later one is.
        with self.store.admin.snapshot_at(note, rows_max=rows_max, wait=not at_once) as view:
            return opener(view), mark

    def leave(self, follower: Follower) -> None:
        """Remove a follower, and the whole channel with its last follower."""
        self.followers.discard(follower)
        self._unbatched -= not follower.batched
        if not self.followers:
            self.hub.forget(self)
            self.store.admin.detach(self.path, self)


class Follower(Feed):
    """One client's subscription to a channel, with the queue of its batches.

    Args:
        channel: the channel of the node.
        wake: called in the loop with the follower when batches are queued.
        batched: see `Hub.follow`.

    Attributes:
        sink: sends a batch at once and returns True, or returns False to have it queued.
        caught_up: whether the queue is empty, so that the next batch may go to `sink`.
        mark: the number of the last event that the follower's opening included.
    """

    __slots__ = (  # there are hundreds of thousands
        "_bytes",
        "_closed",
        "_events",
        "_overflowed",
        "_pending",
        "_starting",
        "_wake",
        "batched",
        "caught_up",
        "channel",
        "mark",
        "sink",
    )

    def __init__(
        self, channel: Channel, wake: Callable[[Feed], None], *, batched: bool = False
    ) -> None:
        self.channel = channel
        self.batched = batched
        self.sink: Callable[[Batch], bool] = _send_none
        self.caught_up = False
        self.mark = 0
        self._wake = wake
        # Batches with numbers above `mark`, in order; their sum is bounded by `EVENTS_MAX` and
        # `BYTES_MAX`.
        self._pending: list[Batch] = []
        self._events = 0
        self._bytes = 0
        self._starting = True  # `start` reads the opening: batches are queued without a wake-up
        self._overflowed = False  # the queue was dropped: the client must `start` again
        self._closed = False

    def receive(self, batch: Batch) -> None:
        """Queue the part of a batch after `mark`, or drop the queue when it is too long."""
        newer = batch.since(self.mark)
        if newer is None or self._overflowed:
            return
        self.caught_up = False
        self._events += len(batch.events)
        self._bytes += batch.weight_bytes
        # A single batch may exceed the bounds: it is shared by all followers and exists anyway.
        over = self._events > EVENTS_MAX or self._bytes > BYTES_MAX
        if over and (self._pending or self._starting):
            self.overflow()
            return
        self._pending.append(newer)
        if not self._starting:
            self._wake(self)

    def overflow(self) -> None:
        """Drop the queue: the client is too slow."""
        self._clear()
        self._overflowed = True
        self.caught_up = False
        if not self._starting:
            self._wake(self)

    def _clear(self) -> None:
        self._pending = []
        self._events = self._bytes = 0

    async def start(self, opener: Opener) -> Opening:
        """Return the current value (see `Feed.start`)."""
        while True:
            self._clear()
            self._overflowed = False
            # `channel.begin` may run on a thread: batches delivered meanwhile are queued, and those
            # that the opening includes are skipped once its mark is known.
            self._starting = True
            self.caught_up = False
            try:
                # In the loop if no commit is under way and the read is short: a hop to a thread
                # costs more than such a read.
                opening, mark = self.channel.begin(opener, at_once=True)
            except (BlockingIOError, ReadLimit):
                opening, mark = await asyncio.to_thread(self.channel.begin, opener)
            # The queue was dropped during the read: what is missing may be after the mark, so read
            # again.
            if self._overflowed:
                continue
            self._starting = False
            self._skip(mark)
            self.caught_up = not self._pending
            if self._pending:
                self._wake(self)
            return opening

    def _skip(self, mark: int) -> None:
        newer = [batch.since(mark) for batch in self._pending]
        self._pending = [batch for batch in newer if batch is not None]
        self.mark = mark

    def dequeue(self) -> list[Batch] | None:
        """Return the queued batches; None when the queue was dropped."""
        if self._overflowed:
            return None
        batches = self._pending
        self._clear()
        # From here on the client has everything, and the next batch may bypass the queue.
        self.caught_up = not self._starting
        return batches

    def close(self) -> None:
        """Leave the channel; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._clear()
            self.channel.leave(self)


def _send_none(_batch: Batch) -> bool:
    return False
