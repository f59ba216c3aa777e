"""POST /api/link: for the node's owner on the node's machine, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request, Response

from lake import Lake

from .served_lake import make_app


@dataclass
class Owner:
    name: str = "admin"
    role: str = "admin"
    is_owner: bool = True


BEARER = {"authorization": "Bearer x"}


def send(
    lake: Lake,
    method: str,
    path: str,
    body: Any = None,
    *,
    principal: Any = None,
    headers: dict[str, str] = BEARER,
    address: str = "127.0.0.1",
) -> httpx.Response:
    app = make_app(lake)

    @app.middleware("http")
    async def identify(
        request: Request, respond: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        request.state.principal = Owner() if principal is None else principal
        return await respond(request)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await client.request(method, path, json=body, headers=headers)

    return asyncio.run(run())


def document(path: Path, **members: Any) -> dict[str, Any]:
    status = path.stat()
    state = {"inode": status.st_ino, "size": status.st_size, "mtimeNs": status.st_mtime_ns}
    return {
        "path": str(path),
        "file": {name: str(value) for name, value in state.items()},
        **members,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,x\n")
    return path


def test_the_owner_links_a_file_and_reads_its_paths(lake: Lake, file: Path) -> None:
    answer = send(lake, "POST", "/api/link", document(file, only=True)).json()

    assert answer["linked"] is True
    assert answer["jobId"] is None
    found = send(lake, "GET", "/api/datasets/t").json()
    assert found["link"] == {"name": "t.csv", "size": 8, "upload": None}
    assert str(file.parent) not in str(found)
    paths = send(lake, "GET", "/api/datasets/t/paths").json()
    assert paths == {"paths": [str(file)], "linked": True}


def test_a_linked_file_is_ingested_as_a_job(lake: Lake, file: Path) -> None:
    answer = send(lake, "POST", "/api/link", document(file)).json()

    assert answer["jobId"].startswith("job-of-")
    assert lake.catalog.get(answer["datasetId"]).rows == 1
    assert send(lake, "GET", "/api/datasets/t/paths").json()["linked"] is False


@pytest.mark.parametrize(
    "request_of",
    [
        {"principal": Owner(is_owner=False)},
        {"principal": Owner(role="writer", is_owner=False)},
        {"address": "10.0.0.7"},
        {"address": "::ffff:10.0.0.7"},
        {"address": "testclient"},
        {"headers": {"cookie": "sennit_8600=x"}},
        *[
            {"headers": {**BEARER, name: "127.0.0.1"}}
            for name in ("x-forwarded-for", "forwarded", "x-real-ip", "via")
        ],
    ],
)
def test_everybody_else_is_refused(lake: Lake, file: Path, request_of: dict[str, Any]) -> None:
    assert send(lake, "POST", "/api/link", document(file), **request_of).status_code == 403
    assert send(lake, "GET", "/api/datasets/t/paths", **request_of).status_code == 403
    assert lake.catalog.list() == []


def test_a_file_that_the_client_sees_otherwise_is_refused(lake: Lake, file: Path) -> None:
    seen = document(file)
    seen["file"]["inode"] = "1"

    assert send(lake, "POST", "/api/link", seen).status_code == 403


@pytest.mark.parametrize(
    "change", [{"path": 1}, {"path": "x" * 5000}, {"mode": "merge"}, {"file": {}}, {"more": 1}]
)
def test_a_malformed_request_is_refused(lake: Lake, file: Path, change: dict[str, Any]) -> None:
    assert send(lake, "POST", "/api/link", document(file) | change).status_code == 422
