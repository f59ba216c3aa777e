"""Repairs of copies before their time, asked for by this node or another one.

All nodes are asked to look at their copies at once, and to count the nodes that they see dead as lost
without waiting. A node decides by its own view who is dead; a request can only end its patience, for a while:
a node that has failed just before the request is only suspected, by some perhaps not even that.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lake.peers.copies.copies import Copies
from lake.peers.members.membership import Membership
from lake.peers.members.roster import Roster
from lake.peers.transport.limits import RateLimit
from lake.peers.transport.machine import Call, Failed, Replied
from lake.peers.transport.messages import Message
from lake.peers.transport.session import Piece, Session
from sennit_core.errors import Busy

__all__ = ["MESSAGES", "RepairReply", "RepairRequest", "Repairs", "Suspected"]

_ANSWER_SECONDS = 10.0
_REQUESTS_PER_SECOND = 0.5
_REQUESTS_BURST = 8
_IMPATIENT_SECONDS = 60.0
"""For so long after a request a node that becomes dead is lost at once; longer than any suspicion lasts."""


@dataclass(frozen=True, slots=True)
class Suspected:
    """A node that does not answer.

    Args:
        node: Its name.
        seconds: In how many seconds it counts as dead, unless it answers.
    """

    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RepairRequest(Message):
    """Asks the receiver to look at its copies now, and to count nodes as lost once they are dead."""

    kind: ClassVar[str] = "repair"


@dataclass(frozen=True, slots=True)
class RepairReply(Message):
    """The receiver does."""

    kind: ClassVar[str] = "repair-reply"


MESSAGES: tuple[type[Message], ...] = (RepairRequest, RepairReply)


class RepairHost(Protocol):
    """What repairs need of the network."""

    members: Membership
    roster: Roster

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    async def call(self, call: Call) -> Replied | Failed:
        """Send a request and return how it ended."""
        ...


class Repairs:
    """The repairs of one node's copies, at its own request and that of others.

    Args:
        host: The network.
        copies: The copies of this node.
    """

    def __init__(self, host: RepairHost, copies: Copies) -> None:
        self._host = host
        self._copies = copies
        # The dead nodes that count as lost before their time.
        self._lost_early: set[str] = set()
        # Those that become dead until then count as lost at once.
        self._impatient_until = -math.inf
        # Of all nodes together, as each request costs this node a look at all of its copies.
        self._rate = RateLimit(_REQUESTS_PER_SECOND, _REQUESTS_BURST, host.now)

    def awaited(self, now: float) -> list[str]:
        """Return the dead nodes that may come back: they still count for placement."""
        peers = self._host.members.peers
        # One that has announced that it goes does not come back.
        dead = {
            node: peer.since for node, peer in peers.items() if peer.state == "dead" and peer.stays
        }
        self._lost_early &= dead.keys()  # the others are back
        self._lost_early |= {n for n, at in dead.items() if at <= self._impatient_until}
        limit = self._copies.loss_seconds
        return [n for n, at in dead.items() if n not in self._lost_early and now - at < limit]

    async def repair_everywhere(self) -> None:
        """Repair copies now, here and at all nodes that answer."""
        self._look_now()
        calls = (
            Call(node, 0, RepairRequest(), _ANSWER_SECONDS) for node in self._host.members.alive()
        )
        # Those of an older version refuse, and repair when their time comes.
        await asyncio.gather(*(self._host.call(call) for call in calls))

    async def serve(self, _session: Session, _message: RepairRequest, _body: bytes) -> Piece:
        """Repair the copies of this node now, for another one."""
        if not self._rate.take():
            raise Busy("the node", hint="it was asked to repair its copies just before")
        self._look_now()
        return RepairReply(), b""

    def _look_now(self) -> None:
        # The dead ones too: they died before.
        self._impatient_until = self._host.now() + _IMPATIENT_SECONDS
        self.ask_for_copies()

    def suspected(self) -> list[Suspected]:
        """Return the nodes that do not answer and are not counted as dead yet."""
        found = self._host.members.suspected(self._host.now())
        return [Suspected(self._host.roster.name_of(node), left) for node, left in found.items()]

    def ask_for_copies(self) -> None:
        """Ask again where copies are that no node has confirmed, and plan with the answers."""
        self._copies.replication.ask_again(self._host.now())

    def missing_chunks(self) -> int:
        """Return how many chunks are still to come of the objects that this node fetches."""
        return self._copies.transfers.missing_chunks
