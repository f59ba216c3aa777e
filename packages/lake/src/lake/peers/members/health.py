"""What is wrong with a network, as one node sees it, and what to do about it: pure functions.

`lake.peers.members.survey` collects what they examine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lake.peers.copies.copy_states import CopyState
from lake.peers.members.reports import Answer
from lake.peers.members.roster import Member
from lake.peers.members.statuses import NodeStatus
from sennit_core.records import Record
from sennit_core.units import format_bytes, format_duration

__all__ = [
    "Connection",
    "Contested",
    "Finding",
    "NodeState",
    "SharedCopies",
    "Surveyed",
    "examine",
    "examine_copies",
]

_SKEW_SECONDS = 60.0
"""Statements from five minutes ahead are refused, so there is time to correct a clock."""
_FULL = 0.95
_NAMED_MAX = 8


@dataclass(frozen=True, slots=True)
class Connection:
    """An open session with a node.

    Args:
        relay: The id of the node that forwards it; "" if it is direct.
        sent_bytes: What was sent to the node since this one is in the network.
        received_bytes: What came from it.
    """

    relay: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node of the network, as this one sees it.

    Args:
        member: Who it is.
        state: `alive`, `suspect`, `dead`, `leaving`, `left`, or `unknown` before it was heard of.
        status: What it said last; None if nothing.
        rtt_seconds: Of a round trip; None if it was not measured.
        cannot: What this node and that one cannot do together.
        connection: How this node is connected to it; None if it is not, as to itself.
        heard_at: Unix seconds at which it was known to live: it sent something, or signed the status
            that this node has. 0 if it was never heard of, and for this node itself.
    """

    member: Member
    state: str
    status: NodeStatus | None
    rtt_seconds: float | None = None
    cannot: tuple[str, ...] = ()
    connection: Connection | None = None
    heard_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """The result of one check.

    Args:
        subject: What was examined.
        ok: Whether nothing is to be done.
        found: What was found.
        remedy: What to do.
    """

    subject: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SharedCopies:
    """A shared dataset.

    Args:
        name: Its name at this node.
        writer: The id of the node that writes it.
        state: Of its copies.
    """

    name: str
    writer: str
    state: CopyState


