"""Which nodes are alive: probes, suspicion and gossip, as a state machine.

Each period a node probes one other. If that does not answer, some others probe it too; if none gets an
answer, it is suspected. A suspicion spreads with the messages of later probes, two of different nodes
make others suspect it too, and the suspected node, if it lives, refutes it. Without a refutation each node counts it as dead when its own time for that is
over: no node has to believe another one that a third is dead.

    A ── Probe ──▶ B            alive ──▶ suspect ──▶ dead
    A ◀─ Confirm ─ B              ▲         │          │
    A ── ProbeFor(B) ──▶ C        └─────────┴──────────┘  a status with a greater number
                    C ── Probe ──▶ B ── Confirm ──▶ C ── Confirm ──▶ A

The design is SWIM (Das, Gupta, Motivala 2002) with the corrections of Lifeguard (Dadgar, Phillips,
Currey 2018): a suspicion by one node alone lasts longer, and a node that was itself slow or stopped
accuses no other. Unlike there, a death is never announced. Whole views are compared now and then, since
gossip alone may miss a node that was away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import ClassVar, Literal

from lake.peers.members.statuses import NodeStatus, Signer, Suspicion
from lake.peers.transport.machine import Effect, Send
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import CLOCK_SKEW_SECONDS, Statement
from sennit_core.errors import BadInput, Denied, UsageError
from sennit_core.units import KIB

__all__ = ["MESSAGES", "Membership", "MembershipOptions", "Peer", "PeerChanged"]

_STATEMENTS_MAX = 16
"""Of a message; with 1 KiB each they are a few network packets."""
_COMPARED_MAX = 160 * KIB
_PREFIX = 16
_ACCUSERS_MIN = 2
"""Other nodes that must accuse one before it is suspected without a probe of this node's own."""
State = Literal["alive", "suspect", "dead", "leaving", "left"]


@dataclass(frozen=True, slots=True)
class Probe(Message):
    """Asks the receiver whether it lives.

    Args:
        number: Of the probe; the answer repeats it.
        news: Statements that spread.
    """

    kind: ClassVar[str] = "probe"
    number: int
    news: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirm(Message):
    """The answer to a probe."""

    kind: ClassVar[str] = "confirm"
    number: int
    news: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeFor(Message):
    """Asks the receiver to probe another node, and to pass its answer on."""

    kind: ClassVar[str] = "probe-for"
    number: int
    node: str
    news: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Compare(Message):
    """The numbers of all statuses that the sender knows, by the beginnings of the ids.

    The receiver sends what the sender lacks; it compares too, if it lacks something itself.
    """

    kind: ClassVar[str] = "compare"
    known: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class News(Message):
    """Statements, as an answer to a comparison."""

    kind: ClassVar[str] = "news"
    news: tuple[Statement, ...]


MESSAGES: tuple[type[Message], ...] = (Probe, Confirm, ProbeFor, Compare, News)


@dataclass(frozen=True, slots=True)
class MembershipOptions:
    """Times and numbers of the protocol.

    Args:
        period_seconds: Between two probes.
        answer_seconds: After which others are asked to probe.
        helpers: How many are asked.
        suspect_periods: For how many periods, times the logarithm of the number of nodes, several
            nodes must suspect one before it counts as dead.
        alone_factor: How many times longer it is if only one does.
        compare_seconds: Between comparisons of whole views.
        refresh_seconds: After which a node signs its status anew.
        settled_seconds: How long a node must have been alive before it counts for placement; doubled
            with each return within `flapping_seconds`, up to that time.
        flapping_seconds: See above.
    """

    period_seconds: float = 1.0
    answer_seconds: float = 0.5
    helpers: int = 3
    suspect_periods: float = 3.0
    alone_factor: float = 4.0
    compare_seconds: float = 30.0
    refresh_seconds: float = 6 * 3600.0
    settled_seconds: float = 10.0
    flapping_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """An effect: what is known of a node has changed.

    Args:
        node: Its id.
    """

    node: str


