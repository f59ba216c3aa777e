"""Results of a worker that has returned wrong rows are not used in jobs that have not ended."""

from collections.abc import Iterable
from typing import TypeVar

import pytest

from elytra.service.messages import (
    AttemptFailed,
    AttemptFinished,
    CancelRequested,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobSubmitted,
    MergeFailed,
    MergeFinished,
    StartAttempt,
    StartMerge,
    StopMerge,
    WorkerDiscredited,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.scheduler import Scheduler

T = TypeVar("T")
ERROR = {"error": "boom", "code": "internal", "hint": None}


def handle_all(scheduler: Scheduler, *events: Event) -> list[Instruction]:
    return [instruction for event in events for instruction in scheduler.handle(event)]


def of(instructions: Iterable[Instruction], kind: type[T]) -> list[T]:
    return [instruction for instruction in instructions if isinstance(instruction, kind)]


@pytest.fixture
def scheduler() -> Scheduler:
    """Two workers, and job j: the bad one has done t0, the good one t1; t2 runs at the bad one."""
    scheduler = Scheduler()
    handle_all(
        scheduler,
        WorkerJoined("bad", lease_seconds=9),
        WorkerJoined("good", lease_seconds=9),
        JobSubmitted("j", ("t0", "t1", "t2"), holds_partials=True),
    )
    [by] = {a.worker.id for a in scheduler._attempts.values() if a.task.key == "t0"}
    assert by == "bad"
    handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0, "bytes": 5, "token": "bad"}))
    return scheduler


def test_its_results_are_computed_again_by_others(scheduler: Scheduler) -> None:
    out = handle_all(
        scheduler,
        WorkerDiscredited("bad"),
        WorkerLeft("bad", ERROR),
        AttemptFinished("j-t1-1", {"n": 1, "bytes": 5}),
    )
    assert of(out, DropPartial) == [DropPartial("j-t0-1", {"n": 0, "bytes": 5, "token": "bad"})]
    again = of(out, StartAttempt)[-1]
    assert again.worker == "good"
    merges, left = [], {again.attempt}
    while left:
        out = handle_all(scheduler, AttemptFinished(left.pop(), {"n": 9, "bytes": 5}))
        left |= {each.attempt for each in of(out, StartAttempt)}
        merges += of(out, StartMerge)
    [merge] = merges
    assert not any("token" in partial for partial in merge.partials)
    assert [partial["n"] for partial in merge.partials] == [9, 1, 9]
    assert scheduler._jobs["j"].unmerged_bytes == 15


def test_another_workers_results_stay(scheduler: Scheduler) -> None:
    out = handle_all(scheduler, WorkerDiscredited("good"), WorkerDiscredited("unknown"))
    assert out == []


@pytest.mark.parametrize("is_done", [True, False])
def test_a_merge_that_reads_one_is_stopped_and_all_is_computed_again(
    scheduler: Scheduler, is_done: bool
) -> None:
    """All: a merge that has ended has removed the results that it read."""
    handle_all(
        scheduler,
        AttemptFinished("j-t1-1", {"n": 1, "bytes": 5}),
        AttemptFinished("j-t2-1", {"n": 2, "bytes": 5}),
    )
    out = handle_all(scheduler, WorkerDiscredited("bad"), WorkerLeft("bad", ERROR))
    assert out == [StopMerge("j", 1)]
    ended = MergeFinished("j", 1, {"rows": 7}) if is_done else MergeFailed("j", 1, ERROR, True)
    out = handle_all(scheduler, ended)
    assert of(out, JobChanged) == [JobChanged("j", "running")]
    assert len(of(out, DropPartial)) == 3
    left = {each.attempt for each in of(out, StartAttempt)}
    merges = []
    while left:
        out = handle_all(scheduler, AttemptFinished(left.pop(), {"n": 9, "bytes": 5}))
        left |= {each.attempt for each in of(out, StartAttempt)}
        merges += of(out, StartMerge)
    assert [(each.number, len(each.partials)) for each in merges] == [(2, 3)]
    out = handle_all(scheduler, MergeFinished("j", 2, {"rows": 8}))
    assert of(out, JobChanged) == [JobChanged("j", "done", result={"rows": 8})]


def test_a_job_whose_merge_is_stopped_can_be_cancelled(scheduler: Scheduler) -> None:
    handle_all(
        scheduler,
        AttemptFinished("j-t1-1", {"n": 1, "bytes": 5}),
        AttemptFinished("j-t2-1", {"n": 2, "bytes": 5}),
        WorkerDiscredited("bad"),
    )
    out = handle_all(scheduler, CancelRequested("j"), MergeFinished("j", 1, {"rows": 7}))
    assert of(out, JobChanged) == [JobChanged("j", "cancelled")]
    assert scheduler.live_jobs == frozenset()


def test_a_task_that_then_fails_for_good_fails_its_job(scheduler: Scheduler) -> None:
    out = handle_all(scheduler, WorkerDiscredited("bad"), WorkerLeft("bad", ERROR))
    out += handle_all(scheduler, AttemptFinished("j-t1-1", {"n": 1, "bytes": 5}))
    started = of(out, StartAttempt)[-1]
    out = handle_all(scheduler, AttemptFailed(started.attempt, ERROR, retryable=False))
    assert [each.state for each in of(out, JobChanged)] == ["failed"]
