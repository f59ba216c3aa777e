"""Routes about appends that wait for the nodes that write their datasets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from lake import Lake
from lake.distributed.queued_appends import shown
from lake.peers.service import PeerService
from lake.routes.requester import requester_of
from sennit_core.roles import needs

__all__ = ["router"]


def router(peers: PeerService, lake: Lake) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/api/network/queue", tags=["network"])

    @routes.get("", openapi_extra=needs("reader"))
    def list_appends(request: Request) -> list[dict[str, Any]]:
        """The user's appends that wait, or were not committed, in their order; an admin sees all."""
        found = lake.queued.list(requester_of(request))
        names = {node.member.id: node.member.name for node in peers.nodes()} if found else {}
        return [shown(each) | {"writer": names.get(each.writer, each.writer)} for each in found]

    @routes.delete("/{append}", openapi_extra=needs("writer"))
    def remove(append: str, request: Request, *, forget: bool = False) -> dict[str, Any]:
        """Take an append back, or remove one that has ended."""
        requester = requester_of(request)
        return {"removed": shown(lake.queued.remove(append, requester, forget=forget))}

    @routes.post("/{append}/retry", openapi_extra=needs("writer"))
    def retry(append: str, request: Request) -> dict[str, Any]:
        """Queue an append again that was refused, or has expired; it gets a new id."""
        return shown(lake.queued.retry(append, requester_of(request)))

    return routes
