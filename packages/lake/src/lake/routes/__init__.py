"""The lake's HTTP API: datasets, their files, and SQL.

Errors are raised unchanged; the gateway maps each class to an HTTP status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from lake.routes import aborted_results, datasets, files, query, verify
from lake.routes.query import parse_query_request, respond

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["parse_query_request", "respond", "router"]


def router(lake: Lake) -> APIRouter:
    """Return all routes of the lake.

    Args:
        lake: The lake to serve; must outlive the application.
    """
    routes = APIRouter()
    routes.include_router(datasets.router(lake))
    routes.include_router(files.router(lake))
    routes.include_router(query.router(lake))
    routes.include_router(verify.router(lake))
    routes.include_router(aborted_results.router())
    return routes
