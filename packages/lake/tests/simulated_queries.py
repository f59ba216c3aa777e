"""The distributed queries of a simulated node, each of which sums the shards of one version.

What `lake.peers.queries.distributor` and `step_dispatch` do with sessions and files, this does with messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lake.peers.copies.transfers import at_most
from lake.peers.queries.dispatch import Dispatch, Finished, RunAttempt, StopAttempt, Unit
from lake.peers.transport.machine import Effect, Failed, Replied
from lake.peers.transport.messages import Message
from sennit_core.errors import SennitError

from .simulated_data import Version

if TYPE_CHECKING:
    from .simulated_node import SimulatedNode

PART_SECONDS = 4.0
_RETRYABLE = ("unavailable", "deadline-exceeded", "busy")


@dataclass(frozen=True, slots=True)
class Part(Message):
    """Asks for the sum of some shards of a version, as a fragment of a query does."""

    kind: ClassVar[str] = "part"
    dataset: str
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartReply(Message):
    kind: ClassVar[str] = "part-reply"
    shards: int
    total: int


MESSAGES: tuple[type[Message], ...] = (Part, PartReply)


@dataclass(slots=True, eq=False)
class Query:
    """A query that runs, over one version.

    Args:
        version: The version.
        dispatch: Its attempts.
        alive: The nodes that it may ask.
        results: The shards and the sum of each attempt that has ended.
        sought: Shards that were fetched, as no known holder has sent them.
        missing: Those of them that are still to come.
    """

    version: Version
    dispatch: Dispatch
    alive: set[str]
    results: dict[int, tuple[int, int]] = field(default_factory=dict)
    sought: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


class Queries:
    """The queries that one node coordinates.

    Args:
        node: The node.
        dispatch: The class of the machine; tests give one with a fault of its own.
    """

    def __init__(self, node: SimulatedNode, dispatch: type[Dispatch]) -> None:
        self._node = node
        self._dispatch = dispatch
        self.running: list[Query] = []
        self._ended: list[tuple[Query, int]] = []

    def start(self, dataset: str, now: float) -> Iterator[Effect]:
        """Start a query of the newest version here, if there is one."""
        version = self._node.head(dataset)
        if version is not None:
            yield from self._start(version, frozenset(), now)

    def _start(self, version: Version, sought: frozenset[str], now: float) -> Iterator[Effect]:
        units = [Unit(n, 1, tuple(self._holders(version, n, now))) for n, _ in version.shards]
        alive = self._node.members.alive()
        dispatch = self._dispatch(units, [*alive, self._node.name])
        query = Query(version, dispatch, set(alive), sought=sought)
        self.running.append(query)
        yield from self._perform(query, dispatch.start(now))

    def _holders(self, version: Version, shard: str, now: float) -> list[str]:
        node, alive = self._node, self._node.members.alive()
        noted = node.objects_of(version.dataset)
        live = node.copies.holders_of(noted, shard, alive, now)
        also = [noted.writer] if noted.writer in alive else []
        return list(dict.fromkeys((*live, *also)))

    def tick(self, now: float) -> Iterator[Effect]:
        ended, self._ended = self._ended, []
        for query, attempt in ended:
            yield from self._perform(query, query.dispatch.succeeded(attempt, now))
        alive = set(self._node.members.alive())
        for query in list(self.running):
            if query.missing:
                yield from self._go_on(query, now)
                continue
            for lost in sorted(query.alive - alive):
                yield from self._perform(query, query.dispatch.node_lost(lost, now))
            query.alive &= alive
            yield from self._perform(query, query.dispatch.tick(now))

    def _go_on(self, query: Query, now: float) -> Iterator[Effect]:
        """Start a query anew once all shards that were fetched for it have come, or none will."""
        fetched = {name for _, name in self._node.transfers.objects}
        if query.missing & fetched:
            return
        self.running.remove(query)
        if all(name in self._node.objects for name in query.missing):
            yield from self._start(query.version, query.sought | query.missing, now)
        else:
            self._node.world.answered(self._node.name, query.version, (), len(query.missing))

    def ended(
        self, query: Query, attempt: int, result: Replied | Failed, now: float
    ) -> Iterator[Effect]:
        """Handle the end of a request to another node."""
        if isinstance(result, Replied) and isinstance(result.message, PartReply):
            query.results[attempt] = (result.message.shards, result.message.total)
            effects = query.dispatch.succeeded(attempt, now)
        else:
            code = result.code if isinstance(result, Failed) else "bad-input"
            retry = code in _RETRYABLE
            effects = query.dispatch.failed(attempt, code, now, retry=retry)
        yield from self._perform(query, effects)

    def _perform(self, query: Query, effects: Iterable[Effect]) -> Iterator[Effect]:
        node = self._node
        for effect in effects:
            match effect:
                case RunAttempt(number, name, units) if name == node.name:
                    try:
                        query.results[number] = node.sum(units)
                        self._ended.append((query, number))
                    except SennitError as error:
                        now = node.world.simulation.clock(name)
                        failed = query.dispatch.failed(number, str(error), now, retry=False)
                        yield from self._perform(query, failed)
                case RunAttempt(number, name, units):
                    part = Part(query.version.dataset, units)
                    yield node.call(name, part, PART_SECONDS, query, number)
                case StopAttempt():
                    pass  # its result may still come, and is not to count
                case Finished(attempts, missing):
                    self._finish(query, attempts, frozenset(missing))

    def _finish(self, query: Query, attempts: Iterable[int], missing: frozenset[str]) -> None:
        node = self._node
        if missing - query.sought:
            query.missing = missing - query.sought
            self._fetch(query)
            return
        self.running.remove(query)
        counted = [query.results[attempt] for attempt in attempts]
        node.world.answered(node.name, query.version, counted, len(missing))

    def _fetch(self, query: Query) -> None:
        node, now = self._node, self._node.world.simulation.clock(self._node.name)
        sizes = dict(query.version.shards)
        for name in sorted(query.missing - node.objects.keys()):
            holders = self._holders(query.version, name, now)
            sources = [
                n for n in dict.fromkeys((*holders, *node.members.alive())) if n != node.name
            ]
            if sources:
                node.transfers.want(
                    query.version.dataset, name, sources, by=query, priority=-1.0,
                    admit=at_most(sizes[name]),
                )  # fmt: skip
