"""elytra.routes: the HTTP endpoints for uploads and jobs.

Layering: uploads, jobs <- router; request bodies are read by `lake.routes.documents`. Errors are
raised as `SennitError`; the gateway maps them to HTTP statuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from elytra.routes.jobs import jobs_router
from elytra.routes.uploads import uploads_router

if TYPE_CHECKING:
    from elytra.job_service import JobService
    from lake.uploads.parts import PartStore

__all__ = ["router"]


def router(jobs: JobService, parts: PartStore) -> APIRouter:
    """Return the routes of uploads and jobs.

    Args:
        jobs: Runs the jobs.
        parts: Stores the parts of uploads until they are ingested.
    """
    both = APIRouter()
    both.include_router(uploads_router(jobs, parts))
    both.include_router(jobs_router(jobs))
    return both
