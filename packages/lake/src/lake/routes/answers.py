"""An execution's payloads as the body of a response, in the form that `Accept` asks for.

The first piece is waited for before the response begins, so whatever is wrong gets its own status.
A client that goes away cancels the execution.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

import anyio
import anyio.to_thread
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sennit_core.errors import Cancelled, SennitError, UsageError

__all__ = ["MEDIA_TYPES", "Answering", "answer", "negotiate"]

MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
    "csv": "text/csv",
}
ENGINE_HEADER = "Sennit-Engine"
# An answer that waits holds a thread: of these, so that other routes need not wait for one.
_WAITING = anyio.CapacityLimiter(320)
_FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}


class Answering(Protocol):
    """What is streamed: an execution, or something that stands for one."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def payloads(self) -> Iterator[memoryview]:
        """The pieces, each valid until the next is asked for."""
        ...

    def cancel(self) -> None:
        """Stop what still runs."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


async def answer(
    start: Callable[[], Answering], request: Request, format_name: str
) -> StreamingResponse:
    """Start an execution off the event loop, and answer with what it emits.

    Args:
        start: Starts it; may block, and may raise what becomes the response.
        request: Watched until the first piece is there: a client may go away.
        format_name: A key of `MEDIA_TYPES`.
    """
    reader = _Reader(await anyio.to_thread.run_sync(start, limiter=_WAITING))
    first = await _first(reader, request)
    return _Answer(first, reader, MEDIA_TYPES[format_name])


def negotiate(accept: str) -> str:
    """Choose the acceptable format with the highest quality; JSON when anything will do.

    Raises:
        UsageError: `accept` names no format that there is.
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
            hint=f"ask for {', '.join(_FORMATS)}",
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


class _Reader:
    """Reads an execution from worker threads; `stop` may come while one of them waits."""

    def __init__(self, execution: Answering) -> None:
        self._execution = execution
        self._payloads = execution.payloads()
        self._lock = threading.Lock()

    @property
    def engine(self) -> str | None:
        """Who answers, where more than one could; settled with the first piece."""
        return getattr(self._execution, "engine", None)

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


async def _in_thread(reader: _Reader) -> bytes | SennitError | None:
    return await anyio.to_thread.run_sync(reader.read, abandon_on_cancel=True, limiter=_WAITING)


async def _read(reader: _Reader) -> bytes | None:
    piece = await _in_thread(reader)
    if isinstance(piece, SennitError):
        raise piece
    return piece


async def _stop(reader: _Reader) -> None:
    # Shielded: the client may be gone, and the execution must be told so all the same.
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(reader.stop)


async def _first(reader: _Reader, request: Request) -> bytes:
    """The first piece; until it is there, a client that goes away ends it."""
    pieces: list[bytes | SennitError | None] = []

    async def read() -> None:
        pieces.append(await _in_thread(reader))
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
    piece = pieces[0] if pieces else Cancelled("the answer, whose client is gone,")
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
        if reader.engine is not None:
            headers[ENGINE_HEADER] = reader.engine
        super().__init__(_stream(first, reader), media_type=media_type, headers=headers)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _stop(self._reader)
