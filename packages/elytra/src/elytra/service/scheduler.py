"""The job scheduler: a pure state machine.

Events come in, instructions go out; there is no clock, no thread and no I/O here, so every
history can be replayed. `elytra.service.loop` executes the instructions and reports back.

    job      queued -> running -> merging -> done | failed | cancelled
    task     pending -> leased -> running -> done | failed | poisoned | cancelled
    attempt  leased -> running -> done | failed | expired | stopped

A task's result is merged exactly once, even if messages are repeated: the first result of an attempt
that holds the task counts, and all others are dropped by attempt id.

The parts, each without decisions of another: `admission` (which job may run), `backend_queue` (which job,
task and worker are next; with `fairness`, `scheduled_jobs` and `worker_pool`), `leases` (when an attempt
is lost), `stragglers` (which task is slow), `quarantine` (which workers are bad).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from elytra.service.admission import Admission
from elytra.service.backend_queue import BackendQueue
from elytra.service.leases import Timers
from elytra.service.messages import (
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
    JobSubmitted,
    JsonObject,
    MergeFailed,
    MergeFinished,
    SkippedTask,
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
from elytra.service.quarantine import Quarantine
from elytra.service.scheduled_jobs import Attempt, ScheduledJob, Task
from elytra.service.stragglers import slow_attempts
from elytra.service.worker_pool import Worker
from sennit_core.errors import DeadlineExceeded, WorkerLost
from sennit_core.records import AttemptState, JobState, TaskState, check_transition


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of jobs, tasks and merges."""

    # Their tasks alternate. More would only hold more partials on disk and more tasks in memory.
    running_jobs_max: int = 1000
    # A retryable error, such as the loss of an executor, need not be the task's own fault; three
    # count as its fault: on different workers, or on all that there are.
    attempts_max: int = 3
    # See `backend_queue.BackendQueue`.
    unmerged_bytes_max: int = 1 << 30


