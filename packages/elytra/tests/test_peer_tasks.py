"""What a node runs for another one: only tasks that read granted shards and do nothing but compute."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elytra.backends.peer_tasks import _validated
from elytra.backends.task_spec import TaskSpec
from lake.peers.jobs.server import TaskCall
from lake.statements.limits import Requester
from sennit_core.errors import SennitError

ONE, TWO = "1" * 64, "2" * 64
SCHEMA = {"fields": [{"name": "n", "type": "Int64"}]}
SCAN: dict[str, Any] = {
    "op": "scan",
    "source": {"files": ["shard-0"], "format": "parquet"},
    "schema": SCHEMA,
}


def spec(plan: Any = SCAN, **changes: Any) -> dict[str, Any]:
    found = {
        "v": 1, "id": "j-t0-1", "job": "j", "key": "t0", "plan": {"v": 1, **plan},
        "inputs": [{"name": "shard-0", "kind": "shard", "id": ONE}], "output": "arrow",
        "copyBytesMax": 0, "limits": {"memCapBytes": None, "seconds": None, "outputBytesMax": None},
        "user": "",
    }  # fmt: skip
    return found | changes


def validated(document: Any, granted: dict[str, tuple[str, ...]] | None = None) -> TaskSpec:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    call = TaskCall(
        text, granted or {"d": (ONE,)}, Requester("ada", node="rome"), "ada@rome", 1, ""
    )
    return _validated(call)


def test_a_task_over_granted_shards_runs() -> None:
    assert validated(spec()).key == "t0"


def nested(depth: int) -> bytes:
    below, above = '{"op":"distinct","input":', json.dumps(SCAN) + "}" * depth
    return json.dumps(spec({"op": "X"})).replace('"op": "X"', f'"op":"distinct","input":{below * depth}{above}').encode()  # fmt: skip


HOSTILE = {
    "not JSON": b"\x80\x04\x95pickle",
    "a pickle in a text": b'"' + b"\x80" * 100,
    "no task": {"v": 1},
    "a member more": spec(path="/etc/passwd"),
    "another version": spec(v=2),
    "a plan that is a text": spec() | {"plan": "SELECT 1"},
    "deeper than plans may be": nested(500),
    "deeper than JSON may be": nested(100_000),
    "an unknown operator": spec({"op": "shell", "input": SCAN}),
    "an opaque function": spec({"op": "map_rows", "input": SCAN, "code": "os.system('x')"}),
    "an operator of a package": spec({"op": "custom", "name": "x:y", "inputs": [SCAN], "params": {}}),
    "a sink": spec({"op": "sink", "input": SCAN, "target": {"file": "/tmp/x", "format": "csv"}}),
    "a path": spec(SCAN | {"source": {"files": ["/etc/passwd"], "format": "parquet"}}),
    "another format": spec(SCAN | {"source": {"files": ["shard-0"], "format": "csv"}}),
    "a dataset": spec(SCAN | {"source": {"dataset": "secret"}}),
    "a partial of another job": spec(inputs=[{"name": "shard-0", "kind": "partial", "id": "p.arrow"}]),
    "rows of a query": spec(inputs=[{"name": "shard-0", "kind": "query", "id": "shard-0"}]),
    "a shard that was not granted": spec(inputs=[{"name": "shard-0", "kind": "shard", "id": TWO}]),
    "an unknown column": spec({"op": "filter", "input": SCAN, "predicate": {"col": "nope"}}),
    "a negative limit": spec(limits={"memCapBytes": -1, "seconds": None, "outputBytesMax": None}),
}  # fmt: skip


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_task_is_refused_before_anything_runs(document: Any) -> None:
    with pytest.raises(SennitError):
        validated(document)


def test_all_that_was_granted_is_read() -> None:
    """So what a request is checked for is what is read, neither more nor less."""
    with pytest.raises(SennitError, match="other shards"):
        validated(spec(), {"d": (ONE, TWO)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["v", "op", "input", "plan", "n"]), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=50)
@given(st.sampled_from(sorted(spec())), JSON)
def test_any_member_may_be_anything(member: str, value: Any) -> None:
    try:
        task = validated(spec() | {member: value})
    except SennitError:
        return
    assert {each.id for each in task.inputs} == {ONE}
