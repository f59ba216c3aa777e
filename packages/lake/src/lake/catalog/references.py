"""Reference counts of the snapshots' objects: computed once, then updated by commits.

Snapshots share lists of shards (`lake.catalog.manifests`), so a list is counted like an object of a snapshot,
and its shards once for all the snapshots that have it.

The objects of a snapshot with an unreadable manifest are unknown. While there is such a snapshot,
an object without a count may still be referenced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Needs", "References", "SnapshotKey", "objects_of"]

SnapshotKey: TypeAlias = tuple[str, str]
"""(dataset id, snapshot id)."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a snapshot needs.

    Args:
        objects: Its manifest, and the shards and sources that are in no list.
        lists: By the id of each list, the shards and sources in it.
    """

    objects: frozenset[str]
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)


def objects_of(needs: Iterable[Needs]) -> set[str]:
    """Return every object id of some snapshots, whose shared lists are looked at once."""
    lists: dict[str, frozenset[str]] = {}
    found: set[str] = set()
    for each in needs:
        found |= each.objects
        lists.update(each.lists)
    return found.union(lists, *lists.values())


class References:
    """Counts the snapshots and lists that reference each object. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        # Ids as 32 bytes: a million objects need 130 MB of memory; as text they would need 300 MB.
        self._counts: Counter[bytes] = Counter()
        # Snapshots whose manifest cannot be read. Nothing may be deleted while there is one.
        self._unknown: set[SnapshotKey] = set()

    def add(self, needs: Needs) -> None:
        """Count the objects of one snapshot; lists that are counted already may be named as empty."""
        for name, listed in needs.lists.items():
            if name not in self:
                self._counts.update(map(bytes.fromhex, listed))
        self._counts.update(map(bytes.fromhex, (*needs.objects, *needs.lists)))

    def add_unknown(self, snapshot: SnapshotKey) -> None:
        """Record a snapshot whose objects are unknown."""
        self._unknown.add(snapshot)

    def remove(self, snapshot: SnapshotKey, needs: Needs | None) -> None:
        """Remove a snapshot; `needs` must be the same as when it was added, None if unknown."""
        if snapshot in self._unknown or needs is None:
            self._unknown.discard(snapshot)
            return
        self._subtract((*needs.objects, *needs.lists))
        for name, listed in needs.lists.items():
            if name not in self:
                self._subtract(listed)

    def _subtract(self, objects: Iterable[str]) -> None:
        for name in map(bytes.fromhex, objects):
            self._counts[name] -= 1
            if self._counts[name] <= 0:
                del self._counts[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bytes.fromhex(name) in self._counts

    @property
    def complete(self) -> bool:
        """Whether all snapshots are known, so that an object without a count is unreferenced."""
        return not self._unknown
