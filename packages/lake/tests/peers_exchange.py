"""Lakes that share datasets in one process: all but the connections, which are calls, and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from elkyn.records import Change
from lake import Lake
from lake.catalog.snapshots import Manifest
from lake.peers.copies.chunks import ChunkRequest, ListRequest
from lake.peers.copies.copies import CopyOptions
from lake.peers.copies.have_messages import HaveRequest
from lake.peers.copies.placement import Placement
from lake.peers.copies.replication import ReplicationOptions
from lake.peers.data import data_parts
from lake.peers.exchange import Exchange
from lake.peers.handovers.messages import HandOverRefusal, HandOverRequest
from lake.peers.members.membership import Membership, MembershipOptions
from lake.peers.members.roster import Roster, found_network
from lake.peers.members.statuses import NodeStatus, StatementSigner
from lake.peers.members.store import PeerStore
from lake.peers.sharing.publications import (
    MESSAGES,
    PublicationOptions,
    Publications,
    Published,
    StatementEntrySigner,
    StoreLog,
)
from lake.peers.transport.hello import FEATURES
from lake.peers.transport.identity import Identity
from lake.peers.transport.machine import Call, Effect, Failed, Replied, Send
from sennit_core.errors import SennitError
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

from .peers_world import NOW

OPTIONS = CopyOptions(ReplicationOptions(plan_seconds=0.5, confirm_seconds=4.0, loss_seconds=2.0))
ROUND_SECONDS = 0.6
ROUNDS_MAX = 60


@dataclass(frozen=True)
class Peer:
    """What handlers need of a session."""

    peer: str


class SharingNode:
    """A node's lake, machines and exchange; the host that an exchange needs."""

    def __init__(self, network: SharingNetwork, own: Identity, roster: Roster, lake: Lake) -> None:
        self.network, self.own, self.roster, self.lake = network, own, roster, lake
        self.id = own.id
        self._numbers = count(1)
        self.store = PeerStore(lake.tree)
        chance = Random(1)
        self.members = Membership(
            NodeStatus(own.id, 1, features=FEATURES, capacity=1 << 30), StatementSigner(own.key), roster.is_member,
            chance, MembershipOptions(settled_seconds=0.0), now=network.now, wall=lambda: NOW,
        )  # fmt: skip
        logs, damaged = self.store.load_logs()
        self.logs = Publications(
            own.id, StatementEntrySigner(own.key), roster.is_member, chance,
            PublicationOptions(compare_seconds=1.0), logs=logs, damaged=damaged, wall=lambda: NOW,
        )  # fmt: skip
        self.parts = data_parts(lake, OPTIONS)
        self.shares = self.parts.shares
        self.exchange = Exchange(own.id, self, self.parts)

    def now(self) -> float:
        return self.network.now

    def wall(self) -> float:
        return NOW

    def put(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, message):
                    other = self.network.reach(self, peer)
                    if other is not None and isinstance(message, MESSAGES):
                        other.put(other.logs.receive(self.id, message, other.members.alive()))
                case StoreLog():
                    self.store.store_log(effect)
                case Published():
                    self.exchange.published(effect)

    async def call(self, call: Call) -> Replied | Failed:
        other = self.network.reach(self, call.peer)
        if other is None or not other.roster.is_member(self.id):
            return Failed(call.id, "unavailable", "it is away")
        try:
            message, body = await other.serve(self.id, call.message)
        except SennitError as error:
            return Failed(call.id, error.code, str(error))
        return Replied(call.id, message, body)

    async def serve(self, peer: str, message: Any) -> Any:
        handlers: dict[type, Any] = {
            HaveRequest: self.exchange.serve_have,
            ListRequest: self.exchange.serve_list,
            ChunkRequest: self.exchange.serve_chunk,
            HandOverRequest: self.exchange.giver.serve,
            HandOverRefusal: self.exchange.giver.serve_refusal,
        }
        return await handlers[type(message)](Peer(peer), message, b"")

    async def ask(self, other: SharingNode, message: Any) -> Replied | Failed:
        return await self.call(Call(other.id, 0, message, 5.0))

    # What tests look at

    def names(self) -> set[str]:
        return {info.name for info in self.lake.catalog.list()}

    def shards(self, dataset: str) -> list[str]:
        return [s.object for s in self.lake.catalog.manifest(dataset).snapshot.shards]

    def has_all(self, dataset: str) -> bool:
        return all(name in self.lake.objects for name in self.shards(dataset))

    def append(self, dataset: str, *rows: int) -> str:
        """Append rows as one shard; return its object."""
        self.lake.append(dataset, pa.table({"id": rows}))
        return self.shards(dataset)[-1]

    def replace(self, dataset: str, *rows: int) -> str:
        """Commit a version that has only these rows; return its object."""
        number = next(self._numbers)
        shard = self.append(f"{dataset}-{number}", *rows)
        catalog = self.lake.catalog
        newest, other = catalog.manifest(dataset), catalog.manifest(f"{dataset}-{number}")
        snapshot = replace(
            newest.snapshot, id=new_id(), parent=newest.snapshot.id, shards=other.snapshot.shards
        )
        changed = replace(newest, snapshot=snapshot, created_at=newest.created_at + 1e-3)
        catalog.commit(catalog.get(dataset), changed, expected_head=newest.snapshot.id)
        self.lake.delete(f"{dataset}-{number}")
        return shard

    def forget_shard(self, dataset: str, shard: str) -> None:
        """Take a shard out of all versions, as a purge does, and delete it."""
        catalog = self.lake.catalog
        info = catalog.get(dataset)
        new: dict[str, Manifest] = {}
        for manifest, each in catalog.rewriter.read(info).items():
            kept = tuple(s for s in each.snapshot.shards if s.object != shard)
            new[manifest] = replace(each, snapshot=replace(each.snapshot, shards=kept))
        with catalog.writing():
            marker = Change("purges/test", None)
            before = catalog.rewriter.rewrite(info, new, marker).before
        self.lake.retention.erase(before)

    def share(self, dataset: str, *nodes: SharingNode, copies: int = 1) -> str:
        """Share a dataset with some nodes, or with all; return its id."""
        ids = [node.id for node in nodes] or ["*"]
        return self.shares.set(dataset, ids, Placement(copies), read_only=True).dataset

    def commit(self, name: str, *objects: str) -> None:
        """Commit a dataset that claims to have objects."""
        schema = Schema.of(id="Int64")
        info = DatasetInfo(new_id(), name, "", schema)
        shards = tuple(ShardInfo(each, 2, 10_000, {}, {}) for each in objects)
        snapshot = SnapshotInfo(new_id(), None, info.id, schema, shards, {}, "", None, ())
        self.lake.catalog.commit(info, Manifest(snapshot, 1.0), expected_head=None)


