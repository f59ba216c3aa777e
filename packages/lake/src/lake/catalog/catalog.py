"""The catalog of datasets and their snapshots: rows in Elkyn's `sys` tree.

`/datasets/{id}` holds the `DatasetInfo`, `/snapshots/{dataset}/{snapshot}` the manifest's object id.
A commit writes both in one atomic update, so a reader sees the old state or the new one. The tree
has one owner process, whose commits this class serializes and checks against the caller's expected
head.

Every row and manifest is checked when it is read: a row by its checksum, a manifest by its object id,
and both against each other. Damage to one dataset is an error of that dataset only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lake._failpoints import reached
from lake.catalog.adoption import SnapshotAdopter, check_own
from lake.catalog.advisory_locks import AdvisoryLocks
from lake.catalog.checked_snapshots import CheckedSnapshots, lost_snapshot
from lake.catalog.commits import Commit, committed_dataset, numbered, parent_of
from lake.catalog.history import check_dataset_name, snapshot_at
from lake.catalog.index import CatalogIndex
from lake.catalog.manifests import Manifests
from lake.catalog.node_key import NodeKey
from lake.catalog.references import Needs, References, objects_of
from lake.catalog.removal import DatasetRemoval
from lake.catalog.rewrite import SnapshotRewriter
from lake.catalog.shard_lists import ShardLists
from lake.catalog.snapshots import AnyManifest, Manifest, StoredManifest
from lake.catalog.tables import CatalogTables, SnapshotRow
from lake.catalog.tags import DatasetTags
from lake.errors import damaged_dataset, is_damage_of, without_snapshot
from lake.objects.store import ObjectStore
from lake.views.views import Views
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, Corrupt, NotFound, nearest
from sennit_core.records import DatasetInfo, SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from elkyn.records import Change

__all__ = ["Catalog", "check_dataset_name"]


class Catalog:
    """The datasets of one node.

    Args:
        tree: The `sys` namespace.
        objects: Stores the manifests.
        clock: Source of creation times.
        key: Signs the manifests.
    """

    def __init__(
        self,
        tree: ElkynStore,
        objects: ObjectStore,
        *,
        clock: Clock = SYSTEM,
        key: NodeKey | None = None,
    ) -> None:
        self._rows = CatalogTables(tree)
        self.views = Views(tree, clock)
        self._clock = clock
        self._objects = objects
        # Held by commits and removals, from the comparison of the head to the write, so that no two
        # snapshots have the same parent by accident. Reads take it only for the references.
        self._lock = threading.RLock()
        self._manifests = Manifests(objects, key)  # `reload` empties its cache, to find damage
        self._snapshots = CheckedSnapshots(self._rows, self._manifests)
        self.lists = ShardLists(self._manifests, self._snapshots)
        self._index = CatalogIndex(tree, self._snapshots.name_in_manifests)
        self._tags = DatasetTags(self._rows, self._snapshots)
        self._references: References | None = None  # computed on first use
        self.rewriter = SnapshotRewriter(
            self._rows, self._manifests, self._snapshots, self._counted, objects.sync_names
        )
        self.adopter = SnapshotAdopter(
            self._rows, self._index, self._manifests, self._snapshots, lambda: self._references,
            objects.sync_names,
        )  # fmt: skip
        self.removal = DatasetRemoval(tree, self._rows, self._index, self._manifests, self._counted)
        self._damaged_objects: dict[str, Corrupt] = {}  # shards that a scrub found to be damaged
        self.admit: Callable[[Sequence[Commit]], object] = list  # or raises
        self.commit_locks = AdvisoryLocks()

    def list(self) -> Sequence[DatasetInfo]:
        """Return all datasets ordered by name; a damaged one has the reason in `damaged`.

        Raises:
            Corrupt: The catalog cannot be read at all.
        """
        return [info for info in map(self._shown, self._index.ids()) if info is not None]

    def count(self) -> int:
        """Return the number of datasets."""
        return len(self._index.names())

    def get(self, id_or_name: str) -> DatasetInfo:
        """Return the dataset with this id or name (case-insensitive).

        Raises:
            NotFound: There is none; suggests the nearest name.
            Corrupt: Its catalog row, or a row that may be its row, is damaged.
        """
        info = self.find(id_or_name)
        if info is None:
            raise self.not_found(id_or_name)
        return info

    def not_found(self, name: str) -> NotFound | Corrupt:
        """Return the error for a name that no known dataset has."""
        if (reason := self._index.uncertainty) is not None:
            return reason
        return NotFound("dataset", name, suggestion=nearest(name, tuple(self._index.names())))

    def find(self, id_or_name: str) -> DatasetInfo | None:
        """As `get`, but return None if there is none."""
        dataset_id = self._index.find(id_or_name)
        return None if dataset_id is None else self._index.get(dataset_id)

    def find_known(self, id_or_name: str) -> DatasetInfo | None:
        """As `find`, but also return None if a damaged row may belong to the dataset."""
        dataset_id = self._index.find_known(id_or_name)
        return None if dataset_id is None else self._index.get(dataset_id)

    def find_id(self, id_or_name: str) -> str | None:
        """Return the id of a dataset, which may be damaged; None if no dataset is known."""
        return self._index.find_known(id_or_name)

    def find_all(self, words: Iterable[str]) -> Sequence[str]:
        """Return the ids of the datasets whose id or folded name is one of the words."""
        return self._index.find_all(words)

    def ids(self) -> Sequence[str]:
        """Return the ids of all datasets ordered by name, including damaged ones."""
        return self._index.ids()

    @property
    def problem(self) -> Corrupt | None:
        """Why the catalog is incomplete (there may be unknown datasets); None if it is complete."""
        return self._index.problem

    def name(self, dataset_id: str) -> str:
        """Return the name of an existing dataset, damaged or not."""
        return self._index.name(dataset_id)

    def check_free(self, name: str) -> None:
        """Refuse a name that a known dataset or view has; names are compared case-insensitively, as in SQL.

        Raises:
            Conflict: A dataset has the name.
            Corrupt: The catalog cannot be read at all.
        """
        existing = self._index.find_known(check_dataset_name(name))
        if (reason := self._index.unreadable) is not None:
            raise reason
        self.views.check_free(name)
        if existing is not None:
            raise Conflict(
                f"a dataset named {self._index.name(existing)!r} exists",
                hint="use another name, or mode append or replace",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Block other commits while a new snapshot is derived from the head."""
        with self._lock:
            yield

    def add_linked(self, dataset: DatasetInfo) -> None:
        """Create a dataset without a snapshot, whose rows are those of a linked file.

        Raises:
            Conflict: The name is in use.
        """
        with self._lock:
            self.check_free(dataset.name)
            linked = replace(dataset, created_at=self._clock.now())
            self._rows.write(
                self._rows.datasets.change(dataset.id, linked),
                *self._index.change_of_ids(dataset.id, added=True),
            )

    def commit(
        self,
        dataset: DatasetInfo,
        manifest: AnyManifest,
        *,
        expected_head: str | None,
    ) -> DatasetInfo:
        """Make a snapshot the dataset's head; create the dataset if it has no head.

        Args:
            dataset: Id, name, owner and settings; head and sizes are set from the manifest.
            manifest: The new snapshot, whose shards are already stored; a `StoredManifest` if it
                only adds shards, which then costs what it adds.
            expected_head: The head that the snapshot was derived from.

        Raises:
            Conflict: The head has changed, or the name is in use.
        """
        return self.commit_all([Commit(dataset, manifest, expected_head)])[0]

    def commit_all(
        self, commits: Sequence[Commit], also: Sequence[Change] = ()
    ) -> Sequence[DatasetInfo]:
        """As `commit`, for several datasets, and rows of views: a reader sees all of it or none.

        Raises:
            Conflict: The head of one has changed, or its name is in use.
        """
        with self._lock:
            self.admit(commits)
            prepared = [self._prepare(commit) for commit in commits]
            new = [each.id for each, _, is_new in prepared if is_new]
            reached("commit-prepared")
            self._objects.sync_names()  # of the manifests, and of the shards
            # One atomic write: the heads and their manifests' rows appear together or not at all.
            self._rows.write(
                *(change for _, changes, _ in prepared for change in changes),
                *self._index.change_of_ids(*new, added=True),
                *also,
            )
            for each, _, _ in prepared:  # their rows have just been written whole
                self._snapshots.damage.pop(each.id, None)
            return [each for each, _, _ in prepared]

    def adopt(self, dataset: DatasetInfo, manifest: str | None, *also: Change) -> set[str]:
        """Adopt a dataset that another node writes; see `SnapshotAdopter.adopt`.

        Raises:
            Conflict: Another dataset has the name.
        """
        with self._lock:
            if self._index.find_known(dataset.name) != dataset.id:
                self.check_free(dataset.name)
            return self.adopter.adopt(dataset, manifest, *also)

    def _prepare(self, commit: Commit) -> tuple[DatasetInfo, Sequence[Change], bool]:
        """Write a manifest; return the dataset, the changes of its rows, and whether it is new."""
        dataset = commit.dataset
        known = self._index.get(dataset.id)
        check_own(known)
        head = None if known is None else known.head
        # The caller may have read the head before it had the lock.
        if head != commit.expected_head:
            raise Conflict(
                f"dataset {dataset.name!r} has moved on to snapshot {head}",
                hint="read it again and repeat the change",
            )
        if known is None:
            self.check_free(dataset.name)
        # The manifest is durable before the row that names it: a crash in between leaves an
        # object that the next start sweeps, not a dataset that cannot be read. It repeats the
        # dataset's name, which is then known even if the row is damaged.
        manifest: AnyManifest = commit.manifest
        manifest = replace(numbered(manifest, known, self._snapshots), name=dataset.name)
        name = self._manifests.write(manifest, parent_of(manifest, known, self._snapshots))
        created_at = dataset.created_at if known is not None else self._clock.now()
        committed = replace(committed_dataset(dataset, manifest), created_at=created_at)
        # Before the write, which may reach the disk and still fail: counting an object too much
        # only keeps it, while a missing count would delete it.
        if self._references is not None:
            written = self._manifests.stored(name)
            self._references.add(self._manifests.needs(name, written, self._references))
        row = SnapshotRow(name, manifest.created_at, manifest.snapshot.version)
        changes = [
            self._rows.datasets.change(dataset.id, committed),
            self._rows.snapshots(dataset.id).change(manifest.snapshot.id, row),
        ]
        return committed, changes, known is None

    def rename(self, dataset_id: str, name: str) -> DatasetInfo:
        """Give a dataset another name.

        Raises:
            Conflict: Another dataset has the name.
        """
        with self._lock:
            info = self.get(dataset_id)
            check_own(info)
            if self._index.find_known(check_dataset_name(name)) != dataset_id:
                self.check_free(name)
            info = replace(info, name=name)
            self._rows.write(self._rows.datasets.change(dataset_id, info))
            return info

    def manifest_at(
        self,
        dataset: str,
        *,
        version: int | str | None = None,
        time: float | None = None,
    ) -> Manifest:
        """Return the manifest of the snapshot with a version, or of the newest at a time.

        Args:
            dataset: Id or name.
            version: Number of the snapshot, or its tag.
            time: Unix seconds.

        Raises:
            NotFound: There is no such dataset or snapshot.
            Corrupt: The dataset's row, the snapshot's row or the manifest is damaged.
        """
        info = self.get(dataset)
        rows = self._snapshots.rows(info.id, info.name)
        if not rows and info.head is None:
            raise without_snapshot(info)
        if isinstance(version, str):
            tags = self.tags(info.id)
            if version not in tags:
                raise NotFound(f"tag of {info.name!r}", version, suggestion=nearest(version, tags))
            return self.manifest(info.id, tags[version])
        snapshot = snapshot_at(info.name, rows, version, time)
        manifest = self._snapshots.whole(info, snapshot, rows[snapshot])
        # Rows of snapshots have no checksum.
        kept = (manifest.snapshot.version, manifest.created_at)
        if kept != (rows[snapshot].version, rows[snapshot].created_at):
            problem = "its version or time is not that of its manifest"
            what = f"the catalog row of snapshot {snapshot}"
            raise self._snapshots.noted(info.id, damaged_dataset(info.name, what, problem))
        return manifest

    def manifest(self, dataset: str, snapshot: str | None = None) -> Manifest:
        """Return the manifest of a snapshot, by default of the head.

        Raises:
            NotFound: There is no such dataset or snapshot.
            Corrupt: The dataset's row or the manifest is damaged.
        """
        info, stored = self._stored(dataset, snapshot)
        return self._snapshots.with_shards(info.name, stored)

    def stored_manifest(self, dataset: str, snapshot: str | None = None) -> StoredManifest:
        """As `manifest`, but without the shards of its lists, which are not read."""
        return self._stored(dataset, snapshot)[1]

    def _stored(self, dataset: str, snapshot: str | None) -> tuple[DatasetInfo, StoredManifest]:
        info = self.get(dataset)
        wanted = info.head if snapshot is None else snapshot
        if wanted is None:
            raise without_snapshot(info)
        row = self._snapshots.row(info.id, info.name, wanted) if wanted else None
        if row is None:
            if wanted == info.head:
                raise self._snapshots.noted(info.id, lost_snapshot(info.name, wanted))
            raise NotFound(kind=f"snapshot of {info.name!r}", name=wanted, suggestion=None)
        return info, self._snapshots.stored(info, wanted, row)

    def has_snapshot(self, dataset_id: str, snapshot: str) -> bool:
        """Return whether this snapshot was committed."""
        return snapshot in self._rows.snapshots(dataset_id)

    def snapshots(
        self, dataset: str, *, before: int | None = None, limit: int | None = None
    ) -> Sequence[StoredManifest]:
        """Return the dataset's snapshots, newest first, without the shards of their lists.

        Args:
            dataset: Id or name.
            before: Only versions below this one.
            limit: Their number at most.

        Raises:
            Corrupt: A manifest or the dataset's row is damaged.
        """
        info = self.get(dataset)
        rows = self._snapshots.rows(info.id, info.name)
        found = sorted(
            (row.version, row.created_at, snapshot)
            for snapshot, row in rows.items()
            if before is None or row.version < before
        )
        newest = found[::-1][:limit]
        return [self._snapshots.stored(info, snapshot, rows[snapshot]) for *_, snapshot in newest]

    def tags(self, dataset: str) -> dict[str, str]:
        """Return the ids of the snapshots of a dataset that have a tag, by tag."""
        return self._tags.of(self.get(dataset))

    def set_tag(self, dataset: str, name: str, snapshot: str | None) -> None:
        """Give a snapshot a tag; see `DatasetTags.set`.

        Args:
            dataset: Id or name.
            name: The tag.
            snapshot: Id of a snapshot; None removes the tag.
        """
        with self._lock:
            self._tags.set(self.get(dataset), name, snapshot)

    def expire(
        self,
        dataset: str,
        choose: Callable[[Mapping[str, SnapshotRow]], set[str]],
        *,
        is_own: bool,
        tagged: bool = False,
    ) -> tuple[Sequence[int], set[str]]:
        """Remove old snapshots of a dataset; return their versions, and the objects that they used.

        Only `lake.maintenance.retention` may call this, because it deletes the objects.

        Args:
            dataset: Id or name.
            choose: Returns the ids of those that go; the head and those with a tag stay.
            tagged: Whether those with a tag go too, with their tags.
            is_own: Whether it is to be a dataset of this node; Denied if another node writes it.
        """
        with self._lock:
            info = self.get(dataset)
            if is_own:
                check_own(info)
            rows = self._snapshots.rows(info.id, info.name)
            gone = choose(rows) - {info.head, *(() if tagged else self.tags(info.id).values())}
            needs = self._needs(info.id) if gone else {}
            # What is damaged stays until somebody has looked at it.
            gone = {snapshot for snapshot in gone if needs.get(snapshot) is not None}
            if not gone:
                return [], set()
            references, table = self._counted(), self._rows.snapshots(info.id)
            changed = {**dict.fromkeys(gone), **self._snapshots.orphaned(info, rows, gone)}
            self._rows.write(
                *(table.change(snapshot, row) for snapshot, row in changed.items()),
                *(self._tags.without(info, gone) if tagged else ()),
            )
            # After the write. If it fails, the counts still hold the objects.
            for snapshot in gone:
                references.remove((info.id, snapshot), needs[snapshot])
            used = objects_of(each for key in gone if (each := needs[key]) is not None)
            return sorted(rows[snapshot].version for snapshot in gone), used

    def check_shards(
        self, snapshot: SnapshotInfo, is_replaceable: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Refuse a snapshot with a shard that a scrub found to be damaged.

        Args:
            snapshot: The snapshot.
            is_replaceable: Whether the reader gets a shard that is not here from another node.

        Raises:
            Corrupt: A shard is damaged.
        """
        if self._damaged_objects:
            for shard in snapshot.shards:
                if shard.object in self._damaged_objects and not is_replaceable(shard.object):
                    raise self._snapshots.noted(
                        snapshot.dataset, self._damaged_objects[shard.object]
                    )

    def note_object(self, name: str, damage: Corrupt | None) -> None:
        """Record a scrub's finding for an object, so that damaged objects are not read."""
        if damage is None:
            if self._damaged_objects.pop(name, None) is not None:
                # What was noted because of this object; other damage is noted again when it is met.
                for key, each in list(self._snapshots.damage.items()):
                    if name in str(each):
                        self._snapshots.damage.pop(key, None)
        else:
            self._damaged_objects[name] = damage

    def note_damage(self, datasets: Mapping[str, str], damage: Corrupt) -> None:
        """Record the damage that an executor reported for a dataset.

        Args:
            datasets: The datasets that the executor read: ids by names.
            damage: The executor's error; ignored if it is not about one of the datasets.
        """
        for name, dataset_id in datasets.items():
            if is_damage_of(damage, name):
                self.note_dataset(dataset_id, damage)

    def note_dataset(self, dataset_id: str, damage: Corrupt | None) -> None:
        """Mark a dataset as damaged, or as intact again."""
        if damage is None:
            self._snapshots.damage.pop(dataset_id, None)
        else:
            self._snapshots.damage[dataset_id] = damage

    def reload(self) -> None:
        """Clear the caches: rows and manifests are read again on next use."""
        with self._lock:
            self._index.reload()
            self._manifests.clear()
            if self._references is not None and not self._references.complete:
                self._references = None

    def examine(self, dataset_id: str) -> tuple[Sequence[Corrupt], dict[str, Manifest], set[str]]:
        """Return a dataset's damage, the intact manifests, newest first, and what of the others is stored."""
        name, info = self._index.name(dataset_id), None
        damage = []
        try:
            info = self._index.get(dataset_id)
        except Corrupt as problem:
            damage.append(problem)
        problems, found, unread = self._snapshots.examine(dataset_id, name, info)
        damage += problems
        newest = sorted(found.items(), key=lambda item: item[1].created_at, reverse=True)
        return damage, dict(newest), unread

    def count_references(self) -> None:
        """Read every manifest, once; otherwise the first question about references does it."""
        with self._lock:
            self._counted()

    def references(self, name: str) -> bool:
        """Return whether any snapshot references the object, as shard, source or manifest."""
        with self._lock:
            return name in self._counted()

    def objects_of(self, dataset: str, snapshot: str) -> set[str]:
        """Return the ids of all objects of a snapshot whose manifest can be read."""
        with self._lock:
            needs = self._needs(self.get(dataset).id).get(snapshot)
            return set() if needs is None else objects_of([needs])

    @property
    def references_known(self) -> bool:
        """Whether `references` knows every snapshot: all manifests can be read."""
        with self._lock:
            return self._counted().complete

    def remove(self, dataset: str, *also: Change) -> tuple[DatasetInfo, set[str]]:
        """Remove a dataset, damaged or not, from the catalog; return it and the objects it used.

        Other changes are part of the same write.

        Only `lake.maintenance.retention` may call this, because it deletes the objects.
        """
        with self._lock:
            dataset_id = self._index.find_known(dataset)
            if dataset_id is None:
                raise self.not_found(dataset)
            shown = self._shown(dataset_id)
            assert shown is not None, "the catalog is locked"
            needs = self._needs(dataset_id)
            used = self.removal.remove(dataset_id, needs, *also)
            self._snapshots.damage.pop(dataset_id, None)
            return shown, used

    def all_objects(self, dataset_id: str) -> set[str] | None:
        """Return the ids of all objects of a dataset; None if a manifest cannot be read."""
        with self._lock:
            needs = self._needs(dataset_id)
            known = [each for each in needs.values() if each is not None]
            return objects_of(known) if len(known) == len(needs) else None

    def _needs(self, dataset_id: str) -> dict[str, Needs | None]:
        """Return what each snapshot of a dataset needs; None where it is unknown."""
        return dict(self._each_needs(dataset_id))

    def _each_needs(
        self, dataset_id: str, known: Container[str] = ()
    ) -> Iterator[tuple[str, Needs | None]]:
        info, name = None, self._index.name(dataset_id)
        with suppress(Corrupt):
            info = self._index.get(dataset_id)
        return self._snapshots.needs(dataset_id, name, info, known)

    def _shown(self, dataset_id: str) -> DatasetInfo | None:
        """Return the dataset as shown in lists: known fields, and the reason if it is damaged."""
        try:
            info = self._index.get(dataset_id)
        except Corrupt as damage:
            return DatasetInfo(
                dataset_id, self._index.name(dataset_id), "", Schema(()), damaged=str(damage)
            )
        if info is None or dataset_id not in self._snapshots.damage:
            return info
        return replace(info, damaged=str(self._snapshots.damage[dataset_id]))

    def _counted(self) -> References:
        if self._references is None:
            # Reads every manifest once; later commits and removals keep the counts.
            found = References()
            ids: Sequence[str] = ()
            with suppress(Corrupt):
                ids = self._index.ids()
            if self._index.problem is not None:
                # There may be unknown datasets, whose objects must not be deleted.
                found.add_unknown(("", ""))
            for dataset_id in ids:
                # A list that is counted already is not read again for the next snapshot.
                for snapshot, needs in self._each_needs(dataset_id, found):
                    if needs is None:
                        found.add_unknown((dataset_id, snapshot))
                    else:
                        found.add(needs)
            self._references = found
        return self._references
