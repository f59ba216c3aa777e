"""What happens to a simulated network in a history, as a list of events that a seed decides.

A scenario is one entry of `SCENARIOS`. Each history has writes and queries all the time, the faults of
its scenario for `FAULT_SECONDS`, and then none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from .simulated_node import SimulatedNode
from .simulated_world import DATASETS, NODES_MAX, Size, World

FAULT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Event:
    """A method of `World`, its arguments, and when it is called."""

    at: float
    action: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Kinds of faults.

    Args:
        faults: Each yields the events of one kind.
        liars: Malicious nodes.
        revokes: Whether nodes are revoked.
    """

    faults: tuple[Callable[[Random], Iterator[Event]], ...]
    liars: int = 0
    revokes: bool = False


def work(random: Random) -> Iterator[Event]:
    for at in _times(random, 4.0):
        yield Event(at, "merge" if random.random() < 0.2 else "write", (random.choice(DATASETS),))
    for at in _times(random, 1.5):
        yield Event(at, "query", (random.randrange(99), random.choice(DATASETS)))


def appends(random: Random) -> Iterator[Event]:
    for at in _times(random, 1.5):
        yield Event(at, "append", (random.randrange(99), random.choice(DATASETS)))


def hand_overs(random: Random) -> Iterator[Event]:
    for at in _times(random, 3.0):
        number, dataset = random.randrange(99), random.choice(DATASETS)
        yield Event(at, "offer", (number, dataset))
        yield Event(at + random.uniform(0, 2), "accept", (number, dataset))
        if random.random() < 0.4:  # at either node, or at one that has nothing to undo
            yield Event(at + random.uniform(0, 4), "undo", (random.randrange(99), dataset))


def delay(random: Random) -> Iterator[Event]:
    for at in _times(random, 8.0):
        yield Event(at, "faults", ({"delay_seconds": (0.001, random.choice([0.1, 1.0, 3.0]))},))


def loss(random: Random) -> Iterator[Event]:
    for at in _times(random, 8.0):
        share = random.choice([0.05, 0.2, 0.5])
        yield Event(at, "faults", ({"loss": share, "call_loss": share / 2},))


def duplicates(random: Random) -> Iterator[Event]:
    yield Event(0.0, "faults", ({"duplicate": 0.5, "delay_seconds": (0.001, 1.5)},))


def partitions(random: Random) -> Iterator[Event]:
    for at in _times(random, 8.0):
        side = tuple(random.sample(range(16), random.randrange(1, 9)))
        yield Event(at, "partition", (side,))
        yield Event(at + random.uniform(1, 20), "reunite")


def crashes(random: Random) -> Iterator[Event]:
    for at in _times(random, 5.0):
        number = random.randrange(99)
        yield Event(at, "crash", (number, random.choice([0, 0, 1, 2, 5, 20])))
        yield Event(at + random.uniform(0.5, 25), "restart", (number,))


def losses(random: Random) -> Iterator[Event]:
    for at in _times(random, 6.0):
        yield Event(at, "join")
    for at in _times(random, 8.0):
        yield Event(at, "lose", (random.randrange(99),))


def stops(random: Random) -> Iterator[Event]:
    for at in _times(random, 6.0):
        number = random.randrange(99)
        yield Event(at, "freeze", (number,))
        yield Event(at + random.uniform(0.5, 25), "thaw", (number,))


def clocks(random: Random) -> Iterator[Event]:
    for at in _times(random, 2.0):
        yield Event(at, "skew", (random.randrange(99), random.uniform(-1, 1)))


def bad_clocks(random: Random) -> Iterator[Event]:
    """Clocks that differ by more than statements allow, until the faults end."""
    for at in _times(random, 10.0):
        yield Event(at, "skew", (random.randrange(99), random.choice([-900.0, -10.0, 10.0, 900.0])))


def damages(random: Random) -> Iterator[Event]:
    yield Event(0.0, "faults", ({"body_corrupt": 0.05},))
    for at in _times(random, 2.0):
        yield Event(at, "damage", (random.randrange(99), random.randrange(999)))


def backups(random: Random) -> Iterator[Event]:
    for at in _times(random, 4.0):
        number = random.randrange(99)
        yield Event(at, "back_up", (number,))
        yield Event(at + random.uniform(1, 20), "restore", (number,))


def revocations(random: Random) -> Iterator[Event]:
    """Nodes that are revoked, while more join; of three, two continue, and come back after absences."""
    for at in _times(random, 6.0):
        yield Event(at, "join")
    for at in _times(random, 4.0):
        then = random.choice(["continues", "continues", "obeys"])
        yield Event(at, "revoke", (random.randrange(99), random.randrange(2), then))


SCENARIOS = {
    "delay": Scenario((delay,)),
    "loss": Scenario((loss,)),
    "duplicates": Scenario((duplicates,)),
    "partition": Scenario((partitions,)),
    "crash": Scenario((crashes,)),
    "appends": Scenario((appends, loss, partitions, crashes)),
    "hand-overs": Scenario((hand_overs, delay, loss, partitions, crashes, clocks)),
    "lost-disks": Scenario((losses,)),
    "stopped": Scenario((stops,)),
    "clocks": Scenario((clocks, bad_clocks, crashes)),
    "damage": Scenario((damages,)),
    "backup": Scenario((backups,)),
    "revocation": Scenario((revocations, loss, partitions, crashes, backups), revokes=True),
    "malice": Scenario((loss,), liars=1),
    "everything": Scenario(
        (delay, loss, partitions, crashes, losses, stops, clocks, damages, backups, hand_overs),
        liars=1,
    ),
}


def events_of(scenario: Scenario, seed: int) -> list[Event]:
    """Return the events of a history, in order."""
    random = Random(f"events {seed}")
    found = [event for each in (work, *scenario.faults) for event in each(random)]
    return sorted((e for e in found if e.at <= FAULT_SECONDS), key=lambda each: each.at)


def size_of(scenario: Scenario, seed: int) -> Size:
    """Return the form of the network of a history; one in ten is large."""
    random = Random(f"size {seed}")
    nodes = (
        random.randrange(9, NODES_MAX + 1 - scenario.liars)
        if random.random() < 0.1
        else random.randrange(4, 7)
    )
    factor = 3 if scenario.liars else random.choice([2, 3])
    zones = random.choice([0, 0, 2, 3])
    nodes = min(nodes + 2, NODES_MAX) if scenario.revokes else nodes
    return Size(nodes + scenario.liars, factor, zones, scenario.liars, scenario.revokes)


def run_history(
    scenario: Scenario,
    seed: int,
    events: list[Event] | None = None,
    make: type[SimulatedNode] = SimulatedNode,
) -> World:
    """Let a history happen.

    Args:
        scenario: Its faults.
        seed: Decides them.
        events: Those that happen; None for all.
        make: The class of nodes.

    Raises:
        BrokenPromise: What must hold does not.
    """
    world = World(seed, size_of(scenario, seed), make)
    world.simulation.run(5.0)
    world.watch()
    start = world.simulation.now
    for event in events_of(scenario, seed) if events is None else events:
        while world.simulation.now < start + event.at:
            world.simulation.run(min(1.0, start + event.at - world.simulation.now))
            world.watch()
        getattr(world, event.action)(*event.arguments)
    world.check_convergence()
    return world


def _times(random: Random, between: float) -> Iterator[float]:
    """Yield times, with so many seconds between two on average."""
    at = random.expovariate(1 / between)
    while at < FAULT_SECONDS:
        yield at
        at += random.expovariate(1 / between)
