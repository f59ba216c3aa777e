"""POST /api/query: SQL in, a stream of Arrow IPC, JSON or CSV out, as `Accept` says.

The first piece of the answer is waited for before the response begins, so whatever is wrong with
a query gets its own status. A client that goes away cancels its query.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Body, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from lake.queries import QueryExecution
from sennit_core.errors import Cancelled, SennitError, Unsupported, UsageError

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

ARROW_STREAM = "application/vnd.apache.arrow.stream"
_MEDIA_TYPES = {
    ARROW_STREAM: "arrow",
    "application/json": "json",
    "text/csv": "csv",
}
_SQL_MAX = 1 << 20


class Question(BaseModel):
    """Body of POST /api/query."""

    model_config = ConfigDict(extra="forbid")

    sql: Annotated[str, Field(max_length=_SQL_MAX)]
    params: list[Any] | dict[str, Any] | None = None
    engine: str = "auto"
    allow_partial: Annotated[bool, Field(alias="allowPartial")] = False
    max_rows: Annotated[int | None, Field(alias="maxRows", ge=0)] = None
    deadline_seconds: Annotated[float | None, Field(alias="deadlineSeconds", gt=0)] = None


def router(lake: Lake) -> APIRouter:
    """The query route."""
    routes = APIRouter(tags=["query"])

    @routes.post("/api/query")
    async def post_query(
        question: Annotated[Question, Body()], request: Request
    ) -> StreamingResponse:
        """Answer one SQL statement."""
        if question.engine not in ("auto", "duckdb"):
            raise Unsupported(f"engine {question.engine!r} does not answer SQL here; use auto")
        media_type = _negotiate(request.headers.get("Accept", ""))
        reader = await anyio.to_thread.run_sync(lambda: _start(lake, question, media_type))
        first = await _first(reader, request)
        return _Answer(first, reader, media_type)

    return routes


def _start(lake: Lake, question: Question, media_type: str) -> _Reader:
    execution = lake.query(
        question.sql,
        params=question.params,
        format=_MEDIA_TYPES[media_type],
        max_rows=question.max_rows,
        deadline_seconds=question.deadline_seconds,
    )
    return _Reader(execution)


class _Reader:
    """Reads an execution from worker threads; `stop` may come while one of them waits."""

    def __init__(self, execution: QueryExecution) -> None:
        self._execution = execution
        self._payloads = execution.payloads()
        self._lock = threading.Lock()

    def read(self) -> bytes | SennitError | None:
        """The next piece, None at the end, or what went wrong."""
        with self._lock:
            try:
                payload = next(self._payloads, None)
            except SennitError as error:
                return error
            return None if payload is None else bytes(payload)

    def stop(self) -> None:
        """Cancel what still runs, wait for a thread that reads, and free everything."""
        if not self._execution.done:
            self._execution.cancel()
        with self._lock:
            self._execution.close()


async def _read(reader: _Reader) -> bytes | None:
    piece = await anyio.to_thread.run_sync(reader.read, abandon_on_cancel=True)
    if isinstance(piece, SennitError):
        raise piece
    return piece


async def _stop(reader: _Reader) -> None:
    # Shielded: the client may be gone, and the query must be told so all the same.
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(reader.stop)


async def _first(reader: _Reader, request: Request) -> bytes:
    """The first piece; until it is there, a client that goes away ends the query."""
    pieces: list[bytes | SennitError | None] = []

    async def read() -> None:
        pieces.append(await anyio.to_thread.run_sync(reader.read, abandon_on_cancel=True))
        group.cancel_scope.cancel()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(watch)
    except BaseException:
        await _stop(reader)
        raise
    piece = pieces[0] if pieces else Cancelled("the query, whose client is gone,")
    if isinstance(piece, bytes):
        return piece
    await _stop(reader)
    if piece is None:
        return b""
    raise piece


async def _stream(first: bytes, reader: _Reader) -> AsyncIterator[bytes]:
    yield first
    while (piece := await _read(reader)) is not None:
        yield piece


class _Answer(StreamingResponse):
    """Streams an execution, and ends it however the response ends."""

    def __init__(self, first: bytes, reader: _Reader, media_type: str) -> None:
        headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept"}
        super().__init__(_stream(first, reader), media_type=media_type, headers=headers)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _stop(self._reader)


def _negotiate(accept: str) -> str:
    """The media type to answer with: the acceptable one with the highest quality, JSON if any."""
    if not accept.strip():
        return "application/json"
    offers: list[tuple[float, int, str]] = []
    for place, item in enumerate(accept.split(",")):
        media, _, rest = item.partition(";")
        quality = _quality(rest)
        offers += [(-quality, place, name) for name in _matching(media.strip().lower())]
    offers = [offer for offer in offers if offer[0] < 0]
    if not offers:
        raise UsageError(
            f"Accept {accept[:80]!r} names no format of this route",
            hint=f"ask for {', '.join(_MEDIA_TYPES)}",
        )
    return min(offers)[2]


def _matching(media: str) -> tuple[str, ...]:
    if media in _MEDIA_TYPES:
        return (media,)
    if media in ("*/*", "application/*"):
        return ("application/json",)
    return ("text/csv",) if media == "text/*" else ()


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        key, _, value = parameter.strip().partition("=")
        if key == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
