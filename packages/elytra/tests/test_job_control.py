"""Deadlines, retries, skipped inputs, stalled workers and restarts, on a real node."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pyarrow as pa
import pytest

from elytra import Elytra, Pipeline, col, count
from elytra.backends import ENGINES, NODE_ENGINE, NodeFiles, NodeParts, Report, TaskSpec, Workers
from elytra.backends.local import LocalBackend
from elytra.backends.table import BACKENDS
from elytra.service.messages import JobSubmitted
from emsqrt.plan import DatasetRef, Scan
from lake.access.quotas import UserQuota
from sennit_core.errors import Cancelled, Conflict, DeadlineExceeded, UsageError, WorkerLost

from .conftest import running_node

ROWS = 50
SHARDS = 4


class Faults:
    """What goes wrong with the tasks of a node, by their keys."""

    def __init__(self) -> None:
        self.lost: set[str] = set()  # the worker dies
        self.held: set[str] = set()  # the worker says nothing until it is told to stop
        self.started: list[tuple[str, str]] = []  # (worker, task key)


class FaultyBackend(LocalBackend):
    """The node's executors, with faults."""

    faults: ClassVar[Faults]

    def __init__(self, node: NodeParts) -> None:
        super().__init__(node)
        self._silent: dict[str, Report] = {}

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        self.faults.started.append((worker, task.key))
        if task.key in self.faults.lost:
            report.failed(WorkerLost(worker).to_json(), retryable=True)
        elif task.key in self.faults.held:
            report.started()
            self._silent[task.id] = report
        else:
            super().start(task, files, report, worker)

    def stop(self, task_id: str) -> None:
        report = self._silent.pop(task_id, None)
        if report is not None:
            report.failed(Cancelled("the attempt").to_json(), retryable=False)
        super().stop(task_id)


class StallingBackend(FaultyBackend):
    """Workers with leases; the first of them stalls with its first task."""

    name: ClassVar[str] = "stalling"

    def open(self, workers: Workers) -> None:
        workers.joined("stalling", lease_seconds=0.3)
        workers.joined("healthy", lease_seconds=60.0)

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        self.faults.held = {task.key} if worker == "stalling" else set()
        super().start(task, files, report, worker)


FAULTY = {**BACKENDS, NODE_ENGINE: FaultyBackend, StallingBackend.name: StallingBackend}


@pytest.fixture(autouse=True, scope="module")
def _stalling_is_an_engine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elytra.service.plan_binding.ENGINES", (*ENGINES, StallingBackend.name))
        yield


@pytest.fixture(autouse=True)
def faults() -> Faults:
    FaultyBackend.faults = Faults()
    return FaultyBackend.faults


@pytest.fixture
def open_faulty(open_node: Any, tmp_path: Path) -> Callable[[], Any]:
    """Open a node whose backends have the faults; again after it was closed."""
    return lambda: open_node(tmp_path / "node", backends=FAULTY)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running_node(tmp_path_factory.mktemp("faulty"), backends=FAULTY) as node:
        yield node


def numbers(node: Any, name: str = "numbers") -> Pipeline:
    """A dataset of four shards, 0 to 199."""
    if node.lake.catalog.find(name) is None:
        for start in range(0, SHARDS * ROWS, ROWS):
            node.lake.append(name, pa.table({"n": range(start, start + ROWS)}))
    return Elytra(node.client).remote(name)


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def tasks_of(node: Any, job: Any) -> dict[str, Any]:
    return dict(node.stores["sys"].get(f"/jobs/{job.id}/tasks") or {})


def attempts_of(node: Any, job: Any) -> dict[str, str]:
    """The state of each attempt, by `key-number`."""
    attempts = node.stores["sys"].get(f"/jobs/{job.id}/attempts") or {}
    return {name.split("-", 1)[1]: each["state"] for name, each in sorted(attempts.items())}


