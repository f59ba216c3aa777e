"""Which objects the snapshots need: counted once at the start, then kept up to date by commits.

A snapshot whose manifest cannot be read needs objects that nobody can name. While there is such a
one, an object without a count may still be one of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["References", "SnapshotKey"]

SnapshotKey: TypeAlias = tuple[str, str]
"""A dataset's id and a snapshot's."""


class References:
    """Counts, for each object, the snapshots that need it. Its owner locks."""

    def __init__(self) -> None:
        # Ids as 32 bytes: a lake of a million objects holds 130 MB of them, as text it would be 300.
        self._counts: Counter[bytes] = Counter()
        self._unknown: set[SnapshotKey] = set()

    def add(self, objects: Iterable[str]) -> None:
        """Count the objects that one snapshot needs."""
        self._counts.update(map(bytes.fromhex, objects))

    def add_unknown(self, snapshot: SnapshotKey) -> None:
        """Note a snapshot whose objects cannot be known."""
        self._unknown.add(snapshot)

    def remove(self, snapshot: SnapshotKey, objects: Iterable[str]) -> None:
        """Undo what was added for a snapshot; `objects` are the same as then."""
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
        """Whether an object without a count is needed by no snapshot."""
        return not self._unknown
