"""One thread that hears from all executor processes of a pool and keeps their deadlines."""

from __future__ import annotations

import heapq
import itertools
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


class Loop:
    """Calls back when a socket is readable or a moment has come; everything on its own thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._drain_wakes)
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="emsqrt-pool", daemon=True)
        self._thread.start()

    def call(self, callback: Callback) -> None:
        """Call back on the loop's thread as soon as it is free; from any thread."""
        self._soon.append(callback)
        with suppress(OSError):
            self._wake_sender.send(b"\0")

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call back after `seconds`; from any thread. A callback judges itself whether it is due."""
        due = time.monotonic() + seconds
        self.call(lambda: heapq.heappush(self._timers, (due, next(self._order), callback)))

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
        self.call(lambda: None)
        self._thread.join()
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def _watch(self, sock: socket.socket, on_readable: Callback) -> None:
        if sock.fileno() >= 0:
            self._selector.register(sock, selectors.EVENT_READ, on_readable)

    def _run(self) -> None:
        while not self._closing:
            wait_seconds = None
            if self._timers:
                wait_seconds = max(self._timers[0][0] - time.monotonic(), 0.0)
            for key, _ in self._selector.select(wait_seconds):
                self._guarded(key.data)
            while self._soon:
                self._guarded(self._soon.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._guarded(heapq.heappop(self._timers)[2])

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            self._wake_receiver.recv(4096)

    def _guarded(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - one execution's trouble must not end the others
            _log.exception("a callback of the executor pool failed")
