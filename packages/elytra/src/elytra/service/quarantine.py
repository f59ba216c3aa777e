"""Workers that fail tasks which others finish: they get no tasks for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from elytra.service.leases import Timers

__all__ = ["QUARANTINE_SECONDS", "Quarantine"]

_FAILURES_MAX = 3
"""As many as poison a task; fewer may be bad luck, such as a network that failed for a moment."""
QUARANTINE_SECONDS = 600.0
"""Then a worker has another chance: it may have been repaired, and if not, it costs three attempts."""
_WORKERS_MAX = 10_000
"""Workers whose failures are remembered; they outlive a connection, so that to leave and join again does
not clear them. The one whose failure is oldest is forgotten."""


class Quarantine:
    """Counts failures of workers that were their own fault."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, int] = OrderedDict()
        # The workers in quarantine, and when each may have tasks again.
        self._ids: set[str] = set()
        self._ends: Timers[str] = Timers()

    def has(self, worker_id: str) -> bool:
        """Whether a worker is in quarantine."""
        return worker_id in self._ids

    def blame(self, worker_ids: Iterable[str], now: float) -> list[str]:
        """Count a failure of each worker; return those that are in quarantine from now on."""
        started = []
        for worker_id in sorted(worker_ids):
            count = self._failures.pop(worker_id, 0) + 1
            if count < _FAILURES_MAX:
                self._failures[worker_id] = count
            elif worker_id not in self._ids:
                self._ids.add(worker_id)
                self._ends.set(worker_id, now + QUARANTINE_SECONDS)
                started.append(worker_id)
        while len(self._failures) > _WORKERS_MAX:
            self._failures.popitem(last=False)
        return started

    def released(self, now: float) -> list[str]:
        """Remove and return the workers whose time is over."""
        ids = self._ends.due(now)
        self._ids.difference_update(ids)
        return ids
