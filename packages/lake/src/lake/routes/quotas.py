"""Quotas of users, and what the lake stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from lake.access.quotas import JOB_WEIGHT_MAX, UserQuota
from lake.distributed.foreign_users import is_foreign
from lake.routes.requester import requester_of
from lake.storage_report import storage_report
from sennit_core.errors import NotFound
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

Number = Annotated[int, Field(ge=0, le=(1 << 53))]


class QuotaDocument(BaseModel):
    """Body of PUT /api/quotas/{user}; 0 is no limit, and a weight is from 1 on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    disk_bytes: Annotated[Number, Field(alias="diskBytes")] = 0
    memory_bytes: Annotated[Number, Field(alias="memoryBytes")] = 0
    statements: Number = 0
    statements_per_minute: Annotated[Number, Field(alias="statementsPerMinute")] = 0
    job_weight: Annotated[int, Field(alias="jobWeight", ge=1, le=JOB_WEIGHT_MAX)] = 1


def router(lake: Lake) -> APIRouter:
    """Return the routes of quotas and of storage statistics."""
    routes = APIRouter(tags=["node"])

    @routes.get("/api/quotas", openapi_extra=needs("admin"))
    def quotas() -> list[dict[str, Any]]:
        """The quota of every user that has one, with what the user stores."""
        return [lake.quotas.shown(quota) for quota in lake.quotas.list()]

    @routes.get("/api/quotas/{user}", openapi_extra=needs("reader"))
    def get_quota(user: str, request: Request) -> dict[str, Any]:
        """The quota of a user, and what is used of it; one's own, or any for an admin."""
        requester = requester_of(request)
        if not requester.is_trusted and requester.name != user:
            raise NotFound("quota of user", user, None)
        return lake.quotas.shown(lake.quotas.get(_with_node_id(lake, user)))

    @routes.put("/api/quotas/{user}", openapi_extra=needs("admin"))
    def put_quota(user: str, quota: Annotated[QuotaDocument, Body()]) -> dict[str, Any]:
        """Set the quota of a user, by the name of the user's tokens."""
        user = _with_node_id(lake, user)
        lake.quotas.set(UserQuota(user, **quota.model_dump()))
        return lake.quotas.shown(lake.quotas.get(user))

    @routes.delete("/api/quotas/{user}", openapi_extra=needs("admin"))
    def delete_quota(user: str) -> dict[str, Any]:
        """Remove the quota of a user."""
        return {"deleted": lake.quotas.remove(_with_node_id(lake, user))}

    @routes.get("/api/stats/storage", openapi_extra=needs("reader"))
    def storage(request: Request) -> dict[str, Any]:
        """What each dataset stores, what expiry and compaction can free, the disk, and maintenance."""
        return storage_report(lake, requester_of(request))

    return routes


def _with_node_id(lake: Lake, user: str) -> str:
    """Return `*@` and the id of a node that is named; any other user as it is."""
    node = user.removeprefix("*@")
    if node in (user, "*") or is_foreign(user):
        return user
    found = lake.remote.find_node(node)
    if found is None:
        raise NotFound("node", node, None, hint="`platform net nodes` lists them")
    return f"*@{found}"
