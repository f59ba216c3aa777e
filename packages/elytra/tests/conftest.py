"""Fixtures that tests share."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from elkyn import Stores, open_namespaces
from elkyn.server.app import elkyn_app
from elytra.backends.table import BACKENDS
from elytra.client.client import Client
from elytra.functions.step import FunctionLimits
from elytra.pipelines.pipeline import Pipeline
from elytra.routes import router
from elytra.service.job_service import JobService
from emsqrt.executor import ExecutorPool
from emsqrt.plan import Plan
from lake import Lake
from lake.routes import router as lake_router
from sennit_core.errors import SennitError
from sennit_core.records import DatasetInfo
from sennit_core.schema import DataType, Field, Schema

SCHEMA = Schema(
    tuple(
        Field(name, DataType.parse(kind))
        for name, kind in (
            ("carrier", "Utf8"),
            ("origin", "Utf8"),
            ("distance", "Float64"),
            ("air_time", "Int64"),
        )
    )
)


class Drawer:
    """A runner that knows one schema and remembers what was submitted."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Plan, dict[str, Any]]] = []

    def dataset(self, id_or_name: str) -> DatasetInfo:
        return DatasetInfo(id="d", name=id_or_name, owner="", schema=SCHEMA)

    def sql(self, query: str) -> Any:
        raise NotImplementedError

    def submit(self, plan: Plan, **options: Any) -> Any:
        self.submitted.append((plan, options))

    def run(self, plan: Plan, *, timeout_seconds: float | None = None, **options: Any) -> Any:
        raise AssertionError("a drawn pipeline runs nowhere")


@pytest.fixture
def drawer() -> Drawer:
    return Drawer()


@pytest.fixture
def flights(drawer: Drawer) -> Pipeline:
    """A pipeline over a dataset that only exists as a schema."""
    return Pipeline.over(drawer, "flights")


ENTRIES = Path(__file__).parent / "entries"


@pytest.fixture(autouse=True, scope="session")
def _entries_are_importable_in_executors() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ENTRIES))
        yield


@dataclass
class Node:
    """A node without a gateway: real stores, a real pool, real routes on a real server."""

    url: str
    client: Client
    jobs: JobService
    lake: Lake
    stores: Stores
    pool: ExecutorPool
    folder: Path

    @contextmanager
    def all_busy(self) -> Iterator[None]:
        """Keep every executor busy inside the `with`."""
        release = self.folder / "release"
        with ExitStack() as held:
            for _ in range(self.pool.size):
                held.enter_context(self.pool.submit("elytra_entries:hold", {"until": str(release)}))
            yield
            release.touch()
        release.unlink()


STATUSES = {
    "not-found": 404,
    "conflict": 409,
    "upload-incomplete": 409,
    "cancelled": 409,
    "denied": 403,
    "too-large": 413,
    "storage-full": 507,
    "unavailable": 503,
    "worker-lost": 503,
    "internal": 500,
    "corrupt": 500,
}


def make_app(jobs: JobService, lake: Lake, stores: Stores) -> Any:
    """Serve the routes and the tree from one application, as the gateway does."""
    api = FastAPI()

    @api.exception_handler(SennitError)
    async def answer(_: Any, error: SennitError) -> JSONResponse:
        return JSONResponse(error.to_json(), STATUSES.get(error.code, 400))

    api.include_router(router(jobs))
    api.include_router(lake_router(lake, jobs.submit_ingest))
    tree = elkyn_app(stores, authorize=lambda *_: None)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        target = api if scope.get("path", "/api").startswith("/api") else tree
        await target(scope, receive, send)

    return app, tree


@contextmanager
def serve(app: Any, port: int = 0) -> Iterator[str]:
    """Run an app on a real server and yield its address."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(
        app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def running_node(
    folder: Path,
    port: int = 0,
    backends: Mapping[str, Any] = BACKENDS,
    functions: FunctionLimits | None = None,
    **lake_options: Any,
) -> Iterator[Node]:
    with ExitStack() as owned:
        stores = open_namespaces(folder / "elkyn")
        owned.callback(stores.close)
        stores["default"].get("/")  # a namespace is created on first use
        pool = owned.enter_context(
            ExecutorPool(
                2, memory_bytes=1 << 30, spill_dir=folder / "spill", allow_module_entries=True
            )
        )
        lake = owned.enter_context(Lake(folder, tree=stores["sys"], pool=pool, **lake_options))
        # Every job is split, although the tests' datasets are small.
        jobs = JobService(
            stores["sys"], lake, pool, whole_bytes=0, backends=backends, functions=functions
        )
        owned.callback(jobs.close)
        jobs.recover()
        app, tree = make_app(jobs, lake, stores)
        url = owned.enter_context(serve(app, port))
        owned.callback(tree.close)
        client = owned.enter_context(Client(url))
        yield Node(url, client, jobs, lake, stores, pool, folder)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node")) as opened:
        yield opened


@pytest.fixture(scope="session")
def open_node() -> Any:
    """What opens nodes, for tests of more than one life."""
    return running_node
