"""The scheduler's event loop: one thread that receives events and executes instructions.

All other threads only post events, so only this thread accesses the state machine.

    post -> queue -> Scheduler.handle -> job_store.record, backend.start … -> post
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from elytra.backends import CACHED_MAX, Backend, NodeBackend
from elytra.service.job_store import PROGRESS_SECONDS_MIN, JobStore
from elytra.service.messages import (
    AttemptFailed,
    AttemptFinished,
    AttemptStarted,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobSubmitted,
    JsonObject,
    MergeFailed,
    MergeFinished,
    StartAttempt,
    StartMerge,
    StopAttempt,
    StopMerge,
    TaskChanged,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.scheduler import Scheduler
from elytra.service.work import MERGE, IngestWork, PlanWork, drop_partial, merge_id, remove_outputs
from sennit_core.errors import InternalError, SennitError, WorkerLost
from sennit_core.logs import get_logger
from sennit_core.records import Progress, is_terminal

JobWork: TypeAlias = PlanWork | IngestWork
_log = get_logger(__name__)


class SchedulerLoop:
    """Owns the scheduler, its thread and the backends.

    Args:
        job_store: Where state changes are recorded.
        folder: Parent of the jobs' folders.
        backends: Run tasks, by engine; opened and closed with the loop.
        node_backend: The one among them that runs merges and ingests too.
        on_end: Called with a job's id once it has ended.
    """

    def __init__(
        self,
        job_store: JobStore,
        folder: Path,
        *,
        backends: Mapping[str, Backend],
        node_backend: NodeBackend,
        on_end: Callable[[str], None],
    ) -> None:
        self._job_store = job_store
        self._folder = folder
        self._backends = backends
        self._node_backend = node_backend
        self._small_results = job_store.small_results
        self._on_end = on_end
        # Of the jobs that have not ended. Only `begin` writes to it from another thread, before it
        # posts the job's first event.
        self._work: dict[str, JobWork] = {}
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._scheduler = Scheduler()
        for engine, backend in backends.items():
            backend.open(_Workers(self.post, engine))
        self._thread = threading.Thread(target=self._run, name="elytra-jobs", daemon=True)
        self._thread.start()

    def begin(self, job_id: str, work: JobWork) -> None:
        """Add a job, and queue it."""
        self._work[job_id] = work
        self.post(JobSubmitted(job_id, work.task_keys, work.has_merge, work.engine))

    def post(self, event: Event) -> None:
        """Post an event; may be called from any thread."""
        self._events.put(event)

    def close(self) -> None:
        """Stop the thread, then all work; running jobs keep their last recorded state."""
        # The thread first: it would record the attempts that the backend stops as failed jobs,
        # and a restarted node could not resume them.
        self._events.put(None)
        self._thread.join()
        for backend in self._backends.values():
            backend.close()

    def _run(self) -> None:
        while True:
            instructions: Sequence[Instruction] = ()
            event: Event | None = None
            try:
                with contextlib.suppress(queue.Empty):
                    # Progress is published between events too, while there are jobs.
                    timeout = PROGRESS_SECONDS_MIN if self._scheduler.live_jobs else None
                    event = self._events.get(timeout=timeout)
                    if event is None:
                        return
                    instructions = self._handle(event)
                self._execute(instructions)
                self._job_store.show_progress()
            except Exception:  # noqa: BLE001 - one bad event must not end every job
                _log.exception("the job service failed to handle %r", event)

    def _handle(self, event: Event) -> list[Instruction]:
        """Return the scheduler's instructions, with those that follow from empty merges.

        One write then records the end of the last task and of the job: a small job waits for each
        write. The end of a job may start the next one, whose merge may be empty too.
        """
        left = deque(self._scheduler.handle(event))
        done: list[Instruction] = []
        while left:
            instruction = left.popleft()
            ended = None
            if isinstance(instruction, StartMerge):
                ended = self._end_of_empty_merge(instruction)
            if ended is None:
                done.append(instruction)
            else:
                left.extend(self._scheduler.handle(ended))
        return done

    def _end_of_empty_merge(self, instruction: StartMerge) -> Event | None:
        """Return the end of a merge that has nothing to execute; None if there is something."""
        work, partials = self._work[instruction.job], instruction.partials
        assert isinstance(work, PlanWork), "an ingest has no merge"
        if work.merges:
            return None
        try:
            total = work.result(partials, None)
        except Exception as problem:  # noqa: BLE001 - else the job would never end
            error = _unexpected(problem).to_json()
            return MergeFailed(instruction.job, instruction.number, error, retryable=False)
        self._small_results.put(instruction.job, work.rows(partials, None))
        return MergeFinished(instruction.job, instruction.number, total)

    def _execute(self, instructions: Sequence[Instruction]) -> None:
        # Recorded before anything starts: after a crash there is no work without a record.
        changes = [each for each in instructions if isinstance(each, JobChanged | TaskChanged)]
        self._job_store.record(changes)
        for instruction in instructions:
            try:
                self._do(instruction)
            except Exception as problem:  # noqa: BLE001 - the others may be of other jobs
                self._fail(instruction, problem)

    def _fail(self, instruction: Instruction, problem: Exception) -> None:
        """Report what could not be started as failed, or its job would never end."""
        error = _unexpected(problem).to_json()
        if isinstance(instruction, StartAttempt):
            self.post(AttemptFailed(instruction.attempt, error, retryable=False))
        elif isinstance(instruction, StartMerge):
            self.post(MergeFailed(instruction.job, instruction.number, error, retryable=False))

    @singledispatchmethod
    def _do(self, instruction: object) -> None:
        raise TypeError(f"not an instruction: {instruction!r}")

    @_do.register
    def _(self, instruction: TaskChanged) -> None:
        pass  # the store has recorded it

    @_do.register
    def _(self, instruction: JobChanged) -> None:
        # Its end was recorded above, so no result of it counts any more and its objects may go; an
        # attempt that was stopped may fail because of that.
        if is_terminal("job", instruction.state):
            self._work.pop(instruction.job, None)
            self._on_end(instruction.job)
        if instruction.state in {"failed", "cancelled"}:
            self._small_results.drop(instruction.job)
            remove_outputs(self._folder / instruction.job)

    @_do.register
    def _(self, instruction: StartAttempt) -> None:
        work = self._work[instruction.job]
        key, attempt = instruction.task, instruction.attempt
        report = _AttemptReport(self._job_store, self.post, instruction)
        if isinstance(work, IngestWork):
            self._node_backend.start_ingest(work.task(attempt), report)
            return
        backend, worker = self._worker(instruction.worker)
        task, files = work.task(key, attempt)
        backend.start(task, files, report, worker)

    @_do.register
    def _(self, instruction: StartMerge) -> None:
        work = self._work[instruction.job]
        assert isinstance(work, PlanWork), "an ingest has no merge"
        task, files = work.merge(instruction.number, instruction.partials)
        report = _MergeReport(self._job_store, self.post, work, instruction)
        self._node_backend.start_merge(task, files, report)

    @_do.register
    def _(self, instruction: StopAttempt) -> None:
        backend, _ = self._worker(instruction.worker)
        backend.stop(instruction.attempt)

    @_do.register
    def _(self, instruction: StopMerge) -> None:
        self._node_backend.stop(merge_id(instruction.job, instruction.number))

    def _worker(self, worker: str) -> tuple[Backend, str]:
        """Return the backend of a worker of the scheduler, and the worker's id there."""
        engine, _, name = worker.partition("/")
        return self._backends[engine], name

    @_do.register
    def _(self, instruction: DropPartial) -> None:
        drop_partial(self._folder / instruction.attempt.split("-")[0], instruction.partial)


