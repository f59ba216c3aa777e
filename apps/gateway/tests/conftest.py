"""Real nodes in this process: stores, executors and the HTTP server on a free port."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from elytra.transport import wait_for
from sennit.app import Application, create_app
from sennit.limits import protocols_for
from sennit.node import Node
from sennit.settings import load, with_port
from sennit_core.records import JobInfo


@dataclass(frozen=True)
class OpenNode:
    """A node, its address, and a client that is signed in as its admin."""

    node: Node
    url: str
    app: Application
    client: httpx.Client

    def stranger(self) -> httpx.Client:
        """A client without a credential."""
        return httpx.Client(base_url=self.url, timeout=60)

    def client_of(self, role: str) -> httpx.Client:
        """A client with a token of this role."""
        client = self.stranger()
        client.headers["authorization"] = f"Bearer {self.node.tokens.issue(role, role)}"
        return client

    def upload(self, name: str, body: bytes, **query: str) -> dict[str, Any]:
        """Upload a file in one request and wait until it is a dataset."""
        answer = self.client.post("/api/upload", params={"name": name, **query}, content=body)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        wait_for(lambda: self._ended(made["jobId"]), what="the ingest", seconds=60)
        return made

    def _ended(self, job_id: str) -> JobInfo | None:
        job = self.node.jobs.get(job_id)
        assert job.state != "failed", job.error
        return job if job.state == "done" else None


OpenNodes = Callable[..., OpenNode]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenNodes]:
    """Open nodes with settings by dotted name: `opened({"storage.part_bytes": 4096})`."""
    with ExitStack() as owned:

        def open_one(settings: dict[str, Any] | None = None, data: Path | None = None) -> OpenNode:
            folder = data or tmp_path_factory.mktemp("node")
            return owned.enter_context(_open_node(folder, settings or {}))

        yield open_one


@contextmanager
def _open_node(folder: Path, settings: dict[str, Any]) -> Iterator[OpenNode]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        values = {"emsqrt.memory_bytes": 1 << 30, "emsqrt.executors": 1} | settings
        loaded = with_port(load(folder, values), port)
        with Node.open(folder, loaded) as node:
            app, url = create_app(node), f"http://127.0.0.1:{port}"
            token = (folder / "admin.token").read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            with (
                _serving(app, listener),
                httpx.Client(base_url=url, headers=headers, timeout=60) as client,
            ):
                yield OpenNode(node, url, app, client)


@contextmanager
def _serving(app: Application, listener: socket.socket) -> Iterator[None]:
    config = uvicorn.Config(
        app, loop="uvloop", lifespan="off", log_config=None, access_log=False,
        **protocols_for(listener),
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    serving.start()
    try:
        yield
    finally:
        app.close()
        server.should_exit = server.force_exit = True
        serving.join()


@pytest.fixture(scope="session")
def plain(opened: OpenNodes) -> OpenNode:
    """A node with default settings, for tests that leave it as they found it."""
    return opened()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and addresses of the machine's user do not reach a test."""
    for name in [name for name in os.environ if name.startswith("SENNIT_")]:
        monkeypatch.delenv(name)
