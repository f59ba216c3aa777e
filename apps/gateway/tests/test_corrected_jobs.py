"""Jobs that had ended with rows of a worker that is found to be wrong later, at a real gateway."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes

from elytra import Elytra, col
from elytra.backends.remote.exclusions import Exclusions
from elytra.client.job_handle import Job
from elytra.client.transport import wait_for
from elytra.pipelines.pipeline import Pipeline
from elytra.testing.scripted_worker import ScriptedWorker
from emsqrt.expr import count
from sennit_core.errors import Conflict

WAIT_SECONDS = 40.0
SHARDS = 2


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    """A node that compares no result unless a job asks for it."""
    node = opened({"workers.trust": "trust", "workers.lease_seconds": 3})
    for shard in range(SHARDS):
        numbers = range(shard * 50, shard * 50 + 50)
        node.node.lake.append("numbers", pa.table({"n": numbers, "k": [n % 4 for n in numbers]}))
    return node


@pytest.fixture
def client(node: OpenNode) -> Iterator[Elytra]:
    token = node.client.headers["authorization"].split()[1]
    with Elytra(node.url, token=token) as client:
        yield client


@pytest.fixture
def join(node: OpenNode) -> Iterator[Callable[..., ScriptedWorker]]:
    """Start a worker with a token of its own, which is wrong in all tasks or in those of these numbers."""
    with ExitStack() as owned:

        def start(*wrong: int, always: bool = False) -> Any:
            token = node.node.tokens.issue("a worker", "worker")
            worker = ScriptedWorker(
                node.url, token,
                fault="wrong-rows" if always else None,
                faults=dict.fromkeys(wrong, "wrong-rows"),
            )  # fmt: skip
            return owned.enter_context(worker).wait()

        yield start


def sums(client: Elytra) -> Pipeline:
    return client.remote("numbers").group_by("k").agg(n=count(), total=col("n").sum())


def rows(job: Job) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job.result(WAIT_SECONDS).to_arrow().to_pylist()
    return found


def caught(client: Elytra, worker: ScriptedWorker) -> None:
    """Submit a job whose results are compared, so that the worker is found to be wrong."""
    job = client.remote("numbers").select("n").submit(engine="browser", sample_percent=100)
    assert worker.ended.wait(WAIT_SECONDS)
    job.cancel()


def checked(job: Job) -> dict[str, Any]:
    """Wait until the check of a job has ended."""

    def ended() -> dict[str, Any] | None:
        check = job.check
        return check if check and check["state"] not in ("doubted", "running") else None

    return wait_for(ended, what="the check", seconds=WAIT_SECONDS)


def token_id(worker: ScriptedWorker) -> str:
    return hashlib.sha256(worker.token.encode()).hexdigest()[:12]


def test_wrong_rows_of_an_ended_job_are_replaced(
    node: OpenNode, client: Elytra, join: Callable[..., ScriptedWorker]
) -> None:
    wrong = join(always=True)
    right = rows(sums(client).submit(engine="local"))
    job = sums(client).submit(engine="browser")
    assert rows(job) != right
    assert (job.info.result or {})["tokens"] == [token_id(wrong)]
    job.save_as("sums", timeout_seconds=WAIT_SECONDS)
    of_node = sums(client).submit(engine="local")
    rows(of_node)

    caught(client, wrong)

    check = checked(job)
    assert (check["state"], check["token"]) == ("corrected", token_id(wrong))
    assert check["savedAs"] == ["sums"]
    assert rows(job) == right
    stored = node.node.jobs.result(job.id)
    assert [path.name for path in stored] == ["corrected-0.parquet"]
    assert [path.name for path in stored[0].parent.iterdir()] == ["corrected-0.parquet"]
    # What was saved is not changed, what is saved now has the right rows.
    assert sorted(rows(client.remote("sums").submit()), key=str) != sorted(right, key=str)
    job.save_as("sums", "replace", timeout_seconds=WAIT_SECONDS)
    assert sorted(rows(client.remote("sums").submit()), key=str) == sorted(right, key=str)
    # The new run is not on record any more, other jobs have no mark, and the page names the job.
    assert all(info.rerun_of is None for info in node.node.jobs.list())
    assert of_node.check is None
    (excluded,) = (
        each
        for each in node.client.get("/api/workers").json()["excluded"]
        if each["token"] == token_id(wrong)
    )
    assert excluded["doubtedJobs"] == [job.id]


def test_a_job_with_right_rows_of_a_wrong_worker_is_confirmed(
    node: OpenNode, client: Elytra, join: Callable[..., ScriptedWorker]
) -> None:
    """Its first results are right, that of a later job is not."""
    wrong = join(SHARDS, SHARDS + 1)
    job = sums(client).submit(engine="browser")
    before = rows(job)
    files = node.node.jobs.result(job.id)
    caught(client, wrong)
    assert checked(job)["state"] == "confirmed"
    assert (rows(job), node.node.jobs.result(job.id)) == (before, files)
    assert "tokens" not in (job.info.result or {})


def test_a_job_that_cannot_run_again_says_why_and_is_not_saved(
    node: OpenNode, client: Elytra, join: Callable[..., ScriptedWorker]
) -> None:
    node.node.lake.append("passing", pa.table({"n": [1, 2, 3]}))
    wrong = join(always=True)
    job = client.remote("passing").agg(total=col("n").sum()).submit(engine="browser")
    before = rows(job)
    assert node.client.delete("/api/datasets/passing").status_code in (200, 204)
    caught(client, wrong)
    check = checked(job)
    assert check["state"] == "failed"
    assert "cannot be run again" in check["reason"]
    assert rows(job) == before
    with pytest.raises(Conflict, match="found to be wrong"):
        job.save_as("totals")


def test_a_worker_has_a_bound_of_jobs_that_are_run_again(
    node: OpenNode, client: Elytra, join: Callable[..., ScriptedWorker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The newest ones; the others are marked all the same."""
    monkeypatch.setattr(node.node.jobs.corrections, "jobs_of_a_token_max", 1)
    wrong = join(always=True)
    older, newer = (sums(client).submit(engine="browser") for _ in range(2))
    rows(older), rows(newer)
    caught(client, wrong)
    assert checked(newer)["state"] == "corrected"
    assert "more than 1 job" in checked(older)["reason"]


