"""Single plans of copies: what counts as confirmed, what is kept between plans, and pauses."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest

from lake.peers.copies.have_messages import HaveReply, HaveRequest, have_bits
from lake.peers.copies.placement import Candidate, Placement
from lake.peers.copies.replication import (
    DropCopy,
    FetchCopy,
    Pause,
    Replica,
    Replication,
    ReplicationOptions,
    SharedObjects,
)
from lake.peers.transport.machine import Call, Effect, Replied
from sennit_core.errors import BadInput

OPTIONS = ReplicationOptions(plan_seconds=1.0, confirm_seconds=60.0)
NODES = ("oslo", "rome", "bern")
CANDIDATES = [Candidate(node) for node in NODES]


def digest(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def shared(count: int, *, version: int = 0, copies: int = 1) -> SharedObjects:
    names = [digest(version * 10_000 + number) for number in range(count)]
    replicas = tuple(Replica(name, name, 10) for name in names)
    return SharedObjects("trips", "rome", Placement(copies), None, replicas)


class Planned:
    """Oslo, which has all objects that it needs not."""

    def __init__(self) -> None:
        self.asked = 0
        self.machine = Replication("oslo", self._has, OPTIONS)

    def _has(self, _dataset: SharedObjects, _name: str) -> bool:
        self.asked += 1
        return True

    def plan(self, now: float, dataset: SharedObjects) -> list[Effect]:
        return list(self.machine.tick(now, [dataset], CANDIDATES, NODES[1:]))

    def answer(self, effects: list[Effect], *, has: bool = True) -> None:
        for call in calls(effects):
            assert isinstance(call.message, HaveRequest)
            body = have_bits([has] * len(call.message.objects))
            self.machine.replied(Replied(call.id, HaveReply(), body))


def calls(effects: list[Effect]) -> Iterator[Call]:
    return (each for each in effects if isinstance(each, Call))


def test_a_long_plan_pauses() -> None:
    node = Planned()
    most = before = 0
    for effect in node.machine.tick(1.0, [shared(3000)], CANDIDATES, NODES[1:]):
        if isinstance(effect, Pause):
            most, before = max(most, node.asked - before), node.asked
    assert node.asked >= 3000
    assert most <= 600


def test_an_answer_counts_from_its_question_on() -> None:
    node, dataset = Planned(), shared(1)
    asked = node.plan(0.0, dataset)
    node.answer(node.plan(31.0, dataset))  # asked again meanwhile, and answered first
    node.answer(asked, has=False)  # the answer of an older state
    replica = dataset.objects[0]
    assert "rome" in node.machine.holders_of(dataset, replica.object, NODES, 90.0)
    assert "rome" not in node.machine.holders_of(dataset, replica.object, NODES, 92.0)


def test_a_late_answer_lets_no_copy_be_dropped() -> None:
    node, dataset = Planned(), shared(1)
    first, second = node.plan(0.0, dataset), node.plan(30.5, dataset)
    node.answer(first)
    node.plan(32.0, dataset)  # from now on this node does not claim its copy
    assert node.machine.is_leaving(dataset.objects[0].object)
    node.plan(62.0, dataset)
    node.answer(second)  # Rome may have counted on this node's copy, and dropped its own since then
    assert not any(isinstance(each, DropCopy) for each in node.plan(93.0, dataset))


def test_what_is_kept_between_plans_is_of_the_newest_version() -> None:
    node = Planned()
    for version in range(5):
        node.answer(node.plan(version * 40.0, shared(100, version=version)))
    [tracked] = node.machine._tracked.values()
    assert len(tracked.placed) == 100
    assert all(
        len(known.asked_at) == len(known.confirmed_at) == 100 for known in tracked.known.values()
    )
    assert list(node.machine.tick(300.0, [], CANDIDATES, NODES[1:])) == []
    assert node.machine._tracked == {}


def test_copies_of_one_dataset_are_none_of_another() -> None:
    first = shared(1, copies=3)
    second = SharedObjects("bait", "bern", Placement(3), None, first.objects)
    node = Planned()
    node.machine = Replication("oslo", lambda dataset, _: dataset.id == "trips", OPTIONS)
    effects = list(node.machine.tick(1.0, [first, second], CANDIDATES, NODES[1:]))
    name = first.objects[0].object
    assert [each.dataset for each in effects if isinstance(each, FetchCopy)] == ["bait"]
    for call in calls(effects):
        assert isinstance(call.message, HaveRequest)
        assert call.message.pairs == [("trips", name), ("bait", name)]
        body = have_bits([dataset == "trips" for dataset, _ in call.message.pairs])
        node.machine.replied(Replied(call.id, HaveReply(), body))
    assert node.machine.holders_of(first, name, NODES, 2.0) == ["oslo", "bern", "rome"]
    assert node.machine.holders_of(second, name, NODES, 2.0) == []


def test_a_question_of_an_earlier_version_names_no_dataset() -> None:
    assert HaveRequest(("a", "b")).pairs == [("", "a"), ("", "b")]


@pytest.mark.parametrize(
    "bad",
    [
        HaveRequest(("a",), ("d",), ()),
        HaveRequest(("a",), ("d", "e"), (1, 0)),
        HaveRequest(("a",), ("d",), (-1,)),
        HaveRequest(("a",) * 1025),
    ],
)
def test_a_malformed_question_is_refused(bad: HaveRequest) -> None:
    with pytest.raises(BadInput):
        _ = bad.pairs


def test_a_short_answer_is_refused() -> None:
    node = Planned()
    call = next(calls(node.plan(1.0, shared(20))))
    with pytest.raises(BadInput, match="too short"):
        node.machine.replied(Replied(call.id, HaveReply(), b"\xff"))
