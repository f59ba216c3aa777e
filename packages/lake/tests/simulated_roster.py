"""Who is in a simulated network: admissions and revocations, as each node knows them, and what follows.

All nodes know an admission at once. A revocation is known to the node that makes it, and spreads.

- A node that knows a revocation accepts nothing more of the revoked node: no status, no suspicion, no entry
  of its log, whoever forwards it, and no answer.
- It sends it nothing but the revocation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from lake.peers.members.roster import Roster, RosterNews
from lake.peers.sharing.publication_log import LogKey
from lake.peers.transport.identity import Identity
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement

from .peers_gossip import WALL
from .simulated_hand_overs import key_of

if TYPE_CHECKING:
    from .simulated_node import SimulatedNode
    from .simulated_world import World

__all__ = ["ADMINS", "Revocations", "SimulatedRoster"]

ADMINS = 2
"""The first nodes: the founder, and one that it lets revoke others."""


class SimulatedRoster(Roster):
    """A roster that verifies each signature once for all nodes of all histories."""

    _verified: ClassVar[dict[str, bool]] = {}

    def _is_signed(self, statement: Statement) -> bool:
        if statement.digest not in self._verified:
            self._verified[statement.digest] = super()._is_signed(statement)
        return self._verified[statement.digest]


@cache
def _certificate_of(number: int) -> bytes:
    return Identity(key_of(number)).certificate


@cache
def _admission_of(number: int) -> Statement:
    founder = key_of(0)
    roster = SimulatedRoster(founder.id)
    certificate, is_admin = _certificate_of(number), number < ADMINS
    roster.admit(founder, certificate, f"node{number}", now=WALL, admin=is_admin)
    return roster.statements[0]


@dataclass(frozen=True, slots=True)
class _Known:
    """What a node had accepted of a revoked node when it learned of the revocation."""

    log_number: int
    accused: frozenset[tuple[str, int]]


class Revocations:
    """The revocations of one network.

    Args:
        world: The network.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._admitted: list[Statement] = []
        self.statements: dict[str, Statement] = {}
        """The revocation of each node that was revoked."""
        self._known: dict[tuple[str, str], _Known] = {}

    def admit(self, number: int) -> None:
        """Admit a node, which all nodes know at once."""
        self._admitted.append(_admission_of(number))
        for node in self._world.running():
            node.roster.merge(self._admitted[-1:])

    def roster_from(self, revocations: Iterable[Statement]) -> SimulatedRoster:
        """Return the roster of a node that knows some revocations."""
        return SimulatedRoster(key_of(0).id, [*self._admitted, *revocations])

    def knows(self, name: str, other: str) -> bool:
        """Return whether a node has stored the revocation of another one."""
        revocation = self.statements.get(other)
        disk = self._world.simulation._nodes[name].disk
        return revocation is not None and revocation in disk["revocations"]

    def note(self, node: SimulatedNode) -> None:
        """Note what a node has accepted of each node whose revocation it knows, at its start or from now on."""
        for other in self.statements:
            key = (node.name, other)
            if not self.knows(*key):
                self._known.pop(key, None)  # its disk is from before
            elif key not in self._known:
                self._known[key] = _accepted(node, other)

    def forget(self, name: str) -> None:
        """Forget what was noted of a node whose disk is replaced."""
        for key in [key for key in self._known if key[0] == name]:
            del self._known[key]

    def is_connected(self, sender: str, receiver: str, message: Message) -> bool:
        """Return whether both nodes keep a connection, as `PeerNetwork` does."""
        is_proof = isinstance(message, RosterNews)  # the last message of a connection
        for one, other in ((sender, receiver), (receiver, sender)):
            is_up = self._world.is_up(one)
            if is_up and not self._world.node(one).accepts(other):
                return is_proof and one == sender
        honest = sender not in self.statements
        is_right = is_proof or not (honest and self.knows(sender, receiver))
        self._world.check(is_right, f"{sender[:8]} sends {message.kind} to a revoked node")
        return True

    def answered(self, name: str, peer: str) -> None:
        """Check that a node may use the answer of another one."""
        is_right = name in self.statements or not self.knows(name, peer)
        self._world.check(is_right, f"{name[:8]} uses an answer of a revoked node")

    def watch(self) -> None:
        """Check that no node has accepted anything of a node whose revocation it knew."""
        for (name, other), known in self._known.items():
            if not self._world.is_up(name) or name in self.statements:
                continue
            node = self._world.node(name)
            found, who = _accepted(node, other), f"{name[:8]} knows a revocation, and"
            self._world.check(other not in node.members.peers, f"{who} a node as a member")
            is_same = found.log_number == known.log_number
            self._world.check(is_same, f"{who} accepts a publication of that node")
            is_same = found.accused <= known.accused
            self._world.check(is_same, f"{who} accepts a suspicion of that node")

    def disagreement(self) -> str:
        """Return which honest node does not know a revocation; "" if all know all."""
        for node in self._world.honest():
            lacking = [other[:8] for other in self.statements if not self.knows(node.name, other)]
            if lacking:
                return f"{node.name[:8]} does not know that {lacking} were revoked"
        return ""


def _accepted(node: SimulatedNode, other: str) -> _Known:
    log = node.logs.logs.get(LogKey(other))
    accused = [
        (name, peer.status.number)
        for name, peer in node.members.peers.items()
        if other in peer.accusers
    ]
    return _Known(0 if log is None else log.number, frozenset(accused))
