"""Which places of a store were written recently, for clients whose permission depends on them.

A client's permission to read may rest on data: a write anywhere in its read set can end it. Two
consumers see each write: `take_written` before events of the commit are sent, which closes the gap
between a write and the events after it, and `report` within 0.1 s, for clients that are sent
nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from elkyn.tree.paths import ROOT, Path

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet
    from elkyn.store import ElkynStore

__all__ = ["ReadSetIndex", "WriteTracker"]

_EVERY_SECONDS = 0.1
# Bounds memory and the work of one report; the root makes every permission with a read set be
# checked.
_PATHS_MAX = 1000  # more paths are reported as the root
_NOTHING: frozenset[Path] = frozenset()


class ReadSetIndex:
    """The places that permissions of open clients depend on, matched against written paths."""

    def __init__(self) -> None:
        # Only grows; `Clients` builds a new index when too much of it is outdated.
        self._places: set[Path] = set()
        self._above: set[Path] = set()  # all ancestors of `_places`

    def __len__(self) -> int:
        return len(self._places)

    def add(self, read_set: ReadSet) -> None:
        """Add the places of a read set."""
        for place in read_set.paths - self._places:
            self._places.add(place)
            # So that `matching` decides with look-ups only: a written path touches a place iff it
            # is an ancestor of it (`_above`), or one of its own ancestors or itself is a place
            # (`_is_within`).
            self._above.update(place[:depth] for depth in range(len(place)))

    def matching(self, written: Iterable[Path]) -> list[Path]:
        """Return the `written` paths that are above, at or below a place of the index."""
        return [path for path in written if path in self._above or self._is_within(path)]

    def _is_within(self, path: Path) -> bool:
        return any(path[:depth] in self._places for depth in range(len(path) + 1))


class WriteTracker:
    """Collects the paths that a store's commits write, and reports them at most ten times a second.

    Args:
        store: the store to observe.
        report: called in the running loop with the paths; with the root when they are too many.
    """

    def __init__(self, store: ElkynStore, report: Callable[[AbstractSet[Path]], None]) -> None:
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._paths: set[Path] = set()  # since the last report
        self._untaken: set[Path] = set()  # since the last call of `take_written`
        self._end = store.admin.observe(self._written)

    def _written(self, _position: int, paths: Sequence[Path]) -> None:
        with self._lock:
            # An observer: it runs on the committing thread, after the commit and before its events.
            first = not self._paths
            self._paths.update(paths if len(self._paths) < _PATHS_MAX else (ROOT,))
            self._untaken.update(paths if len(self._untaken) < _PATHS_MAX else (ROOT,))
        # The timer is started by the first write after a report, so that an idle store has none.
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.call_later, _EVERY_SECONDS, self._due)

    def take_written(self) -> AbstractSet[Path]:
        """Return the paths written since the last call; the root when they are too many.

        The paths of a commit are included before the commit's events are delivered.
        """
        # Without the lock: a write whose observer has not run yet has no events in the loop either.
        if not self._untaken:
            return _NOTHING
        with self._lock:
            written, self._untaken = self._untaken, set()
        return written

    def _due(self) -> None:
        with self._lock:
            paths, self._paths = self._paths, set()
        self._report(paths)

    def close(self) -> None:
        """Stop observing the store."""
        self._end()