@dataclass(slots=True, eq=False)
class Peer:
    """What this node knows of another one."""

    status: NodeStatus
    statement: Statement
    state: State
    since: float
    """When the state began, by this node's clock."""
    alive_since: float
    """When it was first seen, or was last back from the dead; a refuted suspicion changes nothing."""
    # Who has accused it since its newest status.
    accusers: set[str] = field(default_factory=set)
    # Returns from the dead within the last `flapping_seconds`.
    returns: int = 0
    rtt: float | None = None

    @property
    def stays(self) -> bool:
        """Whether it has not announced that it leaves."""
        return self.status.state == "alive"


@dataclass(slots=True, eq=False)
class _Probed:
    """A probe under way."""

    node: str
    sent_at: float
    # The number of the status that the node had then; None if none was known.
    status: int | None
    # The node for which it is made, and its number there; None for this node itself.
    for_other: tuple[str, int] | None = None
    has_asked: bool = False


@dataclass(slots=True, eq=False)
class _Rumor:
    """A statement that spreads; `sent` counts the messages that carried it."""

    statement: Statement
    sent: int = 0


class Membership:
    """The view of one node.

    Args:
        status: The node's own; its number must be greater than before a restart.
        signer: Signs and verifies gossip.
        is_member: Whether a node belongs to the network.
        random: Decides who is probed.
        options: Times and numbers.
        now: Seconds of this node's monotonic clock.
        wall: Unix seconds, for signatures.
    """

    def __init__(  # noqa: PLR0913 - what a machine depends on
        self,
        status: NodeStatus,
        signer: Signer,
        is_member: Callable[[str], bool],
        random: Random,
        options: MembershipOptions | None = None,
        *,
        now: float,
        wall: Callable[[], float],
    ) -> None:
        self.own = status
        self.peers: dict[str, Peer] = {}
        self.options = options or MembershipOptions()
        self._signer = signer
        self._is_member = is_member
        self._random = random
        self._wall = wall
        self._statement = signer.sign_status(status, wall())
        self._signed_at = now
        # Nodes still to be probed in this round; each round has all of them in random order.
        self._round: list[str] = []
        self._probes: dict[int, _Probed] = {}
        self._number = 0
        self._rumors: dict[tuple[str, str], _Rumor] = {}
        self._next_probe = now
        self._next_compare = now
        self._ticked_at = now
        self._changed: list[Effect] = []
        self._spread(self._statement, status.node)

    def add(self, statement: Statement) -> None:
        """Learn of a node from a statement that was stored, or came with an invite."""
        self._learn((statement,), self._ticked_at)

    def statements(self) -> list[Statement]:
        """Return the newest status of every node, this one's first."""
        return [self._statement, *(peer.statement for peer in self.peers.values())]

    def alive(self) -> list[str]:
        """Return the nodes that can be asked for something, in order of their ids."""
        return sorted([n for n, p in self.peers.items() if p.state in ("alive", "leaving")])

    def suspected(self, now: float) -> dict[str, float]:
        """Return in how many seconds each suspected node counts as dead, if it does not answer."""
        return {
            node: max(0.0, peer.since + self._suspect_seconds(peer) - now)
            for node, peer in self.peers.items()
            if peer.state == "suspect"
        }

    def settled(self, now: float) -> list[str]:
        """Return the nodes that count for placement, this one included, in order of their ids.

        A node that has just come back may go again: copies are moved to it only when it has stayed
        for a while, longer for one that comes and goes.
        """
        found = [node for node, peer in self.peers.items() if self._is_settled(peer, now)]
        return sorted([*found, self.own.node] if self.own.state == "alive" else found)

    def update(self, now: float, **changes: object) -> Iterable[Effect]:
        """Change members of this node's status, and announce it."""
        status = replace(self.own, number=self.own.number + 1, **changes)  # type: ignore[arg-type]
        self._announce(status, now)
        return self._pop_changed()

    def leave(self, now: float, state: Literal["leaving", "left"]) -> Iterable[Effect]:
        """Announce that this node leaves, or has left, to some others at once."""
        yield from self.update(now, state=state)
        for node in self._random.sample(self.alive(), min(self.options.helpers, len(self.alive()))):
            yield self._probe(node, now)

    def forget(self, node: str) -> None:
        """Forget a node that was revoked."""
        self.peers.pop(node, None)

    # Time

    def tick(self, now: float) -> Iterator[Effect]:
        """Let time pass."""
        if now - self._ticked_at > 2 * self.options.period_seconds:
            # This process was stopped, or starved: the silence of others may be its own fault.
            self._probes.clear()
            for peer in self.peers.values():
                if peer.state == "suspect":
                    peer.since = now
        self._ticked_at = now
        if now - self._signed_at > self.options.refresh_seconds or self._is_misdated():
            yield from self.update(now)
        yield from self._check_probes(now)
        self._end_suspicions(now)
        if now >= self._next_probe:
            self._next_probe = now + self.options.period_seconds
            yield from self._probe_next(now)
        if now >= self._next_compare:
            self._next_compare = now + self.options.compare_seconds * self._random.uniform(0.8, 1.2)
            yield from self._compare()
        yield from self._pop_changed()

    def _is_misdated(self) -> bool:
        """Return whether others may refuse this node's status, as its clock was wrong at that time."""
        age = self._wall() - self._statement.issued_at
        return not -CLOCK_SKEW_SECONDS <= age <= 2 * self.options.refresh_seconds

    def _probe_next(self, now: float) -> Iterator[Effect]:
        while self._round:
            node = self._round.pop()
            peer = self.peers.get(node)
            if peer is not None and peer.state != "left":
                yield self._probe(node, now)
                return
        self._round = [node for node, peer in self.peers.items() if peer.state != "left"]
        self._random.shuffle(self._round)
        if self._round:
            yield self._probe(self._round.pop(), now)

    def _probe(self, node: str, now: float, for_other: tuple[str, int] | None = None) -> Send:
        self._number += 1
        known = self.peers.get(node)
        status = None if known is None else known.status.number
        self._probes[self._number] = _Probed(node, now, status, for_other)
        return Send(node, Probe(self._number, self._news_for(node)))

    def _check_probes(self, now: float) -> Iterator[Effect]:
        """Ask others to probe nodes that do not answer, then suspect these."""
        for number, probe in list(self._probes.items()):
            age = now - probe.sent_at
            if age > self.options.period_seconds + self.options.answer_seconds:
                del self._probes[number]
                if probe.for_other is None:
                    self._suspect(probe, now)
            elif age > self.options.answer_seconds and not probe.has_asked and not probe.for_other:
                probe.has_asked = True
                others = [node for node in self.alive() if node != probe.node]
                chosen = self._random.sample(others, min(self.options.helpers, len(others)))
                for helper in chosen:
                    message = ProbeFor(number, probe.node, self._news_for(helper))
                    yield Send(helper, message)

    def _suspect(self, probe: _Probed, now: float) -> None:
        peer = self.peers.get(probe.node)
        if peer is None or peer.state not in ("alive", "suspect", "leaving"):
            return
        if peer.status.number != probe.status:  # it has announced itself since then
            return
        suspicion = Suspicion(probe.node, peer.status.number, self.own.node)
        statement = self._signer.sign_suspicion(suspicion, self._wall())
        self._accuse(peer, suspicion, statement, now)

    def _accuse(self, peer: Peer, suspicion: Suspicion, statement: Statement, now: float) -> None:
        if suspicion.by not in peer.accusers:
            peer.accusers.add(suspicion.by)
            self._spread(statement, peer.status.node)
        # One node that accuses all others is to make none of them unusable here.
        is_credible = self.own.node in peer.accusers or len(peer.accusers) >= _ACCUSERS_MIN
        if peer.state in ("alive", "leaving") and is_credible:
            self._set_state(peer, "suspect", now)

    def _end_suspicions(self, now: float) -> None:
        for peer in self.peers.values():
            if peer.state == "suspect" and now - peer.since > self._suspect_seconds(peer):
                self._set_state(peer, "dead", now)

    def _suspect_seconds(self, peer: Peer) -> float:
        """Return how long a suspicion lasts: less, the more nodes confirm it (Lifeguard, 3.2)."""
        options = self.options
        size = len(self.peers) + 1
        least = options.suspect_periods * max(1.0, math.log10(size)) * options.period_seconds
        # Two nodes alone have no third to confirm it.
        needed = min(options.helpers, max(size - 2, 1))
        share = math.log(len(peer.accusers)) / math.log(needed) if needed > 1 else 1.0
        most = least * options.alone_factor
        return max(least, most - (most - least) * min(share, 1.0))

    def _compare(self) -> Iterator[Effect]:
        """Compare with a random node, also one that seems to be dead: it may be back."""
        candidates = [node for node, peer in self.peers.items() if peer.state != "left"]
        if candidates:
            yield Send(self._random.choice(candidates), self._comparison())

    def _comparison(self) -> Compare:
        known = {node[:_PREFIX]: peer.status.number for node, peer in self.peers.items()}
        return Compare({**known, self.own.node[:_PREFIX]: self.own.number})

    # Messages

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        """Handle a message of a member."""
        if not self._is_member(peer):
            return []
        effects = list(self._on(message, peer, now))
        return [*effects, *self._correct(peer), *self._pop_changed()]

    def _correct(self, peer: str) -> Iterator[Effect]:
        """Let a node that counts as dead here know that, so that it announces itself again."""
        known = self.peers.get(peer)
        if known is not None and known.state == "dead":
            suspicion = Suspicion(peer, known.status.number, self.own.node)
            yield Send(peer, News((self._signer.sign_suspicion(suspicion, self._wall()),)))

    def _on(self, message: Message, peer: str, now: float) -> Iterable[Effect]:
        match message:
            case Probe():
                return self._on_probe(message, peer, now)
            case Confirm():
                return self._on_confirm(message, peer, now)
            case ProbeFor():
                return self._on_probe_for(message, peer, now)
            case Compare():
                return self._on_compare(message, peer)
            case News():
                self._learn(message.news, now)
                return []
        raise BadInput("a message of a peer", reason=f"{message.kind} is no gossip")

    def _on_probe(self, message: Probe, peer: str, now: float) -> Iterable[Effect]:
        self._learn(message.news, now)
        return [Send(peer, Confirm(message.number, self._news_for(peer)))]

    def _on_confirm(self, message: Confirm, peer: str, now: float) -> Iterable[Effect]:
        self._learn(message.news, now)
        probe = self._probes.get(message.number)
        if probe is None:
            return []
        if probe.node != peer:
            # A helper passes on the answer to a probe of this node.
            if probe.has_asked:
                del self._probes[message.number]
            return []
        del self._probes[message.number]
        known = self.peers.get(peer)
        if known is not None:
            sample = now - probe.sent_at
            known.rtt = sample if known.rtt is None else 0.8 * known.rtt + 0.2 * sample
        if probe.for_other is None:
            return []
        other, number = probe.for_other
        return [Send(other, Confirm(number, self._news_for(other)))]

    def _on_probe_for(self, message: ProbeFor, peer: str, now: float) -> Iterable[Effect]:
        self._learn(message.news, now)
        if message.node not in self.peers:
            return []
        return [self._probe(message.node, now, (peer, message.number))]

    def _on_compare(self, message: Compare, peer: str) -> Iterable[Effect]:
        known = message.known
        newer, size = [], 0
        for statement in self.statements():
            status = self.own if statement is self._statement else self._status_of(statement)
            number = known.get(status.node[:_PREFIX])
            size += len(repr(statement.body)) + _PREFIX
            if size < _COMPARED_MAX and not (isinstance(number, int) and number >= status.number):
                newer.append(statement)
        effects: list[Effect] = [Send(peer, News(tuple(newer)))] if newer else []
        own = self._comparison().known
        if any(isinstance(n, int) and n > int(str(own.get(p, -1))) for p, n in known.items()):
            effects.append(Send(peer, self._comparison()))
        return effects

    def _status_of(self, statement: Statement) -> NodeStatus:
        return self.peers[str(statement.body["node"])].status

    # Knowledge

    def _learn(self, news: Iterable[Statement], now: float) -> None:
        for statement in news:
            try:
                self._learn_one(statement, now)
            except (Denied, UsageError):
                # Of a node whose admission this one does not know yet, or forged: it comes again.
                continue

    def _learn_one(self, statement: Statement, now: float) -> None:
        # Before the signature, which costs a hundred times as much: most news are known.
        subject, number = statement.body.get("node"), statement.body.get("number")
        if not isinstance(subject, str) or not isinstance(number, int):
            raise UsageError("gossip without a node and a number")
        known = self.peers.get(subject)
        own_number = self.own.number if subject == self.own.node else None
        newest = known.status.number if known is not None else own_number
        is_status = "by" not in statement.body
        if newest is not None and (number < newest or (number == newest and is_status)):
            return
        found = self._signer.read(statement, self._wall())
        if isinstance(found, Suspicion):
            self._learn_suspicion(found, statement, now)
        else:
            self._learn_status(found, statement, now)

    def _learn_status(self, status: NodeStatus, statement: Statement, now: float) -> None:
        if status.node == self.own.node:
            # From before a restart whose counter was lost: go on beyond it.
            self._announce(replace(self.own, number=status.number + 1), now)
            return
        if not self._is_member(status.node):
            raise Denied(f"gossip of node {status.node[:16]}, which is no member")
        state: State = status.state
        known = self.peers.get(status.node)
        if known is None:
            known = self.peers[status.node] = Peer(status, statement, state, now, now)
            self._changed.append(PeerChanged(status.node))
        else:
            known.status, known.statement = status, statement
            known.accusers.clear()
            if known.state == "dead" and state == "alive":
                recent = now - known.since < self.options.flapping_seconds
                known.returns = known.returns + 1 if recent else 1
                known.alive_since = now
            self._set_state(known, state, now)
        self._spread(statement, status.node)

    def _learn_suspicion(self, suspicion: Suspicion, statement: Statement, now: float) -> None:
        if not self._is_member(suspicion.by):
            raise Denied(f"a suspicion by node {suspicion.by[:16]}, which is no member")
        known = self.peers.get(suspicion.node)
        status = known.status if known is not None else None
        newest = self.own if suspicion.node == self.own.node else status
        if newest is None or suspicion.number > newest.number:
            # Nobody can know a status before its node: a refutation of it would reach any number.
            raise UsageError("a suspicion of a status that is not known here")
        if suspicion.node == self.own.node:
            # Refuted by a greater number; the same answers all suspicions of the old one.
            if self.own.state != "left":
                self._announce(replace(self.own, number=suspicion.number + 1), now)
            return
        if known is not None and known.state in ("alive", "suspect", "leaving"):
            self._accuse(known, suspicion, statement, now)

    def _announce(self, status: NodeStatus, now: float) -> None:
        self.own = status
        self._statement = self._signer.sign_status(status, self._wall())
        self._signed_at = now
        self._changed.append(PeerChanged(status.node))
        self._spread(self._statement, status.node)

    def _set_state(self, peer: Peer, state: State, now: float) -> None:
        if peer.state != state:
            peer.state, peer.since = state, now
        self._changed.append(PeerChanged(peer.status.node))

    def _is_settled(self, peer: Peer, now: float) -> bool:
        if not peer.stays:  # it goes, even if it was suspected meanwhile
            return False
        # A suspected node was alive just before, and will be again or is dead soon.
        wait = self.options.settled_seconds * 2.0 ** min(peer.returns, 16)
        return peer.state in ("alive", "suspect") and now - peer.alive_since >= min(
            wait, self.options.flapping_seconds
        )

    def _pop_changed(self) -> list[Effect]:
        changed, self._changed = self._changed, []
        return list(dict.fromkeys(changed))

    # Gossip

    def _spread(self, statement: Statement, subject: str) -> None:
        # One rumor of each kind about a node: a status replaces the older one, and ends suspicions.
        key = (subject, str(statement.body.get("by", "")))
        if not key[1]:
            for old in [each for each in self._rumors if each[0] == subject]:
                del self._rumors[old]
        self._rumors[key] = _Rumor(statement)

    def _news_for(self, peer: str) -> tuple[Statement, ...]:
        """Return what spreads, the least spread first; what was sent often enough is dropped."""
        limit = 3 * math.ceil(math.log2(len(self.peers) + 2))
        first = sorted(self._rumors.items(), key=lambda item: item[1].sent)[:_STATEMENTS_MAX]
        # A suspected node has to hear of it, to refute it.
        first += [(k, r) for k, r in self._rumors.items() if k[0] == peer and (k, r) not in first]
        for key, rumor in first:
            rumor.sent += 1
            if rumor.sent >= limit:
                self._rumors.pop(key, None)
        return tuple(rumor.statement for _, rumor in first)
