"""Slow tasks at the end of a job, which a second worker may finish first.

Dean and Ghemawat, "MapReduce" (OSDI 2004), section 3.6, backup tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from elytra.service.scheduled_jobs import Attempt, ScheduledJob

__all__ = ["slow_attempts"]

_SLOW_FACTOR = 2.0
"""A running task is slow if it lasts longer than so many medians of its job."""
_SLOW_SECONDS_MIN = 2.0
"""And at least so long: with shorter ones the second attempt costs more than it saves."""
_SAMPLES_MIN = 3
"""Finished tasks of the job before any is called slow."""


def slow_attempts(job: ScheduledJob, now: float) -> Iterator[Attempt]:
    """Yield the attempts at slow tasks, each task once in its job's life.

    None while the job has pending tasks: workers then have better work. None on the slots of this
    node: a second attempt would compete with the first for the same processors.
    """
    if job.pending or not job.live or len(job.durations) < _SAMPLES_MIN:
        return
    slow_seconds = max(_SLOW_FACTOR * job.durations.median, _SLOW_SECONDS_MIN)
    for attempt in list(job.live.values()):
        if (
            attempt.state == "running"
            and attempt.worker.lease_seconds is not None
            and not attempt.task.is_duplicated
            and now - attempt.started_at > slow_seconds
        ):
            yield attempt
