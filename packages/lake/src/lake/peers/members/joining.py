"""How a node becomes a member: the conversation with the node that admits it.

    new node ── Join(request, invite) ──▶ host        over TLS without a client certificate
             ◀── Welcome(roster, statuses) ──

With an invite the host admits the node at once. Without one the request waits until an admin accepts the
node's fingerprint at the host, and the new node asks again until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from lake.catalog.node_key import NodeKey
from lake.peers.members.invites import Invite, JoinRequest
from lake.peers.members.roster import Member, Roster
from lake.peers.transport.identity import fingerprint
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement
from sennit_core.errors import Denied, NotFound, WaitingToJoin

__all__ = ["MESSAGES", "Host", "Join", "Waiting", "Welcome", "digits_of"]

WAITING_MAX = 64
WAITING_PER_HOST_MAX = 8
_WAITING_SECONDS = 3600.0
FINGERPRINT_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Join(Message):
    """A node's request to become a member.

    Args:
        request: The statement of a `JoinRequest`.
        invite: That of the invite, if there is one.
    """

    kind: ClassVar[str] = "join"
    request: Statement
    invite: Statement | None = None


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """What a new member needs to know.

    Args:
        network: The network's id.
        roster: Statements of the roster: those about both nodes, and as many others as there is room for.
        statuses: Statuses of nodes that it can connect to.
    """

    kind: ClassVar[str] = "welcome"
    network: str
    roster: tuple[Statement, ...]
    statuses: tuple[Statement, ...]


MESSAGES: tuple[type[Message], ...] = (Join, Welcome)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A node that waits to be accepted.

    Args:
        node: Its id.
        name: What it wants to be called.
        since: Unix seconds of its first request.
        certificate: In DER.
        host: Where it asks from, for limits.
        asked_at: Unix seconds of its last request.
    """

    node: str
    name: str
    since: float
    certificate: bytes
    host: str = ""
    asked_at: float = 0.0

    @property
    def fingerprint(self) -> str:
        """What its owner reads out."""
        return fingerprint(self.node)


class Host:
    """Admits nodes to the network.

    Args:
        key: This node's.
        roster: The members.
        redeem: Notes durably that a node redeems an invite; returns whether it may.
        clock: Unix seconds.
    """

    def __init__(
        self,
        key: NodeKey,
        roster: Roster,
        redeem: Callable[[str, str, float], bool],
        clock: Callable[[], float],
    ) -> None:
        self._key = key
        self._roster = roster
        self._redeem = redeem
        self._clock = clock
        self._waiting: dict[str, Waiting] = {}

    @property
    def waiting(self) -> list[Waiting]:
        """The nodes that wait to be accepted, the oldest first."""
        limit = self._clock() - _WAITING_SECONDS
        self._waiting = {
            key: each
            for key, each in self._waiting.items()
            # It may have been admitted since, with an invite or by another node.
            if each.asked_at > limit and not self._roster.is_member(key)
        }
        return sorted(self._waiting.values(), key=lambda each: each.since)

    def admit(self, message: Join, host: str = "") -> Member:
        """Return the new member that a request makes, or made before.

        Args:
            message: The request.
            host: Where it comes from (`lake.peers.transport.addresses.network_of`).

        Raises:
            WaitingToJoin: It has no invite, and is not accepted yet.
            Denied: The request or the invite does not count.
        """
        now = self._clock()
        request = JoinRequest.of(message.request, self._key.id, now)
        known = self._roster.members.get(request.node)
        if known is not None and not known.revoked:
            return known  # its welcome was lost
        if message.invite is None:
            self._note(request, host, now)
            raise WaitingToJoin(
                f"joining before an admin accepts {fingerprint(request.node)}",
                hint="run `platform net accept` with this fingerprint at the node that you asked",
            )
        invite = Invite.of(message.invite, now)
        if invite.node != self._key.id or invite.network != self._roster.network:
            raise Denied("joining with an invite of another node")
        if request.invite != invite.statement.digest:
            raise Denied("joining with an invite that the request does not name")
        # Before the admission: an invite must not count twice, even if this process dies here.
        if not self._redeem(request.invite, request.node, now):
            raise Denied("joining with an invite that was used", needed="a new invite")
        return self._admit(request.certificate, request.name, admin=invite.admin)

    def accept(self, fingerprint_or_id: str) -> Member:
        """Admit a node that waits.

        Args:
            fingerprint_or_id: As its owner reads it out; all of the fingerprint.

        Raises:
            NotFound: No such node waits.
        """
        digits = digits_of(fingerprint_or_id)
        found = [each for each in self.waiting if digits and each.node.startswith(digits)]
        if not found:
            raise NotFound(
                "node that waits to join",
                fingerprint_or_id,
                suggestion=None,
                hint="`platform net nodes` lists them, with whole fingerprints",
            )
        chosen = found[0]
        member = self._admit(chosen.certificate, chosen.name, admin=False)
        with suppress(KeyError):
            del self._waiting[chosen.node]
        return member

    def _admit(self, certificate: bytes, name: str, *, admin: bool) -> Member:
        return self._roster.admit(self._key, certificate, name, now=self._clock(), admin=admin)

    def _note(self, request: JoinRequest, host: str, now: float) -> None:
        """Note that a node waits; the one that has not asked for the longest time makes room.

        Keys cost nothing, so anybody can fill any list. But a node that waits asks again every few
        seconds, and a host displaces others only when it has fewer entries than they have.
        """
        known = self._waiting.pop(request.node, None)
        others = self.waiting
        of_host = [each for each in others if each.host == host]
        counts = Counter(each.host for each in others)
        if len(of_host) >= WAITING_PER_HOST_MAX:
            self._drop_oldest(of_host)
        elif len(others) >= WAITING_MAX:
            most = max(counts.values())
            self._drop_oldest([each for each in others if counts[each.host] == most])
        since = now if known is None else known.since
        self._waiting[request.node] = Waiting(
            request.node, request.name, since, request.certificate, host, now
        )

    def _drop_oldest(self, chosen: Iterable[Waiting]) -> None:
        del self._waiting[min(chosen, key=lambda each: each.asked_at).node]


def digits_of(fingerprint_or_id: str) -> str:
    """Return the digits of a whole fingerprint, or of an id; "" of anything shorter."""
    digits = fingerprint_or_id.replace(":", "").strip().casefold()
    return digits if len(digits) >= FINGERPRINT_DIGITS else ""
