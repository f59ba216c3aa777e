"""The backends of a node pass the contract: `local`, and one that gets its tasks as text."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from elytra.backends import (
    NODE_ENGINE,
    NodeFiles,
    NodeParts,
    Report,
    TaskSpec,
    Workers,
)
from elytra.backends.local import LocalBackend
from elytra.backends.table import BACKENDS
from elytra.testing import BackendContract, BackendWorld, open_world
from emsqrt.expr import count
from emsqrt.plan import DatasetRef, Scan
from sennit_core.errors import Unsupported
from sennit_core.records import Progress


class Repeated:
    """A report that sends each result twice, as a connection that was resumed may."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def started(self) -> None:
        self._report.started()

    def progressed(self, progress: Progress) -> None:
        self._report.progressed(progress)

    def finished(self, result: dict[str, Any]) -> None:
        self._report.finished(result)
        self._report.finished(result)

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        self._report.failed(error, retryable=retryable)
        self._report.failed(error, retryable=retryable)


class TextBackend:
    """Three workers that get specs as text, run them in the node's executors, and repeat themselves."""

    name: ClassVar[str] = "browser"

    def __init__(self, node: NodeParts) -> None:
        self._local = LocalBackend(node)
        self.workers: Workers | None = None
        self.started: list[tuple[str, str]] = []  # (worker, task key)

    def open(self, workers: Workers) -> None:
        self.workers = workers
        for index in range(3):
            workers.joined(f"tab-{index}")

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        self.started.append((worker, task.key))
        sent = TaskSpec.from_json(json.dumps(task.to_json()))
        self._local.start(sent, files, Repeated(report), worker)

    def stop(self, task_id: str) -> None:
        self._local.stop(task_id)

    def close(self) -> None:
        self._local.close()


@pytest.mark.slow
class TestLocal(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
        with ExitStack() as owned:
            folder = tmp_path_factory.mktemp("local")
            yield open_world(folder, owned, NODE_ENGINE, LocalBackend, lambda _: "executor-0")


@pytest.mark.nightly
@pytest.mark.timeout(900)  # some 4,700 tasks
class TestLocalAtMoreCuts(TestLocal):
    cuts = (1, 2, 7, 40, 240)


@pytest.mark.nightly
class TestTasksAsText(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
        with ExitStack() as owned:
            folder = tmp_path_factory.mktemp("text")
            yield open_world(folder, owned, "browser", TextBackend, lambda _: "tab-0")

    def test_a_worker_that_leaves_costs_its_attempts(self, world: BackendWorld) -> None:
        backend = world.backend
        assert isinstance(backend, TextBackend)
        assert backend.workers is not None
        backend.started.clear()
        job = world.submit(world.long())
        while not backend.started:
            time.sleep(0.001)
        (first, _) = backend.started[0]
        backend.workers.left(first)

        (row,) = world.rows(job)
        assert "'n': 400000" in row
        assert world.task_of(job)["attempts"] == 2
        assert [worker for worker, _ in backend.started][1] != first
        backend.workers.joined(first)

    def test_another_engine_reads_only_what_may_leave_the_node(self, world: BackendWorld) -> None:
        world.lake.append("seen", pa.table({"n": [1, 2]}))
        world.lake.sql("create view some_of_seen as select n from seen")
        some = world.pipeline("seen")
        assert world.rows(world.submit(some.agg(n=count()))) == ["{'n': 2}"]

        with pytest.raises(Unsupported, match='engine "browser" cannot read views'):
            world.jobs.submit(Scan(DatasetRef("some_of_seen")), engine=world.engine)


def test_the_table_names_each_backend_by_its_engine() -> None:
    assert list(BACKENDS) == [NODE_ENGINE, "peers", "browser"]


@pytest.mark.slow
@pytest.mark.nightly
def test_reports_that_are_repeated_do_not_change_the_answer(tmp_path: Path) -> None:
    with ExitStack() as owned:
        world = open_world(tmp_path, owned, "browser", TextBackend, lambda _: "tab-0")
        for start in (0, 10):
            world.lake.append("numbers", pa.table({"n": range(start, start + 10)}))
        everything = world.submit(world.pipeline("numbers"))
        assert world.rows(everything) == [repr({"n": n}) for n in range(20)]
        assert world.rows(world.submit(world.pipeline("numbers").agg(n=count()))) == ["{'n': 20}"]
