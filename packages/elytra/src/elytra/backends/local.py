"""Run tasks on this node: one thread for each, which watches an executor process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elytra.backends import IngestTask, PlanTask, Report, TaskSpec
from elytra.sealed_results import sealed, without_values
from elytra.work import PLAN_ENTRY, SHARDS_ENTRY, ingest_result
from lake.durable import NewFile
from sennit_core.errors import Cancelled, Corrupt, InternalError, SennitError
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder
from sennit_core.records import Progress

if TYPE_CHECKING:
    from elytra.messages import JsonObject
    from emsqrt.executor import Execution, ExecutorPool
    from lake import Lake

# A node that stops waits at most this long for executors that do not react to the cancellation.
_CLOSE_SECONDS = 3.0
_log = get_logger(__name__)


class _Run:
    """A running task that can be stopped."""

    def __init__(self) -> None:
        # Guards both fields: a stop must see the execution, or the execution must see the stop.
        self._lock = threading.Lock()
        # The execution to cancel; None before it starts and after it ended.
        self._execution: Execution | None = None
        # Never reset: an execution that is attached later is cancelled at once.
        self._stopped = False
        self.ended = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested."""
        return self._stopped

    def attach(self, execution: Execution) -> None:
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


class LocalBackend:
    """Runs tasks in the executors of this node.

    Args:
        lake: Runs ingests, and is notified of damaged shards.
        pool: The executors.
        threads: Maximum concurrent tasks and merges.
        on_progress: Called with (job id, task key, progress).
    """

    name: ClassVar[str] = "local"

    def __init__(
        self,
        lake: Lake,
        pool: ExecutorPool,
        *,
        threads: int,
        on_progress: Callable[[str, str, Progress], None],
    ) -> None:
        self._lake = lake
        self._pool = pool
        self._on_progress = on_progress
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="elytra-attempt")
        self._lock = threading.Lock()
        # The tasks that were started and have not ended, by id; those that wait for a thread too.
        self._runs: dict[str, _Run] = {}

    def start(self, task: TaskSpec, report: Report) -> None:
        """Start a task on a thread, or queue it for one; see `Backend.start`."""
        run = _Run()
        with self._lock:
            self._runs[task.id] = run
        self._threads.submit(self._attempt, task, run, report)

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

    def _attempt(self, task: TaskSpec, run: _Run, report: Report) -> None:
        try:
            outcome = self._outcome(task, run, report)
        finally:
            with self._lock:
                del self._runs[task.id]
            run.ended.set()
        # Reported last: the receiver may rely on the task having ended here.
        if isinstance(outcome, SennitError):
            is_sealed = isinstance(task, PlanTask) and task.secret is not None
            error = without_values(outcome) if is_sealed else outcome.to_json()
            report.failed(error, retryable=outcome.retryable)
        else:
            report.finished(outcome)

    def _outcome(self, task: TaskSpec, run: _Run, report: Report) -> JsonObject | SennitError:
        try:
            run.check()
            report.started()
            if isinstance(task, PlanTask):
                return self._run_plan(task, run)
            return self._run_ingest(task, run)
        except SennitError as error:
            return error
        except Exception as problem:  # noqa: BLE001 - it ends the attempt, never the thread
            _log.exception("an attempt failed unexpectedly")
            return InternalError(
                f"an attempt failed unexpectedly: {type(problem).__name__}: {problem}"
            )

    def _run_plan(self, task: PlanTask, run: _Run) -> JsonObject:
        """Run a plan; the result names the output file, and has its rows if they are few."""
        path = Path(task.output)
        if not task.streamed:
            make_private_folder(path.parent)
            rows: list[bytes] = []
            manifest = self._execute(task, run, lambda piece: rows.append(bytes(piece)))
            result = {"file": path.name, "bytes": path.stat().st_size, "manifest": manifest}
            return {**result, "rows": b"".join(rows)} if rows else result
        # Of any size, so never held in this process.
        with NewFile(path.parent) as file:
            with sealed(file, path, task.secret) as sink:
                manifest = self._execute(task, run, sink.write)
            file.commit(path)
        return {"file": path.name, "bytes": file.size, "manifest": manifest}

    def _execute(
        self, task: PlanTask, run: _Run, write: Callable[[memoryview], object]
    ) -> dict[str, Any]:
        request: dict[str, Any] = {"plan": dict(task.plan)}
        if task.copy_bytes_max:
            request["copyBytesMax"] = task.copy_bytes_max
        reads_lake = bool(task.shards or task.sources or task.memory)
        if reads_lake:
            request["shards"] = [shard.to_json() for shard in task.shards]
            request |= {"sources": list(task.sources), **task.memory}
        with self._pool.submit(
            SHARDS_ENTRY if reads_lake else PLAN_ENTRY,
            request,
            mem_cap_bytes=task.mem_cap_bytes,
            on_progress=lambda progress: self._on_progress(task.job, task.key, progress),
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
                self._lake.catalog.note_damage(task.datasets, damage)
                raise
            finally:
                run.detach()

    def _run_ingest(self, task: IngestTask, run: _Run) -> JsonObject:
        """Ingest an upload; safe to repeat after a crash."""
        dataset = self._lake.ingest(
            task.upload_id,
            owner=task.owner,
            on_progress=lambda progress: self._on_progress(task.job, task.key, progress),
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
