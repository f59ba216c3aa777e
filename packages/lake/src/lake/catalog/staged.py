"""A catalog with uncommitted changes: what the statements of one transaction see.

It shares everything with the lake's catalog except the datasets that the transaction names. These
stay as they were when it began (snapshot isolation), their shards leased, and as its statements have
changed them. Nothing is visible to others until `apply`, which commits all of it in one write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from lake.catalog.advisory_locks import AdvisoryLocks
from lake.catalog.catalog import Catalog
from lake.catalog.commits import Commit, committed_dataset
from lake.catalog.file_schemas import column_ids, overall_stats, with_new_shards
from lake.catalog.layouts import layout_of
from lake.catalog.snapshots import StoredManifest
from lake.errors import without_snapshot
from lake.views.views import StagedViews
from sennit_core.errors import Conflict, Corrupt, NotFound, Unsupported

if TYPE_CHECKING:
    from lake.catalog.provenance import InputSnapshot
    from lake.catalog.snapshots import AnyManifest, Manifest
    from lake.maintenance.retention import Retention
    from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo

__all__ = ["StagedCatalog"]

_QUERY_MAX = 4096


@dataclass(slots=True)
class _Staged:
    """A dataset of the transaction.

    Args:
        info: As its statements see it.
        manifest: Its state.
        base: Its head when the transaction began; None if it was created in it.
        queries: The statements that changed it; none if it is only read.
        inputs: The snapshots that these read.
        described: What is recorded of them.
        appended: The shards that were added, if nothing else was changed; else None.
    """

    info: DatasetInfo
    manifest: Manifest
    base: SnapshotInfo | None
    queries: list[str] = field(default_factory=list)
    inputs: dict[str, None] = field(default_factory=dict)
    described: dict[str, InputSnapshot] = field(default_factory=dict)
    appended: list[ShardInfo] | None = field(default_factory=list)


class StagedCatalog(Catalog):
    """The datasets that a transaction sees; a context manager that drops what is not applied.

    Args:
        catalog: The lake's, whose parts it shares.
        retention: Leases what the transaction reads and writes.
        datasets: The ids of the datasets that its statements may name.
    """

    def __init__(self, catalog: Catalog, retention: Retention, datasets: Iterable[str]) -> None:
        # The same parts, not copies of them: what is not overridden below is the catalog's.
        self.__dict__.update(vars(catalog))
        self._base = catalog
        self._retention = retention
        self.views = self._views = StagedViews(catalog.views)
        self.commit_locks = AdvisoryLocks()  # its statements commit nothing that others see
        self._staged: dict[str, _Staged] = {}
        self._leases: list[frozenset[str]] = []
        self._own: set[str] = set()  # ids of its snapshots, of which one a dataset is committed
        self._written: set[str] = set()  # objects of its own
        self._purges = 0
        self._pin(tuple(datasets))

    def _pin(self, datasets: Sequence[str]) -> None:
        """Lease one state of the datasets."""
        while True:
            self._purges = self._base.rewriter.purges
            with self._base.writing():
                pinned = dict(filter(None, map(self._pinned, datasets)))
            # Without the catalog's lock, which a deletion takes while it has that of the leases.
            lease = self._retention.acquire(
                shard.object for each in pinned.values() for shard in each.manifest.snapshot.shards
            )
            # What is in the catalog after it was leased cannot lose its objects any more.
            if all(self._is_kept(key, each) for key, each in pinned.items()):
                self._leases.append(lease)
                self._staged = pinned
                return
            self._retention.release(lease)

    def _pinned(self, dataset: str) -> tuple[str, _Staged] | None:
        try:
            info, manifest = self._base.get(dataset), self._base.manifest(dataset)
        except (Corrupt, NotFound):
            return None  # the statement that reads it says why
        return info.id, _Staged(info, manifest, manifest.snapshot)

    def _is_kept(self, dataset: str, staged: _Staged) -> bool:
        return self._base.has_snapshot(dataset, staged.manifest.snapshot.id)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Do nothing: only one statement of the transaction runs at a time."""
        yield

    def find(self, id_or_name: str) -> DatasetInfo | None:
        """As `Catalog.find`."""
        found = self._find_staged(id_or_name)
        return super().find(id_or_name) if found is None else found.info

    def find_known(self, id_or_name: str) -> DatasetInfo | None:
        """As `Catalog.find_known`."""
        found = self._find_staged(id_or_name)
        return super().find_known(id_or_name) if found is None else found.info

    def find_id(self, id_or_name: str) -> str | None:
        """As `Catalog.find_id`."""
        found = self._find_staged(id_or_name)
        return super().find_id(id_or_name) if found is None else found.info.id

    def find_all(self, words: Iterable[str]) -> Sequence[str]:
        """As `Catalog.find_all`."""
        words = frozenset(words)
        staged = [key for word in words if (key := self.find_id(word)) is not None]
        return sorted({*staged, *super().find_all(words)})

    def ids(self) -> Sequence[str]:
        """As `Catalog.ids`."""
        return list(dict.fromkeys([*super().ids(), *self._staged]))

    def name(self, dataset_id: str) -> str:
        """As `Catalog.name`."""
        staged = self._staged.get(dataset_id)
        return super().name(dataset_id) if staged is None else staged.info.name

    def manifest(self, dataset: str, snapshot: str | None = None) -> Manifest:
        """As `Catalog.manifest`."""
        staged = self._find_staged(dataset)
        if staged is None or snapshot not in (None, staged.manifest.snapshot.id):
            return super().manifest(dataset, snapshot)
        if staged.info.head is None:
            raise without_snapshot(staged.info)
        return staged.manifest

    def stored_manifest(self, dataset: str, snapshot: str | None = None) -> StoredManifest:
        """As `Catalog.stored_manifest`; a state of the transaction has all shards in it."""
        staged = self._find_staged(dataset)
        if staged is None or snapshot not in (None, staged.manifest.snapshot.id):
            return super().stored_manifest(dataset, snapshot)
        found = self.manifest(dataset)
        return StoredManifest(
            found.snapshot, (), found.created_at, found.ingest, found.name, found.provenance
        )

    def check_free(self, name: str) -> None:
        """As `Catalog.check_free`."""
        if (found := self._find_staged(name)) is not None:
            raise Conflict(f"a dataset named {found.info.name!r} exists", hint="use another name")
        super().check_free(name)

    def commit(
        self, dataset: DatasetInfo, manifest: AnyManifest, *, expected_head: str | None
    ) -> DatasetInfo:
        """Keep a snapshot for the transaction."""
        del expected_head  # the writer has compared it, and nobody else can change it here
        if isinstance(manifest, StoredManifest):
            assert not manifest.lists, "it was made from a state of `stored_manifest`"
            manifest = manifest.with_shards(())
        snapshot = manifest.snapshot
        self._own.add(snapshot.id)
        new = {shard.object for shard in snapshot.shards}
        # From now on the transaction keeps the shards, in the place of the writer's lease.
        self._leases.append(self._retention.acquire(new))
        staged = self._staged.get(dataset.id)
        if staged is None:
            staged = _Staged(dataset, manifest, None, appended=None)
            self._staged[dataset.id] = staged
        before = staged.manifest.snapshot
        self._written |= new - {shard.object for shard in before.shards} if staged.base else new
        staged.appended = _appended(staged, snapshot)
        staged.info = committed_dataset(dataset, manifest)
        staged.manifest = manifest
        staged.queries.append(snapshot.query or "")
        staged.inputs.update(dict.fromkeys(snapshot.inputs))
        if manifest.provenance is not None:
            staged.described.update({each.snapshot: each for each in manifest.provenance.inputs})
        return staged.info

    def rename(self, dataset_id: str, name: str) -> NoReturn:
        """Refuse to rename a dataset."""
        _refuse("ALTER TABLE … RENAME TO")

    def refuse_drop(self, dataset: str) -> NoReturn:
        """Refuse to delete a dataset."""
        _refuse("DROP TABLE")

    def apply(self) -> Sequence[DatasetInfo]:
        """Commit all changed datasets and views in one write.

        Raises:
            Conflict: Others have changed one of them, and not by appends alone to which this
                transaction appends too; or there was a purge.
        """
        for dataset, staged in self._staged.items():
            self._base.commit_locks.wait(dataset if staged.queries else None)
        with self._base.writing():
            # The states may have had rows that are to be gone.
            self._base.rewriter.check(self._purges)
            changed = [each for each in self._staged.values() if each.queries]
            commits = [self._commit_of(each) for each in changed]
            changes, views = self._views.to_commit(self._base.check_free)
            if not commits and not changes:
                return []
            committed = self._base.commit_all(commits, changes)
            self._base.views.adopt(views)
            return committed

    def _commit_of(self, staged: _Staged) -> Commit:
        info, state = staged.info, staged.manifest.snapshot
        head = None if staged.base is None else staged.base.id
        current = self._base.find(info.id)
        if staged.base is not None and current is None:
            raise Conflict(f"dataset {info.name!r} was deleted in the meantime")
        if current is not None and current.head != head:
            state = _after_appends(staged, self._base.manifest(info.id).snapshot)
            head = current.head
        # Another name that it has got meanwhile stays.
        info = replace(info, name=info.name if current is None else current.name)
        snapshot = replace(
            state,
            id=staged.manifest.snapshot.id,
            parent=head,
            stats=overall_stats(state),
            author=staged.manifest.snapshot.author,
            query="; ".join(staged.queries)[:_QUERY_MAX],
            inputs=tuple(each for each in staged.inputs if each not in self._own),
        )
        described = [each for key, each in staged.described.items() if key not in self._own]
        provenance = staged.manifest.provenance
        if provenance is not None:
            provenance = replace(provenance, inputs=tuple(described))
        manifest = replace(staged.manifest, snapshot=snapshot, provenance=provenance)
        return Commit(info, manifest, head)

    def _find_staged(self, id_or_name: str) -> _Staged | None:
        folded = id_or_name.casefold()
        for key, staged in self._staged.items():
            # A dataset that was deleted meanwhile may have lost its policy, so nobody reads it.
            if folded in (key, staged.info.name.casefold()) and (
                staged.base is None or self._base.find_id(key) is not None
            ):
                return staged
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for lease in self._leases:
            self._retention.release(lease)
        self._leases.clear()
        # Those that no snapshot has: of a transaction that failed, or that dropped them itself.
        self._retention.discard(self._written)


