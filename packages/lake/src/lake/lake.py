"""One node's lake: parts come in, datasets come out, SQL is answered."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from lake._failpoints import reached
from lake.catalog import Catalog
from lake.durable import NewFile, storage_errors
from lake.errors import is_damage_of
from lake.ingestor import Ingestor, IngestRequest, check_upload, dataset_name
from lake.limits import QueryLimits
from lake.mentions import words_of
from lake.objects import ObjectStore
from lake.parts import PART_BYTES, PartStore
from lake.queries import QueryExecution, Result, check_parameters
from lake.reserve import Reserve
from lake.retention import Retention
from lake.scrub import Scrub, ScrubReport
from lake.verification import ShardFile, Verifier
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    Cancelled,
    Corrupt,
    NotFound,
    SennitError,
    Unsupported,
    UsageError,
)
from sennit_core.ids import new_id
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo, Progress, SnapshotInfo
from sennit_core.text import camel_case
from sennit_core.units import GIB, parse_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from elkyn import ElkynStore
    from emsqrt.executor import Execution, ExecutorPool

__all__ = ["Lake"]

_SQL_ENTRY = "lake.sql"
_CATALOG_WORDS = ("show", "information_schema", "describe")
_ABANDONED_SECONDS = 7 * 24 * 3600.0  # an upload that nobody completed
_FORMATS = ("arrow", "json", "csv")
_ENGINES = ("auto", "duckdb", "emsqrt")
_LEAST_SECONDS = 0.001
_TURN_SECONDS = 0.2  # between two looks at whether one that waits is cancelled


class Lake:
    """Datasets in a folder; a context manager.

    Args:
        folder: The node's data folder: `uploads/`, `lake/`, and, where they are not given,
            `elkyn/sys/` and `spill/`.
        tree: The `sys` namespace; opened, and closed again, when None.
        pool: Executors; started lazily, and stopped again, when None.
        memory_bytes: Cap of each executor of an own pool, in bytes or as "1 GiB".
        part_bytes: Size of an upload's parts when the client does not say.
        upload_bytes_max: Largest upload accepted; None is no limit but the disk.
        keep_source: Whether a file is kept as it came where its upload does not say
            (`keepSource`).
        reserve: Disk space set aside for deletions; the owner fills it. Made and filled when None.
        query_limits: Limits of queries that arrive over HTTP.
        clock: Source of time.
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
        clock: Clock = SYSTEM,
    ) -> None:
        self.folder = Path(folder)
        self.query_limits = query_limits or QueryLimits()
        self._clock = clock
        self._staging = self.folder / "lake" / "staging"
        with ExitStack() as owned:
            self.tree = tree or owned.enter_context(_open_tree(self.folder))
            self.pool = pool or owned.enter_context(_open_pool(self.folder, memory_bytes))
            self.objects = ObjectStore(self.folder / "lake" / "objects")
            self.catalog = Catalog(self.tree, self.objects, clock=clock)
            self.retention = Retention(self.objects, self.catalog)
            self.parts = PartStore(
                self.folder / "uploads",
                self.tree,
                part_bytes=part_bytes,
                size_max=upload_bytes_max,
                admit=lambda name, mode, options: check_upload(self.catalog, name, mode, options),
                clock=clock,
            )
            self._ingestor = Ingestor(
                self.objects, self.catalog, self.retention, self.pool, self._staging,
                keep_source=keep_source, upload_bytes_max=upload_bytes_max, clock=clock,
            )  # fmt: skip
            self._verifier = Verifier()
            self._turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
            self._turns_lock = threading.Lock()
            self._recover()
            self.reserve = reserve or Reserve(self.folder)
            if reserve is None:
                self.reserve.fill()
            self._owned = owned.pop_all()

    def ingest(
        self,
        upload_id: str,
        *,
        owner: str = "",
        on_progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> DatasetInfo:
        """Make a dataset of a complete upload, and remove the upload; blocks.

        Doing it again after a crash finishes it, or finds that it was finished. Of several at once
        one works, and the others find what it committed, or take over when it fails.

        Args:
            upload_id: The upload; sealed here when it is not yet.
            owner: Whose dataset it becomes.
            on_progress: Told how far it is.
            cancelled: Asked several times a second; True stops the work.

        Raises:
            UploadIncomplete: Parts are missing.
            BadInput: The file cannot be read; the upload stays.
        """
        sealed = self.parts.seal(upload_id)
        upload = sealed.upload
        reached("ingest-sealed")
        request = IngestRequest(
            snapshot=upload.id,
            dataset=upload.dataset,
            name=upload.name,
            paths=sealed.paths,
            mode=upload.mode,
            options=upload.options,
            owner=owner,
        )
        with self._turn(upload_id, cancelled):
            committed = self._committed(request)
            if committed is None:
                self.parts.mark(upload_id, "ingesting")
                try:
                    committed = self._ingestor.ingest(
                        request, on_progress=on_progress, cancelled=cancelled
                    )
                except SennitError:
                    self.parts.mark(upload_id, "failed")
                    raise
                reached("ingest-committed")
            self.parts.abort(upload_id)
        return committed

    def append(self, table: str, data: str | Path | pa.Table, **options: Any) -> DatasetInfo:
        """Append a file or Arrow data to a dataset; creates the dataset when there is none.

        Args:
            table: The dataset's name.
            data: Path of a CSV, Parquet, Arrow or JSON lines file, or a `pyarrow.Table`.
            options: Options of ingest, in Python's spelling (`strict=True`, `date_order="dmy"`).
        """
        wire = {camel_case(key): value for key, value in options.items()} | {"name": table}
        mode = "append" if self.catalog.find(table) is not None else "create"
        if isinstance(data, str | Path):
            path = Path(data)
            if not path.is_file():
                raise NotFound(kind="file", name=str(data), suggestion=None)
            return self._take(path, path.name, mode, wire)
        with NewFile(self._staging) as file:
            _write_arrow(data, file)
            return self._take(file.path, f"{table}.arrow", mode, wire)

    def query(  # noqa: PLR0913 - what a request may say, all by keyword
        self,
        sql: str,
        *,
        params: list[Any] | dict[str, Any] | None = None,
        format: str = "arrow",  # noqa: A002 - the contract's word
        max_rows: int | None = None,
        deadline_seconds: float | None = None,
        engine: str = "auto",
        user: str = "",
    ) -> QueryExecution:
        """Start a query in an executor, or put it in the queue for one.

        Args:
            sql: One reading statement over datasets, by name or id.
            params: A list for `?` and `$1`, a dict for `$name`.
            format: `arrow` (IPC stream), `json` or `csv`.
            max_rows: Rows after which the answer is cut and marked `truncated`.
            deadline_seconds: After which it is stopped.
            engine: `duckdb`; `emsqrt`, which keeps to the executor's cap whatever the query holds;
                or `auto`, which asks EM-√ when DuckDB's memory does not suffice, unless a part of
                DuckDB's answer has left already.
            user: On whose behalf; users take turns at the executors.

        Raises:
            UsageError: A parameter is no value of SQL.
            Unsupported: There is no such engine or format.
            Busy: Too many queries wait already. All else is raised by the execution.
        """
        check_parameters(params)
        if format not in _FORMATS:
            raise Unsupported(f"format {format!r} is none of {', '.join(_FORMATS)}")
        if engine not in _ENGINES:
            raise Unsupported(f"engine {engine!r} is none of {', '.join(_ENGINES)}")
        tables, held = self._hold_tables(sql)
        whole = {
            "sql": sql,
            "params": params,
            "format": format,
            "maxRows": max_rows,
            "tables": tables,
        }
        until = None if deadline_seconds is None else time.monotonic() + deadline_seconds

        def start(step: str, own: dict[str, Any]) -> Execution:
            request = {"format": format, "maxRows": max_rows, **own} if own else whole
            left = None if until is None else max(until - time.monotonic(), _LEAST_SECONDS)
            return self.pool.submit(
                _SQL_ENTRY,
                {**request, "engine": step},
                deadline_seconds=left,
                user=user,
                restartable=True,
                bounded=not own,  # a query that was admitted is not refused half-way
            )

        try:
            return QueryExecution(
                start,
                engine,
                lambda: self.retention.release(held),
                complete=lambda error: self._complete(error, tables),
                deadline_seconds=deadline_seconds,
            )
        except BaseException:
            self.retention.release(held)
            raise

    def sql(
        self, query: str, params: list[Any] | dict[str, Any] | None = None, engine: str = "auto"
    ) -> Result:
        """Answer a query into memory.

        Args:
            query: One reading statement.
            params: As for `query`.
            engine: `auto`, `duckdb` or `emsqrt`; `manifest["engine"]` tells who answered.
        """
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        with self.query(query, params=params, engine=engine) as execution:
            stream = b"".join(bytes(payload) for payload in execution.payloads())
            manifest = execution.result()
        with pa.BufferReader(stream) as source, open_arrow(source, "the answer") as reader:
            return Result(reader.read_all(), manifest)

    def resolve(self, dataset: str, snapshot: str | None = None) -> tuple[SnapshotInfo, list[Path]]:
        """A snapshot and the files of its shards; lease `snapshot.shards` while reading them.

        The files are not verified here: whoever reads them does that (`lake.verification`).

        Args:
            dataset: Id or name.
            snapshot: None is the head.

        Raises:
            NotFound: There is no such dataset or snapshot.
            Corrupt: Its manifest is damaged, or one of its shards is known to be.
        """
        found = self.catalog.manifest(dataset, snapshot).snapshot
        self.catalog.check_shards(found)
        return found, [self.objects.place(shard.object) for shard in found.shards]

    def note_damage(self, datasets: Mapping[str, str], damage: Corrupt) -> None:
        """Show the dataset that an executor's error is about as damaged, as `verify` does.

        Args:
            datasets: What the executor has read: ids by names.
            damage: Its error; one about something else is ignored.
        """
        for name, dataset_id in datasets.items():
            if is_damage_of(damage, name):
                self.catalog.note_dataset(dataset_id, damage)

    def verify(
        self,
        dataset: str | None = None,
        *,
        on_progress: Callable[[ScrubReport], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ScrubReport:
        """Read a dataset, or all of them, from the disk and compare every byte; blocks.

        What is found damaged is shown so by `catalog.list` from then on, and is not read by queries.

        Args:
            dataset: Id or name; None is every dataset.
            on_progress: Called after each object.
            cancelled: Asked between pieces of 256 KiB; True stops the work.

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
        """As `verify`, object by object: yields a report after each."""

        def check() -> None:
            if cancelled is not None and cancelled():
                raise Cancelled("verifying")

        return Scrub(self.catalog, self.objects, self.retention, check).run(dataset)

    def verify_shard(self, dataset: str, index: int, object_id: str) -> None:
        """Verify one shard before it is read in this process; costs a `stat` from then on.

        Raises:
            Corrupt: It is damaged.
        """
        self._verifier.check(ShardFile(dataset, index, str(self.objects.place(object_id))))

    def delete(self, dataset: str) -> DatasetInfo:
        """Delete a dataset with all its snapshots; queries that read it now still finish."""
        return self.reserve.spend(lambda: self.retention.delete_dataset(dataset))

    def close(self) -> None:
        """Close what the lake opened itself."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, path: Path, name: str, mode: str, options: dict[str, Any]) -> DatasetInfo:
        request = IngestRequest(
            snapshot=new_id(self._clock),
            dataset=new_id(self._clock),
            name=name,
            paths=(path,),
            mode=mode,
            options=options,
        )
        return self._ingestor.ingest(request)

    @contextmanager
    def _turn(self, upload_id: str, cancelled: Callable[[], bool] | None) -> Iterator[None]:
        """Wait until no other attempt works on the upload: all have one staging folder."""
        with self._turns_lock:
            turn = self._turns.setdefault(upload_id, threading.Lock())
        while not turn.acquire(timeout=_TURN_SECONDS):
            if cancelled is not None and cancelled():
                raise Cancelled(f"the ingest of upload {upload_id}")
        try:
            yield
        finally:
            turn.release()

    def _committed(self, request: IngestRequest) -> DatasetInfo | None:
        """The dataset, when this very upload is in it already."""
        name = dataset_name(request.name, request.options)
        for key in (request.dataset, name):
            info = self.catalog.find_known(key)
            if info is not None and self.catalog.has_snapshot(info.id, request.snapshot):
                return info
        return None

    def _hold_tables(self, sql: str) -> tuple[list[dict[str, Any]], frozenset[str]]:
        """The datasets that a statement may read, and a lease on their shards."""
        while True:
            tables, objects = self._tables(sql)
            held = self.retention.acquire(objects)
            # Deleted between its lookup and its lease, a dataset may have lost its shards.
            if all(self.catalog.find_id(table["id"]) is not None for table in tables):
                return tables, held
            self.retention.release(held)

    def _tables(self, sql: str) -> tuple[list[dict[str, Any]], list[str]]:
        """Datasets that the text may name, with their shards' paths, and these shards' ids.

        A name that is not in the text cannot be read by it, so a look at its words is enough to
        leave out the rest of a large catalog; the executor parses it in earnest.
        """
        folded = sql.casefold()
        words = words_of(sql)
        if words is None:
            named = [id_ for id_ in self.catalog.ids() if self._is_in(folded, id_)]
        else:
            named = list(self.catalog.find_all(words))
        tables: list[dict[str, Any]] = []
        objects: list[str] = []
        for dataset_id in named:
            table, needed = self._table(dataset_id)
            tables.append(table)
            objects.extend(needed)
        if any(word in folded for word in _CATALOG_WORDS):
            tables += [
                {"name": info.name, "id": info.id, "schema": info.schema.to_json(), "paths": None}
                for info in self.catalog.list()
                if info.id not in named and len(info.schema)
            ]
        return tables, objects

    def _is_in(self, folded: str, dataset_id: str) -> bool:
        name = self.catalog.name(dataset_id).casefold()
        return any(each in folded for each in (name, name.replace('"', '""'), dataset_id))

    def _table(self, dataset_id: str) -> tuple[dict[str, Any], list[str]]:
        """A dataset as requests of executors have it; a damaged one fails where it is read."""
        name = self.catalog.name(dataset_id)
        try:
            info = self.catalog.get(dataset_id)
            snapshot = self.catalog.manifest(dataset_id).snapshot
            self.catalog.check_shards(snapshot)
        except Corrupt as damage:
            schema: dict[str, Any] = {"fields": []}
            row = {"name": name, "id": dataset_id, "schema": schema, "damage": damage.to_json()}
            return row, []
        objects = [shard.object for shard in snapshot.shards]
        return {
            "name": info.name,
            "id": info.id,
            "schema": info.schema.to_json(),
            "paths": [str(self.objects.place(name)) for name in objects],
            "snapshot": snapshot.id,
        }, objects

    def _complete(self, error: SennitError, tables: list[dict[str, Any]]) -> SennitError:
        """Add what the executor cannot know: the nearest name; and note damage that it has found."""
        if isinstance(error, NotFound) and error.kind == "dataset" and error.suggestion is None:
            return self.catalog.not_found(error.name)
        if isinstance(error, Corrupt):
            self.note_damage({table["name"]: table["id"] for table in tables}, error)
        return error

    def _recover(self) -> None:
        """What a crash left: staging files, and objects that no snapshot has come to need."""
        with storage_errors(self._staging, 0):
            shutil.rmtree(self._staging, ignore_errors=True)
            make_private_folder(self._staging)
        self.retention.sweep()
        self.parts.sweep(_ABANDONED_SECONDS)


def _open_tree(folder: Path) -> ElkynStore:
    from elkyn import ElkynStore

    return ElkynStore(folder / "elkyn" / "sys", namespace="sys")


def _open_pool(folder: Path, memory_bytes: int | str) -> ExecutorPool:
    from emsqrt.executor import ExecutorPool

    return ExecutorPool(1, memory_bytes=parse_bytes(memory_bytes), spill_dir=folder / "spill")


def _write_arrow(data: pa.Table, file: NewFile) -> None:
    import pyarrow as pa

    if not isinstance(data, pa.Table):
        raise UsageError(f"append takes a path or a pyarrow.Table, not {type(data).__name__}")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema) as writer:
        for batch in data.to_batches(max_chunksize=65_536):
            writer.write_batch(batch)
    file.write(sink.getvalue())
