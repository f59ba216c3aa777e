"""The tests that every backend must pass.

A test module subclasses `BackendContract` and provides one fixture, `world`: a node whose job service
has the backend. The contract then submits jobs to its engine, and starts single tasks on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from elytra import shard_joins
from elytra.backends import NODE_ENGINE, Backend, NodeFiles, TaskInput, TaskLimits, TaskSpec
from elytra.pipelines.pipeline import Pipeline
from emsqrt.expr import col, count
from emsqrt.plan import DatasetRef, Files, Plan, Scan, rewrite
from lake.objects.verification import ShardFile
from lake.statements.limits import Requester
from sennit_core.errors import SennitError
from sennit_core.ids import new_id
from sennit_core.records import JobInfo, Progress, is_terminal

if TYPE_CHECKING:
    import pytest

    from elkyn import ElkynStore
    from elytra.service.job_service import JobService
    from lake import Lake

__all__ = ["BackendContract", "BackendWorld"]

_WAIT_SECONDS = 60.0
_SMALL_BYTES = 2500
"""More bytes than the dataset of titles has, and fewer than that of flights."""
_LONG_ROWS = 400_000
_LONG_COLUMNS = 6


@dataclass(frozen=True)
class BackendWorld:
    """A node with the backend.

    Args:
        jobs: The job service, with `whole_bytes` 0, so that each shard has a task.
        lake: Its lake.
        tree: Its namespace `sys`.
        folder: For files of the tests.
        engine: The backend's name.
        backend: The backend; it has a worker of this name:
        worker: One of its workers.
        busy_count: Returns how many tasks the workers run at the moment.
        kill_workers: Ends the processes that run tasks, without a chance to clean up.
    """

    jobs: JobService
    lake: Lake
    tree: ElkynStore
    folder: Path
    engine: str
    backend: Backend
    worker: str
    busy_count: Callable[[], int]
    kill_workers: Callable[[], None]

    def dataset(self, name: str) -> Any:
        """Return a dataset's record, as pipelines need it."""
        return self.lake.catalog.find(name)

    def pipeline(self, name: str) -> Pipeline:
        """Return a pipeline over a dataset."""
        return Pipeline.over(self, name)  # type: ignore[arg-type]

    def submit(self, pipeline: Pipeline) -> JobInfo:
        """Submit a pipeline to the backend."""
        return self.jobs.submit(pipeline.plan, engine=self.engine)

    def ended(self, job: JobInfo) -> JobInfo:
        """Return the record of a job at its end."""
        _until(lambda: is_terminal("job", self.jobs.get(job.id).state))
        return self.jobs.get(job.id)

    def rows(self, job: JobInfo) -> list[str]:
        """Return the rows of a job, in a form that differs if a bit does."""
        ended = self.ended(job)
        assert ended.state == "done", ended.error
        return [repr(row) for path in self.jobs.result(job.id) for row in _rows_of(path)]

    def task_of(self, job: JobInfo) -> dict[str, Any]:
        """Return the record of a job's first task."""
        return self.tree.get(f"/jobs/{job.id}/tasks/t000000") or {}

    def long(self) -> Pipeline:
        """Return a pipeline that needs a second of a worker, in one task."""
        if self.dataset("long") is None:
            self.lake.append("long", pa.table({"n": pa.array(range(_LONG_ROWS), pa.int64())}))
        names = [f"t{index}" for index in range(_LONG_COLUMNS)]
        texts = {
            name: (col("n") * index).cast("Utf8").replace("1", "one").upper()
            for index, name in enumerate(names)
        }
        tops = {f"top_{name}": col(name).max() for name in names}
        return self.pipeline("long").with_columns(**texts).agg(n=count(), **tops)


@dataclass
class _Outcome:
    """Receives the report of one execution."""

    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    end: Event = field(default_factory=Event)

    def started(self) -> None:
        pass

    def progressed(self, progress: Progress) -> None:
        pass

    def finished(self, result: dict[str, Any]) -> None:
        self.result = result
        self.end.set()

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        del retryable
        self.error = error
        self.end.set()

    def code(self) -> str | None:
        """Return the kind of failure, at the end; None if there was none."""
        assert self.end.wait(_WAIT_SECONDS), "the end of a task was never reported"
        return None if self.error is None else self.error["code"]