class SharingNetwork:
    """Nodes by their names, the first of which founds the network."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.folder = folder
        self.nodes: dict[str, SharingNode] = {}
        self.away: set[str] = set()
        self._founder: Identity | None = None
        self._roster: Roster | None = None

    @contextmanager
    def node(self, name: str) -> Iterator[SharingNode]:
        """Open a node, which joins if it has not before."""
        with Lake(self.folder / name, memory_bytes="256 MiB") as lake:
            own = Identity(lake.storage.node_key)
            if self._founder is None:
                self._founder, self._roster = own, found_network(own, name, NOW)
            assert self._roster is not None
            self._roster.admit(self._founder.key, own.certificate, name, now=NOW)
            for other in self.nodes.values():
                other.roster.merge(self._roster.statements)
            roster = Roster(self._roster.network, self._roster.statements)
            node = SharingNode(self, own, roster, lake)
            for other in self.nodes.values():
                node.members.add(other.members.statements()[0])
                other.members.add(node.members.statements()[0])
            self.nodes[name] = node
            try:
                yield node
            finally:
                self.nodes.pop(name)

    def revoke(self, node: SharingNode) -> None:
        assert self._roster is not None
        assert self._founder is not None
        self._roster.revoke(self._founder.key, node.id, now=NOW)
        for each in self.nodes.values():
            each.roster.merge(self._roster.statements)

    def reach(self, source: SharingNode, target: str) -> SharingNode | None:
        found = [each for each in self.nodes.values() if each.id == target]
        is_away = {source.id, target} & self.away
        return None if is_away or not found else found[0]

    async def run(self, *, rounds: int = 1) -> None:
        """Let time pass for all nodes."""
        for _ in range(rounds):
            self.now += ROUND_SECONDS
            for node in list(self.nodes.values()):
                node.put(node.logs.tick(self.now, node.members.alive()))
                await node.exchange.tick()
            for node in list(self.nodes.values()):
                await settled(node)

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(ROUNDS_MAX):
            if condition():
                return
            await self.run()
        raise AssertionError("it did not happen")


async def settled(node: SharingNode) -> None:
    """Wait until nothing is under way that no tick continues."""
    exchange = node.exchange
    while tasks := running(exchange):
        done, _ = await asyncio.wait(tasks, timeout=0.05)
        if not done:
            return


def running(exchange: Exchange) -> Collection[asyncio.Task[Any]]:
    return {
        *exchange._downloads._tasks._tasks,
        *exchange._adoption._tasks._tasks,
        *exchange.taker._tasks._tasks,
    }
