"""Stops what runs on behalf of a query, wherever that is."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["SECONDS_MAX", "Stop"]

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
