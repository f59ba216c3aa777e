"""The job scheduler: a pure state machine.

Events come in, instructions go out; there is no clock, no thread and no I/O here, so every
history can be replayed. `elytra.loop` executes the instructions and reports back.

    job      queued -> planning -> running -> merging -> done | failed | cancelled
    task     pending -> leased -> running -> done | failed | poisoned | cancelled
    attempt  offered -> running -> done | failed | expired | superseded

A task's result is merged exactly once, even if messages are repeated or lost: the first result of
the attempt that holds the task's lease counts, and all others are dropped by attempt id.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import singledispatchmethod

from elytra.messages import (
    AttemptChanged,
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobPlanned,
    JobSubmitted,
    JobUnplannable,
    JsonObject,
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
    WorkerLost,
)
from sennit_core.records import AttemptState, JobState, TaskState, check_transition


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on concurrent jobs, and on the attempts of a task or a merge."""

    running_jobs_max: int = 4
    attempts_max: int = 3


@dataclass(slots=True, eq=False)
class _Attempt:
    id: str
    job: str
    task: str
    worker: str
    lease_until: float | None
    state: AttemptState = "offered"


@dataclass(slots=True, eq=False)
class _Task:
    key: str
    state: TaskState = "pending"
    attempts: int = 0
    holder: _Attempt | None = None
    failed_on: set[str] = field(default_factory=set)
    partial: JsonObject | None = None


@dataclass(slots=True, eq=False)
class _Job:
    id: str
    only_task: str | None
    state: JobState = "queued"
    tasks: dict[str, _Task] = field(default_factory=dict)
    pending: deque[_Task] = field(default_factory=deque)
    done_count: int = 0
    merges: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    id: str
    slots: int
    lease_seconds: float | None
    attempts: set[str] = field(default_factory=set)


