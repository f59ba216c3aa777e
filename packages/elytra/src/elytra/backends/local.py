"""Run tasks on this node: one thread for each, which watches an executor process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from elytra.backends import (
    NODE_ENGINE,
    IngestTask,
    NodeFiles,
    NodeParts,
    Report,
    TaskSpec,
    Workers,
)
from elytra.backends.attempts import Attempts, Bounded, Run, check_size
from elytra.backends.foreign_shards import foreign_shards
from elytra.backends.task_spec import bound_plan
from elytra.functions.operator import granted
from elytra.functions.step import OPERATOR
from elytra.service.sealed_results import sealed, without_values
from elytra.service.work import PLAN_ENTRY, SHARDS_ENTRY, ingest_result
from emsqrt.plan import plan_to_json
from lake.objects.durable import NewFile
from lake.peers.transport.stop import Stop
from sennit_core.errors import Corrupt, Denied, SennitError, TooLarge
from sennit_core.private_files import make_private_folder

if TYPE_CHECKING:
    from elytra.service.messages import JsonObject


class _Fetching:
    """What fetches shards, to be cancelled as an execution is."""

    def __init__(self) -> None:
        self.stop = Stop()

    def cancel(self) -> None:
        """Stop it."""
        self.stop.stop()


class LocalBackend:
    """Runs tasks in the executors of this node.

    Args:
        node: The node's lake and executors.
    """

    name: ClassVar[str] = NODE_ENGINE

    def __init__(self, node: NodeParts) -> None:
        self._lake = node.lake
        self._pool = node.pool
        self._workers = node.workers
        self._functions = node.functions
        # One thread more than workers, so that a merge need not wait for an attempt.
        self._attempts = Attempts(node.workers + 1)

    def open(self, workers: Workers) -> None:
        """Report a worker for each executor; see `Backend.open`."""
        # Slots, not processes: the pool replaces a process that dies, and its task fails.
        for index in range(self._workers):
            workers.joined(f"executor-{index}")

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """Start a task on a thread, or queue it for one; see `Backend.start`."""
        del worker  # the pool assigns the process
        self.start_merge(task, files, report)

    def start_merge(self, task: TaskSpec, files: NodeFiles, report: Report) -> None:
        """Start a merge; see `NodeBackend.start_merge`."""
        shown = SennitError.to_json if files.secret is None else without_values
        self._attempts.submit(
            task.id, report, lambda run: self._run_plan(task, files, run, report), shown
        )

    def start_ingest(self, task: IngestTask, report: Report) -> None:
        """Start an ingest; see `NodeBackend.start_ingest`."""
        self._attempts.submit(task.id, report, lambda run: self._run_ingest(task, run, report))

    def stop(self, task_id: str) -> None:
        """Cancel a task; its end is still reported."""
        self._attempts.stop(task_id)

    def close(self) -> None:
        """Stop all tasks and wait a few seconds for them to end."""
        self._attempts.close()

    def _run_plan(self, task: TaskSpec, files: NodeFiles, run: Run, report: Report) -> JsonObject:
        """Run a plan; the result names the output file, and has its rows if they are few."""
        path = files.output
        limit = task.limits.output_bytes_max
        if task.output != "arrow":
            make_private_folder(path.parent)
            rows: list[bytes] = []
            manifest = self._execute(task, files, run, report, lambda x: rows.append(bytes(x)))
            size = path.stat().st_size
            try:
                check_size(task, size)
            except TooLarge:
                path.unlink()
                raise
            result = {"file": path.name, "bytes": size, "manifest": manifest}
            return {**result, "rows": b"".join(rows)} if rows else result
        # Of any size, so never held in this process.
        with NewFile(path.parent) as file:
            with sealed(file, path, files.secret) as sink:
                write: Callable[[memoryview], object] = sink.write
                if limit is not None:
                    write = Bounded(task, sink.write).write
                manifest = self._execute(task, files, run, report, write)
            file.commit(path)
        return {"file": path.name, "bytes": file.size, "manifest": manifest}

    def _execute(
        self,
        task: TaskSpec,
        files: NodeFiles,
        run: Run,
        report: Report,
        write: Callable[[memoryview], object],
    ) -> dict[str, Any]:
        self._fetch_shards(files, run)
        plan = bound_plan(task, files.paths.__getitem__, files.output)
        request: dict[str, Any] = {"plan": plan_to_json(plan)}
        if task.copy_bytes_max:
            request["copyBytesMax"] = task.copy_bytes_max
        if task.has_functions:
            if self._functions is None:  # a plan is refused long before its tasks are made
                raise Denied("Python functions of pipelines on this node")
            request["operators"] = {OPERATOR: granted(self._functions.to_json())}
        reads_lake = bool(files.shards or files.sources or files.memory)
        if reads_lake:
            request["shards"] = [shard.to_json() for shard in files.shards]
            request |= {"sources": list(files.sources), **files.memory}
        with self._pool.submit(
            SHARDS_ENTRY if reads_lake else PLAN_ENTRY,
            request,
            mem_cap_bytes=task.limits.mem_cap_bytes,
            deadline_seconds=task.limits.seconds,
            on_progress=report.progressed,
            user=task.user,
            restartable=True,  # its files are temporary and rewritten from the start
            bounded=False,  # jobs have their own queue
        ) as execution:
            run.attach(execution)
            try:
                for payload in execution.payloads():
                    write(payload)
                return execution.result()
            except Corrupt as damage:
                self._lake.catalog.note_damage(files.datasets, damage)
                raise
            finally:
                run.detach()

    def _fetch_shards(self, files: NodeFiles, run: Run) -> None:
        """Fetch the shards of other nodes' datasets that are not here."""
        names = foreign_shards(self._lake, files)
        if not names:
            return
        fetching = _Fetching()
        run.attach(fetching)
        try:
            self._lake.remote.ensure(names, stop=fetching.stop)
        finally:
            run.detach()

    def _run_ingest(self, task: IngestTask, run: Run, report: Report) -> JsonObject:
        """Ingest an upload; safe to repeat after a crash."""
        dataset = self._lake.ingest(
            task.upload_id,
            owner=task.owner,
            on_progress=report.progressed,
            cancelled=lambda: run.stopped,
        )
        # A queued append has the id of its upload.
        queued = self._lake.queued.find(task.upload_id)
        if queued is not None:
            return {
                "dataset": dataset.id,
                "name": dataset.name,
                "rows": dataset.rows,
                "queued": queued.id,
            }
        return ingest_result(self._lake, dataset)
