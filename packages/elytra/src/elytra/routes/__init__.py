"""elytra.routes: the HTTP endpoints of jobs and of remote workers.

Layering: jobs and workers, which know nothing of each other; `lake.routes.documents` reads request
bodies. Errors are raised as `SennitError`; the gateway maps them to HTTP statuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from elytra.routes import jobs as job_routes
from elytra.routes import workers

if TYPE_CHECKING:
    from elytra.service.job_service import JobService

__all__ = ["router"]


def router(jobs: JobService) -> APIRouter:
    """Return the routes of jobs, and of the workers that connect to the node.

    Args:
        jobs: Runs the jobs.
    """
    routes = APIRouter()
    routes.include_router(job_routes.router(jobs))
    routes.include_router(workers.router(jobs.remote, jobs.corrections.jobs_of))
    return routes
