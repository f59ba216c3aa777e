"""One behaviour a test: a short history in, the instructions out."""

from collections.abc import Iterable
from typing import TypeVar

import pytest

from elytra.messages import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobPlanned,
    JobSubmitted,
    JobUnplannable,
    MergeFailed,
    MergeFinished,
    PlanJob,
    StartAttempt,
    StartMerge,
    StopAttempt,
    StopMerge,
    TaskChanged,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from elytra.scheduler import Limits, Scheduler

T = TypeVar("T")
ERROR = {"error": "boom", "code": "internal", "hint": None}


def told(scheduler: Scheduler, *events: Event, now: float = 0.0) -> list[Instruction]:
    return [order for event in events for order in scheduler.handle(event, now)]


def of(orders: Iterable[Instruction], kind: type[T]) -> list[T]:
    return [order for order in orders if isinstance(order, kind)]


@pytest.fixture
def scheduler() -> Scheduler:
    """One worker of one slot, and job j planned into two tasks: t0 is running on it."""
    scheduler = Scheduler(Limits(running_jobs_max=2, attempts_max=3))
    told(scheduler, WorkerJoined("w1"), JobSubmitted("j"), JobPlanned("j", ("t0", "t1")))
    return scheduler


def test_a_job_runs_its_tasks_in_order_then_merges_them_in_shard_order(
    scheduler: Scheduler,
) -> None:
    second = of(told(scheduler, AttemptFinished("j-t0-1", {"n": 0})), StartAttempt)
    merge = of(told(scheduler, AttemptFinished("j-t1-1", {"n": 1})), StartMerge)
    end = of(told(scheduler, MergeFinished("j", 1, {"rows": 7})), JobChanged)

    assert [order.task for order in second] == ["t1"]
    assert merge == [StartMerge("j", 1, ({"n": 0}, {"n": 1}))]
    assert end == [JobChanged("j", "done", result={"rows": 7})]
    assert scheduler.live_jobs == frozenset()


def test_partials_that_arrive_backwards_are_merged_forwards() -> None:
    scheduler = Scheduler()
    told(scheduler, WorkerJoined("w", slots=2), JobSubmitted("j"), JobPlanned("j", ("t0", "t1")))
    told(scheduler, AttemptFinished("j-t1-1", {"n": 1}))

    merge = of(told(scheduler, AttemptFinished("j-t0-1", {"n": 0})), StartMerge)

    assert merge[0].partials == ({"n": 0}, {"n": 1})


def test_a_job_without_tasks_goes_straight_to_its_merge() -> None:
    scheduler = Scheduler()
    told(scheduler, JobSubmitted("j"))

    assert of(told(scheduler, JobPlanned("j", ())), StartMerge) == [StartMerge("j", 1, ())]


def test_a_job_of_one_known_task_needs_neither_plan_nor_merge() -> None:
    scheduler = Scheduler()
    begun = told(scheduler, WorkerJoined("w"), JobSubmitted("j", task="t0"))
    ended = told(scheduler, AttemptFinished("j-t0-1", {"dataset": "d"}))

    assert of(begun, PlanJob) == []
    assert [order.state for order in of(begun, JobChanged)] == ["running"]
    assert of(ended, StartMerge) == []
    assert of(ended, JobChanged) == [JobChanged("j", "done", result={"dataset": "d"})]


def test_a_job_beyond_the_limit_waits_for_a_place() -> None:
    scheduler = Scheduler(Limits(running_jobs_max=1))
    admitted = of(told(scheduler, JobSubmitted("a"), JobSubmitted("b")), PlanJob)

    next_admitted = of(told(scheduler, JobUnplannable("a", ERROR)), PlanJob)

    assert [order.job for order in admitted] == ["a"]
    assert [order.job for order in next_admitted] == ["b"]


def test_running_jobs_take_turns_on_a_worker(scheduler: Scheduler) -> None:
    told(scheduler, JobSubmitted("k"), JobPlanned("k", ("t0", "t1")))

    order = [
        start.job
        for attempt in ("j-t0-1", "k-t0-1", "j-t1-1")
        for start in of(told(scheduler, AttemptFinished(attempt, {})), StartAttempt)
    ]

    assert order == ["k", "j", "k"]


def test_a_retryable_failure_is_tried_on_another_worker(scheduler: Scheduler) -> None:
    told(scheduler, WorkerJoined("w2", slots=2))

    retried = of(told(scheduler, AttemptFailed("j-t0-1", ERROR, retryable=True)), StartAttempt)

    assert StartAttempt("j-t0-2", "j", "t0", "w2", None) in retried


