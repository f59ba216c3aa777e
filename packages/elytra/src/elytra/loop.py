"""The scheduler's event loop: one thread that receives events and executes instructions.

All other threads only post events, so only this thread accesses the state machine.

    post -> queue -> Scheduler.handle -> job_store.record, backend.start … -> post
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import singledispatchmethod
from pathlib import Path
from typing import TypeAlias

from elytra.backends.local import LocalBackend
from elytra.job_store import JobStore
from elytra.messages import (
    AttemptChanged,
    AttemptFailed,
    AttemptFinished,
    AttemptStarted,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobPlanned,
    MergeFailed,
    MergeFinished,
    PlanJob,
    StartAttempt,
    StartMerge,
    StopAttempt,
    StopMerge,
    TaskChanged,
    Tick,
    WorkerJoined,
)
from elytra.scheduler import Scheduler
from elytra.work import IngestWork, PlanWork, drop_partial
from sennit_core.clock import Clock
from sennit_core.logs import get_logger
from sennit_core.records import is_terminal

JobWork: TypeAlias = PlanWork | IngestWork
_TICK_SECONDS = 0.1
_log = get_logger(__name__)


class SchedulerLoop:
    """Owns the scheduler, its thread and the backend.

    Args:
        job_store: Where state changes are recorded.
        folder: Parent of the jobs' folders.
        workers: Maximum concurrent attempts.
        clock: Source of time for leases and progress.
        on_end: Called with a job's id once it has ended.
    """

    def __init__(
        self,
        job_store: JobStore,
        folder: Path,
        *,
        workers: int,
        clock: Clock,
        on_end: Callable[[str], None],
    ) -> None:
        self._job_store = job_store
        self._folder = folder
        self._clock = clock
        self._on_end = on_end
        self._work: dict[str, JobWork] = {}
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._scheduler = Scheduler()
        self._backend = LocalBackend(
            self.post, workers + 1
        )  # one thread more: a merge never waits for an attempt
        for index in range(workers):
            self.post(WorkerJoined(f"executor-{index}"))
        self._thread = threading.Thread(target=self._run, name="elytra-jobs", daemon=True)
        self._thread.start()

    def begin(self, job_id: str, work: JobWork, event: Event) -> None:
        """Add a job: its work, and the event that starts it."""
        self._work[job_id] = work
        self.post(event)

    def post(self, event: Event) -> None:
        """Post an event; may be called from any thread."""
        self._events.put(event)

    def close(self) -> None:
        """Stop the thread, then all work; running jobs keep their last recorded state."""
        self._events.put(None)
        self._thread.join()
        self._backend.close()

    def _run(self) -> None:
        while True:
            try:
                timeout = _TICK_SECONDS if self._scheduler.live_jobs else None
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                event = Tick()
            if event is None:
                return
            try:
                self._carry_out(self._scheduler.handle(event, self._clock.monotonic()))
                self._job_store.show_progress()
            except Exception:  # noqa: BLE001 - one bad event must not end every job
                _log.exception("the job service failed to handle %r", event)

    def _carry_out(self, orders: Sequence[Instruction]) -> None:
        changes = [order for order in orders if isinstance(order, JobChanged | TaskChanged)]
        self._job_store.record(changes)
        for order in orders:
            self._do(order)

    @singledispatchmethod
    def _do(self, order: object) -> None:
        raise TypeError(f"not an instruction: {order!r}")

    @_do.register
    def _(self, order: TaskChanged | AttemptChanged) -> None:
        pass  # the store has recorded it

    @_do.register
    def _(self, order: JobChanged) -> None:
        if is_terminal("job", order.state):
            self._work.pop(order.job, None)
            self._on_end(order.job)
        if order.state in {"failed", "cancelled"}:
            for name in ("partials", "result"):
                shutil.rmtree(self._folder / order.job / name, ignore_errors=True)

    @_do.register
    def _(self, order: PlanJob) -> None:
        self.post(JobPlanned(order.job, self._work[order.job].task_keys))

    @_do.register
    def _(self, order: StartAttempt) -> None:
        work, attempt = self._work[order.job], order.attempt
        self._backend.start(
            attempt,
            lambda run: work.run_task(run, order.task, attempt),
            started=AttemptStarted(attempt),
            finished=lambda made: AttemptFinished(attempt, made),
            failed=lambda error, again: AttemptFailed(attempt, error, again),
        )

    @_do.register
    def _(self, order: StartMerge) -> None:
        work, job, number = self._work[order.job], order.job, order.number
        self._backend.start(
            f"{job}-merge-{number}",
            lambda run: work.run_merge(run, number, order.partials),
            started=None,
            finished=lambda result: MergeFinished(job, number, result),
            failed=lambda error, again: MergeFailed(job, number, error, again),
        )

    @_do.register
    def _(self, order: StopAttempt) -> None:
        self._backend.stop(order.attempt)

    @_do.register
    def _(self, order: StopMerge) -> None:
        self._backend.stop(f"{order.job}-merge-{order.number}")

    @_do.register
    def _(self, order: DropPartial) -> None:
        drop_partial(self._folder / order.attempt.split("-")[0], order.partial)
