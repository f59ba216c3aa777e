"""GET and DELETE /api/queries: the statements that run, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from lake.routes.requester import requester_of
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]


def router(lake: Lake) -> APIRouter:
    """Return the routes of running queries."""
    routes = APIRouter(prefix="/api/queries", tags=["query"])

    @routes.get("", openapi_extra=needs("reader"))
    def list_queries(request: Request) -> list[dict[str, Any]]:
        """The user's queries that run or are queued, the oldest first; an admin sees everybody's."""
        return [info.to_json() for info in lake.running.list(requester_of(request))]

    # A reader's: everybody may stop what they have started themselves.
    @routes.delete("/{query_id}", openapi_extra=needs("reader"))
    def stop_query(query_id: str, request: Request) -> dict[str, Any]:
        """Stop a query: its client gets an error, and the executor is free."""
        return {"stopped": lake.running.stop(query_id, requester_of(request)).to_json()}

    return routes
