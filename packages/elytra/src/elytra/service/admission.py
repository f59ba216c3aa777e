"""Which queued jobs may run: those of the users with the fewest running jobs first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from elytra.service.scheduled_jobs import ScheduledJob

__all__ = ["Admission"]


class Admission:
    """The queued jobs by user, and how many jobs of each user run.

    Args:
        running_jobs_max: Jobs that may run or merge at the same time.
    """

    def __init__(self, running_jobs_max: int) -> None:
        self._running_jobs_max = running_jobs_max
        # In order of submission; no entry is empty.
        self._queued: OrderedDict[str, deque[ScheduledJob]] = OrderedDict()
        # Of the users who have any; `_busy` is their sum.
        self._running: dict[str, int] = {}
        self._busy = 0

    def add(self, job: ScheduledJob) -> None:
        """Queue a job."""
        self._queued.setdefault(job.user, deque()).append(job)

    def admitted(self) -> Iterator[ScheduledJob]:
        """Remove from the queue and yield jobs, as long as more may run."""
        while self._queued and self._busy < self._running_jobs_max:
            # So that a user with thousands of queued jobs does not delay the first of another.
            user = min(self._queued, key=lambda user: self._running.get(user, 0))
            jobs = self._queued[user]
            job = jobs.popleft()
            if not jobs:
                del self._queued[user]
            self._running[user] = self._running.get(user, 0) + 1
            self._busy += 1
            yield job

    def end(self, job: ScheduledJob) -> None:
        """Remove a job that ends, queued or not."""
        if job.state == "queued":
            jobs = self._queued[job.user]
            jobs.remove(job)
            if not jobs:
                del self._queued[job.user]
            return
        self._busy -= 1
        self._running[job.user] -= 1
        if not self._running[job.user]:
            del self._running[job.user]
