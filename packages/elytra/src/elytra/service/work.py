"""The work of a job: its tasks and its merge as data, and the files of their results."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.backends import (
    NODE_ENGINE,
    IngestTask,
    NodeFiles,
    TaskInput,
    TaskLimits,
    TaskSpec,
)
from elytra.backends.task_spec import InputKind
from elytra.service.job_options import JobOptions
from elytra.service.messages import JobSubmitted, JsonObject
from elytra.service.partial_journal import PartialJournal
from elytra.splitter import Cut, Part, Split, Whole
from emsqrt.plan import (
    DatasetRef,
    Files,
    Plan,
    Scan,
    Union,
    plan_to_json,
)
from lake.catalog.file_schemas import FileColumns, rows_of_files
from lake.objects.durable import storage_errors
from lake.objects.verification import ShardFile
from sennit_core import __version__
from sennit_core.hashing import canonical_json
from sennit_core.ids import task_key
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo, ShardInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake import Lake

PLAN_ENTRY = "emsqrt.plan"
SHARDS_ENTRY = "lake.plan"
"""As `PLAN_ENTRY`, for plans over shards of datasets: the executor verifies the shards first."""
MERGE = "merge"
"""The key of a merge, in place of a task's."""
SMALL_RESULT_BYTES = 64 << 10
"""The longest result, as an Arrow IPC stream, that a task returns with its report: what an executor
sends in its control frames, without a ring."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One input of a job.

    Args:
        info: The shard's record.
        file: Its file, with the names for errors.
        columns: Those of the file; None if they are the dataset's.
        is_decrypted: Whether the file is a decrypted copy in memory.
    """

    info: ShardInfo
    file: ShardFile
    columns: FileColumns | None = None
    is_decrypted: bool = False


