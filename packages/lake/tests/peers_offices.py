"""Simulated nodes that find each other and keep copies: membership, replication and transfers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

from lake.peers.copies import chunks, have_messages
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply, ListRequest
from lake.peers.copies.have_messages import HaveReply, HaveRequest, have_bits
from lake.peers.copies.placement import Candidate, Placement
from lake.peers.copies.replication import (
    DropCopy,
    FetchCopy,
    Pause,
    Replica,
    Replication,
    ReplicationOptions,
    SharedObjects,
    StopFetch,
)
from lake.peers.copies.transfers import (
    FindKept,
    ObjectComplete,
    ObjectUnobtainable,
    Transfers,
    WriteChunk,
)
from lake.peers.members import membership
from lake.peers.members.membership import Membership, PeerChanged
from lake.peers.members.statuses import NodeStatus
from lake.peers.transport.machine import Call, Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message, MessageCodec
from lake.testing.simulation import Disk, Faults, Simulation
from sennit_core.errors import NotFound, Unsupported
from sennit_core.hashing import object_id

from .peers_gossip import WALL, UnsignedSigner, node_name

CODEC = MessageCodec((*membership.MESSAGES, *have_messages.MESSAGES, *chunks.MESSAGES))
CHUNK = 16
OPTIONS = ReplicationOptions(confirm_seconds=20.0, loss_seconds=30.0)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with chunks of 16 bytes; `name` is its id, whatever happened to `data`."""

    name: str
    data: bytes
    digests: tuple[str, ...]

    @classmethod
    def of(cls, data: bytes) -> StoredObject:
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        digests = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
        return cls(object_id(len(data), CHUNK, digests), data, digests)

    @property
    def is_intact(self) -> bool:
        return StoredObject.of(self.data).name == self.name


class OfficeNode:
    """A process whose disk holds objects; the one named in `lies` sends wrong chunks."""

    def __init__(self, network: OfficeNetwork, name: str, disk: Disk) -> None:
        disk["number"] = disk.get("number", 0) + 1
        self.objects: dict[str, StoredObject] = disk.setdefault("objects", {})
        self.name, self._network = name, network
        self._random = Random(network.simulation.random.random())
        simulation = network.simulation
        self.members = Membership(
            NodeStatus(name, disk["number"], zone=network.zones.get(name, "")),
            UnsignedSigner(name), lambda node: node in network.names, self._random,
            now=simulation.now, wall=lambda: WALL + simulation.now,
        )  # fmt: skip
        seed = network.names[0]
        if seed != name:
            self.members.add(UnsignedSigner(seed).sign_status(NodeStatus(seed, 0), WALL))
        # Verified at the start, as a node does that was away.
        for each in [each for each in self.objects.values() if not each.is_intact]:
            del self.objects[each.name]
        self.copies = Replication(name, lambda _, name: name in self.objects, OPTIONS)
        self.transfers = Transfers(now=simulation.now)
        # Unfinished files.
        self._partial: dict[str, dict[int, bytes]] = disk.setdefault("partial", {})
        # Requests of both machines, under numbers of the process.
        self._calls: dict[int, tuple[str, int]] = {}
        self._number = 0
        self.leaving_at: float | None = None

    def is_needed(self, now: float) -> bool:
        """Return whether this node, which leaves, has something that others have not confirmed."""
        assert self.leaving_at is not None, "it leaves"
        self.copies.ask_again(now, self.leaving_at)
        return any(
            self.copies.handover(each, each.objects, self.leaving_at, now).waiting
            for each in self._network.datasets
        )

    def leave(self, now: float) -> None:
        """Announce at the next tick that this node leaves."""
        self.leaving_at = now

    def tick(self, now: float) -> Iterable[Effect]:
        if self.leaving_at is not None and self.members.own.state == "alive":
            yield from self._own(self.members.leave(now, "leaving"), "members")
        yield from self._own(self.members.tick(now), "members")
        candidates = [
            Candidate(node, self._network.zones.get(node, "")) for node in self._candidates(now)
        ]
        yield from self._own(
            self.copies.tick(now, self._network.datasets, candidates, self.members.alive()),
            "copies",
        )
        yield from self._own(self.transfers.tick(now), "transfers")

    def _candidates(self, now: float) -> list[str]:
        lost = [
            node
            for node, peer in self.members.peers.items()
            if peer.state == "dead" and peer.stays and now - peer.since < OPTIONS.loss_seconds
        ]
        return sorted({*self.members.settled(now), *lost})

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        return self._own(self.members.receive(peer, message, now), "members")

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        if isinstance(message, HaveRequest):
            claimed = [
                name in self.objects and not self.copies.is_leaving(name)
                for _, name in message.pairs
            ]
            return HaveReply(), have_bits(claimed)
        if not isinstance(message, (ListRequest, ChunkRequest)):
            raise Unsupported(message.kind)
        found = self.objects.get(message.object)
        if found is None:
            raise NotFound("object", message.object[:16], suggestion=None)
        if isinstance(message, ListRequest):
            return ListReply(len(found.data), CHUNK), bytes.fromhex("".join(found.digests))
        chunk = found.data[message.index * CHUNK :][:CHUNK]
        if self.name in self._network.liars:
            chunk = bytes(len(chunk))
        return Chunk(), chunk

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        machine, number = self._calls.pop(result.id)
        if isinstance(result, Replied):
            reply = Replied(number, result.message, result.body)
            if machine == "transfers":
                return self._own(self.transfers.replied(reply, now), machine)
            self.copies.replied(reply)
            return []
        failure = Failed(number, result.code, result.reason)
        if machine == "transfers":
            return self._own(self.transfers.failed(failure, now), machine)
        self.copies.failed(failure)
        return []

    def _own(self, effects: Iterable[Effect], machine: str) -> Iterable[Effect]:
        for effect in effects:
            match effect:
                case PeerChanged():
                    self.copies.soon()
                case Call(peer, number, message, timeout):
                    self._number += 1
                    self._calls[self._number] = (machine, number)
                    yield Call(peer, self._number, message, timeout)
                case Send():
                    yield effect
                case FindKept() | WriteChunk():
                    yield from self._own(self._work(effect), machine)
                case _:
                    self._store(effect)

    def _work(self, effect: FindKept | WriteChunk) -> Iterable[Effect]:
        now = self._network.simulation.now
        partial = self._partial.setdefault(effect.object, {})
        if isinstance(effect, FindKept):
            kept = {index: hashlib.sha256(data).hexdigest() for index, data in partial.items()}
            return self.transfers.found_kept(effect, kept, now)
        is_right = hashlib.sha256(effect.data).hexdigest() == effect.digest
        if is_right:
            partial[effect.index] = bytes(effect.data)
        return self.transfers.written(effect, is_right=is_right, now=now)

    def _store(self, effect: Effect) -> None:
        match effect:
            case Pause():
                pass
            case FetchCopy(dataset, name, _, sources, copies):
                if sources:
                    self.transfers.want(dataset, name, sources, priority=copies)
            case StopFetch(dataset, name):
                self.transfers.cancel(dataset, name)
            case DropCopy(name):
                del self.objects[name]
                self._network.dropped += 1
            case ObjectComplete(dataset, name, _, _, digests):
                self.transfers.stored(dataset, name)
                chunks = self._partial.pop(name, {})
                data = b"".join(chunks[index] for index in range(len(digests)))
                assert StoredObject.of(data).name == name, "a wrong object was accepted"
                self.objects[name] = StoredObject.of(data)
                self.copies.soon()
            case ObjectUnobtainable():
                pass
            case _:
                raise AssertionError(effect)