class Scheduler:
    """Assigns tasks to workers; `handle` is the only entry point.

    Args:
        limits: Limits on concurrency and retries.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._jobs: dict[str, _Job] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._workers: dict[str, _Worker] = {}
        self._queue: deque[_Job] = deque()
        self._running: deque[_Job] = deque()
        self._out: list[Instruction] = []
        self._now = 0.0

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Apply one event to the state.

        Args:
            event: What happened. Events about unknown or ended jobs and attempts have no effect.
            now: Seconds on the caller's clock; must not decrease.

        Returns:
            The instructions to execute, in order.
        """
        self._now = now
        self._apply(event)
        self._admit()
        self._assign()
        out, self._out = self._out, []
        return out

    @property
    def live_jobs(self) -> frozenset[str]:
        """The ids of the jobs that have not ended."""
        return frozenset(self._jobs)

    # Events

    @singledispatchmethod
    def _apply(self, event: object) -> None:
        raise TypeError(f"not an event: {event!r}")

    @_apply.register
    def _(self, event: JobSubmitted) -> None:
        if event.job not in self._jobs:
            job = self._jobs[event.job] = _Job(event.job, event.task)
            self._queue.append(job)

    @_apply.register
    def _(self, event: JobPlanned) -> None:
        job = self._jobs.get(event.job)
        if job is not None and job.state == "planning":
            self._run_job(job, event.tasks)

    @_apply.register
    def _(self, event: JobUnplannable) -> None:
        job = self._jobs.get(event.job)
        if job is not None and job.state == "planning":
            self._end_job(job, "failed", error=event.error)

    @_apply.register
    def _(self, event: WorkerJoined) -> None:
        if event.worker not in self._workers:
            self._workers[event.worker] = _Worker(event.worker, event.slots, event.lease_seconds)

    @_apply.register
    def _(self, event: WorkerLost) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return
        error = {
            "error": f"worker {event.worker} was lost: {event.reason}",
            "code": "worker-lost",
            "hint": None,
        }
        for attempt_id in sorted(worker.attempts):
            attempt = self._attempts.get(attempt_id)
            if attempt is not None:
                self._fail_attempt(attempt, "failed", error, retryable=True)

    @_apply.register
    def _(self, event: AttemptStarted) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            self._renew(attempt)
            self._start(attempt)

    @_apply.register
    def _(self, event: AttemptProgressed) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            self._renew(attempt)
            self._start(attempt)

    @_apply.register
    def _(self, event: AttemptFinished) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is None:
            self._out.append(DropPartial(event.attempt, event.partial))
            return
        self._start(attempt)
        job = self._jobs[attempt.job]
        task = job.tasks[attempt.task]
        self._release(attempt, "done")
        task.partial, task.holder = event.partial, None
        job.done_count += 1
        self._move_task(job, task, "done")
        self._finish_when_complete(job)

    @_apply.register
    def _(self, event: AttemptFailed) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            self._fail_attempt(attempt, "failed", event.error, retryable=event.retryable)

    @_apply.register
    def _(self, event: MergeFinished) -> None:
        job = self._jobs.get(event.job)
        if job is not None and job.state == "merging" and job.merges == event.number:
            self._end_job(job, "done", result=event.result)

    @_apply.register
    def _(self, event: MergeFailed) -> None:
        job = self._jobs.get(event.job)
        if job is None or job.state != "merging" or job.merges != event.number:
            return
        if event.retryable and job.merges < self._limits.attempts_max:
            self._start_merge(job)
        else:
            self._end_job(job, "failed", error=event.error)

    @_apply.register
    def _(self, event: CancelRequested) -> None:
        job = self._jobs.get(event.job)
        if job is not None:
            self._end_job(job, "cancelled")

    @_apply.register
    def _(self, event: Tick) -> None:
        expired = [
            attempt
            for attempt in self._attempts.values()
            if attempt.lease_until is not None and attempt.lease_until <= self._now
        ]
        for attempt in expired:
            if attempt.id in self._attempts:  # an earlier expiry may have ended the whole job
                self._out.append(StopAttempt(attempt.id, attempt.worker))
                error = {
                    "error": f"worker {attempt.worker} did not renew its lease in time",
                    "code": "worker-lost",
                    "hint": None,
                }
                self._fail_attempt(attempt, "expired", error, retryable=True)

    # Decisions

    def _admit(self) -> None:
        busy = len(self._jobs) - len(self._queue)
        while self._queue and busy < self._limits.running_jobs_max:
            job = self._queue.popleft()
            busy += 1
            if job.only_task is None:
                self._move_job(job, "planning")
                self._out.append(PlanJob(job.id))
            else:
                self._run_job(job, (job.only_task,))

    def _run_job(self, job: _Job, tasks: tuple[str, ...]) -> None:
        job.tasks = {key: _Task(key) for key in tasks}
        job.pending.extend(job.tasks.values())
        self._move_job(job, "running")
        self._running.appendleft(job)  # to the front: a new job is served before the others
        self._finish_when_complete(job)

    def _assign(self) -> None:
        """Assign tasks round-robin over the jobs until no free worker fits any of them."""
        stuck_count = 0
        while stuck_count < len(self._running) and self._has_free_worker():
            job = self._running[0]
            self._running.rotate(-1)
            stuck_count = 0 if self._assign_one(job) else stuck_count + 1

    def _assign_one(self, job: _Job) -> bool:
        for task in job.pending:
            worker = self._worker_for(task)
            if worker is not None:
                job.pending.remove(task)
                self._offer(job, task, worker)
                return True
        return False

    def _has_free_worker(self) -> bool:
        return any(len(w.attempts) < w.slots for w in self._workers.values())

    def _worker_for(self, task: _Task) -> _Worker | None:
        """Return the least loaded free worker that has not failed the task, or any if all have."""
        untried = [w for w in self._workers.values() if w.id not in task.failed_on]
        free = [w for w in untried or self._workers.values() if len(w.attempts) < w.slots]
        return min(free, key=lambda w: (len(w.attempts) / w.slots, w.id), default=None)

    def _offer(self, job: _Job, task: _Task, worker: _Worker) -> None:
        task.attempts += 1
        lease = None if worker.lease_seconds is None else self._now + worker.lease_seconds
        attempt_id = f"{job.id}-{task.key}-{task.attempts}"
        attempt = _Attempt(attempt_id, job.id, task.key, worker.id, lease)
        task.holder = self._attempts[attempt_id] = attempt
        worker.attempts.add(attempt_id)
        self._move_task(job, task, "leased")
        self._record_attempt(attempt)
        self._out.append(StartAttempt(attempt_id, job.id, task.key, worker.id, lease))

    def _start(self, attempt: _Attempt) -> None:
        """Mark an attempt as started; also called for its result, which may arrive first."""
        if attempt.state == "offered":
            job = self._jobs[attempt.job]
            self._move_attempt(attempt, "running")
            self._move_task(job, job.tasks[attempt.task], "running")

    def _renew(self, attempt: _Attempt) -> None:
        worker = self._workers[attempt.worker]
        if worker.lease_seconds is not None:
            attempt.lease_until = self._now + worker.lease_seconds

    def _fail_attempt(
        self, attempt: _Attempt, state: AttemptState, error: JsonObject, *, retryable: bool
    ) -> None:
        job = self._jobs[attempt.job]
        task = job.tasks[attempt.task]
        self._release(attempt, state, error)
        task.holder = None
        task.failed_on.add(attempt.worker)
        if not retryable:
            self._move_task(job, task, "failed")
            self._end_job(job, "failed", error=error)
        elif task.attempts >= self._limits.attempts_max:
            self._move_task(job, task, "poisoned")
            self._end_job(job, "failed", error=error)
        else:
            self._move_task(job, task, "pending")
            job.pending.appendleft(task)

    def _finish_when_complete(self, job: _Job) -> None:
        if job.done_count < len(job.tasks):
            return
        if job.only_task is not None:
            self._end_job(job, "done", result=job.tasks[job.only_task].partial)
            return
        self._running.remove(job)
        self._move_job(job, "merging")
        self._start_merge(job)

    def _start_merge(self, job: _Job) -> None:
        job.merges += 1
        partials = tuple(task.partial for task in job.tasks.values() if task.partial is not None)
        assert len(partials) == len(job.tasks)
        self._out.append(StartMerge(job.id, job.merges, partials))

    def _end_job(
        self,
        job: _Job,
        state: JobState,
        *,
        error: JsonObject | None = None,
        result: JsonObject | None = None,
    ) -> None:
        for task in job.tasks.values():
            if task.holder is not None:
                attempt = task.holder
                self._out.append(StopAttempt(attempt.id, attempt.worker))
                self._release(attempt, "superseded")
                task.holder = None
            if task.state in {"pending", "leased", "running"}:
                self._move_task(job, task, "cancelled")
        if job.state == "merging" and state == "cancelled":
            self._out.append(StopMerge(job.id, job.merges))
        if job.state == "queued":
            self._queue.remove(job)
        if job in self._running:
            self._running.remove(job)
        self._move_job(job, state, error, result)
        del self._jobs[job.id]

    # State changes: each is checked against the shared transition tables (`sennit_core.states`)

    def _move_job(
        self,
        job: _Job,
        state: JobState,
        error: JsonObject | None = None,
        result: JsonObject | None = None,
    ) -> None:
        check_transition("job", job.state, state)
        job.state = state
        self._out.append(JobChanged(job.id, state, error, result))

    def _move_task(self, job: _Job, task: _Task, state: TaskState) -> None:
        check_transition("task", task.state, state)
        task.state = state
        self._out.append(TaskChanged(job.id, task.key, state, task.attempts, task.partial))

    def _move_attempt(
        self, attempt: _Attempt, state: AttemptState, error: JsonObject | None = None
    ) -> None:
        check_transition("attempt", attempt.state, state)
        attempt.state = state
        self._record_attempt(attempt, error)

    def _record_attempt(self, attempt: _Attempt, error: JsonObject | None = None) -> None:
        self._out.append(
            AttemptChanged(
                attempt.id,
                attempt.job,
                attempt.task,
                attempt.worker,
                attempt.state,
                attempt.lease_until,
                error,
            )
        )

    def _release(
        self, attempt: _Attempt, state: AttemptState, error: JsonObject | None = None
    ) -> None:
        self._move_attempt(attempt, state, error)
        del self._attempts[attempt.id]
        worker = self._workers.get(attempt.worker)
        if worker is not None:
            worker.attempts.discard(attempt.id)
