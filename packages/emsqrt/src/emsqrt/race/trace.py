"""The memory of a process tree over time, in a bounded number of points."""

from __future__ import annotations

from collections.abc import Sequence

_POINTS_MAX = 2048


class Trace:
    """Memory over time: the maximum of each interval, with intervals growing during the run.

    Args:
        step_seconds: initial length of an interval.
    """

    def __init__(self, step_seconds: float = 0.005) -> None:
        self.step_seconds = step_seconds
        self.peaks: list[int] = []

    def add(self, seconds: float, held_bytes: int) -> None:
        """Add a reading; `seconds` since the start must not decrease."""
        while seconds >= self.step_seconds * _POINTS_MAX:
            self._halve()
        at = int(seconds / self.step_seconds)
        last = self.peaks[-1] if self.peaks else 0
        self.peaks += [last] * (at - len(self.peaks)) + ([0] if at >= len(self.peaks) else [])
        self.peaks[at] = max(self.peaks[at], held_bytes)

    def points(self) -> list[tuple[float, int]]:
        """Return (seconds, bytes) of every interval."""
        return [(at * self.step_seconds, held) for at, held in enumerate(self.peaks)]

    def columns(self, count: int, seconds: float) -> list[int]:
        """Return the maximum in each of `count` equal parts of `seconds`; -1 without a reading.

        Args:
            count: how many parts.
            seconds: the length of the whole axis.
        """
        found = [-1] * count
        for at, held in enumerate(self.peaks):
            column = min(int(at * self.step_seconds / seconds * count), count - 1)
            found[column] = max(found[column], held)
        return filled(found)

    def _halve(self) -> None:
        pairs = zip(self.peaks[::2], [*self.peaks[1::2], 0], strict=False)
        self.peaks = [max(pair) for pair in pairs]
        self.step_seconds *= 2


def filled(columns: Sequence[int]) -> list[int]:
    """Return columns with the gaps between known ones filled from the left."""
    last = max((at for at, held in enumerate(columns) if held >= 0), default=-1)
    found, before = list(columns), 0
    for at in range(last + 1):
        if found[at] < 0:
            found[at] = before
        before = found[at]
    return found
