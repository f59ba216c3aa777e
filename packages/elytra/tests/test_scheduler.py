"""One behaviour a test: a short history in, the instructions out."""

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
    StopAttempt,
    StopMerge,
    TaskChanged,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.scheduler import Limits, Scheduler

T = TypeVar("T")
ERROR = {"error": "boom", "code": "internal", "hint": None}


def handle_all(scheduler: Scheduler, *events: Event) -> list[Instruction]:
    return [instruction for event in events for instruction in scheduler.handle(event)]


def of(instructions: Iterable[Instruction], kind: type[T]) -> list[T]:
    return [instruction for instruction in instructions if isinstance(instruction, kind)]


@pytest.fixture
def scheduler() -> Scheduler:
    """One worker of one slot, and job j of two tasks: t0 is running on it."""
    scheduler = Scheduler(Limits(running_jobs_max=2, attempts_max=3))
    handle_all(scheduler, WorkerJoined("w1"), JobSubmitted("j", ("t0", "t1")))
    return scheduler


def test_a_job_runs_its_tasks_in_order_then_merges_them_in_shard_order(
    scheduler: Scheduler,
) -> None:
    second = of(handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0})), StartAttempt)
    merge = of(handle_all(scheduler, AttemptFinished("j-t1-1", {"n": 1})), StartMerge)
    end = of(handle_all(scheduler, MergeFinished("j", 1, {"rows": 7})), JobChanged)

    assert [instruction.task for instruction in second] == ["t1"]
    assert merge == [StartMerge("j", 1, ({"n": 0}, {"n": 1}))]
    assert end == [JobChanged("j", "done", result={"rows": 7})]
    assert scheduler.live_jobs == frozenset()


def test_partials_that_arrive_backwards_are_merged_forwards() -> None:
    scheduler = Scheduler()
    handle_all(scheduler, WorkerJoined("w", slots=2), JobSubmitted("j", ("t0", "t1")))
    handle_all(scheduler, AttemptFinished("j-t1-1", {"n": 1}))

    merge = of(handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0})), StartMerge)

    assert merge[0].partials == ({"n": 0}, {"n": 1})


def test_a_job_without_tasks_goes_straight_to_its_merge() -> None:
    started = handle_all(Scheduler(), JobSubmitted("j", ()))

    assert of(started, StartMerge) == [StartMerge("j", 1, ())]


def test_a_job_without_a_merge_ends_with_its_only_task() -> None:
    scheduler = Scheduler()
    started = handle_all(scheduler, WorkerJoined("w"), JobSubmitted("j", ("t0",), has_merge=False))
    ended = handle_all(scheduler, AttemptFinished("j-t0-1", {"dataset": "d"}))

    assert [instruction.state for instruction in of(started, JobChanged)] == ["running"]
    assert of(ended, StartMerge) == []
    assert of(ended, JobChanged) == [JobChanged("j", "done", result={"dataset": "d"})]


def test_a_job_beyond_the_limit_waits_for_a_place() -> None:
    scheduler = Scheduler(Limits(running_jobs_max=1))
    admitted = handle_all(scheduler, JobSubmitted("a", ("t0",)), JobSubmitted("b", ("t0",)))

    next_admitted = handle_all(scheduler, CancelRequested("a"))

    assert of(admitted, JobChanged) == [JobChanged("a", "running")]
    assert of(next_admitted, JobChanged)[-1] == JobChanged("b", "running")


def test_running_jobs_alternate_on_a_worker(scheduler: Scheduler) -> None:
    handle_all(scheduler, JobSubmitted("k", ("t0", "t1")))

    instruction = [
        start.job
        for attempt in ("j-t0-1", "k-t0-1", "j-t1-1")
        for start in of(handle_all(scheduler, AttemptFinished(attempt, {})), StartAttempt)
    ]

    assert instruction == ["k", "j", "k"]


def test_a_retryable_failure_is_tried_on_another_worker(scheduler: Scheduler) -> None:
    handle_all(scheduler, WorkerJoined("w2", slots=2))

    retried = of(
        handle_all(scheduler, AttemptFailed("j-t0-1", ERROR, retryable=True)), StartAttempt
    )

    assert StartAttempt("j-t0-2", "j", "t0", "w2") in retried


def test_three_failures_poison_the_task_and_fail_the_job(scheduler: Scheduler) -> None:
    instructions = handle_all(
        scheduler,
        *(AttemptFailed(f"j-t0-{number}", ERROR, retryable=True) for number in (1, 2, 3)),
    )

    states = [
        instruction.state
        for instruction in of(instructions, TaskChanged)
        if instruction.task == "t0"
    ]
    assert states[-1] == "poisoned"
    assert of(instructions, JobChanged)[-1] == JobChanged("j", "failed", error=ERROR, task="t0")


