"""Leases, slow and bad workers, poisoned tasks, deadlines: a short history in, the instructions out."""

from collections.abc import Iterable
from typing import Any, TypeVar

from elytra.service.job_options import JobOptions
from elytra.service.messages import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobSubmitted,
    MergeFinished,
    SkippedTask,
    StartAttempt,
    StartMerge,
    StopAttempt,
    StopMerge,
    TaskChanged,
    Tick,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.quarantine import QUARANTINE_SECONDS
from elytra.service.scheduler import Limits, Scheduler

T = TypeVar("T")
ERROR = {"error": "boom", "code": "internal", "hint": None}
LEASE = 10.0


def handle_all(scheduler: Scheduler, *events: Event) -> list[Instruction]:
    return [instruction for event in events for instruction in scheduler.handle(event)]


def of(instructions: Iterable[Instruction], kind: type[T]) -> list[T]:
    return [instruction for instruction in instructions if isinstance(instruction, kind)]


def remote(name: str, slots: int = 1, **options: Any) -> WorkerJoined:
    return WorkerJoined(name, slots, lease_seconds=LEASE, **options)


def started(instructions: Iterable[Instruction]) -> list[tuple[str, str]]:
    return [(each.attempt, each.worker) for each in of(instructions, StartAttempt)]


def until(scheduler: Scheduler, begin: int, end: int) -> list[Instruction]:
    """A tick each second, as the loop sends them."""
    return handle_all(scheduler, *(Tick(float(now)) for now in range(begin, end + 1)))


def world(*workers: str, tasks: int = 1, **options: Any) -> Scheduler:
    scheduler = Scheduler()
    keys = tuple(f"t{index}" for index in range(tasks))
    joined = [remote(worker) for worker in workers]
    handle_all(scheduler, Tick(0.0), *joined, JobSubmitted("j", keys, **options))
    return scheduler


# Leases


def test_a_lease_that_runs_out_gives_the_task_to_another_worker() -> None:
    scheduler = world("w1", "w2")

    before = until(scheduler, 1, 10)
    after = until(scheduler, 11, 12)

    assert started(before) == []
    assert of(after, StopAttempt) == [StopAttempt("j-t0-1", "w1")]
    assert started(after) == [("j-t0-2", "w2")]


def test_progress_renews_a_lease() -> None:
    scheduler = world("w1", "w2")
    for now in range(0, 100, 9):
        assert of(until(scheduler, now, now + 9), StopAttempt) == []
        handle_all(scheduler, AttemptProgressed("j-t0-1"))

    assert started(handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0}))) == []
    assert scheduler.has_live_jobs  # it merges


def test_an_attempt_in_the_queue_of_a_worker_that_progresses_keeps_its_lease() -> None:
    scheduler = Scheduler()
    handle_all(scheduler, Tick(0.0), remote("w1", slots=2), JobSubmitted("j", ("t0", "t1")))
    handle_all(scheduler, AttemptStarted("j-t0-1"))
    for now in range(0, 60, 5):
        handle_all(scheduler, AttemptProgressed("j-t0-1"))
        assert of(until(scheduler, now, now + 5), StopAttempt) == []


def test_a_node_that_stalled_expires_no_lease_before_it_has_read_its_messages() -> None:
    scheduler = world("w1", "w2")

    woken = handle_all(scheduler, Tick(100.0), AttemptProgressed("j-t0-1"), Tick(100.1))

    assert of(woken, StopAttempt) == []


def test_a_result_after_the_lease_is_dropped() -> None:
    scheduler = world("w1", "w2")
    until(scheduler, 1, 12)

    late = handle_all(scheduler, AttemptFinished("j-t0-1", {"n": 0}))
    good = handle_all(scheduler, AttemptFinished("j-t0-2", {"n": 0}))

    assert late == [DropPartial("j-t0-1", {"n": 0})]
    assert of(good, StartMerge) == [StartMerge("j", 1, ({"n": 0},))]


