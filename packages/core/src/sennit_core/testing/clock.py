"""A clock that moves only when a test advances it."""

from __future__ import annotations

import threading

__all__ = ["ManualClock"]


class ManualClock:
    """A `Clock` for tests: `advance` moves it, `sleep` moves it too and returns at once.

    Args:
        now: the Unix time in seconds at which it starts.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        """Return its Unix time in seconds."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Return the seconds it was advanced since it was made."""
        with self._lock:
            return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds` without waiting."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`, which must not be negative."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards; set_back({-seconds}) moves the date")
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def set_back(self, seconds: float) -> None:
        """Set the date back by `seconds`, as an operator may; `monotonic` is not touched."""
        with self._lock:
            self._now -= seconds
