"""An execution's payloads as the body of a response."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import StreamingResponse

from elytra.transport import ARROW
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from emsqrt.executor import Execution

MEDIA_TYPES = {"arrow": ARROW, "json": "application/json", "csv": "text/csv; charset=utf-8"}


def wanted_format(request: Request) -> str:
    """Choose "arrow", "json" or "csv" by the request's Accept; JSON when anything will do.

    Raises:
        UsageError: Accept names only other types.
    """
    accept = request.headers.get("Accept", "*/*").lower()
    for item in accept.split(","):
        kind = item.partition(";")[0].strip()
        if kind in {"*/*", "application/*", "application/json"}:
            return "json"
        if kind in {ARROW, "application/vnd.apache.arrow.file"}:
            return "arrow"
        if kind in {"text/csv", "text/*"}:
            return "csv"
    raise UsageError(
        f"no answer comes as {accept}", hint=f"Accept: {', '.join(MEDIA_TYPES.values())}"
    )


async def stream(execution: Execution, format_name: str) -> StreamingResponse:
    """Answer with what an execution emits.

    Its first payload is awaited before the response begins, so an error that comes before any row
    has its own status. A client that goes away cancels the execution.

    Args:
        execution: Just started; closed by the response.
        format_name: A key of `MEDIA_TYPES`.
    """
    reader = _Reader(execution)
    try:
        first = await asyncio.to_thread(reader.next)
    except BaseException:
        reader.abandon()
        raise
    return StreamingResponse(_body(reader, first), media_type=MEDIA_TYPES[format_name])


async def _body(reader: _Reader, first: bytes | None) -> AsyncIterator[bytes]:
    payload = first
    try:
        while payload is not None:
            yield payload
            payload = await asyncio.to_thread(reader.next)
    finally:
        reader.abandon()


class _Reader:
    """Reads payloads on one thread at a time, and closes only when no thread reads."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._payloads: Iterator[memoryview] = execution.payloads()
        self._lock = threading.Lock()

    def next(self) -> bytes | None:
        with self._lock:
            payload = next(self._payloads, None)
            return None if payload is None else bytes(payload)

    def abandon(self) -> None:
        """Begin to close; waits for nothing, since it also runs in a task that is cancelled."""
        self._execution.cancel()  # wakes a thread that waits for a payload
        asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        with self._lock:
            self._execution.close()