class OfficeNetwork:
    """A simulated network in which the first node writes one dataset."""

    def __init__(
        self,
        seed: int,
        size: int = 5,
        *,
        factor: int = 3,
        objects: int = 20,
        zones: Mapping[int, str] | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.simulation = Simulation(seed, CODEC, faults)
        self.names = [node_name(number) for number in range(size)]
        self.zones = {self.names[n]: zone for n, zone in (zones or {}).items()}
        self.liars: set[str] = set()
        self.dropped = 0
        self.placement = Placement(factor)
        self.stored = [
            StoredObject.of(f"object {n} of {seed} ".encode() * 5) for n in range(objects)
        ]
        for name in self.names:
            self.simulation.add(name, partial(OfficeNode, self, name))
        for each in self.stored:
            self.node(0).objects[each.name] = each

    @property
    def datasets(self) -> list[SharedObjects]:
        replicas = tuple(Replica(o.name, o.name, len(o.data)) for o in self.stored)
        return [SharedObjects("trips", self.names[0], self.placement, None, replicas)]

    def node(self, number: int) -> OfficeNode:
        found: OfficeNode = self.simulation.process(self.names[number])
        return found

    def holders(self, stored: StoredObject) -> list[str]:
        """Return the running nodes that have an intact copy."""
        found = []
        for name in self.simulation.running():
            copy = self.simulation.process(name).objects.get(stored.name)
            if copy is not None and copy.is_intact:
                found.append(name)
        return found

    def is_replicated(self) -> bool:
        """Return whether every object has as many copies as it should, and no more."""
        return all(len(self.holders(each)) == self.placement.factor for each in self.stored)

    def is_safe(self) -> bool:
        """Return whether every object has at least as many copies as it should."""
        return all(len(self.holders(each)) >= self.placement.factor for each in self.stored)
