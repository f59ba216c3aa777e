"""Shows runs of the lake's maintenance as jobs, which users can watch and cancel."""

from __future__ import annotations

import threading
from typing import Any

from elytra.backends import NODE_ENGINE
from elytra.service.job_store import JobStore
from elytra.service.messages import JobChanged
from sennit_core.clock import Clock
from sennit_core.errors import Cancelled, SennitError
from sennit_core.ids import new_id
from sennit_core.records import JobInfo, Progress
from sennit_core.states import JobState

__all__ = ["KIND", "MaintenanceJobs"]

KIND = "maintenance"
_TASK = "t000000"


class MaintenanceJobs:
    """The jobs of maintenance (`lake.maintenance.maintenance.RunObserver`).

    Args:
        store: Keeps the records.
        clock: Source of the records' timestamps.
    """

    def __init__(self, store: JobStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._cancelled: set[str] = set()  # of the runs that have not ended

    def started(self, task: str, user: str) -> str:
        """Record a queued job; return its id."""
        job = JobInfo(
            id=new_id(self._clock),
            kind=KIND,
            plan=None,
            plan_hash=None,
            engine=NODE_ENGINE,
            state="queued",
            progress=None,
            submitted_by=user,
            created_at=self._clock.now(),
            result={"task": task},
        )
        self._store.add(job, {"task": task})
        self._store.begin_tasks(job.id, {_TASK: (None, None)})
        return job.id

    def progressed(self, run_id: str, progress: Progress) -> None:
        """Publish how far a run is."""
        if self._store.get(run_id).state == "queued":
            self._store.record([JobChanged(run_id, "running")])
        self._store.progress(run_id, _TASK, progress)
        self._store.show_progress()

    def ended(self, run_id: str, result: dict[str, Any], error: SennitError | None) -> None:
        """Record the end of a run."""
        with self._lock:
            self._cancelled.discard(run_id)
        state: JobState = "done" if error is None else "failed"
        if isinstance(error, Cancelled):
            state = "cancelled"
        document = None if error is None else error.to_json()
        self._store.record([JobChanged(run_id, state, error=document, result=result)])

    def is_cancelled(self, run_id: str) -> bool:
        """Return whether a user has cancelled a run."""
        return run_id in self._cancelled

    def cancel(self, run_id: str) -> None:
        """Let a run end; the next one continues there."""
        with self._lock:
            self._cancelled.add(run_id)
