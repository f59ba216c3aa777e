"""Maintenance in the background: on time, one task at a time, resumed, and never in the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.maintenance.retention_rules import RetentionRule
from sennit_core.errors import Cancelled, NotFound, SennitError, UsageError
from sennit_core.records import Progress
from sennit_core.testing import ManualClock

from .conftest import put
from .served_lake import Client, make_app
from .test_damage import flip, manifest_of

HOUR = 3600.0
DAY = 24 * HOUR
TASKS = ["scrub", "compact", "statistics", "expire", "cleanup", "sweep"]


class Recorder:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str]] = []
        self.results: dict[str, tuple[dict[str, Any], SennitError | None]] = {}
        self.steps = 0
        self.cancelled: set[str] = set()
        self.all_ended = threading.Event()

    def started(self, task: str, user: str) -> str:
        self.runs.append((task, user))
        return str(len(self.runs) - 1)

    def progressed(self, run_id: str, progress: Progress) -> None:
        self.steps += 1

    def ended(self, run_id: str, result: dict[str, Any], error: SennitError | None) -> None:
        self.results[run_id] = (result, error)
        self.all_ended.set()

    def is_cancelled(self, run_id: str) -> bool:
        return run_id in self.cancelled


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time.time())


@pytest.fixture
def kept(tmp_path: Path, pool: ExecutorPool, clock: ManualClock) -> Iterator[Lake]:
    """A lake whose clock stands still; no thread runs as no task has a period."""
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, clock=clock) as lake,
    ):
        yield lake


def many_shards(lake: Lake, name: str, count: int = 9) -> None:
    lake.sql(f"CREATE TABLE {name} AS SELECT 0 AS a")
    for number in range(1, count):
        lake.sql(f"INSERT INTO {name} VALUES ({number})")


def with_periods(lake: Lake, seconds: float) -> None:
    for task in lake.maintenance.tasks.values():
        if task.name != "scrub":
            task.period_seconds = seconds  # type: ignore[misc]


def test_a_task_runs_when_its_time_has_come_and_not_before(kept: Lake, clock: ManualClock) -> None:
    many_shards(kept, "t")
    with_periods(kept, HOUR)

    assert kept.maintenance.run_due() == []  # the first run is within the first hour
    clock.advance(HOUR)
    assert sorted(kept.maintenance.run_due()) == sorted(TASKS[1:])
    assert kept.catalog.get("t").shards == 1
    assert kept.sql("SELECT sum(a), count(*) FROM t").rows == [(36, 9)]
    assert kept.maintenance.run_due() == []
    clock.advance(0.8 * HOUR)
    assert kept.maintenance.run_due() == []
    clock.advance(0.4 * HOUR)
    assert len(kept.maintenance.run_due()) == 5


def test_compaction_leaves_few_small_shards_as_they_are(kept: Lake) -> None:
    many_shards(kept, "few", 3)

    assert kept.maintenance.run("compact").changed == 0
    assert kept.catalog.get("few").shards == 3


def test_versions_expire_only_where_a_rule_says_so(kept: Lake, clock: ManualClock) -> None:
    many_shards(kept, "ruled", 4)
    many_shards(kept, "free", 4)
    kept.storage.retention_rules.set("ruled", RetentionRule(keep=2, older_than_seconds=DAY))

    assert kept.maintenance.run("expire").changed == 0  # none is old enough
    clock.advance(2 * DAY)
    assert kept.maintenance.run("expire").changed == 2

    assert [each.snapshot.version for each in kept.catalog.snapshots("ruled")] == [4, 3]
    assert len(kept.catalog.snapshots("free")) == 4


def test_a_rule_goes_with_its_dataset_and_is_checked(kept: Lake) -> None:
    many_shards(kept, "t", 1)
    with pytest.raises(UsageError, match="0 or more"):
        kept.storage.retention_rules.set("t", RetentionRule(keep=-1))
    kept.storage.retention_rules.set("t", RetentionRule(keep=3))
    assert kept.tree.get("/retention")

    kept.delete("t")

    assert not kept.tree.get("/retention")


def test_the_sweep_deletes_old_objects_that_nothing_references(
    kept: Lake, clock: ManualClock
) -> None:
    put(kept, "a.csv", "a\n1\n")
    used = set(kept.objects)
    orphan = kept.objects.put_bytes(b"left by a failed commit").object
    leased = kept.objects.put_bytes(b"being read").object

    with kept.retention.lease([leased]):
        assert kept.maintenance.run("sweep").changed == 0  # it may belong to a running commit
        clock.advance(2 * DAY)
        assert kept.maintenance.run("sweep").changed == 1

    assert set(kept.objects) == used | {leased}
    assert orphan not in kept.objects
    assert kept.maintenance.run("sweep").changed == 1


def test_an_interrupted_task_continues_after_a_restart(kept: Lake, clock: ManualClock) -> None:
    for number in range(4):
        many_shards(kept, f"t{number}")
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > 4

    with pytest.raises(Cancelled):
        kept.maintenance.run("compact", cancelled)
    done = kept.maintenance.tasks["compact"].state
    assert 0 < done.examined < 4
    assert done.cursor

    with Lake(kept.folder, tree=kept.tree, pool=kept.pool, clock=clock) as again:
        step = again.maintenance.run("compact")

    assert (step.examined, step.changed) == (4, 4)
    assert [info.shards for info in kept.catalog.list()] == [1, 1, 1, 1]


def test_a_damaged_dataset_is_skipped_and_named(kept: Lake) -> None:
    many_shards(kept, "t")
    put(kept, "flights.csv", "a\n1\n")
    flip(manifest_of(kept), 9)
    kept.catalog.reload()

    step = kept.maintenance.run("compact")

    assert (step.examined, step.changed, step.skipped) == (2, 1, 1)
    assert "flights" in (step.problem or "")


def test_only_runs_with_work_are_shown(kept: Lake, clock: ManualClock) -> None:
    seen = kept.maintenance.observer = Recorder()
    with_periods(kept, HOUR)
    kept.maintenance.run_due()
    clock.advance(HOUR)
    kept.maintenance.run_due()
    assert seen.runs == []

    many_shards(kept, "t")
    clock.advance(2 * HOUR)
    kept.maintenance.run_due()

    assert seen.runs == [("compact", "")]
    assert seen.results["0"][0]["changed"] == 1


def test_a_due_task_waits_while_statements_need_the_executors(
    kept: Lake, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_shards(kept, "t")
    waited = threading.Event()
    busy = [True, True, False]

    def is_busy() -> bool:
        waited.set()
        return busy.pop(0) if busy else False

    monkeypatch.setattr(kept.maintenance, "_is_busy", is_busy)
    with_periods(kept, HOUR)
    kept.maintenance.run_due()
    clock.advance(HOUR)
    kept.maintenance.run_due()

    assert waited.is_set()
    assert busy == []
    assert kept.catalog.get("t").shards == 1


def test_the_thread_runs_what_is_asked_for_once(kept: Lake) -> None:
    many_shards(kept, "t")
    seen = kept.maintenance.observer = Recorder()

    first, second = (kept.maintenance.request("compact", "ada") for _ in range(2))

    assert seen.all_ended.wait(60)
    assert first == second
    assert seen.runs == [("compact", "ada")]
    assert kept.catalog.get("t").shards == 1
    with pytest.raises(NotFound, match="compact"):
        kept.maintenance.request("compcat")


def test_a_requested_run_can_be_cancelled(kept: Lake) -> None:
    many_shards(kept, "t")
    seen = kept.maintenance.observer = Recorder()
    seen.cancelled.add("0")

    kept.maintenance.request("compact", "ada")

    assert seen.all_ended.wait(60)
    assert isinstance(seen.results["0"][1], Cancelled)
    assert kept.catalog.get("t").shards == 9


def test_appends_go_on_while_shards_are_compacted(lake: Lake) -> None:
    many_shards(lake, "t")
    stop = threading.Event()
    added = []

    def append() -> None:
        while not stop.is_set():
            lake.sql("INSERT INTO t VALUES (1000)")
            added.append(1)

    writer = threading.Thread(target=append)
    writer.start()
    try:
        for _ in range(3):
            step = lake.maintenance.run("compact")
            assert step.skipped == 0
    finally:
        stop.set()
        writer.join()

    assert lake.sql("SELECT count(*) FROM t").value == 9 + len(added)


def test_routes_of_maintenance(kept: Lake) -> None:
    many_shards(kept, "t")
    seen = kept.maintenance.observer = Recorder()
    client = Client(make_app(kept))

    states = client.get("/api/maintenance").json()
    assert [each["task"] for each in states] == TASKS
    assert client.post("/api/maintenance/compact").json() == {"jobId": "0"}
    assert seen.all_ended.wait(60)
    assert client.post("/api/maintenance/no").status_code == 404

    path = "/api/datasets/t/retention"
    assert client.get(path).json() == {"keep": 0, "olderThanSeconds": 0.0}
    rule = {"keep": 3, "olderThanSeconds": 60}
    assert client.put(path, json=rule).json() == rule
    assert client.put(path, json={"keep": -1}).status_code in (400, 422)
    assert client.delete(path).json() == {"keep": 0, "olderThanSeconds": 0.0}


def test_the_thread_has_the_lowest_priority(kept: Lake) -> None:
    found = []
    task = kept.maintenance.tasks["sweep"]
    work = task._work  # type: ignore[attr-defined]

    def noted(key: str, check: Any) -> int:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return int(work(key, check))

    task._work = noted  # type: ignore[attr-defined]
    seen = kept.maintenance.observer = Recorder()
    kept.maintenance.request("sweep")

    assert seen.all_ended.wait(60)
    assert set(found) == {19}