def _refuse(what: str) -> NoReturn:
    raise Unsupported(f"{what} in a transaction", hint="run it before BEGIN or after COMMIT")


def _appended(staged: _Staged, snapshot: SnapshotInfo) -> list[ShardInfo] | None:
    """Return the shards that the transaction has added, if it has changed nothing else."""
    before = staged.manifest.snapshot
    count = len(before.shards)
    unchanged = snapshot.shards[:count] == before.shards and _columns(snapshot) == _columns(before)
    if staged.appended is None or not unchanged:
        return None
    return [*staged.appended, *snapshot.shards[count:]]


def _after_appends(staged: _Staged, head: SnapshotInfo) -> SnapshotInfo:
    """Return the newest state of a dataset with the shards that the transaction appends.

    Raises:
        Conflict: The transaction changes more than that, or the dataset has other columns now.
    """
    if staged.appended is None or _columns(head) != _columns(staged.manifest.snapshot):
        raise Conflict(
            f"dataset {staged.info.name!r} was changed in the meantime",
            hint="run the transaction again",
        )
    # As an executor describes them: their columns are the dataset's.
    shards = [replace(shard, file_schema=0) for shard in staged.appended]
    state, new = with_new_shards(head, shards)
    return replace(state, shards=(*head.shards, *new))


def _columns(snapshot: SnapshotInfo) -> tuple[object, ...]:
    return snapshot.schema, column_ids(snapshot), layout_of(snapshot), snapshot.defaults
