"""Publishes the datasets that this node shares: its logs say what its shares want.

Runs in the event loop of the network; what reads files is done by threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from lake.catalog.catalog import Catalog
from lake.peers.members.membership import Membership
from lake.peers.members.roster import Roster
from lake.peers.sharing.publications import Publications
from lake.peers.sharing.shared_index import KnownDataset, SharedIndex, read_known
from lake.peers.sharing.sharing import SharedDataset, Shares, Wanted
from lake.peers.transport.machine import Effect
from sennit_core.errors import SennitError
from sennit_core.logs import get_logger

__all__ = ["Publishing", "PublishingHost"]

_log = get_logger(__name__)


class PublishingHost(Protocol):
    """What publishing needs of the network."""

    roster: Roster
    members: Membership
    logs: Publications

    def put(self, effects: Iterable[Effect]) -> None:
        """Perform effects in their order."""
        ...


class Publishing:
    """Publishes the datasets of one node.

    Args:
        node: The node's id.
        host: The network.
        catalog: The datasets.
        shares: How they are shared.
        index: The shared datasets.
        alone: Returns what is held while it is decided who writes a dataset.
        changed: Called after one of these has changed.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        node: str,
        host: PublishingHost,
        catalog: Catalog,
        shares: Shares,
        index: SharedIndex,
        alone: Callable[[str], AbstractAsyncContextManager[None]],
        changed: Callable[[], object],
    ) -> None:
        self._node = node
        self._host = host
        self._catalog = catalog
        self._shares = shares
        self._index = index
        self._alone = alone
        self._changed = changed

    async def publish(self) -> None:
        """Make this node's logs say what its shares want."""
        try:
            roster = self._host.roster
            others = [
                each for each in roster.members if each != self._node and roster.is_member(each)
            ]
            wanted = await asyncio.to_thread(self._shares.wanted, others)
        except SennitError as error:
            _log.warning("nothing is published or withdrawn: %s", error)
            return
        # Before it is published, as the first reader asks at once.
        await self._index_own(wanted)
        logs, alive = self._host.logs, self._host.members.alive()
        for (audience, dataset), shared in (*wanted.items.items(), *wanted.moved.items()):
            self._host.put(logs.publish(dataset, shared.to_json(), audience, alive))
        # After it, so that a dataset that moves to another log is always in one.
        for key, dataset, _ in list(logs.items()):
            is_own = key.publisher == self._node
            if is_own and not wanted.keeps(key.audience, dataset):
                self._host.put(logs.publish(dataset, None, key.audience, alive))

    async def _index_one(self, shared: SharedDataset, known: KnownDataset | None) -> None:
        try:
            if not shared.encrypted and self._shares.get(shared.id) is None:
                return  # another node has become its writer since
            found = await asyncio.to_thread(read_known, self._catalog, shared, self._node, known)
        except SennitError as error:  # deleted meanwhile, or damaged
            _log.warning("the shared dataset %s: %s", shared.name, error)
            return
        self._index.put(found)
        self._changed()

    async def _index_own(self, wanted: Wanted) -> None:
        shared = {dataset: each for (_, dataset), each in wanted.items.items()}
        for dataset, each in shared.items():
            known = self._index.get(dataset)
            if known is None or known.shared != each:
                async with self._alone(dataset):
                    await self._index_one(each, known)
        for known in self._index:
            dataset = known.shared.id
            if known.writer == self._node and dataset not in {*shared, *wanted.damaged}:
                self._index.remove(dataset)
