"""Which copies a node fetches and drops: a state machine.

Placement tells every node which objects it is to hold (`lake.peers.placement`), so each manages its
own copies: it fetches what it lacks, the objects with the fewest live copies first, and drops what others
are to hold once enough of them have confirmed that they do. No coordinator can fail.

A node that dies stays a candidate for `loss_seconds`: most come back, and moving its copies at once would
load the others for nothing. One that leaves on purpose is none at once. Copies are counted only where a
node has said that it has verified them, so what a scrub finds damaged is replaced like a lost copy.

Two nodes with different views could drop their copies for each other's sake. So a node first stops to
claim a copy, for as long as confirmations count, and drops it only if all others have confirmed theirs
since then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import ClassVar

from lake.peers.machine import Call, Effect, Failed, Replied
from lake.peers.messages import Message
from lake.peers.placement import Candidate, Placement, holders
from sennit_core.errors import BadInput

__all__ = [
    "MESSAGES",
    "CopyState",
    "DropCopy",
    "FetchCopy",
    "HaveReply",
    "HaveRequest",
    "Replica",
    "Replication",
    "ReplicationOptions",
    "SharedObjects",
    "StopFetch",
    "have_bits",
]

_ASKED_MAX = 1024
"""Objects of a request; their ids are 64 digits each."""


@dataclass(frozen=True, slots=True)
class HaveRequest(Message):
    """Asks which of some objects the receiver has, verified since it started."""

    kind: ClassVar[str] = "have"
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HaveReply(Message):
    """One bit for each object of the request, the first in the lowest bit, in the body."""

    kind: ClassVar[str] = "have-reply"


MESSAGES: tuple[type[Message], ...] = (HaveRequest, HaveReply)


@dataclass(frozen=True, slots=True)
class ReplicationOptions:
    """Times of the protocol.

    Args:
        plan_seconds: Between two looks at what is missing.
        confirm_seconds: How long what a node said of its copies counts.
        loss_seconds: After which the copies of a dead node are made elsewhere.
        timeout_seconds: Of a request.
    """

    plan_seconds: float = 2.0
    confirm_seconds: float = 60.0
    loss_seconds: float = 600.0
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Replica:
    """An object that is to be copied.

    Args:
        object: Its id.
        key: What it is placed by.
        bytes: Its size.
    """

    object: str
    key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedObjects:
    """The objects of one dataset, and who may hold them.

    Args:
        writer: The node that writes the dataset, which always holds them all.
        placement: Where copies are to be.
        nodes: The nodes that may hold them.
        objects: The objects.
    """

    writer: str
    placement: Placement
    nodes: frozenset[str]
    objects: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class FetchCopy:
    """An effect: this node is to hold an object that it does not have.

    Args:
        object: The object.
        bytes: Its size.
        sources: Nodes that have it, or should, those that have confirmed it first.
        copies: How many live nodes have it; the fewest come first.
    """

    object: str
    bytes: int
    sources: tuple[str, ...]
    copies: int


@dataclass(frozen=True, slots=True)
class StopFetch:
    """An effect: this node need not hold an object any more that it was fetching, or has it now."""

    object: str


@dataclass(frozen=True, slots=True)
class DropCopy:
    """An effect: enough other nodes hold an object that this one need not."""

    object: str


@dataclass(frozen=True, slots=True)
class CopyState:
    """The copies of a dataset, as this node knows them.

    Args:
        objects: Their number.
        under_replicated: How many have fewer live copies than they should.
        unavailable: How many have none.
        missing_here: How many this node is to hold and lacks.
        lacking: How many each other node is to hold and lacks, by node.
        copies: How many each should have.
        places: How many nodes can hold the one with the fewest.
    """

    objects: int
    under_replicated: int
    unavailable: int
    missing_here: int
    lacking: Mapping[str, int]
    copies: int = 1
    places: int = 1


@dataclass(slots=True, eq=False)
class _Asked:
    node: str
    objects: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Known:
    """What a node has said of its copies.

    `confirmed_at` has the time of the last answer about each object that it has; what it lacks is not
    there.
    """

    confirmed_at: dict[str, float] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)


class Replication:
    """The copies of one node.

    Args:
        node: The node's id.
        has: Whether this node has an object, verified.
        options: Times.
    """

    def __init__(
        self, node: str, has: Callable[[str], bool], options: ReplicationOptions | None = None
    ) -> None:
        self._node = node
        self._has = has
        self._options = options or ReplicationOptions()
        self._numbers = count(1)
        self._asked: dict[int, _Asked] = {}
        self._known: dict[str, _Known] = {}
        self._next_plan = 0.0
        # Kept between two plans, as most keys have the same holders in both.
        self._placed: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._candidates: tuple[Candidate, ...] = ()
        # What the last plan has fetched.
        self._fetching: set[str] = set()
        # Since when this node has stopped to claim a copy, by object.
        self._leaving: dict[str, float] = {}

    def claims(self, name: str) -> bool:
        """Return whether this node has an object, verified, and is not about to drop it."""
        return name not in self._leaving and self._has(name)

    def soon(self) -> None:
        """Plan at the next tick: a dataset, a node or a copy has changed."""
        self._next_plan = 0.0

    def tick(
        self,
        now: float,
        datasets: Collection[SharedObjects],
        candidates: Sequence[Candidate],
        alive: Collection[str],
    ) -> Iterator[Effect]:
        """Let time pass.

        Args:
            now: Seconds that never run backwards.
            datasets: What is shared with this node, or by it.
            candidates: The nodes that count for placement: settled ones, and those that were lost
                less than `loss_seconds` ago.
            alive: The nodes that can be reached.
        """
        if now < self._next_plan:
            return
        self._next_plan = now + self._options.plan_seconds
        if tuple(candidates) != self._candidates:
            self._candidates = tuple(candidates)
            self._placed.clear()
        questions: dict[str, list[str]] = {}
        wanted: set[str] = set()
        fetched: set[str] = set()
        others: dict[str, float] = {}
        for dataset in datasets:
            for replica in dataset.objects:
                targets = self._targets(dataset, replica)
                self._ask_about(replica, targets, dataset, alive, now, questions)
                if self._node in targets:
                    wanted.add(replica.object)
                    if not self._has(replica.object):
                        fetched.add(replica.object)
                        yield self._fetch(dataset, replica, targets, alive, now)
                elif (since := self._confirmed_since(dataset, replica, targets, now)) is not None:
                    others[replica.object] = min(since, others.get(replica.object, since))
        for name in sorted(self._fetching - fetched):
            yield StopFetch(name)
        self._fetching = fetched
        # An object may be in several datasets, of which one is enough to keep it.
        yield from self._drop({n: at for n, at in others.items() if n not in wanted}, now)
        yield from self._questions(questions, now)

    def holders_of(
        self, dataset: SharedObjects, replica: Replica, alive: Collection[str], now: float
    ) -> list[str]:
        """Return the live nodes that have an object, this one first if it has it."""
        nodes = self._live_copies(dataset, replica, alive, now)
        return sorted(nodes, key=lambda node: (node != self._node, node))

    def state(self, dataset: SharedObjects, alive: Collection[str], now: float) -> CopyState:
        """Return the state of a dataset's copies."""
        under = gone = here = 0
        lacking: dict[str, int] = {}
        factor = dataset.placement.factor
        places = factor
        for replica in dataset.objects:
            targets = self._targets(dataset, replica)
            places = min(places, len(targets))
            live = self._live_copies(dataset, replica, alive, now)
            under += len(live) < factor
            gone += not live
            here += self._node in targets and self._node not in live
            for node in targets:
                if node not in live and node != self._node:
                    lacking[node] = lacking.get(node, 0) + 1
        return CopyState(len(dataset.objects), under, gone, here, lacking, factor, places)

    def _targets(self, dataset: SharedObjects, replica: Replica) -> tuple[str, ...]:
        """Return the nodes that are to hold an object; the writer is one, unless it is lost."""
        place = (replica.key, dataset.writer, dataset.placement, dataset.nodes)
        found = self._placed.get(place)
        if found is None:
            allowed = [c for c in self._candidates if c.node in dataset.nodes]
            placement = _with_writer(dataset.placement, dataset.writer)
            found = self._placed[place] = holders(replica.key, placement, allowed)
        return found

    def _fetch(
        self,
        dataset: SharedObjects,
        replica: Replica,
        targets: Sequence[str],
        alive: Collection[str],
        now: float,
    ) -> FetchCopy:
        live = self._live_copies(dataset, replica, alive, now)
        others = [node for node in targets if node in alive and node not in live]
        sources = (*sorted(live), *others)
        return FetchCopy(replica.object, replica.bytes, sources, len(live))

    def _live_copies(
        self, dataset: SharedObjects, replica: Replica, alive: Collection[str], now: float
    ) -> set[str]:
        found = {
            node
            for node, known in self._known.items()
            if node in alive and self._is_confirmed(known, replica.object, now)
        }
        if self._has(replica.object):
            found.add(self._node)
        return found

    def _is_confirmed(self, known: _Known, name: str, now: float) -> bool:
        at = known.confirmed_at.get(name)
        return at is not None and now - at <= self._options.confirm_seconds

    def _confirmed_since(
        self, dataset: SharedObjects, replica: Replica, targets: Sequence[str], now: float
    ) -> float | None:
        """Return the time of the oldest confirmation of the nodes that are to hold an object.

        None if one of them has not confirmed it, or there are too few of them.
        """
        if len(targets) < dataset.placement.factor:
            return None
        times = []
        for node in targets:
            known = self._known.get(node)
            if known is None or not self._is_confirmed(known, replica.object, now):
                return None
            times.append(known.confirmed_at[replica.object])
        return min(times)

    def _drop(self, others: Mapping[str, float], now: float) -> Iterator[Effect]:
        """Drop what others have confirmed since this node has stopped to claim it."""
        self._leaving = {name: self._leaving.get(name, now) for name in others if self._has(name)}
        for name, since in list(self._leaving.items()):
            # No claim of this node counts for others any more.
            if now - since > self._options.confirm_seconds and others[name] > since:
                del self._leaving[name]
                yield DropCopy(name)

    # Questions

    def _ask_about(
        self,
        replica: Replica,
        targets: Sequence[str],
        dataset: SharedObjects,
        alive: Collection[str],
        now: float,
        questions: dict[str, list[str]],
    ) -> None:
        """Note which nodes are to be asked for an object: those that are to hold it, and its writer."""
        for node in {*targets, dataset.writer} - {self._node}:
            if node not in alive:
                continue
            asked_at = self._known.setdefault(node, _Known()).asked_at.get(replica.object)
            # Twice as often as needed, so that a lost answer does not make a copy uncounted.
            if asked_at is None or now - asked_at > self._options.confirm_seconds / 2:
                questions.setdefault(node, []).append(replica.object)

    def _questions(self, questions: Mapping[str, list[str]], now: float) -> Iterator[Effect]:
        for node, names in questions.items():
            for start in range(0, len(names), _ASKED_MAX):
                part = tuple(names[start : start + _ASKED_MAX])
                number = next(self._numbers)
                self._asked[number] = _Asked(node, part)
                self._known[node].asked_at.update(dict.fromkeys(part, now))
                yield Call(node, number, HaveRequest(part), self._options.timeout_seconds)

    def replied(self, reply: Replied, now: float) -> None:
        """Handle an answer; the number must be one of a request of this machine.

        Raises:
            BadInput: It has too few bits.
        """
        asked = self._asked.pop(reply.id)
        if len(reply.body) * 8 < len(asked.objects):
            raise BadInput(f"the answer of node {asked.node[:16]}", reason="it is too short")
        known = self._known[asked.node]
        for index, name in enumerate(asked.objects):
            if reply.body[index // 8] >> (index % 8) & 1:
                known.confirmed_at[name] = now
            else:
                known.confirmed_at.pop(name, None)

    def failed(self, failure: Failed) -> None:
        """Handle a request that has failed: it is repeated at the next plan."""
        asked = self._asked.pop(failure.id)
        for name in asked.objects:
            self._known[asked.node].asked_at.pop(name, None)

    def forget(self, node: str) -> None:
        """Forget what a node has said: it was restarted, or is gone."""
        self._known.pop(node, None)


def _with_writer(placement: Placement, writer: str) -> Placement:
    """Return a placement in which the writer holds every shard."""
    only = (*placement.only, writer) if placement.only else ()
    return replace(placement, pins=(writer, *placement.pins), only=only)


def have_bits(objects: Sequence[str], has: Callable[[str], bool]) -> bytes:
    """Return the body of a `HaveReply`."""
    bits = bytearray(-(-len(objects) // 8))
    for index, name in enumerate(objects):
        if has(name):
            bits[index // 8] |= 1 << (index % 8)
    return bytes(bits)