@dataclass(frozen=True, slots=True)
class _Workers:
    """Posts which workers a backend has."""

    post: Callable[[Event], None]
    engine: str

    def joined(
        self,
        worker: str,
        slots: int = 1,
        cached: Sequence[str] = (),
        lease_seconds: float | None = None,
    ) -> None:
        inputs = frozenset(islice(cached, CACHED_MAX))
        self.post(
            WorkerJoined(f"{self.engine}/{worker}", slots, self.engine, inputs, lease_seconds)
        )

    def left(self, worker: str) -> None:
        error = WorkerLost(worker).to_json()
        self.post(WorkerLeft(f"{self.engine}/{worker}", error))


@dataclass(frozen=True, slots=True)
class _AttemptReport:
    """Posts the events of an attempt; of several ends only the first."""

    store: JobStore
    post: Callable[[Event], None]
    instruction: StartAttempt
    # Taken by the first end and never released. The scheduler drops the files of a second result,
    # which are those of the first.
    ended: threading.Lock = field(default_factory=threading.Lock)

    def started(self) -> None:
        self.post(AttemptStarted(self.instruction.attempt))

    def progressed(self, progress: Progress) -> None:
        self.store.progress(self.instruction.job, self.instruction.task, progress)

    def finished(self, result: JsonObject) -> None:
        if self.ended.acquire(blocking=False):
            self.post(AttemptFinished(self.instruction.attempt, result))

    def failed(self, error: JsonObject, *, retryable: bool) -> None:
        if self.ended.acquire(blocking=False):
            self.post(AttemptFailed(self.instruction.attempt, error, retryable))


@dataclass(frozen=True, slots=True)
class _MergeReport:
    """Posts the events of a merge, and removes the partials after it."""

    store: JobStore
    post: Callable[[Event], None]
    work: PlanWork
    instruction: StartMerge

    def started(self) -> None:
        """No event: the job is merging as soon as its last task is done."""

    def progressed(self, progress: Progress) -> None:
        self.store.progress(self.instruction.job, MERGE, progress)

    def finished(self, result: JsonObject) -> None:
        shutil.rmtree(self.work.folder / "partials", ignore_errors=True)
        try:
            total = self.work.result(self.instruction.partials, result)
            rows = self.work.rows(self.instruction.partials, result)
            self.store.small_results.put(self.instruction.job, rows)
        except Exception as problem:  # noqa: BLE001 - the backend does not expect a report to fail
            self.failed(_unexpected(problem).to_json(), retryable=False)
        else:
            self.post(MergeFinished(self.instruction.job, self.instruction.number, total))

    def failed(self, error: JsonObject, *, retryable: bool) -> None:
        self.post(MergeFailed(self.instruction.job, self.instruction.number, error, retryable))


def _unexpected(problem: Exception) -> SennitError:
    if isinstance(problem, SennitError):
        return problem
    _log.error("a job failed unexpectedly", exc_info=problem)
    return InternalError(f"a job failed unexpectedly: {type(problem).__name__}: {problem}")
