"""POST /api/verify: read datasets from disk, and report damage as it is found.

The response is NDJSON: a `ScrubReport` after each object, and a last one with `done`. One scrub runs at a
time, on a thread of the lowest priority. A client that disconnects cancels its scrub.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lake.maintenance.scrub import ScrubReport, refuse_repair
from lake.routes.report_lines import report_lines
from lake.routes.requester import requester_of
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
        return await report_lines(thread, reports, stop, _Shown())

    return routes


class _Shown:
    """Whether a report of a scrub is sent: the last one, those with new findings, and some others."""

    def __init__(self) -> None:
        self._findings = -1
        self._count = 0

    def __call__(self, report: ScrubReport) -> bool:
        is_shown = (
            report.done
            or len(report.findings) != self._findings
            or self._count % _REPORT_EVERY == 0
        )
        self._count += 1
        if is_shown:
            self._findings = len(report.findings)
        return is_shown


def _lower_priority() -> None:
    """Set this thread to the lowest priority (on Linux setpriority(2) accepts thread ids)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE_MAX)
