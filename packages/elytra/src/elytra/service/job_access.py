"""Which datasets a job reads, and so who may see its plan, errors and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from elytra.splitter import datasets_of
from emsqrt.plan import plan_from_json
from sennit_core.errors import Corrupt, Denied, NotFound

if TYPE_CHECKING:
    from lake import Lake
    from lake.statements.limits import Requester
    from sennit_core.records import JobInfo

__all__ = ["datasets_of_job", "may_read"]


def datasets_of_job(job: JobInfo, note: Mapping[str, Any]) -> Sequence[str]:
    """Return the ids of the datasets that a job reads, also through views, or makes.

    Args:
        job: Its record.
        note: Its submission.
    """
    if "dataset" in note:
        return [note["dataset"]]
    if "datasets" in note:
        return list(note["datasets"])
    if job.plan is None:
        return []
    return [ref.dataset for ref in datasets_of(plan_from_json(job.plan))]


def may_read(lake: Lake, job: JobInfo, note: Mapping[str, Any], requester: Requester) -> bool:
    """Return whether a user may see a job: its submitter, admins, and who may read its datasets whole."""
    if not lake.policies or requester.is_trusted or job.submitted_by == requester.name:
        return True
    datasets = datasets_of_job(job, note)
    try:
        for dataset in datasets:
            lake.policies.check_whole(dataset, requester, "reading a job over")
    except (Denied, NotFound, Corrupt):
        return False
    return bool(datasets)
