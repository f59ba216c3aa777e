"""Reference counts of the snapshots' objects: computed once, then updated by commits.

The objects of a snapshot with an unreadable manifest are unknown. While there is such a snapshot,
an object without a count may still be referenced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["References", "SnapshotKey"]

SnapshotKey: TypeAlias = tuple[str, str]
"""(dataset id, snapshot id)."""


class References:
    """Counts the snapshots that reference each object. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        # Ids as 32 bytes: a million objects need 130 MB of memory; as text they would need 300 MB.
        self._counts: Counter[bytes] = Counter()
        # Snapshots whose manifest cannot be read. Nothing may be deleted while there is one.
        self._unknown: set[SnapshotKey] = set()

    def add(self, objects: Iterable[str]) -> None:
        """Count the objects of one snapshot."""
        self._counts.update(map(bytes.fromhex, objects))

    def add_unknown(self, snapshot: SnapshotKey) -> None:
        """Record a snapshot whose objects are unknown."""
        self._unknown.add(snapshot)

    def remove(self, snapshot: SnapshotKey, objects: Iterable[str]) -> None:
        """Remove a snapshot; `objects` must be the same as when it was added."""
        if snapshot in self._unknown:
            self._unknown.discard(snapshot)
            return
        for name in map(bytes.fromhex, objects):
            self._counts[name] -= 1
            if self._counts[name] <= 0:
                del self._counts[name]

    def __contains__(self, name: str) -> bool:
        return bytes.fromhex(name) in self._counts

    @property
    def complete(self) -> bool:
        """Whether all snapshots are known, so that an object without a count is unreferenced."""
        return not self._unknown
