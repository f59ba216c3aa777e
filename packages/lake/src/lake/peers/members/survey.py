"""Asks the whole network for what `lake.peers.members.health` examines, and for its map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.peers.data import DataParts
from lake.peers.members.health import Finding, NodeState, SharedCopies, Surveyed, examine
from lake.peers.members.reports import Answer, Link
from sennit_core.errors import StorageFull

if TYPE_CHECKING:
    from lake.peers.joined import JoinedNetwork

__all__ = ["MapLink", "NetworkMap", "Survey"]

_LOSS_SECONDS_UNKNOWN = 0.0
_ORPHANED_MAX = 20


@dataclass(frozen=True, slots=True)
class MapLink:
    """A connection between two nodes.

    Args:
        nodes: Their ids, in order.
        rtt_seconds: Of a round trip, as one of them measured it; None if none did.
        relay: The node that forwards it; "" if it is direct.
    """

    nodes: tuple[str, str]
    rtt_seconds: float | None
    relay: str


@dataclass(frozen=True, slots=True)
class NetworkMap:
    """The nodes, their connections, and what they lack.

    Args:
        nodes: All members, this one first.
        links: The connections of those that answered.
        silent: Why a node did not say what its connections are, by id.
        datasets: The shared datasets by their ids, with what each node lacks.
    """

    nodes: Sequence[NodeState]
    links: Sequence[MapLink]
    silent: Mapping[str, str]
    datasets: Mapping[str, SharedCopies]


class Survey:
    """Looks at a network from one node.

    Args:
        network: The network.
        data: The lake of this node; None if it shares none.
    """

    def __init__(self, network: JoinedNetwork, data: DataParts | None) -> None:
        self._network = network
        self._data = data

    async def check(self) -> list[Finding]:
        """Return what is right and wrong with the network."""
        network = self._network
        nodes = network.states()
        own = nodes[0].status if nodes else None
        asked = [] if network.is_revoked else _asked(nodes)
        dial = own is not None and bool(own.addresses)
        answers = await network.reports.ask_all(asked, dial=dial)
        found = await asyncio.to_thread(self._local)
        datasets = await self._datasets()
        return examine(
            Surveyed(
                nodes, network.is_revoked, answers, list(datasets.values()),
                _LOSS_SECONDS_UNKNOWN if self._data is None else self._data.copies.loss_seconds,
                found.no_room, found.quarantined, found.damaged, self._wrong(),
                network.effects.problem,
                () if network.exchange is None else network.exchange.contested(),
                network.logs.forked,
                self._orphaned(found.foreign),
            )
        )  # fmt: skip

    async def map(self) -> NetworkMap:
        """Return the map of the network."""
        network = self._network
        nodes = network.states()
        answers = await network.reports.ask_all(_asked(nodes), dial=False)
        silent = {n: answer.problem for n, answer in answers.items() if answer.report is None}
        links = _merged(network.node_id, network.reports.own(), answers)
        return NetworkMap(nodes, links, silent, await self._datasets())

    async def _datasets(self) -> dict[str, SharedCopies]:
        exchange = self._network.exchange
        return {} if exchange is None else await exchange.shared_copies()

    def _local(self) -> _Local:
        data = self._data
        if data is None:
            return _Local(None, 0, (), ())
        no_room: str | None = None
        try:
            data.space.check_disk("a copy", 0)
        except StorageFull as problem:
            no_room = str(problem)
        datasets = data.catalog.list()
        damaged = tuple(info.name for info in datasets if info.damaged is not None)
        foreign = tuple((info.name, info.node) for info in datasets if info.node is not None)
        return _Local(no_room, len(data.objects.quarantined()), damaged, foreign)

    def _orphaned(self, foreign: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the datasets whose writers are no members any more, with the names of those."""
        roster = self._network.roster
        gone = [each for each in foreign if not roster.is_member(each[1])]
        return [(name, roster.name_of(writer)) for name, writer in gone[:_ORPHANED_MAX]]

    def _wrong(self) -> tuple[str, ...]:
        return () if self._data is None else tuple(self._data.copies.transfers.wrong)


@dataclass(frozen=True, slots=True)
class _Local:
    """What is known of this node alone; as in `Surveyed`."""

    no_room: str | None
    quarantined: int
    damaged: tuple[str, ...]
    foreign: tuple[tuple[str, str], ...]
    """The names of other nodes' datasets, and the ids of these nodes."""


def _asked(nodes: Sequence[NodeState]) -> list[str]:
    return [node.member.id for node in nodes[1:] if node.state != "left"]


def _merged(own: str, links: Sequence[Link], answers: Mapping[str, Answer]) -> list[MapLink]:
    """Return each connection once; this node's own measurement counts first, then a direct one."""
    found: dict[tuple[str, str], MapLink] = {}

    def all_links() -> Iterator[tuple[str, Link]]:
        yield from ((own, link) for link in links)
        for node, answer in answers.items():
            if answer.report is not None:
                yield from ((node, link) for link in answer.report.links)

    for node, link in all_links():
        low, high = sorted((node, link.node))
        known = found.get((low, high))
        is_better = known is not None and known.relay and not link.relay and own not in (low, high)
        if known is None or is_better:
            found[low, high] = MapLink((low, high), link.rtt_seconds, link.relay)
    return sorted(found.values(), key=_order(own))


def _order(own: str) -> Callable[[MapLink], tuple[bool, tuple[str, str]]]:
    return lambda link: (own not in link.nodes, link.nodes)
