"""One thread that receives from all executor processes of a pool and runs its timers."""

from __future__ import annotations

import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from sennit_core.logs import get_logger

_log = get_logger("emsqrt.executor")

Callback = Callable[[], None]
_WAIT_SECONDS_MAX = 3600.0  # a selector rejects waits of centuries, which deadlines may ask for


class Loop:
    """Calls back when a socket is readable or a time has come; all callbacks run on its own thread.

    Args:
        next_due: returns when `on_due` is to be called next, by `time.monotonic`; None for never.
            Called each time before the loop sleeps: `wake_by` that time when it moves forward.
        on_due: called at that time.
    """

    def __init__(self, next_due: Callable[[], float | None], on_due: Callback) -> None:
        self._next_due = next_due
        self._on_due = on_due
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._drain_wakes)
        self._soon: deque[Callback] = deque()
        # When the loop calls `next_due` again at the latest. It sleeps no longer than it meant to
        # before, so that of many runs that end before their deadlines only the first one wakes it.
        self._until = math.inf
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="emsqrt-pool", daemon=True)
        self._thread.start()

    def call(self, callback: Callback) -> None:
        """Run a callback on the loop's thread as soon as it is free; from any thread."""
        self._soon.append(callback)
        self.wake()

    def wake(self) -> None:
        """Make the loop call `next_due` again; from any thread."""
        with suppress(OSError):
            self._wake_sender.send(b"\0")

    def wake_by(self, due: float) -> None:
        """Make the loop call `next_due` at that time at the latest; from any thread.

        What `next_due` returns must have changed before.
        """
        if due < self._until:
            self.wake()

    def watch(self, sock: socket.socket, on_readable: Callback) -> None:
        """Call back whenever the socket can be read; from any thread."""
        self.call(lambda: self._watch(sock, on_readable))

    def forget(self, sock: socket.socket) -> None:
        """Stop watching the socket; on the loop's thread only."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def close(self) -> None:
        """End the thread; what was scheduled is dropped."""
        self._closing = True
        self.wake()
        self._thread.join()
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def _watch(self, sock: socket.socket, on_readable: Callback) -> None:
        if sock.fileno() >= 0:
            self._selector.register(sock, selectors.EVENT_READ, on_readable)

    def _run(self) -> None:
        while not self._closing:
            # Before `next_due`: who changes its result after that call sees the new time, and wakes.
            if self._until <= time.monotonic():
                self._until = math.inf
            due = self._next_due()
            if due is not None:
                self._until = min(self._until, due)
            until = self._until
            wait_seconds = None if until == math.inf else _wait_seconds(until)
            for key, _ in self._selector.select(wait_seconds):
                self._guarded(key.data)
            while self._soon:
                self._guarded(self._soon.popleft())
            if due is not None and due <= time.monotonic():
                self._guarded(self._on_due)

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            self._wake_receiver.recv(4096)

    def _guarded(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - one execution's trouble must not end the others
            _log.exception("a callback of the executor pool failed")


def _wait_seconds(due: float) -> float:
    return min(max(due - time.monotonic(), 0.0), _WAIT_SECONDS_MAX)
