"""Interactive statements pass batch ones in the queue of the executors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.statements.running import RunningStatement
from sennit_core.errors import SennitError, UsageError

from .served_lake import Client, make_app


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Lake]:
    """A lake with one executor."""
    with (
        ElkynStore(mode="memory") as tree,
        ExecutorPool(1, memory_bytes=1 << 30, spill_dir=tmp_path / "spill") as pool,
        Lake(tmp_path / "data", tree=tree, pool=pool) as lake,
    ):
        yield lake


def test_queries_run_before_batch_statements_that_came_first(single: Lake) -> None:
    order: list[str] = []
    blocker = single.run("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")
    waiting = [
        ("insert", single.run("CREATE TABLE t AS SELECT 1 AS a", priority="batch", user="b")),
        ("report", single.run("SELECT 2", priority="batch", user="a")),
        ("query", single.run("SELECT 1", user="c")),
    ]

    def read(name: str, running: RunningStatement) -> None:
        with running:
            running.result()
        order.append(name)

    threads = [threading.Thread(target=read, args=each) for each in waiting]
    for thread in threads:
        thread.start()
    blocker.close()
    for thread in threads:
        thread.join(60)

    assert order[0] == "query"
    assert sorted(order) == ["insert", "query", "report"]


def test_an_unknown_priority_is_refused(single: Lake) -> None:
    with pytest.raises(UsageError, match="'urgent' is none of interactive, batch"):
        single.run("SELECT 1", priority="urgent")
    response = Client(make_app(single)).post(
        "/api/query", json={"sql": "SELECT 1; SELECT 2", "priority": "urgent"}
    )
    assert response.status_code == 400
    assert Client(make_app(single)).post(
        "/api/query", json={"sql": "SELECT 1 AS a", "priority": "batch"}
    ).json()["rows"] == [[1]]


def test_the_statements_of_a_request_share_its_priority(single: Lake) -> None:
    with (
        pytest.raises(SennitError, match="urgent"),
        single.run("BEGIN; CREATE TABLE t AS SELECT 1 AS a; COMMIT", priority="urgent") as running,
    ):
        running.result()
