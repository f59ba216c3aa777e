"""Which places of a store were written of late, for clients whose permission rests on its data."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from elkyn.paths import ROOT, Path

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["Touched"]

_EVERY_SECONDS = 0.1
_PATHS_MAX = 1000


class Touched:
    """Gathers what a store's commits write, and tells it in the loop ten times a second at most.

    Args:
        store: whose commits.
        tell: called in the running loop with the places; the root when they were too many.
    """

    def __init__(self, store: ElkynStore, tell: Callable[[AbstractSet[Path]], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._paths: set[Path] = set()
        self._end = store.observe(self._written)

    def _written(self, _position: int, paths: Sequence[Path]) -> None:
        with self._lock:
            first = not self._paths
            self._paths.update(paths if len(self._paths) < _PATHS_MAX else (ROOT,))
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.call_later, _EVERY_SECONDS, self._due)

    def _due(self) -> None:
        with self._lock:
            paths, self._paths = self._paths, set()
        self._tell(paths)

    def close(self) -> None:
        """Gather no more."""
        self._end()
