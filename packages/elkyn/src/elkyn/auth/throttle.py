"""Throttling of password guessing."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sennit_core.clock import Clock

__all__ = ["Throttle"]


class Throttle:
    """Counts failures by name and refuses a name with too many; thread-safe.

    The count halves every `window_seconds`, so a name is accepted again after a while. Memory is
    bounded: names whose last failure is oldest are dropped first.

    Args:
        failures_max: the maximum count of a name.
        window_seconds: the half-life of the count.
        clock: monotonic time.
        names_max: the maximum number of names.
    """

    def __init__(
        self, failures_max: int, window_seconds: float, clock: Clock, names_max: int = 20_000
    ) -> None:
        self._failures_max = failures_max
        self._window_seconds = window_seconds
        self._clock = clock
        self._names_max = names_max
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def refuses(self, name: str) -> bool:
        """Whether `name` has failed too often recently."""
        with self._lock:
            return self._count(name) >= self._failures_max

    def failed(self, name: str) -> None:
        """Count a failure."""
        with self._lock:
            self._counts[name] = (self._count(name) + 1, self._clock.monotonic())
            self._counts.move_to_end(name)
            while len(self._counts) > self._names_max:
                self._counts.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Reset the failures of `name`."""
        with self._lock:
            self._counts.pop(name, None)

    def _count(self, name: str) -> float:
        count, at = self._counts.get(name, (0.0, 0.0))
        # An exponential decay needs one number and one time for each name, and no timer. Capped, as
        # 0.5 to a larger power makes no difference.
        age = max(0.0, self._clock.monotonic() - at) / self._window_seconds
        return float(count * 0.5 ** min(age, 60.0))
