"""Short jobs: one request, rows from memory, and the same answer from the files."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from elytra import Elytra, Pipeline, col, count
from elytra.service.small_results import SmallResults
from emsqrt.plan import plan_to_json
from sennit_core.clock import SYSTEM
from sennit_core.errors import DeadlineExceeded


@pytest.fixture(scope="module")
def trips(shared_node: Any) -> Pipeline:
    """Three shards of trips."""
    for shard in range(3):
        numbers = range(shard * 1000, (shard + 1) * 1000)
        places = [None if at % 9 == 0 else f"p{at % 5}" for at in numbers]
        table = pa.table({"place": places, "km": [at * 0.1 for at in numbers], "n": numbers})
        shared_node.lake.append("trips", table)
    return Elytra(shared_node.client).remote("trips")


@pytest.fixture
def requests(shared_node: Any) -> Iterator[list[str]]:
    """Collect the requests of the node's client."""
    sent: list[str] = []
    hooks = shared_node.client._transport._http.event_hooks
    shared_node.client._transport._http.event_hooks = {
        "request": [lambda request: sent.append(f"{request.method} {request.url.path}")]
    }
    yield sent
    shared_node.client._transport._http.event_hooks = hooks


def submit(node: Any, pipeline: Pipeline, **query: Any) -> Any:
    document = {"plan": plan_to_json(pipeline.plan)}
    return httpx.post(f"{node.url}/api/jobs", params=query, json=document, timeout=60).json()


def eventually(look: Any, seconds: float = 30.0) -> None:
    until = SYSTEM.monotonic() + seconds
    while not look():
        assert SYSTEM.monotonic() < until, "it never came true"
        SYSTEM.sleep(0.01)


@pytest.mark.slow
def test_a_short_job_takes_one_request(trips: Pipeline, requests: list[str]) -> None:
    pipeline = trips.group_by("place").agg(n=count(), km=col("km").sum())
    pipeline.distribute()  # starts executors
    requests.clear()

    result = pipeline.distribute()

    assert requests == ["POST /api/jobs"]
    assert len(result) == 6
    assert result.manifest["rows"] == 6


@pytest.mark.slow
def test_the_rows_in_memory_are_those_of_the_file(shared_node: Any, trips: Pipeline) -> None:
    pipelines = [
        trips.group_by("place").agg(n=count(), km=col("km").sum(), low=col("n").min()),
        trips.filter(col("n") < 0).limit(5),
        trips.sort("km").limit(10),
        trips.with_columns(flag=col("n") > 1, text=col("n").cast("Utf8")).limit(3),
    ]
    for pipeline in pipelines:
        job = pipeline.submit()
        job.wait()
        kept = shared_node.jobs.small_result(job.id)
        assert kept is not None
        from_memory = job.result().to_arrow()
        shared_node.jobs._job_store.small_results.drop(job.id)
        from_file = job.result().to_arrow()
        assert from_memory.schema.equals(from_file.schema, check_metadata=True)
        assert from_memory.equals(from_file)


@pytest.mark.slow
def test_a_long_result_is_only_in_its_file(shared_node: Any, trips: Pipeline) -> None:
    job = trips.sort("n").submit()
    job.wait()
    assert shared_node.jobs.small_result(job.id) is None
    assert len(job.result()) == 3000


@pytest.mark.slow
def test_a_request_that_submits_may_wait(shared_node: Any, trips: Pipeline) -> None:
    with shared_node.all_busy():
        answer = submit(shared_node, trips.limit(1), wait=0.05)
        assert answer["job"]["state"] in {"queued", "running"}
        assert answer["rows"] is None
    ended = submit(shared_node, trips.limit(1), wait=20)
    assert ended["job"]["state"] == "done"
    assert "rows" not in submit(shared_node, trips.limit(1))


@pytest.mark.slow
def test_a_client_that_disconnects_before_the_answer_cancels_its_job(
    shared_node: Any, trips: Pipeline
) -> None:
    known = {job.id for job in shared_node.jobs.list()}
    body = json.dumps({"plan": plan_to_json(trips.limit(1).plan)}).encode()
    head = f"POST /api/jobs?wait=20 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    address = httpx.URL(shared_node.url)

    def states() -> list[str]:
        return [job.state for job in shared_node.jobs.list() if job.id not in known]

    with shared_node.all_busy():
        with socket.create_connection((address.host, address.port or 80)) as client:
            client.sendall(head.encode() + body)
            eventually(lambda: states() in (["running"], ["queued"]))
        eventually(lambda: states() == ["cancelled"])


@pytest.mark.slow
def test_a_short_timeout_cancels_the_job(shared_node: Any, trips: Pipeline) -> None:
    with shared_node.all_busy(), pytest.raises(DeadlineExceeded):
        trips.limit(1).distribute(timeout_seconds=0.1)
    newest = shared_node.jobs.list()[0].id
    eventually(lambda: shared_node.jobs.get(newest).state == "cancelled")


@pytest.mark.slow
def test_a_job_whose_rows_were_in_memory_has_them_after_a_restart(
    open_node: Any, tmp_path: Path
) -> None:
    with open_node(tmp_path / "node") as node:
        node.lake.append("rows", pa.table({"n": range(50)}))
        job = Elytra(node.client).remote("rows").agg(total=col("n").sum()).submit()
        assert job.result().value == 1225
    with open_node(tmp_path / "node") as node:
        info = node.client.job(job.id).info
        assert (info.state, info.plan is not None) == ("done", True)
        assert node.client.job(job.id).result().value == 1225


def test_small_results_hold_a_bounded_memory() -> None:
    results = SmallResults(bytes_max=100)
    for number in range(10):
        results.put(f"j{number}", bytes(30))
    results.put("none", None)
    assert [n for n in range(10) if results.get(f"j{n}") is not None] == [7, 8, 9]
    assert results.get("none") is None


def test_a_result_that_was_dropped_frees_its_memory() -> None:
    results = SmallResults(bytes_max=100)
    for _ in range(10):
        results.put("again", bytes(60))
        results.drop("again")
    results.put("a", bytes(50))
    results.put("b", bytes(50))
    assert results.get("a") == results.get("b") == bytes(50)
