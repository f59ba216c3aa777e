"""Reads the snapshots of datasets, and checks them: rows by their manifests, manifests by their hashes.

Damage to one dataset is an error of that dataset only, and is remembered for lists.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from lake.catalog.manifests import Manifests
from lake.catalog.references import Needs
from lake.catalog.snapshots import Manifest, StoredManifest
from lake.catalog.tables import CatalogTables, SnapshotRow
from lake.errors import damaged_dataset
from sennit_core.errors import Corrupt, UsageError
from sennit_core.records import DatasetInfo

__all__ = ["CheckedSnapshots", "SnapshotState", "lost_snapshot"]

SnapshotState = tuple[str | None, StoredManifest | Corrupt]
"""The object id of a snapshot's manifest, if known, and the manifest or its damage."""


class CheckedSnapshots:
    """The snapshots of all datasets.

    Args:
        rows: The catalog's tables.
        manifests: The manifests.
    """

    def __init__(self, rows: CatalogTables, manifests: Manifests) -> None:
        self._rows = rows
        self._manifests = manifests
        # Damage below the catalog row, by dataset: of manifests, found when they are read, and of
        # shards, found by a scrub. An entry is removed when the same object is read and valid.
        self.damage: dict[str, Corrupt] = {}

    def needs(
        self, dataset_id: str, name: str, info: DatasetInfo | None, known: Container[str] = ()
    ) -> Iterator[tuple[str, Needs | None]]:
        """Yield each snapshot of `states` and what it needs; None where that is unknown.

        Args:
            dataset_id: The dataset.
            name: Its name.
            info: Its row; None if that is damaged.
            known: Lists that need not be read; may grow between two snapshots.
        """
        read: dict[str, frozenset[str]] = {}
        for snapshot, (manifest_id, state) in self.states(dataset_id, name, info).items():
            needs = None
            if manifest_id is not None and isinstance(state, StoredManifest):
                with suppress(Corrupt):
                    needs = self._manifests.needs(manifest_id, state, known, read)
            yield snapshot, needs

    def examine(
        self, dataset_id: str, name: str, info: DatasetInfo | None
    ) -> tuple[list[Corrupt], dict[str, Manifest], set[str]]:
        """Return the damage to a dataset's manifests, the intact ones by id, and the objects of the others.

        Args:
            dataset_id: As in `states`.
            name: As in `states`.
            info: As in `states`.
        """
        damage: list[Corrupt] = []
        found: dict[str, Manifest] = {}
        unread: set[str] = set()
        for manifest_id, state in self.states(dataset_id, name, info).values():
            try:
                if isinstance(state, Corrupt):
                    raise state
                if manifest_id is not None:
                    found[manifest_id] = self.with_shards(name, state)
            except Corrupt as problem:
                damage.append(problem)
                if manifest_id is not None:
                    lists = () if isinstance(state, Corrupt) else state.list_objects
                    unread.update((manifest_id, *lists))
        return damage, found, unread

    def states(
        self, dataset_id: str, name: str, info: DatasetInfo | None
    ) -> dict[str, SnapshotState]:
        """Return the state of each snapshot of a dataset.

        This includes snapshots without a row that are named as a parent or as the head; the key ""
        represents all snapshots of a dataset whose rows cannot be listed.

        Args:
            dataset_id: The dataset.
            name: Its name.
            info: Its row; None if that is damaged.
        """
        try:
            rows = self.rows(dataset_id, name)
        except Corrupt as problem:
            return {"": (None, problem)}
        states: dict[str, SnapshotState] = {}
        parents = {None if info is None else info.head}
        for snapshot, row in rows.items():
            try:
                if info is None:
                    manifest = self._read(dataset_id, name, snapshot, row)
                else:
                    manifest = self.stored(info, snapshot, row)
                states[snapshot] = row.manifest, manifest
                if not row.orphaned:
                    parents.add(manifest.snapshot.parent)
            except Corrupt as problem:
                states[snapshot] = row.manifest, problem
        # A snapshot that another one names as its parent, or that is the head, must have a row.
        for lost in parents - {None, *states}:
            assert lost is not None
            states[lost] = None, self.noted(dataset_id, lost_snapshot(name, lost))
        return states

    def name_in_manifests(self, dataset_id: str) -> str | None:
        """Return the dataset's name in the newest readable manifest."""
        try:
            rows = self._rows.snapshots(dataset_id).all()
        except (Corrupt, UsageError):
            return None
        for row in sorted(rows.values(), key=lambda row: row.created_at, reverse=True):
            try:
                name = self._manifests.stored(row.manifest).name
            except (Corrupt, UsageError):
                continue
            if name is not None:
                return name
        return None

    def row(self, dataset_id: str, name: str, snapshot: str) -> SnapshotRow | None:
        """Return the row of a snapshot; None if there is none.

        Raises:
            Corrupt: It is damaged.
        """
        try:
            return self._rows.snapshots(dataset_id).get(snapshot)
        except Corrupt as error:
            what = f"the catalog row of snapshot {snapshot}"
            raise self.noted(dataset_id, damaged_dataset(name, what, str(error))) from error

    def rows(self, dataset_id: str, name: str) -> dict[str, SnapshotRow]:
        """Return the rows of a dataset's snapshots by snapshot; as `row`."""
        try:
            return self._rows.snapshots(dataset_id).all()
        except (Corrupt, UsageError) as error:
            what = "the catalog rows of its snapshots"
            raise self.noted(dataset_id, damaged_dataset(name, what, str(error))) from error

    def whole(self, info: DatasetInfo, snapshot: str, row: SnapshotRow) -> Manifest:
        """Return a snapshot's manifest with all its shards; as `stored`."""
        return self.with_shards(info.name, self.stored(info, snapshot, row))

    def with_shards(self, name: str, stored: StoredManifest) -> Manifest:
        """Return a manifest with all its shards.

        Args:
            name: The dataset's.
            stored: The manifest.

        Raises:
            Corrupt: A list of shards is damaged.
        """
        try:
            return self._manifests.whole(stored)
        except Corrupt as error:
            what = f"the manifest of snapshot {stored.snapshot.id}"
            damage = damaged_dataset(name, what, str(error))
            raise self.noted(stored.snapshot.dataset, damage) from error

    def stored(self, info: DatasetInfo, snapshot: str, row: SnapshotRow) -> StoredManifest:
        """Return a snapshot's manifest; the head's must agree with the dataset's row.

        Raises:
            Corrupt: It is damaged, or not that of this snapshot.
        """
        manifest = self._read(info.id, info.name, snapshot, row)
        if snapshot == info.head:
            kept = (info.schema, info.rows, info.bytes, info.shards)
            if kept != (manifest.snapshot.schema, manifest.rows, manifest.bytes, manifest.shards):
                problem = "its columns, rows, bytes or shards are not those of its newest snapshot"
                raise self.noted(info.id, damaged_dataset(info.name, "its catalog row", problem))
        return manifest

    def orphaned(
        self, info: DatasetInfo, rows: Mapping[str, SnapshotRow], gone: Container[str]
    ) -> dict[str, SnapshotRow]:
        """Return the new rows of the snapshots whose parents go, and which stay themselves."""
        return {
            snapshot: replace(row, orphaned=True)
            for snapshot, row in rows.items()
            if snapshot not in gone and self.stored(info, snapshot, row).snapshot.parent in gone
        }

    def _read(self, dataset_id: str, name: str, snapshot: str, row: SnapshotRow) -> StoredManifest:
        try:
            manifest = self._manifests.stored(row.manifest)
            described = manifest.snapshot
            # Intact bytes under the wrong row (a flipped bit in the row's object id) would be
            # another dataset's data.
            if (described.dataset, described.id) == (dataset_id, snapshot):
                return manifest
            problem = f"it describes snapshot {described.id} of dataset {described.dataset}"
        except (Corrupt, UsageError) as error:  # UsageError: a row with an invalid object id
            problem = str(error)
        what = f"the manifest of snapshot {snapshot}"
        raise self.noted(dataset_id, damaged_dataset(name, what, problem))

    def noted(self, dataset_id: str, damage: Corrupt) -> Corrupt:
        """Remember the damage of a dataset; return it."""
        self.damage[dataset_id] = damage
        return damage


def lost_snapshot(dataset: str, snapshot: str) -> Corrupt:
    """Return the damage of a dataset whose snapshot has no row."""
    return damaged_dataset(dataset, f"the catalog row of snapshot {snapshot}", "none")
