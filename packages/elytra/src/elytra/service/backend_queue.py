"""The workers of one backend and the jobs that wait for them: which task is next, on which worker."""

from __future__ import annotations

from collections import OrderedDict

from elytra.service.fairness import FairQueue
from elytra.service.scheduled_jobs import ScheduledJob, Task
from elytra.service.worker_pool import Worker, WorkerPool

__all__ = ["BackendQueue"]


class BackendQueue:
    """The running jobs of one backend.

    Args:
        unmerged_bytes_max: Results on disk that wait for a job's merge. A job with more gets no
            further tasks, but for one such job at a time: it comes to its merge, which frees them.
    """

    def __init__(self, unmerged_bytes_max: int) -> None:
        self.pool = WorkerPool()
        self._unmerged_bytes_max = unmerged_bytes_max
        # The jobs with pending tasks, except those that backpressure stops.
        self._jobs: FairQueue[ScheduledJob] = FairQueue()
        # Jobs over the limit, from when they exceeded it to their end; only the first gets tasks.
        self._over_limit: OrderedDict[str, ScheduledJob] = OrderedDict()

    def add(self, job: ScheduledJob) -> None:
        """Let a job have tasks assigned, if it has pending tasks and is not over the limit."""
        over = self._over_limit
        if job.pending and (job.id not in over or next(iter(over)) == job.id):
            self._jobs.add(job.user, job, job.weight, job.user_weight)

    def check_unmerged(self, job: ScheduledJob) -> None:
        """Stop a job that has come over the limit while another one is."""
        if job.unmerged_bytes < self._unmerged_bytes_max or not job.pending:
            return
        self._over_limit.setdefault(job.id, job)
        if next(iter(self._over_limit)) != job.id:
            self._jobs.remove(job.user, job)

    def end(self, job: ScheduledJob) -> None:
        """Remove a job; the next one over the limit continues."""
        self._jobs.remove(job.user, job)
        if self._over_limit.pop(job.id, None) is not None and self._over_limit:
            self.add(next(iter(self._over_limit.values())))

    def pop(self) -> tuple[ScheduledJob, Task, Worker] | None:
        """Remove the next task that a free worker may run; None if there is none."""
        if not self.pool.has_free or not self._jobs:
            return None
        for job in self._jobs.rotation():
            popped = job.pending.pop(self.pool)
            if popped is not None:
                task, worker = popped
                self._jobs.charge(job.user, job, task.cost)
                if not job.pending:
                    self._jobs.remove(job.user, job)
                return job, task, worker
        return None
