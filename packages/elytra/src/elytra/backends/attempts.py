"""Threads for the attempts of a backend: each watches one, which `stop` cancels wherever it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from elytra.backends import Report, TaskSpec
from sennit_core.errors import Cancelled, InternalError, SennitError, TooLarge
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from elytra.backends.sql_task import SqlTask
    from elytra.service.messages import JsonObject

__all__ = ["Attempts", "Bounded", "Run", "WorkerGone", "check_size"]

# A node that stops waits at most this long for attempts that do not react to the cancellation.
_CLOSE_SECONDS = 3.0
_log = get_logger(__name__)
_Shown: TypeAlias = Callable[[SennitError], dict[str, Any]]  # an error, as its job may show it


class WorkerGone(Exception):
    """The attempt's worker is gone, which `Workers.left` has reported; so the attempt reports no end."""


class _Cancellable(Protocol):
    def cancel(self) -> object: ...


class Run:
    """A running task that can be stopped."""

    def __init__(self) -> None:
        # Guards both fields: a stop must see the execution, or the execution must see the stop.
        self._lock = threading.Lock()
        # The execution to cancel; None before it starts and after it ended.
        self._execution: _Cancellable | None = None
        # Never reset: an execution that is attached later is cancelled at once.
        self._stopped = False
        self.ended = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested."""
        return self._stopped

    def attach(self, execution: _Cancellable) -> None:
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


class Attempts:
    """Runs attempts on threads of its own.

    Args:
        threads: How many run at the same time; others wait.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="elytra-attempt")
        self._lock = threading.Lock()
        # The tasks that were started and have not ended, by id; those that wait for a thread too.
        self._runs: dict[str, Run] = {}

    def submit(
        self,
        task_id: str,
        report: Report,
        work: Callable[[Run], JsonObject],
        shown: _Shown = SennitError.to_json,
    ) -> None:
        """Start an attempt on a thread, or queue it for one.

        Args:
            task_id: Identifies it in `stop`.
            report: Receives its start and end.
            work: Runs it, and returns its result.
            shown: Returns an error as the report may show it.
        """
        run = Run()
        with self._lock:
            self._runs[task_id] = run
        self._threads.submit(self._attempt, task_id, run, report, shown, work)

    def stop(self, task_id: str) -> None:
        """Cancel an attempt; its end is still reported."""
        with self._lock:
            run = self._runs.get(task_id)
        if run is not None:
            run.stop()

    def close(self) -> None:
        """Stop all attempts and wait a few seconds for them to end."""
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
        run: Run,
        report: Report,
        shown: _Shown,
        work: Callable[[Run], JsonObject],
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
        elif outcome is not None:
            report.finished(outcome)


class Bounded:
    """Writes the rows of a task up to its limit."""

    def __init__(self, task: TaskSpec | SqlTask, write: Callable[[memoryview], object]) -> None:
        self._task = task
        self._write = write
        self._size = 0

    def write(self, data: memoryview) -> None:
        """Append bytes; raises TooLarge beyond the limit, and writes none of these."""
        self._size += data.nbytes
        check_size(self._task, self._size)
        self._write(data)


def check_size(task: TaskSpec | SqlTask, size_bytes: int) -> None:
    """Raise TooLarge if a result has more bytes than its task allows."""
    limit = task.limits.output_bytes_max
    if limit is not None and size_bytes > limit:
        raise TooLarge(f"the result of task {task.key}", limit, size_bytes)


def _outcome(
    run: Run, report: Report, work: Callable[[Run], JsonObject]
) -> JsonObject | SennitError | None:
    try:
        run.check()
        report.started()
        return work(run)
    except WorkerGone:
        return None
    except SennitError as error:
        return error
    except Exception as problem:  # noqa: BLE001 - it ends the attempt, never the thread
        _log.exception("an attempt failed unexpectedly")
        return InternalError(f"an attempt failed unexpectedly: {type(problem).__name__}: {problem}")
