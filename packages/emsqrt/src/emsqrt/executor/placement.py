"""Which idle process a run gets: one that fits under its cap, best with what the run needs.

A process keeps what its runs have loaded: libraries, verified shards, and the cache of its last
entry point (DuckDB instances), which the process drops before it runs another entry. Starting a
process costs 0.3 to 0.6 s, its libraries included, so a run gets

    1. a process that ran the same entry last: over the same data, else over any,
    2. else one that has loaded the entry and keeps no cache of another,
    3. else one that keeps no cache, else any; the one that was used longest ago.

The cap is a run's, not a process's: the executor measures what the process holds when the run
starts, and its budget is the rest of the cap. So any process holds the cap; one that holds much
leaves less for the run. `Fit` bounds that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

__all__ = ["Fit", "Placed", "WarmState", "choose"]

_MIB = 1 << 20
_LIBRARIES_BYTES = 40 * _MIB
_DATA_MAX = 8  # as many as `lake.sql` keeps instances


@dataclass(slots=True)
class WarmState:
    """What an idle process holds.

    Attributes:
        idle_bytes: its memory, as it reported it.
        loaded: entry points whose libraries it has imported.
        entry: the entry point of its last run.
        keeps_cache: whether that entry keeps a cache that a run of another one drops.
        data: what its last runs of that entry were over, the latest last.
        used: the number of the pool's run that it was last given.
    """

    idle_bytes: int = 0
    loaded: set[str] = field(default_factory=set)
    entry: str = ""
    keeps_cache: bool = False
    data: OrderedDict[str, None] = field(default_factory=OrderedDict)
    used: int = 0

    def note_run(self, entry: str, data: str, number: int) -> None:
        """Record that the process was given a run."""
        if entry != self.entry:
            self.entry = entry
            self.data.clear()
        self.data[data] = None
        self.data.move_to_end(data)
        if len(self.data) > _DATA_MAX:
            self.data.popitem(last=False)
        self.used = number


@dataclass(frozen=True, slots=True)
class Fit:
    """How much a process may hold before a run under a cap starts in it.

    Args:
        cap_bytes: the cap of the run.
        lean: whether it needs a process that holds little more than libraries; otherwise up to
            five eighths of the cap may be in use. A cache is part of that, and is dropped first.
    """

    cap_bytes: int
    lean: bool

    @property
    def idle_bytes_max(self) -> int:
        """The most that a process may hold."""
        lean_bytes = _LIBRARIES_BYTES + self.cap_bytes // 8
        return lean_bytes if self.lean else max(lean_bytes, self.cap_bytes * 5 // 8)


class Placed(Protocol):
    """Something that runs are placed in."""

    warm: WarmState


P = TypeVar("P", bound=Placed)


def choose(idle: Iterable[P], entry: str, data: str, fit: Fit) -> P | None:
    """Return the idle process that a run should get; None if a new one must be started.

    Args:
        idle: the idle processes.
        entry: the run's entry point.
        data: what the run is over; runs over the same data profit from each other.
        fit: how much the process may hold.
    """
    fitting = [each for each in idle if each.warm.idle_bytes <= fit.idle_bytes_max]
    return max(fitting, key=lambda each: _preference(each.warm, entry, data), default=None)


def _preference(warm: WarmState, entry: str, data: str) -> tuple[int, int, int, int]:
    if warm.entry == entry:
        return 2, data in warm.data, 0, warm.used
    return 0, not warm.keeps_cache, entry in warm.loaded, -warm.used
