"""An execution's payloads as the body of a response, in the form that `Accept` asks for.

The first piece is waited for before the response begins, so whatever is wrong gets its own status.
What goes wrong later cuts the body: it ends without its last chunk, so that HTTP clients fail, and
not at the end of an Arrow message, of a JSON document or of a CSV record, so that readers of what
has come fail too. The reason can be asked for by the answer's id (`cut_answers`).
A client that goes away cancels the execution.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import anyio
import anyio.to_thread
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lake.routes.cut_answers import cut_answers_of
from lake.routes.requester import requester_of
from sennit_core.errors import Cancelled, SennitError, UsageError
from sennit_core.ids import new_id
from sennit_core.logs import get_logger

__all__ = ["MEDIA_TYPES", "Answering", "answer", "negotiate"]

MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
    "csv": "text/csv",
}
ENGINE_HEADER = "Sennit-Engine"
ANSWER_HEADER = "Sennit-Answer"
_HELD_BACK = 2
_ALIGNMENT = 8  # every message of an Arrow IPC stream ends at a multiple of it
_log = get_logger("lake.answers")
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
    return _Answer(first, reader, request, format_name)


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


class _Answer(StreamingResponse):
    """Streams an execution, and ends it however the response ends."""

    def __init__(self, first: bytes, reader: _Reader, request: Request, format_name: str) -> None:
        self._first = first
        self._reader = reader
        self._request = request
        self._body = _BODIES[format_name]()
        self._id = new_id()
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept",
            ANSWER_HEADER: self._id,
        }
        if reader.engine is not None:
            headers[ENGINE_HEADER] = reader.engine
        super().__init__((), media_type=MEDIA_TYPES[format_name], headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _stop(self._reader)

    async def stream_response(self, send: Send) -> None:
        """Send the body; one that is cut lacks its last message, and so the server closes."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        piece: bytes | None = self._first
        try:
            while piece is not None:
                await _send(send, self._body.pass_on(piece), more=True)
                piece = await _read(self._reader)
        except SennitError as error:
            user = requester_of(self._request).name
            cut_answers_of(self._request.app).add(self._id, user, error)
            _log.warning("answer %s was cut: %s: %s", self._id, error.code, error)
            await _send(send, self._body.cut(error), more=True)
        else:
            await _send(send, self._body.end(), more=False)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})


class _TextBody:
    """A body of text: what was emitted and, where it is cut, the reason in words."""

    def pass_on(self, piece: bytes) -> bytes:
        """What to send now that one more piece is there."""
        return piece

    def end(self) -> bytes:
        """What to send last."""
        return b""

    def cut(self, error: SennitError) -> bytes:
        """What to send last when the rest will not come."""
        # A quote that is never closed: no reader of CSV takes this for a record.
        return f'\n"error: {error}'.encode()


class _JsonBody(_TextBody):
    def cut(self, error: SennitError) -> bytes:
        # Without the brace that would close the document, so that it stays no JSON.
        return f'\n],"error":{json.dumps(error.to_json())}\n'.encode()


class _ArrowBody(_TextBody):
    """An Arrow IPC stream, its last bytes held back until it is known that it is whole.

    Readers take the end of a stream between two messages for its regular end. So a body that is
    cut is made to end inside of one, which they report.
    """

    def __init__(self) -> None:
        self._held = b""
        self._sent = 0

    def pass_on(self, piece: bytes) -> bytes:
        whole = self._held + piece if self._held else piece
        ready, self._held = whole[:-_HELD_BACK], whole[-_HELD_BACK:]
        self._sent += len(ready)
        return ready

    def end(self) -> bytes:
        return self._held

    def cut(self, error: SennitError) -> bytes:
        return self._held[:1] if self._sent % _ALIGNMENT == 0 else b""


_BODIES: dict[str, Callable[[], _TextBody]] = {
    "arrow": _ArrowBody,
    "json": _JsonBody,
    "csv": _TextBody,
}
