"""The record of a pipeline's job, and its submission as it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elytra.backends import FUNCTION_ENGINE
from elytra.backends.remote.backend import RemoteBackend
from emsqrt.plan import plan_hash, plan_to_json
from sennit_core.records import JobInfo

if TYPE_CHECKING:
    from elytra.service.plan_binding import BoundPlan, PlanRequest

__all__ = ["record_of"]


def record_of(
    request: PlanRequest, bound: BoundPlan, created_at: float, rerun_of: str | None
) -> tuple[JobInfo, dict[str, Any]]:
    """Return the record of a new job, and what a restart needs of its submission.

    Args:
        request: What was submitted.
        bound: The plan over pinned sources.
        created_at: Unix time in seconds.
        rerun_of: The job that this one computes again.
    """
    work = bound.work
    # A record is not encrypted, and a plan may have values; its hash would confirm a guess.
    shown = None if work.secret is not None else bound.plan
    job = JobInfo(
        id=work.job,
        kind="plan",
        plan=None if shown is None else plan_to_json(shown),
        plan_hash=None if shown is None else plan_hash(shown),
        # As it was submitted, and is when it is retried or resumed.
        engine=RemoteBackend.name if work.engine == FUNCTION_ENGINE else work.engine,
        state="queued",
        progress=None,
        submitted_by=request.requester.name,
        created_at=created_at,
        rerun_of=rerun_of,
    )
    note = {
        "plan": job.plan,
        "memCapBytes": request.mem_cap_bytes,
        "datasets": sorted(set(work.datasets.values())),
        "sealed": work.secret is not None,
        "options": request.options.to_json(),
        "allowPartial": request.allow_partial,
        "role": request.requester.role,
        "resumable": bound.is_resumable,
    }
    return job, note
