"""A snapshot with the shards of some of its lists, and changes of some of its lists.

What does not need a list does not read it: a statement on a few shards of a large dataset costs what it
touches, and one summary for each list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain

from lake.catalog.checked_snapshots import CheckedSnapshots
from lake.catalog.file_schemas import column_ids, overall_stats
from lake.catalog.manifests import LIST_MAX, Manifests
from lake.catalog.snapshots import ShardList, StoredManifest
from lake.errors import damaged_dataset
from sennit_core.errors import Corrupt
from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

__all__ = ["CHOSEN_MIN", "LeftOut", "PartialSnapshot", "ShardLists"]

CHOSEN_MIN = LIST_MAX
"""The fewest shards of a dataset whose lists are chosen, in a step of its own before a statement."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The lists of a dataset that a statement needs no shard of.

    Args:
        schema: The dataset's columns when they were chosen.
        columns: The ids of these.
        lists: Object ids. A list never changes, so the choice is right for later snapshots too.
    """

    schema: Schema
    columns: tuple[int, ...]
    lists: frozenset[str]

    def fits(self, snapshot: SnapshotInfo) -> bool:
        """Return whether the names in the statement still mean the same columns."""
        return (snapshot.schema, column_ids(snapshot)) == (self.schema, self.columns)


@dataclass(frozen=True, slots=True)
class PartialSnapshot:
    """A snapshot with some of its shards.

    Args:
        snapshot: The snapshot, with these.
        numbers: Their numbers in the snapshot.
        shards: The number of all shards.
        left_out: The summaries of the lists with the others.
    """

    snapshot: SnapshotInfo
    numbers: tuple[int, ...]
    shards: int
    left_out: tuple[ShardInfo, ...]


class ShardLists:
    """Reads and changes lists of shards; lists are found by the manifests that name them.

    Args:
        manifests: The manifests.
        snapshots: Notes damage.
    """

    def __init__(self, manifests: Manifests, snapshots: CheckedSnapshots) -> None:
        self._manifests = manifests
        self._snapshots = snapshots

    def summaries(self, stored: StoredManifest) -> list[tuple[ShardList, tuple[ShardInfo, ...]]]:
        """Return the lists of a manifest that have a summary, with it."""
        found = ((each, self._manifests.summary_of(each)) for each in stored.lists)
        return [(each, summary) for each, summary in found if summary is not None]

    def without(self, name: str, stored: StoredManifest, lists: Container[str]) -> PartialSnapshot:
        """Return a snapshot without the shards of some lists.

        Args:
            name: The dataset's.
            stored: The snapshot's manifest.
            lists: Their object ids; those without a readable summary stay.

        Raises:
            Corrupt: Another list is damaged.
        """
        shards: list[ShardInfo] = []
        numbers: list[int] = []
        left_out: list[ShardInfo] = []
        first = 0
        for each in stored.lists:
            summary = self._manifests.summary_of(each) if each.object in lists else None
            if summary is None:
                shards += self._shards_of(name, stored, each)
                numbers += range(first, first + each.shards)
            else:
                left_out += summary
            first += each.shards
        shards += stored.snapshot.shards
        numbers += range(first, stored.shards)
        snapshot = replace(stored.snapshot, shards=tuple(shards))
        return PartialSnapshot(snapshot, tuple(numbers), stored.shards, tuple(left_out))

    def _shards_of(
        self, name: str, stored: StoredManifest, listed: ShardList
    ) -> tuple[ShardInfo, ...]:
        try:
            return self._manifests.shards_of(listed)
        except Corrupt as error:
            what = f"the manifest of snapshot {stored.snapshot.id}"
            damage = damaged_dataset(name, what, str(error))
            raise self._snapshots.noted(stored.snapshot.dataset, damage) from error

    def manifests_of(self, info: DatasetInfo) -> dict[str, Callable[[], StoredManifest]]:
        """Return what reads the manifest of each snapshot of a dataset, by the manifest's id.

        Raises:
            Corrupt: The rows of its snapshots are damaged; or one of the manifests, when it is read.
        """
        return {
            row.manifest: partial(self._snapshots.stored, info, snapshot, row)
            for snapshot, row in self._snapshots.rows(info.id, info.name).items()
        }

    def sizes_in(self, name: str, stored: StoredManifest, listed: ShardList) -> dict[str, int]:
        """Return the size of each shard of a list, by object.

        Args:
            name: The dataset's.
            stored: A manifest that names the list.
            listed: The list.

        Raises:
            Corrupt: The list is damaged.
        """
        return {each.object: each.bytes for each in self._shards_of(name, stored, listed)}

    def replaced(
        self,
        name: str,
        base: StoredManifest,
        head: StoredManifest,
        changes: Mapping[int, tuple[str, Sequence[ShardInfo]]],
    ) -> StoredManifest | None:
        """Return a manifest with other shards in the place of some, which writes the lists that have them.

        Args:
            name: The dataset's.
            base: The manifest that was read; its columns are the head's.
            head: That of the head; its `file_schemas` may have more than it was stored with.
            changes: By the number of a shard in `base`, its object and the shards that replace it.

        Returns:
            The head's with changed shards and null counts; None if one of the lists or shards has moved
            since, so that the shards have to be found by their objects.

        Raises:
            Corrupt: A list is damaged.
        """
        wanted: dict[str, dict[int, Sequence[ShardInfo]]] = defaultdict(dict)
        unlisted: dict[int, tuple[str, Sequence[ShardInfo]]] = {}
        starts = list(accumulate((each.shards for each in base.lists), initial=0))
        for number, change in changes.items():
            place = bisect_right(starts, number) - 1
            if place < len(base.lists):
                wanted[base.lists[place].object][number - starts[place]] = change[1]
            else:
                unlisted[number - starts[place]] = change
        present = Counter(each.object for each in (*base.lists, *head.lists))
        loose = _loose(base, head, unlisted)
        # Once in both: a list has the same shards at the same places wherever it is.
        if loose is None or any(present[each] != 2 for each in wanted):
            return None
        lists: list[ShardList] = []
        gone, come = list(loose[0]), list(loose[1])
        for each in head.lists:
            if each.object not in wanted:
                lists.append(each)
                continue
            shards = self._shards_of(name, head, each)
            found = wanted[each.object]
            gone += [shards[place] for place in found]
            come += chain.from_iterable(found.values())
            kept = tuple(
                chain.from_iterable(found.get(place, (one,)) for place, one in enumerate(shards))
            )
            lists += [
                self._manifests.write_list(kept[start : start + LIST_MAX], head.snapshot)
                for start in range(0, len(kept), LIST_MAX)
            ]
        stats = _stats_after(head.snapshot, gone, come)
        snapshot = replace(head.snapshot, shards=loose[2], stats=stats)
        return replace(head, snapshot=snapshot, lists=tuple(lists))


_Loose = tuple[list[ShardInfo], list[ShardInfo], tuple[ShardInfo, ...]]


def _loose(
    base: StoredManifest,
    head: StoredManifest,
    changes: Mapping[int, tuple[str, Sequence[ShardInfo]]],
) -> _Loose | None:
    """Return which shards outside of lists go and come, and what is left; None if one has moved."""
    before = [shard.object for shard in base.snapshot.shards]
    now = [shard.object for shard in head.snapshot.shards]
    wanted = {}
    for place, (name, shards) in changes.items():
        if before[place] != name or before.count(name) != 1 or now.count(name) != 1:
            return None
        wanted[name] = shards
    left: list[ShardInfo] = []
    gone: list[ShardInfo] = []
    for shard in head.snapshot.shards:
        if shard.object in wanted:
            gone.append(shard)
            left += wanted[shard.object]
        else:
            left.append(shard)
    return gone, list(chain.from_iterable(wanted.values())), tuple(left)


def _stats_after(
    head: SnapshotInfo, gone: Iterable[ShardInfo], come: Iterable[ShardInfo]
) -> dict[str, dict[str, int]]:
    """Return the null counts of the head's columns without some shards and with others."""
    less = overall_stats(replace(head, shards=tuple(gone)))
    more = overall_stats(replace(head, shards=tuple(come)))
    counts = {name: int(each.get("nulls", 0)) for name, each in head.stats.items()}
    for found, sign in ((less, -1), (more, 1)):
        for name, each in found.items():
            counts[name] = counts.get(name, 0) + sign * each["nulls"]
    return {name: {"nulls": count} for name, count in counts.items()}