@dataclass(frozen=True, slots=True)
class Contested:
    """A dataset that two nodes publish as theirs.

    Args:
        name: Its name at this node.
        writer: The id of the node whose dataset this node lists.
        publisher: The id of the other one.
    """

    name: str
    writer: str
    publisher: str


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is examined.

    Args:
        nodes: All members, this node first.
        is_revoked: Whether this node was removed from the network.
        answers: What came of asking each other node that has not left, by its id.
        datasets: The shared datasets.
        loss_seconds: After which the copies of a dead node are made elsewhere.
        no_room: Why this node cannot store more on its disk; None if it can.
        quarantined: How many damaged objects of this node are in quarantine.
        damaged: The names of its damaged datasets.
        wrong: The nodes that have sent wrong data since this one was started, by id.
        not_stored: Why this node cannot store what others publish; empty if it can.
        contested: The datasets that several nodes publish as theirs.
        forked: The nodes that have published two different entries of one number, by id.
        orphaned: The names of datasets here whose writers were removed from the network, each with the name
            of its writer.
    """

    nodes: Sequence[NodeState]
    is_revoked: bool
    answers: Mapping[str, Answer]
    datasets: Sequence[SharedCopies]
    loss_seconds: float
    no_room: str | None
    quarantined: int
    damaged: Sequence[str]
    wrong: Sequence[str]
    not_stored: str = ""
    contested: Sequence[Contested] = ()
    forked: Collection[str] = ()
    orphaned: Sequence[tuple[str, str]] = ()

    @property
    def own(self) -> NodeState:
        """This node."""
        return self.nodes[0]

    @property
    def others(self) -> Sequence[NodeState]:
        """The other nodes that have not left."""
        return [node for node in self.nodes[1:] if node.state != "left"]

    def name_of(self, node: str) -> str:
        """Return the name of a node."""
        known = {each.member.id: each.member.name for each in self.nodes}
        return known.get(node, node[:16])


def examine(found: Surveyed) -> list[Finding]:
    """Run all checks: the connections first, as without them nothing else is known."""
    if found.is_revoked:
        return [
            Finding(
                "membership", False, "another node has removed this one from the network",
                "`platform net leave` forgets it; to come back, use another data folder and an invite",
            )
        ]  # fmt: skip
    checks: tuple[Callable[[Surveyed], Iterator[Finding]], ...] = (
        _reachable, _members, _clocks, _versions, _datasets, _publications, _room, _damage,
    )  # fmt: skip
    return [finding for check in checks for finding in check(found)]


def _reachable(found: Surveyed) -> Iterator[Finding]:
    """Whether others can connect to this node: one address that works is enough."""
    subject = "this node's addresses"
    status = found.own.status
    if status is None or not status.addresses:
        yield Finding(subject, True, "none: this node connects to the others by itself")
        return
    dialed = [
        each
        for answer in found.answers.values()
        if answer.report is not None
        for each in answer.report.dialed
    ]
    reached = sorted({each.address for each in dialed if not each.problem})
    if reached:
        yield Finding(subject, True, f"others reach it at {', '.join(reached)}")
    elif dialed:
        problems = {each.address: each.problem for each in dialed}
        found_text = "; ".join(f"{address}: {problem}" for address, problem in problems.items())
        yield Finding(
            subject, False, f"no node that was asked reaches it: {found_text}",
            "let connections to its port in, set network.peer_host and network.peer_addresses, or "
            "network.peer_listen = false if it only connects to others",
        )  # fmt: skip
    elif not found.others:
        yield Finding(subject, True, "there is no other node yet that could try them")
    else:
        yield Finding(
            subject, False, "no node answered that could try them", "see the findings on the nodes"
        )


def _members(found: Surveyed) -> Iterator[Finding]:
    for node in found.others:
        answer = found.answers.get(node.member.id)
        subject = f"node {node.member.name}"
        if node.state == "dead":
            yield Finding(subject, False, "dead: no node reaches it", _of_a_dead_node(found, node))
        elif node.state == "unknown":
            yield Finding(
                subject, False, "nothing was heard of it since it was admitted",
                "start it; compare the clocks of both nodes, and their firewalls",
            )  # fmt: skip
        elif answer is not None and answer.report is not None:
            trip = node.rtt_seconds
            text = node.state if trip is None else f"{node.state}, {format_duration(trip)}"
            yield Finding(subject, True, text)
        elif answer is not None and answer.code == "unsupported":
            yield Finding(subject, True, f"{node.state}; its version makes no reports")
        else:
            problem = "it was not asked" if answer is None else answer.problem
            yield Finding(
                subject, False, f"{node.state}, but it did not answer: {problem}",
                "run `platform net check` there; see `platform logs --which peers` on both",
            )  # fmt: skip


def _of_a_dead_node(found: Surveyed, node: NodeState) -> str:
    name = node.member.name
    wait = format_duration(found.loss_seconds)
    return (
        f"start it, or look at its connection. Its copies are made elsewhere {wait} after it died; "
        f"`platform net heal` does it now. If it is gone for ever: platform net revoke {name}"
    )


def _clocks(found: Surveyed) -> Iterator[Finding]:
    skews = {
        node: answer.skew_seconds
        for node, answer in found.answers.items()
        if answer.report is not None
    }
    wrong = {node: skew for node, skew in skews.items() if abs(skew) > _SKEW_SECONDS}
    for node, skew in wrong.items():
        way = "ahead of" if skew > 0 else "behind"
        yield Finding(
            "clocks", False, f"{found.name_of(node)} is {format_duration(abs(skew))} {way} this node",
            "set the wrong one: `timedatectl set-ntp true`. Beyond five minutes nodes do not see "
            "each other",
        )  # fmt: skip
    if skews and not wrong:
        # A second can be that of an answer that waited; it says nothing about the clock.
        most = max(max(map(abs, skews.values())), 1.0)
        yield Finding("clocks", True, f"differ by at most {format_duration(most)}")


def _versions(found: Surveyed) -> Iterator[Finding]:
    other = False
    for node in found.others:
        if node.cannot:
            other = True
            status = node.status
            version = "" if status is None else f" (version {status.version})"
            yield Finding(
                "versions", False,
                f"not possible with {node.member.name}{version}: {', '.join(node.cannot)}",
                "update the older of the two nodes",
            )  # fmt: skip
    if found.others and not other:
        yield Finding("versions", True, "all nodes can do the same")


def _datasets(found: Surveyed) -> Iterator[Finding]:
    yield from examine_copies(found.datasets, found.name_of, {name for name, _ in found.orphaned})
    for each in found.contested:
        publisher, writer = found.name_of(each.publisher), found.name_of(each.writer)
        yield Finding(
            f"dataset {each.name}", False,
            f"{publisher} publishes it too, and this node lists that of {writer}, which came first",
            f"ask both owners who has made it: one of the two shows another one's dataset as its own. If "
            f"{writer} does, `platform net revoke {writer}` removes it, and that of {publisher} is listed",
        )  # fmt: skip
    for name, writer in found.orphaned:
        # No problem: the revocation was meant.
        yield Finding(
            f"dataset {name}", True,
            f"its writer {writer} was removed from the network: it gets no new versions, and what this node "
            f"has of it stays; `platform fork {name} NEW` makes a dataset of this node with its rows, and "
            f"`platform datasets {name} --delete` removes it here",
        )  # fmt: skip


def examine_copies(
    datasets: Iterable[SharedCopies],
    name_of: Callable[[str], str],
    orphaned: Collection[str] = (),
) -> Iterator[Finding]:
    """Examine the copies of shared datasets.

    Args:
        datasets: The datasets.
        name_of: Returns the name of a node.
        orphaned: Names of those whose writers were removed, so that no more nodes get them.
    """
    for each in datasets:
        subject, state = f"dataset {each.name}", each.state
        lacking = _listed(
            f"{name_of(node)} lacks {count:,}" for node, count in state.lacking.items()
        )
        shards = f"of {state.objects:,} {'shard' if state.objects == 1 else 'shards'}"
        if state.unavailable:
            yield Finding(
                subject, False, f"no node that answers has {state.unavailable:,} {shards}",
                f"start the nodes that hold them: {name_of(each.writer)} writes it",
            )  # fmt: skip
        elif state.under_replicated and state.places < state.copies:
            yield Finding(
                subject, False,
                f"too few copies of {state.under_replicated:,} {shards}; nodes that may hold it and "
                f"offer room: {state.places}, wanted: {state.copies}",
                f"only its writer, which was removed, could share it with more nodes: `platform fork {each.name} "
                "NEW` makes a dataset that this node shares"
                if each.name in orphaned
                else "share it with more nodes, raise storage.copy_bytes there, or ask for fewer --copies",
            )  # fmt: skip
        elif state.under_replicated or state.missing_here or state.lacking:
            few = f"too few copies of {state.under_replicated:,} {shards}"
            yield Finding(
                subject, False, f"{few}; {lacking}" if lacking else few,
                f"they are made in the background; `platform net heal {each.name}` makes them now",
            )  # fmt: skip
        else:
            wanted = "1 copy" if state.copies == 1 else f"{state.copies} copies"
            of = "its shard" if state.objects == 1 else f"each of its {state.objects:,} shards"
            yield Finding(subject, True, f"{wanted} of {of}")


def _publications(found: Surveyed) -> Iterator[Finding]:
    for node in sorted(found.forked):
        yield Finding(
            f"publications of {found.name_of(node)}", False,
            "it has published two different entries of one number: it was restored from a backup, or its "
            "key is used on two machines. The versions of its datasets that were read before stay",
            "compare its datasets with those of a node that has its later versions; a fork of one there "
            "keeps them. If its key was copied, revoke it",
        )  # fmt: skip


def _room(found: Surveyed) -> Iterator[Finding]:
    if found.not_stored:
        yield Finding(
            "publications", False,
            f"this node cannot store what is published, and learns of nothing new: {found.not_stored}",
            "make room on the disk, or look at the node's log; it tries again within a minute",
        )  # fmt: skip
    if found.no_room is not None:
        yield Finding("disk", False, found.no_room, "make room on the disk, or delete datasets")
    for node in found.nodes:
        status = node.status
        if status is None or node.state not in ("alive", "suspect"):
            continue
        used = f"{format_bytes(status.used)} of {format_bytes(status.capacity)}"
        subject = f"copies on {node.member.name}"
        if status.capacity and status.used >= _FULL * status.capacity:
            yield Finding(subject, False, f"{used} are used", "raise storage.copy_bytes there")
        elif status.capacity:
            yield Finding(subject, True, f"{used} are used")
        else:
            yield Finding(subject, True, "it offers no room (storage.copy_bytes is 0)")


def _damage(found: Surveyed) -> Iterator[Finding]:
    if found.damaged or found.quarantined:
        names = _listed(found.damaged) or "no dataset that could be named"
        yield Finding(
            "damage", False, f"{found.quarantined:,} damaged objects in quarantine; of {names}",
            "`platform net heal` fetches those of shared datasets; `platform verify` names the rest",
        )  # fmt: skip
    else:
        yield Finding("damage", True, "none is known on this node; `platform verify` reads all")
    if found.wrong:
        yield Finding(
            "wrong data", False,
            f"{_listed(map(found.name_of, found.wrong))} sent data that is not what was asked for",
            "run `platform verify` there: its disk or memory may be damaged",
        )  # fmt: skip


def _listed(texts: Iterable[str]) -> str:
    all_texts = list(texts)
    more = len(all_texts) - _NAMED_MAX
    shown = ", ".join(all_texts[:_NAMED_MAX])
    return f"{shown} and {more:,} more" if more > 0 else shown
