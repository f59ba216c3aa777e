"""Networks that run every protocol, in histories of faults: what they have promised must hold.

    FUZZ_SEED=17 pytest packages/lake/tests/test_simulated_networks.py -k "partition and seed"

replays the history of seed 17 of the scenario `partition`, which is what a failure prints, with the
events that suffice for it. The promises are those of `simulated_world`, the scenarios those of
`simulated_faults`. A nightly run has the next 1,000 seeds of each, other ones than the night before;
`pytest -m nightly --histories 100` has fewer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lake.peers.copies.transfers import WriteChunk
from lake.peers.handovers.rows import OFFERED, SIGNED
from lake.peers.queries.dispatch import Dispatch
from lake.peers.sharing.publications import Publications
from lake.peers.transport.machine import Effect
from sennit_core.errors import SennitError

from .simulated_faults import SCENARIOS, Event, events_of, run_history, size_of
from .simulated_hand_overs import Transfers as HandOvers
from .simulated_node import SimulatedNode
from .simulated_world import NODES_MAX, BrokenPromise

pytestmark = pytest.mark.slow  # a fifth of a second for each history
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
FEW = 4
FILE = "packages/lake/tests/test_simulated_networks.py"
CASES = [(name, FIRST + n) for name in SCENARIOS for n in range(FEW)]


def failure(scenario: str, seed: int, make: type[SimulatedNode] = SimulatedNode) -> str:
    """Return how a history fails, with the events that suffice; "" if it does not."""

    def problem(events: list[Event]) -> str:
        try:
            run_history(SCENARIOS[scenario], seed, events, make)
        except (AssertionError, SennitError, LookupError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    events = events_of(SCENARIOS[scenario], seed)
    if not (found := problem(events)):
        return ""
    # Halves first, then smaller parts, as long as the rest fails in any way.
    size = len(events) // 2
    while size:
        for start in range(0, len(events), size):
            rest = events[:start] + events[start + size :]
            if len(rest) < len(events) and problem(rest):
                events = rest
                break
        else:
            size //= 2
    shown = "\n".join(f"  {each.at:6.2f} {each.action}{each.arguments}" for each in events)
    return (
        f'{found}\nFUZZ_SEED={seed} pytest {FILE} -k "{scenario} and seed"\n'
        f"{size_of(SCENARIOS[scenario], seed)}, these events suffice: {problem(events)}\n{shown}"
    )


@pytest.mark.parametrize(("scenario", "seed"), CASES)
def test_a_network_keeps_its_promises_with_any_seed(scenario: str, seed: int) -> None:
    assert failure(scenario, seed) == ""


@pytest.mark.nightly  # two to ten CPU minutes for each scenario
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_histories_of_a_night(scenario: str, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--histories")
    first = FIRST or count * int(time.time() // (24 * 3600))
    for seed in range(first, first + count):
        assert failure(scenario, seed) == ""


def test_a_network_of_a_plain_run_has_sixteen_nodes_at_most() -> None:
    assert len(CASES) == 60
    assert max(size_of(SCENARIOS[name], seed).nodes for name, seed in CASES) <= NODES_MAX == 16


def test_every_scenario_has_faults() -> None:
    for name, scenario in SCENARIOS.items():
        actions = {event.action for seed in range(20) for event in events_of(scenario, seed)}
        assert len(actions) > len({"write", "merge", "query"}), name


@pytest.mark.nightly
def test_a_history_does_not_depend_on_the_order_of_sets() -> None:
    code = """
from tests.simulated_faults import SCENARIOS, run_history
world = run_history(SCENARIOS["everything"], 3)
print(world.simulation.sent, world.random.random())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True, cwd=Path(__file__).parents[1],
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


# Faults of the protocols themselves, which the promises must find.


class _EveryAttempt(Dispatch):
    def succeeded(self, attempt: int, now: float) -> list[Effect]:
        effects = super().succeeded(attempt, now)
        if self._accepted and self._open:
            self._accepted.append(self._accepted[-1])
        return effects


