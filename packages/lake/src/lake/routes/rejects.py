"""GET /api/datasets/{id}/rejects: the rows that an ingest left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from lake.routes.requester import requester_of
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]


def router(lake: Lake) -> APIRouter:
    """Return the route of rejected rows."""
    routes = APIRouter(tags=["datasets"])

    @routes.get("/api/datasets/{dataset}/rejects", openapi_extra=needs("reader"))
    def get_rejects(dataset: str, request: Request, snapshot: str | None = None) -> FileResponse:
        """The rows that an ingest with `onBadRow: skip` left out, as JSON Lines."""
        # They may hold what a policy hides.
        info = lake.policies.check_whole(dataset, requester_of(request), "reading rejected rows of")
        file = lake.storage.rejects.find(info, snapshot)
        return FileResponse(file, media_type="application/x-ndjson")

    return routes
