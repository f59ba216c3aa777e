"""Parts of a distributed query: each unit is counted once, or named as missing."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from lake.peers.queries.dispatch import Dispatch, Finished, RunAttempt, StopAttempt, Unit
from lake.peers.transport.machine import Effect

NODES = ("a", "b", "c", "d")
SEEDS = range(200)


class Run:
    """A dispatch whose attempts end as a test, or a seed, decides."""

    def __init__(self, units: Iterable[Unit], alive: Iterable[str] = NODES) -> None:
        self.units = tuple(units)
        self.dispatch = Dispatch(self.units, list(alive))
        self.running: dict[int, RunAttempt] = {}
        self.made: dict[int, RunAttempt] = {}
        self.end: Finished | None = None
        self.now = 0.0
        self.do(self.dispatch.start(0.0))

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case RunAttempt(number, _, _):
                    self.running[number] = self.made[number] = effect
                case StopAttempt(number):
                    self.running.pop(number, None)
                case Finished():
                    assert self.end is None, "it ends once"
                    self.end = effect

    def counted(self) -> list[str]:
        assert self.end is not None
        return sorted(u for number in self.end.attempts for u in self.made[number].units)


def units(holders: str, count: int = 6) -> list[Unit]:
    return [Unit(f"u{n}", 10, tuple(holders)) for n in range(count)]


def test_units_are_spread_over_their_holders() -> None:
    run = Run(units("abc"))
    assert sorted((a.node, len(a.units)) for a in run.running.values()) == [
        ("a", 2),
        ("b", 2),
        ("c", 2),
    ]


def test_an_attempt_names_a_limited_number_of_shards() -> None:
    run = Run(
        [Unit(f"u{n}", 10, ("a",), shards) for n, shards in enumerate((600, 400, 1, 1500, 9))]
    )
    found = [attempt.units for attempt in run.running.values()]
    assert found == [("u0", "u1"), ("u2",), ("u3",), ("u4",)]


def test_the_units_of_a_lost_node_go_to_others() -> None:
    run = Run(units("ab"))
    run.do(run.dispatch.node_lost("a", 1.0))
    assert {attempt.node for attempt in run.running.values()} == {"b"}
    for number in list(run.running):
        run.do(run.dispatch.succeeded(number, 2.0))
    assert run.counted() == [f"u{n}" for n in range(6)]


def test_a_unit_without_a_holder_is_missing_with_the_reason() -> None:
    run = Run([*units("a", 1), Unit("gone", 1, ("x",))])
    number = next(iter(run.running))
    run.do(run.dispatch.failed(number, "it has no disk", 1.0, retry=False))
    assert run.end == Finished((), ("gone", "u0"), "it has no disk")


def test_a_slow_attempt_is_repeated_and_the_first_result_counts() -> None:
    run = Run(units("ab", 2))
    fast, slow = sorted(run.running)
    run.do(run.dispatch.succeeded(fast, 0.1))
    run.do(run.dispatch.tick(10.0))
    again = next(number for number in run.running if number not in (fast, slow))
    assert run.made[again].units == run.made[slow].units
    run.do(run.dispatch.succeeded(again, 11.0))
    run.do(run.dispatch.succeeded(slow, 12.0))
    assert run.counted() == ["u0", "u1"]


def test_a_query_without_units_ends_at_once() -> None:
    assert Run([]).end == Finished((), ())


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_each_unit_is_counted_once_or_missing(seed: int) -> None:
    random = Random(seed)
    made = [
        Unit(f"u{n}", random.randrange(100), tuple(random.sample(NODES, random.randrange(1, 4))))
        for n in range(random.randrange(12))
    ]
    run = Run(made)
    alive = set(NODES)
    while run.end is None:
        run.now += random.random() * 3
        known = [*run.made, *range(1, 3)]
        number = random.choice(known)  # also one that has ended
        event = random.random()
        if event < 0.5:
            run.running.pop(number, None)
            run.do(run.dispatch.succeeded(number, run.now))
        elif event < 0.7:
            run.running.pop(number, None)
            run.do(run.dispatch.failed(number, "x", run.now, retry=random.random() < 0.5))
        elif event < 0.75 and alive:
            lost = random.choice(sorted(alive))
            alive.discard(lost)
            run.do(run.dispatch.node_lost(lost, run.now))
        else:
            run.do(run.dispatch.tick(run.now))
    assert sorted([*run.counted(), *run.end.missing]) == sorted(unit.id for unit in made)
    assert not run.running