class CountsTwice(SimulatedNode):
    """Accepts the results of attempts that were stopped, or ended before."""

    dispatch = _EveryAttempt


class DropsUnconfirmed(SimulatedNode):
    """Drops what placement gives to others, without their confirmations."""

    def _perform(self, effect: Effect) -> None:
        super()._perform(effect)
        self.copies._confirmed_since = lambda *_: float("inf")  # type: ignore[method-assign]


class StoresUnverified(SimulatedNode):
    """Writes a chunk without a comparison with its hash."""

    def _is_right(self, effect: WriteChunk) -> bool:
        return True


class ForgetsReceipts(SimulatedNode):
    """Makes an append again whose answer was lost."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.appends._ledger._find = lambda _key: None


class ForgetsItsLog(SimulatedNode):
    """Adopts only what is pushed: what it missed never comes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.logs.__class__ = _NoComparison


class _NoComparison(Publications):
    def tick(self, now: float, alive: Any) -> Iterator[Effect]:
        return iter(())


class WritesAgain(SimulatedNode):
    """Writes a dataset again that it has handed over by a signature, since the taker is silent."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hand_overs.__class__ = _ResumesAlways
        self.hand_overs.signed_at = {}  # type: ignore[attr-defined]


class _ResumesAlways(HandOvers):
    signed_at: dict[str, float]

    def tick(self, now: float) -> Iterator[Effect]:
        signed = {d: row for d, row in self.rows.items() if row.state == SIGNED}
        for dataset in signed:
            self.signed_at.setdefault(dataset, now)
        for dataset in [d for d, at in self.signed_at.items() if now - at > 2.0]:
            del self.signed_at[dataset]
            if (row := signed.get(dataset)) is not None:
                self.rows[dataset] = replace(row, state=OFFERED, chain=row.chain[:-1])
        return super().tick(now)


class TakesIncomplete(SimulatedNode):
    """Writes a dataset of which it has the manifest, and not all shards."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hand_overs._missing = lambda dataset: []  # type: ignore[method-assign]


class CommitsWhileSigned(SimulatedNode):
    """Goes on to commit after it has signed a hand-over."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hand_overs.writes = lambda dataset: (  # type: ignore[method-assign]
            self.shared.get(dataset, ("",))[0] == self.name
        )


class KeepsSessions(SimulatedNode):
    """Closes no session with a node that was revoked."""

    def accepts(self, peer: str) -> bool:
        return True


class KeepsTheRevoked(SimulatedNode):
    """Forgets no node that was revoked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.members.forget = lambda node: None  # type: ignore[method-assign]


class AcceptsForwarded(SimulatedNode):
    """Accepts what others forward of a node that was revoked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.logs._is_member = lambda node: True


class ComparesNoRoster(SimulatedNode):
    """Hears of revocations only when they are made."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.spread is not None:
            self.spread.tick = lambda now, known: iter(())  # type: ignore[method-assign]


MUTANTS: tuple[tuple[type[SimulatedNode], str], ...] = (
    (CountsTwice, "delay"),
    (DropsUnconfirmed, "lost-disks"),
    (StoresUnverified, "damage"),
    (ForgetsItsLog, "loss"),
    (ForgetsReceipts, "appends"),
    (WritesAgain, "hand-overs"),
    (TakesIncomplete, "hand-overs"),
    (CommitsWhileSigned, "hand-overs"),
    (KeepsSessions, "revocation"),
    (KeepsTheRevoked, "revocation"),
    (AcceptsForwarded, "revocation"),
    (ComparesNoRoster, "revocation"),
)


@pytest.mark.sample(2)  # some are found only after many histories
@pytest.mark.parametrize(("mutant", "scenario"), MUTANTS)
def test_a_fault_in_a_protocol_breaks_a_promise(mutant: type[SimulatedNode], scenario: str) -> None:
    for seed in range(60):
        try:
            run_history(SCENARIOS[scenario], seed, make=mutant)
        except BrokenPromise:
            return
    pytest.fail(f"{mutant.__doc__} Nothing notices it.")
