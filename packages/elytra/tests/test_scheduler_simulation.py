"""Random histories with faults; every job ends, every task is merged once, every slot is freed."""

from collections import Counter

import pytest

from elytra.testing.scheduler_simulation import Scale, SchedulerSimulation

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
