"""HTTP endpoints of jobs: submit, list, get, cancel, retry, fetch the result."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from elytra.service.job_options import JobOptions
from lake.routes.documents import Bytes, Document, read_document
from lake.routes.requester import requester_of
from lake.routes.results import MEDIA_TYPES, negotiate, stream_result
from sennit_core.errors import NotFound
from sennit_core.roles import needs

if TYPE_CHECKING:
    from elytra.service.job_service import JobService

_ROWS_MAX = (1 << 53) - 1  # the largest integer that JavaScript represents exactly
_NAME_MAX = 255  # of a dataset; `lake.catalog.history.check_dataset_name` has the exact rule
_WAIT_SECONDS_MAX = 30.0  # below the idle timeout of common proxies


_HEADERS = {"X-Content-Type-Options": "nosniff", "Vary": "Accept"}
_UNWATCHED_SECONDS = 0.05
"""Most jobs that are waited for have ended by then, and watching the connection costs more."""

Wait = Annotated[float, Query(ge=0, le=_WAIT_SECONDS_MAX)]


class SaveResult(Document):
    """The body of `POST /api/jobs/{id}/dataset`."""

    name: Annotated[str, Field(max_length=_NAME_MAX)]
    mode: Literal["create", "append", "replace"] = "create"


class SubmitJob(Document):
    """The body of `POST /api/jobs`."""

    plan: dict[str, Any]
    engine: str = "auto"
    mem_cap: Bytes | None = None
    priority: str = "normal"
    deadline_seconds: float | None = None
    task_seconds: float | None = None
    on_poison: str = "fail"
    sample_percent: float | None = None
    allow_partial: bool = False

    @property
    def options(self) -> JobOptions:
        """How the job runs; UsageError if a value is not valid."""
        members = ("priority", "deadlineSeconds", "taskSeconds", "onPoison", "samplePercent")
        document = self.model_dump(by_alias=True)
        return JobOptions.from_json({name: document[name] for name in members})


class ExplainJob(Document):
    """The body of `POST /api/plans/explain`."""

    plan: dict[str, Any]
    engine: str = "auto"


def router(jobs: JobService) -> APIRouter:
    """Return the routes under `/api/jobs`.

    Args:
        jobs: Runs the jobs.
    """
    routes = APIRouter(tags=["jobs"])
    handlers = JobHandlers(jobs)
    routes.post("/api/jobs", openapi_extra=needs("writer"))(handlers.submit)
    routes.post("/api/plans/explain", openapi_extra=needs("reader"))(handlers.explain)
    routes.get("/api/plans/functions", openapi_extra=needs("reader"))(handlers.functions)
    routes.get("/api/jobs", openapi_extra=needs("reader"))(handlers.list)
    routes.get("/api/jobs/{job_id}", openapi_extra=needs("reader"))(handlers.get)
    routes.delete("/api/jobs/{job_id}", openapi_extra=needs("writer"))(handlers.cancel)
    routes.post("/api/jobs/{job_id}/dataset", openapi_extra=needs("writer"))(handlers.save)
    routes.post("/api/jobs/{job_id}/retry", openapi_extra=needs("writer"))(handlers.retry)
    routes.get("/api/jobs/{job_id}/result", openapi_extra=needs("reader"))(handlers.result)
    return routes


class JobHandlers:
    """The request handlers of `/api/jobs`.

    Args:
        jobs: Runs the jobs.
    """

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    async def submit(self, request: Request, wait: Wait = 0) -> Response:
        """Submit a pipeline's plan as a job; with `wait`, answer at its end or after that time."""
        document = await read_document(request, SubmitJob)
        job = await asyncio.to_thread(
            self._jobs.submit,
            document.plan,
            engine=document.engine,
            mem_cap_bytes=document.mem_cap,
            options=document.options,
            allow_partial=document.allow_partial,
            submitted_by=requester_of(request).name,
            role=requester_of(request).role,
        )
        if not wait:
            return JSONResponse({"jobId": job.id})
        await self._wait(request, job.id, wait)
        rows = self._jobs.small_result(job.id)
        return JSONResponse(
            {
                "jobId": job.id,
                "job": self._jobs.get(job.id).to_json(),
                "rows": None if rows is None else b64encode(rows).decode(),
            }
        )

    async def explain(self, request: Request) -> dict[str, Any]:
        """Return which engine and nodes would run a plan now, and the bytes that would move."""
        document = await read_document(request, ExplainJob)
        return await asyncio.to_thread(
            self._jobs.explain,
            document.plan,
            engine=document.engine,
            submitted_by=requester_of(request).name,
            role=requester_of(request).role,
        )

    async def functions(self, request: Request) -> dict[str, Any]:
        """Return whether the user's pipelines may have Python functions, and what these may use."""
        return self._jobs.functions.describe(requester_of(request))

    async def list(self, request: Request) -> list[dict[str, Any]]:
        """List the jobs on record, newest first."""
        requester = requester_of(request)
        return [job.to_json() for job in self._jobs.list() if self._jobs.may_read(job, requester)]

    async def get(
        self,
        request: Request,
        job_id: str,
        wait: Wait = 0,
    ) -> dict[str, Any]:
        """Return a job's state and progress: at once, or when it has ended or `wait` seconds passed."""
        self._check_readable(request, job_id)
        if wait:
            await self._jobs.wait(job_id, wait)
        return self._jobs.get(job_id).to_json()

    async def cancel(self, request: Request, job_id: str) -> dict[str, Any]:
        """Cancel a job."""
        self._check_readable(request, job_id)
        return self._jobs.cancel(job_id).to_json()

    async def save(self, request: Request, job_id: str) -> dict[str, Any]:
        """Save a job's rows as a dataset, by a job; a repeated request returns the same one."""
        self._check_readable(request, job_id)
        document = await read_document(request, SaveResult)
        dataset, job = await asyncio.to_thread(
            self._jobs.save, job_id, document.name, document.mode, requester_of(request)
        )
        return {"datasetId": dataset, "jobId": None if job is None else job.id}

    async def retry(self, request: Request, job_id: str) -> dict[str, str]:
        """Start a job again that failed or was cancelled; the new job reads the same versions."""
        self._check_readable(request, job_id)
        requester = requester_of(request)
        job = await asyncio.to_thread(
            self._jobs.retry, job_id, submitted_by=requester.name, role=requester.role
        )
        return {"jobId": job.id}

    async def result(
        self,
        request: Request,
        job_id: str,
        offset: Annotated[int, Query(ge=0, le=_ROWS_MAX)] = 0,
        limit: Annotated[int | None, Query(ge=0, le=_ROWS_MAX)] = None,
    ) -> Response:
        """Stream a job's rows as Arrow IPC, JSON or CSV: all, or `limit` rows after `offset`."""
        self._check_readable(request, job_id)
        format_name = negotiate(request.headers.get("Accept", ""))
        rows = self._jobs.small_result(job_id)
        if rows is not None and format_name == "arrow" and not offset and limit is None:
            return Response(rows, media_type=MEDIA_TYPES["arrow"], headers=_HEADERS)
        return await stream_result(
            lambda: self._jobs.open_result(
                job_id, format_name, requester_of(request).name, offset=offset, limit=limit
            ),
            request,
            format_name,
        )

    async def _wait(self, request: Request, job_id: str, seconds: float) -> None:
        """Wait for the end of a job that was just submitted; cancel it if the client disconnects.

        Such a client has not received the job's id, so it could not cancel the job itself.
        """
        ended = asyncio.ensure_future(self._jobs.wait(job_id, seconds))
        gone: asyncio.Future[None] | None = None
        try:
            await asyncio.wait((ended,), timeout=_UNWATCHED_SECONDS)
            if not ended.done():
                gone = asyncio.ensure_future(_disconnected(request))
                await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._jobs.cancel(job_id)
        finally:
            ended.cancel()
            if gone is not None:
                gone.cancel()

    def _check_readable(self, request: Request, job_id: str) -> None:
        if not self._jobs.may_read(self._jobs.get(job_id), requester_of(request)):
            raise NotFound("job", job_id, None)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