@pytest.mark.slow
def test_a_poisoned_input_is_skipped_and_named(faulty: Any, faults: Faults) -> None:
    faults.lost = {"t000001"}
    pipeline = numbers(faulty).agg(n=count(), total=col("n").sum())

    result = pipeline.distribute(on_poison="skip")

    expected = [n for n in range(200) if not 50 <= n < 100]
    assert result.rows == [(150, sum(expected))]
    (skipped,) = result.skipped
    assert (skipped["task"], skipped["dataset"], skipped["rows"]) == ("t000001", "numbers", ROWS)
    assert {"shard", "source", "byteStart", "byteEnd"} <= set(skipped)
    assert (skipped["attempts"], skipped["error"]["code"]) == (3, "worker-lost")


@pytest.mark.nightly
def test_a_poisoned_input_fails_the_job_and_is_named(faulty: Any, faults: Faults) -> None:
    faults.lost = {"t000001"}
    job = numbers(faulty).count().submit()

    with pytest.raises(WorkerLost):
        job.wait(30)

    error = job.info.error
    assert error is not None
    assert error["details"]["taskInput"]["dataset"] == "numbers"
    assert tasks_of(faulty, job)["t000001"]["state"] == "poisoned"
    states = attempts_of(faulty, job)
    assert [states[f"t000001-{number}"] for number in (1, 2, 3)] == ["failed"] * 3


@pytest.mark.nightly
def test_a_failed_job_is_retried_over_the_same_versions(faulty: Any, faults: Faults) -> None:
    faults.lost = {"t000001"}
    job = numbers(faulty, "growing").count().submit(priority="high")
    with pytest.raises(WorkerLost):
        job.wait(30)
    faulty.lake.append("growing", pa.table({"n": [1]}))
    faults.lost = set()

    again = job.retry()

    assert again.id != job.id
    assert again.result(30).value == 200
    with pytest.raises(Conflict, match="is done: only a job that failed"):
        again.retry()


@pytest.mark.nightly
def test_a_job_ends_at_its_deadline_and_frees_everything(faulty: Any, faults: Faults) -> None:
    faults.held = {"t000002", "t000003"}
    job = numbers(faulty).count().submit(deadline_seconds=0.3)

    with pytest.raises(DeadlineExceeded, match="deadline"):
        job.wait(30)

    assert set(attempts_of(faulty, job).values()) <= {"done", "stopped"}
    until(lambda: faulty.pool.stats().busy == 0)
    assert not list((faulty.lake.folder / "jobs" / job.id).glob("*/*"))
    faults.held = set()
    assert numbers(faulty).count().collect().value == 200


@pytest.mark.nightly
def test_a_task_ends_at_its_limit(faulty: Any) -> None:
    texts = {f"t{index}": (col("n") * index).cast("Utf8").upper() for index in range(6)}
    tops = {f"top_{name}": col(name).max() for name in texts}
    faulty.lake.append("long", pa.table({"n": range(400_000)}))
    long = Elytra(faulty.client).remote("long").with_columns(**texts).agg(**tops)

    with pytest.raises(DeadlineExceeded):
        long.distribute(task_seconds=0.05)
    until(lambda: faulty.pool.stats().busy == 0)


@pytest.mark.slow
def test_options_that_are_not_valid_are_refused(faulty: Any) -> None:
    pipeline = numbers(faulty)
    for name, value in (("priority", "urgent"), ("on_poison", "hide"), ("task_seconds", -1)):
        with pytest.raises(UsageError, match="a job's"):
            pipeline.submit(**{name: value})  # type: ignore[arg-type]
    answer = httpx.post(f"{faulty.url}/api/jobs/no-such-job/retry")
    assert answer.status_code == 404


@pytest.mark.slow
def test_a_worker_that_stalls_loses_its_task_to_another(faulty: Any, faults: Faults) -> None:
    job = numbers(faulty).count().submit(engine=StallingBackend.name)

    assert job.result(30).value == 200
    states = attempts_of(faulty, job)
    assert "expired" in states.values()
    assert [worker for worker, _ in faults.started].count("stalling") >= 1
    assert {task["state"] for task in tasks_of(faulty, job).values()} == {"done"}


