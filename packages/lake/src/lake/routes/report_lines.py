"""Long work that reports its progress: an iterator of records on a thread, sent as NDJSON.

A client that disconnects stops the work. An error that comes after the first report is the last line.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi.responses import StreamingResponse

from sennit_core.errors import SennitError
from sennit_core.hashing import canonical_json
from sennit_core.records import Record

__all__ = ["report_lines"]

R = TypeVar("R", bound=Record)


async def report_lines(
    thread: ThreadPoolExecutor,
    reports: Iterator[R],
    stop: threading.Event,
    is_shown: Callable[[R], bool] = lambda report: True,
) -> StreamingResponse:
    """Return the response that has a line for each report.

    Waits for the first one, so that an error of the request itself has its own status.

    Args:
        thread: Runs the iterator.
        reports: The work.
        stop: Set when the client is gone; the work looks at it.
        is_shown: Whether a report is sent.
    """
    work = _closable(reports)
    try:
        first = await _next(thread, work, stop)
    except BaseException:
        thread.submit(work.close)
        raise
    lines = _lines(first, thread, work, stop, is_shown)
    return StreamingResponse(lines, media_type="application/x-ndjson")


def _closable(reports: Iterator[R]) -> Generator[R, None, None]:
    """Return a generator whose `close` ends the work: what it has begun is undone by its thread.

    Left to the garbage collector, that would be done by any thread, one that it waits for perhaps.
    """
    yield from reports


async def _next(
    thread: ThreadPoolExecutor, reports: Iterator[R], stop: threading.Event
) -> R | None:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, next, reports, None)
    except BaseException:
        stop.set()  # the thread looks at it between two steps
        raise


async def _lines(
    report: R | None,
    thread: ThreadPoolExecutor,
    reports: Generator[R, None, None],
    stop: threading.Event,
    is_shown: Callable[[R], bool],
) -> AsyncIterator[bytes]:
    try:
        while report is not None:
            if is_shown(report):
                yield canonical_json(report.to_json()) + b"\n"
            report = await _next(thread, reports, stop)
    except SennitError as error:  # the status has been sent
        yield canonical_json(error.to_json()) + b"\n"
    finally:
        stop.set()
        thread.submit(reports.close)
