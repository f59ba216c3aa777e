"""A lake's routes as an application in this process, and a client of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from lake import Lake
from lake.routes import router
from sennit_core.errors import SennitError
from sennit_core.records import JobInfo

STATUSES = {
    "not-found": 404,
    "denied": 403,
    "conflict": 409,
    "upload-incomplete": 409,
    "too-large": 413,
    "storage-full": 507,
}


class Client:
    """Sends requests to an application in this process, one at a time."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PUT", path, **options)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)


def make_bare_app(lake: Lake) -> FastAPI:
    """Serve a lake; the ingest of a complete upload ends before the response. Errors are raised."""

    def submit_ingest(upload_id: str, *, submitted_by: str) -> tuple[str, JobInfo]:
        dataset = lake.ingest(upload_id)
        job = JobInfo(
            id=f"job-of-{upload_id}", kind="ingest", plan=None, plan_hash=None, engine="local",
            state="done", progress=None, submitted_by=submitted_by, created_at=0.0,
        )  # fmt: skip
        return dataset.id, job

    app = FastAPI()
    app.include_router(router(lake, submit_ingest))
    return app


def make_app(lake: Lake) -> FastAPI:
    """Serve a lake as `make_bare_app`, with errors as responses."""

    def to_response(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, SennitError)
        return JSONResponse(error.to_json(), status_code=STATUSES.get(error.code, 400))

    app = make_bare_app(lake)
    app.add_exception_handler(SennitError, to_response)
    return app
