"""POST /api/verify: read datasets from disk, and report damage as it is found.

The response is NDJSON: a `ScrubReport` after each object, and a last one with `done`. One scrub runs at a
time, on a thread of the lowest priority. A client that disconnects cancels its scrub.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lake.routes.requester import requester_of
from lake.scrub import ScrubReport, refuse_repair
from sennit_core.errors import SennitError
from sennit_core.hashing import canonical_json
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

_NICE_MAX = 19
_REPORT_EVERY = 16  # objects between two reports without findings: there may be many small shards


class VerifyRequest(BaseModel):
    """Body of POST /api/verify."""

    model_config = ConfigDict(extra="forbid")

    dataset: Annotated[str | None, Field(max_length=256)] = None
    repair: bool = False


def router(lake: Lake) -> APIRouter:
    """Return the verify route."""
    routes = APIRouter(tags=["datasets"])
    thread = ThreadPoolExecutor(1, "lake-scrub", initializer=_lower_priority)

    # A writer's, although it changes nothing: it reads every stored byte.
    @routes.post("/api/verify", openapi_extra=needs("writer"))
    async def verify(
        verification: Annotated[VerifyRequest, Body()], request: Request
    ) -> StreamingResponse:
        """Compare every stored byte of one dataset, or of all, with its hash."""
        if verification.repair:
            raise refuse_repair(verification.dataset)
        lake.policies.check_verify(verification.dataset, requester_of(request))
        stop = threading.Event()
        reports = lake.scrub(verification.dataset, stop.is_set)
        # Wait for the first report before responding, so that an unknown name gets its own status.
        first = await _next(thread, reports, stop)
        return StreamingResponse(
            _lines(first, thread, reports, stop), media_type="application/x-ndjson"
        )

    return routes


async def _next(
    thread: ThreadPoolExecutor, reports: Iterator[ScrubReport], stop: threading.Event
) -> ScrubReport | None:
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(thread, next, reports, None)
    except BaseException:
        stop.set()  # the thread checks it between two pieces of a file
        raise


async def _lines(
    report: ScrubReport | None,
    thread: ThreadPoolExecutor,
    reports: Iterator[ScrubReport],
    stop: threading.Event,
) -> AsyncIterator[bytes]:
    reported, count = -1, 0
    try:
        while report is not None:
            if report.done or len(report.findings) != reported or count % _REPORT_EVERY == 0:
                reported = len(report.findings)
                yield canonical_json(report.to_json()) + b"\n"
            count += 1
            report = await _next(thread, reports, stop)
    except SennitError as error:  # the status has been sent, so the last line is the error
        yield canonical_json(error.to_json()) + b"\n"
    finally:
        stop.set()


def _lower_priority() -> None:
    """Set this thread to the lowest priority (on Linux setpriority(2) accepts thread ids)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE_MAX)