@dataclass(frozen=True)  # without slots: cached properties need a dictionary
class PlanWork:
    """A pipeline over the shards of snapshots: one task per shard and a merge, or one task for all.

    Partials are Arrow IPC streams under `partials/`, rows are Parquet files under `result/`.

    Args:
        job: The job's id.
        cut: The plan, split or whole.
        shards: Its inputs: the shards of each snapshot that it reads, in order.
        datasets: The ids of the datasets that it reads, by name.
        folder: The job's folder.
        mem_cap_bytes: Memory cap of each execution; None uses the pool's cap.
        user: The user on whose behalf it runs.
        queries: Its other inputs: queries, in the form of executor requests; they need a whole plan.
        memory: As of `NodeFiles`, for a whole plan over encrypted datasets.
        secret: As of `NodeFiles`.
        engine: The backend that runs its tasks.
        missing: What is left out of the inputs, for the result; None for nothing.
        options: Of the submission.
    """

    job: str
    cut: Cut
    shards: Mapping[DatasetRef, tuple[Shard, ...]]
    datasets: Mapping[str, str]
    folder: Path
    mem_cap_bytes: int | None
    user: str = ""
    queries: Mapping[DatasetRef, Mapping[str, Any]] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    secret: bytes | None = field(default=None, repr=False)
    engine: str = NODE_ENGINE
    missing: Mapping[str, Any] | None = None
    options: JobOptions = field(default_factory=JobOptions)

    # Also where nothing is executed: the scheduler's state "merging" then only assembles the
    # result.
    has_merge = True

    @property
    def inputs(self) -> dict[str, tuple[str | None, int | None]]:
        """For each task: its shard's object, if any, and its input bytes."""
        if isinstance(self.cut, Whole):
            return {task_key(0): (None, sum(shard.info.bytes for shard in self._all))}
        # By identity: to hash a part is to write its plan as JSON.
        read_by_all = {
            id(part): sum(shard.info.bytes for ref in part.others for shard in self.shards[ref])
            for part in self.cut.parts
        }
        return {
            key: (shard.info.object, shard.info.bytes + read_by_all[id(part)])
            for key, (part, shard) in self._tasks.items()
        }

    @cached_property
    def task_keys(self) -> tuple[str, ...]:
        """Keys of the tasks: one per shard, in order, or the only one."""
        # By position, not by object: equal shards of two datasets are one object, but two inputs.
        return (task_key(0),) if isinstance(self.cut, Whole) else tuple(self._tasks)

    @cached_property
    def _all(self) -> tuple[Shard, ...]:
        return tuple(shard for shards in self.shards.values() for shard in shards)

    @cached_property
    def _tasks(self) -> dict[str, tuple[Part, Shard]]:
        # Each attempt looks its shard up: a search would be quadratic in the shards of a job.
        assert isinstance(self.cut, Split), "the task of a whole plan has no shard of its own"
        tasks = enumerate(self.cut.tasks(self.shards))
        return {task_key(index): task for index, task in tasks}

    @cached_property
    def _first_rows(self) -> dict[str, int]:
        """How many rows the shards of the tasks before each one have."""
        counts = (shard.info.rows for _, shard in self._tasks.values())
        return dict(zip(self._tasks, accumulate(counts, initial=0), strict=False))

    def submission(
        self, done: Mapping[str, JsonObject] | None = None, first_attempt: int = 1
    ) -> JobSubmitted:
        """Return the event that submits the job.

        Args:
            done: Results of tasks that a previous run of the node has.
            first_attempt: Number of a task's first attempt, above those of that run.
        """
        inputs = self.inputs
        return JobSubmitted(
            self.job,
            self.task_keys,
            self.has_merge,
            self.engine,
            self.user,
            self.options,
            {key: size for key, (_, size) in inputs.items() if size is not None},
            {key: shard for key, (shard, _) in inputs.items() if shard is not None},
            holds_partials=self.merges,
            done=done or {},
            first_attempt=first_attempt,
        )

    @cached_property
    def journal(self) -> PartialJournal | None:
        """What it has computed; None for a job of one task, which runs again as a whole."""
        if not isinstance(self.cut, Split) or len(self.task_keys) < 2 or self.secret is not None:
            return None
        outputs = self._partials if self.merges else self.folder / "result"
        return PartialJournal(self.folder, self._fingerprint, outputs)

    @property
    def _fingerprint(self) -> str:
        """A hash of all that decides the bytes of a partial: version, plan, and shards in order."""
        assert isinstance(self.cut, Split)
        one = Files(("shard-0",), "parquet")
        plans = [plan_to_json(self.cut.shard_plan(part, one)) for part in self.cut.parts]
        shards = [shard.info.object for _, shard in self._tasks.values()]
        read_by_all = [
            [ref.dataset, ref.snapshot, *(shard.info.object for shard in self.shards[ref])]
            for part in self.cut.parts
            for ref in part.others
        ]
        document: JsonObject = {"version": __version__, "plans": plans, "shards": shards}
        document["readByAll"] = read_by_all
        document["schema"] = self.cut.partial_schema.fingerprint()
        return hashlib.sha256(canonical_json(document)).hexdigest()

    def place(self, key: str) -> JsonObject:
        """Return what a task reads, for a report about it: its shard and the bytes of the source."""
        if isinstance(self.cut, Whole) or key not in self._tasks:
            return {"task": key}
        _, shard = self._tasks[key]
        return {
            "task": key,
            "dataset": shard.file.dataset,
            "shard": shard.info.object,
            "rows": shard.info.rows,
            "source": shard.info.source_object,
            "byteStart": shard.info.byte_start,
            "byteEnd": shard.info.byte_end,
        }

    def prepare(self) -> None:
        """Write an empty file for each input that has none: a dataset, or all partials.

        A dataset without shards still has a result, whose schema comes from such a file.
        """
        # By what would read the missing input: a task or a merge that reads the whole dataset, nothing
        # (the file is the result), or the merge.
        with storage_errors(self.folder, 0):
            for ref, schema in self._read_whole.items():
                if ref in self.shards and not self.shards[ref]:
                    _write_no_batches(self._no_rows(schema), schema)
            if isinstance(self.cut, Whole):
                return
            if not self.task_keys and self.cut.merge_steps is None:
                _write_no_rows(self._rows("none"), self.cut.schema)
            elif not self.task_keys:
                schema = self.cut.partial_schema
                _write_no_batches(self._no_rows(schema), schema)

    def task(self, key: str, attempt: str) -> tuple[TaskSpec, NodeFiles]:
        """Return an attempt at one task, and its files on this node.

        Args:
            key: The task's key.
            attempt: The attempt's id, which ends with its number.
        """
        # Each attempt has a file of its own: an attempt that was given up may still be writing.
        name = f"{key}-{attempt.rsplit('-', 1)[-1]}"
        inputs = _Inputs()
        if isinstance(self.cut, Whole):
            plan = self.cut.over(lambda scan, ref: self._over(scan, ref, inputs))
            return self._to_rows(attempt, key, plan, name, inputs)
        part, shard = self._tasks[key]
        plan = self.cut.shard_plan(
            part,
            Files((inputs.add_shard(shard),), "parquet"),
            shard.columns,
            lambda scan, ref: self._over(scan, ref, inputs),
            self._first_rows[key],
        )
        if self.cut.merge_steps is None:
            return self._to_rows(attempt, key, plan, name, inputs)
        # Partials are streamed to the node, which writes the file; rows are written by the executor
        # itself.
        return self._spec(attempt, key, plan, self._partials / f"{name}.arrow", inputs)

    @property
    def merges(self) -> bool:
        """Whether a merge executes a plan; if not, the partials are the result."""
        return isinstance(self.cut, Split) and self.cut.merge_steps is not None

    def merge(self, number: int, partials: Sequence[JsonObject]) -> tuple[TaskSpec, NodeFiles]:
        """Return the execution that merges the partials, and its files on this node.

        Args:
            number: Number of the merge, from 1.
            partials: The results of all tasks, in shard order.
        """
        assert isinstance(self.cut, Split), "a whole plan has no partials"
        # Shard order, not the order of arrival: it decides the order of rows.
        inputs = _Inputs()
        files = [self._partials / partial["file"] for partial in partials]
        none = [] if files else [self._no_rows(self.cut.partial_schema)]
        names = tuple(inputs.add("partial", path.name, str(path)) for path in files or none)
        plan = self.cut.merge_plan(
            Files(names, "arrow"), lambda scan, ref: self._over(scan, ref, inputs)
        )
        return self._to_rows(merge_id(self.job, number), MERGE, plan, f"merged-{number}", inputs)

    def result(self, partials: Sequence[JsonObject], merged: JsonObject | None) -> JsonObject:
        """Return the job's result.

        Args:
            partials: The results of all tasks, in shard order.
            merged: The result of the merge; None when there was nothing to execute.
        """
        missing = {} if self.missing is None else {"missing": self.missing}
        if merged is not None:
            return _result([merged], partials, [*partials, merged]) | missing
        parts = list(partials)
        if not parts:
            path = self._rows("none")
            # The file that `prepare` wrote; its shape is that of a partial.
            none = {"file": path.name, "bytes": path.stat().st_size, "manifest": {"rowsOut": 0}}
            parts = [none]
        return _result(parts, parts, parts) | missing

    def rows(self, partials: Sequence[JsonObject], merged: JsonObject | None) -> bytes | None:
        """Return all rows of the result as an Arrow IPC stream, if they are few, else None.

        Args:
            partials: The results of all tasks, in shard order.
            merged: The result of the merge; None when there was nothing to execute.
        """
        parts = [merged] if merged is not None else partials
        # Several streams would have to be parsed to be joined, which is an executor's work.
        return parts[0].get("rows") if len(parts) == 1 else None

    @property
    def _partials(self) -> Path:
        return self.folder / "partials"

    def _rows(self, name: str) -> Path:
        return self.folder / "result" / f"{name}.parquet"

    def _no_rows(self, schema: Schema) -> Path:
        # By the columns alone: empty inputs with the same columns share one file.
        return self._partials / f"none-{schema.fingerprint()}.arrow"

    def _over(self, scan: Scan, snapshot: DatasetRef, inputs: _Inputs) -> Plan:
        """Return the rows of a snapshot, in place of its scan."""
        schema = self._schema(snapshot)
        if snapshot in self.queries:
            name = inputs.add_query(self.queries[snapshot]["name"])
            return replace(scan, source=Files((name,), "parquet"))
        parts = []
        for columns, shards in groupby(self.shards[snapshot], lambda shard: shard.columns):
            files = Files(tuple(map(inputs.add_shard, shards)), "parquet")
            parts.append(rows_of_files(files, schema, columns, scan.columns))
        if not parts:
            none = self._no_rows(schema)
            name = inputs.add("partial", none.name, str(none))
            return replace(scan, source=Files((name,), "arrow"))
        return parts[0] if len(parts) == 1 else Union(tuple(parts))

    @cached_property
    def _read_whole(self) -> dict[DatasetRef, Schema]:
        """The datasets of which a task or the merge reads all shards."""
        scans = self.cut.whole_scans()
        return {
            scan.source: scan.schema
            for scan in scans
            if isinstance(scan.source, DatasetRef) and scan.schema
        }

    def _schema(self, snapshot: DatasetRef) -> Schema:
        return self._read_whole[snapshot]

    def _to_rows(
        self, task_id: str, key: str, plan: Plan, name: str, inputs: _Inputs
    ) -> tuple[TaskSpec, NodeFiles]:
        path = self._rows(name)
        if self.secret is not None:  # the node encrypts the rows as they come
            path = path.with_suffix(".arrow")
        return self._spec(task_id, key, plan, path, inputs)

    def _copy_bytes(self, key: str) -> int:
        """Return up to which size a task sends the rows of its result with its report.

        Partials of several tasks are read by the merge, and rows of several are not joined.
        """
        is_whole = key == MERGE or len(self.task_keys) == 1
        return SMALL_RESULT_BYTES if is_whole and self.secret is None else 0

    def _spec(
        self, task_id: str, key: str, plan: Plan, output: Path, inputs: _Inputs
    ) -> tuple[TaskSpec, NodeFiles]:
        task = TaskSpec(
            id=task_id,
            job=self.job,
            key=key,
            plan=plan,
            inputs=tuple(inputs.inputs.values()),
            output="arrow" if output.suffix == ".arrow" else "parquet",
            copy_bytes_max=self._copy_bytes(key),
            limits=TaskLimits(mem_cap_bytes=self.mem_cap_bytes, seconds=self.options.task_seconds),
            user=self.user,
        )
        files = NodeFiles(
            paths=inputs.paths,
            output=output,
            shards=tuple(inputs.shards),
            sources=tuple(self.queries.values()),
            memory=self.memory,
            secret=self.secret,
            datasets=self.datasets,
            check_share=(self.options.sample_percent or 0.0) / 100,
        )
        return task, files


