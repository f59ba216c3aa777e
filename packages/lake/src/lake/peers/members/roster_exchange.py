"""How admissions and revocations spread between nodes: a state machine.

A change is sent to all nodes that can be reached. What a node missed comes from comparisons: every few
seconds a node sends the digest of its roster to one other, which sends its whole roster if its own digest
differs. A node that seems dead is compared with too, as it may have been away when another was revoked.

    A ── RosterHead(digest) ──▶ B        B has another digest
    A ◀── RosterNews, all ───── B        A merges it, stores it, and sends what was new to the others
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from lake.peers.members.roster import Roster, RosterHead, RosterNews, parts_of
from lake.peers.transport.machine import Effect, Send
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement

__all__ = ["RosterChanged", "RosterExchange"]

_COMPARE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """An effect: the roster is to be durable, and to apply, before anything else is performed.

    Args:
        statements: Those that are new.
    """

    statements: tuple[Statement, ...]


class RosterExchange:
    """Exchanges the roster of one node with the other members.

    Args:
        roster: The roster.
        random: Decides with which node it is compared.
    """

    def __init__(self, roster: Roster, random: Random) -> None:
        self._roster = roster
        self._random = random
        self._next_compare = 0.0
        # When the whole roster was sent to each node, which limits what digests cost this one.
        self._sent_at: dict[str, float] = {}

    def greet(self, node: str) -> Send:
        """Return the first message to a node that was just connected."""
        return Send(node, RosterHead(self._roster.digest))

    def changed(self, new: Sequence[Statement], nodes: Iterable[str]) -> Iterator[Effect]:
        """Apply new statements of the roster, and send them to other nodes."""
        if new:
            yield RosterChanged(tuple(new))
            for node in nodes:
                yield from _sent(new, node)

    def tick(self, now: float, known: Collection[str]) -> Iterator[Effect]:
        """Let time pass.

        Args:
            now: Seconds that never run backwards.
            known: The other members that were heard of, reachable or not.
        """
        if now >= self._next_compare and known:
            self._next_compare = now + _COMPARE_SECONDS
            yield self.greet(self._random.choice(sorted(known)))

    def receive(
        self, peer: str, message: Message, now: float, alive: Sequence[str]
    ) -> Iterator[Effect]:
        """Handle a message of a member; one of a node that was revoked has no effect.

        Args:
            peer: The sender.
            message: The message.
            now: Seconds that never run backwards.
            alive: The nodes that can be reached.
        """
        if not self._roster.is_member(peer):
            return
        match message:
            case RosterNews(statements):
                new = self._roster.merge(statements)
                yield from self.changed(new, [node for node in alive if node != peer])
            case RosterHead(digest):
                last = self._sent_at.get(peer, -_COMPARE_SECONDS)
                if digest != self._roster.digest and now - last >= _COMPARE_SECONDS / 2:
                    self._sent_at[peer] = now
                    yield from _sent(self._roster.statements, peer)


def _sent(statements: Sequence[Statement], node: str) -> Iterator[Send]:
    return (Send(node, RosterNews(part)) for part in parts_of(statements))
