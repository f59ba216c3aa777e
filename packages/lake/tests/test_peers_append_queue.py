"""The queue of appends, simulated: each is committed once, in order, whatever crashes and is cut off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from lake.peers.changes.append_queue import (
    ANSWER_SECONDS,
    WAIT_SECONDS,
    AppendQueue,
    Deliver,
    DropAppend,
    NotSent,
    QueuedAppend,
    StoreAppend,
)
from lake.peers.changes.forwarding import (
    _EXPIRY_SECONDS_MAX,
    ChangeRequest,
    ChangeSender,
    Made,
    Outcome,
    Refused,
    Unknown,
    Unreached,
)
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from lake.peers.transport.messages import Message
from lake.testing.simulation import Disk, Faults, Simulation
from sennit_core.errors import (
    BadInput,
    Busy,
    Cancelled,
    Conflict,
    Denied,
    TooLarge,
    Unavailable,
)

from .test_peers_forwarding import CODEC, WALL, WriterNode


def append(number: int, dataset: str = "d", **members: object) -> QueuedAppend:
    found = QueuedAppend(
        f"{number:026d}", number, dataset, "t", "w", "ann", "writer", "INSERT INTO t VALUES (1)", "",
        60.0, WALL, WALL + ANSWER_SECONDS,
    )  # fmt: skip
    return replace(found, **members)  # type: ignore[arg-type]


def perform(queue: AppendQueue, effect: object) -> None:
    assert isinstance(effect, StoreAppend | DropAppend)
    queue.apply(effect)


def delivered(queue: AppendQueue, now: float = 0.0, wall: float = WALL) -> list[str]:
    """Return the ids of what is to be sent now."""
    found = []
    for effect in queue.tick(now, wall, ["w"]):
        if isinstance(effect, Deliver):
            found.append(effect.append.id)
        else:
            queue.apply(effect)
    return found


class Crash(Exception):
    """The process ends."""


class QueueNode:
    """Queues appends, and sends them; what it has stored is on its disk, as in `lake.distributed.queued_appends`."""

    def __init__(self, disk: Disk, simulation: Simulation, ends: dict[str, str]) -> None:
        self._disk, self._simulation, self._ends = disk, simulation, ends
        self._queue = AppendQueue(disk.setdefault("queued", {}).values())
        disk.setdefault("added", [])
        self._senders: dict[str, ChangeSender] = {}
        self._calls: dict[int, tuple[str, int]] = {}
        self._number = 0

    def tick(self, now: float) -> Iterable[Effect]:
        try:
            return list(self._tick(now))
        except Crash:
            self._simulation.crash("b")
            return []

    def _tick(self, now: float) -> Iterable[Effect]:
        if now < 120 and self._simulation.random.random() < 0.1:
            number = len(self._disk["added"]) + 1
            new = self._queue.add(append(number, f"d{number % 2}"), WALL + now)
            assert new is not None
            self._disk["added"].append(new.append.id)
            self._perform(new)
        for effect in self._queue.tick(now, WALL + now, self._alive()):
            if isinstance(effect, Deliver):
                each = effect.append
                request = ChangeRequest(
                    each.id, each.dataset, "t", each.sql, "", 60.0, each.expires_at
                )
                self._senders[each.id] = ChangeSender(
                    "w", request, now=now, answer_seconds=2.0, was_sent=each.was_sent
                )
            else:
                self._perform(effect)
        for name, sender in list(self._senders.items()):
            for call in sender.tick(now):
                assert isinstance(call, Call)
                # As `Changes` does once there is a session, without which nothing leaves.
                if "w" not in self._alive():
                    sender.failed(Failed(call.id, ChangeSender.UNREACHED), now)
                    continue
                if (noted := self._queue.sending(name, "w")) is not None:
                    self._perform(noted)
                self._number += 1
                self._calls[self._number] = (name, call.id)
                yield replace(call, id=self._number)
            self._end(name, now)

    def _alive(self) -> list[str]:
        return ["w"] if self._simulation._can_reach("b", "w") else []

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        name, number = self._calls.pop(result.id)
        if (sender := self._senders.get(name)) is not None:
            if isinstance(result, Replied):
                sender.replied(replace(result, id=number))
            else:
                sender.failed(replace(result, id=number), now)
            try:
                self._end(name, now)
            except Crash:
                self._simulation.crash("b")
        return ()

    def _end(self, name: str, now: float) -> None:
        outcome = self._senders[name].outcome
        if outcome is None:
            return
        del self._senders[name]
        if (effect := self._queue.ended(name, outcome, now)) is not None:
            self._perform(effect)
        self._queue.settled(name)

    def _perform(self, effect: StoreAppend | DropAppend) -> None:
        """Store, with a crash before or after it."""
        chance = self._simulation.random
        if chance.random() < 0.03:
            raise Crash
        if isinstance(effect, DropAppend):
            del self._disk["queued"][effect.append.id]
            self._ends[effect.append.id] = "committed"
        else:
            self._disk["queued"][effect.append.id] = effect.append
            self._ends[effect.append.id] = effect.append.state
        if chance.random() < 0.03:
            raise Crash
        self._queue.apply(effect)

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        return ()

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        raise AssertionError


def play(seed: int) -> tuple[dict[str, str], list[str], list[str]]:
    """Return how appends ended, the ids of those that were made, in order, and of all that were queued."""
    simulation = Simulation(seed, CODEC, Faults(call_loss=0.25))
    ends: dict[str, str] = {}
    disks: dict[str, Disk] = {}

    def writer(disk: Disk) -> WriterNode:
        disks["w"] = disk
        return WriterNode(disk, simulation)

    def sender(disk: Disk) -> QueueNode:
        disks["b"] = disk
        return QueueNode(disk, simulation, ends)

    simulation.add("w", writer)
    simulation.add("b", sender)
    for at in (20, 50, 80):
        simulation.at(at, lambda: simulation.crash("w"))
        simulation.at(at + simulation.random.uniform(0.1, 15), lambda: simulation.restart("w"))
    for at in (35, 95):
        simulation.at(at, lambda: simulation.partition(["b"], ["w"]))
        simulation.at(at + simulation.random.uniform(1, 20), lambda: simulation.partition())
    for at in range(0, 900, 3):
        simulation.at(at, lambda: _restart(simulation))
    simulation.run(900.0)
    made = [key.removeprefix("b_") for key in disks["w"]["made"]]
    return ends, made, list(disks["b"]["added"])


def _restart(simulation: Simulation) -> None:
    if "b" not in simulation.running():
        simulation.restart("b")


@pytest.mark.parametrize("seed", range(8))
def test_each_append_is_committed_once_in_order_or_refused(seed: int) -> None:
    ends, made, added = play(seed)
    assert len(added) > 20
    assert len(set(made)) == len(made)
    # What a crash kept from being stored was not acknowledged.
    assert {ends[name] for name in added if name in ends} <= {"committed", "refused"}
    for name, state in ends.items():
        assert (name in made) == (state == "committed")
    for dataset in (0, 1):
        line = [name for name in made if int(name) % 2 == dataset]
        assert line == sorted(line)


# The machine


def test_one_append_of_a_dataset_is_sent_at_a_time_in_order_and_few_at_all() -> None:
    queue = AppendQueue([append(3), append(1), append(2)])
    [first] = delivered(queue)
    assert first == append(1).id
    assert delivered(queue) == []
    perform(queue, queue.ended(first, Made(5, 1), 0.0))
    queue.settled(first)
    assert delivered(queue, 2.0) == [append(2).id]
    many = AppendQueue([append(number, f"d{number}") for number in range(1, 9)])
    assert len(delivered(many)) == 4


def test_what_may_be_committed_is_not_taken_back() -> None:
    queue = AppendQueue([append(1), append(2)])
    [name] = delivered(queue)
    perform(queue, queue.sending(name, "w"))
    with pytest.raises(Conflict, match="may be committed"):
        queue.remove(name)
    # Its answer is lost.
    assert queue.ended(name, Unknown(), 0.0) is None
    queue.settled(name)
    with pytest.raises(Conflict):
        queue.retry(name, append(9).id, WALL, WALL)
    perform(queue, queue.remove(name, forget=True))
    assert queue.ended(name, Made(5, 1), 0.0) is None
    perform(queue, queue.remove(append(2).id))
    with pytest.raises(Cancelled):
        queue.sending(append(2).id, "w")


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Unreached(), "waiting"),
        (Refused(Busy("the writer").to_json()), "waiting"),
        (Refused(Unavailable("the rows").to_json()), "waiting"),
        (Refused(BadInput("it", reason="a column").to_json()), "refused"),
        (Refused(Denied("it").to_json()), "refused"),
        (NotSent(Denied("it").to_json()), "unknown"),
        (NotSent(Cancelled("the network").to_json()), "sent"),
        (Unknown(), "sent"),
    ],
)
def test_an_outcome_says_whether_it_may_be_taken_back(outcome: object, state: str) -> None:
    queue = AppendQueue([append(1)])
    [name] = delivered(queue)
    perform(queue, queue.sending(name, "w"))
    effect = queue.ended(name, outcome, 0.0)  # type: ignore[arg-type]
    if effect is not None:
        queue.apply(effect)
    assert queue.appends[name].state == state


def test_the_user_of_an_append_that_was_not_sent_is_refused() -> None:
    queue = AppendQueue([append(1)])
    [name] = delivered(queue)
    perform(queue, queue.ended(name, NotSent(Denied("it").to_json()), 0.0))
    assert queue.appends[name].state == "refused"


def test_time_ends_what_waits_and_what_no_writer_answers() -> None:
    queue = AppendQueue([append(1), append(2, "e", state="sent")])
    assert len(delivered(queue, 0.0, WALL + WAIT_SECONDS)) == 2
    for each in list(queue.appends):
        queue.settled(each)
    assert delivered(queue, 100.0, WALL + WAIT_SECONDS + 1) == [append(2).id]
    queue.settled(append(2).id)
    assert delivered(queue, 200.0, WALL + ANSWER_SECONDS + 1) == []
    assert [each.state for each in queue.in_order()] == ["expired", "unknown"]
    perform(queue, queue.retry(append(1).id, append(9).id, WALL + 3 * ANSWER_SECONDS, WALL + 9e6))


def test_a_writer_answers_for_as_long_as_an_append_is_sent() -> None:
    assert ANSWER_SECONDS < _EXPIRY_SECONDS_MAX


def test_a_writer_that_comes_back_is_tried_at_once() -> None:
    queue = AppendQueue([append(1)])
    for number in range(6):
        now = 100.0 * number
        [name] = delivered(queue, now)
        queue.ended(name, Unreached(), now)
        queue.settled(name)
    assert delivered(queue, 510.0) == []
    assert not list(queue.tick(511.0, WALL, []))
    assert delivered(queue, 512.0) == [name]


def test_a_queue_is_bounded() -> None:
    queue = AppendQueue([append(1)], appends_max=2, bytes_max=10)
    assert queue.add(append(1), WALL) is None
    perform(queue, queue.add(append(2), WALL))
    assert queue.in_order()[1].number == 2
    with pytest.raises(Busy, match="queued"):
        queue.add(append(3), WALL)
    from lake.distributed.staged_inputs import StagedInput, StagedObject
    from sennit_core.schema import Schema

    rows = StagedInput("r", Schema(()), (StagedObject("a" * 64, 11),))
    with pytest.raises(TooLarge):
        AppendQueue(bytes_max=10).add(append(3, inputs=(rows,)), WALL)
    with pytest.raises(Conflict):
        AppendQueue([append(1, state="refused")]).add(append(1), WALL)
    # The network is left.
    for effect in list(queue.close(Conflict("left"))):
        queue.apply(effect)
    assert {each.state for each in queue.in_order()} == {"refused"}


def test_appends_follow_each_other_without_a_wait_while_the_writer_answers() -> None:
    queue, ended = AppendQueue(append(number) for number in range(1, 21)), []
    outcomes: list[Outcome | NotSent] = [
        Made(1, 1),
        Refused({"code": "bad-input"}),
        Made(2, 1),
        NotSent({"code": "denied"}),
    ]
    for number in range(20):
        [each] = delivered(queue, now=5.0)
        for _ in range(3):  # as after a full disk, on which its end was not stored
            effect = queue.ended(each, outcomes[number % 4], 5.0)
        perform(queue, effect)
        queue.settled(each)
        ended.append(each)
    assert ended == [f"{number:026d}" for number in range(1, 21)]


def test_an_append_that_may_pass_later_waits_longer_each_time() -> None:
    queue, now, waits = AppendQueue([append(1)]), 0.0, []
    for _ in range(8):
        started = now
        while not (due := delivered(queue, now=now)):
            now += 1.0
        waits.append(now - started)
        perform(queue, queue.ended(due[0], Refused({"code": "busy"}), now))
        queue.settled(due[0])
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60]
