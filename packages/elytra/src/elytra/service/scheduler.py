"""The job scheduler: a pure state machine.

Events come in, instructions go out; there is no clock, no thread and no I/O here, so every
history can be replayed. `elytra.service.loop` executes the instructions and reports back.

    job   queued -> running -> merging -> done | failed | cancelled
    task  pending -> leased -> running -> done | failed | poisoned | cancelled

A task's result is merged exactly once, even if messages are repeated: the first result of the
attempt that holds the task counts, and all others are dropped by attempt id.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import singledispatchmethod

from elytra.service.messages import (
    AttemptFailed,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
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
from sennit_core.records import JobState, TaskState, check_transition


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on concurrent jobs, and on the attempts of a task or a merge."""

    # Tasks of different jobs alternate on the executors, so each further running job slows the
    # others and holds its partials on disk for longer.
    running_jobs_max: int = 4
    # A retryable error, such as the loss of an executor, need not be the task's own fault; three
    # in a row are taken for it.
    attempts_max: int = 3


@dataclass(slots=True, eq=False)
class _Attempt:
    id: str
    job: str
    task: str
    worker: str
    # Becomes True with the first message of the attempt, which may already be its result.
    started: bool = False


@dataclass(slots=True, eq=False)
class _Task:
    key: str
    state: TaskState = "pending"
    # Attempts made, including the current one; also the number in the current attempt's id, so an
    # id is never reused and a late message cannot be taken for the message of a newer attempt.
    attempts: int = 0
    # The only attempt whose result counts; None unless the task is leased or running.
    holder: _Attempt | None = None
    # Workers to avoid as long as there is another one.
    failed_on: set[str] = field(default_factory=set)
    # Not None iff the task is done.
    partial: JsonObject | None = None


@dataclass(slots=True, eq=False)
class _Job:
    id: str
    keys: tuple[str, ...]
    has_merge: bool
    # Only workers of this backend run its tasks.
    engine: str
    state: JobState = "queued"
    # Empty while the job is queued; afterwards one per key. Python keeps the order of insertion,
    # which is shard order, so the merge needs no sorting.
    tasks: dict[str, _Task] = field(default_factory=dict)
    # The tasks whose state is pending; a retried task is put in front.
    pending: deque[_Task] = field(default_factory=deque)
    # Number of tasks in state done.
    done_count: int = 0
    # Merges started. Reports carry the number of their merge; those of earlier ones are ignored.
    merges: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    id: str
    slots: int
    engine: str
    # Ids of the attempts that it runs: at most `slots`, unless these became fewer.
    attempts: set[str] = field(default_factory=set)


