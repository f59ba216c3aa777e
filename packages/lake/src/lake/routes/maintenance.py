"""Maintenance: its state, runs on request, and how long the versions of a dataset are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from lake.maintenance.retention_rules import RetentionRule
from lake.routes.requester import requester_of
from lake.storage_report import maintenance_report
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

_NUMBER_MAX = 1 << 53


class RetentionDocument(BaseModel):
    """Body of PUT /api/datasets/{dataset}/retention."""

    model_config = ConfigDict(extra="forbid")

    keep: Annotated[int, Field(ge=0, le=_NUMBER_MAX)] = 0
    older_than_seconds: Annotated[float, Field(alias="olderThanSeconds", ge=0, le=_NUMBER_MAX)] = 0


def router(lake: Lake) -> APIRouter:
    """Return the routes of maintenance."""
    routes = APIRouter(tags=["maintenance"])

    @routes.get("/api/maintenance", openapi_extra=needs("reader"))
    def states(request: Request) -> list[dict[str, Any]]:
        """The tasks, when each ran and what it did, and when it runs next."""
        return maintenance_report(lake, requester_of(request))

    @routes.post("/api/maintenance/{task}", openapi_extra=needs("admin"))
    def run_task(task: str, request: Request) -> dict[str, str]:
        """Run a task next, as a job; one that waits already is not added again."""
        return {"jobId": lake.maintenance.request(task, requester_of(request).name).id}

    path = "/api/datasets/{dataset}/retention"

    @routes.get(path, openapi_extra=needs("reader"))
    def get_retention(dataset: str, request: Request) -> dict[str, Any]:
        """The rule by which versions of a dataset expire; `keep` 0 keeps all."""
        info = lake.policies.visible(dataset, requester_of(request))
        return lake.storage.retention_rules.get(info.id).to_json()

    @routes.put(path, openapi_extra=needs("writer"))
    def put_retention(
        dataset: str, rule: Annotated[RetentionDocument, Body()], request: Request
    ) -> dict[str, Any]:
        """Set the rule of a dataset; needs the right to change it."""
        lake.policies.check_change(dataset, requester_of(request))
        wanted = RetentionRule(rule.keep, rule.older_than_seconds)
        return lake.storage.retention_rules.set(dataset, wanted).to_json()

    @routes.delete(path, openapi_extra=needs("writer"))
    def delete_retention(dataset: str, request: Request) -> dict[str, Any]:
        """Remove the rule of a dataset; return the node's, which applies now."""
        lake.policies.check_change(dataset, requester_of(request))
        return lake.storage.retention_rules.set(dataset, None).to_json()

    return routes
