"""Stops what runs on behalf of a query, wherever that is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from sennit_core.errors import Cancelled, DeadlineExceeded

__all__ = ["SECONDS_MAX", "Stop", "result_of"]

T = TypeVar("T")

SECONDS_MAX = 3600.0
"""The longest time for a part of a query at another node."""


class Stop:
    """Stops what was attached to it, now or when it is attached; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: list[Callable[[], object]] = []
        self.stopped = False

    def attach(self, action: Callable[[], object]) -> None:
        """Call a function at the stop, at once if that was before."""
        with self._lock:
            self._actions.append(action)
            stopped = self.stopped
        if stopped:
            action()

    def stop(self) -> None:
        """Stop."""
        with self._lock:
            self.stopped = True
            actions = list(self._actions)
        for action in actions:
            action()


def result_of(future: Future[T], what: str, seconds: float, stop: Stop) -> T:
    """Wait for what runs in another thread; end it there at the stop and after the time.

    Args:
        future: Its result.
        what: What it does, for errors.
        seconds: The longest time to wait.
        stop: Stops it.

    Raises:
        Cancelled: It was stopped.
        DeadlineExceeded: It was not done in time.
    """
    stop.attach(future.cancel)
    try:
        return future.result(seconds)
    except FutureTimeout:
        future.cancel()
        raise DeadlineExceeded(what, seconds) from None
    except FutureCancelled:
        raise Cancelled(what) from None