class Scheduler:
    """Assigns tasks to workers; `handle` is the only entry point.

    Args:
        limits: Limits on concurrency and retries.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        # The jobs that have not ended. An ended job is forgotten, so that its late events have no
        # effect; its record is in the job store.
        self._jobs: dict[str, _Job] = {}
        # The attempts that hold a task, by id. A result whose attempt is not here is dropped.
        self._attempts: dict[str, _Attempt] = {}
        self._workers: dict[str, _Worker] = {}
        # Each job of `_jobs` is in `_queue` (queued), in `_running` (running) or in neither
        # (merging). The front of `_running` is the next job to be assigned a worker.
        self._queue: deque[_Job] = deque()
        self._running: deque[_Job] = deque()
        # The instructions of the current event, in order; empty between two calls of `handle`.
        self._out: list[Instruction] = []

    def handle(self, event: Event) -> list[Instruction]:
        """Apply one event to the state.

        Args:
            event: What happened. Events about unknown or ended jobs and attempts have no effect.

        Returns:
            The instructions to execute, in order.
        """
        self._apply(event)
        # Any event may have ended a job or an attempt, or added a job or a worker. Both steps do
        # nothing if there is no free place, so they need not know which event it was.
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
            job = self._jobs[event.job] = _Job(
                event.job, event.tasks, event.has_merge, event.engine
            )
            self._queue.append(job)

    @_apply.register
    def _(self, event: WorkerJoined) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            self._workers[event.worker] = _Worker(event.worker, event.slots, event.engine)
        else:
            worker.slots = event.slots

    @_apply.register
    def _(self, event: WorkerLeft) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return
        for attempt_id in sorted(worker.attempts):
            # The failure of an earlier one may have ended the job, and so this one.
            attempt = self._attempts.get(attempt_id)
            if attempt is not None:
                self._fail_attempt(attempt, event.error, retryable=True)
        # Last: releasing an attempt needs its worker.
        del self._workers[event.worker]

    @_apply.register
    def _(self, event: AttemptStarted) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
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
        self._release(attempt)
        task.partial, task.holder = event.partial, None
        job.done_count += 1
        self._move_task(job, task, "done")
        self._finish_when_complete(job)

    @_apply.register
    def _(self, event: AttemptFailed) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            self._fail_attempt(attempt, event.error, retryable=event.retryable)

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

    # Decisions

    def _admit(self) -> None:
        # Jobs that are running or merging.
        busy = len(self._jobs) - len(self._queue)
        while self._queue and busy < self._limits.running_jobs_max:
            busy += 1
            self._run_job(self._queue.popleft())

    def _run_job(self, job: _Job) -> None:
        job.tasks = {key: _Task(key) for key in job.keys}
        job.pending.extend(job.tasks.values())
        self._move_job(job, "running")
        # In front of the others: a small job need not wait for one turn of every large one.
        self._running.appendleft(job)
        # A dataset without shards has no tasks, so no attempt would ever end the job.
        self._finish_when_complete(job)

    def _assign(self) -> None:
        """Assign tasks round-robin over the jobs until no free worker fits any of them."""
        # Ends when every running job was asked in a row and had no task for a free worker.
        stuck_count = 0
        while stuck_count < len(self._running) and self._has_free_worker():
            job = self._running[0]
            # Rotated also when nothing fits: the next job may have a task that fits.
            self._running.rotate(-1)
            stuck_count = 0 if self._assign_one(job) else stuck_count + 1

    def _assign_one(self, job: _Job) -> bool:
        for task in job.pending:
            worker = self._worker_for(job, task)
            if worker is not None:
                job.pending.remove(task)
                self._offer(job, task, worker)
                return True
        return False

    def _has_free_worker(self) -> bool:
        return any(len(w.attempts) < w.slots for w in self._workers.values())

    def _worker_for(self, job: _Job, task: _Task) -> _Worker | None:
        """Return the least loaded free worker that has not failed the task, or any if all have."""
        # If an untried worker exists but is busy, the task waits for it. On a worker that has
        # failed it, it would probably fail again and use up an attempt.
        workers = [w for w in self._workers.values() if w.engine == job.engine]
        untried = [w for w in workers if w.id not in task.failed_on]
        free = [w for w in untried or workers if len(w.attempts) < w.slots]
        # The id breaks ties, so that a history always replays to the same instructions.
        return min(free, key=lambda w: (len(w.attempts) / w.slots, w.id), default=None)

    def _offer(self, job: _Job, task: _Task, worker: _Worker) -> None:
        task.attempts += 1
        attempt_id = f"{job.id}-{task.key}-{task.attempts}"
        attempt = _Attempt(attempt_id, job.id, task.key, worker.id)
        task.holder = self._attempts[attempt_id] = attempt
        worker.attempts.add(attempt_id)
        self._move_task(job, task, "leased")
        self._out.append(StartAttempt(attempt_id, job.id, task.key, worker.id))

    def _start(self, attempt: _Attempt) -> None:
        """Mark an attempt as started; also called for its result, which may arrive first."""
        if not attempt.started:
            attempt.started = True
            job = self._jobs[attempt.job]
            self._move_task(job, job.tasks[attempt.task], "running")

    def _fail_attempt(self, attempt: _Attempt, error: JsonObject, *, retryable: bool) -> None:
        job = self._jobs[attempt.job]
        task = job.tasks[attempt.task]
        self._release(attempt)
        task.holder = None
        task.failed_on.add(attempt.worker)
        # It would only repeat: a column that does not exist, a cap that is too small.
        if not retryable:
            self._move_task(job, task, "failed")
            self._end_job(job, "failed", error=error)
        elif task.attempts >= self._limits.attempts_max:
            self._move_task(job, task, "poisoned")
            self._end_job(job, "failed", error=error)
        else:
            self._move_task(job, task, "pending")
            # To the front: a task that always fails should end its job early.
            job.pending.appendleft(task)

    def _finish_when_complete(self, job: _Job) -> None:
        if job.done_count < len(job.tasks):
            return
        if not job.has_merge:
            [task] = job.tasks.values()
            self._end_job(job, "done", result=task.partial)
            return
        self._running.remove(job)
        self._move_job(job, "merging")
        self._start_merge(job)

    def _start_merge(self, job: _Job) -> None:
        job.merges += 1
        # In the order of the tasks, which is that of the shards and not of their arrival: it
        # decides the order of rows.
        partials = tuple(task.partial for task in job.tasks.values() if task.partial is not None)
        assert len(partials) == len(job.tasks)
        # A merge takes no worker's slot: the tasks of other jobs may occupy all of them for long.
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
                # Released before the backend reports its end: that report finds no attempt, so a
                # result that was already on its way is dropped.
                self._release(attempt)
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
        # Last: from here on the job's events have no effect.
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

    def _release(self, attempt: _Attempt) -> None:
        """Forget an attempt and free its worker's slot."""
        del self._attempts[attempt.id]
        self._workers[attempt.worker].attempts.discard(attempt.id)
