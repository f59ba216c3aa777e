"""The scheduler's event loop: one thread that receives events and executes instructions.

All other threads only post events, so only this thread accesses the state machine.

    post -> queue -> Scheduler.handle -> job_store.record, backend.start … -> post

Events that wait are handled together, so that their changes are one write for each job.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from elytra.backends import CACHED_MAX, Backend, NodeBackend
from elytra.service.job_store import PROGRESS_SECONDS_MIN, JobStore
from elytra.service.messages import (
    AttemptChanged,
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
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
    Tick,
    WorkerDiscredited,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.scheduler import Scheduler
from elytra.service.work import MERGE, IngestWork, PlanWork, drop_partial, merge_id, remove_outputs
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import InternalError, SennitError, WorkerLost
from sennit_core.logs import get_logger
from sennit_core.records import Progress, is_terminal

JobWork: TypeAlias = PlanWork | IngestWork
_BATCH_MAX = 256
"""Events that are handled before their instructions are carried out."""
_TICK_SECONDS = 0.05
"""The precision of the scheduler's time; less than that of leases and deadlines needs no event."""
_RENEW_SECONDS_MIN = 0.5
"""A report renews a lease at most so often, so that a worker that reports each row costs no more."""
_log = get_logger(__name__)


class SchedulerLoop:
    """Owns the scheduler, its thread and the backends.

    Args:
        job_store: Where state changes are recorded.
        folder: Parent of the jobs' folders.
        backends: Run tasks, by engine; opened and closed with the loop.
        node_backend: The one among them that runs merges and ingests too.
        on_end: Called with a job's id once it has ended.
        on_discredited: Called with a token whose workers have returned wrong rows, once no job that
            has not ended uses them; must not block.
        clock: Source of the scheduler's time.
    """

    def __init__(  # noqa: PLR0913 - made in one place, all by keyword
        self,
        job_store: JobStore,
        folder: Path,
        *,
        backends: Mapping[str, Backend],
        node_backend: NodeBackend,
        on_end: Callable[[str], None],
        on_discredited: Callable[[str], None] = lambda _token: None,
        weight_of: Callable[[str], float] = lambda _user: 1.0,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._job_store = job_store
        self._folder = folder
        self._backends = backends
        self._node_backend = node_backend
        self._small_results = job_store.small_results
        self._on_end = on_end
        self._on_discredited = on_discredited
        self._weight_of = weight_of
        # Of the jobs that have not ended. Only `begin` writes to it from another thread, before it
        # posts the job's first event.
        self._work: dict[str, JobWork] = {}
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._scheduler = Scheduler()
        self._ticked_at = float("-inf")
        # Set by the thread when it comes to the end of its events.
        self._is_closing = False
        # The workers whose attempts have leases.
        self._leased: set[str] = set()
        for engine, backend in backends.items():
            backend.open(_Workers(self.post, engine))
        self._thread = threading.Thread(target=self._run, name="elytra-jobs", daemon=True)
        self._thread.start()

    def begin(self, job_id: str, work: JobWork, submission: JobSubmitted | None = None) -> None:
        """Add a job, and queue it.

        Args:
            job_id: Its id.
            work: Its tasks.
            submission: Of a job that a previous run of the node began; None for a new one.
        """
        self._work[job_id] = work
        found = submission or work.submission()
        self.post(replace(found, user_weight=self._weight_of(found.user)))

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
        while not self._is_closing:
            events = self._next_events()
            instructions: list[Instruction] = []
            for event in events:
                try:
                    instructions += self._handle(event)
                except Exception:  # noqa: BLE001 - one bad event must not end every job
                    _log.exception("the job service failed to handle %r", event)
            try:
                self._execute(instructions)
                self._job_store.show_progress()
            except Exception:  # noqa: BLE001 - as above
                _log.exception("the job service failed to execute %r", instructions)
            # After the changes are recorded: each job is either on record as done, or does not use
            # the wrong rows.
            for event in events:
                if isinstance(event, WorkerDiscredited):
                    self._on_discredited(event.token)

    def _next_events(self) -> list[Event]:
        """Wait for events; return those that wait, at most a batch."""
        # Progress is published and time passes between events too, while there are jobs.
        timeout = PROGRESS_SECONDS_MIN if self._scheduler.has_live_jobs else None
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=timeout)
            while event is not None:
                events.append(event)
                if len(events) == _BATCH_MAX:
                    break
                event = self._events.get_nowait()
            else:  # the events before it are handled: the response to a cancellation was sent
                self._is_closing = True
        now = self._clock.monotonic()
        if now - self._ticked_at >= _TICK_SECONDS:
            self._ticked_at = now
            events.insert(0, Tick(now))
        return events

    def _handle(self, event: Event) -> list[Instruction]:
        """Return the scheduler's instructions, with those that follow from empty merges.

        One write then records the end of the last task and of the job: a small job waits for each
        write. The end of a job may start the next one, whose merge may be empty too.
        """
        if isinstance(event, WorkerJoined):
            change = self._leased.discard if event.lease_seconds is None else self._leased.add
            change(event.worker)
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
        changes = [
            self._described(each) if isinstance(each, JobChanged) else each
            for each in instructions
            if isinstance(each, JobChanged | TaskChanged | AttemptChanged)
        ]
        self._job_store.record(changes)
        for instruction in instructions:
            try:
                self._do(instruction)
            except Exception as problem:  # noqa: BLE001 - the others may be of other jobs
                self._fail(instruction, problem)

    def _described(self, change: JobChanged) -> JobChanged:
        """Add to the change of a job what its failed and skipped tasks read."""
        work = self._work.get(change.job)
        if work is None or (change.task is None and not change.skipped):
            return change
        error, result = change.error, change.result
        if change.task is not None and error is not None:
            # In a member of its own: the others are the fields of the error's class.
            details = {**(error.get("details") or {}), "taskInput": work.place(change.task)}
            error = {**error, "details": details}
        if change.skipped:
            skipped = [
                {**work.place(each.task), "attempts": each.attempts, "error": each.error}
                for each in change.skipped
            ]
            result = {**(result or {}), "skipped": skipped}
        return replace(change, error=error, result=result)

    def _fail(self, instruction: Instruction, problem: Exception) -> None:
        """Report what could not be started as failed, or its job would never end.

        So too what could not be stopped, or it would use a slot for ever.
        """
        error = _unexpected(problem).to_json()
        if isinstance(instruction, StartAttempt | StopAttempt):
            self.post(AttemptFailed(instruction.attempt, error, retryable=False))
        elif isinstance(instruction, StartMerge):
            self.post(MergeFailed(instruction.job, instruction.number, error, retryable=False))

    @singledispatchmethod
    def _do(self, instruction: object) -> None:
        raise TypeError(f"not an instruction: {instruction!r}")

    @_do.register
    def _(self, instruction: TaskChanged) -> None:
        work = self._work.get(instruction.job)
        if work is not None and work.journal is not None and instruction.partial is not None:
            work.journal.append(instruction.task, instruction.partial)

    @_do.register
    def _(self, instruction: AttemptChanged) -> None:
        pass  # the store has recorded it

    @_do.register
    def _(self, instruction: JobChanged) -> None:
        # Its end was recorded above, so no result of it counts any more and its objects may go; an
        # attempt that was stopped may fail because of that.
        if is_terminal("job", instruction.state):
            work = self._work.pop(instruction.job, None)
            if work is not None and work.journal is not None:
                work.journal.remove()
            self._on_end(instruction.job)
        if instruction.state in {"failed", "cancelled"}:
            self._small_results.drop(instruction.job)
            remove_outputs(self._folder / instruction.job)

    @_do.register
    def _(self, instruction: StartAttempt) -> None:
        work = self._work[instruction.job]
        key, attempt = instruction.task, instruction.attempt
        has_lease = instruction.worker in self._leased
        report = _AttemptReport(self._job_store, self.post, instruction, has_lease)
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

    def discredited(self, token: str) -> None:
        self.post(WorkerDiscredited(token))

    def left(self, worker: str) -> None:
        error = WorkerLost(worker).to_json()
        self.post(WorkerLeft(f"{self.engine}/{worker}", error))


@dataclass(slots=True)
class _AttemptReport:
    """Posts the events of an attempt; of several ends only the first."""

    store: JobStore
    post: Callable[[Event], None]
    instruction: StartAttempt
    has_lease: bool
    # Taken by the first end and never released. The scheduler drops the files of a second result,
    # which are those of the first.
    ended: threading.Lock = field(default_factory=threading.Lock)
    # What was done when the lease was last renewed, and when that was.
    done: int = -1
    renewed_at: float = float("-inf")

    def started(self) -> None:
        self.post(AttemptStarted(self.instruction.attempt))

    def progressed(self, progress: Progress) -> None:
        self.store.progress(self.instruction.job, self.instruction.task, progress)
        if self.has_lease:
            self._renew(progress)

    def _renew(self, progress: Progress) -> None:
        # A worker that only says that it lives has no progress: its computation may be stuck.
        done = progress.done + progress.bytes_done + progress.rows + progress.spilled_bytes
        now = time.monotonic()
        if done > self.done and now - self.renewed_at >= _RENEW_SECONDS_MIN:
            self.done, self.renewed_at = done, now
            self.post(AttemptProgressed(self.instruction.attempt))

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
