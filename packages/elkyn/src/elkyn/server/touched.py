"""Which places of a store were written of late, for clients whose permission rests on its data."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from elkyn.paths import ROOT, Path

if TYPE_CHECKING:
    from elkyn.rules.footprint import ReadSet
    from elkyn.store import ElkynStore

__all__ = ["ReadSetIndex", "WriteTracker"]

_EVERY_SECONDS = 0.1
_PATHS_MAX = 1000
_NOTHING: frozenset[Path] = frozenset()


class ReadSetIndex:
    """The places that open clients' permissions rest on, found by what was written."""

    def __init__(self) -> None:
        self._places: set[Path] = set()
        self._above: set[Path] = set()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, footprint: ReadSet) -> None:
        """Count the places of a footprint in."""
        for place in footprint.paths - self._places:
            self._places.add(place)
            self._above.update(place[:depth] for depth in range(len(place)))

    def moved_by(self, written: Iterable[Path]) -> list[Path]:
        """Return those of the places `written` that lie above, at or below one of these."""
        return [path for path in written if path in self._above or self._is_within(path)]

    def _is_within(self, path: Path) -> bool:
        return any(path[:depth] in self._places for depth in range(len(path) + 1))


class WriteTracker:
    """Gathers what a store's commits write: for `fresh`, and to tell it ten times a second at most.

    Args:
        store: whose commits.
        tell: called in the running loop with the places; the root when they were too many.
    """

    def __init__(self, store: ElkynStore, tell: Callable[[AbstractSet[Path]], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._paths: set[Path] = set()
        self._fresh: set[Path] = set()
        self._end = store.observe(self._written)

    def _written(self, _position: int, paths: Sequence[Path]) -> None:
        with self._lock:
            first = not self._paths
            self._paths.update(paths if len(self._paths) < _PATHS_MAX else (ROOT,))
            self._fresh.update(paths if len(self._fresh) < _PATHS_MAX else (ROOT,))
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.call_later, _EVERY_SECONDS, self._due)

    def fresh(self) -> AbstractSet[Path]:
        """Return what was written since this was asked last; the root when that was too much.

        What a commit wrote is among it before the commit's events are delivered.
        """
        if not self._fresh:
            return _NOTHING
        with self._lock:
            fresh, self._fresh = self._fresh, set()
        return fresh

    def _due(self) -> None:
        with self._lock:
            paths, self._paths = self._paths, set()
        self._tell(paths)

    def close(self) -> None:
        """Gather no more."""
        self._end()
