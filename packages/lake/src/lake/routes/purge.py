"""POST /api/datasets/{dataset}/purge: remove rows from every version of a dataset."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from lake.routes.documents import Document, read_document
from lake.routes.requester import requester_of
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

_WAIT_SECONDS = 10.0  # for readers; a client waits for the response


class PurgeDocument(Document):
    """The body: the condition, as after WHERE, and its parameters."""

    where: str
    params: list[Any] | dict[str, Any] | None = None


def router(lake: Lake) -> APIRouter:
    """Return the route of purges; a dataset's owner and admins may use it."""
    routes = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @routes.post("/{dataset}/purge", openapi_extra=needs("writer"))
    async def purge(dataset: str, request: Request) -> dict[str, Any]:
        """Remove the rows that meet a condition from every kept version; there is no way back."""
        document = await read_document(request, PurgeDocument)
        requester = requester_of(request)
        info = await asyncio.to_thread(lake.policies.check_manage, dataset, requester, "purging")
        report = await asyncio.to_thread(
            lake.purge, info.id, document.where, params=document.params, user=requester.name,
            wait_seconds=_WAIT_SECONDS,
        )  # fmt: skip
        return report.to_json()

    return routes
