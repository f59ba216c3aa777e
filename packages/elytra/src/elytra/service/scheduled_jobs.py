"""The jobs, tasks and attempts that the scheduler works on: state without decisions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from elytra.service.fairness import task_cost
from elytra.service.job_options import PRIORITIES
from elytra.service.leases import Durations
from elytra.service.messages import JobSubmitted, JsonObject, SkippedTask
from elytra.service.worker_pool import Worker, WorkerPool
from sennit_core.records import AttemptState, JobState, TaskState

__all__ = ["Attempt", "PendingTasks", "ScheduledJob", "Task"]


@dataclass(slots=True, eq=False)
class Attempt:
    """One execution of a task by a worker."""

    id: str
    job: ScheduledJob
    task: Task
    worker: Worker
    leased_at: float
    # "leased" until the first message of the attempt, which may already be its result.
    state: AttemptState = "leased"
    started_at: float = 0.0
    # When it last progressed, or was leased.
    progressed_at: float = 0.0

    @property
    def lease_end(self) -> float:
        """When it is lost, if it does not progress and its worker has leases."""
        progressed_at = self.progressed_at
        # It may wait in its worker's own queue for the end of another, which makes progress.
        if self.state == "leased":
            progressed_at = max(progressed_at, self.worker.progressed_at)
        return progressed_at + self.job.durations.lease_seconds(self.worker.lease_seconds or 0.0)


@dataclass(slots=True, eq=False)
class Task:
    """One task of a job."""

    key: str
    size_bytes: int
    # The object id of its shard; empty if it has none.
    input: str = ""
    state: TaskState = "pending"
    # Attempts made, including the current ones; also counts up the number in their ids, so an id is
    # never reused and a delayed message cannot be confused with one of a newer attempt.
    attempts: int = 0
    # The attempts whose result counts, the first of them: one, two if it is slow, and none unless the
    # task is leased or running.
    live: list[Attempt] = field(default_factory=list)
    # Workers to avoid as long as there is another one.
    failed_on: set[str] = field(default_factory=set)
    failures: int = 0
    # Whether a second attempt was made because the first was slow; it is made once.
    is_duplicated: bool = False
    # Not None iff the task is done.
    partial: JsonObject | None = None
    # The attempt whose result that is, and its worker; empty if a previous run of the node has it.
    result_of: str = ""
    result_by: str = ""

    @property
    def token(self) -> str | None:
        """The token of the remote worker that computed the result; None if none did."""
        return None if self.partial is None else self.partial.get("token")

    @property
    def cost(self) -> int:
        """What it costs its job's share."""
        return task_cost(self.size_bytes)


class PendingTasks:
    """The tasks of a job that wait for a worker."""

    def __init__(self) -> None:
        # Tasks that have not failed, in shard order. Those that a worker got because it has their
        # input stay here, and are passed over when they come to the front.
        self._fresh: deque[Task] = deque()
        # Tasks that have failed, the newest first: a task that always fails should end its job early.
        self._retries: deque[Task] = deque()
        # Fresh tasks by the workers that have their input; some may have been assigned meanwhile.
        self._local: dict[str, deque[Task]] = {}
        # Number of pending tasks: those of `_retries`, and the fresh ones that were not assigned.
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, task: Task, pool: WorkerPool | None = None) -> None:
        """Add a fresh task."""
        self._fresh.append(task)
        self._count += 1
        if pool is not None and task.input and pool.has_caches():
            for worker_id in pool.holders(task.input):
                self._local.setdefault(worker_id, deque()).append(task)

    def add_retry(self, task: Task) -> None:
        """Add a task that has failed."""
        self._retries.appendleft(task)
        self._count += 1

    def set_local(self, worker_id: str, cached: frozenset[str]) -> None:
        """Note what a worker has cached; again if it has changed."""
        self._local.pop(worker_id, None)
        found = deque(task for task in self._fresh if task.input in cached) if cached else None
        if found:
            self._local[worker_id] = found

    def forget_worker(self, worker_id: str) -> None:
        """Note that a worker has left."""
        self._local.pop(worker_id, None)

    def pop(self, pool: WorkerPool) -> tuple[Task, Worker] | None:
        """Remove a task that a free worker may run, and return both; None if there is none.

        Bytes that need not be moved decide before the order of shards, and failed tasks before both.
        """
        for task in self._retries:
            worker = pool.free_untried(task.failed_on)
            if worker is not None:
                self._retries.remove(task)
                self._count -= 1
                return task, worker
        return self._pop_local(pool) or self._pop_fresh(pool)

    def _pop_local(self, pool: WorkerPool) -> tuple[Task, Worker] | None:
        while self._local:
            worker = pool.free_holder(self._local)
            if worker is None:
                return None
            tasks = self._local[worker.id]
            while tasks:
                task = tasks.popleft()
                if task.state == "pending" and not task.failures:
                    self._count -= 1
                    return task, worker
            del self._local[worker.id]
        return None

    def _pop_fresh(self, pool: WorkerPool) -> tuple[Task, Worker] | None:
        while self._fresh:
            task = self._fresh.popleft()
            # A failed task is in `_retries`, if it is pending.
            if task.state == "pending" and not task.failures:
                self._count -= 1
                return task, pool.next_free()
        return None


