"""What the tasks and the merge of a job do: plans for executors, files for their answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.backends.local import Run
from elytra.messages import JsonObject
from elytra.splitter import Split
from emsqrt.plan import DatasetRef, Files, FileTarget, Plan, Sink, StreamTarget, plan_to_json
from lake.durable import NewFile
from sennit_core.ids import task_key
from sennit_core.records import DatasetInfo, Progress, ShardInfo

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake import Lake

OnTaskProgress = Callable[[str, Progress], None]
"""Called with (task key, progress); the merge has the key "merge"."""

PLAN_ENTRY = "emsqrt.plan"


@dataclass(frozen=True, slots=True)
class Shard:
    """One input of a job: a shard's record and where it lies."""

    info: ShardInfo
    path: Path


@dataclass(frozen=True, slots=True)
class PlanWork:
    """A pipeline over the shards of one snapshot.

    Partials are Arrow IPC streams under `partials/`, rows are Parquet files under `result/`; both
    are written piece by piece and never held in this process.

    Args:
        snapshot: The snapshot that it reads.
        split: The plan in halves.
        shards: Its inputs, in order.
        folder: The job's folder.
        pool: The executors.
        mem_cap_bytes: Cap of each execution; None is the pool's own.
        on_progress: Told what the executions tell.
    """

    snapshot: DatasetRef
    split: Split
    shards: tuple[Shard, ...]
    folder: Path
    pool: ExecutorPool
    mem_cap_bytes: int | None
    on_progress: OnTaskProgress

    @property
    def inputs(self) -> dict[str, tuple[str | None, int | None]]:
        """Of each task: its shard's object and how many bytes that has."""
        return {
            key: (shard.info.object, shard.info.bytes)
            for key, shard in zip(self.task_keys, self.shards, strict=True)
        }

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects that must stay until the job has ended."""
        return tuple(shard.info.object for shard in self.shards)

    @property
    def task_keys(self) -> tuple[str, ...]:
        """One task a shard, in order."""
        return tuple(task_key(index) for index in range(len(self.shards)))

    def run_task(self, run: Run, task: str, attempt: str) -> JsonObject:
        """Run the plan of one shard; the answer names its file."""
        shard = self.shards[self.task_keys.index(task)]
        plan = self.split.shard_plan(Files((str(shard.path),), "parquet"))
        suffix = attempt.rsplit("-", 1)[-1]
        if self.split.merge_steps is None:
            return self._to_rows(run, task, plan, f"{task}-{suffix}.parquet")
        return self._to_partial(run, task, plan, f"{task}-{suffix}.arrow")

    def run_merge(self, run: Run, number: int, partials: tuple[JsonObject, ...]) -> JsonObject:
        """Make the answer of all partials, then remove them."""
        if self.split.merge_steps is None:
            parts = list(partials) or [self._empty_rows()]
            return _result(parts, parts, parts)
        files = [str(self.folder / "partials" / partial["file"]) for partial in partials]
        plan = self.split.merge_plan(Files(tuple(files or [self._empty_partial()]), "arrow"))
        merged = self._to_rows(run, "merge", plan, f"merged-{number}.parquet")
        shutil.rmtree(self.folder / "partials", ignore_errors=True)
        return _result([merged], partials, [*partials, merged])

    def _to_rows(self, run: Run, key: str, plan: Plan, name: str) -> JsonObject:
        path = self.folder / "result" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = self._execute(run, key, Sink(plan, FileTarget(str(path), "parquet")), None)
        return {"file": name, "bytes": path.stat().st_size, "manifest": manifest}

    def _to_partial(self, run: Run, key: str, plan: Plan, name: str) -> JsonObject:
        path = self.folder / "partials" / name
        with NewFile(path.parent) as file:
            manifest = self._execute(run, key, Sink(plan, StreamTarget("arrow")), file)
            file.commit(path)
        return {"file": name, "bytes": file.size, "manifest": manifest}

    def _execute(self, run: Run, key: str, plan: Plan, file: NewFile | None) -> dict[str, Any]:
        run.check()
        with self.pool.submit(
            PLAN_ENTRY,
            {"plan": plan_to_json(plan)},
            mem_cap_bytes=self.mem_cap_bytes,
            on_progress=lambda progress: self.on_progress(key, progress),
        ) as execution:
            run.attach(execution)
            try:
                for payload in execution.payloads():
                    if file is not None:
                        file.write(payload)
                return execution.result()
            finally:
                run.detach()

    def _empty_partial(self) -> str:
        """A dataset without shards still has an answer: that of no rows."""
        import pyarrow as pa

        path = self.folder / "partials" / "none.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = self.split.partial_schema.to_arrow()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema):
            pass
        return str(path)

    def _empty_rows(self) -> JsonObject:
        import pyarrow.parquet as pq

        path = self.folder / "result" / "none.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.split.schema.to_arrow().empty_table(), path)
        return {"file": path.name, "bytes": path.stat().st_size, "manifest": {"rowsOut": 0}}


@dataclass(frozen=True, slots=True)
class IngestWork:
    """An upload that becomes a dataset, in one task.

    Args:
        lake: Where to.
        upload_id: The sealed upload.
        size_bytes: Bytes of the upload.
        owner: Whose dataset it becomes.
        on_progress: Told what the ingest tells.
    """

    lake: Lake
    upload_id: str
    size_bytes: int
    owner: str
    on_progress: OnTaskProgress

    @property
    def objects(self) -> tuple[str, ...]:
        """None yet: the ingest keeps what it makes."""
        return ()

    @property
    def task_keys(self) -> tuple[str, ...]:
        """The one task."""
        return (task_key(0),)

    @property
    def inputs(self) -> dict[str, tuple[str | None, int | None]]:
        """Of the one task: no shard yet, and the bytes of the upload."""
        return {task_key(0): (None, self.size_bytes)}

    def run_task(self, run: Run, task: str, attempt: str) -> JsonObject:
        """Ingest the upload; ingesting again what a crash interrupted is safe."""
        dataset = self.lake.ingest(
            self.upload_id,
            owner=self.owner,
            on_progress=lambda progress: self.on_progress(task, progress),
            cancelled=lambda: run.stopped,
        )
        return ingest_result(dataset)

    def run_merge(self, run: Run, number: int, partials: tuple[JsonObject, ...]) -> JsonObject:
        """An ingest has no merge."""
        raise AssertionError("an ingest has no merge")


def ingest_result(dataset: DatasetInfo) -> JsonObject:
    """Say what an ingest made."""
    return {"dataset": dataset.id, "name": dataset.name, "rows": dataset.rows}


def drop_partial(folder: Path, partial: JsonObject) -> None:
    """Delete what a late or repeated attempt left in a job's folder."""
    if "file" in partial:
        for place in ("partials", "result"):
            (folder / place / str(partial["file"])).unlink(missing_ok=True)


def _result(
    parts: Sequence[JsonObject],
    readers: Sequence[JsonObject],
    executions: Sequence[JsonObject],
) -> JsonObject:
    """The answer's files and what it took; `readers` read the dataset, others only partials."""
    manifests = [execution["manifest"] for execution in executions]
    return {
        "files": [part["file"] for part in parts],
        "rows": sum(int(part["manifest"].get("rowsOut") or 0) for part in parts),
        "bytes": sum(int(part["bytes"]) for part in parts),
        "rowsRead": sum(int(part["manifest"].get("rowsIn") or 0) for part in readers),
        "peakBytes": max((int(m.get("peakBytes") or 0) for m in manifests), default=0),
        "capBytes": max((int(m.get("capBytes") or 0) for m in manifests), default=0),
        "executions": len(manifests),
    }
