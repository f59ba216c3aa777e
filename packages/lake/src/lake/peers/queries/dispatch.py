"""Runs parts of a query, or of a job, on the nodes that hold their shards: a state machine.

A unit of work is a shard, or the shards of one bucket. An attempt is some units at one node; its result
is accepted as a whole or not at all, and when it is accepted its units are done. A unit is in at most one
set of attempts at a time, all of the same units, of which the first to finish counts. So no unit is
counted twice if messages are lost or repeated.

    units ──▶ attempts, one for each node ──▶ all accepted: finished
                 │ failed, node lost: its units go to other holders
                 │ slow: the same units at another holder too
                 └ no holder left: the units are missing
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from itertools import count

from lake.peers.transport.machine import Effect

__all__ = [
    "Dispatch",
    "DispatchOptions",
    "Finished",
    "RunAttempt",
    "StopAttempt",
    "Unit",
]


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """Numbers of the protocol.

    Args:
        failures_max: How often a unit is tried at one node.
        hedge_factor: An attempt is repeated at another node after so many times the duration of others.
        hedge_seconds_min: But not before this time.
        units_max: Units of an attempt.
        shards_max: Their shards, unless it has one unit; below half of what a request may name
            (`lake.peers.queries.fragments.OBJECTS_MAX`), which names those of whole tables too.
    """

    failures_max: int = 2
    hedge_factor: float = 4.0
    hedge_seconds_min: float = 2.0
    units_max: int = 256
    shards_max: int = 1000


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work.

    Args:
        id: Its id.
        bytes: How much it reads, for balance.
        holders: The nodes that hold all of its shards, the preferred ones first.
        shards: Their number.
    """

    id: str
    bytes: int
    holders: tuple[str, ...]
    shards: int = 1


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """An effect: run the query's fragment over some units at a node.

    Args:
        attempt: Its number.
        node: The node's id.
        units: Ids of the units, in their order.
    """

    attempt: int
    node: str
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """An effect: an attempt is not needed any more; its result is to be dropped."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Finished:
    """An effect: nothing more will happen.

    Args:
        attempts: Those whose results count.
        missing: Units that no node could run; the query fails, or is partial if that was allowed.
        problem: Why, of the last of them.
    """

    attempts: tuple[int, ...]
    missing: tuple[str, ...]
    problem: str = ""


@dataclass(slots=True, eq=False)
class _Attempt:
    node: str
    units: tuple[str, ...]
    started_at: float


@dataclass(slots=True, eq=False)
class _Unit:
    unit: Unit
    # Attempts under way that cover it.
    attempts: set[int] = field(default_factory=set)
    # Failures by node.
    failures: dict[str, int] = field(default_factory=dict)
    problem: str = "no node that holds it can be reached"


class Dispatch:
    """The attempts of one query.

    Args:
        units: All units.
        alive: The nodes that can be reached.
        options: Numbers.
        durations: Seconds of earlier attempts at like work, to which those of this one are added. A
            task of a job is a dispatch of its own, and slow compared with the job's others.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        alive: Collection[str],
        options: DispatchOptions | None = None,
        *,
        durations: MutableSequence[float] | None = None,
    ) -> None:
        self._options = options or DispatchOptions()
        self._alive = set(alive)
        self._numbers = count(1)
        # Units that are neither done nor missing, in their order.
        self._open = {unit.id: _Unit(unit) for unit in units}
        self._running: dict[int, _Attempt] = {}
        self._accepted: list[int] = []
        self._missing: dict[str, str] = {}
        self._durations: MutableSequence[float] = [] if durations is None else durations
        self._is_over = False

    def start(self, now: float) -> list[Effect]:
        """Return the first attempts."""
        return [*self._assign(now), *self._end()]

    def succeeded(self, attempt: int, now: float) -> list[Effect]:
        """Accept the result of an attempt, unless its units were done by another one."""
        done = self._running.pop(attempt, None)
        if done is None:
            return []
        self._durations.append(now - done.started_at)
        self._accepted.append(attempt)
        rivals: set[int] = set()
        for name in done.units:
            rivals |= self._open.pop(name).attempts
        rivals.discard(attempt)
        for rival in rivals:
            self._running.pop(rival, None)
        return [*(StopAttempt(rival) for rival in sorted(rivals)), *self._end()]

    def failed(self, attempt: int, problem: str, now: float, *, retry: bool = True) -> list[Effect]:
        """Assign the units of a failed attempt to other nodes.

        Args:
            attempt: Its number.
            problem: What happened.
            now: Seconds that never run backwards.
            retry: Whether the same node may be asked again.
        """
        lost = self._running.pop(attempt, None)
        if lost is None:
            return []
        for name in lost.units:
            state = self._open[name]
            state.attempts.discard(attempt)
            state.problem = problem
            failures = 1 if retry else self._options.failures_max
            state.failures[lost.node] = state.failures.get(lost.node, 0) + failures
        return [*self._assign(now), *self._end()]

    def node_lost(self, node: str, now: float) -> list[Effect]:
        """Fail the attempts of a node that cannot be reached any more."""
        self._alive.discard(node)
        effects: list[Effect] = []
        for number in [n for n, a in self._running.items() if a.node == node]:
            effects.append(StopAttempt(number))
            effects += self.failed(number, f"node {node[:16]} was lost", now, retry=False)
        return effects

    def tick(self, now: float) -> list[Effect]:
        """Let time pass: repeat attempts that are much slower than others."""
        if not self._durations:
            return []
        usual = sorted(self._durations)[len(self._durations) // 2]
        limit = max(usual * self._options.hedge_factor, self._options.hedge_seconds_min)
        effects: list[Effect] = []
        for attempt in list(self._running.values()):
            is_single = all(len(self._open[n].attempts) == 1 for n in attempt.units)
            if not is_single or now - attempt.started_at < limit:
                continue
            shared = self._usable(self._open[attempt.units[0]])
            for name in attempt.units[1:]:
                usable = self._usable(self._open[name])
                shared = [node for node in shared if node in usable]
            others = [node for node in shared if node != attempt.node]
            if others:
                effects.append(self._run(others[0], attempt.units, now))
        return effects

    def _assign(self, now: float) -> Iterator[Effect]:
        """Assign each unit without an attempt to the holder with the least work."""
        load: dict[str, int] = {}
        chosen: dict[str, list[str]] = {}
        for state in [each for each in self._open.values() if not each.attempts]:
            nodes = self._usable(state)
            if not nodes:
                self._missing[state.unit.id] = state.problem
                del self._open[state.unit.id]
                continue
            # The first of equals: the caller puts the local node first.
            node = min(nodes, key=lambda each: load.get(each, 0))
            load[node] = load.get(node, 0) + state.unit.bytes
            chosen.setdefault(node, []).append(state.unit.id)
        for node, units in chosen.items():
            for part in self._parts(units):
                yield self._run(node, part, now)

    def _parts(self, units: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield the units of a node by attempt."""
        part: list[str] = []
        shards = 0
        for name in units:
            own = self._open[name].unit.shards
            is_full = shards + own > self._options.shards_max
            if part and (is_full or len(part) == self._options.units_max):
                yield tuple(part)
                part, shards = [], 0
            part.append(name)
            shards += own
        yield tuple(part)

    def _run(self, node: str, units: tuple[str, ...], now: float) -> RunAttempt:
        number = next(self._numbers)
        self._running[number] = _Attempt(node, units, now)
        for name in units:
            self._open[name].attempts.add(number)
        return RunAttempt(number, node, units)

    def _usable(self, state: _Unit) -> list[str]:
        most = self._options.failures_max
        return [
            node
            for node in state.unit.holders
            if node in self._alive and state.failures.get(node, 0) < most
        ]

    def _end(self) -> Iterator[Effect]:
        if self._open or self._is_over:
            return
        self._is_over = True
        problem = list(self._missing.values())[-1] if self._missing else ""
        yield Finished(tuple(self._accepted), tuple(self._missing), problem)
