"""Which copies a node fetches and drops: a state machine.

Placement tells every node which objects it is to hold (`lake.peers.copies.placement`), so each manages its
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

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from lake.peers.copies.copy_states import CopyState, Handover
from lake.peers.copies.have_messages import ASKED_MAX, HaveRequest
from lake.peers.copies.placement import Candidate, Placement, holders
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from sennit_core.errors import BadInput

__all__ = [
    "DropCopy",
    "FetchCopy",
    "Pause",
    "Replica",
    "Replication",
    "ReplicationOptions",
    "SharedObjects",
    "StopFetch",
]

_SLICE = 500
"""Objects that a plan looks at between two pauses, some milliseconds."""

_SOUGHT_MAX, _SOUGHT_NODES = 256, 8
"""Objects without a known copy that are sought in one plan, and the nodes asked for each."""


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


@dataclass(frozen=True, slots=True, eq=False)
class SharedObjects:
    """The objects of one dataset, and who may hold them.

    Args:
        id: The dataset.
        writer: The node that writes the dataset, which always holds them all.
        placement: Where copies are to be.
        nodes: The nodes that may hold them; None for every member of the network.
        objects: The objects.
    """

    id: str
    writer: str
    placement: Placement
    nodes: frozenset[str] | None
    objects: tuple[Replica, ...]

    def may_hold(self, node: str) -> bool:
        """Return whether a member of the network may hold the objects, and read the dataset."""
        return self.nodes is None or node == self.writer or node in self.nodes


@dataclass(frozen=True, slots=True)
class FetchCopy:
    """An effect: this node is to hold an object that it does not have.

    Args:
        dataset: The dataset for which it is to hold it.
        object: The object.
        bytes: Its size.
        sources: Nodes that have it, or should, those that have confirmed it first.
        copies: How many live nodes have it; the fewest come first.
    """

    dataset: str
    object: str
    bytes: int
    sources: tuple[str, ...]
    copies: int


@dataclass(frozen=True, slots=True)
class StopFetch:
    """An effect: this node need not hold an object any more that it was fetching, or has it now."""

    dataset: str
    object: str


@dataclass(frozen=True, slots=True)
class DropCopy:
    """An effect: enough other nodes hold an object that this one need not."""

    object: str


@dataclass(frozen=True, slots=True)
class Pause:
    """An effect: the plan is long, and other work of the node may go on before the rest of it."""


@dataclass(frozen=True, slots=True)
class _Asked:
    node: str
    pairs: tuple[tuple[str, str], ...]
    sent_at: float


@dataclass(slots=True, eq=False)
class _Known:
    """What a node has said of its copies of a dataset.

    `confirmed_at` has the time of the newest question about each object which the node has answered
    that it has it; what it lacks is not there. The time of the answer would count a copy for longer: the node may
    have dropped it while the answer was on its way.
    """

    confirmed_at: dict[str, float] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Tracked:
    """What is kept of a dataset between two plans.

    `placed` has the nodes that are to hold what has a key, `known` what each other node has said.
    """

    shared: SharedObjects
    placed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    known: dict[str, _Known] = field(default_factory=dict)

    def update(self, shared: SharedObjects) -> None:
        """Go on with another version of the dataset, or another placement."""
        was, self.shared = self.shared, shared
        is_placed = (was.writer, was.placement, was.nodes)
        if is_placed != (shared.writer, shared.placement, shared.nodes):
            self.placed.clear()
        keys = {replica.key for replica in shared.objects}
        self.placed = {key: nodes for key, nodes in self.placed.items() if key in keys}
        names = {replica.object for replica in shared.objects}
        for each in self.known.values():
            for times in (each.confirmed_at, each.asked_at):
                for name in times.keys() - names:
                    del times[name]


@dataclass(slots=True, eq=False)
class _Plan:
    """What a look at all objects has found so far.

    `asked_before` is the time whose questions are to be repeated. `questions` has the objects to ask each
    node about, with their datasets; `others` since when those that are to hold an object have confirmed
    it, of the objects that this node need not hold; `sought` counts those that no node is known to hold.
    """

    now: float
    alive: frozenset[str]
    asked_before: float
    questions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    fetched: set[tuple[str, str]] = field(default_factory=set)
    others: dict[str, float] = field(default_factory=dict)
    sought: int = 0


class Replication:
    """The copies of one node.

    Args:
        node: The node's id.
        has: Whether this node has an object of a dataset, verified, and may send it to others.
        options: Times.
    """

    def __init__(
        self,
        node: str,
        has: Callable[[SharedObjects, str], bool],
        options: ReplicationOptions | None = None,
    ) -> None:
        self._node = node
        self._has = has
        self._options = options or ReplicationOptions()
        self._numbers = count(1)
        self._asked: dict[int, _Asked] = {}
        self._next_plan = 0.0
        self._tracked: dict[str, _Tracked] = {}
        self._candidates: tuple[Candidate, ...] = ()
        # What the last plan has fetched: the dataset and the object.
        self._fetching: set[tuple[str, str]] = set()
        # What no source of a download had, whatever it had claimed.
        self._unobtained: set[tuple[str, str]] = set()
        # Since when this node has stopped to claim a copy, by object.
        self._leaving: dict[str, float] = {}

    @property
    def fetching(self) -> Collection[tuple[str, str]]:
        """The objects that the last plan has found missing here, each after its dataset."""
        return self._fetching

    def is_leaving(self, name: str) -> bool:
        """Return whether this node is about to drop an object, so that others do not count on it."""
        return name in self._leaving

    def soon(self) -> None:
        """Plan at the next tick: a dataset, a node or a copy has changed."""
        self._next_plan = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether `tick` would plan: before that, its other arguments need not be found."""
        return now >= self._next_plan

    def ask_again(self, now: float, since: float = -math.inf) -> None:
        """Plan at the next tick, and ask nodes again for what they have not confirmed.

        Args:
            now: Seconds that never run backwards.
            since: Confirmations before this time do not count.
        """
        self.soon()
        for known in (
            each for tracked in self._tracked.values() for each in tracked.known.values()
        ):
            for name in list(known.asked_at):
                is_confirmed = self._is_confirmed(known, name, now)
                if not is_confirmed or known.confirmed_at[name] < since:
                    del known.asked_at[name]

    def tick(
        self,
        now: float,
        datasets: Collection[SharedObjects],
        candidates: Sequence[Candidate],
        alive: Collection[str],
    ) -> Iterator[Effect]:
        """Let time pass. One plan ends before the next call.

        Args:
            now: Seconds that never run backwards.
            datasets: What is shared with this node, or by it.
            candidates: The nodes that count for placement: settled ones, and those that were lost
                less than `loss_seconds` ago.
            alive: The nodes that can be reached.
        """
        if not self.is_due(now):
            return
        self._next_plan = now + self._options.plan_seconds
        # Twice as often as needed, so that a lost answer does not make a copy uncounted.
        plan = _Plan(now, frozenset(alive), now - self._options.confirm_seconds / 2)
        self._track(datasets, candidates, plan.alive)
        looked = 0
        for shared in datasets:
            tracked = self._tracked[shared.id]
            for replica in shared.objects:
                looked += 1
                if looked % _SLICE == 0:
                    yield Pause()
                fetch = self._look(tracked, replica, plan)
                if fetch is not None:
                    yield fetch
        for pair in sorted(self._fetching - plan.fetched):
            yield StopFetch(*pair)
        self._fetching = plan.fetched
        self._unobtained &= plan.fetched
        # An object may be in several datasets, of which one is enough to keep it.
        yield from self._drop({n: at for n, at in plan.others.items() if n not in plan.wanted}, now)
        yield from self._questions(plan)

    def _track(
        self,
        datasets: Collection[SharedObjects],
        candidates: Sequence[Candidate],
        alive: Collection[str],
    ) -> None:
        """Forget what is kept of datasets and nodes that are gone, and of objects of earlier versions."""
        found: dict[str, _Tracked] = {}
        current = {*alive, *(each.node for each in candidates)}
        for shared in datasets:
            tracked = found[shared.id] = self._tracked.get(shared.id) or _Tracked(shared)
            if tracked.shared is not shared:
                tracked.update(shared)
            for node in tracked.known.keys() - current:
                del tracked.known[node]
        self._tracked = found
        if tuple(candidates) != self._candidates:
            self._candidates = tuple(candidates)
            for tracked in found.values():
                tracked.placed.clear()

    def _look(self, tracked: _Tracked, replica: Replica, plan: _Plan) -> FetchCopy | None:
        """Look at one object; return what is to be fetched."""
        shared, name = tracked.shared, replica.object
        targets = self._targets(tracked, replica.key)
        self._ask_about(tracked, name, targets, plan)
        has = self._has(shared, name)
        if self._node in targets:
            plan.wanted.add(name)
            if not has:
                plan.fetched.add((shared.id, name))
                fetch = self._fetch(tracked, replica, targets, plan)
                is_known = fetch.copies > 0 and (shared.id, name) not in self._unobtained
                if not is_known and plan.sought < _SOUGHT_MAX:
                    plan.sought += 1
                    self._seek(tracked, replica, plan)
                return fetch
        elif has and (since := self._confirmed_since(tracked, name, targets, plan.now)) is not None:
            plan.others[name] = min(since, plan.others.get(name, since))
        return None

    def holders_of(
        self, shared: SharedObjects, name: str, alive: Collection[str], now: float
    ) -> list[str]:
        """Return the live nodes that have an object of a dataset, this one first if it has it."""
        tracked = self._tracked.get(shared.id) or _Tracked(shared)
        nodes = self._live_copies(tracked, name, alive, now)
        return sorted(nodes, key=lambda node: (node != self._node, node))

    def state(
        self, shared: SharedObjects, objects: Sequence[Replica], alive: Collection[str], now: float
    ) -> CopyState:
        """Return the state of the copies of some objects of a dataset."""
        tracked = self._tracked.get(shared.id) or _Tracked(shared)
        under = gone = missing = held = 0
        lacking: Counter[str] = Counter()
        factor = shared.placement.factor
        places = factor
        for replica in objects:
            targets = self._targets(tracked, replica.key)
            places = min(places, len(targets))
            live = self._live_copies(tracked, replica.object, alive, now)
            under += len(live) < factor
            gone += not live
            held += self._node in live
            missing += self._node in targets and self._node not in live
            lacking.update(node for node in targets if node not in live and node != self._node)
        return CopyState(len(objects), under, gone, missing, dict(lacking), factor, places, held)

    def handover(
        self, shared: SharedObjects, objects: Sequence[Replica], since: float, now: float
    ) -> Handover:
        """Return which of some objects this node is still needed for, as it is about to leave.

        Args:
            shared: The dataset.
            objects: Some of its objects.
            since: When this node has announced that it leaves. Earlier confirmations do not count: a
                node may have dropped its copy since then, because this one had one.
            now: Seconds that never run backwards.
        """
        tracked = self._tracked.get(shared.id) or _Tracked(shared)
        here = [each for each in objects if self._has(shared, each.object)]
        waiting = homeless = 0
        for replica in here:
            targets = self._targets(tracked, replica.key)
            others = [tracked.known.get(node) for node in targets]
            is_safe = self._node not in targets and all(
                known is not None
                and self._is_confirmed(known, replica.object, now)
                and known.confirmed_at[replica.object] >= since
                for known in others
            )
            waiting += not (is_safe and targets)
            homeless += not targets
        return Handover(len(here), waiting, homeless)

    def _targets(self, tracked: _Tracked, key: str) -> tuple[str, ...]:
        """Return the nodes that are to hold an object; the writer is one, unless it is lost."""
        found = tracked.placed.get(key)
        if found is None:
            shared = tracked.shared
            allowed = [each for each in self._candidates if shared.may_hold(each.node)]
            placement = shared.placement.with_writer(shared.writer)
            found = tracked.placed[key] = holders(key, placement, allowed)
        return found

    def _fetch(
        self, tracked: _Tracked, replica: Replica, targets: Sequence[str], plan: _Plan
    ) -> FetchCopy:
        live = self._live_copies(tracked, replica.object, plan.alive, plan.now)
        others = [node for node in targets if node in plan.alive and node not in live]
        sources = (*sorted(live), *others)
        return FetchCopy(tracked.shared.id, replica.object, replica.bytes, sources, len(live))

    def _live_copies(
        self, tracked: _Tracked, name: str, alive: Collection[str], now: float
    ) -> set[str]:
        found = {
            node
            for node, known in tracked.known.items()
            if node in alive and self._is_confirmed(known, name, now)
        }
        if self._has(tracked.shared, name):
            found.add(self._node)
        return found

    def _is_confirmed(self, known: _Known, name: str, now: float) -> bool:
        at = known.confirmed_at.get(name)
        return at is not None and now - at <= self._options.confirm_seconds

    def _confirmed_since(
        self, tracked: _Tracked, name: str, targets: Sequence[str], now: float
    ) -> float | None:
        """Return the time of the oldest confirmation of the nodes that are to hold an object.

        None if one of them has not confirmed it, or there are too few of them.
        """
        if len(targets) < tracked.shared.placement.factor:
            return None
        times = []
        for node in targets:
            known = tracked.known.get(node)
            if known is None or not self._is_confirmed(known, name, now):
                return None
            times.append(known.confirmed_at[name])
        return min(times)

    def _drop(self, others: Mapping[str, float], now: float) -> Iterator[Effect]:
        """Drop what others have confirmed since this node has stopped to claim it."""
        self._leaving = {name: self._leaving.get(name, now) for name in others}
        for name, since in list(self._leaving.items()):
            # No claim of this node counts for others any more.
            if now - since > self._options.confirm_seconds and others[name] > since:
                del self._leaving[name]
                yield DropCopy(name)

    # Questions

    def _ask_about(
        self, tracked: _Tracked, name: str, targets: tuple[str, ...], plan: _Plan
    ) -> None:
        """Note which nodes are to be asked for an object: those that are to hold it, and its writer."""
        writer = tracked.shared.writer
        for node in targets if writer in targets else (*targets, writer):
            if self._is_due(tracked, name, node, plan):
                plan.questions.setdefault(node, []).append((tracked.shared.id, name))

    def _is_due(self, tracked: _Tracked, name: str, node: str, plan: _Plan) -> bool:
        """Return whether a node is to be asked for an object now."""
        if node == self._node or node not in plan.alive:
            return False
        known = tracked.known.get(node)
        asked_at = None if known is None else known.asked_at.get(name)
        return asked_at is None or asked_at < plan.asked_before

    def _seek(self, tracked: _Tracked, replica: Replica, plan: _Plan) -> None:
        """Note some other nodes to ask for an object that none of those that are to hold it has, or sends.

        Placement may have moved to nodes that all lack it, as when its writer is lost. The nodes that
        held it before are near the beginning in the order of placement.
        """
        allowed = [each for each in self._candidates if tracked.shared.may_hold(each.node)]
        ranked = holders(replica.key, Placement(len(allowed)), allowed)
        due = [node for node in ranked if self._is_due(tracked, replica.object, node, plan)]
        for node in due[:_SOUGHT_NODES]:
            pairs = plan.questions.setdefault(node, [])
            if (pair := (tracked.shared.id, replica.object)) not in pairs[-1:]:
                pairs.append(pair)

    def _questions(self, plan: _Plan) -> Iterator[Effect]:
        for node, pairs in plan.questions.items():
            for start in range(0, len(pairs), ASKED_MAX):
                yield Pause()
                part = tuple(pairs[start : start + ASKED_MAX])
                number = next(self._numbers)
                self._asked[number] = _Asked(node, part, plan.now)
                for dataset, name in part:
                    self._known(dataset, node).asked_at[name] = plan.now
                yield Call(node, number, HaveRequest.of(part), self._options.timeout_seconds)

    def _known(self, dataset: str, node: str) -> _Known:
        """Return what a node has said of a dataset; of one that is gone, a record that nothing reads."""
        tracked = self._tracked.get(dataset)
        return _Known() if tracked is None else tracked.known.setdefault(node, _Known())

    def replied(self, reply: Replied) -> None:
        """Handle an answer; the number must be one of a request of this machine.

        Raises:
            BadInput: It has too few bits.
        """
        asked = self._asked.pop(reply.id)
        if len(reply.body) * 8 < len(asked.pairs):
            raise BadInput(f"the answer of node {asked.node[:16]}", reason="it is too short")
        for index, (dataset, name) in enumerate(asked.pairs):
            confirmed_at = self._known(dataset, asked.node).confirmed_at
            # Answers may overtake each other: the one to the newest question counts.
            if confirmed_at.get(name, asked.sent_at) > asked.sent_at:
                continue
            if reply.body[index // 8] >> (index % 8) & 1:
                confirmed_at[name] = asked.sent_at
            else:
                confirmed_at.pop(name, None)

    def unobtainable(self, dataset: str, name: str) -> None:
        """Seek an object at other nodes too: those that claim to have it have not sent it."""
        self._unobtained.add((dataset, name))

    def failed(self, failure: Failed) -> None:
        """Handle a request that has failed: it is repeated at the next plan."""
        asked = self._asked.pop(failure.id)
        for dataset, name in asked.pairs:
            self._known(dataset, asked.node).asked_at.pop(name, None)
