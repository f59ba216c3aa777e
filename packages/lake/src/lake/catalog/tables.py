"""The rows of the catalog in the namespace `sys`, typed for writing and reading.

`/datasets/{id}` and `/snapshots/{dataset}/{id}` hold the catalog; `/catalog/datasets` says which
datasets there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING, Self

from elkyn.records import Change, CheckedTable, Table, write_changes
from sennit_core.hashing import sha256_hex
from sennit_core.records import DatasetInfo, Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["CatalogTables", "IdSet", "Purges", "SnapshotRow", "Tag", "Tags"]


@dataclass(frozen=True, slots=True)
class SnapshotRow(Record):
    """Where a snapshot's manifest is, and what it is found by.

    Args:
        manifest: Object id of the manifest.
        created_at: Unix seconds, as in the manifest.
        version: Its number in the dataset, as in the manifest.
        orphaned: Whether its parent was expired, so that it is not missed.
    """

    manifest: str
    created_at: float = 0.0
    version: int = 0
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Tag(Record):
    """A name for a snapshot."""

    name: str
    snapshot: str


@dataclass(frozen=True, slots=True)
class Tags(Record):
    """The tags of a dataset, in the order of their names."""

    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Purges(Record):
    """How often rows of a dataset were purged, by all nodes that have written it."""

    count: int


@dataclass(frozen=True, slots=True)
class IdSet(Record):
    """A digest of the ids that a table should have, to detect lost rows.

    Args:
        count: the number of ids.
        digest: XOR of the first 16 bytes of every id's SHA-256, in hex: adding and removing an id are
            the same operation, and order does not matter.
    """

    count: int
    digest: str

    @classmethod
    def of(cls, ids: Iterable[str]) -> Self:
        """Return the set of `ids`, which must be distinct."""
        ids = tuple(ids)
        return cls(len(ids), f"{reduce(xor, map(_id_digest, ids), 0):032x}")

    def adding(self, record_id: str) -> Self:
        """Return the set with an id that it does not contain."""
        return self._changed(record_id, 1)

    def removing(self, record_id: str) -> Self:
        """Return the set without an id that it contains."""
        return self._changed(record_id, -1)

    def _changed(self, record_id: str, step: int) -> Self:
        digest = int(self.digest, 16) ^ _id_digest(record_id)
        return type(self)(self.count + step, f"{digest:032x}")


class CatalogTables:
    """The tables of datasets and their snapshots.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        self._tree = tree
        self.datasets = CheckedTable(tree, "/datasets", DatasetInfo)
        self.catalog = CheckedTable(tree, "/catalog", IdSet)
        self.tags = CheckedTable(tree, "/tags", Tags)
        self.purges = CheckedTable(tree, "/purged", Purges)

    def snapshots(self, dataset_id: str) -> Table[SnapshotRow]:
        """Return the snapshots of a dataset."""
        return Table(self._tree, f"/snapshots/{dataset_id}", SnapshotRow)

    def datasets_with_snapshots(self) -> list[str]:
        """Return the ids of the datasets that have snapshots.

        Raises:
            Corrupt: the keys cannot be read.
        """
        return Table(self._tree, "/snapshots", SnapshotRow).ids()

    def purge_count(self, dataset_id: str) -> int:
        """Return how often rows of a dataset were purged.

        Raises:
            Corrupt: The row is damaged.
        """
        row = self.purges.get(dataset_id)
        return 0 if row is None else row.count

    def forget_snapshots(self, dataset_id: str) -> tuple[Change, ...]:
        """Return the removal of all snapshots of a dataset with their tags, for `write`."""
        return (
            Change(f"snapshots/{dataset_id}", None),
            self.tags.change(dataset_id, None),
            self.purges.change(dataset_id, None),
        )

    def write(self, *changes: Change) -> None:
        """Apply several changes in one write: a reader sees all of them or none."""
        write_changes(self._tree, *changes)


def _id_digest(record_id: str) -> int:
    return int(sha256_hex(record_id.encode())[:32], 16)
