"""Group commit for an event loop: one thread commits the queued writes of all requests.

One commit costs one sync of the disk, however many writes it holds. No timer collects a group: the
writes that wait when a commit ends are the next group, so an idle server commits at once and a busy
one in groups. A write that is refused inside the transaction (an ETag that differs, a rule) has
changed nothing yet, so it does not spoil the others of its group.

    event loop:     queue w1 | queue w2, w3, w4 |            | done(w1)   | done(w2, w3, w4)
    elkyn-commit:            [ commit w1, sync ][ commit w2, w3, w4, sync ]
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from elkyn.storage.writer import Write
from elkyn.store import ElkynStore
from sennit_core.errors import Busy, Closed

__all__ = ["Committer"]

# The writes of a group to one store are one LMDB transaction for each kind (durable or ephemeral):
# its pages stay in memory until the commit, and its first write waits for the last.
_GROUP_MAX = 1000  # writes in one commit
_WAITING_MAX = 20_000  # queued writes; one more is refused
_YIELD_SECONDS = 0.005  # the interpreter's switch interval: how long it lets a thread run at most


class _QueuedWrite(NamedTuple):
    store: ElkynStore
    write: Write
    done: Callable[[], object]
    loop: asyncio.AbstractEventLoop


class Committer:
    """Commits writes on its own thread; writes queued during a commit share the next commit."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_QueuedWrite | None] = queue.SimpleQueue()
        # Started by the first write: an app that is never written to has no thread.
        self._thread: threading.Thread | None = None
        # Orders `queue` and `close`: nothing may be queued after the None that ends the thread.
        self._lock = threading.Lock()
        self._closed = False
        self._committing: ElkynStore | None = None  # until the loop has yielded to it once
        # Written by the committing thread only; read for metrics.
        self.commits = 0
        self.seconds = 0.0

    @property
    def waiting(self) -> int:
        """Number of queued writes."""
        return self._queue.qsize()

    def commit(self, store: ElkynStore, write: Write) -> asyncio.Future[None]:
        """Queue `write`; the returned future is done when the write was committed or has failed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self.queue(store, write, partial(_resolve, done), loop)
        return done

    def queue(
        self,
        store: ElkynStore,
        write: Write,
        done: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Queue `write` after those queued before.

        Args:
            store: the store to write to.
            write: the write; when `done` is called it is committed, or `write.error` is set.
            done: called after the commit; must not raise.
            loop: the event loop that calls `done`.

        Raises:
            Busy: too many writes are queued already.
        """
        if self._queue.qsize() >= _WAITING_MAX:
            raise Busy("too many writes are waiting; try again in a second")
        with self._lock:
            if self._closed:
                raise Closed("the server")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="elkyn-commit", daemon=True)
                self._thread.start()
            self._queue.put(_QueuedWrite(store, write, done, loop))

    def _run(self) -> None:
        while True:
            group, last = self._next_group()
            by_store: dict[ElkynStore, list[Write]] = {}
            for store, write, _done, _loop in group:
                by_store.setdefault(store, []).append(write)
            started = time.perf_counter()
            # Each store has a writer of its own, which makes one transaction of successive writes
            # of one kind (durable or ephemeral).
            for store, writes in by_store.items():
                self._committing = store
                _apply(store, writes)
            self._committing = None
            self.commits += len(by_store)
            self.seconds += time.perf_counter() - started
            # Answers come after all stores of the group. Events of a commit were queued to the loop
            # by `_apply` before, and the loop runs callbacks in order: a socket sends an event
            # before the answer to its write.
            _answer(group)
            if last:
                return

    def _next_group(self) -> tuple[list[_QueuedWrite], bool]:
        """Wait for a write and dequeue all others; the flag is True when `close` was called."""
        group: list[_QueuedWrite] = []
        queued = self._queue.get()
        while queued is not None:
            group.append(queued)
            # `empty` may miss a write that is just being queued; it becomes the first of the next
            # group.
            if len(group) >= _GROUP_MAX or self._queue.empty():
                return group, False
            queued = self._queue.get()
        return group, True

    def yield_to_writer(self) -> None:
        """Let the committing thread run before other work, once per group; called in the loop."""
        # Set to None by the first call, so the loop yields once a group: the writes are made in
        # that time, and while they are synced the interpreter is free anyway.
        store, self._committing = self._committing, None
        if store is not None:
            store.admin.yield_to_writer(_YIELD_SECONDS)

    def close(self) -> None:
        """Commit the queued writes and end the thread; closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # Everything queued before it is committed: `_next_group` returns it together with the
            # end.
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()


def _apply(store: ElkynStore, writes: list[Write]) -> None:
    try:
        store.admin.apply(writes)
    except Exception as error:  # noqa: BLE001 - each request is answered with it
        # The writer reports a failed transaction (a full disk, say) in each of its writes. What
        # it raises itself concerns the writes that it has not attempted.
        for write in writes:
            if not write.done:
                write.error = error


def _answer(group: list[_QueuedWrite]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], object]]] = {}
    for _store, _write, done, loop in group:
        by_loop.setdefault(loop, []).append(done)
    for loop, callbacks in by_loop.items():
        if not loop.is_closed():
            # One wake-up of the loop for the whole group; a wake-up writes to the loop's own
            # socket.
            loop.call_soon_threadsafe(_call_all, callbacks)


def _call_all(callbacks: list[Callable[[], object]]) -> None:
    for callback in callbacks:
        callback()


def _resolve(future: asyncio.Future[None]) -> None:
    # Done already if the request was cancelled; the write is committed all the same.
    if not future.done():
        future.set_result(None)
