"""Remote workers and their node killed in the middle of a task: the answer is the same."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from elytra import Elytra, col
from elytra.client.client import Client
from elytra.client.job_handle import Job
from elytra.pipelines.pipeline import Pipeline
from elytra.testing.scripted_worker import ScriptedWorker
from emsqrt.expr import count
from nodes import RunningNode, platform, quiet_environment, running_node
from sennit_core.errors import Unavailable

pytestmark = [pytest.mark.crash, pytest.mark.nightly]
ROWS = 300_000
WAIT_SECONDS = 60.0


@contextmanager
def worker_process(node: RunningNode, token: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = quiet_environment() | {"SENNIT_TOKEN": token}
    command = [sys.executable, "-m", "elytra.testing.scripted_worker", node.url]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def load(node: RunningNode, folder: Path) -> None:
    """Make a dataset of three shards, each of which keeps a worker busy for a while."""
    for shard in range(3):
        file = folder / f"rows-{shard}.csv"
        numbers = range(shard * ROWS, shard * ROWS + ROWS)
        file.write_text("n\n" + "".join(f"{n}\n" for n in numbers))
        mode = "create" if shard == 0 else "append"
        platform("put", str(file), "--name", "rows", "--mode", mode, "--wait", data=node.data)


def slow(client: Elytra) -> Pipeline:
    texts = {f"t{i}": (col("n") * i).cast("Utf8").replace("1", "one").upper() for i in range(6)}
    tops = {f"top{i}": col(f"t{i}").max() for i in range(6)}
    return client.remote("rows").with_columns(**texts).agg(n=count(), **tops)


def found_wrong(node: RunningNode) -> list[dict[str, Any]]:
    with node.session() as session:
        found: list[dict[str, Any]] = session.workers.show()["excluded"]
        return found


def workers_of(node: RunningNode) -> list[dict[str, Any]]:
    with node.session() as session:
        found: list[dict[str, Any]] = session.workers.show()["workers"]
        return found


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def invited(node: RunningNode) -> str:
    with node.session() as session:
        return str(session.workers.invite()["token"])


def rows_of(job: Job) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = job.result(WAIT_SECONDS).to_arrow().to_pylist()
    return rows


def test_a_worker_killed_in_a_task_does_not_change_the_answer(tmp_path: Path) -> None:
    with running_node(tmp_path / "node", "--api-only") as node, ExitStack() as owned:
        load(node, tmp_path)
        client = owned.enter_context(Elytra(node.url, token=node.token))
        expected = rows_of(slow(client).submit(engine="local"))
        killed = owned.enter_context(worker_process(node, invited(node)))
        until(lambda: workers_of(node))
        job = slow(client).submit(engine="browser")
        until(lambda: any(each["running"] for each in workers_of(node)))
        killed.kill()
        owned.enter_context(worker_process(node, invited(node)))
        assert rows_of(job) == expected
        assert job.info.engine == "browser"


def test_a_node_killed_in_a_task_gets_its_workers_back(tmp_path: Path) -> None:
    """They connect to the next run by themselves, and the job has the same answer there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--api-only", "--port", str(port))
    with ExitStack() as owned:
        with running_node(tmp_path / "node", *arguments) as node:
            load(node, tmp_path)
            with Elytra(node.url, token=node.token) as client:
                expected = rows_of(slow(client).submit(engine="local"))
                worker = owned.enter_context(worker_process(node, invited(node)))
                until(lambda: workers_of(node))
                job_id = slow(client).submit(engine="browser").id
                until(lambda: any(each["running"] for each in workers_of(node)))
            node.kill()
            (tmp_path / "node" / "run.json").unlink(missing_ok=True)
        with running_node(tmp_path / "node", *arguments) as node:
            until(lambda: workers_of(node))
            assert worker.poll() is None
            with Elytra(node.url, token=node.token) as client:
                try:
                    with Client(node.url, token=node.token) as by_id:
                        answer = rows_of(by_id.job(job_id))
                except (
                    Unavailable
                ):  # jobs that a run of the node has interrupted are submitted again
                    answer = rows_of(slow(client).submit(engine="browser"))
            assert answer == expected


@pytest.mark.timeout(300)
def test_a_node_killed_before_the_new_run_of_a_wrong_job_makes_it_later(tmp_path: Path) -> None:
    """Its worker is found to be wrong, the node is killed at any step that follows, and again after that."""
    (tmp_path / "node").mkdir(mode=0o700)
    (tmp_path / "node" / "config.toml").write_text('[workers]\ntrust = "trust"\n')
    arguments = ("--api-only",)
    with ExitStack() as owned:
        with running_node(tmp_path / "node", *arguments) as node:
            load(node, tmp_path)
            with Elytra(node.url, token=node.token) as client:
                sums = client.remote("rows").agg(n=count(), total=col("n").sum())
                expected = rows_of(sums.submit(engine="local"))
                wrong = ScriptedWorker(node.url, invited(node), fault="wrong-rows")
                owned.enter_context(wrong).wait()
                job = sums.submit(engine="browser")
                assert rows_of(job) != expected
                small = client.remote("rows").filter("n < 5").select("n")
                small.submit(engine="browser", sample_percent=100)
                until(lambda: found_wrong(node))
            node.kill()
            (tmp_path / "node" / "run.json").unlink(missing_ok=True)
        with running_node(tmp_path / "node", *arguments) as node:
            (excluded,) = found_wrong(node)
            assert "wrong rows" in excluded["reason"]
            with Client(node.url, token=node.token) as by_id:
                until(lambda: by_id.job(job.id).check is not None)
            node.kill()
            (tmp_path / "node" / "run.json").unlink(missing_ok=True)
        node = owned.enter_context(running_node(tmp_path / "node", *arguments))
        by_id = owned.enter_context(Client(node.url, token=node.token))
        found = by_id.job(job.id)
        until(lambda: (found.check or {}).get("state") == "corrected")
        assert rows_of(found) == expected
        assert not [each for each in by_id.jobs() if each.rerun_of]
