"""Removes datasets from the catalog, and puts those back that the cleanup has removed.

A removed dataset's rows move to a row of the trash in one write, so that a crash leaves it in one of the two
places:

    /trash/{dataset}                 TrashRow
    /trashed/{dataset}/{snapshot}    SnapshotRow
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable, Table
from lake.catalog.history import check_dataset_name
from lake.catalog.index import CatalogIndex
from lake.catalog.manifests import Manifests
from lake.catalog.references import Needs, References, objects_of
from lake.catalog.tables import CatalogTables, Purges, SnapshotRow
from sennit_core.errors import NotFound
from sennit_core.records import DatasetInfo, Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["DatasetRemoval", "TrashRow"]


@dataclass(frozen=True, slots=True)
class TrashRow(Record):
    """A dataset that was removed, and whose objects are still there.

    Args:
        name: Its name.
        owner: Its owner.
        bytes: Bytes of the distinct shards of its versions.
        reason: Why it was removed.
        moved_at: When, in Unix seconds.
        until: When its objects go.
        info: The catalog's row.
        purges: How often rows of it were purged.
    """

    name: str
    owner: str
    bytes: int
    reason: str
    moved_at: float
    until: float
    info: DatasetInfo
    purges: int = 0


class DatasetRemoval:
    """Changes which datasets the catalog has. Its owner, the catalog, locks.

    Args:
        tree: The namespace `sys`.
        rows: The catalog's tables.
        index: Knows which datasets there are.
        manifests: Reads manifests.
        references: Returns the counts of references.
    """

    def __init__(
        self,
        tree: ElkynStore,
        rows: CatalogTables,
        index: CatalogIndex,
        manifests: Manifests,
        references: Callable[[], References],
    ) -> None:
        self._tree = tree
        self._rows = rows
        self._index = index
        self._manifests = manifests
        self._references = references
        self.trash = CheckedTable(tree, "/trash", TrashRow)

    def remove(self, dataset: str, needs: Mapping[str, Needs | None], *also: Change) -> set[str]:
        """Remove a dataset; return the objects it used.

        Args:
            dataset: Its id.
            needs: What each of its snapshots needs; None where it is unknown.
            also: Changes of the same write.
        """
        references = self._references()  # before the rows are removed, from which it is computed
        self._rows.write(
            self._rows.datasets.change(dataset, None),
            *self._rows.forget_snapshots(dataset),
            *self._index.change_of_ids(dataset, added=False),
            *also,
        )
        # After the write. If it fails, the counts still hold the objects, and nothing is deleted.
        for snapshot, each in needs.items():
            references.remove((dataset, snapshot), each)
        return objects_of(each for each in needs.values() if each is not None)

    def to_trash(self, info: DatasetInfo, row: TrashRow) -> Sequence[Change]:
        """Return the changes that keep a dataset's rows in the trash."""
        row = replace(row, purges=self._rows.purge_count(info.id))
        kept, snapshots = self._trashed(info.id), self._rows.snapshots(info.id).all()
        return (
            self.trash.change(info.id, row),
            *(kept.change(snapshot, each) for snapshot, each in snapshots.items()),
        )

    def restore(
        self, dataset: str, name: str | None, check: Callable[[str, set[str]], object]
    ) -> DatasetInfo:
        """Put a dataset of the trash back.

        Args:
            dataset: Its id.
            name: Another name; None for its own.
            check: Called with the name and all its objects; raises if one is not free, or is gone.

        Raises:
            NotFound: It is not in the trash.
            Corrupt: A manifest is gone or damaged.
        """
        row = self.row(dataset)
        info = replace(row.info, name=check_dataset_name(name or row.info.name))
        snapshots = self._trashed(dataset).all()
        references = self._references()
        needs = [
            self._manifests.needs(
                each.manifest, self._manifests.stored(each.manifest), References()
            )
            for each in snapshots.values()
        ]
        check(info.name, objects_of(needs))
        # Before the write, as in a commit: an object counted too much only stays.
        for each in needs:
            references.add(each)
        back = self._rows.snapshots(dataset)
        self._rows.write(
            self._rows.datasets.change(dataset, info),
            *(back.change(snapshot, each) for snapshot, each in snapshots.items()),
            *([self._rows.purges.change(dataset, Purges(row.purges))] if row.purges else ()),
            *self._index.change_of_ids(dataset, added=True),
            *self._gone(dataset),
        )
        return info

    def row(self, dataset: str) -> TrashRow:
        """Return the row of a dataset in the trash.

        Raises:
            NotFound: There is none.
        """
        row = None
        if dataset and "/" not in dataset:
            row = self.trash.get(dataset)
        if row is None:
            raise NotFound("dataset in the trash", dataset[:80])
        return row

    def forget(self, dataset: str) -> None:
        """Remove a dataset from the trash, after its objects."""
        self._rows.write(*self._gone(dataset))

    def _gone(self, dataset: str) -> Sequence[Change]:
        return (self.trash.change(dataset, None), Change(f"trashed/{dataset}", None))

    def _trashed(self, dataset: str) -> Table[SnapshotRow]:
        return Table(self._tree, f"/trashed/{dataset}", SnapshotRow)
