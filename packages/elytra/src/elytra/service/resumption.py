"""Continue a pipeline that a previous run of the node began: same snapshots, and results on disk count."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from elytra.service.job_options import JobOptions
from elytra.service.messages import JobSubmitted, JsonObject
from elytra.service.plan_binding import PlanBinder, PlanRequest
from elytra.service.work import PlanWork, remove_other_outputs
from emsqrt.plan import plan_from_json
from lake.statements.limits import Requester
from sennit_core.errors import DeadlineExceeded, Unsupported
from sennit_core.records import JobInfo

__all__ = ["Resumed", "resume"]

_STALLS_MAX = 3
"""Restarts of the node in a row during which a job computed nothing: it may be what ends the node."""
_ATTEMPTS_OF_A_RUN = 1000
"""Attempt numbers for each run of the node, more than a task has: a worker that outlived the previous run
may still report its attempts, which must not be confused with those of this run."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A job to be continued.

    Args:
        work: Its tasks.
        submission: The event that submits it.
        note: Its submission, as it is stored from now on.
    """

    work: PlanWork
    submission: JobSubmitted
    note: dict[str, Any]


def resume(
    job: JobInfo,
    note: Mapping[str, Any],
    binder: PlanBinder,
    held: ExitStack,
    *,
    now: float,
    wrong_tokens: Container[str] = (),
) -> Resumed:
    """Bind the plan of a job again.

    Args:
        job: Its record.
        note: Its submission, as it is stored.
        binder: Binds plans.
        held: Leases what it reads.
        now: The time, in Unix seconds.
        wrong_tokens: Those whose workers returned wrong rows: no result of them counts.

    Raises:
        SennitError: What it read is gone, or the user may not read it any more.
        Unsupported: It read a query or an encrypted dataset, or the node has restarted too often.
        DeadlineExceeded: Its deadline is over.
    """
    if note.get("plan") is None or not note.get("resumable"):
        raise Unsupported("it read a view, an encrypted dataset, or under a policy")
    options = _remaining(job, JobOptions.from_json(note.get("options") or {}), now)
    role = str(note.get("role") or "")
    requester = Requester(job.submitted_by, is_admin=role == "admin", role=role)
    request = PlanRequest(
        plan_from_json(note["plan"]),
        job.engine,
        requester,
        note.get("memCapBytes"),
        options,
        is_resumed=True,
    )
    bound = binder.bind(request, job.id, held)
    if not bound.is_resumable:
        raise Unsupported("it would read under a policy now")
    found = {} if bound.work.journal is None else bound.work.journal.read()
    done = {
        task: partial for task, partial in found.items() if partial.get("token") not in wrong_tokens
    }
    remove_other_outputs(bound.work.folder, done.values())
    restarts = _restarts(note, done)
    submission = bound.work.submission(done, 1 + _ATTEMPTS_OF_A_RUN * restarts["restarts"])
    return Resumed(bound.work, submission, {**note, **restarts})


def _remaining(job: JobInfo, options: JobOptions, now: float) -> JobOptions:
    if options.deadline_seconds is None:
        return options
    left = options.deadline_seconds - max(0.0, now - job.created_at)
    if left <= 0:
        raise DeadlineExceeded(f"job {job.id}", options.deadline_seconds)
    return replace(options, deadline_seconds=left)


def _restarts(note: Mapping[str, Any], done: Mapping[str, JsonObject]) -> dict[str, int]:
    """Return the members of a submission that count restarts; refuse a job that makes no progress."""
    has_progress = len(done) > int(note.get("resumedTasks") or 0)
    stalls = 0 if has_progress else int(note.get("stalls") or 0) + 1
    if stalls > _STALLS_MAX:
        raise Unsupported(f"the node restarted {stalls} times, and the job computed nothing")
    restarts = int(note.get("restarts") or 0) + 1
    return {"restarts": restarts, "stalls": stalls, "resumedTasks": len(done)}
