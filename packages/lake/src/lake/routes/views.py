"""GET /api/views: the views that a user may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from lake.routes.requester import requester_of
from lake.views.access import views_shown
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]


def router(lake: Lake) -> APIRouter:
    """Return the route of views."""
    routes = APIRouter(tags=["datasets"])

    @routes.get("/api/views", openapi_extra=needs("reader"))
    def list_views(request: Request) -> list[dict[str, Any]]:
        """The views; without text and columns where a policy hides a part of what they read."""
        found = views_shown(lake.catalog, lake.policies, requester_of(request))
        return [view.to_json() for view in found]

    return routes
