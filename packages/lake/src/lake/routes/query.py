"""POST /api/query: run SQL and stream the result as Arrow IPC, JSON or CSV, by `Accept`.

A statement that changes datasets needs the role `writer`; the result is its number of rows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lake.peers.transport.stop import Stop
from lake.routes.requester import requester_of
from lake.routes.results import negotiate, stream_result
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.statements.running import RunningStatement

__all__ = ["QueryRequest", "parse_query_request", "respond", "router"]

_SQL_MAX = 1 << 20
_ROWS_MAX = (1 << 63) - 1
_DEADLINE_SECONDS_MAX = 7 * 24 * 3600


class QueryRequest(BaseModel):
    """Body of POST /api/query."""

    model_config = ConfigDict(extra="forbid")

    sql: Annotated[str, Field(max_length=_SQL_MAX)]
    params: list[Any] | dict[str, Any] | None = None
    engine: str | None = None
    priority: str = "interactive"
    allow_partial: Annotated[bool, Field(alias="allowPartial")] = False
    queue: bool = False
    max_rows: Annotated[int | None, Field(alias="maxRows", ge=0, le=_ROWS_MAX)] = None
    deadline_seconds: Annotated[
        float | None, Field(alias="deadlineSeconds", gt=0, le=_DEADLINE_SECONDS_MAX)
    ] = None


def router(lake: Lake) -> APIRouter:
    """Return the query route."""
    routes = APIRouter(tags=["query"])

    @routes.post("/api/query", response_class=StreamingResponse, openapi_extra=needs("reader"))
    async def post_query(query: Annotated[QueryRequest, Body()], request: Request) -> Response:
        """Run one SQL statement."""
        return await respond(lake, query, request)

    return routes


async def respond(lake: Lake, query: QueryRequest, request: Request) -> Response:
    """Run one SQL statement and respond in the format that the request accepts."""
    format_name = negotiate(request.headers.get("Accept", ""))
    requester, limits = requester_of(request), lake.query_limits

    stop = Stop()

    def start() -> RunningStatement:
        return lake.run(
            query.sql,
            params=query.params,
            format=format_name,
            max_rows=limits.rows(query.max_rows, format_name),
            deadline_seconds=limits.deadline_seconds(query.deadline_seconds, requester),
            engine=query.engine or limits.engine,
            priority=query.priority,
            user=requester.name,
            role=requester.role,
            read_only=not requester.may_write,
            allow_partial=query.allow_partial,
            queue=query.queue,
            stop=stop,
            use_cache=may_use_cache(",".join(request.headers.getlist("Cache-Control"))),
        )

    return await stream_result(start, request, format_name, stop)


def may_use_cache(cache_control: str) -> bool:
    """Return whether a request's Cache-Control header allows a cached result (RFC 9111, 5.2.1)."""
    directives = {each.partition("=")[0].strip().lower() for each in cache_control.split(",")}
    return not directives & {"no-cache", "no-store"}


def parse_query_request(content_type: str, body: bytes) -> QueryRequest | None:
    """Parse a JSON body; return None to let the FastAPI route handle it and report errors.

    FastAPI's routing and parameter handling cost more than a small query.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return None
    try:
        return QueryRequest.model_validate(json.loads(body))
    except (ValueError, RecursionError):  # not JSON, not a valid request, or nested too deeply
        return None
