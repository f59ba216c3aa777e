"""Simulated networks: what membership costs each node, and how fast all nodes know of a change.

The machines are those of the product, the messages pass through its codec, and a message takes 1 to 50 ms.
Only statements are not signed: the signature is a text of about the same length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random

from lake.peers.members.membership import MESSAGES, Membership
from lake.peers.members.statuses import NodeStatus, Suspicion, parse
from lake.peers.transport.machine import Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.signed import Statement
from lake.testing.simulation import Disk, Simulation
from sennit_core.errors import Unsupported

from .line_plot import Line, Plot, write_plot

__all__ = ["run"]

_WALL = 1_800_000_000.0
_SEED = 7
_SETTLE_SECONDS = 5.0
# Two comparisons of whole views for each node, which are the rarest and greatest messages.
_STEADY_SECONDS = 60.0
_WAIT_SECONDS = 120.0


def run(sizes: Sequence[int], plot: Path | None) -> None:
    """Print what networks of some sizes cost, and draw it.

    Args:
        sizes: Numbers of nodes.
        plot: The SVG file to write; None for none.
    """
    print(f"\nmembership: simulated, seed {_SEED}, {_STEADY_SECONDS:.0f} s in the steady state")
    print("of each node and second                seconds until all know")
    print(f"{'nodes':>6}{'messages':>10}{'bytes':>9}{'the most':>10}{'a join':>13}{'a death':>9}")
    found = []
    for size in sizes:
        each = measured(size)
        found.append(each)
        costs = f"{each.messages:10.2f}{each.bytes:9.0f}{each.bytes_max:10.0f}"
        print(f"{size:6}{costs}{each.join:13.1f}{each.death:9.1f}", flush=True)
    if plot is not None:
        write_plot(plot, plots(found))


@dataclass(frozen=True)
class Measured:
    """Of each node and second, messages and bytes sent, and the most bytes of one node; seconds."""

    size: int
    messages: float
    bytes: float
    bytes_max: float
    join: float
    death: float


def measured(size: int) -> Measured:
    """Return what a network of so many nodes costs."""
    network = Network(size)
    simulation = network.simulation
    simulation.run(_SETTLE_SECONDS)
    messages, sent = sum(network.messages.values()), dict(simulation.sent)
    simulation.run(_STEADY_SECONDS)
    steady = sum(network.messages.values()) - messages
    moved = [count - sent[name] for name, count in simulation.sent.items()]
    newcomer, victim = node_name(size), network.names[size // 2]
    # What an admitted node gets with its welcome: the statuses that the other one knows.
    network.add(newcomer, network.statements)
    return Measured(
        size,
        steady / size / _STEADY_SECONDS,
        sum(moved) / size / _STEADY_SECONDS,
        max(moved) / _STEADY_SECONDS,
        network.seconds_until(newcomer, "alive"),
        network.death(victim),
    )


class Network:
    """A simulated network of nodes that know each other."""

    def __init__(self, size: int) -> None:
        self.simulation = Simulation(_SEED, MessageCodec(MESSAGES))
        self.names = [node_name(number) for number in range(size)]
        self.messages: dict[str, int] = {}
        self.statements = [Signer(name).sign_status(status(name), _WALL) for name in self.names]
        for name in self.names:
            self.add(name, self.statements)

    def add(self, name: str, known: Sequence[Statement]) -> None:
        """Start a node that knows others."""
        self.messages[name] = 0
        self.simulation.add(name, partial(Node, self, name, known))

    def death(self, name: str) -> float:
        """End a node; return the seconds until all others know."""
        self.simulation.crash(name)
        return self.seconds_until(name, "dead")

    def seconds_until(self, name: str, state: str) -> float:
        """Return the seconds until all other nodes see one in a state."""

        def is_known() -> bool:
            others = (each for each in self.simulation.running() if each != name)
            machines = (self.simulation.process(each).machine for each in others)
            return all((p := each.peers.get(name)) and p.state == state for each in machines)

        started = self.simulation.now
        if not self.simulation.run_until(is_known, _WAIT_SECONDS):
            raise TimeoutError(f"not all nodes know that one is {state}")
        return self.simulation.now - started


class Node:
    """A process that runs only the membership protocol."""

    def __init__(
        self, network: Network, name: str, known: Sequence[Statement], _disk: Disk
    ) -> None:
        self._network, self._name = network, name
        simulation = network.simulation
        self.machine = Membership(
            status(name), Signer(name), lambda _node: True, Random(simulation.random.random()),
            now=simulation.now, wall=lambda: _WALL + simulation.now,
        )  # fmt: skip
        own = dict(self.machine._rumors)  # noqa: SLF001 - see below
        for statement in known:
            if statement.body["node"] != name:
                self.machine.add(statement)
                # What all know since long spreads no more.
                self.machine._rumors.clear()  # noqa: SLF001
        self.machine._rumors.update(own)  # noqa: SLF001

    def tick(self, now: float) -> Iterable[Effect]:
        return self._sent(self.machine.tick(now))

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        return self._sent(self.machine.receive(peer, message, now))

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        raise Unsupported(message.kind)

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        raise AssertionError("membership sends no requests")

    def _sent(self, effects: Iterable[Effect]) -> Iterable[Effect]:
        for effect in effects:
            if isinstance(effect, Send):
                self._network.messages[self._name] += 1
                yield effect


class Signer:
    """Statements without cryptography."""

    def __init__(self, node: str) -> None:
        self._signature = f"{'by':24}{node}"

    def sign_status(self, status: NodeStatus, now: float) -> Statement:
        return Statement("status", status.to_json(), now, 0.0, self._signature)

    def sign_suspicion(self, suspicion: Suspicion, now: float) -> Statement:
        return Statement("suspicion", suspicion.to_json(), now, 0.0, self._signature)

    def read(self, statement: Statement, now: float) -> NodeStatus | Suspicion:
        return parse(statement)


def node_name(number: int) -> str:
    """Return the id of a node."""
    return sha256(str(number).encode()).hexdigest()


def status(name: str) -> NodeStatus:
    """Return the first status of a node."""
    return NodeStatus(name, 1, addresses=("10.0.0.1:8601",))


def plots(found: Sequence[Measured]) -> list[Plot]:
    """Return the plots: seconds, and bytes, by the number of nodes."""
    sizes = [each.size for each in found]
    return [
        Plot(
            "Seconds until all nodes know", "nodes", sizes,
            [Line("a join", [e.join for e in found]), Line("a death", [e.death for e in found])],
        ),
        Plot(
            "Bytes that a node sends in a second", "nodes", sizes,
            [Line("steady state", [each.bytes for each in found])],
        ),
    ]  # fmt: skip