class BackendContract:
    """Tests of a backend; a subclass has the fixture `world`, a `BackendWorld`."""

    cuts: ClassVar[Sequence[int]] = (1, 3)
    """Into how many shards the same rows are cut."""

    def test_answers_are_the_same_bits_for_each_cut(self, world: BackendWorld) -> None:
        """Of every operator that is split, and of those above it."""
        answers = []
        for shards in self.cuts:
            flights = world.pipeline(_flights(world, shards))
            names = world.pipeline(_names(world))
            found, engines = [], []
            for each in _pipelines(flights, names):  # one after the other: each has time to end
                job = world.submit(each)
                found.append(world.rows(job))
                engines.append(world.jobs.get(job.id).engine)
            answers.append(found)
            # What a backend cannot run, such as a full join in a browser, may run on the node.
            assert engines[0] == world.engine
            assert set(engines) <= {world.engine, NODE_ENGINE}
        assert all(answer == answers[0] for answer in answers[1:])
        assert [len(rows) for rows in answers[0]] == [
            *(4, 240, 5, 4, 7, 0),
            *(240, 5, 180, 180, 60, 2, 300, 16, 240, 11, 4, 3),
        ]

    def test_joins_windows_and_groups_are_those_of_the_node(self, world: BackendWorld) -> None:
        """Bits and order of rows, for each cut: outer joins, keys of two types, a small side, many groups."""
        expected: list[list[str]] = []
        for shards in self.cuts:
            pipelines = _of_two_inputs(world.pipeline(_flights(world, shards)))
            if not expected:
                jobs = [world.jobs.submit(each.plan, engine=NODE_ENGINE) for each in pipelines]
                expected = [world.rows(job) for job in jobs]
            assert [world.rows(world.submit(each)) for each in pipelines] == expected
        assert [len(rows) for rows in expected] == [320, 240, 120, 240, 12]

    def test_joins_with_one_small_side_are_those_of_the_node(
        self, world: BackendWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows that match no row of any shard come once, and rows are in the order of the left side."""
        monkeypatch.setattr(shard_joins, "BROADCAST_BYTES_MAX", _SMALL_BYTES)
        expected: list[list[str]] = []
        for shards in self.cuts:
            flights, titles = (world.pipeline(each(world, shards)) for each in (_flights, _titles))
            pipelines = _of_one_small_side(flights, titles)
            engine = world.engine if expected else NODE_ENGINE
            jobs = [world.jobs.submit(each.plan, engine=engine) for each in pipelines]
            found = [world.rows(job) for job in jobs]
            expected = expected or found
            assert found == expected
        assert [len(rows) for rows in expected] == [241, 241, 2, 2]

    def test_a_task_that_was_sent_as_text_gives_the_same_bytes(self, world: BackendWorld) -> None:
        """A spec is all that a worker needs besides the bytes of its inputs."""
        with _task(world, _flights(world, 3)) as (task, files):
            sent = TaskSpec.from_json(json.dumps(task.to_json()))
            assert sent.to_json() == task.to_json()
            assert _bytes(world, sent, files) == _bytes(world, task, files)

    def test_attempts_at_the_same_time_give_the_same_bytes(self, world: BackendWorld) -> None:
        """So whichever of them is first may count."""
        with (
            _task(world, _flights(world, 3)) as (one, files),
            _task(world, _flights(world, 3)) as (two, others),
        ):
            outcomes = [_start(world, one, files), _start(world, two, others)]
            assert [outcome.code() for outcome in outcomes] == [None, None]
            assert files.output.read_bytes() == others.output.read_bytes()

    def test_a_result_over_its_limit_is_refused(self, world: BackendWorld) -> None:
        """In both forms of output, and nothing is left of it."""
        for output in ("arrow", "parquet"):
            limits = TaskLimits(output_bytes_max=100)
            with _task(world, _flights(world, 1), limits, output) as (task, files):
                assert _start(world, task, files).code() == "too-large"
                assert not files.output.exists()

    def test_a_task_ends_at_its_deadline(self, world: BackendWorld) -> None:
        """With the error of a deadline, and without a result."""
        limits = TaskLimits(seconds=0.05)
        world.long()
        with _task(world, "long", limits) as (task, files):
            assert _start(world, task, files).code() == "deadline-exceeded"
            assert not files.output.exists()
        _until(lambda: world.busy_count() == 0)

    def test_an_input_that_is_missing_fails_the_task(self, world: BackendWorld) -> None:
        """Its bytes are not there: an error, and no result."""
        with _task(world, _flights(world, 1)) as (task, files):
            gone = NodeFiles({"shard-0": str(world.folder / "gone")}, files.output)
            assert _start(world, task, gone).code() is not None
            assert not files.output.exists()

    def test_a_stopped_task_reports_its_end(self, world: BackendWorld) -> None:
        """Once; to stop it again, or one that never was, has no effect."""
        world.long()
        with _task(world, "long") as (task, files):
            outcome = _start(world, task, files)
            for task_id in (task.id, task.id, "never-was"):
                world.backend.stop(task_id)
            assert outcome.code() == "cancelled"
            assert not files.output.exists()
        _until(lambda: world.busy_count() == 0)

    def test_a_cancelled_job_frees_everything(self, world: BackendWorld) -> None:
        """Its workers and its files; the next job runs."""
        job = world.submit(world.long())
        _until(lambda: world.busy_count() == 1)
        world.jobs.cancel(job.id)

        assert world.ended(job).state == "cancelled"
        _until(lambda: world.busy_count() == 0)
        _until(lambda: not list((world.lake.folder / "jobs" / job.id).glob("*/*")))
        counted = world.submit(world.pipeline(_flights(world, 3)).agg(n=count()))
        assert world.rows(counted) == ["{'n': 240}"]

    def test_a_killed_worker_costs_one_attempt(self, world: BackendWorld) -> None:
        """The answer is that of a job without failures."""
        job = world.submit(world.long())
        _until(lambda: world.busy_count() == 1)
        world.kill_workers()

        (row,) = world.rows(job)
        assert f"'n': {_LONG_ROWS}" in row
        assert world.task_of(job)["attempts"] >= 2

    def test_a_task_that_ends_its_workers_is_poisoned(self, world: BackendWorld) -> None:
        """After three attempts, with the error of the last."""
        job = world.submit(world.long())
        while not is_terminal("job", world.jobs.get(job.id).state):
            if world.busy_count():
                world.kill_workers()
            time.sleep(0.005)

        ended = world.ended(job)
        assert ended.state == "failed"
        assert ended.error is not None
        assert ended.error["code"] == "worker-lost"
        task = world.task_of(job)
        assert (task["state"], task["attempts"]) == ("poisoned", 3)


def _pipelines(flights: Pipeline, names: Pipeline) -> list[Pipeline]:
    titled = flights.join(names, {"carrier": "code"})
    return [
        flights.group_by("carrier").agg(
            n=count(), total=col("distance").sum(), mean=col("distance").mean()
        ),
        flights.with_columns(far=col("distance") * 0.1),
        flights.sort("distance").limit(5),
        flights.select("carrier").distinct(),
        flights.filter(col("id") > 99).limit(7),
        flights.filter(col("distance") < 0),
        # Sorted runs that are merged; equal keys keep their order.
        flights.sort("carrier:desc", "distance"),
        flights.sort("carrier").distinct("carrier", "id").limit(5),
        # A join with a small side, and what follows it at the shards and in the merge.
        titled,
        flights.join(names, {"carrier": "code"}, how="semi"),
        flights.join(names, {"carrier": "code"}, how="anti"),
        titled.group_by("title").agg(n=count(), km=col("distance").sum()).filter("n > 1"),
        # The shards of several inputs, and what is added in the merge.
        flights.select("id", "carrier").union(flights.filter("id < 60").select("id", "carrier")),
        flights.limit(10).select("carrier").union(names.select("code"), names.select("title")),
        flights.expect(not_null="id").sample(1.0, seed=5),
        flights.sample(count=11, seed=3).select("id"),
        flights.expect(unique="id", rows="==240").group_by("carrier").count(),
        flights.sample(0.5, seed=7)
        .join(names, {"carrier": "code"}, how="left")
        .group_by("title")
        .count(),
    ]


def _of_one_small_side(flights: Pipeline, titles: Pipeline) -> list[Pipeline]:
    on = {"code": "carrier"}
    return [
        flights.join(titles, {"carrier": "code"}, how="full"),
        titles.join(flights, on, how="full"),
        titles.join(flights.filter("id > 200 and carrier <> 'B6'"), on, how="semi"),
        titles.join(flights, on).group_by("title").agg(n=count(), km=col("distance").sum()),
    ]


def _titles(world: BackendWorld, shards: int) -> str:
    """Create a small dataset with a code that no flight has; return its name."""
    del shards
    if world.dataset("titles") is None:
        codes = ["ZZ", "UA", "AA", "B6"]
        world.lake.append(
            "titles", pa.table({"code": codes, "title": ["None", "United", "American", "United"]})
        )
    return "titles"


def _names(world: BackendWorld) -> str:
    """Create a small dataset, the right side of joins; return its name."""
    if world.dataset("names") is None:
        codes = pa.table({"code": ["UA", "AA", "B6"], "title": ["United", "American", "United"]})
        world.lake.append("names", codes)
    return "names"


def _of_two_inputs(flights: Pipeline) -> list[Pipeline]:
    later = flights.select(id=col("id") + 80, far=col("distance") * 0.1)
    small = flights.filter(col("id") < 120).select("carrier", id=col("id").cast("Int32"))
    return [
        flights.join(later, on="id", how="full"),
        later.join(flights.select("id", "carrier"), on="id", how="right"),
        flights.select("id", "distance").join(small, on="id"),
        flights.window("carrier", ["distance:desc"], place="row_number()", sum="sum(distance)"),
        flights.group_by("carrier", third=col("id") % 3).agg(mean=col("distance").mean()),
    ]


def _flights(world: BackendWorld, shards: int) -> str:
    """Create a dataset of 240 rows in so many shards; return its name."""
    name = f"flights_{shards}"
    if world.dataset(name) is None:
        numbers = range(240)
        table = pa.table(
            {
                "id": pa.array(numbers, pa.int64()),
                "carrier": [("UA", "AA", "B6", None)[n % 4] for n in numbers],
                "distance": [(n * 7919 % 240) / 7 + 1e9 * (n % 3) for n in numbers],
            }
        )
        size = -(-len(numbers) // shards)
        for start in range(0, len(numbers), size):
            world.lake.append(name, table.slice(start, size))
    return name


@contextmanager
def _task(
    world: BackendWorld, name: str, limits: TaskLimits | None = None, output: Any = "arrow"
) -> Iterator[tuple[TaskSpec, NodeFiles]]:
    """Yield a task that copies the first shard of a dataset; the long one computes columns."""
    source = world.lake.plan_sources.open(DatasetRef(world.dataset(name).id), Requester("", True))
    assert source.snapshot is not None
    shard, path = source.snapshot.shards[0], source.paths[0]
    pipeline = world.pipeline(name)
    if name == "long":
        pipeline = world.long()

    def over_the_shard(node: Plan) -> Plan:
        is_scan = isinstance(node, Scan)
        return Scan(Files(("shard-0",), "parquet"), source.schema) if is_scan else node

    job = new_id()
    task = TaskSpec(
        id=f"{job}-t000000-1",
        job=job,
        key="t000000",
        plan=rewrite(pipeline.plan, over_the_shard),
        inputs=(TaskInput("shard-0", "shard", shard.object),),
        output=output,
        limits=limits or TaskLimits(),
    )
    files = NodeFiles(
        {"shard-0": str(path)},
        world.folder / f"{job}.{output}",
        shards=(ShardFile(name, 0, str(path)),),
        datasets={name: world.dataset(name).id},
    )
    with source.held:
        yield task, files
    files.output.unlink(missing_ok=True)


def _start(world: BackendWorld, task: TaskSpec, files: NodeFiles) -> _Outcome:
    outcome = _Outcome()
    try:
        world.backend.start(task, files, outcome, world.worker)
    except SennitError as error:  # refused at once
        outcome.failed(error.to_json(), retryable=error.retryable)
    return outcome


def _bytes(world: BackendWorld, task: TaskSpec, files: NodeFiles) -> bytes:
    outcome = _start(world, task, files)
    assert outcome.code() is None, outcome.error
    return files.output.read_bytes()


def _rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