@pytest.mark.nightly
def test_a_restart_computes_only_what_is_missing(
    open_faulty: Callable[[], Any], faults: Faults
) -> None:
    faults.held = {"t000003"}
    with open_faulty() as node:
        job = numbers(node).agg(n=count(), total=col("n").sum()).submit(priority="low")
        until(lambda: [x["state"] for x in tasks_of(node, job).values()].count("done") == 3)
        node.jobs.close()
    faults.held = set()
    faults.started.clear()

    with open_faulty() as node:
        resumed = node.client.job(job.id)
        assert resumed.result(30).rows == [(200, sum(range(200)))]
        assert [key for _, key in faults.started] == ["t000003"]
        # Its number is not one of the previous run: a worker that outlived it may still report those.
        assert attempts_of(node, job)["t000003-1001"] == "done"


@pytest.mark.nightly
def test_a_cancellation_just_before_the_end_of_the_node_counts(
    open_faulty: Callable[[], Any], faults: Faults
) -> None:
    faults.held = {"t000000"}
    with open_faulty() as node:
        job = numbers(node).count().submit()
        until(lambda: job.state == "running")
        node.jobs.cancel(job.id)
        node.jobs.close()
        assert node.jobs.get(job.id).state == "cancelled"


@pytest.mark.nightly
def test_a_restart_continues_rows_in_order(open_faulty: Callable[[], Any], faults: Faults) -> None:
    faults.held = {"t000000"}
    with open_faulty() as node:
        job = numbers(node).filter(col("n") % 2 == 0).submit()
        until(lambda: [x["state"] for x in tasks_of(node, job).values()].count("done") == 3)
        node.jobs.close()
    faults.held = set()
    faults.started.clear()

    with open_faulty() as node:
        rows = [n for (n,) in node.client.job(job.id).result(30).rows]
        assert rows == list(range(0, 200, 2))
        assert [key for _, key in faults.started] == ["t000000"]


@pytest.mark.nightly
def test_a_job_that_ends_the_node_again_and_again_fails(
    open_faulty: Callable[[], Any], faults: Faults
) -> None:
    faults.held = {"t000000"}
    with open_faulty() as node:
        # One shard, so that there is never a result.
        node.lake.append("one", pa.table({"n": [1]}))
        job = Elytra(node.client).remote("one").count().submit()
        until(lambda: job.state == "running")
        node.jobs.close()
    states = []
    for _ in range(4):
        with open_faulty() as node:
            until(partial(_has_begun, node, job.id))
            states.append(node.client.job(job.id).state)
            node.jobs.close()

    assert states == ["running"] * 3 + ["failed"]


def _has_begun(node: Any, job_id: str) -> bool:
    return bool(node.client.job(job_id).state != "queued")


@pytest.mark.nightly
def test_one_user_cannot_delay_another_by_many_jobs(faulty: Any) -> None:
    """The first job of a user is done before the queue of another's jobs is."""
    pipeline = numbers(faulty)
    plan = pipeline.count().plan
    with faulty.all_busy():
        many = [faulty.jobs.submit(plan, submitted_by="ann") for _ in range(12)]
        one = faulty.jobs.submit(plan, submitted_by="eve")
    ended = threading.Event()
    with faulty.jobs._job_store.on_end(one.id, ended.set):
        assert ended.wait(30)
        left = [job for job in many if faulty.jobs.get(job.id).state != "done"]

    assert len(left) >= 6


def test_a_job_has_the_weight_of_its_user(shared_node: Any, monkeypatch: Any) -> None:
    shared_node.lake.append("weighed", pa.table({"n": [1]}))
    shared_node.lake.quotas.set(UserQuota("ann", job_weight=3))
    loop = shared_node.jobs._loop
    events: list[Any] = []
    post = loop.post

    def recorded(event: Any) -> None:
        events.append(event)
        post(event)

    monkeypatch.setattr(loop, "post", recorded)

    for user in ("ann", "bo"):
        shared_node.jobs.submit(Scan(DatasetRef("weighed")), submitted_by=user)

    weights = {e.user: e.user_weight for e in events if isinstance(e, JobSubmitted)}
    assert weights == {"ann": 3, "bo": 1}
    for weight in (0, 101, -1):
        with pytest.raises(UsageError, match="from 1 to 100"):
            shared_node.lake.quotas.set(UserQuota("ann", job_weight=weight))