class Scheduler:
    """Assigns tasks to workers; `handle` is the only entry point.

    Args:
        limits: Limits on concurrency and retries.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        # The time of the last tick.
        self._now = 0.0
        # The jobs that have not ended. An ended job is forgotten, so that its delayed events have no
        # effect; its record is in the job store.
        self._jobs: dict[str, ScheduledJob] = {}
        # The attempts whose result counts, by id. A result whose attempt is not here is dropped.
        self._attempts: dict[str, Attempt] = {}
        # The workers that were asked to stop an attempt and have not reported its end, by its id.
        self._stopping: dict[str, Worker] = {}
        self._workers: dict[str, Worker] = {}
        self._backends: dict[str, BackendQueue] = {}
        self._admission = Admission(self._limits.running_jobs_max)
        self._lease_ends: Timers[Attempt] = Timers()
        self._deadlines: Timers[ScheduledJob] = Timers()
        self._quarantine = Quarantine()
        # The instructions of the current event, in order; empty between two calls of `handle`.
        self._out: list[Instruction] = []

    def handle(self, event: Event) -> list[Instruction]:
        """Apply one event to the state.

        Args:
            event: What happened. Events about unknown or ended jobs and attempts have no effect.

        Returns:
            The instructions to execute, in order.
        """
        apply = self._handlers.get(type(event))
        if apply is None:
            raise TypeError(f"not an event: {event!r}")
        apply(self, event)
        # Any event may have ended a job or an attempt, or added a job or a worker. Both steps do
        # nothing if there is no free place, so they need not know which event it was.
        for job in self._admission.admitted():
            self._run_job(job)
        for backend in self._backends.values():
            while (popped := backend.pop()) is not None:
                self._offer(*popped)
        out, self._out = self._out, []
        return out

    @property
    def live_jobs(self) -> frozenset[str]:
        """The ids of the jobs that have not ended."""
        return frozenset(self._jobs)

    @property
    def has_live_jobs(self) -> bool:
        """Whether any job has not ended."""
        return bool(self._jobs)

    # Events

    def _tick(self, event: Tick) -> None:
        # By the previous tick: all that was reported before it has been handled. Had the node itself
        # stalled for longer than a lease, the progress would wait in its queue behind this tick.
        for attempt in self._lease_ends.due(self._now):
            self._check_lease(attempt)
        self._now = max(self._now, event.now)
        for job in self._deadlines.due(self._now):
            # Without its seconds: they count from the submission, and a job that was resumed has less.
            error = DeadlineExceeded(f"job {job.id}").to_json()
            self._end_job(job, "failed", error=error)
        for worker_id in self._quarantine.released(self._now):
            worker = self._workers.get(worker_id)
            if worker is not None:
                worker.is_quarantined = False
                self._backend(worker.engine).pool.refresh(worker)
        for job in self._jobs.values():
            for attempt in slow_attempts(job, self._now):
                self._duplicate(attempt)

    def _submitted(self, event: JobSubmitted) -> None:
        if event.job in self._jobs:
            return
        job = self._jobs[event.job] = ScheduledJob(event)
        self._admission.add(job)
        seconds = event.options.deadline_seconds
        if seconds is not None:
            self._deadlines.set(job, self._now + seconds)

    def _joined(self, event: WorkerJoined) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            worker = self._workers[event.worker] = Worker(event.worker, event.engine)
        worker.slots, worker.lease_seconds = event.slots, event.lease_seconds
        for attempt_id in worker.attempts:
            self._set_lease(self._attempts[attempt_id])
        worker.is_quarantined = self._quarantine.has(worker.id)
        if worker.cached != event.cached:
            for job in self._jobs_of(event.engine):
                job.pending.set_local(worker.id, event.cached)
        self._backend(event.engine).pool.set(worker, event.cached)

    def _left(self, event: WorkerLeft) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return
        self._backend(worker.engine).pool.remove(worker)
        for job in self._jobs_of(worker.engine):
            job.pending.forget_worker(worker.id)
        for attempt_id in worker.stopping:
            del self._stopping[attempt_id]
        worker.stopping.clear()
        for attempt_id in list(worker.attempts):
            # The failure of an earlier one may have ended the job, and so this one.
            attempt = self._attempts.get(attempt_id)
            if attempt is not None:
                self._fail_attempt(attempt, event.error, retryable=True)

    def _discredited(self, event: WorkerDiscredited) -> None:
        for job in list(self._jobs.values()):
            wrong = [task for task in job.tasks.values() if task.token == event.token]
            if not wrong:
                continue
            if job.is_merge_running:
                job.is_tainted = True
                self._out.append(StopMerge(job.id, job.merges))
            else:
                self._redo(job, wrong)

    def _started(self, event: AttemptStarted) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            self._start(attempt)

    def _progressed(self, event: AttemptProgressed) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            self._start(attempt)
            attempt.progressed_at = attempt.worker.progressed_at = self._now

    def _finished(self, event: AttemptFinished) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is None:
            self._stopped(event.attempt)
            self._out.append(DropPartial(event.attempt, event.partial))
            return
        self._start(attempt)
        job, task = attempt.job, attempt.task
        attempt.worker.progressed_at = self._now
        self._release(attempt, "done")
        # The result is valid, so the workers that failed the task were at fault.
        for worker_id in self._quarantine.blame(task.failed_on - {attempt.worker.id}, self._now):
            self._set_quarantined(worker_id)
        for loser in list(task.live):
            self._stop(loser)
        job.durations.add(self._now - attempt.started_at)
        job.finish(task, event.partial, attempt)
        self._move_task(job, task, "done")
        self._backend(job.engine).check_unmerged(job)
        self._finish_when_complete(job)

    def _failed(self, event: AttemptFailed) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is None:
            self._stopped(event.attempt)
        else:
            self._fail_attempt(attempt, event.error, retryable=event.retryable)

    def _merged(self, event: MergeFinished) -> None:
        job = self._jobs.get(event.job)
        if job is not None and job.state == "merging" and job.merges == event.number:
            job.is_merge_running = False
            if job.is_tainted:
                self._redo_all(job)
            else:
                self._end_job(job, "done", result=event.result)

    def _merge_failed(self, event: MergeFailed) -> None:
        job = self._jobs.get(event.job)
        if job is None or job.state != "merging" or job.merges != event.number:
            return
        job.is_merge_running = False
        if job.is_tainted:
            self._redo_all(job)
        elif event.retryable and job.merges < self._limits.attempts_max:
            self._start_merge(job)
        else:
            self._end_job(job, "failed", error=event.error)

    def _cancelled(self, event: CancelRequested) -> None:
        job = self._jobs.get(event.job)
        if job is not None:
            self._end_job(job, "cancelled")

    # By type: `singledispatchmethod` costs as much as a whole event.
    _handlers: ClassVar[dict[type, Callable[[Scheduler, Any], None]]] = {
        Tick: _tick,
        JobSubmitted: _submitted,
        WorkerJoined: _joined,
        WorkerLeft: _left,
        WorkerDiscredited: _discredited,
        AttemptStarted: _started,
        AttemptProgressed: _progressed,
        AttemptFinished: _finished,
        AttemptFailed: _failed,
        MergeFinished: _merged,
        MergeFailed: _merge_failed,
        CancelRequested: _cancelled,
    }

    # Attempts

    def _run_job(self, job: ScheduledJob) -> None:
        backend = self._backend(job.engine)
        job.begin(backend.pool)
        self._move_job(job, "running")
        for task in job.tasks.values():
            if task.state == "done":
                self._move_task(job, task, "done")
        backend.add(job)
        backend.check_unmerged(job)
        # A dataset without shards has no tasks, so no attempt would ever end the job.
        self._finish_when_complete(job)

    def _offer(self, job: ScheduledJob, task: Task, worker: Worker) -> None:
        number = job.submission.first_attempt + task.attempts
        task.attempts += 1
        attempt_id = f"{job.id}-{task.key}-{number}"
        attempt = Attempt(attempt_id, job, task, worker, self._now, progressed_at=self._now)
        self._attempts[attempt_id] = job.live[attempt_id] = attempt
        worker.attempts[attempt_id] = None
        task.live.append(attempt)
        self._backend(worker.engine).pool.use(worker)
        self._set_lease(attempt)
        self._move_task(job, task, task.state if task.state == "running" else "leased")
        self._changed(attempt)
        self._out.append(StartAttempt(attempt_id, job.id, task.key, worker.id))

    def _duplicate(self, slow: Attempt) -> None:
        """Assign the task of a slow attempt to a second worker, if one is free."""
        task = slow.task
        tried = {*task.failed_on, slow.worker.id}
        worker = self._backend(slow.job.engine).pool.free_untried(tried, must=True)
        if worker is not None:
            task.is_duplicated = True
            self._offer(slow.job, task, worker)

    def _start(self, attempt: Attempt) -> None:
        """Mark an attempt as started; also called for its result, which may arrive first."""
        if attempt.state != "leased":
            return
        attempt.started_at = attempt.progressed_at = attempt.worker.progressed_at = self._now
        self._move_attempt(attempt, "running")
        if attempt.task.state == "leased":
            self._move_task(attempt.job, attempt.task, "running")

    def _set_lease(self, attempt: Attempt) -> None:
        """Set the time at which an attempt is looked at; progress until then moves it."""
        if attempt.worker.lease_seconds is None:
            self._lease_ends.discard(attempt)
        else:
            self._lease_ends.set(attempt, attempt.lease_end)

    def _check_lease(self, attempt: Attempt) -> None:
        """Expire a lease, unless it was renewed since its end was set."""
        if attempt.id not in self._attempts:
            return  # a lease that expired in the same tick has ended its job
        if attempt.lease_end > self._now:
            self._set_lease(attempt)
            return
        reason = f"no progress for {attempt.lease_end - attempt.progressed_at:.0f} s"
        error = WorkerLost(attempt.worker.id, reason=reason).to_json()
        self._out.append(StopAttempt(attempt.id, attempt.worker.id))
        self._fail_attempt(attempt, error, retryable=True, state="expired")

    def _fail_attempt(
        self,
        attempt: Attempt,
        error: JsonObject,
        *,
        retryable: bool,
        state: AttemptState = "failed",
    ) -> None:
        job, task = attempt.job, attempt.task
        self._release(attempt, state, error)
        task.failures += 1
        task.failed_on.add(attempt.worker.id)
        # It would only repeat: a column that does not exist, a cap that is too small.
        if not retryable:
            self._move_task(job, task, "failed")
            self._end_job(job, "failed", error=error, task=task.key)
        elif task.live:
            pass  # the other attempt decides
        elif self._is_poisoned(job, task):
            self._poison(job, task, error)
        else:
            self._move_task(job, task, "pending")
            job.pending.add_retry(task)
            self._backend(job.engine).add(job)

    def _is_poisoned(self, job: ScheduledJob, task: Task) -> bool:
        if task.failures < self._limits.attempts_max:
            return False
        is_tried_enough = len(task.failed_on) >= self._limits.attempts_max
        return is_tried_enough or not self._backend(job.engine).pool.has_untried(task.failed_on)

    def _poison(self, job: ScheduledJob, task: Task, error: JsonObject) -> None:
        self._move_task(job, task, "poisoned")
        # A result without any input would be an answer about nothing.
        is_last = len(job.skipped) + 1 == len(job.tasks)
        if job.submission.options.on_poison == "fail" or is_last:
            self._end_job(job, "failed", error=error, task=task.key)
            return
        job.skipped.append(SkippedTask(task.key, task.attempts, error))
        self._finish_when_complete(job)

    def _stop(self, attempt: Attempt) -> None:
        self._out.append(StopAttempt(attempt.id, attempt.worker.id))
        self._release(attempt, "stopped")

    def _release(
        self, attempt: Attempt, state: AttemptState, error: JsonObject | None = None
    ) -> None:
        """End an attempt: its later reports have no effect."""
        worker = attempt.worker
        self._move_attempt(attempt, state, error)
        self._lease_ends.discard(attempt)
        del self._attempts[attempt.id], worker.attempts[attempt.id], attempt.job.live[attempt.id]
        attempt.task.live.remove(attempt)
        if self._workers.get(worker.id) is not worker:
            return  # it has left
        if state in {"expired", "stopped"}:
            worker.stopping.add(attempt.id)
            self._stopping[attempt.id] = worker
        self._backend(worker.engine).pool.refresh(worker)

    def _stopped(self, attempt_id: str) -> None:
        """Free the slot of an attempt that was stopped and has ended."""
        worker = self._stopping.pop(attempt_id, None)
        if worker is not None:
            worker.stopping.discard(attempt_id)
            self._backend(worker.engine).pool.refresh(worker)

    def _set_quarantined(self, worker_id: str) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None and worker.lease_seconds is not None:
            worker.is_quarantined = True
            self._backend(worker.engine).pool.refresh(worker)

    # Results that are not used

    def _redo_all(self, job: ScheduledJob) -> None:
        """Compute all results of a job again, whose merge has ended."""
        job.is_tainted = False
        self._move_job(job, "running")
        self._redo(job, [task for task in job.tasks.values() if task.partial is not None])

    def _redo(self, job: ScheduledJob, tasks: list[Task]) -> None:
        for task in tasks:
            if task.partial is None:
                continue
            self._out.append(DropPartial(task.result_of, job.retract(task)))
            self._move_task(job, task, "pending")
            job.pending.add_retry(task)
        self._backend(job.engine).add(job)

    # Jobs

    def _finish_when_complete(self, job: ScheduledJob) -> None:
        if not job.is_complete:
            return
        if not job.has_merge:
            [task] = job.tasks.values()
            self._end_job(job, "done", result=task.partial)
            return
        self._move_job(job, "merging")
        self._start_merge(job)

    def _start_merge(self, job: ScheduledJob) -> None:
        job.merges += 1
        job.is_merge_running = True
        # A merge uses no worker's slot: the tasks of other jobs may occupy all of them for long.
        self._out.append(StartMerge(job.id, job.merges, job.partials))

    def _end_job(
        self,
        job: ScheduledJob,
        state: JobState,
        *,
        error: JsonObject | None = None,
        result: JsonObject | None = None,
        task: str | None = None,
    ) -> None:
        # Released before the backend reports their ends: a result that was already on its way is
        # dropped.
        for attempt in list(job.live.values()):
            self._stop(attempt)
        for each in job.tasks.values():
            if each.state in {"pending", "leased", "running"}:
                self._move_task(job, each, "cancelled")
        if job.is_merge_running:
            self._out.append(StopMerge(job.id, job.merges))
        self._admission.end(job)
        self._backend(job.engine).end(job)
        self._deadlines.discard(job)
        skipped = tuple(job.skipped) if state == "done" else ()
        self._move_job(job, state, JobChanged(job.id, state, error, result, task, skipped))
        # Last: from here on the job's events have no effect.
        del self._jobs[job.id]

    def _backend(self, engine: str) -> BackendQueue:
        backend = self._backends.get(engine)
        if backend is None:
            backend = self._backends[engine] = BackendQueue(self._limits.unmerged_bytes_max)
        return backend

    def _jobs_of(self, engine: str) -> list[ScheduledJob]:
        return [job for job in self._jobs.values() if job.engine == engine]

    # State changes: each is checked against the shared transition tables (`sennit_core.states`)

    def _move_job(
        self, job: ScheduledJob, state: JobState, change: JobChanged | None = None
    ) -> None:
        check_transition("job", job.state, state)
        job.state = state
        self._out.append(change or JobChanged(job.id, state))

    def _move_task(self, job: ScheduledJob, task: Task, state: TaskState) -> None:
        check_transition("task", task.state, state)
        task.state = state
        self._out.append(TaskChanged(job.id, task.key, state, task.attempts, task.partial))

    def _move_attempt(
        self, attempt: Attempt, state: AttemptState, error: JsonObject | None = None
    ) -> None:
        check_transition("attempt", attempt.state, state)
        attempt.state = state
        self._changed(attempt, error)

    def _changed(self, attempt: Attempt, error: JsonObject | None = None) -> None:
        self._out.append(
            AttemptChanged(
                attempt.job.id,
                attempt.task.key,
                attempt.id,
                attempt.worker.id,
                attempt.state,
                error,
            )
        )
