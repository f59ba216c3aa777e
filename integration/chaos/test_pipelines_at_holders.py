"""Pipelines run at the nodes that hold the shards: from the command line, over HTTP, and while holders die or lie."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from held_copies import BATCH_ROWS, BATCHES, HOLDER, READER, WRITER, fill, shards
from hostile_node import lies_of, within
from networks import Member, eventually, members

from elytra import Pipeline, col, count
from elytra.client.job_handle import Job
from nodes import RunningNode, platform

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # three real nodes
RIGHT = [{"batch": batch, "n": BATCH_ROWS} for batch in range(BATCHES)]


@contextmanager
def three(folder: Path, lie: str = "") -> Iterator[dict[str, Member]]:
    """Oslo and Rome hold a dataset of four shards, of which Bern has none."""
    lying = {HOLDER: within(lie)} if lie else {}
    with members(folder, WRITER, HOLDER, READER, within=lying) as nodes:
        fill(nodes)
        reader = nodes[READER].node
        eventually(lambda: "log" in platform("sql", "SHOW TABLES", data=reader.data).stdout)
        eventually(lambda: placed(reader) == {WRITER, HOLDER})
        yield nodes


def placed(node: RunningNode) -> set[str]:
    """Return which nodes would run tasks of a pipeline over the dataset."""
    with node.session() as session:
        text = counts(session).explain("peers")
    return {name for name in (WRITER, HOLDER, READER) if f"\n  {name}: " in text}


def counts(session: Any) -> Pipeline:
    grouped: Pipeline = session.pipeline("log").group_by("batch").agg(n=count()).sort("batch")
    return grouped


def slow(session: Any) -> Pipeline:
    """The same answer, after seconds for each shard."""
    texts = {f"t{n}": (col("v") + n).cast("Utf8").replace("1", "one").upper() for n in range(8)}
    tops = {f"top_{name}": col(name).max() for name in texts}
    log: Pipeline = session.pipeline("log")
    grouped = log.with_columns(**texts).group_by("batch").agg(n=count(), **tops)
    return grouped.select("batch", "n").sort("batch")


def rows(job: Job) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job.result(timeout_seconds=200).to_arrow().to_pylist()
    return found


def is_busy(node: RunningNode) -> bool:
    with node.session() as session:
        return bool(session.stats()["busy"])


def test_a_pipeline_over_data_of_other_nodes_runs_there(tmp_path: Path) -> None:
    with three(tmp_path) as nodes:
        reader = nodes[READER].node
        words = ("run", "log", "--group-by", "batch", "--agg", "n=count()", "--engine", "peers")
        found = json.loads(platform(*words, "--json", data=reader.data).stdout)
        assert sorted(found["rows"]) == [list(each.values()) for each in RIGHT]
        assert found["job"]["engine"] == "peers"
        with reader.session() as session:
            assert counts(session).submit(engine="auto").wait().engine == "peers"
        assert shards(reader) == {}, "the partials came from the holders"


@pytest.mark.crash
@pytest.mark.parametrize("loss", ["kill", "stop"])
def test_a_holder_is_lost_in_the_middle_of_a_job(tmp_path: Path, loss: str) -> None:
    with three(tmp_path) as nodes:
        reader, holder = nodes[READER].node, nodes[HOLDER]
        with reader.session() as session:
            job = slow(session).submit(engine="peers")
            eventually(lambda: is_busy(holder.node))
            holder.kill() if loss == "kill" else holder.stop()
            try:
                assert rows(job) == RIGHT
            finally:
                if loss == "stop":
                    holder.go_on()
        assert shards(reader) == {}, "the writer has computed them all"


def test_a_cancelled_job_ends_at_all_nodes(tmp_path: Path) -> None:
    with three(tmp_path) as nodes:
        with nodes[READER].node.session() as session:
            job = slow(session).submit(engine="peers")
            eventually(lambda: is_busy(nodes[WRITER].node) and is_busy(nodes[HOLDER].node))
            job.cancel()
        eventually(lambda: not any(is_busy(each.node) for each in nodes.values()))


def test_shards_that_no_node_has_are_refused_or_left_out(tmp_path: Path) -> None:
    with three(tmp_path) as nodes:
        reader = nodes[READER].node
        nodes[HOLDER].kill()
        nodes[WRITER].kill()
        words = ("run", "log", "--group-by", "batch", "--agg", "n=count()")
        eventually(lambda: platform(*words, data=reader.data, check=False).returncode != 0)
        refused = platform(*words, data=reader.data, check=False)
        assert "shards" in refused.stderr
        partial = platform(*words, "--allow-partial", "--json", data=reader.data)
        assert f"shards with {BATCHES * BATCH_ROWS} rows are missing" in partial.stderr
        assert json.loads(partial.stdout)["rows"] == []


def test_a_holder_that_lies_makes_no_answer_wrong(tmp_path: Path) -> None:
    with three(tmp_path, "wrong partials") as nodes:
        reader, liar = nodes[READER].node, nodes[HOLDER].node
        with reader.session() as session:
            while lies_of(liar.data) < 12:
                assert rows(counts(session).submit(engine="peers")) == RIGHT
        assert reader.process.poll() is None