def test_an_excluded_token_is_admitted_again_by_an_admin(
    node: OpenNode, client: Elytra, join: Callable[..., ScriptedWorker]
) -> None:
    wrong = join(always=True)
    caught(client, wrong)
    with node.client_of("writer") as writer:
        assert writer.delete("/api/workers/excluded?token=x").status_code == 403
    assert token_id(wrong) in node.node.jobs.remote.excluded()
    path = f"/api/workers/excluded?token={token_id(wrong)}"
    assert node.client.delete(path).status_code == 204
    assert node.client.delete(path).status_code == 404
    with ScriptedWorker(node.url, wrong.token) as again:
        assert not again.wait().ended.is_set()


def test_what_a_node_had_found_before_it_ended_is_checked(
    node: OpenNode, client: Elytra, join: Callable[..., ScriptedWorker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The exclusion is on disk, and the jobs are not marked yet."""
    jobs = node.node.jobs
    wrong = join(always=True)
    job = sums(client).submit(engine="browser")
    rows(job)
    monkeypatch.setattr(jobs._loop, "_on_discredited", lambda token: None)
    caught(client, wrong)
    assert job.check is None
    stored = Exclusions(node.node.lake.folder / "remote" / "excluded.json").all()
    assert {token: each.reason for token, each in stored.items()} == jobs.remote.excluded()
    assert stored[token_id(wrong)].wrong_rows
    jobs.corrections.recover(jobs.remote.wrong_tokens())
    assert checked(job)["state"] == "corrected"
