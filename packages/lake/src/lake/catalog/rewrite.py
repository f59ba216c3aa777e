"""Replaces the manifests of all snapshots of a dataset at once, for a purge.

The snapshots keep their ids, versions and times; only where their manifests are changes. A reader of the
old manifests may be about to read objects that are gone: `purges` counts the replacements, and
a caller that keeps what it read before compares the count after it has leased the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from elkyn.records import Change
from lake.catalog.checked_snapshots import CheckedSnapshots
from lake.catalog.manifests import Manifests
from lake.catalog.references import Needs, References, objects_of
from lake.catalog.snapshots import Manifest
from lake.catalog.tables import CatalogTables, Purges, SnapshotRow
from lake.errors import damaged_dataset
from sennit_core.errors import Conflict, Corrupt
from sennit_core.records import DatasetInfo

__all__ = ["Rewritten", "SnapshotRewriter"]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A replacement that was committed.

    Args:
        dataset: The dataset's new record.
        before: The objects that its snapshots used before.
    """

    dataset: DatasetInfo
    before: frozenset[str]


class SnapshotRewriter:
    """Replaces manifests; its caller holds the catalog's lock.

    Args:
        rows: The catalog's tables.
        manifests: The manifests.
        snapshots: Reads them.
        counted: Returns the references.
        sync: Makes the names of new objects durable.
    """

    def __init__(
        self,
        rows: CatalogTables,
        manifests: Manifests,
        snapshots: CheckedSnapshots,
        counted: Callable[[], References],
        sync: Callable[[], object],
    ) -> None:
        self._rows = rows
        self._manifests = manifests
        self._snapshots = snapshots
        self._counted = counted
        self._sync = sync
        self._purges = 0

    @property
    def purges(self) -> int:
        """How many replacements this process has committed."""
        return self._purges

    def check(self, purges: int) -> None:
        """Refuse to go on with what was read before a replacement.

        Raises:
            Conflict: `purges` has changed.
        """
        if purges != self._purges:
            raise _purged()

    def check_current(self, manifests: Iterable[Manifest]) -> None:
        """Refuse shards that their snapshots have no more; call it with the objects leased.

        Args:
            manifests: Of snapshots, or of some of their shards.

        Raises:
            Conflict: A purge has replaced one.
        """
        if not self._purges:
            return
        for each in manifests:
            dataset, name = each.snapshot.dataset, each.name or each.snapshot.dataset
            row = self._snapshots.row(dataset, name, each.snapshot.id)
            if row is None:
                raise _purged()
            current = {shard.object for shard in self._manifests.read(row.manifest).snapshot.shards}
            if any(shard.object not in current for shard in each.snapshot.shards):
                raise _purged()

    def read(self, info: DatasetInfo) -> dict[str, Manifest]:
        """Return the manifest of every snapshot of a dataset by the manifest's id, oldest first.

        Raises:
            Corrupt: One is damaged.
        """
        rows = self._snapshots.rows(info.id, info.name)
        return {
            row.manifest: self._snapshots.whole(info, snapshot, row)
            for snapshot, row in _by_version(rows)
        }

    def rewrite(
        self, info: DatasetInfo, manifests: Mapping[str, Manifest], marker: Change
    ) -> Rewritten:
        """Replace the manifests of all snapshots in one write.

        Args:
            info: The dataset.
            manifests: The new manifests by the ids of those of `read`.
            marker: Written with them.

        Raises:
            Conflict: The dataset has other snapshots now.
        """
        rows = self._snapshots.rows(info.id, info.name)
        if {row.manifest for row in rows.values()} != manifests.keys():
            raise Conflict(
                f"dataset {info.name!r} was changed in the meantime", hint="run the purge again"
            )
        needs = self._needs(info)
        new: dict[str, SnapshotRow] = {}
        base: Manifest | None = None
        for snapshot, row in _by_version(rows):
            name = self._manifests.write(manifests[row.manifest], base)
            base = self._manifests.read(name)
            new[snapshot] = replace(row, manifest=name)
        assert info.head is not None, "it has snapshots"
        head = self._manifests.read(new[info.head].manifest)
        changed = replace(info, rows=head.rows, bytes=head.bytes, shards=head.shards)
        references = self._counted()
        # Before the write, as in `Catalog.commit`.
        for row in new.values():
            written = self._manifests.stored(row.manifest)
            references.add(self._manifests.needs(row.manifest, written))
        self._sync()
        table = self._rows.snapshots(info.id)
        self._rows.write(
            self._rows.datasets.change(info.id, changed),
            *(table.change(snapshot, row) for snapshot, row in new.items()),
            self._rows.purges.change(info.id, Purges(self._rows.purge_count(info.id) + 1)),
            marker,
        )
        self._purges += 1
        for snapshot, each in needs.items():
            references.remove((info.id, snapshot), each)
        self._manifests.clear()  # their statistics have values
        return Rewritten(changed, frozenset(objects_of(needs.values())))

    def _needs(self, info: DatasetInfo) -> dict[str, Needs]:
        found = {}
        for snapshot, each in self._snapshots.needs(info.id, info.name, info):
            if each is None:
                raise damaged_dataset(info.name, f"snapshot {snapshot}", "not readable")
            found[snapshot] = each
        if not self._counted().complete:
            raise Corrupt(
                "a manifest of another dataset",
                found="damage, so that it is unknown which objects it needs; "
                "`platform verify` lists it",
            )
        return found


def _by_version(rows: Mapping[str, SnapshotRow]) -> list[tuple[str, SnapshotRow]]:
    return sorted(rows.items(), key=lambda item: (item[1].version, item[1].created_at))


def _purged() -> Conflict:
    return Conflict("rows were purged in the meantime", hint="run it again")