def test_three_failures_poison_the_task_and_fail_the_job(scheduler: Scheduler) -> None:
    orders = told(
        scheduler,
        *(AttemptFailed(f"j-t0-{number}", ERROR, retryable=True) for number in (1, 2, 3)),
    )

    states = [order.state for order in of(orders, TaskChanged) if order.task == "t0"]
    assert states[-1] == "poisoned"
    assert of(orders, JobChanged)[-1] == JobChanged("j", "failed", error=ERROR)


def test_a_failure_that_would_only_repeat_fails_the_job_at_once(scheduler: Scheduler) -> None:
    orders = told(scheduler, AttemptFailed("j-t0-1", ERROR, retryable=False))

    assert of(orders, StartAttempt) == []
    assert of(orders, JobChanged) == [JobChanged("j", "failed", error=ERROR)]
    assert {o.task: o.state for o in of(orders, TaskChanged)} == {"t0": "failed", "t1": "cancelled"}


def test_a_lost_worker_gives_its_tasks_back(scheduler: Scheduler) -> None:
    told(scheduler, WorkerJoined("w2"), AttemptStarted("j-t0-1"))

    orders = told(scheduler, AttemptFinished("j-t1-1", {}), WorkerLost("w1", "killed"))

    assert [(o.task, o.worker) for o in of(orders, StartAttempt)] == [("t0", "w2")]


def test_a_silent_worker_loses_its_lease_and_its_late_result_is_dropped() -> None:
    scheduler = Scheduler()
    told(scheduler, WorkerJoined("w", lease_seconds=10), JobSubmitted("j"))
    told(scheduler, JobPlanned("j", ("t0",)))

    expired = told(scheduler, Tick(), now=10.0)
    late = told(scheduler, AttemptFinished("j-t0-1", {"late": True}), now=11.0)

    assert StopAttempt("j-t0-1", "w") in expired
    assert [order.attempt for order in of(expired, StartAttempt)] == ["j-t0-2"]
    assert late == [DropPartial("j-t0-1", {"late": True})]


def test_progress_renews_a_lease() -> None:
    scheduler = Scheduler()
    told(scheduler, WorkerJoined("w", lease_seconds=10), JobSubmitted("j"))
    told(scheduler, JobPlanned("j", ("t0",)))

    told(scheduler, AttemptProgressed("j-t0-1"), now=9.0)

    assert told(scheduler, Tick(), now=18.9) == []
    assert of(told(scheduler, Tick(), now=19.0), StopAttempt) == [StopAttempt("j-t0-1", "w")]


def test_the_same_result_twice_is_merged_once(scheduler: Scheduler) -> None:
    told(scheduler, AttemptFinished("j-t0-1", {"n": 0}))

    again = told(scheduler, AttemptFinished("j-t0-1", {"n": 0}))

    assert again == [DropPartial("j-t0-1", {"n": 0})]


def test_cancel_stops_what_runs_and_forgets_the_job(scheduler: Scheduler) -> None:
    orders = told(scheduler, CancelRequested("j"))

    assert of(orders, StopAttempt) == [StopAttempt("j-t0-1", "w1")]
    assert of(orders, JobChanged) == [JobChanged("j", "cancelled")]
    assert {order.state for order in of(orders, TaskChanged)} == {"cancelled"}
    assert told(scheduler, CancelRequested("j")) == []


def test_cancel_of_a_queued_job_never_plans_it() -> None:
    scheduler = Scheduler(Limits(running_jobs_max=1))
    told(scheduler, JobSubmitted("a"), JobSubmitted("b"), CancelRequested("b"))

    assert of(told(scheduler, CancelRequested("a")), PlanJob) == []


def test_cancel_while_merging_stops_the_merge() -> None:
    scheduler = Scheduler()
    told(scheduler, JobSubmitted("j"), JobPlanned("j", ()))

    assert StopMerge("j", 1) in told(scheduler, CancelRequested("j"))
    assert told(scheduler, MergeFinished("j", 1, {})) == []


def test_a_merge_is_tried_again_when_that_can_help() -> None:
    scheduler = Scheduler(Limits(attempts_max=2))
    told(scheduler, JobSubmitted("j"), JobPlanned("j", ()))

    again = told(scheduler, MergeFailed("j", 1, ERROR, retryable=True))
    stale = told(scheduler, MergeFailed("j", 1, ERROR, retryable=True))
    ended = told(scheduler, MergeFailed("j", 2, ERROR, retryable=True))

    assert again == [StartMerge("j", 2, ())]
    assert stale == []
    assert ended == [JobChanged("j", "failed", error=ERROR)]


def test_something_that_is_no_event_is_a_programming_mistake() -> None:
    with pytest.raises(TypeError, match="not an event"):
        Scheduler().handle("hello", 0.0)  # type: ignore[arg-type]
