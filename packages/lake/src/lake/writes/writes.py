"""A statement that changes a dataset: run in an executor, and committed here as a snapshot.

The executor reads one state of its datasets and writes new shards into the staging folder. The
commit is optimistic: it applies the change to the dataset's head of that moment, if that is possible,
and otherwise the statement runs again.

    change            fails if, since the statement read the dataset,
    INSERT            its columns have changed
    UPDATE, DELETE    its columns, or a shard with a changed row, have been replaced or deleted
    upsert            anything but appends has changed; these it merges too (`lake.writes.upsert_execution`)
    CREATE TABLE      the name has been given to another dataset, or the one to replace has changed
    ALTER TABLE       the column has changed; SET NOT NULL if anything has
    DROP TABLE        never
    CREATE, DROP VIEW the name has been given to another view or dataset

So an append conflicts with nothing, and rows that are appended while an UPDATE or DELETE runs are
not seen by it (snapshot isolation, as in Iceberg). The order of files, leases, manifest and row is
that of an ingest (`lake.ingestor`).
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lake._failpoints import reached
from lake.catalog.catalog import Catalog, check_dataset_name
from lake.catalog.commits import Commit
from lake.catalog.file_schemas import column_ids, overall_stats, stats_with, with_new_shards
from lake.catalog.layouts import Layout
from lake.catalog.origins import Origin
from lake.catalog.snapshots import AnyManifest, Manifest, StoredManifest
from lake.maintenance.retention import Retention
from lake.objects.durable import storage_errors
from lake.objects.store import ObjectStore
from lake.views.access import commit_view
from lake.writes.new_shards import adopt_shards
from lake.writes.schema_changes import alter
from sennit_core.clock import Clock
from sennit_core.errors import Conflict, NotFound
from sennit_core.ids import new_id
from sennit_core.private_files import make_private_folder
from sennit_core.records import ColumnDefault, DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn.records import Change

__all__ = ["ReceiptRows", "Writer"]

ReceiptRows: TypeAlias = "Callable[[int, int], Sequence[Change]]"
"""Returns rows for one write with a commit, from the number of changed rows and the bytes of new shards."""


class Writer:
    """Commits what statements have written.

    Args:
        objects: Stores the shards.
        catalog: Commits the datasets.
        retention: Leases the shards until they are committed.
        staging: Folder for files that are not objects yet; its owner empties it at startup.
        delete: Deletes a dataset.
        clock: Source of commit times.
        receipt: As of `with_receipt`; None writes nothing else.
    """

    def __init__(  # noqa: PLR0913 - the parts of a lake
        self,
        objects: ObjectStore,
        catalog: Catalog,
        retention: Retention,
        staging: Path,
        *,
        delete: Callable[[str], object],
        clock: Clock,
        receipt: ReceiptRows | None = None,
    ) -> None:
        self._receipt = receipt
        self._delete = delete
        self._objects = objects
        self._catalog = catalog
        self._retention = retention
        self._staging = staging
        self._clock = clock

    def with_receipt(self, receipt: ReceiptRows) -> Writer:
        """Return a writer for one statement, which writes rows of its own in one write with the commit.

        Args:
            receipt: Returns them; called while no other commit can come, and raises if the statement must
                not be committed.
        """
        return Writer(
            self._objects, self._catalog, self._retention, self._staging, delete=self._delete,
            clock=self._clock, receipt=receipt,
        )  # fmt: skip

    def over(self, catalog: Catalog, delete: Callable[[str], object]) -> Writer:
        """Return a writer to another state of the catalog."""
        return Writer(
            self._objects, catalog, self._retention, self._staging, delete=delete,
            clock=self._clock,
        )  # fmt: skip

    @property
    def purges(self) -> int:
        """How many purges there were (`lake.catalog.rewrite`)."""
        return self._catalog.rewriter.purges

    def open_folder(self) -> Path:
        """Create a folder for the files of one statement."""
        folder = self._staging / new_id(self._clock)
        with storage_errors(folder, 0):
            make_private_folder(folder)
        return folder

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Open such a folder, which is removed when the context is left."""
        folder = self.open_folder()
        try:
            yield folder
        finally:
            self.remove_folder(folder)

    def remove_folder(self, folder: Path) -> None:
        """Remove such a folder with what is left in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def commit(self, answer: dict[str, Any], origin: Origin) -> DatasetInfo | None:
        """Make the change visible; return the dataset, None if it is gone or there is no change.

        Args:
            answer: The executor's response (`lake.sql.write_worker`).
            origin: The statement and the user, for the snapshot's record.

        Raises:
            Conflict: Another change came first; the statement must run again.
        """
        if answer["action"] == "none":
            return None
        if answer["action"] == "again":
            raise Conflict("a list of shards was left out that the statement needs")
        if answer["action"] in ("create view", "drop view"):
            commit_view(self._catalog, answer, origin.author)
            return None
        if answer["action"] == "drop":
            self._drop(answer)
            return None
        if answer["action"] == "alter":
            return self._alter(answer, origin)
        # Before files are moved; again under the lock of commits.
        self._check_base(answer)
        reports = [*answer["shards"]]
        for change in answer["rewritten"]:
            reports += change["shards"]
        names = [report["object"] for report in reports]
        try:
            with self._retention.lease(names):
                return self._adopt_and_commit(answer, reports, origin)
        except BaseException:
            self._retention.discard(names)
            raise

    def _adopt_and_commit(
        self, answer: dict[str, Any], reports: list[dict[str, Any]], origin: Origin
    ) -> DatasetInfo:
        adopted = adopt_shards(self._objects, reports)
        reached("write-adopted")
        self._catalog.commit_locks.wait(answer["dataset"])
        # The new shards follow from the head, so no other commit may come in between.
        with self._catalog.writing():
            if self._receipt is not None:
                size = sum(each.bytes for each in adopted)
                origin.also = tuple(self._receipt(answer["count"], size))
            dataset = self._check_base(answer, origin.author)
            if answer["action"] == "create":
                state = _first(dataset, Schema.from_json(answer["schema"]))
                layout = Layout.from_json(answer.get("layout"))
                defaults = tuple(map(ColumnDefault.from_json, answer.get("defaults") or ()))
                state = replace(state, shards=adopted, defaults=defaults, **layout.members())
            elif not answer["rewritten"]:
                return self._append(dataset, adopted, answer["inputs"], origin)
            else:
                changed = self._replaced(answer, dataset, adopted)
                if changed is not None:
                    return self._commit_stored(dataset, changed, answer["inputs"], origin)
                head = self._catalog.manifest(dataset.id).snapshot
                state, new = with_new_shards(head, adopted)
                state = replace(state, shards=self._applied(answer, dataset, state, iter(new)))
            return self._commit(dataset, state, answer["inputs"], origin)

    def _alter(self, answer: dict[str, Any], origin: Origin) -> DatasetInfo | None:
        """Commit a change of columns or of the name."""
        change = answer["change"]
        with self._catalog.writing():
            dataset = self._catalog.find(answer["dataset"])
            if dataset is None:
                raise NotFound(kind="dataset", name=answer["table"], suggestion=None)
            if change["do"] == "rename table":
                return self._catalog.rename(dataset.id, change["to"])
            if change.get("nullable") is False and dataset.head != answer["base"]:
                raise _moved_on(dataset)  # with rows that were not checked
            head = self._catalog.manifest(dataset.id).snapshot
            changed = alter(head, change)
            if replace(changed, columns=head.columns, last_column=head.last_column,
                       file_schemas=head.file_schemas) == head:  # fmt: skip
                return None
            origin.datasets[head.id] = dataset.id
            return self._commit(dataset, changed, (head.id,), origin)

    def _drop(self, answer: dict[str, Any]) -> None:
        try:
            self._delete(answer["dataset"])
        except NotFound:
            if not answer["ifExists"]:
                raise NotFound(kind="dataset", name=answer["table"], suggestion=None) from None

    def rollback(self, dataset: str, version: int, author: str) -> DatasetInfo:
        """Commit a snapshot with the columns and rows of an earlier one, which later ones stay after.

        Args:
            dataset: Id or name.
            version: The earlier snapshot.
            author: The user.

        Raises:
            NotFound: There is no such dataset or version.
        """
        with self._catalog.writing():
            info = self._catalog.get(dataset)
            earlier = self._catalog.manifest_at(info.id, version=version).snapshot
            self._catalog.check_shards(earlier)
            if earlier.id == info.head:
                return info
            head = self._catalog.manifest(info.id).snapshot
            # The ids of columns that came later are not given to others.
            state = replace(earlier, last_column=max(earlier.last_column, head.last_column))
            origin = Origin(
                f"rollback to version {version}", author, datasets={earlier.id: info.id}
            )
            return self._commit(info, state, (earlier.id,), origin)

    def reorder_columns(self, dataset: str, columns: Sequence[str], author: str) -> DatasetInfo:
        """Commit a snapshot with the columns in another order.

        Args:
            dataset: Id or name.
            columns: The name of every column.
            author: The user.

        Raises:
            NotFound: There is no such dataset.
            UnknownColumn: There is no such column.
            SqlError: A column is missing, or there twice.
        """
        with self._catalog.writing():
            info = self._catalog.get(dataset)
            head = self._catalog.manifest(info.id).snapshot
            state = alter(head, {"do": "reorder", "columns": columns})
            origin = Origin("reorder columns", author, datasets={head.id: info.id})
            return self._commit(info, state, (head.id,), origin)

    def _check_base(self, answer: dict[str, Any], author: str = "") -> DatasetInfo:
        """Return the dataset to change, or the one to create.

        Raises:
            Conflict: It is not the one that the statement read.
        """
        # What it has read may have had rows that are to be gone.
        self._catalog.rewriter.check(answer["purges"])
        schema = Schema.from_json(answer["schema"])
        if answer["action"] == "create":
            name = check_dataset_name(answer["table"])
            existing = self._catalog.find(name)
            if existing is not None:
                if (existing.id, existing.head) != (answer["dataset"], answer["base"]):
                    raise _moved_on(existing)
                return existing
            if answer["dataset"] is not None:
                raise Conflict(f"dataset {name!r} was deleted in the meantime")
            self._catalog.check_free(name)
            sealed = answer["encryptedAs"]
            new = sealed or new_id(self._clock)
            return DatasetInfo(new, name, author, schema, encrypted=sealed is not None)
        found = self._catalog.find(answer["dataset"])
        if found is None:
            raise NotFound(kind="dataset", name=answer["table"], suggestion=None)
        # By id as well: another column may have got the name of an earlier one.
        columns = column_ids(self._catalog.stored_manifest(found.id).snapshot)
        if (found.schema, columns) != (schema, tuple(answer["columns"])):
            raise _moved_on(found)
        # A row that came meanwhile may have a key that the statement has found to be missing.
        if answer.get("serial") and found.head != answer["base"]:
            raise _moved_on(found)
        return found

    def _applied(
        self,
        answer: dict[str, Any],
        dataset: DatasetInfo,
        head: SnapshotInfo,
        new: Iterator[ShardInfo],
    ) -> tuple[ShardInfo, ...]:
        """Return the head's shards with the changed ones replaced, and the added ones.

        Args:
            answer: The executor's response.
            dataset: The dataset.
            head: Its state.
            new: The shards of the response: those added, then those of each changed shard.
        """
        added = [next(new) for _ in answer["shards"]]
        # Where each object of the head is: an object may be in a dataset several times, of which
        # the statement counted the first as the first.
        places = defaultdict(list)
        for place, shard in enumerate(head.shards):
            places[shard.object].append(place)
        try:
            base = self._catalog.manifest(dataset.id, answer["base"]).snapshot.shards
        except NotFound:  # it has been replaced, and has expired
            raise _moved_on(dataset) from None
        ordinals: dict[int, int] = {}
        seen: dict[str, int] = defaultdict(int)
        for index, shard in enumerate(base):
            ordinals[index] = seen[shard.object]
            seen[shard.object] += 1
        result: list[list[ShardInfo]] = [[shard] for shard in head.shards]
        for change in answer["rewritten"]:
            found, ordinal = places[change["object"]], ordinals[change["index"]]
            if ordinal >= len(found):
                raise _moved_on(dataset)
            result[found[ordinal]] = [next(new) for _ in change["shards"]]
        return (*chain.from_iterable(result), *added)

    def _replaced(
        self, answer: dict[str, Any], dataset: DatasetInfo, shards: tuple[ShardInfo, ...]
    ) -> StoredManifest | None:
        """Return the head with changed shards, of which only their lists are read; None if they moved."""
        head = self._catalog.stored_manifest(dataset.id)
        try:
            base = self._catalog.stored_manifest(dataset.id, answer["base"])
        except NotFound:  # it has been replaced, and has expired
            raise _moved_on(dataset) from None
        state, new = with_new_shards(head.snapshot, shards)
        left = iter(new)
        added = [next(left) for _ in answer["shards"]]
        changes = {
            change["index"]: (change["object"], [next(left) for _ in change["shards"]])
            for change in answer["rewritten"]
        }
        found = self._catalog.lists.replaced(
            dataset.name, base, replace(head, snapshot=state), changes
        )
        return None if found is None or added else found

    def _append(
        self,
        dataset: DatasetInfo,
        shards: tuple[ShardInfo, ...],
        inputs: Iterable[str],
        origin: Origin,
    ) -> DatasetInfo:
        """Commit the head with more shards; costs what they cost, however many it has."""
        head = self._catalog.stored_manifest(dataset.id)
        state, new = with_new_shards(head.snapshot, shards)
        state = replace(state, shards=new)
        state = replace(state, stats=stats_with(head.snapshot, state))
        whole = replace(state, shards=(*head.snapshot.shards, *new))
        changed = replace(head, snapshot=whole)
        return self._commit_stored(dataset, changed, inputs, origin)

    def _commit_stored(
        self, dataset: DatasetInfo, changed: StoredManifest, inputs: Iterable[str], origin: Origin
    ) -> DatasetInfo:
        """Commit a state of the dataset whose lists are stored."""
        snapshot = self._described(dataset, changed.snapshot, inputs, origin)
        provenance = origin.provenance(snapshot.inputs, self._catalog)
        manifest = StoredManifest(
            snapshot, changed.lists, self._clock.now(), None, None, provenance
        )
        return self._put(dataset, manifest, origin)

    def _commit(
        self,
        dataset: DatasetInfo,
        state: SnapshotInfo,
        inputs: Iterable[str],
        origin: Origin,
    ) -> DatasetInfo:
        """Commit a state of the dataset as a new snapshot."""
        state = replace(state, stats=overall_stats(state))
        snapshot = self._described(dataset, state, inputs, origin)
        provenance = origin.provenance(snapshot.inputs, self._catalog)
        manifest = Manifest(snapshot, self._clock.now(), provenance=provenance)
        return self._put(dataset, manifest, origin)

    def _put(self, dataset: DatasetInfo, manifest: AnyManifest, origin: Origin) -> DatasetInfo:
        reached("write-manifest")
        if origin.also:
            commit = Commit(dataset, manifest, dataset.head)
            return self._catalog.commit_all([commit], origin.also)[0]
        return self._catalog.commit(dataset, manifest, expected_head=dataset.head)

    def _described(
        self,
        dataset: DatasetInfo,
        state: SnapshotInfo,
        inputs: Iterable[str],
        origin: Origin,
    ) -> SnapshotInfo:
        """Return a state as a snapshot that says where it comes from."""
        return replace(
            state,
            id=origin.snapshot or new_id(self._clock),
            parent=dataset.head,
            author=origin.author,
            # A manifest is not encrypted, and the text of a statement has values.
            query=origin.text(hidden=dataset.encrypted),
            inputs=tuple(inputs),
        )


def _first(dataset: DatasetInfo, schema: Schema) -> SnapshotInfo:
    """Return a state of a dataset that has nothing in common with earlier ones."""
    return SnapshotInfo("", None, dataset.id, schema, (), {}, "", None, ())


def _moved_on(dataset: DatasetInfo) -> Conflict:
    return Conflict(
        f"dataset {dataset.name!r} was changed in the meantime",
        hint="run the statement again",
    )
