"""Leases of attempts, and how long the tasks of a job last."""

from __future__ import annotations

from bisect import insort
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

__all__ = ["Durations", "Timers"]

K = TypeVar("K")

_LEASE_FACTOR = 4.0
"""A lease lasts as long as four tasks of the slowest tenth: an operator that sorts or writes reports no
progress for a part of its task only."""
_SAMPLES_MAX = 1000
"""Of durations: enough for a median, and inserting stays cheap."""
_STALE_MAX = 64
"""Stale timers that are not worth a pass over all."""


class Durations:
    """The durations of finished tasks of one job, in seconds."""

    def __init__(self) -> None:
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, seconds: float) -> None:
        """Add the duration of a task; the first thousand of a job count."""
        if len(self._sorted) < _SAMPLES_MAX:
            insort(self._sorted, seconds)

    @property
    def median(self) -> float:
        """The median, 0 if there is none."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else 0.0

    def lease_seconds(self, least: float) -> float:
        """Return how long an attempt may make no progress.

        Args:
            least: The lease that its worker asks for, and the shortest.
        """
        if not self._sorted:
            return least
        return max(least, _LEASE_FACTOR * self._sorted[len(self._sorted) * 9 // 10])


class Timers(Generic[K]):
    """Times at which something has to be looked at; a heap, so that a tick costs what is due."""

    def __init__(self) -> None:
        # The number of an entry keeps the order of equal times, and distinguishes it from replaced ones.
        self._heap: list[tuple[float, int, K]] = []
        self._entries: dict[K, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, key: K, at: float) -> None:
        """Return a key from `due` at this time, and not at the one that was set before."""
        self._number += 1
        self._entries[key] = self._number
        heappush(self._heap, (at, self._number, key))
        # Replaced and discarded entries go when their time comes, which may be in a month.
        if len(self._heap) > 2 * len(self._entries) + _STALE_MAX:
            self._heap = [each for each in self._heap if self._entries.get(each[2]) == each[1]]
            heapify(self._heap)

    def discard(self, key: K) -> None:
        """Do not return a key from `due`; no effect if it has no time."""
        self._entries.pop(key, None)

    def due(self, now: float) -> list[K]:
        """Remove and return the keys whose time has come, earliest first."""
        keys = []
        while self._heap and self._heap[0][0] <= now:
            _, number, key = heappop(self._heap)
            if self._entries.get(key) == number:
                del self._entries[key]
                keys.append(key)
        return keys
