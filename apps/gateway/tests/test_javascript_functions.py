"""JavaScript functions of pipelines at a node: who may submit them, and which workers get them."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import httpx
import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes

from elytra.backends.remote.messages import Failed, Message, Task
from elytra.client.transport import wait_for
from elytra.functions.javascript import JavascriptStep, is_javascript
from elytra.testing.scripted_worker import Fault, ScriptedWorker
from emsqrt.expr import col, count, lit
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Join,
    Limit,
    Plan,
    Project,
    Scan,
    plan_from_json,
    plan_to_json,
    rewrite,
)
from sennit_core.schema import Schema

ONE = Schema.from_arrow(pa.schema({"value": pa.int64()}))
DOUBLE = JavascriptStep("map", "(r) => r.n * 2", "step 1, map", returns_value=True)
NUMBERS = Scan(DatasetRef("numbers"))


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    node = opened({"elytra.allow_javascript": True, "workers.sample_percent": 100})
    for n in (1, 2):
        node.node.lake.append("numbers", pa.table({"n": [n, 10 * n]}))
    node.node.lake.append("prices", pa.table({"p": pa.array([1], pa.decimal128(5, 2))}))
    return node


class Tab(ScriptedWorker):
    """A worker that says that its owner runs functions; it has the only one that is sent here in Python."""

    def _compute(self, task: Task) -> bytes:
        def doubled(each: Plan) -> Plan:
            return (
                Project(each.inputs[0], (("value", col("n") * 2),)) if is_javascript(each) else each
            )

        plan = plan_to_json(rewrite(plan_from_json(task.spec["plan"]), doubled))
        return super()._compute(replace(task, spec={**task.spec, "plan": plan}))


class FailingTab(ScriptedWorker):
    """A worker whose functions throw."""

    def _result(self, task: Task, fault: Fault | None) -> Message:
        return Failed(
            task.attempt, "step-failed", "step 1, map, row 0: Error:\n\x1b[31mno" + "x" * 900
        )


def tab(node: OpenNode, kind: type[ScriptedWorker] = Tab, *, functions: bool = True) -> Any:
    token = node.node.tokens.issue("tab", "worker")
    return kind(node.url, token, slots=2, functions=functions)


def submit(client: httpx.Client, plan: Any, engine: str = "browser", **more: Any) -> httpx.Response:
    document = plan_to_json(plan) if isinstance(plan, Plan) else plan
    return client.post("/api/jobs", json={"plan": document, "engine": engine, **more})


def ended(node: OpenNode, job: str) -> Any:
    """The record of a job that has ended."""

    def found() -> Any:
        record = node.client.get(f"/api/jobs/{job}").json()
        return record if record["state"] in ("done", "failed") else None

    return wait_for(found, what="the job", seconds=60)


def rows_of(node: OpenNode, job: str) -> Any:
    assert ended(node, job)["state"] == "done"
    return node.client.get(f"/api/jobs/{job}/result").json()["rows"]


def explained(node: OpenNode) -> Any:
    body = {"plan": plan_to_json(DOUBLE.over(NUMBERS, ONE)), "engine": "browser"}
    return node.client.post("/api/plans/explain", json=body).json()


def test_functions_go_to_workers_alone_whose_owners_run_them(
    node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sennit.audit")
    with tab(node, ScriptedWorker, functions=False) as other:
        other.wait()
        found = explained(node)
        assert (found["engine"], found["tasks"]) == ("browser", 2)
        assert "a tab whose owner runs functions of others" in found["waitsFor"]
        rows = DOUBLE.over(NUMBERS, ONE)
        job = submit(node.client, rows).json()["jobId"]
        sums = Aggregate(rows, (), (("n", count()), ("total", col("value").sum())))
        total = submit(node.client, sums).json()["jobId"]
        with tab(node) as allowing:
            allowing.wait()
            assert explained(node)["waitsFor"] is None
            assert rows_of(node, job) == [[2], [20], [4], [40]]
            assert rows_of(node, total) == [[4, 66]]
        assert other.tasks_seen == []
        assert len(allowing.tasks_seen) == 4
    record = node.client.get(f"/api/jobs/{job}").json()
    assert (record["engine"], record["plan"]["name"]) == ("browser", "javascript")
    lines = [record for record in caplog.records if record.message == "javascript ok"]
    fields: dict[str, Any] = lines[0].fields  # type: ignore[attr-defined]
    assert fields["functions"][0]["step"] == "step 1, map"


def test_a_function_that_fails_at_all_workers_fails_its_job_and_no_worker(node: OpenNode) -> None:
    with tab(node, FailingTab) as failing:
        failing.wait()
        job = submit(node.client, DOUBLE.over(NUMBERS, ONE)).json()["jobId"]
        error = ended(node, job)["error"]
    assert error["code"] == "step-failed"
    assert "step 1, map: a worker reports 'step-failed'" in error["error"]
    assert "\x1b" not in error["error"]
    assert len(error["error"]) < 800
    assert node.client.get("/api/workers").json()["excluded"] == []


@pytest.mark.parametrize("path", ["/api/jobs", "/api/plans/explain"])
def test_only_admins_may_submit_functions(node: OpenNode, path: str) -> None:
    body = {"plan": plan_to_json(DOUBLE.over(NUMBERS, ONE)), "engine": "browser"}
    with node.client_of("writer") as writer:
        answer = writer.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert "the role admin" in answer.json()["error"]


@pytest.mark.parametrize("engine", ["auto", "local", "peers", "ray", "browser-functions"])
def test_no_other_engine_runs_functions(node: OpenNode, engine: str) -> None:
    answer = submit(node.client, DOUBLE.over(NUMBERS, ONE), engine)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("unsupported", "usage")


def test_what_would_need_the_node_to_run_a_function_is_refused(node: OpenNode) -> None:
    rows = DOUBLE.over(NUMBERS, ONE)
    counted = JavascriptStep("map", "(r) => r.n", "step 2, map", returns_value=True)
    plans: dict[str, Plan] = {
        "step after a merge": counted.over(Aggregate(NUMBERS, (), (("n", count()),)), ONE),
        "a limit": Limit(rows, 1),
        "a join": Join(rows, rows, on=(("value", "value"),)),
        "type Decimal": DOUBLE.over(Scan(DatasetRef("prices")), ONE),
    }
    for reason, plan in plans.items():
        answer = submit(node.client, plan)
        assert (answer.status_code, answer.json()["code"]) == (400, "unsupported"), reason
    sampled = submit(node.client, rows, samplePercent=5)
    assert "samplePercent" in sampled.json()["error"]
    literal = Project(rows, (("x", lit(1)),))
    assert submit(node.client, literal, "local").json()["code"] == "unsupported"


@pytest.mark.parametrize(
    "options",
    [
        {"verb": "reduce"},
        {"program": 5},
        {"program": "x" * (1 << 20)},
        {"program": "\ud800"},
        {"label": "a\nb"},
        {"shape": "object"},
        {"returnsValue": 1},
        {"limits": {}},
        {"verb": "filter"},
    ],
    ids=lambda options: json.dumps(options)[:30],
)
def test_forged_options_are_refused_before_a_job_is_made(
    node: OpenNode, options: dict[str, Any]
) -> None:
    document = plan_to_json(DOUBLE.over(NUMBERS, ONE))
    document["options"] = {**document["options"], **options}
    body = json.dumps({"plan": document, "engine": "browser"})
    jobs = len(node.client.get("/api/jobs").json())
    answer = node.client.post("/api/jobs", content=body)
    assert answer.status_code in (400, 413), answer.text
    assert len(answer.text) < 1000
    assert len(node.client.get("/api/jobs").json()) == jobs


def test_many_functions_and_columns_that_none_returns_are_refused(node: OpenNode) -> None:
    many = plan_to_json(DOUBLE.over(NUMBERS, ONE))
    for _ in range(4):
        above = deepcopy(many)
        above["inputs"] = [{key: many[key] for key in many if key != "v"}]
        many = above
    assert submit(node.client, many).json()["code"] == "too-large"
    lists = Schema.from_arrow(pa.schema({"value": pa.list_(pa.int64())}))
    assert (
        "no JavaScript function returns"
        in submit(node.client, DOUBLE.over(NUMBERS, lists)).json()["error"]
    )
