"""The versions of a dataset: tags, changes between two of them, expiry, and compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lake.routes.requester import requester_of
from lake.routes.results import negotiate, stream_result
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.statements.running import RunningStatement

__all__ = ["router"]

_NUMBER_MAX = 1 << 53


class TagRequest(BaseModel):
    """Body of PUT /api/datasets/{dataset}/tags/{tag}."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int, Field(ge=1, le=_NUMBER_MAX)]


class ExpireRequest(BaseModel):
    """Body of POST /api/datasets/{dataset}/expire."""

    model_config = ConfigDict(extra="forbid")

    keep: Annotated[int, Field(ge=1, le=_NUMBER_MAX)] = 1
    older_than_seconds: Annotated[float, Field(alias="olderThanSeconds", ge=0, le=_NUMBER_MAX)] = 0


def router(lake: Lake) -> APIRouter:
    """Return the routes of a dataset's versions; an `{id}` may also be a name."""
    routes = APIRouter(prefix="/api/datasets/{dataset}", tags=["datasets"])

    @routes.get("/tags", openapi_extra=needs("reader"))
    def list_tags(dataset: str, request: Request) -> dict[str, str]:
        """The ids of the snapshots that have a tag, by tag."""
        lake.policies.visible(dataset, requester_of(request))
        return lake.catalog.tags(dataset)

    @routes.put("/tags/{tag}", openapi_extra=needs("writer"))
    def put_tag(
        dataset: str, tag: str, target: Annotated[TagRequest, Body()], request: Request
    ) -> dict[str, str]:
        """Give a version a tag, which keeps it from being expired; return all tags."""
        lake.policies.check_change(dataset, requester_of(request))
        lake.tag(dataset, tag, target.version)
        return lake.catalog.tags(dataset)

    @routes.delete("/tags/{tag}", openapi_extra=needs("writer"))
    def delete_tag(dataset: str, tag: str, request: Request) -> dict[str, str]:
        """Remove a tag; return the others."""
        lake.policies.check_change(dataset, requester_of(request))
        lake.catalog.set_tag(dataset, tag, None)
        return lake.catalog.tags(dataset)

    @routes.get("/changes", response_class=StreamingResponse, openapi_extra=needs("reader"))
    async def get_changes(
        dataset: str,
        request: Request,
        since: Annotated[str, Query(max_length=128)],
        until: Annotated[str | None, Query(max_length=128)] = None,
    ) -> Response:
        """The rows that were added and removed between two versions, each a number or a tag."""
        format_name = negotiate(request.headers.get("Accept", ""))
        requester, limits = requester_of(request), lake.query_limits

        def start() -> RunningStatement:
            return lake.changes(
                dataset,
                _version(since),
                None if until is None else _version(until),
                format=format_name,
                max_rows=limits.rows(None, format_name),
                deadline_seconds=limits.deadline_seconds(None, requester),
                user=requester.name,
                role=requester.role,
            )

        return await stream_result(start, request, format_name)

    @routes.post("/expire", openapi_extra=needs("writer"))
    def expire(
        dataset: str, limits: Annotated[ExpireRequest, Body()], request: Request
    ) -> dict[str, Any]:
        """Remove old snapshots without a tag, and the objects that only they used."""
        lake.policies.check_change(dataset, requester_of(request))
        gone = lake.expire(dataset, keep=limits.keep, older_than_seconds=limits.older_than_seconds)
        return {"versions": list(gone)}

    @routes.post("/compact", openapi_extra=needs("writer"))
    def compact(dataset: str, request: Request) -> dict[str, Any]:
        """Write small shards anew as larger ones."""
        requester = requester_of(request)
        lake.policies.check_change(dataset, requester)
        return lake.compact(dataset, user=requester.name).to_json()

    return routes


def _version(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text
