"""The lake's HTTP API: datasets, their files, SQL, and uploads.

Layering: documents (request bodies, bounded and strict), requester, results <- the modules of routes <-
router. Errors are raised unchanged; the gateway maps each class to an HTTP status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from lake.routes import (
    aborted_results,
    cleanup,
    datasets,
    files,
    links,
    maintenance,
    policies,
    purge,
    queries,
    query,
    quotas,
    rejects,
    tus,
    uploads,
    verify,
    versions,
    views,
)
from lake.routes.query import parse_query_request, respond
from lake.routes.uploads import SubmitIngest

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["SubmitIngest", "parse_query_request", "respond", "router"]


def router(lake: Lake, submit_ingest: SubmitIngest) -> APIRouter:
    """Return all routes of the lake.

    Args:
        lake: The lake to serve; must outlive the application.
        submit_ingest: Starts the ingest of a complete upload as a job.
    """
    routes = APIRouter()
    routes.include_router(datasets.router(lake))
    routes.include_router(versions.router(lake))
    routes.include_router(policies.router(lake))
    routes.include_router(views.router(lake))
    routes.include_router(files.router(lake))
    routes.include_router(query.router(lake))
    routes.include_router(rejects.router(lake))
    routes.include_router(links.router(lake, submit_ingest))
    routes.include_router(queries.router(lake))
    routes.include_router(verify.router(lake))
    routes.include_router(maintenance.router(lake))
    routes.include_router(cleanup.router(lake))
    routes.include_router(purge.router(lake))
    routes.include_router(quotas.router(lake))
    routes.include_router(aborted_results.router())
    routes.include_router(uploads.router(lake, submit_ingest))
    routes.include_router(tus.router(lake, submit_ingest))
    return routes