def test_a_worker_that_stalled_gets_no_task_until_it_has_ended_the_last_one() -> None:
    scheduler = world("w1")

    stalled = until(scheduler, 1, 12)
    ended = handle_all(scheduler, AttemptFailed("j-t0-1", ERROR, retryable=True))

    assert started(stalled) == []
    assert started(ended) == [("j-t0-2", "w1")]


def test_a_lease_lasts_as_long_as_the_slow_tasks_of_its_job() -> None:
    scheduler = world("w1", tasks=3)
    for task in ("j-t0-1", "j-t1-1"):
        for now in (0, 9, 18, 27, 36):  # 40 seconds, with progress
            handle_all(scheduler, AttemptProgressed(task))
            until(scheduler, now, now + 4)
        handle_all(scheduler, AttemptFinished(task, {}))
    handle_all(scheduler, AttemptStarted("j-t2-1"))

    assert of(until(scheduler, 41, 140), StopAttempt) == []
    assert len(of(until(scheduler, 141, 300), StopAttempt)) == 1


def test_workers_of_the_node_have_no_leases() -> None:
    scheduler = Scheduler()
    handle_all(scheduler, Tick(0.0), WorkerJoined("w"), JobSubmitted("j", ("t0",)))

    assert until(scheduler, 1, 2_000) == []


# Slow tasks


def slow_world() -> Scheduler:
    """Three of four tasks have taken three seconds; t3 runs on w1 since then, and w2 is free."""
    scheduler = world("w1", tasks=4)
    for index in range(3):
        handle_all(scheduler, AttemptStarted(f"j-t{index}-1"))
        until(scheduler, 3 * index, 3 * index + 3)
        handle_all(scheduler, AttemptFinished(f"j-t{index}-1", {"n": index}))
    handle_all(scheduler, AttemptStarted("j-t3-1"), remote("w2"))
    return scheduler


def progressing(scheduler: Scheduler, begin: int, end: int, attempt: str) -> list[Instruction]:
    events = [(Tick(float(now)), AttemptProgressed(attempt)) for now in range(begin, end + 1)]
    return handle_all(scheduler, *(event for pair in events for event in pair))


def test_a_slow_task_is_given_to_a_second_worker_once() -> None:
    scheduler = slow_world()

    early = progressing(scheduler, 10, 15, "j-t3-1")
    late = progressing(scheduler, 16, 17, "j-t3-1")
    handle_all(scheduler, remote("w3"))
    later = progressing(scheduler, 18, 25, "j-t3-1")

    assert started(early) == []
    assert started(late) == [("j-t3-2", "w2")]
    assert started(later) == []


def test_the_first_result_counts_and_the_other_attempt_is_stopped() -> None:
    scheduler = slow_world()
    progressing(scheduler, 10, 17, "j-t3-1")

    won = handle_all(scheduler, AttemptFinished("j-t3-2", {"n": 3}))
    lost = handle_all(scheduler, AttemptFinished("j-t3-1", {"n": 3}))

    assert of(won, StopAttempt) == [StopAttempt("j-t3-1", "w1")]
    assert of(won, StartMerge)[0].partials == ({"n": 0}, {"n": 1}, {"n": 2}, {"n": 3})
    assert lost == [DropPartial("j-t3-1", {"n": 3})]


def test_a_failed_second_attempt_leaves_the_first_one() -> None:
    scheduler = slow_world()
    progressing(scheduler, 10, 17, "j-t3-1")

    failed = handle_all(scheduler, AttemptFailed("j-t3-2", ERROR, retryable=True))

    assert of(failed, TaskChanged) == []
    assert of(handle_all(scheduler, AttemptFinished("j-t3-1", {})), StartMerge) != []


def test_no_second_attempt_while_tasks_wait_nor_on_this_node() -> None:
    waiting = world("w1", tasks=9)
    local = Scheduler()
    handle_all(local, WorkerJoined("w1"), WorkerJoined("w2"), JobSubmitted("j", ("t0", "t1")))
    for scheduler in (waiting, local):
        attempts = [f"j-t{index}-1" for index in range(9)]
        for attempt in attempts[:1]:
            handle_all(scheduler, AttemptStarted(attempt), AttemptFinished(attempt, {}))
        ticks = [until(scheduler, now, now) for now in range(1, 9)]
        assert [each for each in ticks if each] == []