class _Inputs:
    """The inputs of a task, named as they are added."""

    def __init__(self) -> None:
        self.inputs: dict[str, TaskInput] = {}
        self.paths: dict[str, str] = {}
        # To be verified: those of encrypted datasets were authenticated when they were decrypted.
        # Once, also if several scans read them.
        self.shards: dict[ShardFile, None] = {}

    def add(self, kind: InputKind, input_id: str, path: str) -> str:
        """Add a file; return its name."""
        return self._add(f"{kind}-{len(self.inputs)}", kind, input_id, path)

    def add_shard(self, shard: Shard) -> str:
        """Add a shard; return its name."""
        if not shard.is_decrypted:
            self.shards[shard.file] = None
        return self.add("shard", shard.info.object, shard.file.path)

    def add_query(self, name: str) -> str:
        """Add a query, which may be there already; return its name."""
        return self._add(name, "query", name, name)

    def _add(self, name: str, kind: InputKind, input_id: str, path: str) -> str:
        self.inputs[name] = TaskInput(name, kind, input_id)
        self.paths[name] = path
        return name


@dataclass(frozen=True, slots=True)
class IngestWork:
    """The ingest of an upload into a dataset, in one task.

    Args:
        job: The job's id.
        upload_id: The sealed upload.
        size_bytes: Bytes of the upload.
        owner: Owner of the dataset.
    """

    job: str
    upload_id: str
    size_bytes: int
    owner: str

    has_merge = False
    engine = NODE_ENGINE

    @property
    def task_keys(self) -> tuple[str, ...]:
        """Key of the only task."""
        return (task_key(0),)

    @property
    def inputs(self) -> dict[str, tuple[str | None, int | None]]:
        """For the only task: no shard, and the bytes of the upload."""
        return {task_key(0): (None, self.size_bytes)}

    # It has no shards, and its only result is the committed dataset.
    journal = None

    def prepare(self) -> None:
        """An ingest needs no files before it starts."""

    def submission(self) -> JobSubmitted:
        """Return the event that submits the job."""
        sizes = dict.fromkeys(self.task_keys, self.size_bytes)
        return JobSubmitted(
            self.job, self.task_keys, self.has_merge, self.engine, self.owner, sizes=sizes
        )

    def place(self, key: str) -> JsonObject:
        """Return what a task reads, for a report about it."""
        return {"task": key, "upload": self.upload_id}

    def task(self, attempt: str) -> IngestTask:
        """Return an attempt at the only task."""
        return IngestTask(attempt, self.upload_id, self.owner)


