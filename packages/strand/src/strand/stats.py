"""Statistics of a stream: rates, occupancy, stalls and wakes."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Any, Self

from strand import layout

__all__ = ["RingStats", "ViewStats", "WriterStats"]


@dataclass(frozen=True)
class RingStats:
    """The shared counters of a ring; they are not read atomically together."""

    committed: int
    """Records published."""
    acknowledged: int
    """Records that every attached consumer has acknowledged."""
    records: int
    """Slots."""
    stalls: int
    """Claims of the producer that found no room."""
    wakes: int
    """Bells rung by either side."""
    sleeps: int
    """Times a consumer went to sleep."""

    @property
    def occupancy(self) -> float:
        """Share of the slots that hold unread records, from 0 to 1."""
        return max(0, self.committed - self.acknowledged) / self.records

    @classmethod
    def read(cls, memory: Any, records: int) -> Self:
        """Read the counters of a mapped ring of `records` slots."""
        commit = struct.unpack_from("<Q", memory, layout.PRODUCER_AT + 8)[0]
        stalls, rings = struct.unpack_from("<QQ", memory, layout.STALLS_AT)
        entries = layout.read_consumers(memory)
        return cls(
            committed=commit,
            acknowledged=min(layout.low_water_of(entries), commit),
            records=records,
            stalls=stalls,
            wakes=rings + sum(entry.rings for entry in entries),
            sleeps=sum(entry.sleeps for entry in entries),
        )


@dataclass(frozen=True)
class WriterStats:
    """Counts of one producer since it acquired the role."""

    records: int
    """Records published."""
    records_per_second: float
    stalls: int
    """Claims that found no room."""
    wakes: int
    """Bells rung because a consumer slept."""


@dataclass(frozen=True)
class ViewStats:
    """Counts of one consumer since it acquired the role."""

    records: int
    """Records acknowledged."""
    records_per_second: float
    sleeps: int
    """Times it went to sleep because there was no record to read."""
    wakes: int
    """Bells rung because the producer waited for room."""


class Meter:
    """Measures a count and its rate since a role began."""

    def __init__(self, start: int) -> None:
        """Begin at count `start`, now."""
        self._start = start
        self._since = time.monotonic()

    def measure(self, count: int) -> tuple[int, float]:
        """Return the increase since the beginning, and the increase per second."""
        done = max(0, count - self._start)
        seconds = time.monotonic() - self._since
        return done, done / seconds if seconds > 0 else 0.0
