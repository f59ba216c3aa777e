"""Real nodes in this process: stores, executors and the HTTP server on a free port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from elytra.client.transport import wait_for
from sennit.app import Application, create_app
from sennit.limits import protocols_for
from sennit.node import Node
from sennit.settings import with_port
from sennit.settings_loading import load
from sennit_core.records import JobInfo


@dataclass(frozen=True)
class OpenNode:
    """A node, its address, and a client that is signed in as its admin."""

    node: Node
    url: str
    app: Application
    client: httpx.Client

    def anonymous_client(self) -> httpx.Client:
        """A client without a credential."""
        return httpx.Client(base_url=self.url, timeout=60)

    def client_of(self, role: str) -> httpx.Client:
        """A client with a token of this role."""
        client = self.anonymous_client()
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


@contextmanager
def open_node(folder: Path, settings: dict[str, Any]) -> Iterator[OpenNode]:
    """Open a node with settings by dotted name and serve it on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        values = {
            "emsqrt.memory_bytes": 1 << 30,
            "emsqrt.executors": 1,
            "network.port": 0,
        } | settings
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


OpenNodes = Callable[..., OpenNode]
"""`opened(settings, data)`: the fixture that opens nodes for the length of a test run."""