def merge_id(job: str, number: int) -> str:
    """Return the id of the execution of a merge."""
    return f"{job}-{MERGE}-{number}"


def ingest_result(lake: Lake, dataset: DatasetInfo) -> JsonObject:
    """Return the result of an ingest: the dataset, and how the file was read."""
    found = lake.catalog.manifest(dataset.id, dataset.head).ingest
    ingest = {} if found is None else {"ingest": dict(found)}
    return {"dataset": dataset.id, "name": dataset.name, "rows": dataset.rows, **ingest}


def drop_partial(folder: Path, partial: JsonObject) -> None:
    """Delete the files of an outdated or repeated attempt from a job's folder."""
    if "file" in partial:
        for place in ("partials", "result"):
            (folder / place / str(partial["file"])).unlink(missing_ok=True)


def remove_outputs(folder: Path) -> None:
    """Delete all output files of a job that ended without a result."""
    for place in ("partials", "result"):
        shutil.rmtree(folder / place, ignore_errors=True)


def remove_other_outputs(folder: Path, partials: Iterable[JsonObject]) -> None:
    """Delete all output files of a job except those of these results: attempts that were cut short."""
    names = {partial["file"] for partial in partials}
    for place in ("partials", "result"):
        for path in (folder / place).glob("*"):
            if path.name not in names:
                path.unlink()


