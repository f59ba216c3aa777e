"""Python functions on Ray: the rows of the node's executors, in the same confinement, and what is refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from elytra import Elytra, Pipeline, StepFailed
from elytra.backends import TaskInput, TaskSpec
from elytra.backends.ray import RayBackend, RayOptions
from elytra.backends.table import BACKENDS
from elytra.functions.step import FunctionLimits, FunctionStep
from elytra.service.function_rules import FunctionRules
from emsqrt.plan import Files, Scan
from lake.statements.limits import Requester
from sennit_core.errors import DeadlineExceeded, Denied, Unsupported
from sennit_core.schema import Schema

LIMITS = FunctionLimits(memory_bytes=64 << 20, seconds=120.0)
OPTIONS = RayOptions(workers=2, object_store_bytes=128 << 20, shuffle_bytes=1)
NUMBERS = Schema.of(n="Int64")


def step(program: str = "def function(row): return row") -> FunctionStep:
    return FunctionStep("map", program, "step 1, map(f)")


def a_task() -> TaskSpec:
    plan = step().over(Scan(Files(("partial-0",), "arrow"), NUMBERS), NUMBERS)
    rows = TaskInput("partial-0", "partial", "0.arrow")
    return TaskSpec("task-1", "job-1", "0", plan, (rows,), "arrow")


def test_only_admins_of_a_node_that_allows_it_send_functions_to_ray() -> None:
    plan, admin = a_task().plan, Requester("ann", is_admin=True, role="admin")
    assert FunctionRules(LIMITS).check(plan, "ray", admin)
    for role in ("reader", "writer"):
        with pytest.raises(Denied, match="the role admin"):
            FunctionRules(LIMITS).check(plan, "ray", Requester("bo", role=role))
    with pytest.raises(Denied, match=r"elytra\.allow_python"):
        FunctionRules(None).check(plan, "ray", admin)
    for engine in ("peers", "browser"):
        with pytest.raises(Unsupported, match="machines of others"):
            FunctionRules(LIMITS).check(plan, engine, admin)


def test_a_task_with_functions_is_text_for_the_site_alone() -> None:
    with pytest.raises(Unsupported, match="leave no node"):
        a_task().to_json()
    sent = TaskSpec.from_json(a_task().to_json(functions=True))
    assert sent.has_functions
    assert sent.to_json(functions=True) == a_task().to_json(functions=True)


# With a cluster


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, open_node: Any) -> Iterator[Any]:
    pytest.importorskip("ray")
    backends: list[RayBackend] = []

    def opening(parts: Any) -> RayBackend:
        backends.append(RayBackend(parts, OPTIONS))
        return backends[-1]

    with open_node(
        tmp_path_factory.mktemp("node"), backends={**BACKENDS, "ray": opening}, functions=LIMITS
    ) as opened:
        opened.ray = backends[0]
        for first in (0, 4, 8):  # three shards
            ids = list(range(first, first + 4))
            table = pa.table({"id": ids, "name": [f"n{number}" for number in ids]})
            opened.lake.append("people", table)
        wait_until(lambda: len(opened.ray.workers()) == 2)
        yield opened


@pytest.fixture
def people(node: Any) -> Pipeline:
    return Elytra(node.client).remote("people")


def wait_until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def pipelines(people: Pipeline) -> dict[str, Pipeline]:
    factor, ids = 10, people.select("id")

    def both(row: Any) -> dict[str, Any]:
        return {"id": row.id * factor, "name": row["name"].upper()}

    mapped = people.map(both, opaque=True, schema={"id": "Int64", "name": "Utf8"})
    return {
        "map and filter": mapped.filter(lambda r: r.id >= 20, opaque=True),
        "flat_map": people.flat_map(lambda r: [r.id] * (r.id % 3), opaque=True, schema="Int64"),
        "map_batches": people.map_batches(
            lambda b: {"n": [b.num_rows]}, batch_rows=5, schema={"n": "Int64"}
        ),
        "reduce": people.reduce(lambda n, r: n * 3 + r.id, 0, opaque=True),
        "join after a function": mapped.join(ids, on="id").sort("name:desc"),
        "function after groups": people.group_by("name")
        .agg(most="max(id)")
        .map(lambda r: r.most + 1, opaque=True, schema="Int64"),
        "function of a shuffled sort": people.sort("name:desc").map_batches(
            lambda b: {"n": b.column("id")}, schema={"n": "Int64"}
        ),
    }


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_rows_are_those_of_the_executors_of_the_node(people: Pipeline) -> None:
    on_ray = {name: pipeline.submit(engine="ray") for name, pipeline in pipelines(people).items()}
    for name, pipeline in pipelines(people).items():
        expected = pipeline.submit(engine="local").result(120).to_arrow().to_pylist()
        assert on_ray[name].result(300).to_arrow().to_pylist() == expected, name
        assert on_ray[name].info.engine == "ray"


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_errors_name_the_step_the_row_and_the_column(people: Pipeline) -> None:
    failing = people.map(lambda r: 1 / (r.id - 2), opaque=True, schema="Float64")
    job = failing.submit(engine="ray")
    with pytest.raises(StepFailed, match="ZeroDivisionError") as caught:
        job.result(120)
    assert (caught.value.step[:11], caught.value.row) == ("step 1, map", 2)
    wrong = people.map(lambda r: {"a": r.name}, opaque=True, schema={"a": "Int64"})
    job = wrong.filter("a < 3").submit(engine="ray")
    with pytest.raises(StepFailed, match="is not Int64") as caught:
        job.result(120)
    assert caught.value.column == "a"


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_functions_reach_nothing_of_the_worker(people: Pipeline, node: Any) -> None:
    secret, token = str(node.folder / "lake" / "node.key"), str(node.folder / "ray" / "token")

    def attempts(_: Any) -> dict[str, str]:
        import os
        import socket
        import subprocess

        def outcome(attempt: Any) -> str:
            try:
                return f"done: {attempt()}"
            except Exception as problem:  # noqa: BLE001 - each names its own
                return type(problem).__name__

        parent = os.getppid()
        tried = {
            "key": lambda: open(secret, "rb").read(),  # noqa: PTH123, SIM115
            "token": lambda: open(token, "rb").read(),  # noqa: PTH123, SIM115
            "memory": lambda: open(f"/proc/{parent}/environ", "rb").read(),  # noqa: PTH123, SIM115
            "writes": lambda: open("/tmp/function", "w"),  # noqa: PTH123, SIM115
            "connects": lambda: socket.create_connection(("127.0.0.1", 6379)),
            "starts": lambda: subprocess.run(["/bin/true"], check=True),
            "signals": lambda: os.kill(parent, 9),
        }
        found = {name: outcome(attempt) for name, attempt in tried.items()}
        return {**found, "environment": ",".join(sorted(os.environ))}

    names = ("key", "token", "memory", "writes", "connects", "starts", "signals", "environment")
    schema = dict.fromkeys(names, "Utf8")
    job = people.limit(1).map(attempts, opaque=True, schema=schema).submit(engine="ray")
    (row,) = job.result(120).to_arrow().to_pylist()

    environment = row.pop("environment")
    assert set(row.values()) == {"PermissionError"}, row
    assert not [name for name in environment.split(",") if name.startswith(("RAY", "SENNIT"))]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_lost_worker_is_replaced_and_the_function_runs_again(people: Pipeline, node: Any) -> None:
    def slow(row: Any) -> int:
        import time

        time.sleep(0.4)
        return int(row.id)

    job = people.map(slow, opaque=True, schema="Int64").submit(engine="ray")
    wait_until(node.ray.busy)
    for pid in node.ray.pids():
        os.kill(pid, signal.SIGKILL)

    assert job.result(300).to_arrow().to_pydict()["value"] == list(range(12))
    tasks = node.stores["sys"].get(f"/jobs/{job.id}/tasks")
    assert max(task["attempts"] for task in tasks.values()) > 1


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_deadline_ends_a_function_that_never_returns(people: Pipeline, node: Any) -> None:
    def forever(row: Any) -> int:
        while True:
            pass

    job = people.map(forever, opaque=True, schema="Int64").submit(engine="ray", deadline_seconds=4)
    with pytest.raises(DeadlineExceeded):
        job.result(120)
    wait_until(lambda: not node.ray.busy())
    assert people.count().submit(engine="ray").result(120).value == 12


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_worker_of_a_node_that_allows_no_functions_runs_none(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    import json

    from elytra.backends.ray.worker import RayWorker

    options = replace(OPTIONS, functions=None, scratch=str(tmp_path))
    worker = RayWorker(json.dumps(options.to_json()))
    try:
        task = json.dumps(a_task().to_json(functions=True))
        (tmp_path / "rows.arrow").write_bytes(b"rows")
        inputs = json.dumps([["partial-0", str(tmp_path / "rows.arrow"), 4, None]])
        (frame,) = worker.run(task, inputs, {})
    finally:
        worker.close()
    assert frame[:1] == b"E"
    assert json.loads(frame[1:])["code"] == "denied"
