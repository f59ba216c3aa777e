"""Simulated networks that run the membership protocol."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from random import Random

from lake.peers.members.membership import MESSAGES, Membership, MembershipOptions, PeerChanged
from lake.peers.members.statuses import NodeStatus, Suspicion, parse
from lake.peers.transport.machine import Effect, Failed, Replied
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.signed import Statement
from lake.testing.simulation import Disk, Faults, Simulation
from sennit_core.errors import Denied, Unsupported

CODEC = MessageCodec(MESSAGES)
WALL = 1_800_000_000.0


def node_name(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


class UnsignedSigner:
    """Statements without cryptography, for large networks; a forged one has another signature."""

    def __init__(self, node: str) -> None:
        self._node = node

    def sign_status(self, status: NodeStatus, now: float) -> Statement:
        return Statement("status", status.to_json(), now, 0.0, f"by {self._node}")

    def sign_suspicion(self, suspicion: Suspicion, now: float) -> Statement:
        return Statement("suspicion", suspicion.to_json(), now, 0.0, f"by {self._node}")

    def read(self, statement: Statement, now: float) -> NodeStatus | Suspicion:
        found = parse(statement)
        signer = found.node if isinstance(found, NodeStatus) else found.by
        if statement.signature != f"by {signer}":
            raise Denied("accepting a forged statement")
        return found


class GossipNode:
    """A process that runs only the membership protocol; its number survives crashes."""

    def __init__(self, name: str, disk: Disk, simulation: Simulation, seeds: Iterable[str]) -> None:
        disk["number"] = disk.get("number", 0) + 1
        self.changes: list[str] = []
        self.machine = Membership(
            NodeStatus(name, disk["number"], addresses=("10.0.0.1:8601",)),
            UnsignedSigner(name),
            lambda node: True,
            Random(simulation.random.random()),
            MembershipOptions(),
            now=simulation.now,
            wall=lambda: WALL + simulation.now,
        )
        for seed in seeds:
            if seed != name:
                self.machine.add(UnsignedSigner(seed).sign_status(NodeStatus(seed, 0), WALL))

    def tick(self, now: float) -> Iterable[Effect]:
        return self._own(self.machine.tick(now))

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        return self._own(self.machine.receive(peer, message, now))

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        raise Unsupported(message.kind)

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        raise AssertionError("gossip sends no requests")

    def _own(self, effects: Iterable[Effect]) -> Iterable[Effect]:
        for effect in effects:
            if isinstance(effect, PeerChanged):
                self.changes.append(effect.node)
            else:
                yield effect


class GossipNetwork:
    """A simulated network of `size` nodes that know the first one."""

    def __init__(self, seed: int, size: int, faults: Faults | None = None) -> None:
        self.simulation = Simulation(seed, CODEC, faults)
        self.names = [node_name(number) for number in range(size)]
        for name in self.names:
            self.simulation.add(name, partial(self._make, name))

    def _make(self, name: str, disk: Disk) -> GossipNode:
        return GossipNode(name, disk, self.simulation, self.names[:1])

    def view(self, observer: str) -> dict[str, str]:
        """Return the state of each other node, as one sees it."""
        machine = self.simulation.process(observer).machine
        return {node: peer.state for node, peer in machine.peers.items()}

    def agrees(self, **states: Iterable[str]) -> bool:
        """Return whether every running node sees the nodes named in these states, all others alive."""
        expected = {name: state for state, names in states.items() for name in names}
        for observer in self.simulation.running():
            wanted = {n: expected.get(n, "alive") for n in self.names if n != observer}
            if self.view(observer) != wanted:
                return False
        return True

    def deaths(self) -> list[tuple[str, str]]:
        """Return who takes which node for dead."""
        found = []
        for observer in self.simulation.running():
            found += [(observer, node) for node, s in self.view(observer).items() if s == "dead"]
        return found