class ScheduledJob:
    """A job that has not ended.

    Args:
        submission: The event that submitted it.
    """

    def __init__(self, submission: JobSubmitted) -> None:
        self.id = submission.job
        self.submission = submission
        self.engine = submission.engine
        self.user = submission.user
        self.has_merge = submission.has_merge
        self.weight = PRIORITIES[submission.options.priority]
        self.user_weight = submission.user_weight
        self.state: JobState = "queued"
        # Empty while the job is queued; afterwards one per key. Python keeps the order of insertion,
        # which is shard order, so the merge needs no sorting.
        self.tasks: dict[str, Task] = {}
        # The tasks whose state is pending.
        self.pending = PendingTasks()
        # The attempts of its tasks whose result counts, oldest first.
        self.live: dict[str, Attempt] = {}
        # Number of tasks in state done, and the poisoned ones that the result will lack.
        self.done_count = 0
        self.skipped: list[SkippedTask] = []
        # Merges started. Reports carry the number of their merge; those of earlier ones are ignored.
        self.merges = 0
        self.is_merge_running = False
        # Whether a result of a discredited worker is among those that the running merge reads. All are
        # computed again when it has ended: it may have removed them.
        self.is_tainted = False
        # Bytes of results that wait for the merge; 0 if no merge reads them.
        self.unmerged_bytes = 0
        self.durations = Durations()

    def begin(self, pool: WorkerPool) -> None:
        """Create the tasks; results of a previous run of the node count."""
        submission = self.submission
        for key in submission.tasks:
            task = Task(key, submission.sizes.get(key, 0), submission.inputs.get(key, ""))
            self.tasks[key] = task
            partial = submission.done.get(key)
            if partial is None:
                self.pending.add(task, pool)
            else:
                task.state = "done"
                self.finish(task, partial)

    def finish(self, task: Task, partial: JsonObject, attempt: Attempt | None = None) -> None:
        """Count a task's result, of an attempt or of a previous run of the node."""
        task.partial = partial
        if attempt is not None:
            task.result_of, task.result_by = attempt.id, attempt.worker.id
        self.done_count += 1
        if self.submission.holds_partials:
            self.unmerged_bytes += int(partial.get("bytes") or 0)

    def retract(self, task: Task) -> JsonObject:
        """Do not count a task's result any more, and return it."""
        assert task.partial is not None
        partial, task.partial = task.partial, None
        if task.result_by:
            task.failed_on.add(task.result_by)
        # Also so that it is not taken as a fresh task, in whose queue it may still be.
        task.failures += 1
        self.done_count -= 1
        if self.submission.holds_partials:
            self.unmerged_bytes -= int(partial.get("bytes") or 0)
        return partial

    @property
    def is_complete(self) -> bool:
        """Whether no task is left to run."""
        return self.done_count + len(self.skipped) == len(self.tasks)

    @property
    def partials(self) -> tuple[JsonObject, ...]:
        """The results, in the order of the tasks: that of the shards, and not of their arrival.

        It decides the order of rows.
        """
        return tuple(task.partial for task in self.tasks.values() if task.partial is not None)
