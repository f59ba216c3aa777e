"""The work of a job's tasks and merge: plans for executors, and files for their results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.backends.local import Run
from elytra.messages import JsonObject
from elytra.splitter import Cut, Whole
from emsqrt.plan import (
    DatasetRef,
    Files,
    FileTarget,
    Plan,
    Sink,
    StreamTarget,
    plan_to_json,
    scans_of,
)
from lake.durable import NewFile
from lake.verification import ShardFile
from sennit_core.errors import Corrupt
from sennit_core.ids import task_key
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo, Progress, ShardInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake import Lake

OnTaskProgress = Callable[[str, Progress], None]
"""Called with (task key, progress); the merge has the key "merge"."""

PLAN_ENTRY = "emsqrt.plan"
SHARDS_ENTRY = "lake.plan"
"""As `PLAN_ENTRY`, for plans over shards of datasets: the executor verifies the shards first."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One input of a job.

    Args:
        info: The shard's record.
        file: Its file, with the names for errors.
    """

    info: ShardInfo
    file: ShardFile


@dataclass(frozen=True, slots=True)
class PlanWork:
    """A pipeline over the shards of snapshots: one task per shard and a merge, or one task for all.

    Partials are Arrow IPC streams under `partials/`, rows are Parquet files under `result/`; both
    are written piece by piece and never held in this process.

    Args:
        cut: The plan, split or whole.
        shards: Its inputs: the shards of each snapshot that it reads, in order.
        folder: The job's folder.
        pool: The executors.
        mem_cap_bytes: Memory cap of each execution; None uses the pool's cap.
        on_progress: Called with the progress of the executions.
        on_damage: Called with the error of an execution that read damaged bytes.
        user: The user on whose behalf it runs.
    """

    cut: Cut
    shards: Mapping[DatasetRef, tuple[Shard, ...]]
    folder: Path
    pool: ExecutorPool
    mem_cap_bytes: int | None
    on_progress: OnTaskProgress
    on_damage: Callable[[Corrupt], None]
    user: str = ""

    @property
    def inputs(self) -> dict[str, tuple[str | None, int | None]]:
        """For each task: its shard's object, if any, and its input bytes."""
        if isinstance(self.cut, Whole):
            return {task_key(0): (None, sum(shard.info.bytes for shard in self._all))}
        return {
            key: (shard.info.object, shard.info.bytes)
            for key, shard in zip(self.task_keys, self._all, strict=True)
        }

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects that must not be deleted until the job has ended."""
        return tuple(shard.info.object for shard in self._all)

    @property
    def task_keys(self) -> tuple[str, ...]:
        """Keys of the tasks: one per shard, in order, or the only one."""
        tasks = 1 if isinstance(self.cut, Whole) else len(self._all)
        return tuple(task_key(index) for index in range(tasks))

    @property
    def _all(self) -> tuple[Shard, ...]:
        return tuple(shard for shards in self.shards.values() for shard in shards)

    def run_task(self, run: Run, task: str, attempt: str) -> JsonObject:
        """Run the plan of one task; the result names its file."""
        suffix = attempt.rsplit("-", 1)[-1]
        if isinstance(self.cut, Whole):
            plan = self.cut.over(self._files)
            return self._to_rows(run, task, plan, f"{task}-{suffix}.parquet", self._all)
        shard = self._all[self.task_keys.index(task)]
        plan = self.cut.shard_plan(Files((shard.file.path,), "parquet"))
        if self.cut.merge_steps is None:
            return self._to_rows(run, task, plan, f"{task}-{suffix}.parquet", (shard,))
        return self._to_partial(run, task, plan, f"{task}-{suffix}.arrow", (shard,))

    def run_merge(self, run: Run, number: int, partials: tuple[JsonObject, ...]) -> JsonObject:
        """Merge all partials into the result, then remove them."""
        if isinstance(self.cut, Whole) or self.cut.merge_steps is None:
            parts = list(partials) or [self._empty_rows()]
            return _result(parts, parts, parts)
        files = [str(self.folder / "partials" / partial["file"]) for partial in partials]
        none = [] if files else [self._no_rows(self.cut.partial_schema)]
        plan = self.cut.merge_plan(Files(tuple(files or none), "arrow"))
        merged = self._to_rows(run, "merge", plan, f"merged-{number}.parquet")
        shutil.rmtree(self.folder / "partials", ignore_errors=True)
        return _result([merged], partials, [*partials, merged])

    def _files(self, snapshot: DatasetRef) -> Files:
        paths = tuple(shard.file.path for shard in self.shards[snapshot])
        if paths:
            return Files(paths, "parquet")
        assert isinstance(self.cut, Whole)
        scans = (scan for scan in scans_of(self.cut.plan) if scan.source == snapshot)
        schema = next(scans).schema
        assert schema is not None, "set by the splitter"
        return Files((self._no_rows(schema),), "arrow")

    def _to_rows(
        self, run: Run, key: str, plan: Plan, name: str, shards: Sequence[Shard] = ()
    ) -> JsonObject:
        path = self.folder / "result" / name
        make_private_folder(path.parent)
        sink = Sink(plan, FileTarget(str(path), "parquet"))
        manifest = self._execute(run, key, sink, None, shards)
        return {"file": name, "bytes": path.stat().st_size, "manifest": manifest}

    def _to_partial(
        self, run: Run, key: str, plan: Plan, name: str, shards: Sequence[Shard]
    ) -> JsonObject:
        path = self.folder / "partials" / name
        with NewFile(path.parent) as file:
            sink = Sink(plan, StreamTarget("arrow"))
            manifest = self._execute(run, key, sink, file, shards)
            file.commit(path)
        return {"file": name, "bytes": file.size, "manifest": manifest}

    def _execute(
        self, run: Run, key: str, plan: Plan, file: NewFile | None, shards: Sequence[Shard]
    ) -> dict[str, Any]:
        run.check()
        request: dict[str, Any] = {"plan": plan_to_json(plan)}
        if shards:
            request["shards"] = [shard.file.to_json() for shard in shards]
        with self.pool.submit(
            SHARDS_ENTRY if shards else PLAN_ENTRY,
            request,
            mem_cap_bytes=self.mem_cap_bytes,
            on_progress=lambda progress: self.on_progress(key, progress),
            user=self.user,
            restartable=True,  # its files are temporary and rewritten from the start
            bounded=False,  # jobs have their own queue
        ) as execution:
            run.attach(execution)
            try:
                for payload in execution.payloads():
                    if file is not None:
                        file.write(payload)
                return execution.result()
            except Corrupt as damage:
                self.on_damage(damage)
                raise
            finally:
                run.detach()

    def _no_rows(self, schema: Schema) -> str:
        """Write an empty input file, so that a dataset without shards still has a result."""
        import pyarrow as pa

        path = self.folder / "partials" / f"none-{schema.fingerprint()}.arrow"
        make_private_folder(path.parent)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema.to_arrow()):
            pass
        return str(path)

    def _empty_rows(self) -> JsonObject:
        import pyarrow.parquet as pq

        path = self.folder / "result" / "none.parquet"
        make_private_folder(path.parent)
        pq.write_table(self.cut.schema.to_arrow().empty_table(), path)
        return {"file": path.name, "bytes": path.stat().st_size, "manifest": {"rowsOut": 0}}


@dataclass(frozen=True, slots=True)
class IngestWork:
    """The ingest of an upload into a dataset, in one task.

    Args:
        lake: The lake that receives the dataset.
        upload_id: The sealed upload.
        size_bytes: Bytes of the upload.
        owner: Owner of the dataset.
        on_progress: Called with the progress of the ingest.
    """

    lake: Lake
    upload_id: str
    size_bytes: int
    owner: str
    on_progress: OnTaskProgress

    @property
    def objects(self) -> tuple[str, ...]:
        """No objects: the ingest leases the objects that it creates."""
        return ()

    @property
    def task_keys(self) -> tuple[str, ...]:
        """Key of the only task."""
        return (task_key(0),)

    @property
    def inputs(self) -> dict[str, tuple[str | None, int | None]]:
        """For the only task: no shard, and the bytes of the upload."""
        return {task_key(0): (None, self.size_bytes)}

    def run_task(self, run: Run, task: str, attempt: str) -> JsonObject:
        """Ingest the upload; safe to repeat after a crash."""
        dataset = self.lake.ingest(
            self.upload_id,
            owner=self.owner,
            on_progress=lambda progress: self.on_progress(task, progress),
            cancelled=lambda: run.stopped,
        )
        return ingest_result(self.lake, dataset)

    def run_merge(self, run: Run, number: int, partials: tuple[JsonObject, ...]) -> JsonObject:
        """An ingest has no merge."""
        raise AssertionError("an ingest has no merge")


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


def _result(
    parts: Sequence[JsonObject],
    readers: Sequence[JsonObject],
    executions: Sequence[JsonObject],
) -> JsonObject:
    """Return the result's files and totals; only `readers` read the dataset, others partials."""
    manifests = [execution["manifest"] for execution in executions]
    return {
        "files": [part["file"] for part in parts],
        "rows": sum(int(part["manifest"].get("rowsOut") or 0) for part in parts),
        "bytes": sum(int(part["bytes"]) for part in parts),
        "rowsRead": sum(int(part["manifest"].get("rowsIn") or 0) for part in readers),
        "peakBytes": max((int(m.get("peakBytes") or 0) for m in manifests), default=0),
        "capBytes": max((int(m.get("capBytes") or 0) for m in manifests), default=0),
        "spilledBytes": sum(int(m.get("spilledBytes") or 0) for m in manifests),
        "executions": len(manifests),
    }