# Bad tasks


def fail_on(scheduler: Scheduler, task: str, numbers: Iterable[int]) -> list[Instruction]:
    events = [AttemptFailed(f"j-{task}-{number}", ERROR, retryable=True) for number in numbers]
    return handle_all(scheduler, *events)


def test_a_task_is_poisoned_by_three_different_workers() -> None:
    scheduler = world("w1", "w2", "w3")

    tries = started(fail_on(scheduler, "t0", (1, 2)))
    ended = fail_on(scheduler, "t0", (3,))

    assert [worker for _, worker in tries] == ["w2", "w3"]
    assert of(ended, JobChanged) == [JobChanged("j", "failed", error=ERROR, task="t0")]


def test_an_untried_worker_is_waited_for_before_a_task_is_poisoned() -> None:
    scheduler = world("w1", tasks=2)
    fail_on(scheduler, "t0", (1, 2))
    handle_all(scheduler, remote("w2"))  # gets t1

    third = fail_on(scheduler, "t0", (3,))
    free = handle_all(scheduler, AttemptFinished("j-t1-1", {}))

    assert of(third, JobChanged) == []
    assert started(free) == [("j-t0-4", "w2")]


def test_a_poisoned_task_may_be_skipped() -> None:
    scheduler = world("w1", tasks=2, options=JobOptions(on_poison="skip"))
    skipped = fail_on(scheduler, "t0", (1, 2, 3))

    merged = handle_all(scheduler, AttemptFinished("j-t1-1", {"n": 1}))
    done = handle_all(scheduler, MergeFinished("j", 1, {"rows": 1}))

    assert of(skipped, JobChanged) == []
    assert of(merged, StartMerge) == [StartMerge("j", 1, ({"n": 1},))]
    (end,) = of(done, JobChanged)
    assert (end.state, end.skipped) == ("done", (SkippedTask("t0", 3, ERROR),))


def test_a_job_of_which_every_task_is_poisoned_fails() -> None:
    scheduler = world("w1", tasks=2, options=JobOptions(on_poison="skip"))
    fail_on(scheduler, "t0", (1, 2, 3))

    ended = fail_on(scheduler, "t1", (1, 2, 3))

    assert of(ended, JobChanged) == [JobChanged("j", "failed", error=ERROR, task="t1")]


# Bad workers


def test_a_worker_that_fails_what_others_finish_is_quarantined() -> None:
    scheduler = Scheduler()
    handle_all(scheduler, Tick(0.0), remote("bad"))
    for index in range(3):
        job = f"j{index}"
        handle_all(scheduler, JobSubmitted(job, ("t0",)))
        assert started(handle_all(scheduler, remote("good"))) == []
        moved = handle_all(scheduler, AttemptFailed(f"{job}-t0-1", ERROR, retryable=True))
        assert started(moved) == [(f"{job}-t0-2", "good")]
        handle_all(scheduler, AttemptFinished(f"{job}-t0-2", {}), WorkerLeft("good", ERROR))

    kept = handle_all(
        scheduler, JobSubmitted("k", ("t0",)), WorkerLeft("bad", ERROR), remote("bad")
    )
    free = handle_all(scheduler, Tick(QUARANTINE_SECONDS))

    assert started(kept) == []
    assert started(free) == [("k-t0-1", "bad")]


def test_a_task_that_fails_everywhere_blames_nobody() -> None:
    scheduler = world("w1", "w2", "w3")
    fail_on(scheduler, "t0", (1, 2, 3))

    assert len(started(handle_all(scheduler, JobSubmitted("k", ("t0", "t1", "t2"))))) == 3


# Jobs


def test_a_job_fails_at_its_deadline_and_frees_its_workers() -> None:
    scheduler = world("w1", tasks=2, options=JobOptions(deadline_seconds=5.0))

    ended = until(scheduler, 1, 5)

    (end,) = of(ended, JobChanged)
    assert end.error is not None
    assert (end.state, end.error["code"]) == ("failed", "deadline-exceeded")
    assert of(ended, StopAttempt) == [StopAttempt("j-t0-1", "w1")]
    assert not scheduler.has_live_jobs


