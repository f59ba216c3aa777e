"""Reports of members of a network, from which one of them draws its map and finds its faults.

A report has the clock of a node and its links. On request the node also connects, once, to each address
that the asking node announces: only another node can find out whether it is reached there. It dials the
addresses that it would dial anyway, so a request cannot make it connect to anything else.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lake.peers.members.membership import Membership
from lake.peers.members.roster import Roster
from lake.peers.transport.machine import Call, Failed, Replied
from lake.peers.transport.messages import Message
from lake.peers.transport.network import PeerNetwork
from lake.peers.transport.session import Piece, Session
from sennit_core.errors import Busy, DeadlineExceeded, SennitError
from sennit_core.records import Record

__all__ = ["MESSAGES", "Answer", "Dialed", "Link", "ReportReply", "ReportRequest", "Reports"]

_LINKS_MAX = 1000
"""Of a report, so that it fits a message: each has two ids of 64 digits."""
_ASKED_AT_ONCE = 32
_ANSWER_SECONDS = 10.0
_DIAL_SECONDS = 5.0
_DIALS_MAX = 8
_DIALED_BY = 3
"""So many nodes are asked to connect to this one; more would only repeat what they say."""


@dataclass(frozen=True, slots=True)
class Link(Record):
    """A connection of the reporting node.

    Args:
        node: The other end.
        rtt_seconds: Of a round trip; None if it was not measured.
        relay: The node that forwards it; "" if it is direct.
    """

    node: str
    rtt_seconds: float | None = None
    relay: str = ""


@dataclass(frozen=True, slots=True)
class Dialed(Record):
    """What came of connecting to an address.

    Args:
        address: The address.
        problem: Why it failed; "" if it did not.
    """

    address: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ReportRequest(Message):
    """Asks a member what it sees.

    Args:
        dial: Whether it is to connect to the addresses of the asking node.
    """

    kind: ClassVar[str] = "report"
    dial: bool = False


@dataclass(frozen=True, slots=True)
class ReportReply(Message):
    """What a member sees.

    Args:
        time: Its clock, Unix seconds.
        links: Its connections.
        dialed: What came of connecting to the asking node.
    """

    kind: ClassVar[str] = "report-reply"
    time: float
    links: tuple[Link, ...] = ()
    dialed: tuple[Dialed, ...] = ()


MESSAGES: tuple[type[Message], ...] = (ReportRequest, ReportReply)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a member.

    Args:
        report: Its report; None if it did not answer with one.
        skew_seconds: How far its clock is ahead of this node's.
        code: Of the error, if there is no report.
        problem: The error, in one sentence.
    """

    report: ReportReply | None
    skew_seconds: float = 0.0
    code: str = ""
    problem: str = ""


class ReportHost(Protocol):
    """What reports need of the network."""

    roster: Roster
    members: Membership
    sessions: PeerNetwork

    def wall(self) -> float:
        """Return Unix seconds."""
        ...

    async def call(self, call: Call) -> Replied | Failed:
        """Send a request and return how it ended."""
        ...


class Reports:
    """Makes reports for other members, and asks them for theirs.

    Args:
        host: The network.
    """

    def __init__(self, host: ReportHost) -> None:
        self._host = host
        # The nodes that are being dialed for their requests: each one once at a time.
        self._dialing: set[str] = set()

    def own(self) -> tuple[Link, ...]:
        """Return the links of this node."""
        found: list[Link] = []
        for node, peer in self._host.members.peers.items():
            session = self._host.sessions.open_session(node)
            if session is not None and len(found) < _LINKS_MAX:
                found.append(Link(node, peer.rtt, session.channel.relay))
        return tuple(found)

    async def serve(self, session: Session, message: ReportRequest, _body: bytes) -> Piece:
        """Answer with a report."""
        dialed = await self._dial_back(session.peer) if message.dial else ()
        return ReportReply(self._host.wall(), self.own(), dialed), b""

    async def _dial_back(self, node: str) -> tuple[Dialed, ...]:
        """Connect to a node's addresses, all at the same time.

        Raises:
            Busy: It is being dialed for an earlier request, or too many others are.
        """
        if node in self._dialing or len(self._dialing) >= _DIALS_MAX:
            raise Busy("the node", hint="it still connects to nodes that asked for it before")
        self._dialing.add(node)
        try:
            peer = self._host.members.peers.get(node)
            addresses = () if peer is None else peer.status.addresses
            return tuple(await asyncio.gather(*(self._dial(node, each) for each in addresses)))
        finally:
            self._dialing.discard(node)

    async def _dial(self, node: str, address: str) -> Dialed:
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                await self._host.sessions.try_address(node, address)
        except TimeoutError:
            error = DeadlineExceeded(f"connecting to {address}", _DIAL_SECONDS)
            return Dialed(address, str(error))
        except SennitError as error:
            return Dialed(address, error.hint or str(error))
        return Dialed(address)

    async def ask_all(self, nodes: Collection[str], *, dial: bool) -> Mapping[str, Answer]:
        """Ask members what they see.

        Args:
            nodes: Their ids.
            dial: Whether some of them are to connect to this node.
        """
        slots = asyncio.Semaphore(_ASKED_AT_ONCE)
        alive = [node for node in self._host.members.alive() if node in nodes]
        dialing = random.sample(alive, min(_DIALED_BY, len(alive))) if dial else []

        async def ask(node: str) -> Answer:
            async with slots:
                return await self._ask(node, dial=node in dialing)

        ordered = list(nodes)
        answers = await asyncio.gather(*(ask(node) for node in ordered))
        return dict(zip(ordered, answers, strict=True))

    async def _ask(self, node: str, *, dial: bool) -> Answer:
        sent_at = self._host.wall()
        result = await self._host.call(Call(node, 0, ReportRequest(dial), _ANSWER_SECONDS))
        if isinstance(result, Failed):
            return Answer(None, code=result.code, problem=result.reason)
        if not isinstance(result.message, ReportReply):
            return Answer(None, code="unsupported", problem="its answer is no report")
        # The answer was made about half a round trip ago.
        skew = result.message.time - (sent_at + self._host.wall()) / 2
        return Answer(self._checked(node, result.message), skew)

    def _checked(self, node: str, report: ReportReply) -> ReportReply:
        """Return a report without what cannot be: links with nodes that are no members."""
        is_member = self._host.roster.is_member
        links: dict[str, Link] = {}
        for link in report.links[:_LINKS_MAX]:
            rtt = link.rtt_seconds
            has_relay = not link.relay or is_member(link.relay)
            if is_member(link.node) and link.node != node and has_relay:
                is_time = rtt is None or (math.isfinite(rtt) and rtt >= 0)
                links[link.node] = link if is_time else Link(link.node, None, link.relay)
        return ReportReply(report.time, tuple(links.values()), report.dialed)
