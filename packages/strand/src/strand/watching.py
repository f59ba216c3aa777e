"""A thread that sleeps on bells on behalf of event loops, one for all waits of this process.

A futex has no descriptor that an event loop could poll, so a thread has to block in the kernel
instead. The thread never reads a ring: it only reports to the loop that a bell was rung. It starts
with the first wait, and ends when no task has waited for a while.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

from strand import _native
from strand.role import NAP_NANOSECONDS

__all__ = ["nap"]

_IDLE_NANOSECONDS = 5_000_000_000  # then the thread ends, so that an idle process has none
_NAP_SECONDS = NAP_NANOSECONDS / 1e9


async def nap(bell: Any, seen: int, seconds: float = _NAP_SECONDS) -> bool:
    """Sleep until a bell is rung, or for one nap; return whether it was. Other tasks run meanwhile.

    Args:
        bell: four aligned bytes.
        seen: the bell's value, read before the ring was checked.
        seconds: how long to sleep at most.
    """
    loop = asyncio.get_running_loop()
    sleep = _Sleep(bell, seen, loop)
    timer = loop.call_later(min(seconds, _NAP_SECONDS), sleep.finish, False)
    _watcher.add(sleep)
    try:
        return await sleep.woken
    finally:
        timer.cancel()
        _watcher.discard(sleep)


class _Sleep:
    """The wait of one task."""

    def __init__(self, bell: Any, seen: int, loop: asyncio.AbstractEventLoop) -> None:
        self.bell = bell
        self.seen = seen
        self.loop = loop
        self.woken: asyncio.Future[bool] = loop.create_future()

    def finish(self, rung: bool) -> None:
        """End the wait; in the loop's thread."""
        if not self.woken.done():
            self.woken.set_result(rung)


class _Watcher:
    """The thread and the waits that it serves. Its own bell is rung when the set changes."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start without waits and without a thread: at import, and in a forked child."""
        self._lock = threading.Lock()  # over the two fields below; the bell is rung under it
        self._sleeps: set[_Sleep] = set()
        self._running = False
        self._bell = memoryview(bytearray(4)).cast("B")

    def add(self, sleep: _Sleep) -> None:
        """Add a wait; start the thread if it does not run."""
        with self._lock:
            self._sleeps.add(sleep)
            if self._running:
                _native.ring_bell(self._bell)
                return
            self._running = True
        threading.Thread(target=self._run, name="strand-watcher", daemon=True).start()

    def discard(self, sleep: _Sleep) -> None:
        """Remove a finished wait; the thread releases its bell."""
        with self._lock:
            if sleep in self._sleeps:
                self._sleeps.discard(sleep)
                _native.ring_bell(self._bell)

    def _run(self) -> None:
        while self._watch_once():
            pass  # between two calls this frame refers to no ring, so rings can be released

    def _watch_once(self) -> bool:
        """Sleep until a bell is rung, and wake its task; False when the thread should end."""
        # The bell before the set, as in _words.h: a wait that is added later rings, so the nap finds
        # the bell changed and returns at once.
        with self._lock:
            seen = int.from_bytes(self._bell, "little")
            sleeps = list(self._sleeps)
        bells = [self._bell, *[sleep.bell for sleep in sleeps]]
        numbers = [seen, *[sleep.seen for sleep in sleeps]]
        rung = _native.nap_any(bells, numbers, _IDLE_NANOSECONDS)
        woken = [sleeps[at - 1] for at in rung if at > 0]
        with self._lock:
            self._sleeps.difference_update(woken)
            if not rung:
                self._sleeps = {sleep for sleep in self._sleeps if not sleep.loop.is_closed()}
                self._running = bool(self._sleeps)
                return self._running
        for sleep in woken:
            with suppress(RuntimeError):  # its loop was closed meanwhile
                sleep.loop.call_soon_threadsafe(sleep.finish, True)
        return True


_watcher = _Watcher()
os.register_at_fork(after_in_child=_watcher.reset)