def test_a_failure_that_would_only_repeat_fails_the_job_at_once(scheduler: Scheduler) -> None:
    instructions = handle_all(scheduler, AttemptFailed("j-t0-1", ERROR, retryable=False))

    assert of(instructions, StartAttempt) == []
    assert of(instructions, JobChanged) == [JobChanged("j", "failed", error=ERROR, task="t0")]
    assert {o.task: o.state for o in of(instructions, TaskChanged)} == {
        "t0": "failed",
        "t1": "cancelled",
    }


def test_the_same_result_twice_is_merged_once(scheduler: Scheduler) -> None:
    handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0}))

    again = handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0}))

    assert again == [DropPartial("j-t0-1", {"n": 0})]


def test_cancel_stops_running_tasks_and_forgets_the_job(scheduler: Scheduler) -> None:
    instructions = handle_all(scheduler, CancelRequested("j"))

    assert of(instructions, StopAttempt) == [StopAttempt("j-t0-1", "w1")]
    assert of(instructions, JobChanged) == [JobChanged("j", "cancelled")]
    assert {instruction.state for instruction in of(instructions, TaskChanged)} == {"cancelled"}
    assert handle_all(scheduler, CancelRequested("j")) == []


def test_cancel_of_a_queued_job_never_runs_it() -> None:
    scheduler = Scheduler(Limits(running_jobs_max=1))
    handle_all(scheduler, JobSubmitted("a", ()), JobSubmitted("b", ()), CancelRequested("b"))

    assert {
        instruction.job
        for instruction in of(handle_all(scheduler, CancelRequested("a")), JobChanged)
    } == {"a"}


def test_cancel_while_merging_stops_the_merge() -> None:
    scheduler = Scheduler()
    handle_all(scheduler, JobSubmitted("j", ()))

    assert StopMerge("j", 1) in handle_all(scheduler, CancelRequested("j"))
    assert handle_all(scheduler, MergeFinished("j", 1, {})) == []


def test_a_merge_is_tried_again_when_that_can_help() -> None:
    scheduler = Scheduler(Limits(attempts_max=2))
    handle_all(scheduler, JobSubmitted("j", ()))

    again = handle_all(scheduler, MergeFailed("j", 1, ERROR, retryable=True))
    stale = handle_all(scheduler, MergeFailed("j", 1, ERROR, retryable=True))
    ended = handle_all(scheduler, MergeFailed("j", 2, ERROR, retryable=True))

    assert again == [StartMerge("j", 2, ())]
    assert stale == []
    assert ended == [JobChanged("j", "failed", error=ERROR)]


def test_tasks_of_a_worker_that_left_run_on_another(scheduler: Scheduler) -> None:
    handle_all(scheduler, WorkerJoined("w2"))  # it runs t1

    left = handle_all(scheduler, WorkerLeft("w1", ERROR))
    next_free = handle_all(scheduler, AttemptFinished("j-t1-1", {"n": 1}))
    late = handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0}))

    assert of(left, StartAttempt) == []
    assert of(next_free, StartAttempt) == [StartAttempt("j-t0-2", "j", "t0", "w2")]
    assert late == [DropPartial("j-t0-1", {"n": 0})]
    assert handle_all(scheduler, WorkerLeft("w1", ERROR)) == []


def test_a_worker_that_leaves_with_the_last_attempts_ends_its_job_once() -> None:
    scheduler = Scheduler(Limits(attempts_max=1))
    handle_all(scheduler, WorkerJoined("w1", slots=2), JobSubmitted("j", ("t0", "t1")))

    ended = handle_all(scheduler, WorkerLeft("w1", ERROR))

    assert of(ended, JobChanged) == [JobChanged("j", "failed", error=ERROR, task="t0")]
    assert scheduler.live_jobs == frozenset()


def test_a_worker_that_drains_ends_its_tasks_and_gets_no_more(scheduler: Scheduler) -> None:
    drained = handle_all(
        scheduler, WorkerJoined("w1", slots=0), AttemptFinished("j-t0-1", {"n": 0})
    )
    again = handle_all(scheduler, WorkerJoined("w1", slots=1))

    assert of(drained, StartAttempt) == []
    assert of(again, StartAttempt) == [StartAttempt("j-t1-1", "j", "t1", "w1")]


def test_tasks_run_only_on_workers_of_their_engine() -> None:
    scheduler = Scheduler()
    started = handle_all(
        scheduler,
        WorkerJoined("a/1", engine="a"),
        JobSubmitted("j", ("t0",), engine="b"),
        JobSubmitted("k", ("t0",), engine="a"),
        WorkerJoined("b/1", engine="b"),
    )

    assert [(each.job, each.worker) for each in of(started, StartAttempt)] == [
        ("k", "a/1"),
        ("j", "b/1"),
    ]


def test_something_that_is_no_event_is_a_programming_mistake() -> None:
    with pytest.raises(TypeError, match="not an event"):
        Scheduler().handle("hello")  # type: ignore[arg-type]
