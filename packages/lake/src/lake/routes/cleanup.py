"""The cleanup: what its next run would remove, the trash, and which datasets are kept from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from lake.routes.documents import Document, read_document
from lake.routes.requester import requester_of
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]


class RestoreDocument(Document):
    """Body of POST /api/trash/{dataset}/restore."""

    name: str | None = None


def router(lake: Lake) -> APIRouter:
    """Return the routes of the cleanup."""
    routes = APIRouter(tags=["maintenance"])

    @routes.get("/api/cleanup", openapi_extra=needs("admin"))
    def plan() -> list[dict[str, Any]]:
        """The datasets that the cleanup would remove now, and why some of them stay."""
        return [each.to_json() for each in lake.cleanup.plan()]

    @routes.get("/api/trash", openapi_extra=needs("admin"))
    def trash() -> list[dict[str, Any]]:
        """The datasets that the cleanup has removed and that can be restored."""
        return [
            {name: value for name, value in row.to_json().items() if name not in ("info", "purges")}
            | {"id": dataset}
            for dataset, row in lake.cleanup.trash().items()
        ]

    @routes.post("/api/trash/{dataset}/restore", openapi_extra=needs("admin"))
    async def restore(dataset: str, request: Request) -> dict[str, Any]:
        """Put a dataset back with all its versions, under another name if one is given."""
        document = await read_document(request, RestoreDocument)
        info = await asyncio.to_thread(lake.cleanup.restore, dataset, document.name)
        return info.to_json()

    path = "/api/datasets/{dataset}/keep"

    @routes.put(path, openapi_extra=needs("writer"))
    def keep(dataset: str, request: Request) -> Response:
        """Keep a dataset from the cleanup; needs the right to change it."""
        requester = requester_of(request)
        lake.policies.check_change(dataset, requester)
        lake.storage.access.keep(lake.catalog.get(dataset).id, requester.name)
        return Response(status_code=204)

    @routes.delete(path, openapi_extra=needs("writer"))
    def release(dataset: str, request: Request) -> Response:
        """Let the cleanup remove a dataset again."""
        lake.policies.check_change(dataset, requester_of(request))
        lake.storage.access.release(lake.catalog.get(dataset).id)
        return Response(status_code=204)

    return routes
