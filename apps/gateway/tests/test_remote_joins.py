"""Joins with a small side at remote workers of a real gateway."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes

from elytra import Elytra, col
from elytra.backends.remote import inputs
from elytra.backends.remote.messages import Task
from elytra.pipelines.pipeline import Pipeline
from elytra.testing.scripted_worker import ScriptedWorker
from emsqrt.expr import count

WAIT_SECONDS = 40.0
SHARDS = 3


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    """A node that runs every task of a worker itself too."""
    node = opened({"workers.sample_percent": 100})
    lake = node.node.lake
    for shard in range(SHARDS):
        numbers = range(shard * 50, shard * 50 + 50)
        words = [f"k{n % 5}" if n % 7 else None for n in numbers]
        lake.append("numbers", pa.table({"n": numbers, "k": words, "hidden": numbers}))
    for keys, titles in (
        (["k1", "k2", None], ["one", "two", "none"]),
        (["k1", "k9"], ["uno", "9"]),
    ):
        lake.append("names", pa.table({"k": keys, "title": titles, "secret": titles}))
    return node


class Seeing(ScriptedWorker):
    """A worker that keeps its inputs."""

    seen: list[bytes]

    def _fetch(self, task: Task) -> bytes:
        data = super()._fetch(task)
        self.seen.append(data)
        return data


@pytest.fixture
def worker(node: OpenNode) -> Iterator[Seeing]:
    made = Seeing(node.url, node.node.tokens.issue("a worker", "worker"))
    made.seen = []
    with made as started:
        yield started.wait()


@pytest.fixture
def rows(node: OpenNode) -> Iterator[Callable[[str], Pipeline]]:
    token = node.client.headers["authorization"].split()[1]
    with Elytra(node.url, token=token) as client:
        yield client.remote


def answer(pipeline: Pipeline, engine: str) -> tuple[str, list[dict[str, Any]]]:
    job = pipeline.submit(engine=engine)
    table = job.result(WAIT_SECONDS).to_arrow()
    return job.info.engine, table.to_pylist()


def columns_of(data: bytes) -> list[list[str]]:
    """Return the columns of the streams of an input."""
    source, found = io.BytesIO(data), []
    while source.tell() < len(data):
        reader = pa.ipc.open_stream(source)
        found.append(reader.schema.names)
        for _ in reader:
            pass
    return found


def test_joins_have_the_rows_and_the_order_of_the_node(
    rows: Callable[[str], Pipeline], worker: Seeing
) -> None:
    numbers, names = rows("numbers"), rows("names")
    joined = numbers.join(names, on="k", how="left").select("n", "title")
    assert answer(joined, "browser") == ("browser", answer(joined, "local")[1])
    sent = [columns_of(data) for data in worker.seen]
    assert sent == [[["n", "k"], ["k", "title"]]] * SHARDS, "no other column leaves the node"
    worker.seen.clear()
    groups = numbers.join(names.filter("title <> 'uno'"), on="k").group_by("title")
    sums = groups.agg(n=count(), total=col("n").sum())
    assert answer(sums, "browser") == ("browser", answer(sums, "local")[1])
    assert len(worker.seen) == SHARDS


@pytest.mark.nightly
def test_rows_without_a_match_and_sides_on_the_left(
    rows: Callable[[str], Pipeline], worker: Seeing
) -> None:
    numbers, names = rows("numbers"), rows("names")
    for each in (
        numbers.join(names.filter("title <> 'uno'"), on="k", how="anti").select("n").limit(40),
        names.join(numbers.filter("n > 120"), on="k", how="semi"),
        numbers.join(names.group_by("k").agg(n=count()), on=["n", "k"], how="semi"),
    ):
        assert answer(each, "browser") == ("browser", answer(each, "local")[1])
    assert worker.seen


@pytest.mark.nightly
def test_other_joins_run_on_the_node(rows: Callable[[str], Pipeline], worker: Seeing) -> None:
    numbers, names = rows("numbers"), rows("names")
    none = names.filter("title = '~ behind all of them'")
    for each in (
        numbers.join(names, on="k", how="full").select("n", "title"),
        numbers.join(none, on="k", how="left").select("n", "title"),
    ):
        assert answer(each, "browser") == ("local", answer(each, "local")[1])
    assert worker.tasks_seen == []


def test_a_side_that_is_not_small_stays_on_the_node(
    rows: Callable[[str], Pipeline], worker: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "SIDE_BYTES_MAX", 64)
    pipeline = rows("numbers").join(rows("names").rename({"title": "name"}), on="k").select("n")
    assert answer(pipeline, "browser") == ("browser", answer(pipeline, "local")[1])
    assert worker.tasks_seen == []


@pytest.mark.nightly
def test_a_side_is_written_once_for_all_tasks(
    node: OpenNode, rows: Callable[[str], Pipeline], worker: Seeing
) -> None:
    folder = node.node.lake.folder / "remote" / "inputs"
    before = {*folder.iterdir()} if folder.exists() else set()
    answer(rows("numbers").join(rows("names"), on="k").select("n", "secret"), "browser")
    assert len({*folder.iterdir()} - before) == SHARDS + 1
    assert len(worker.tasks_seen) == SHARDS
