"""POST /api/query: SQL in, a stream of Arrow IPC, JSON or CSV out, as `Accept` says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lake.routes.answers import answer, negotiate
from lake.routes.requester import requester_of

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.queries import QueryExecution

__all__ = ["QueryRequest", "parse_query_request", "respond", "router"]

_SQL_MAX = 1 << 20
_ROWS_MAX = (1 << 63) - 1
_DEADLINE_SECONDS_MAX = 7 * 24 * 3600


class QueryRequest(BaseModel):
    """Body of POST /api/query."""

    model_config = ConfigDict(extra="forbid")

    sql: Annotated[str, Field(max_length=_SQL_MAX)]
    params: list[Any] | dict[str, Any] | None = None
    engine: str = "auto"
    allow_partial: Annotated[bool, Field(alias="allowPartial")] = False
    max_rows: Annotated[int | None, Field(alias="maxRows", ge=0, le=_ROWS_MAX)] = None
    deadline_seconds: Annotated[
        float | None, Field(alias="deadlineSeconds", gt=0, le=_DEADLINE_SECONDS_MAX)
    ] = None


def router(lake: Lake) -> APIRouter:
    """The query route."""
    routes = APIRouter(tags=["query"])

    @routes.post("/api/query", response_class=StreamingResponse)
    async def post_query(query: Annotated[QueryRequest, Body()], request: Request) -> Response:
        """Answer one SQL statement."""
        return await respond(lake, query, request)

    return routes


async def respond(lake: Lake, query: QueryRequest, request: Request) -> Response:
    """Answer one SQL statement in the format that the request accepts."""
    format_name = negotiate(request.headers.get("Accept", ""))
    requester, limits = requester_of(request), lake.query_limits

    def start() -> QueryExecution:
        return lake.query(
            query.sql,
            params=query.params,
            format=format_name,
            max_rows=limits.rows(query.max_rows, format_name),
            deadline_seconds=limits.deadline_seconds(query.deadline_seconds, requester),
            engine=query.engine,
            user=requester.name,
        )

    return await answer(start, request, format_name)


def parse_query_request(content_type: str, body: bytes) -> QueryRequest | None:
    """Return the query of a plain JSON body; None leaves the body, and its errors, to the route.

    The route spends more on finding itself and its parameters than a small query costs.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return None
    try:
        return QueryRequest.model_validate(json.loads(body))
    except (ValueError, RecursionError):  # not JSON, not of this form, or nested too deeply
        return None
