"""Which datasets there are, and their snapshots: rows in Elkyn's `sys` tree.

`/datasets/{id}` holds the `DatasetInfo`, `/snapshots/{dataset}/{snapshot}` the manifest's object id.
A commit writes both in one atomic update, so a reader sees the old state or the new one. The tree
has one owner process, whose commits this class serializes and checks against the head that the
caller has seen.

Every row and manifest is checked when it is read: a row by its checksum, a manifest by its object id,
and both against each other. What is wrong with one dataset is an error of that dataset alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from elkyn.records import SnapshotRow, SystemTree
from lake.catalog_index import CatalogIndex
from lake.errors import damaged_dataset
from lake.objects import ObjectStore
from lake.references import References
from lake.snapshots import Manifest, read_manifest, write_manifest
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, Corrupt, NotFound, UsageError, nearest
from sennit_core.records import DatasetInfo, SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["Catalog", "check_dataset_name"]

_NAME_MAX = 128
_MANIFESTS_KEPT = 64


class Catalog:
    """The datasets of one node.

    Args:
        tree: The `sys` namespace.
        objects: Where manifests are kept.
        clock: Source of creation times.
    """

    def __init__(self, tree: ElkynStore, objects: ObjectStore, *, clock: Clock = SYSTEM) -> None:
        self._rows = SystemTree(tree)
        self._objects = objects
        self._clock = clock
        self._lock = threading.RLock()
        self._index = CatalogIndex(tree, self._name_in_manifests)
        self._manifest = lru_cache(_MANIFESTS_KEPT)(lambda name: read_manifest(objects, name))
        self._references: References | None = None  # counted when first needed
        # Damage below the catalog row, by dataset: of manifests as they are read, and of shards as
        # a scrub finds it. An entry goes when the same thing is read and is right.
        self._damage: dict[str, Corrupt] = {}
        self._damaged_objects: dict[str, Corrupt] = {}

    def list(self) -> Sequence[DatasetInfo]:
        """All datasets by name; what is damaged says so in `damaged`.

        Raises:
            Corrupt: The catalog cannot be read at all.
        """
        found = (self._shown(dataset_id) for dataset_id in self._index.ids())
        return [info for info in found if info is not None]

    def count(self) -> int:
        """How many datasets there are."""
        return len(self._index.names())

    def get(self, id_or_name: str) -> DatasetInfo:
        """The dataset with this id or name (in any case).

        Raises:
            NotFound: There is none; suggests the nearest name.
            Corrupt: Its catalog row is damaged, or one that may be its row is.
        """
        info = self.find(id_or_name)
        if info is None:
            raise self.not_found(id_or_name)
        return info

    def not_found(self, name: str) -> NotFound | Corrupt:
        """The error for a name that no known dataset has."""
        reason = self._index.uncertainty
        if reason is not None:
            return reason
        return NotFound("dataset", name, suggestion=nearest(name, tuple(self._index.names())))

    def find(self, id_or_name: str) -> DatasetInfo | None:
        """As `get`, None when there is none."""
        dataset_id = self._index.find(id_or_name)
        return None if dataset_id is None else self._index.get(dataset_id)

    def find_known(self, id_or_name: str) -> DatasetInfo | None:
        """As `find`, None too when a damaged row may be that of the dataset."""
        dataset_id = self._index.find_known(id_or_name)
        return None if dataset_id is None else self._index.get(dataset_id)

    def find_id(self, id_or_name: str) -> str | None:
        """The id of a dataset, which may be damaged; None when none is known."""
        return self._index.find_known(id_or_name)

    def find_all(self, words: Iterable[str]) -> Sequence[str]:
        """Ids of the datasets that have one of the folded words as their id or name."""
        return self._index.find_all(words)

    def ids(self) -> Sequence[str]:
        """Ids of all datasets by name, damaged ones included."""
        return self._index.ids()

    @property
    def problem(self) -> Corrupt | None:
        """Why the catalog cannot be read whole, if it cannot: there may be unknown datasets."""
        return self._index.problem

    def name(self, dataset_id: str) -> str:
        """The name of a dataset that there is, damaged or not."""
        return self._index.name(dataset_id)

    def check_free(self, name: str) -> None:
        """Refuse a name that a known dataset has already; SQL names are the same in any case.

        Raises:
            Conflict: One has it.
            Corrupt: The catalog cannot be read at all.
        """
        taken = self._index.find_known(check_dataset_name(name))
        if (reason := self._index.unreadable) is not None:
            raise reason
        if taken is not None:
            raise Conflict(
                f"a dataset named {self._index.name(taken)!r} exists",
                hint="give another name, or ask for mode append or replace",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other commits out while a new state is made from the newest one."""
        with self._lock:
            yield

    def commit(
        self, dataset: DatasetInfo, manifest: Manifest, *, expected_head: str | None
    ) -> DatasetInfo:
        """Make a snapshot the dataset's head; a dataset without head is created.

        Args:
            dataset: Id, name, owner and settings; head and sizes are taken from the manifest.
            manifest: The new snapshot, its shards stored already.
            expected_head: The head that it was made from.

        Raises:
            Conflict: The head has moved, or the name is taken.
        """
        snapshot = manifest.snapshot
        with self._lock:
            known = self._index.get(dataset.id)
            head = None if known is None else known.head
            if head != expected_head:
                raise Conflict(
                    f"dataset {dataset.name!r} has moved on to snapshot {head}",
                    hint="read it again and repeat the change",
                )
            if known is None:
                self.check_free(dataset.name)
            name = write_manifest(self._objects, replace(manifest, name=dataset.name))
            committed = DatasetInfo(
                id=dataset.id,
                name=dataset.name,
                owner=dataset.owner,
                schema=snapshot.schema,
                head=snapshot.id,
                rows=manifest.rows,
                bytes=manifest.bytes,
                shards=len(snapshot.shards),
                created_at=dataset.created_at if known is not None else self._clock.now(),
                visibility=dataset.visibility,
                replication=dataset.replication,
            )
            # Before the write: it may reach the disk and still fail, and an object that is counted
            # for nothing stays, while one that is not counted would be deleted.
            self._counted().add({name, *objects_of(snapshot)})
            self._rows.write(
                self._rows.datasets.change(dataset.id, committed),
                self._rows.snapshots(dataset.id).change(
                    snapshot.id, SnapshotRow(name, manifest.created_at)
                ),
                *(() if known else self._index.change_of_ids(dataset.id, added=True)),
            )
            self._damage.pop(dataset.id, None)
            return committed

    def manifest(self, dataset: str, snapshot: str | None = None) -> Manifest:
        """The manifest of a snapshot, of the head when none is named.

        Raises:
            NotFound: There is no such dataset or snapshot.
            Corrupt: The dataset's row or the manifest is damaged.
        """
        info = self.get(dataset)
        wanted = info.head if snapshot is None else snapshot
        row = self._snapshot_row(info.id, info.name, wanted) if wanted else None
        if row is None:
            if wanted == info.head and wanted is not None:
                raise self._noted(info.id, _lost_snapshot(info.name, wanted))
            raise NotFound(kind=f"snapshot of {info.name!r}", name=wanted or "", suggestion=None)
        assert wanted is not None
        return self._checked(info, wanted, row)

    def has_snapshot(self, dataset_id: str, snapshot: str) -> bool:
        """Whether this snapshot was committed."""
        return snapshot in self._rows.snapshots(dataset_id)

    def snapshots(self, dataset: str) -> Sequence[SnapshotInfo]:
        """The dataset's snapshots, newest first."""
        return [manifest.snapshot for manifest in self.manifests(dataset)]

    def manifests(self, dataset: str) -> Sequence[Manifest]:
        """The dataset's manifests, newest first.

        Raises:
            Corrupt: One of them is damaged, or the dataset's row is.
        """
        info = self.get(dataset)
        found = [
            self._checked(info, snapshot, row)
            for snapshot, row in self._snapshot_rows(info.id, info.name).items()
        ]
        return sorted(found, key=lambda m: (m.created_at, m.snapshot.id), reverse=True)

    def check_shards(self, snapshot: SnapshotInfo) -> None:
        """Refuse a snapshot with a shard that a scrub has found to be damaged.

        Raises:
            Corrupt: It has one.
        """
        if self._damaged_objects:
            for shard in snapshot.shards:
                if shard.object in self._damaged_objects:
                    raise self._noted(snapshot.dataset, self._damaged_objects[shard.object])

    def note_object(self, name: str, damage: Corrupt | None) -> None:
        """Remember what a scrub has found of an object, so that nobody reads what it refused."""
        if damage is None:
            self._damaged_objects.pop(name, None)
        else:
            self._damaged_objects[name] = damage

    def note_dataset(self, dataset_id: str, damage: Corrupt | None) -> None:
        """Show a dataset as damaged, or as whole again."""
        if damage is None:
            self._damage.pop(dataset_id, None)
        else:
            self._damage[dataset_id] = damage

    def reload(self) -> None:
        """Forget what was read: rows and manifests are read again when they are needed."""
        with self._lock:
            self._index.reload()
            self._manifest.cache_clear()
            if self._references is not None and not self._references.complete:
                self._references = None

    def examine(self, dataset_id: str) -> tuple[Sequence[Corrupt], dict[str, Manifest]]:
        """What is wrong with a dataset's rows and manifests, and the manifests that are right.

        The manifests are by their object ids, the newest first.
        """
        damage = []
        try:
            self._index.get(dataset_id)
        except Corrupt as problem:
            damage.append(problem)
        found: dict[str, Manifest] = {}
        for manifest_id, state in self._states(dataset_id).values():
            if isinstance(state, Corrupt):
                damage.append(state)
            elif manifest_id is not None:
                found[manifest_id] = state
        newest = sorted(found.items(), key=lambda item: item[1].created_at, reverse=True)
        return damage, dict(newest)

    def references(self, name: str) -> bool:
        """Whether some snapshot needs the object, manifests included."""
        with self._lock:
            return name in self._counted()

    @property
    def references_known(self) -> bool:
        """Whether `references` knows every snapshot; false while a manifest cannot be read."""
        with self._lock:
            return self._counted().complete

    def remove(self, dataset: str) -> tuple[DatasetInfo, set[str]]:
        """Take the dataset, damaged or not, out of the catalog; returns it and the objects it used.

        Only `lake.retention` calls this: it knows what happens to the objects.
        """
        with self._lock:
            dataset_id = self._index.find_known(dataset)
            if dataset_id is None:
                raise self.not_found(dataset)
            shown = self._shown(dataset_id)
            assert shown is not None, "the catalog is locked"
            references = self._counted()
            needs = self._needs(dataset_id)
            self._rows.write(
                self._rows.datasets.change(dataset_id, None),
                self._rows.forget_snapshots(dataset_id),
                *self._index.change_of_ids(dataset_id, added=False),
            )
            for snapshot, objects in needs.items():
                references.remove((dataset_id, snapshot), objects or ())
            self._damage.pop(dataset_id, None)
            return shown, {name for objects in needs.values() for name in objects or ()}

    def _shown(self, dataset_id: str) -> DatasetInfo | None:
        """The dataset as lists show it: what is known, and the reason where it is damaged."""
        try:
            info = self._index.get(dataset_id)
        except Corrupt as damage:
            return DatasetInfo(
                dataset_id, self._index.name(dataset_id), "", Schema(()), damaged=str(damage)
            )
        if info is None or dataset_id not in self._damage:
            return info
        return replace(info, damaged=str(self._damage[dataset_id]))

    def _counted(self) -> References:
        if self._references is None:
            found = References()
            ids: Sequence[str] = ()
            with suppress(Corrupt):
                ids = self._index.ids()
            if self._index.problem is not None:  # there may be others: nothing may be deleted
                found.add_unknown(("", ""))
            for dataset_id in ids:
                for snapshot, objects in self._needs(dataset_id).items():
                    if objects is None:
                        found.add_unknown((dataset_id, snapshot))
                    else:
                        found.add(objects)
            self._references = found
        return self._references

    def _needs(self, dataset_id: str) -> dict[str, set[str] | None]:
        """Of each snapshot the objects it needs; None where nobody can know them."""
        needs: dict[str, set[str] | None] = {}
        for snapshot, (manifest_id, state) in self._states(dataset_id).items():
            needs[snapshot] = None
            if manifest_id is not None and isinstance(state, Manifest):
                needs[snapshot] = {manifest_id, *objects_of(state.snapshot)}
        return needs

    def _states(self, dataset_id: str) -> dict[str, tuple[str | None, Manifest | Corrupt]]:
        """Of each snapshot its manifest's object id and the manifest, or what is wrong with it.

        A snapshot that another names as its parent, or the dataset as its head, and that has no row,
        is one of these; so is "", for all snapshots of a dataset whose rows cannot be listed.
        """
        name, head = self._index.name(dataset_id), None
        info = None
        with suppress(Corrupt):
            info = self._index.get(dataset_id)
            head = None if info is None else info.head
        try:
            rows = self._snapshot_rows(dataset_id, name)
        except Corrupt as problem:
            return {"": (None, problem)}
        states: dict[str, tuple[str | None, Manifest | Corrupt]] = {}
        parents = {head}
        for snapshot, row in rows.items():
            try:
                if info is None:
                    manifest = self._read(dataset_id, name, snapshot, row)
                else:
                    manifest = self._checked(info, snapshot, row)
                states[snapshot] = row.manifest, manifest
                parents.add(manifest.snapshot.parent)
            except Corrupt as problem:
                states[snapshot] = row.manifest, problem
        for lost in parents - {None, *states}:
            assert lost is not None
            states[lost] = None, self._noted(dataset_id, _lost_snapshot(name, lost))
        return states

    def _name_in_manifests(self, dataset_id: str) -> str | None:
        """The name that the newest readable manifest gives a dataset."""
        try:
            rows = self._rows.snapshots(dataset_id).all()
        except (Corrupt, UsageError):
            return None
        for row in sorted(rows.values(), key=lambda row: row.created_at, reverse=True):
            try:
                name = read_manifest(self._objects, row.manifest).name
            except (Corrupt, UsageError):
                continue
            if name is not None:
                return name
        return None

    def _snapshot_row(self, dataset_id: str, name: str, snapshot: str) -> SnapshotRow | None:
        try:
            return self._rows.snapshots(dataset_id).get(snapshot)
        except Corrupt as error:
            what = f"the catalog row of snapshot {snapshot}"
            raise self._noted(dataset_id, damaged_dataset(name, what, str(error))) from error

    def _snapshot_rows(self, dataset_id: str, name: str) -> dict[str, SnapshotRow]:
        try:
            return self._rows.snapshots(dataset_id).all()
        except (Corrupt, UsageError) as error:
            what = "the catalog rows of its snapshots"
            raise self._noted(dataset_id, damaged_dataset(name, what, str(error))) from error

    def _checked(self, info: DatasetInfo, snapshot: str, row: SnapshotRow) -> Manifest:
        """A snapshot's manifest that agrees with the dataset's row, when it is the head."""
        manifest = self._read(info.id, info.name, snapshot, row)
        if snapshot == info.head:
            kept = (info.schema, info.rows, info.bytes, info.shards)
            shards = manifest.snapshot.shards
            if kept != (manifest.snapshot.schema, manifest.rows, manifest.bytes, len(shards)):
                problem = "its columns, rows, bytes or shards are not those of its newest snapshot"
                raise self._noted(info.id, damaged_dataset(info.name, "its catalog row", problem))
        return manifest

    def _read(self, dataset_id: str, name: str, snapshot: str, row: SnapshotRow) -> Manifest:
        try:
            manifest = self._manifest(row.manifest)
            described = manifest.snapshot
            if (described.dataset, described.id) == (dataset_id, snapshot):
                return manifest
            problem = f"it describes snapshot {described.id} of dataset {described.dataset}"
        except (Corrupt, UsageError) as error:  # UsageError: a row that names no object
            problem = str(error)
        what = f"the manifest of snapshot {snapshot}"
        raise self._noted(dataset_id, damaged_dataset(name, what, problem))

    def _noted(self, dataset_id: str, damage: Corrupt) -> Corrupt:
        self._damage[dataset_id] = damage
        return damage


def _lost_snapshot(dataset: str, snapshot: str) -> Corrupt:
    return damaged_dataset(dataset, f"the catalog row of snapshot {snapshot}", "none")


def objects_of(snapshot: SnapshotInfo) -> set[str]:
    """Ids of the shards, and of the sources that were kept."""
    shards = {shard.object for shard in snapshot.shards}
    return shards | {s.source_object for s in snapshot.shards if s.source_object is not None}


def check_dataset_name(name: str) -> str:
    """The name, or `UsageError` when SQL and people could not use it."""
    if not name or not name.isprintable() or name != name.strip():
        raise UsageError(f"{name[:80]!r} is not a dataset name")
    if len(name) > _NAME_MAX:
        raise UsageError(f"the dataset name has {len(name)} characters; {_NAME_MAX} are allowed")
    return name
