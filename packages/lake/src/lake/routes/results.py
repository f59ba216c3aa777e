"""Stream an execution's payloads as a response body, in the format that `Accept` requests.

The response starts when the first piece is available, so earlier errors get their own HTTP status.
A later error aborts the body: it ends without its last chunk, so that HTTP clients fail, and not at
the end of an Arrow message, a JSON document or a CSV record, so that readers of the received part
fail too. The client can request the error by the response's id (`aborted_results`).
A client that disconnects cancels the execution.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import anyio
import anyio.to_thread
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lake.distributed.partial import MissingShards, missing_header
from lake.peers.transport.stop import Stop
from lake.routes.aborted_results import aborted_results_of
from lake.routes.requester import requester_of
from lake.routes.result_bodies import BODIES
from lake.routes.waiting_threads import WaitingThreads
from sennit_core.errors import Cancelled, SennitError, UsageError
from sennit_core.ids import new_id
from sennit_core.logs import get_logger

__all__ = ["MEDIA_TYPES", "ResultExecution", "negotiate", "stream_result"]

MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
ENGINE_HEADER = "Sennit-Engine"
QUERY_HEADER = "Sennit-Query"
CACHE_HEADER = "Sennit-Cache"
MISSING_HEADER = "Sennit-Missing"
AWAITED_HEADER = "Sennit-Awaited-Version"
QUEUED_HEADER = "Sennit-Queued"
RESULT_HEADER = "Sennit-Result"
_log = get_logger("lake.results")
# A response that waits blocks a thread of this pool, so that other routes do not wait for threads.
_WAITING = WaitingThreads(320)
_WHOLE_BYTES_MAX = 256 << 10
_UNWATCHED_SECONDS = 0.05
"""Most results are available by then, and watching the connection costs more than they do."""
_FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}


class ResultExecution(Protocol):
    """The interface of a streamed execution."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def payloads(self) -> Iterator[memoryview]:
        """Yield the pieces, each valid until the next is requested."""
        ...

    def cancel(self) -> None:
        """Stop the execution if it is running."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


async def stream_result(
    start: Callable[[], ResultExecution],
    request: Request,
    format_name: str,
    starting: Stop | None = None,
) -> Response:
    """Start an execution off the event loop, and respond with its payloads.

    A result that is complete with its first piece, as small ones are, uses one thread once and is
    sent as one message.

    Args:
        start: Starts the execution; may block, and may raise an error to respond with.
        request: Watched for a disconnect until the first piece is available.
        format_name: A key of `MEDIA_TYPES`.
        starting: Stops `start` while it blocks, if it may for long.
    """
    reader = _Reader(start, starting or Stop())
    opening = await _open(reader, request)
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept"}
    if reader.engine is not None:
        headers[ENGINE_HEADER] = reader.engine
    if reader.query is not None:
        headers[QUERY_HEADER] = reader.query
    if reader.cache is not None:
        headers[CACHE_HEADER] = reader.cache
    if reader.missing:
        headers[MISSING_HEADER] = missing_header(reader.missing)
    if reader.awaited_version is not None:
        headers[AWAITED_HEADER] = str(reader.awaited_version)
    if reader.queued is not None:
        headers[QUEUED_HEADER] = reader.queued
    if opening.is_whole:
        return Response(opening.data, media_type=MEDIA_TYPES[format_name], headers=headers)
    return _StreamedResult(opening.data, reader, request, format_name, headers)


def negotiate(accept: str) -> str:
    """Choose the acceptable format with the highest quality; JSON if any format is accepted.

    Raises:
        UsageError: `accept` names no supported format.
    """
    if not accept.strip():
        return "json"
    offers: list[tuple[float, int, str]] = []
    for place, item in enumerate(accept.split(",")):
        media, _, rest = item.partition(";")
        quality = _quality(rest)
        offers += [(-quality, place, name) for name in _matching(media.strip().lower())]
    offers = [offer for offer in offers if offer[0] < 0]
    if not offers:
        raise UsageError(
            f"Accept {accept[:80]!r} names no format of this route",
            hint=f"accept one of {', '.join(_FORMATS)}",
        )
    return min(offers)[2]


def _matching(media: str) -> tuple[str, ...]:
    if media in _FORMATS:
        return (_FORMATS[media],)
    if media in ("*/*", "application/*"):
        return ("json",)
    return ("csv",) if media == "text/*" else ()


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        key, _, value = parameter.strip().partition("=")
        if key == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class _Opening(NamedTuple):
    """The first bytes of a result, and whether they are the whole result."""

    data: bytes
    is_whole: bool


class _Reader:
    """Reads an execution from worker threads; `stop` may be called while one of them waits."""

    def __init__(self, start: Callable[[], ResultExecution], starting: Stop) -> None:
        self._start = start
        self._starting = starting
        self._lock = threading.Lock()  # held by the thread that reads
        self._execution: ResultExecution | None = None
        self._payloads: Iterator[memoryview] = iter(())
        self._stopped = False

    @property
    def engine(self) -> str | None:
        """The engine of the execution, if it has one; final with the first piece."""
        return getattr(self._execution, "engine", None)

    @property
    def query(self) -> str | None:
        """The id of the statement, if the execution is one."""
        return getattr(self._execution, "id", None)

    @property
    def cache(self) -> str | None:
        """How the result cache was used, if the execution is of a query."""
        return getattr(self._execution, "cache", None)

    @property
    def awaited_version(self) -> int | None:
        """The version of a change that another node made, while it has not reached this one."""
        return getattr(self._execution, "awaited_version", None)

    @property
    def queued(self) -> str | None:
        """The id of an append that waits for another node."""
        return getattr(self._execution, "queued", None)

    @property
    def missing(self) -> Sequence[MissingShards]:
        """The shards that the result leaves out, if the execution is of a query that allows that."""
        return getattr(self._execution, "missing", ())

    def open(self) -> _Opening | SennitError:
        """Start the execution and wait for the first piece, or return the error.

        A complete or failed execution is already closed on return.
        """
        with self._lock:
            try:
                self._execution = self._start()
                if self._stopped:  # stopped since the start
                    self._execution.cancel()
                self._payloads = self._execution.payloads()
                opening = self._open(self._execution)
            except SennitError as error:
                self._close()
                return error
            if opening.is_whole:
                self._close()
            return opening

    def _open(self, execution: ResultExecution) -> _Opening:
        data = bytes(next(self._payloads, b""))
        while execution.done and len(data) <= _WHOLE_BYTES_MAX:
            piece = next(self._payloads, None)
            if piece is None:
                return _Opening(data, is_whole=True)
            data += piece
        return _Opening(data, is_whole=False)

    def read(self) -> bytes | SennitError | None:
        """Return the next piece, None at the end, or the error."""
        with self._lock:
            try:
                payload = next(self._payloads, None)
            except SennitError as error:
                return error
            return None if payload is None else bytes(payload)

    def stop(self) -> None:
        """Cancel the execution, wait for a reading thread, and release all resources."""
        self._stopped = True
        self._starting.stop()
        if self._execution is not None and not self._execution.done:
            self._execution.cancel()
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._execution is not None:
            self._execution.close()


async def _read(reader: _Reader) -> bytes | None:
    piece = await _WAITING.run(reader.read)
    if isinstance(piece, SennitError):
        raise piece
    return piece


async def _stop(reader: _Reader) -> None:
    # Shielded: the execution must be stopped even if the client has disconnected. In another pool:
    # all threads of the first may wait for an execution that is stopped here.
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(reader.stop)


async def _open(reader: _Reader, request: Request) -> _Opening:
    """Return the first piece; until it is available, a disconnect cancels the execution."""
    opening = _WAITING.run(reader.open)
    try:
        await asyncio.wait((opening,), timeout=_UNWATCHED_SECONDS)
        if not opening.done():
            await _watched(opening, request)
        found = (
            opening.result()
            if opening.done()
            else Cancelled("the response, whose client disconnected,")
        )
    except BaseException:
        opening.cancel()
        await _stop(reader)
        raise
    if isinstance(found, SennitError):
        opening.cancel()
        await _stop(reader)
        raise found
    return found


async def _watched(opening: asyncio.Future[Any], request: Request) -> None:
    """Wait for the first piece or for a disconnect."""
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((opening, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _StreamedResult(StreamingResponse):
    """Streams an execution, and closes it when the response ends for any reason."""

    def __init__(
        self,
        first: bytes,
        reader: _Reader,
        request: Request,
        format_name: str,
        headers: dict[str, str],
    ) -> None:
        self._first = first
        self._reader = reader
        self._request = request
        self._body = BODIES[format_name]()
        self._id = new_id()
        headers = headers | {RESULT_HEADER: self._id}
        super().__init__((), media_type=MEDIA_TYPES[format_name], headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _stop(self._reader)

    async def stream_response(self, send: Send) -> None:
        """Send the body; without the last message (on abort) the server closes the connection."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        piece: bytes | None = self._first
        try:
            while piece is not None:
                await _send(send, self._body.pass_on(piece), more=True)
                piece = await _read(self._reader)
        except SennitError as error:
            user = requester_of(self._request).name
            aborted_results_of(self._request.app).add(self._id, user, error)
            _log.warning("response %s was aborted: %s: %s", self._id, error.code, error)
            await _send(send, self._body.abort(error), more=True)
        else:
            await _send(send, self._body.end(), more=False)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})
