"""Specs of tasks as text: what was written is read again, and all else is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elytra.backends import TaskInput, TaskLimits, TaskSpec
from elytra.backends.task_spec import TEXT_BYTES_MAX, bound_plan
from emsqrt.plan import DatasetRef, Files, FileTarget, Limit, Scan, Sink, StreamTarget
from sennit_core.errors import SennitError, TooLarge, Unsupported, UsageError

SHARD = TaskInput("shard-0", "shard", "ab" * 32)


def spec(**changes: Any) -> TaskSpec:
    members = {
        "id": "j1-t000000-1",
        "job": "j1",
        "key": "t000000",
        "plan": Limit(Scan(Files(("shard-0",), "parquet")), 5),
        "inputs": (SHARD,),
        "output": "arrow",
        "limits": TaskLimits(mem_cap_bytes=1 << 20, seconds=2.5, output_bytes_max=1000),
        "user": "ann",
    }
    return TaskSpec(**{**members, **changes})


def test_a_spec_is_read_as_it_was_written() -> None:
    text = json.dumps(spec().to_json())
    again = TaskSpec.from_json(text)
    assert again.to_json() == spec().to_json()
    assert (again.limits, again.inputs) == (spec().limits, (SHARD,))


def test_a_spec_is_bound_to_files_of_the_machine_that_runs_it() -> None:
    streamed = bound_plan(spec(), {"shard-0": "/data/x"}.__getitem__, Path("/out"))
    written = bound_plan(spec(output="parquet"), {"shard-0": "/data/x"}.__getitem__, Path("/out"))
    assert isinstance(streamed.input, Limit)
    assert isinstance(streamed.input.input, Scan)
    assert streamed.input.input.source == Files(("/data/x",), "parquet")
    assert streamed.target == StreamTarget("arrow")
    assert written.target == FileTarget("/out", "parquet")


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": Scan(Files(("/etc/passwd",), "csv"))},
        {"plan": Scan(Files(("shard-1",), "parquet"))},
        {"plan": Scan(DatasetRef("d"))},
        {"plan": Sink(Scan(Files(("shard-0",), "parquet")), FileTarget("/tmp/x", "csv"))},
        {"inputs": (SHARD, SHARD)},
        {"id": "../x"},
        {"job": ""},
        {"output": "csv"},
        {"copy_bytes_max": -1},
        {"user": "x" * 300},
    ],
)
def test_a_spec_that_reaches_further_than_its_inputs_cannot_be_made(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(UsageError):
        spec(**changes)


@pytest.mark.parametrize(
    "input_",
    [
        ("shard", "shard", "ab" * 32),
        ("shard-0", "file", "x"),
        ("shard-0", "shard", "../../etc/passwd"),
        ("partial-0", "partial", "../t000000-1.arrow"),
        ("partial-0", "partial", ".hidden"),
    ],
)
def test_an_input_has_an_id_and_no_path(input_: tuple[str, Any, str]) -> None:
    with pytest.raises(UsageError):
        TaskInput(*input_)


def change(path: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def changed(data: dict[str, Any]) -> Any:
        *above, last = path.split(".")
        place: Any = data
        for name in above:
            place = place[int(name) if name.isdigit() else name]
        place[last] = value
        return data

    return changed


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda _: [],
    "null": lambda _: None,
    "a member too many": change("path", "/etc/passwd"),
    "another version": change("v", 2),
    "a plan that is none": change("plan", "drop table"),
    "an unknown operator": change("plan.op", "shell"),
    "a path": change("plan.input.source", {"files": ["/etc/passwd"], "format": "csv"}),
    "inputs that are none": change("inputs", {"shard-0": 1}),
    "an input that is none": change("inputs.0.name", ["shard-0"]),
    "a query": change("inputs", [{"name": "source-0", "kind": "query", "id": "source-0"}]),
    "a kind that is none": change("inputs.0.kind", {}),
    "an infinite limit": change("limits.seconds", float("inf")),
    "no number": change("limits.seconds", float("nan")),
    "a negative limit": change("limits.memCapBytes", -1),
    "a true limit": change("limits.outputBytesMax", True),
    "a huge number": change("copyBytesMax", 1 << 70),
    "an output that is a list": change("output", []),
    "a user that is none": change("user", 7),
    "an id with a line feed": change("id", "j1\n"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_by_name(name: str) -> None:
    text = json.dumps(HOSTILE[name](spec().to_json()))
    with pytest.raises(SennitError) as refused:
        TaskSpec.from_json(text)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe", "NaN"])
def test_what_is_no_json_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(UsageError):
        TaskSpec.from_json(text)


def test_a_text_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(TooLarge):
        TaskSpec.from_json(" " * (TEXT_BYTES_MAX + 1))


def test_rows_of_a_query_do_not_leave_the_node() -> None:
    query = TaskInput("source-0", "query", "source-0")
    local = spec(plan=Scan(Files(("source-0",), "parquet")), inputs=(query,))
    with pytest.raises(Unsupported, match="only here"):
        local.to_json()