def test_a_deadline_ends_a_queued_job_and_a_merge() -> None:
    scheduler = Scheduler(Limits(running_jobs_max=1))
    options = JobOptions(deadline_seconds=5.0)
    handle_all(scheduler, JobSubmitted("a", (), options=options))
    handle_all(scheduler, JobSubmitted("b", ("t0",), options=options))

    ended = handle_all(scheduler, Tick(6.0))

    assert {(each.job, each.state) for each in of(ended, JobChanged)} == {
        ("a", "failed"),
        ("b", "failed"),
    }
    assert of(ended, StopMerge) == [StopMerge("a", 1)]


def test_a_slot_is_free_when_the_worker_has_ended_the_cancelled_task() -> None:
    scheduler = world("w1")
    handle_all(scheduler, JobSubmitted("k", ("t0",)))

    cancelled = handle_all(scheduler, CancelRequested("j"))
    ended = handle_all(scheduler, AttemptFailed("j-t0-1", ERROR, retryable=False))

    assert started(cancelled) == []
    assert started(ended) == [("k-t0-1", "w1")]


def test_jobs_with_many_unmerged_bytes_continue_one_by_one() -> None:
    scheduler = Scheduler(Limits(unmerged_bytes_max=100))
    for job in ("a", "b"):
        handle_all(scheduler, JobSubmitted(job, ("t0", "t1", "t2"), holds_partials=True))
    handle_all(scheduler, WorkerJoined("w", slots=2))
    done = {"bytes": 100}

    first = handle_all(scheduler, AttemptFinished("a-t0-1", done), AttemptFinished("b-t0-1", done))
    second = handle_all(scheduler, AttemptFinished("b-t1-1", done), AttemptFinished("a-t1-1", done))
    handle_all(scheduler, AttemptFinished("a-t2-1", done))
    merged = handle_all(scheduler, MergeFinished("a", 1, {}))

    assert [attempt for attempt, _ in started(first)] == ["b-t1-1", "a-t1-1"]
    assert [attempt for attempt, _ in started(second)] == ["a-t2-1"]
    assert [attempt for attempt, _ in started(merged)] == ["b-t2-1"]


def test_a_task_goes_to_the_worker_that_has_its_input() -> None:
    scheduler = Scheduler()
    inputs = {"t0": "object-a", "t1": "object-b", "t2": "object-c"}
    handle_all(scheduler, WorkerJoined("w1"), WorkerJoined("w2", cached=frozenset({"object-c"})))

    begun = handle_all(scheduler, JobSubmitted("j", tuple(inputs), inputs=inputs))
    handle_all(scheduler, WorkerJoined("w1", slots=1, cached=frozenset({"object-b"})))
    rest = handle_all(scheduler, AttemptFinished("j-t0-1", {}))

    assert started(begun) == [("j-t2-1", "w2"), ("j-t0-1", "w1")]
    assert started(rest) == [("j-t1-1", "w1")]


def test_results_of_a_previous_run_of_the_node_are_not_computed_again() -> None:
    scheduler = Scheduler()
    resumed = JobSubmitted("j", ("t0", "t1"), done={"t0": {"n": 0}}, first_attempt=1001)

    begun = handle_all(scheduler, WorkerJoined("w"), resumed)
    merged = handle_all(scheduler, AttemptFinished("j-t1-1001", {"n": 1}))

    assert started(begun) == [("j-t1-1001", "w")]
    assert of(merged, StartMerge) == [StartMerge("j", 1, ({"n": 0}, {"n": 1}))]


def test_the_first_job_of_a_user_is_admitted_before_the_second_of_another() -> None:
    scheduler = Scheduler(Limits(running_jobs_max=2))
    jobs = [("a", "ann"), ("b", "ann"), ("c", "ann"), ("d", "eve")]
    handle_all(scheduler, *(JobSubmitted(job, (), user=user) for job, user in jobs))

    admitted = handle_all(scheduler, CancelRequested("a"))

    assert [each.job for each in of(admitted, JobChanged) if each.state == "running"] == ["d"]
