"""Datasets that other nodes write: their snapshots become rows of this node's catalog.

Such a dataset has the id of its writer in `DatasetInfo.node`. It is read like any other; what changes it
is refused here, in the catalog, whatever interface asked. Its manifests and lists are in the store, its
shards only as far as this node has copies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lake.access.rules import written_elsewhere
from lake.catalog.checked_snapshots import CheckedSnapshots, lost_snapshot
from lake.catalog.commits import committed_dataset
from lake.catalog.index import CatalogIndex
from lake.catalog.manifests import Manifests
from lake.catalog.references import Needs, References, objects_of
from lake.catalog.snapshots import Manifest, ShardList, StoredManifest
from lake.catalog.tables import CatalogTables, Purges, SnapshotRow
from sennit_core.errors import Corrupt
from sennit_core.records import DatasetInfo, ShardInfo

if TYPE_CHECKING:
    from elkyn.records import Change

__all__ = ["SnapshotAdopter", "check_own", "foreign_dataset"]


class SnapshotAdopter:
    """Adopts snapshots; its caller holds the catalog's lock.

    Args:
        rows: The catalog's tables.
        index: Finds datasets.
        manifests: The manifests.
        snapshots: Reads them.
        references: Returns the references; None while they are not counted.
        sync: Makes the names of new objects durable.
    """

    def __init__(
        self,
        rows: CatalogTables,
        index: CatalogIndex,
        manifests: Manifests,
        snapshots: CheckedSnapshots,
        references: Callable[[], References | None],
        sync: Callable[[], object],
    ) -> None:
        self._rows = rows
        self._index = index
        self._manifests = manifests
        self._snapshots = snapshots
        self._references = references
        self._sync = sync

    def manifest_of(self, info: DatasetInfo, snapshot: str) -> tuple[str, int]:
        """Return the object id of a snapshot's manifest, and its version.

        Raises:
            Corrupt: Its row is lost or damaged.
        """
        row = self._snapshots.row(info.id, info.name, snapshot)
        if row is None:
            raise self._snapshots.noted(info.id, lost_snapshot(info.name, snapshot))
        return row.manifest, row.version

    def read_manifest(self, manifest: str) -> StoredManifest:
        """Return a manifest by its object id, whether or not a row names it.

        Raises:
            Corrupt: It is missing or damaged.
        """
        return self._manifests.stored(manifest)

    def read_whole(self, manifest: str) -> Manifest:
        """As `read_manifest`, with the shards of its lists, which are stored."""
        return self._manifests.read(manifest)

    def write_manifest(self, manifest: Manifest) -> str:
        """Store a manifest that no row of the catalog names; return its object id."""
        name = self._manifests.write(manifest)
        self._sync()
        return name

    def _add(self, dataset: DatasetInfo, also: Sequence[Change]) -> set[str]:
        """List, or list anew, a dataset without a snapshot, whose rows another node sends.

        Its snapshots are forgotten in the same write. Returned is what they used, which may have no
        reference any more.
        """
        known = self._index.get(dataset.id)
        # Read before the rows are removed: they are computed from them.
        needs = {} if known is None else dict(self._snapshots.needs(dataset.id, known.name, known))
        self._rows.write(
            self._rows.datasets.change(dataset.id, dataset),
            *self._rows.forget_snapshots(dataset.id),
            *(self._index.change_of_ids(dataset.id, added=True) if known is None else ()),
            *also,
        )
        # After the write: if it fails, the counts still hold the objects.
        references = self._references()
        for snapshot, each in needs.items():
            if references is not None:
                references.remove((dataset.id, snapshot), each)
        self._snapshots.damage.pop(dataset.id, None)
        return objects_of(each for each in needs.values() if each is not None)

    def put(self, dataset: DatasetInfo, *also: Change) -> None:
        """Replace the row of a dataset, whose snapshots stay, in one write with other rows.

        Args:
            dataset: With another writer, for instance; its name is free, or its own.
            also: The other rows.
        """
        self._rows.write(self._rows.datasets.change(dataset.id, dataset), *also)

    def shards_of(self, stored: ShardList) -> tuple[ShardInfo, ...]:
        """Return the shards of a list.

        Raises:
            Corrupt: It is missing or damaged.
        """
        return self._manifests.shards_of(stored)

    def newest_manifests(self, dataset: str, count: int) -> tuple[str, ...]:
        """Return the object ids of the manifests of a dataset's newest snapshots, the newest first."""
        rows = self._rows.snapshots(dataset).all().values()
        newest = sorted(rows, key=lambda row: row.version, reverse=True)[:count]
        return tuple(row.manifest for row in newest)

    def count_of(self, dataset: str) -> int:
        """Return the number of snapshots of a dataset."""
        return len(self._rows.snapshots(dataset).ids())

    def purge_count(self, dataset: str) -> int:
        """Return how often rows of a dataset were purged, as far as they are gone here; raises `Corrupt`."""
        return self._rows.purge_count(dataset)

    def note_purges(self, dataset: str, count: int) -> None:
        """Note that the rows are gone here which so many purges have removed."""
        self._rows.purges.put(dataset, Purges(count))

    def adopt(self, dataset: DatasetInfo, manifest: str | None, *also: Change) -> set[str]:
        """Make a snapshot of another node the head of the dataset that it writes.

        A purge there replaces the manifest of a snapshot: then the objects of the earlier one are
        returned, which may have no reference any more.

        Args:
            dataset: As that node describes it; its name is free, or its own.
            manifest: Object id of the manifest, which is stored with its lists; None if that node
                sends rows alone, so that the dataset is listed without a snapshot.
            also: Rows to change in the same write.

        Raises:
            Corrupt: The manifest is not one of the dataset, or has no columns.
        """
        assert dataset.node is not None, "the writer is known"
        if manifest is None:
            return self._add(dataset, also)
        stored = self._manifests.stored(manifest)
        snapshot = stored.snapshot
        if snapshot.dataset != dataset.id:
            found = f"one of dataset {snapshot.dataset}"
            raise Corrupt(f"manifest {manifest}", expected=dataset.id, found=found)
        if not len(snapshot.schema):  # no statement could read it, and its row would be damaged
            raise Corrupt(f"manifest {manifest}", expected="columns", found="none")
        known = self._index.get(dataset.id)
        rows = self._rows.snapshots(dataset.id)
        self._sync()
        # Before the write, as in a commit: counting an object too much only keeps it.
        references = self._references()
        before = rows.get(snapshot.id)
        is_replaced = before is not None and before.manifest != manifest
        replaced: Needs | None = None
        if before is not None and is_replaced:
            with suppress(Corrupt):  # what it used is unknown, and stays
                earlier = self._manifests.stored(before.manifest)
                replaced = self._manifests.needs(before.manifest, earlier)
        if references is not None and (before is None or is_replaced):
            references.add(self._manifests.needs(manifest, stored, references))
        adopted = committed_dataset(dataset, stored)
        is_orphan = snapshot.parent is None or snapshot.parent not in rows
        row = SnapshotRow(manifest, stored.created_at, snapshot.version, orphaned=is_orphan)
        self._rows.write(
            self._rows.datasets.change(dataset.id, adopted),
            rows.change(snapshot.id, row),
            *(self._index.change_of_ids(dataset.id, added=True) if known is None else ()),
            *also,
        )
        self._snapshots.damage.pop(dataset.id, None)
        if replaced is None:
            return set()
        if references is not None:
            references.remove((dataset.id, snapshot.id), replaced)
        return objects_of([replaced])


def check_own(info: DatasetInfo | None) -> None:
    """Refuse a change of a dataset that another node writes.

    Raises:
        Denied: It is one.
    """
    if info is not None and info.node is not None:
        raise written_elsewhere(info.name, info.node)


def foreign_dataset(find: Callable[[str], DatasetInfo | None], dataset: str) -> DatasetInfo | None:
    """Return a dataset if another node writes it; None also if its row is damaged."""
    found = None
    with suppress(Corrupt):
        found = find(dataset)
    return found if found is not None and found.node is not None else None
