"""Run tasks on this node: one thread for each, which watches an executor process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from elytra.backends import (
    NODE_ENGINE,
    IngestTask,
    NodeFiles,
    NodeParts,
    Report,
    TaskSpec,
    Workers,
)
from elytra.backends.task_spec import bound_plan
from elytra.service.sealed_results import sealed, without_values
from elytra.service.work import PLAN_ENTRY, SHARDS_ENTRY, ingest_result
from emsqrt.plan import plan_to_json
from lake.durable import NewFile
from lake.peers.stop import Stop
from sennit_core.errors import Cancelled, Corrupt, InternalError, SennitError, TooLarge
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder

if TYPE_CHECKING:
    from elytra.service.messages import JsonObject
    from emsqrt.executor import Execution

# A node that stops waits at most this long for executors that do not react to the cancellation.
_CLOSE_SECONDS = 3.0
_log = get_logger(__name__)
_Shown: TypeAlias = Callable[[SennitError], dict[str, Any]]  # an error, as its job may show it


class _Run:
    """A running task that can be stopped."""

    def __init__(self) -> None:
        # Guards both fields: a stop must see the execution, or the execution must see the stop.
        self._lock = threading.Lock()
        # The execution to cancel; None before it starts and after it ended.
        self._execution: Execution | _Fetching | None = None
        # Never reset: an execution that is attached later is cancelled at once.
        self._stopped = False
        self.ended = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested."""
        return self._stopped

    def attach(self, execution: Execution | _Fetching) -> None:
        """Set the execution that `stop` cancels; cancel it now if a stop was already requested."""
        with self._lock:
            self._execution = execution
            stopped = self._stopped
        if stopped:
            execution.cancel()

    def detach(self) -> None:
        """Clear the execution after it has ended."""
        with self._lock:
            self._execution = None

    def stop(self) -> None:
        """Cancel the current execution and any that is attached later."""
        with self._lock:
            self._stopped = True
            execution = self._execution
        if execution is not None:
            execution.cancel()

    def check(self) -> None:
        """Raise Cancelled when a stop was requested."""
        if self._stopped:
            raise Cancelled("the attempt")


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
        # One thread more than workers, so that a merge need not wait for an attempt.
        self._threads = ThreadPoolExecutor(node.workers + 1, thread_name_prefix="elytra-attempt")
        self._lock = threading.Lock()
        # The tasks that were started and have not ended, by id; those that wait for a thread too.
        self._runs: dict[str, _Run] = {}

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
        self._submit(task.id, report, shown, lambda run: self._run_plan(task, files, run, report))

    def start_ingest(self, task: IngestTask, report: Report) -> None:
        """Start an ingest; see `NodeBackend.start_ingest`."""
        self._submit(
            task.id, report, SennitError.to_json, lambda run: self._run_ingest(task, run, report)
        )

    def _submit(
        self, task_id: str, report: Report, shown: _Shown, work: Callable[[_Run], JsonObject]
    ) -> None:
        run = _Run()
        with self._lock:
            self._runs[task_id] = run
        self._threads.submit(self._attempt, task_id, run, report, shown, work)

    def stop(self, task_id: str) -> None:
        """Cancel a task; its end is still reported."""
        with self._lock:
            run = self._runs.get(task_id)
        if run is not None:
            run.stop()

    def close(self) -> None:
        """Stop all tasks and wait a few seconds for them to end."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stop()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for run in runs:
            run.ended.wait(max(0.0, deadline - time.monotonic()))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _attempt(
        self,
        task_id: str,
        run: _Run,
        report: Report,
        shown: _Shown,
        work: Callable[[_Run], JsonObject],
    ) -> None:
        try:
            outcome = _outcome(run, report, work)
        finally:
            with self._lock:
                del self._runs[task_id]
            run.ended.set()
        # Reported last: the receiver may rely on the task having ended here.
        if isinstance(outcome, SennitError):
            report.failed(shown(outcome), retryable=outcome.retryable)
        else:
            report.finished(outcome)

    def _run_plan(self, task: TaskSpec, files: NodeFiles, run: _Run, report: Report) -> JsonObject:
        """Run a plan; the result names the output file, and has its rows if they are few."""
        path = files.output
        limit = task.limits.output_bytes_max
        if task.output != "arrow":
            make_private_folder(path.parent)
            rows: list[bytes] = []
            manifest = self._execute(task, files, run, report, lambda x: rows.append(bytes(x)))
            size = path.stat().st_size
            try:
                _check_size(task, size)
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
                    write = _Bounded(task, sink.write).write
                manifest = self._execute(task, files, run, report, write)
            file.commit(path)
        return {"file": path.name, "bytes": file.size, "manifest": manifest}

    def _execute(
        self,
        task: TaskSpec,
        files: NodeFiles,
        run: _Run,
        report: Report,
        write: Callable[[memoryview], object],
    ) -> dict[str, Any]:
        self._fetch_shards(files, run)
        plan = bound_plan(task, files.paths.__getitem__, files.output)
        request: dict[str, Any] = {"plan": plan_to_json(plan)}
        if task.copy_bytes_max:
            request["copyBytesMax"] = task.copy_bytes_max
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

    def _fetch_shards(self, files: NodeFiles, run: _Run) -> None:
        """Fetch the shards of other nodes' datasets that are not here; the job leases them."""
        found = {name: self._lake.catalog.find_known(id_) for name, id_ in files.datasets.items()}
        foreign = {name for name, info in found.items() if info is not None and info.node}
        names = [Path(each.path).name for each in files.shards if each.dataset in foreign]
        if not self._lake.remote.lacks_any(names):
            return
        fetching = _Fetching()
        run.attach(fetching)
        try:
            self._lake.remote.ensure(names, stop=fetching.stop)
        finally:
            run.detach()

    def _run_ingest(self, task: IngestTask, run: _Run, report: Report) -> JsonObject:
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


class _Bounded:
    """Writes the rows of a task up to its limit."""

    def __init__(self, task: TaskSpec, write: Callable[[memoryview], object]) -> None:
        self._task = task
        self._write = write
        self._size = 0

    def write(self, data: memoryview) -> None:
        """Append bytes; raises TooLarge beyond the limit, and writes none of these."""
        self._size += data.nbytes
        _check_size(self._task, self._size)
        self._write(data)


def _check_size(task: TaskSpec, size_bytes: int) -> None:
    limit = task.limits.output_bytes_max
    if limit is not None and size_bytes > limit:
        raise TooLarge(f"the result of task {task.key}", limit, size_bytes)


def _outcome(
    run: _Run, report: Report, work: Callable[[_Run], JsonObject]
) -> JsonObject | SennitError:
    try:
        run.check()
        report.started()
        return work(run)
    except SennitError as error:
        return error
    except Exception as problem:  # noqa: BLE001 - it ends the attempt, never the thread
        _log.exception("an attempt failed unexpectedly")
        return InternalError(f"an attempt failed unexpectedly: {type(problem).__name__}: {problem}")
