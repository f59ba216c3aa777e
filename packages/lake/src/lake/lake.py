"""One node's lake: ingest uploads into datasets, and run SQL over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lake._failpoints import reached
from lake.access.policies import Policies
from lake.access.rule_checks import checked_rules
from lake.access.rules import Policy, PolicyRule
from lake.catalog.adoption import foreign_dataset
from lake.distributed.foreign_appends import ForeignAppends
from lake.distributed.queued_appends import QueuedAppends
from lake.distributed.remote_shards import RemoteShards
from lake.ingestor import Ingestor, IngestRequest, committed, dataset_name
from lake.ingests import Ingests
from lake.input_data import open_input
from lake.links.linking import Linker
from lake.maintenance.cleanup import Cleanup
from lake.maintenance.plan import open_maintenance
from lake.maintenance.purge import Purger, PurgeReport, PurgeRequest
from lake.maintenance.scrub import ScrubReport
from lake.objects.reserve import Reserve
from lake.objects.verification import ShardFile, Verifier
from lake.opening import open_pool, open_tree
from lake.statements.export import export_format, export_query, write_file
from lake.statements.limits import QueryLimits, Requester
from lake.statements.plan_sources import PlanSources
from lake.statements.request import StatementRequest
from lake.statements.result_cache import ResultCache
from lake.statements.results import Result
from lake.statements.running import RunningStatement, RunningStatements
from lake.statements.statements import Statements
from lake.statements.tables import StatementTables
from lake.storage import Storage
from lake.storage_options import StorageOptions
from lake.upload_checks import check_upload, is_encrypted
from lake.uploads.parts import PART_BYTES, PartStore
from lake.uploads.upload_keys import UploadKeys
from lake.uploads.upload_locks import UploadLocks
from lake.writes.upserts import Upserts
from lake.writes.writes import Writer
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Cancelled, NotFound, SennitError, Unsupported, UsageError
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, Progress, SnapshotInfo
from sennit_core.units import GIB

if TYPE_CHECKING:
    import pyarrow as pa

    from elkyn import ElkynStore
    from emsqrt.executor import ExecutorPool

__all__ = ["Lake", "open"]


class Lake:
    """The datasets of a folder; a context manager.

    Args:
        folder: The node's data folder, with `uploads/` and `lake/`; also `elkyn/sys/` and `spill/`
            if `tree` and `pool` are None.
        tree: The `sys` namespace; None opens one, which `close` closes.
        pool: Executors; None creates a pool on first use, which `close` stops.
        memory_bytes: Memory cap of each executor if `pool` is None, in bytes or as "1 GiB".
        part_bytes: Default size of an upload's parts.
        upload_bytes_max: Largest accepted upload; None for no limit except the disk.
        keep_source: Whether to keep a copy of each uploaded file; the default of the upload's
            option `keepSource`.
        reserve: Disk space reserved for deletions, filled by its owner; None creates and fills one.
        query_limits: Limits of queries that arrive over HTTP.
        cache_bytes: Memory for results of repeated queries; 0 keeps none.
        clock: Source of time.
        storage: The members of `StorageOptions`.
    """

    def __init__(  # noqa: PLR0913 - independent settings, all by keyword
        self,
        folder: Path | str,
        *,
        tree: ElkynStore | None = None,
        pool: ExecutorPool | None = None,
        memory_bytes: int | str = GIB,
        part_bytes: int = PART_BYTES,
        upload_bytes_max: int | None = None,
        keep_source: bool = False,
        reserve: Reserve | None = None,
        query_limits: QueryLimits | None = None,
        cache_bytes: int = 0,
        clock: Clock = SYSTEM,
        **storage: Any,
    ) -> None:
        options = StorageOptions(**storage)
        self.folder = Path(folder)
        self.query_limits = query_limits or QueryLimits()
        self.clock = clock
        with ExitStack() as owned:
            self.tree = tree or owned.enter_context(open_tree(self.folder))
            self.pool = pool or owned.enter_context(open_pool(self.folder, memory_bytes))
            self.storage = Storage(self.folder, self.tree, options, clock)
            self.verify_always, self.staging = self.storage.verify_always, self.storage.staging
            self.objects, self.catalog = self.storage.objects, self.storage.catalog
            self.retention, self.space = self.storage.retention, self.storage.space
            self.remote = RemoteShards(self.objects)
            self.vault = self.storage.vault
            self.scrubber, self.quotas = self.storage.scrubber, self.storage.quotas
            self.running = RunningStatements(self.tree, self.storage, self.pool, clock=clock)
            owned.callback(self.running.close)
            self.policies = Policies(self.tree, self.catalog, clock=clock)
            self.queued = QueuedAppends(self.storage, self.tree, self.policies, clock)
            self.parts = self._open_parts(part_bytes, upload_bytes_max, options)
            owned.callback(self.parts.close)
            self._ingestor = Ingestor(
                self.objects, self.catalog, self.retention, self.pool, self.staging,
                keep_source=keep_source, upload_bytes_max=upload_bytes_max, space=self.space,
                vault=self.vault, rejects=self.storage.rejects, clock=clock,
            )  # fmt: skip
            self._writer = Writer(
                self.objects, self.catalog, self.retention, self.staging,
                delete=self.delete, clock=clock,
            )  # fmt: skip
            self.result_cache = ResultCache(cache_bytes)
            self.tables = StatementTables(
                self.catalog, self.objects, self.retention, self.policies, self.vault,
                self.linker.links, self.remote, self.staging, verify_always=self.verify_always,
            )  # fmt: skip
            self.tables.on_read = self.storage.access.note
            self.statements = Statements(
                self.pool, self.catalog, self.tables, self._writer, self.running,
                self.result_cache, self.space,
            )  # fmt: skip
            self._verifier = Verifier()
            self._upload_locks = UploadLocks()
            self._ingests = self._open_ingests()
            self.purger = Purger(self, self.statements, clock)
            self.cleanup = Cleanup(self, options)
            self._recover()
            self.reserve = reserve or Reserve(self.folder)
            if reserve is None:
                self.reserve.fill()
            # Called before the others, while the catalog can still be read.
            owned.callback(self.storage.close)
            self.maintenance = owned.enter_context(open_maintenance(self, self.statements, options))
            self._owned = owned.pop_all()

    def _recover(self) -> None:
        # Before any upload, ingest or query: the sweep relies on it (see `Retention.sweep`).
        self.storage.recover()
        self.purger.recover()
        self.linker.sweep()
        self.parts.sweep()

    def ingest(
        self,
        upload_id: str,
        *,
        owner: str = "",
        on_progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> DatasetInfo:
        """Ingest a complete upload into a dataset, and remove the upload; blocks.

        Safe to repeat after a crash: it finishes the ingest, or finds the committed dataset. Of
        several concurrent calls one does the work; the others return its result, or retry if it
        fails.

        Args:
            upload_id: The upload; sealed first if necessary.
            owner: Owner of the new dataset.
            on_progress: Called with the progress.
            cancelled: Called several times per second; True stops the work.

        Raises:
            UploadIncomplete: Parts are missing.
            BadInput: The file cannot be read; the upload is kept.
        """
        sealed = self.parts.seal(upload_id)
        reached("ingest-sealed")
        request = IngestRequest.of(sealed, owner)
        with self._upload_locks.exclusive(upload_id, cancelled):
            # Committed by an earlier call that was interrupted, or by the one that this one waited
            # for.
            done = committed(self.catalog, request)
            if done is None:
                self.parts.mark(upload_id, "ingesting")
                try:
                    done = self._ingests.read(request, on_progress=on_progress, cancelled=cancelled)
                except SennitError:
                    self.parts.mark(upload_id, "failed")
                    raise
                reached("ingest-committed")
            # Only now: until the commit the upload is the only copy of the data.
            self.linker.forget(done)
            self.parts.abort(upload_id)
        return done

    def check_upload_target(self, upload_id: str, requester: Requester) -> None:
        """Refuse to ingest an upload into a dataset that the user may not change.

        Raises:
            NotFound: There is no such dataset, as far as the user can know.
            Denied: The user may not change the dataset.
        """
        if not self.policies:
            return
        try:
            upload = self.parts.get(upload_id)
        except NotFound:  # it is gone once it is ingested, and completing it again is allowed
            return
        name = dataset_name(upload.name, upload.options)
        self.policies.check_upload(name, upload.mode, requester)

    @cached_property
    def plan_sources(self) -> PlanSources:
        """Makes the sources of plans that are no files of shards."""
        return PlanSources(self.pool, self.catalog, self.tables, self.space)

    @cached_property
    def linker(self) -> Linker:
        """Links files of this machine as datasets."""
        return Linker(self.folder, self.catalog, self.parts, self.pool, clock=self.clock)

    def append(self, table: str, data: str | Path | pa.Table, **options: Any) -> DatasetInfo:
        """Append a file or Arrow data to a dataset; create the dataset if there is none.

        Args:
            table: The dataset's name.
            data: Path of a file, a `pyarrow.Table`, or a data frame of pandas or polars.
            options: Ingest options in snake_case (`strict=True`, `date_order="dmy"`);
                `encrypt=True` encrypts a new dataset. With `queue=True` the rows wait in `queued` if
                another node writes the dataset, and is away.
        """
        mode = "append" if self.catalog.find(table) is not None else "create"
        with open_input(self.storage, table, data, options) as (path, name, wire):
            return self.ingest_file(path, name, mode, wire)

    def upsert(
        self, table: str, data: str | Path | pa.Table, *, key: Sequence[str], **options: Any
    ) -> DatasetInfo:
        """Merge a file or Arrow data into a dataset: replace the rows with equal keys, add the rest.

        If there is no dataset, it is created, of rows with keys of their own.

        Args:
            table: The dataset's name.
            data: As of `append`.
            key: The columns that identify a row. Each key is there once in the data, without NULL.
            options: As of `append`.

        Raises:
            UnknownColumn: The dataset has no such column.
            BadInput: A key is missing, or there twice.
        """
        with open_input(self.storage, table, data, options) as (path, name, wire):
            return self.ingest_file(path, name, "upsert", wire | {"key": key})

    def ingest_file(
        self,
        file: Path,
        name: str,
        mode: str,
        options: dict[str, Any],
        *,
        owner: str = "",
        cancelled: Callable[[], bool] | None = None,
    ) -> DatasetInfo:
        """Ingest a file of this machine into a dataset; blocks until it is committed.

        Args:
            file: The file, which stays.
            name: Its name, whose ending may tell the format.
            mode: `create`, `append`, `replace` or `upsert`.
            options: Ingest options as in the HTTP API; `name` is the dataset's.
            owner: Owner of a new dataset.
            cancelled: Called several times per second; True stops the work.

        Raises:
            BadInput: The file cannot be read.
            Conflict: The mode is `create` and the dataset exists.
        """
        new, dataset = new_id(self.clock), new_id(self.clock)
        request = IngestRequest(new, dataset, name, (file,), mode, options, owner)
        return self._ingests.read(request, cancelled=cancelled)

    def run(self, sql: str, **options: Any) -> RunningStatement:
        """Start a statement in an executor, or queue it for one.

        A change is committed, as a new snapshot, before the first byte of its result can be read.

        Args:
            sql: One statement over datasets, by name or id, or several with semicolons between.
            options: The other members of `StatementRequest`.

        Raises:
            UsageError: A parameter has no SQL value.
            Unsupported: There is no such engine or format.
            Busy: The queue is full. All other errors are raised by the execution.
        """
        return self.statements.start(StatementRequest(sql, **options))

    def sql(self, query: str, params: Any = None, engine: str = "auto", **options: Any) -> Result:
        """Run a statement and return its whole result in memory.

        Args:
            query: One query, or one statement that changes datasets; the result of the latter is the
                number of rows.
            params: A list for `?`, or a dictionary for `$name`.
            engine: `auto`, `duckdb`, `emsqrt` or, on a node with a Ray cluster, `ray`; `manifest["engine"]`
                is the engine that ran it, which on Ray is `duckdb`.
            options: Other members of `StatementRequest`, such as `allow_partial`.
        """
        with self.run(query, params=params, engine=engine, **options) as execution:
            return Result.of(execution)

    def export(self, source: str, file: Path | str, format: str | None = None) -> int:  # noqa: A002 - as in `run`
        """Write a dataset, or the result of a query, to a file; return its number of rows.

        The file appears when it is whole, and replaces one of its name.

        Args:
            source: A dataset's name or id, or a query.
            file: Its ending names the format: .csv .parquet .jsonl .arrow .xlsx.
            format: Another format: `csv`, `parquet`, `jsonl`, `arrow` or `xlsx`.

        Raises:
            UsageError: The format is unknown.
            NotFound: There is no such dataset.
        """
        path = Path(file)
        chosen = export_format(path, format)
        query = export_query(source, is_dataset=self.catalog.find(source) is not None)
        with self.run(query, format=chosen, read_only=True) as execution:
            write_file(path, execution.payloads())
            return int(execution.result()["rows"])

    def rollback(self, dataset: str, version: int, *, user: str = "") -> DatasetInfo:
        """Give a dataset the columns and rows of an earlier version, as a new snapshot.

        Args:
            dataset: Id or name.
            version: Number of the snapshot.
            user: The author of the new snapshot.

        Raises:
            NotFound: There is no such dataset or version.
        """
        return self._writer.rollback(dataset, version, user)

    def reorder_columns(
        self, dataset: str, columns: Sequence[str], *, user: str = ""
    ) -> DatasetInfo:
        """Put the columns of a dataset in another order, as a new snapshot.

        Args:
            dataset: Id or name.
            columns: The name of every column.
            user: The author of the new snapshot.

        Raises:
            NotFound: There is no such dataset.
            UnknownColumn: There is no such column.
            SqlError: A column is missing, or there twice.
        """
        return self._writer.reorder_columns(dataset, columns, user)

    def compact(self, dataset: str, *, user: str = "") -> DatasetInfo:
        """Write small shards of a dataset anew as larger ones, with the same rows in the same order.

        It conflicts with no append, and makes no snapshot if there is nothing to do.

        Args:
            dataset: Id or name.
            user: The author of the new snapshot.

        Raises:
            NotFound: There is no such dataset.
            Conflict: Others changed the same shards again and again.
        """
        execution = self.statements.compact(dataset, user)
        if execution is not None:
            with execution:
                execution.result()
        return self.catalog.get(dataset)

    def expire(
        self, dataset: str, *, keep: int = 1, older_than_seconds: float = 0.0
    ) -> Sequence[int]:
        """Remove old snapshots of a dataset, and the objects that only they used.

        The newest snapshot and those with a tag stay.

        Args:
            dataset: Id or name.
            keep: How many of the newest stay.
            older_than_seconds: Only snapshots that something newer replaced so long ago.

        Returns:
            Their versions.

        Raises:
            NotFound: There is no such dataset.
            UsageError: A number is out of range.
        """
        if keep < 1 or not older_than_seconds >= 0:
            raise UsageError("expire keeps at least one snapshot, and needs a time of 0 or more")
        before = self.clock.now() - older_than_seconds
        info = self.catalog.get(dataset)
        # Rows that only expired snapshots have are to be gone from memory too.
        try:
            return self.reserve.spend(
                lambda: self.retention.expire(dataset, keep=keep, before=before)
            )
        finally:
            self.result_cache.drop_dataset(info.id)

    def purge(self, dataset: str, where: str, **options: Any) -> PurgeReport:
        """Remove rows from every kept version of a dataset; arguments as of `PurgeRequest`."""
        return self.purger.purge(PurgeRequest(dataset, where, **options))

    def changes(
        self, dataset: str, since: int | str, until: int | str | None = None, **options: Any
    ) -> RunningStatement:
        """Start a query for the rows that were added and removed between two versions.

        The result has the column `change`, `insert` or `delete`, and the columns of the later
        version. A row that was updated is a `delete` and an `insert`.

        Args:
            dataset: Id or name.
            since: The earlier version, or its tag.
            until: The later one; None for the newest.
            options: Members of `StatementRequest`.

        Raises:
            NotFound: There is no such dataset or version.
        """
        return self.statements.changes(dataset, since, until, StatementRequest("", **options))

    def tag(self, dataset: str, name: str, version: int) -> None:
        """Give a version of a dataset a tag, which keeps it from being expired.

        Args:
            dataset: Id or name.
            name: The tag; it moves if another version has it.
            version: Number of the snapshot.

        Raises:
            NotFound: There is no such dataset or version.
            UsageError: The name is not one.
        """
        with self.catalog.writing():
            snapshot = self.catalog.manifest_at(dataset, version=version).snapshot
            self.catalog.set_tag(dataset, name, snapshot.id)

    def resolve(self, dataset: str, snapshot: str | None = None) -> tuple[SnapshotInfo, list[Path]]:
        """Return a snapshot and its shards' files; lease `snapshot.shards` while reading them.

        The files are not verified here: the reader must verify them (`lake.objects.verification`).

        Args:
            dataset: Id or name.
            snapshot: Id of a snapshot; None for the head.

        Raises:
            NotFound: There is no such dataset or snapshot.
            Corrupt: Its manifest is damaged, or one of its shards is known to be damaged.
        """
        found = self.catalog.manifest(dataset, snapshot).snapshot
        info = self.catalog.get(found.dataset)
        if info.node is not None:
            self.remote.ensure(shard.object for shard in found.shards)
        if info.encrypted:
            raise Unsupported(
                f"reading the files of {self.catalog.name(found.dataset)!r}, which is encrypted",
                hint="query it by SQL: only statements read encrypted datasets",
            )
        self.catalog.check_shards(found)
        return found, [self.objects.place(shard.object) for shard in found.shards]

    def verify(
        self,
        dataset: str | None = None,
        *,
        on_progress: Callable[[ScrubReport], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ScrubReport:
        """Read a dataset, or all, from disk and compare every byte with its hash; blocks.

        Damaged datasets are marked in `catalog.list`, and queries do not read damaged shards.

        Args:
            dataset: Id or name; None for every dataset.
            on_progress: Called after each object.
            cancelled: Called between pieces of 256 KiB; True stops the work.

        Raises:
            NotFound: There is no such dataset.
        """
        for report in self.scrub(dataset, cancelled):
            if on_progress is not None:
                on_progress(report)
        return report

    def scrub(
        self, dataset: str | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[ScrubReport]:
        """As `verify`, but yield a report after each object."""

        def check() -> None:
            if cancelled is not None and cancelled():
                raise Cancelled("verifying")

        return self.storage.new_scrub(check).run(dataset)

    def verify_shard(self, dataset: str, index: int, object_id: str) -> None:
        """Verify one shard before this process reads it; with `verify="open"` once for a file.

        Raises:
            Corrupt: The shard is damaged.
        """
        if self.catalog.get(dataset).node is not None:
            self.remote.ensure((object_id,))
        path = str(self.objects.place(object_id))
        self._verifier.check(ShardFile(dataset, index, path, self.verify_always))

    def delete(self, dataset: str) -> DatasetInfo:
        """Delete a dataset with its snapshots, of another node only if that was removed; queries finish."""
        is_own = foreign_dataset(self.catalog.find_known, dataset) is None
        delete = self.retention.delete_dataset if is_own else self.remote.delete
        info = self.reserve.spend(lambda: delete(dataset))
        self.result_cache.drop_dataset(info.id)
        self.cleanup.forget(info)
        return info

    def set_policy(self, dataset: str, rules: Iterable[PolicyRule], *, author: str = "") -> Policy:
        """Give a dataset an access policy; it applies to statements that start from now on.

        Args:
            dataset: Id or name.
            rules: The rules; in `alice@oslo` the name of another node becomes its id.
            author: The user who sets it.

        Raises:
            NotFound: There is no such dataset.
            UsageError: A rule contradicts itself, or its SQL does not fit the dataset.
            Denied: The SQL does more than compute, or another node restricts the dataset.
        """
        info = self.catalog.get(dataset)
        checked = checked_rules(rules, info, self.pool, author, self.remote.find_node)
        return self.policies.set(info.id, checked, author)

    def close(self) -> None:
        """Stop the maintenance, close the tree and the pool if the lake opened them; may be repeated."""
        if self.storage.is_own_process:  # in a forked process, what it owns is the parent's
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_ingests(self) -> Ingests:
        upserts = Upserts(self.catalog, self._ingestor, self._writer, self.statements, self.vault)
        foreign = ForeignAppends(
            self._ingestor, self._writer, self.statements, self.objects, self.retention, self.remote
        )
        return Ingests(self.catalog, self.remote, self._ingestor, upserts, foreign)

    def _open_parts(
        self, part_bytes: int, upload_bytes_max: int | None, options: StorageOptions
    ) -> PartStore:
        return PartStore(
            self.folder / "uploads",
            self.tree,
            part_bytes=part_bytes,
            size_max=upload_bytes_max,
            expire_seconds=options.upload_seconds,
            sync=options.upload_sync,
            space=self.space,
            admit=lambda name, mode, options: check_upload(
                self.catalog, self.vault, self.remote, name, mode, options
            ),
            keys=UploadKeys(
                self.vault.keys,
                lambda name, mode, options: is_encrypted(self.catalog, self.vault, name, options),
            ),
            clock=self.clock,
        )


def open(folder: Path | str, **settings: Any) -> Lake:  # noqa: A001 - it reads as `lake.open`
    """Open the lake in a folder, which is created if it is missing; settings as of `Lake`."""
    return Lake(folder, **settings)