def _write_no_batches(path: Path, schema: Schema) -> None:
    import pyarrow as pa

    make_private_folder(path.parent)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema.to_arrow()):
        pass


def _write_no_rows(path: Path, schema: Schema) -> None:
    import pyarrow.parquet as pq

    make_private_folder(path.parent)
    pq.write_table(schema.to_arrow().empty_table(), path)


def _result(
    parts: Sequence[JsonObject],
    readers: Sequence[JsonObject],
    executions: Sequence[JsonObject],
) -> JsonObject:
    """Return the result's files and totals; only `readers` read the dataset, others partials."""
    manifests = [execution["manifest"] for execution in executions]
    tokens = sorted({part["token"] for part in executions if "token" in part})
    return {
        # Of the remote workers that computed a part of it: they may be found to be wrong later.
        **({"tokens": tokens} if tokens else {}),
        "files": [part["file"] for part in parts],
        "rows": sum(int(part["manifest"].get("rowsOut") or 0) for part in parts),
        "bytes": sum(int(part["bytes"]) for part in parts),
        "rowsRead": sum(int(part["manifest"].get("rowsIn") or 0) for part in readers),
        # Each execution is under the cap on its own, so the largest peak is the one to compare with
        # it.
        "peakBytes": max((int(m.get("peakBytes") or 0) for m in manifests), default=0),
        "capBytes": max((int(m.get("capBytes") or 0) for m in manifests), default=0),
        "spilledBytes": sum(int(m.get("spilledBytes") or 0) for m in manifests),
        "executions": len(manifests),
    }
