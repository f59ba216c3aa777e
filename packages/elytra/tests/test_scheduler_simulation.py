"""Random histories with faults; every job ends, every task is merged once, every slot is freed."""

from collections import Counter
from typing import Any

import pytest

from elytra.service.messages import StopAttempt
from elytra.service.scheduler import Scheduler
from elytra.testing.scheduler_simulation import Scale, SchedulerSimulation
from sennit_core.errors import SennitError

LARGE = Scale(jobs=12, tasks=600, workers=300)


def outcome_of(seed: int, scale: Scale | None = None) -> SchedulerSimulation:
    simulation = SchedulerSimulation(seed, scale or Scale())
    simulation.run()
    simulation.check_end()
    return simulation


def counts_of(seeds: range) -> Counter[str]:
    return sum((outcome_of(seed).counts for seed in seeds), Counter())


@pytest.mark.parametrize("block", range(5))
def test_every_job_ends_and_merges_each_task_once(block: int) -> None:
    counts_of(range(block * 10, block * 10 + 10))


@pytest.mark.nightly
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_histories(block: int) -> None:
    counts = counts_of(range(1_000 + block * 50, 1_050 + block * 50))
    for what in (
        "done",
        "failed",
        "cancelled",
        "skipped",
        "dropped",
        "repeated",
        "stalls",
        "task poisoned",
        "attempt expired",
        "attempt stopped",
    ):
        assert counts[what] > 0, f"no history had {what}: {counts}"


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(5))
def test_thousands_of_tasks_on_hundreds_of_workers(seed: int) -> None:
    outcome_of(seed, LARGE)


def test_a_history_replays_to_the_same_instructions() -> None:
    first, second = outcome_of(7), outcome_of(7)

    assert first.counts == second.counts
    assert first.events == second.events


def _first_error(
    fault: str, replacement: Any, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> Exception | None:
    """Return what the simulator raises in the first history that finds a fault in the scheduler."""
    monkeypatch.setattr(Scheduler, fault, replacement)
    for seed in seeds:
        try:
            outcome_of(seed)
        except (AssertionError, LookupError, SennitError) as found:
            return found
    return None


@pytest.mark.nightly
@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_lease_that_ends_twice_is_found(
    is_guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_lease(self: Any, attempt: Any) -> None:
        if is_guarded and attempt.id not in self._attempts:
            return
        if attempt.lease_end > self._now:
            self._set_lease(attempt)
            return
        self._out.append(StopAttempt(attempt.id, attempt.worker.id))
        self._fail_attempt(attempt, {"code": "worker-lost"}, retryable=True, state="expired")

    found = _first_error("_check_lease", check_lease, monkeypatch, range(600))
    assert (found is None) == is_guarded


@pytest.mark.nightly
def test_results_of_a_previous_run_without_a_record_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unrecorded(self: Any, job: Any) -> None:
        backend = self._backend(job.engine)
        job.begin(backend.pool)
        self._move_job(job, "running")
        backend.add(job)
        backend.check_unmerged(job)
        self._finish_when_complete(job)

    found = _first_error("_run_job", unrecorded, monkeypatch, range(200))
    assert "not on record" in str(found)
