"""Python functions of pipelines at the front door of a node: who may submit them, and in which form."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import httpx
import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes

from elytra import Client, Elytra
from elytra.functions.step import FunctionStep
from emsqrt.plan import DatasetRef, Scan, plan_to_json
from sennit_core.errors import Denied
from sennit_core.schema import Schema

ONE = Schema.from_arrow(pa.schema({"value": pa.int64()}))


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    node = opened({"elytra.allow_python": True})
    node.node.lake.append("numbers", pa.table({"n": [1, 2, 3]}))
    return node


def plan(**options: Any) -> dict[str, Any]:
    program = "function = lambda r: r.n * 2"
    step = FunctionStep("map", program, "step 1, map(f)", result_shape="value")
    written = plan_to_json(step.over(Scan(DatasetRef("numbers")), ONE))
    written["options"] |= options
    return written


def submit(client: httpx.Client, document: Any, engine: str = "auto") -> httpx.Response:
    return client.post("/api/jobs?wait=30", json={"plan": document, "engine": engine})


def test_functions_of_an_admin_run_and_are_audited(
    node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sennit.audit")
    with Client(node.url, node.client.headers["authorization"].split()[1]) as client:
        doubled = Elytra(client).remote("numbers").map(lambda r: r.n * 2, opaque=True)
        assert doubled.collect().rows == [(2,), (4,), (6,)]

    (line,) = [record for record in caplog.records if record.message == "python ok"]
    fields: dict[str, Any] = line.fields  # type: ignore[attr-defined]
    assert fields["functions"][0]["step"] == "step 1, map(<lambda>)"
    assert len(fields["functions"][0]["sha256"]) == 64


@pytest.mark.parametrize("path", ["/api/jobs", "/api/plans/explain"])
def test_only_admins_may_submit_functions(node: OpenNode, path: str) -> None:
    with node.client_of("writer") as writer:
        answer = writer.post(path, json={"plan": plan()})
        assert (answer.status_code, answer.json()["code"]) == (403, "denied")
        assert "the role admin" in answer.json()["error"]
        assert writer.get("/api/plans/functions").json()["allowed"] is False


def test_a_job_with_functions_is_not_retried_by_others(node: OpenNode) -> None:
    failed = submit(node.client, plan(program="def function(r): raise ValueError(r.n)")).json()
    assert failed["job"]["error"]["details"]["row"] == 0
    with node.client_of("writer") as writer:
        answer = writer.post(f"/api/jobs/{failed['jobId']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")


@pytest.mark.parametrize("engine", ["peers", "browser", "ray"])
def test_functions_are_sent_to_no_machine_that_the_node_does_not_have(
    node: OpenNode, engine: str
) -> None:
    answer = submit(node.client, plan(), engine)
    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported")


@pytest.mark.parametrize(
    "options",
    [
        {"verb": "exec"},
        {"program": 5},
        {"program": "x" * (300 << 10)},
        {"program": "\ud800"},
        {"label": "a\nb"},
        {"label": ""},
        {"batchRows": 0},
        {"batchRows": True},
        {"shape": "object"},
        {"limits": {"memoryBytes": 1 << 40}},
        {"verb": "filter"},
    ],
    ids=lambda options: json.dumps(options)[:30],
)
def test_forged_options_are_refused_before_a_job_is_made(
    node: OpenNode, options: dict[str, Any]
) -> None:
    jobs = len(node.client.get("/api/jobs").json())
    answer = node.client.post("/api/jobs", content=json.dumps({"plan": plan(**options)}))
    assert answer.status_code in (400, 413), answer.text
    assert len(answer.text) < 1000
    assert len(node.client.get("/api/jobs").json()) == jobs


def test_other_operators_of_packages_and_many_functions_are_refused(node: OpenNode) -> None:
    other = plan() | {"name": "elytra.functions.operator:FunctionRows"}
    assert submit(node.client, other).json()["code"] == "unsupported"
    many = plan()
    for _ in range(8):
        above = deepcopy(plan())
        above["inputs"] = [{key: many[key] for key in many if key != "v"}]
        many = above
    assert submit(node.client, many).json()["code"] == "too-large"


def test_a_function_of_100_megabytes_is_refused_by_its_length(node: OpenNode) -> None:
    body = {"plan": plan(program="x" * (100 << 20))}
    answer = node.client.post("/api/jobs", content=json.dumps(body))
    assert answer.status_code == 413


def test_a_node_runs_no_functions_unless_it_is_set(plain: OpenNode) -> None:
    answer = submit(plain.client, plan())
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert "elytra.allow_python" in answer.json()["error"]

    with Client(plain.url, plain.client.headers["authorization"].split()[1]) as client:
        numbers = Elytra(client).remote("numbers")
        called: list[Any] = []
        with pytest.raises(Denied, match=r"elytra\.allow_python"):
            numbers.map(called.append, opaque=True)
        assert not called
