"""Which datasets there are, and their snapshots: rows in Elkyn's `sys` tree.

`/datasets/{id}` holds the `DatasetInfo`, `/snapshots/{dataset}/{snapshot}` the manifest's object id.
A commit writes both in one atomic update, so a reader sees the old state or the new one. The tree
has one owner process, whose commits this class puts in a row and checks against the head that the
caller has seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from elkyn.records import SnapshotRow, SystemTree
from lake.objects import ObjectStore
from lake.snapshots import Manifest, read_manifest, write_manifest
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, NotFound, UsageError, nearest
from sennit_core.records import DatasetInfo, SnapshotInfo

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
        self._manifest = lru_cache(_MANIFESTS_KEPT)(lambda name: read_manifest(objects, name))

    def list(self) -> Sequence[DatasetInfo]:
        """All datasets by name."""
        return sorted(self._rows.datasets.all().values(), key=lambda info: info.name.casefold())

    def get(self, id_or_name: str) -> DatasetInfo:
        """The dataset with this id or name (in any case); `NotFound` suggests the nearest name."""
        infos = self.list()
        wanted = id_or_name.casefold()
        for info in infos:
            if wanted in (info.id, info.name.casefold()):
                return info
        names = tuple(info.name for info in infos)
        raise NotFound(kind="dataset", name=id_or_name, suggestion=nearest(id_or_name, names))

    def find(self, id_or_name: str) -> DatasetInfo | None:
        """As `get`, None when there is none."""
        try:
            return self.get(id_or_name)
        except NotFound:
            return None

    def check_free(self, name: str) -> None:
        """Refuse a name that a dataset has already; SQL names are the same in any case."""
        taken = self.find(check_dataset_name(name))
        if taken is not None:
            raise Conflict(
                f"a dataset named {taken.name!r} exists",
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
            known = self._rows.datasets.get(dataset.id)
            head = None if known is None else known.head
            if head != expected_head:
                raise Conflict(
                    f"dataset {dataset.name!r} has moved on to snapshot {head}",
                    hint="read it again and repeat the change",
                )
            if known is None:
                self.check_free(dataset.name)
            name = write_manifest(self._objects, manifest)
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
            self._rows.write(
                self._rows.datasets.change(dataset.id, committed),
                self._rows.snapshots(dataset.id).change(
                    snapshot.id, SnapshotRow(name, manifest.created_at)
                ),
            )
            return committed

    def manifest(self, dataset: str, snapshot: str | None = None) -> Manifest:
        """The manifest of a snapshot, of the head when none is named."""
        info = self.get(dataset)
        wanted = info.head if snapshot is None else snapshot
        row = self._rows.snapshots(info.id).get(wanted) if wanted else None
        if row is None:
            raise NotFound(kind=f"snapshot of {info.name!r}", name=wanted or "", suggestion=None)
        return self._manifest(row.manifest)

    def has_snapshot(self, dataset_id: str, snapshot: str) -> bool:
        """Whether this snapshot was committed."""
        return snapshot in self._rows.snapshots(dataset_id)

    def snapshots(self, dataset: str) -> Sequence[SnapshotInfo]:
        """The dataset's snapshots, newest first."""
        return [manifest.snapshot for manifest in self.manifests(dataset)]

    def manifests(self, dataset: str) -> Sequence[Manifest]:
        """The dataset's manifests, newest first."""
        rows = self._rows.snapshots(self.get(dataset).id).all()
        found = [self._manifest(row.manifest) for row in rows.values()]
        return sorted(found, key=lambda m: (m.created_at, m.snapshot.id), reverse=True)

    def referenced(self) -> set[str]:
        """Ids of all objects that some snapshot needs, manifests included."""
        needed: set[str] = set()
        for rows in self._rows.all_snapshots().values():
            for row in rows.values():
                needed.add(row.manifest)
                needed |= objects_of(self._manifest(row.manifest).snapshot)
        return needed

    def remove(self, dataset: str) -> tuple[DatasetInfo, set[str]]:
        """Take the dataset out of the catalog; returns it and the objects it used.

        Only `lake.retention` calls this: it knows what happens to the objects.
        """
        with self._lock:
            info = self.get(dataset)
            used = {row.manifest for row in self._rows.snapshots(info.id).all().values()}
            for manifest in self.manifests(info.id):
                used |= objects_of(manifest.snapshot)
            self._rows.write(
                self._rows.datasets.change(info.id, None), self._rows.forget_snapshots(info.id)
            )
            return info, used


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
