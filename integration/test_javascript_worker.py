"""The worker of `@sennit/elytra` in Node, installed from its archive, against a real node."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from npm_packages import install, pack

from elytra import Elytra, col, count
from elytra.pipelines.pipeline import Pipeline
from nodes import RunningNode, quiet_environment, running_node

pytestmark = pytest.mark.timeout(300)
WAIT_SECONDS = 90.0
ROWS = 30_000

value = col("price") * col("qty")
PIPELINES: dict[str, Callable[[Pipeline], Pipeline]] = {
    "count": lambda rows: rows.filter((value > 500) & (col("country") != "US")).count(),
    "groups": lambda rows: rows.group_by("country").agg(
        n=count(), total=value.sum(), mean=col("price").avg(), spread=col("price").stddev(),
        whole=col("qty").sum(), average=col("qty").avg(), lo=col("at").min(), hi=col("at").max(),
        some=col("note").count(), first=col("note").first(),
    ),
    "rows": lambda rows: rows.filter(value > 900).select("qty", "note", "at", half=col("qty") / 2),
    "top": lambda rows: rows.top_k(7, value.desc(), "at", "note"),
    "limit": lambda rows: rows.limit(20, 5),
    "distinct": lambda rows: rows.select("country", "qty").distinct(),
    "union": lambda rows: rows.select("country", "qty", "price").union(
        rows.filter(col("qty") < 3).select("country", "qty"), by_name=True
    ).group_by("country").agg(n=count(), total=col("price").sum(), qty=col("qty").max()),
    "join": lambda rows: rows.join(
        rows.group_by("country").agg(most=col("qty").max(), note=col("note").min()),
        on="country", how="left",
    ).group_by("most", "note_right").agg(n=count(), total=value.sum()),
    "anti join": lambda rows: rows.filter(col("qty") < 3).join(
        rows.filter(col("note").is_null()).select("qty", "at"), on=["at", "qty"], how="anti"
    ).select("at", "country", "note"),
}  # fmt: skip
"""Plans that a JavaScript worker computes."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `elytra` of the package."""
    folder = tmp_path_factory.mktemp("consumer")
    install([pack("elytra", folder)], folder)
    return folder / "node_modules/.bin/elytra"


@pytest.fixture(scope="module")
def checked_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that compares every result of a worker with its own."""
    folder = tmp_path_factory.mktemp("checked")
    os.environ["SENNIT_WORKERS__SAMPLE_PERCENT"] = "100"
    try:
        with running_node(folder / "node", "--api-only", "--memory", "1GiB") as node:
            _load(node)
            yield node
    finally:
        del os.environ["SENNIT_WORKERS__SAMPLE_PERCENT"]


def _load(node: RunningNode) -> None:
    """A dataset of three shards."""
    with node.session() as session:
        for shard in range(3):
            session.sql(f"""
                {"create table sales as" if shard == 0 else "insert into sales"}
                select (i * 7919 % 10007) / 16.0 as price, i % 13 as qty,
                    case i % 4 when 0 then 'US' when 1 then 'NO' when 2 then 'DE' end as country,
                    timestamp '2013-01-01' + interval (i) minute as at,
                    case when i % 5 = 0 then null else 'naïve ' || i % 50 end as note
                from range({shard * ROWS}, {(shard + 1) * ROWS}) r(i)
            """)


@contextmanager
def worker(
    program: Path, node: RunningNode, *options: str, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with node.session() as session:
        token = session.workers.invite()["token"]
        # One that was killed before is listed until its time to come back has passed.
        before = {each["id"] for each in session.workers.show()["workers"]}
        with ExitStack() as opened:
            process = subprocess.Popen(
                [program, "worker", node.url, *options],
                env=quiet_environment() | {"SENNIT_TOKEN": token},
                stderr=None if log is None else opened.enter_context(log.open("wb")),
            )
        try:
            _until(lambda: {each["id"] for each in session.workers.show()["workers"]} - before)
            yield process
        finally:
            process.kill()
            process.wait()


def _until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _rows(pipeline: Pipeline, engine: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        pipeline.submit(engine=engine).result(WAIT_SECONDS).to_arrow().to_pylist()
    )
    return found


@pytest.mark.nightly
def test_a_javascript_worker_computes_the_bits_of_the_node(
    program: Path, checked_node: RunningNode, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    joined = worker(program, checked_node, log=log)
    with joined, Elytra(checked_node.url, checked_node.token) as client:
        for name, build in PIPELINES.items():
            pipeline = build(client.remote("sales"))
            assert _rows(pipeline, "browser") == _rows(pipeline, "local"), name
        with checked_node.session() as session:
            shown = session.workers.show()
    (found,) = (each for each in shown["workers"] if each["state"] == "connected")
    assert (found["kind"], found["failed"]) == ("node", 0)
    assert found["finished"] >= len(PIPELINES), "the worker's own results counted"
    assert not re.search(r"[1-9]\d* failed", log.read_text()), "it gave no task back"
    assert shown["excluded"] == []


@pytest.mark.nightly
def test_tasks_are_computed_at_the_same_time_and_large_ones_given_back(
    program: Path, checked_node: RunningNode, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    many = {f"s{by}": (col("qty") * by).cast("Utf8").length().sum() for by in range(40)}
    with Elytra(checked_node.url, checked_node.token) as client:
        pipeline = client.remote("sales").agg(**many)
        expected = _rows(pipeline, "local")
        with worker(program, checked_node, "--threads", "3", log=log):
            assert _rows(pipeline, "browser") == expected
        assert "connected: 3 computing, 0 done, 0 failed" in log.read_text()
        groups = client.remote("sales").group_by("at").agg(**many)
        expected = _rows(groups, "local")
        # Its groups need more than the memory of a thread: the thread ends, the worker does not.
        with worker(program, checked_node, "--thread-memory", "16", log=log) as process:
            assert _rows(groups, "browser") == expected
            assert process.poll() is None
        with checked_node.session() as session:
            assert session.workers.show()["excluded"] == []


@pytest.mark.nightly
def test_what_is_not_computed_in_javascript_is_computed_by_the_node(
    program: Path, checked_node: RunningNode
) -> None:
    with worker(program, checked_node), Elytra(checked_node.url, checked_node.token) as client:
        pipeline = client.remote("sales").select(low=col("note").regexp_replace("n", "m")).limit(10)
        assert _rows(pipeline, "browser") == _rows(pipeline, "local")


@pytest.mark.nightly
def test_a_worker_stops_with_a_signal_and_says_why_it_is_refused(
    program: Path, checked_node: RunningNode
) -> None:
    with worker(program, checked_node) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    wrong = subprocess.run(
        [program, "worker", checked_node.url, "--threads", "0"],
        env=quiet_environment() | {"SENNIT_TOKEN": "x"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (wrong.returncode, "--threads is 0, not a whole number" in wrong.stderr) == (2, True)
    refused = subprocess.run(
        [program, "worker", checked_node.url],
        env=quiet_environment() | {"SENNIT_TOKEN": "snt_wrong"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "token is not admitted" in refused.stderr
