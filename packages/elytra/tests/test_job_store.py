"""Stored fields of jobs, and those that the tree shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from elytra.service.job_store import JobStore
from elytra.service.messages import AttemptChanged, JobChanged, TaskChanged
from sennit_core.errors import NotFound
from sennit_core.records import JobInfo, Progress
from sennit_core.testing import ManualClock

PLAN = {"v": 1, "op": "aggregate", "keys": [], "aggs": []}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree", namespace="sys") as store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tree: ElkynStore, clock: ManualClock, tmp_path: Path) -> JobStore:
    """One job, j, of two tasks of 100 bytes each."""
    store = JobStore(tree, tmp_path / "jobs", clock=clock, remembered_max=3)
    add(store, "j")
    store.begin_tasks("j", {"t0": ("o0", 100), "t1": ("o1", 100)})
    return store


def add(store: JobStore, job_id: str, state: Any = "queued") -> None:
    job = JobInfo(
        id=job_id,
        kind="plan",
        plan=PLAN,
        plan_hash="h",
        engine="local",
        state=state,
        progress=None,
        submitted_by="me",
        created_at=1.0,
    )
    store.add(job, {"plan": PLAN})


def run(store: JobStore, *states: Any) -> None:
    for state in states:
        store.record([JobChanged("j", state)])


def test_the_tree_shows_each_state_and_the_tasks(store: JobStore, tree: ElkynStore) -> None:
    run(store, "running")
    store.record([TaskChanged("j", "t0", "done", 1, {"file": "t0-1.arrow"})])

    shown = tree.get("/jobs/j")
    assert shown["state"] == "running"
    assert shown["tasks"]["t0"] == {
        "id": "t0",
        "job": "j",
        "shard": "o0",
        "state": "done",
        "attempts": 1,
        "partial": "t0-1.arrow",
    }


def test_times_of_start_and_end_are_kept(store: JobStore, clock: ManualClock) -> None:
    run(store, "running")
    began = clock.now()
    clock.advance(5)
    run(store, "merging", "done")

    job = store.get("j")
    assert (job.started_at, job.finished_at) == (began, began + 5)


def test_progress_adds_up_over_tasks(store: JobStore) -> None:
    store.progress("j", "t0", Progress(bytes_done=40, rows=4, memory_bytes=7, phase="scan"))
    store.progress("j", "t1", Progress(bytes_done=10, rows=1, memory_bytes=5))
    progress = store.get("j").progress

    assert progress is not None
    assert (progress.done, progress.total) == (0, 2)
    assert (progress.bytes_done, progress.bytes_total) == (50, 200)
    assert (progress.rows, progress.memory_bytes, progress.phase) == (5, 12, "scan")


def test_a_finished_task_counts_in_full_and_one_tried_again_from_zero(store: JobStore) -> None:
    store.progress("j", "t0", Progress(bytes_done=40))
    store.progress("j", "t1", Progress(bytes_done=40))
    store.record([TaskChanged("j", "t0", "done", 1), TaskChanged("j", "t1", "pending", 1)])

    progress = store.get("j").progress
    assert progress is not None
    assert (progress.done, progress.bytes_done) == (1, 100)


def test_progress_is_shown_at_most_ten_times_a_second(
    store: JobStore, tree: ElkynStore, clock: ManualClock
) -> None:
    shown = 0
    with tree.watch("/jobs/j/progress") as events:
        next(iter(events))
        for step in range(1, 101):  # one second
            store.progress("j", "t0", Progress(bytes_done=step))
            store.show_progress()
            clock.advance(0.01)
        tree.set("/jobs/j/progress/phase", "end")
        for event in events:
            if event.path == "/phase":
                break
            shown += 1

    assert 9 <= shown <= 11


def test_old_jobs_are_forgotten_with_their_files(store: JobStore, tree: ElkynStore) -> None:
    for index in range(5):
        add(store, f"old{index}", "done")

    assert [job.id for job in store.all()] == ["old4", "old3", "old2", "j"]
    assert sorted(tree.get("/jobs")) == ["j", "old2", "old3", "old4"]
    assert not (store.folder / "old0").exists()
    with pytest.raises(NotFound):
        store.get("old0")


def test_a_submission_is_known_before_it_is_durable(
    store: JobStore, tree: ElkynStore, clock: ManualClock
) -> None:
    job = store.get("j")
    store.publish(replace(job, id="early"), {"datasets": ["d"], "sealed": True})
    assert store.note("early") == {"datasets": ["d"], "sealed": True}
    store.record([JobChanged("early", "running"), JobChanged("early", "done")])
    # A crash now: the end is durable, the submission is not, and nobody was told the id.
    again = JobStore(tree, store.folder, clock=clock)
    again.load()
    assert [each.id for each in again.all()] == ["j"]
    assert not (store.folder / "early").exists()


def test_what_a_job_did_before_it_was_durable_stays_visible(
    store: JobStore, tree: ElkynStore
) -> None:
    store.publish(replace(store.get("j"), id="k"), {})
    store.begin_tasks("k", {"t0": (None, None)})
    store.record([TaskChanged("k", "t0", "done", 1)])
    store.record([AttemptChanged("k", "t0", "k-t0-1", "w", "leased")])
    store.record([AttemptChanged("k", "t0", "k-t0-1", "w", "done")])
    store.persist("k")

    shown = tree.get("/jobs/k")
    assert shown["tasks"]["t0"]["state"] == "done"
    assert shown["attempts"]["k-t0-1"]["state"] == "done"
    assert shown["attempts"]["k-t0-1"]["worker"] == "w"


def test_a_restart_finds_jobs_and_plans_as_they_were(
    store: JobStore, tree: ElkynStore, clock: ManualClock
) -> None:
    add(store, "done", "done")
    (store.folder / "stray").mkdir()

    again = JobStore(tree, store.folder, clock=clock)
    unfinished = again.load()

    assert [job.id for job in unfinished] == ["j"]
    assert again.get("done").plan == PLAN
    assert not (store.folder / "stray").exists()


def test_a_job_is_read_while_its_tasks_report(store: JobStore) -> None:
    """Executions report from their own threads; a sum over tasks that change would fail."""
    store.progress("j", "t0", Progress(rows=3))
    progress = store._progress["j"]

    class Watched(dict[str, Progress]):
        def items(self) -> Any:
            assert progress._lock.locked()
            return super().items()

    progress._tasks = Watched(progress._tasks)
    found = store.get("j").progress
    assert found is not None
    assert found.rows == 3
