"""Python functions of pipelines on a node: right answers, and errors that name the step and the row."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from elytra import Elytra, Pipeline, StepFailed
from elytra.functions.step import FunctionLimits
from emsqrt.plan import plan_hash

LIMITS = FunctionLimits(memory_bytes=64 << 20)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, open_node: Any) -> Iterator[Any]:
    with open_node(tmp_path_factory.mktemp("node"), functions=LIMITS) as opened:
        for ids in ([0, 1, 2], [3, 4, 5]):  # two shards
            names = [f"n{number}" for number in ids]
            opened.lake.append("people", pa.table({"id": ids, "name": names}))
        yield opened


@pytest.fixture
def people(node: Any) -> Pipeline:
    return Elytra(node.client).remote("people")


def test_functions_run_at_each_shard_with_what_they_close_over(people: Pipeline) -> None:
    factor = 10

    def both(row: Any) -> dict[str, Any]:
        return {"id": row.id * factor, "name": row["name"].upper()}

    found = people.map(both, opaque=True).filter(lambda r: r.id >= 20, opaque=True)

    assert found.collect().rows == [(20, "N2"), (30, "N3"), (40, "N4"), (50, "N5")]
    assert found.explain().startswith("at each shard:")
    assert found.filter("id > 20").count().collect().value == 3


@pytest.mark.nightly
def test_functions_over_all_rows_receive_them_in_order(people: Pipeline) -> None:
    digits = people.reduce(lambda n, r: n * 10 + r.id, 0, opaque=True)
    assert digits.collect().value == 12345
    ids = people.select("id").map(lambda r: r.id)
    assert ids.reduce(lambda n, r: n * 10 + r, opaque=True).collect().value == 12345
    sizes = people.map_batches(lambda b: {"n": [b.num_rows]}, batch_rows=4)
    assert sizes.collect().rows == [(4,), (2,)]
    spread = people.flat_map(lambda r: [r.id] * (r.id % 3), opaque=True, schema="Int64")
    assert spread.collect().rows == [(1,), (2,), (2,), (4,), (5,), (5,)]


def test_the_hash_of_a_plan_covers_what_a_function_does(people: Pipeline) -> None:
    def plan(step: int) -> Any:
        return people.map(lambda r: r.id + step, opaque=True, schema="Int64").plan

    assert plan_hash(plan(1)) == plan_hash(plan(1))
    assert plan_hash(plan(1)) != plan_hash(plan(2))


def test_a_failing_function_names_its_step_and_row(people: Pipeline) -> None:
    def half(row: Any) -> float:
        return 1.0 / int(row.id - 2)

    with pytest.raises(StepFailed, match="ZeroDivisionError") as caught:
        people.filter("id > 0").map(half, opaque=True, schema="Float64").collect()

    assert (caught.value.step, caught.value.row) == ("step 2, map(half)", 1)


@pytest.mark.nightly
def test_a_value_that_does_not_fit_names_its_column(people: Pipeline) -> None:
    wrong = people.filter("id < 3").map(lambda r: {"a": r.name}, opaque=True, schema={"a": "Int64"})
    with pytest.raises(StepFailed, match="'n0' is not Int64") as caught:
        wrong.collect()
    assert (caught.value.row, caught.value.column) == (0, "a")


def _allocate(row: Any) -> int:
    return len(bytearray(1 << 30)) if row.id == 1 else 0


def _exit(row: Any) -> int:
    import os

    return os._exit(3) if row.id == 1 else 0


def _crash(row: Any) -> int:
    import ctypes

    return int(ctypes.string_at(0)[0]) if row.id == 1 else 0


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("function", "because"),
    [
        (_allocate, "MemoryError"),
        (_exit, "ended its process with status 3"),
        (_crash, "was ended by SIGSEGV"),
    ],
    ids=["memory", "exit", "crash"],
)
def test_a_function_that_does_not_return_costs_its_job_alone(
    people: Pipeline, function: Any, because: str
) -> None:
    ids = people.filter("id < 3").map(function, opaque=True, schema="Int64")
    with pytest.raises(StepFailed, match=because) as caught:
        ids.collect()
    assert caught.value.row == 1
    assert people.count().collect().value == 6


def test_functions_cannot_reach_the_node(people: Pipeline, node: Any) -> None:
    secret = str(node.folder / "lake" / "node.key")

    def attempts(_: Any) -> dict[str, str]:
        import ctypes
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
            "reads": lambda: open(secret, "rb").read(),  # noqa: PTH123, SIM115
            "writes": lambda: open("/tmp/function", "w"),  # noqa: PTH123, SIM115
            "memory": lambda: open(f"/proc/{parent}/mem", "rb"),  # noqa: PTH123, SIM115
            "connects": lambda: socket.create_connection(("127.0.0.1", 80)),
            "starts": lambda: subprocess.run(["/bin/true"], check=True),
            "forks": os.fork,
            "signals": lambda: os.kill(parent, 0),
            "removes": lambda: os.unlink(secret),  # noqa: PTH108
            "traces": lambda: ctypes.CDLL(None).ptrace(16, parent, 0, 0),
        }
        found = {name: outcome(attempt) for name, attempt in tried.items()}
        return {**found, "environment": ",".join(sorted(os.environ))}

    names = [
        "reads",
        "writes",
        "memory",
        "connects",
        "starts",
        "forks",
        "signals",
        "removes",
        "traces",
        "environment",
    ]
    schema = dict.fromkeys(names, "Utf8")  # without it, the function is called here first
    (row,) = people.limit(1).map(attempts, opaque=True, schema=schema).to_arrow().to_pylist()

    environment = row.pop("environment")
    assert row.pop("traces") == "done: -1"
    assert set(row.values()) == {"PermissionError"}, row
    assert "SENNIT" not in environment
    assert "HOME" not in environment
