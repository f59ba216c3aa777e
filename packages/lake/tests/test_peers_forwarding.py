"""The protocol of changes at other nodes, simulated: each is made once, whatever is lost or crashes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from lake.catalog.node_key import NodeKey
from lake.distributed.receipts import Receipt
from lake.peers.changes import forwarding
from lake.peers.changes.claims import Claims
from lake.peers.changes.forwarding import (
    ChangeLedger,
    ChangeReply,
    ChangeRequest,
    ChangeSender,
    Made,
    Refused,
    Step,
    Unknown,
    Unreached,
)
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from lake.peers.transport.messages import Message, MessageCodec
from lake.statements.limits import Requester
from lake.testing.simulation import Disk, Faults, Simulation
from sennit_core.errors import BadInput, Busy, Conflict, DeadlineExceeded, Denied

CODEC = MessageCodec(forwarding.MESSAGES)
WALL = 1_800_000_000.0


def no_receipts(_key: str) -> Receipt | None:
    return None


def request(
    number: int, sql: str = "DELETE FROM t", *, expires_at: float = WALL + 900
) -> ChangeRequest:
    return ChangeRequest(f"{number:026d}", "dataset", "t", sql, "", 60.0, expires_at)


class WriterNode:
    """Commits a change and its receipt in one write to its disk."""

    def __init__(self, disk: Disk, simulation: Simulation) -> None:
        self._disk, self._simulation = disk, simulation
        disk.setdefault("made", [])
        self._ledger = ChangeLedger(disk.setdefault("receipts", {}).get)

    def tick(self, now: float) -> Iterable[Effect]:
        return ()

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        return ()

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        assert isinstance(message, ChangeRequest)
        begun = self._ledger.begin(peer, message, WALL + now)
        if begun is Step.RUN:
            if self._simulation.random.random() < 0.1:
                self._ledger.end(peer, message)
                return ChangeReply(error=Denied("changing it").to_json()), b""
            key = self._ledger.key(peer, message.id)
            receipt = Receipt(message.dataset, message.digest, 1, message.expires_at)
            self._disk["receipts"][key] = receipt
            self._disk["made"].append(key)
            self._ledger.end(peer, message)
        return ChangeReply(len(self._disk["made"]), 1), b""

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        return ()


class SenderNode:
    """Sends one change after the other."""

    def __init__(self, name: str, outcomes: dict[str, object]) -> None:
        self._name, self._outcomes = name, outcomes
        self._sender: ChangeSender | None = None
        self._request = request(0)

    def tick(self, now: float) -> Iterable[Effect]:
        if self._sender is not None and self._sender.outcome is not None:
            self._outcomes[f"{self._name}_{self._request.id}"] = self._sender.outcome
            self._sender = None
        if self._sender is None:
            self._request = request(len(self._outcomes) + 1, expires_at=WALL + now + 900)
            self._sender = ChangeSender("w", self._request, now=now, answer_seconds=2.0)
            # Numbers of requests are those of a process in the simulation.
        return list(self._sender.tick(now))

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        return ()

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        raise AssertionError

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        assert self._sender is not None
        if isinstance(result, Replied):
            self._sender.replied(result)
        else:
            self._sender.failed(result, now)
        return ()


def play(seed: int) -> tuple[dict[str, object], list[str]]:
    """Return how the changes of two nodes ended, and the keys of those that were made."""
    simulation = Simulation(seed, CODEC, Faults(call_loss=0.25, clock_skew_seconds=30.0))
    outcomes: dict[str, object] = {}
    disks: list[Disk] = []

    def writer(disk: Disk) -> WriterNode:
        disks[:] = [disk]
        return WriterNode(disk, simulation)

    simulation.add("w", writer)
    for name in ("a", "b"):
        simulation.add(name, lambda _disk, name=name: SenderNode(name, outcomes))  # type: ignore[misc]
    for at in (20, 50, 80):
        simulation.at(at, lambda: simulation.crash("w"))
        simulation.at(at + simulation.random.uniform(0.1, 15), lambda: simulation.restart("w"))
    simulation.at(95, lambda: simulation.partition(["a", "b"], ["w"]))
    simulation.at(96, lambda: simulation.partition())
    simulation.run(150.0)
    return outcomes, disks[0]["made"]


@pytest.mark.parametrize("seed", range(50))
def test_a_change_is_made_once(seed: int) -> None:
    outcomes, made = play(seed)
    assert len(outcomes) > 50
    assert len(set(made)) == len(made)
    for key, outcome in outcomes.items():
        if isinstance(outcome, Made):
            assert key in made
        elif isinstance(outcome, Refused):
            assert key not in made


def test_some_answers_are_lost_in_these_histories() -> None:
    found = [outcome for seed in range(10) for outcome in play(seed)[0].values()]
    assert {type(each) for each in found} >= {Made, Refused}


# The sender


def asked(sender: ChangeSender, now: float) -> Call:
    [call] = sender.tick(now)
    assert isinstance(call, Call)
    return call


def test_a_writer_that_is_not_reached_has_changed_nothing() -> None:
    sender = ChangeSender("w", request(1), now=0.0, answer_seconds=60.0)
    now = 0.0
    while sender.outcome is None:
        for call in sender.tick(now):
            assert isinstance(call, Call)
            sender.failed(Failed(call.id, ChangeSender.UNREACHED), now)
        now += 0.25
    assert sender.outcome == Unreached()
    assert 3.0 <= now < 10.0


def test_an_answer_that_never_comes_leaves_it_open() -> None:
    sender = ChangeSender("w", request(1), now=0.0, answer_seconds=60.0)
    sender.failed(Failed(asked(sender, 0.0).id, "unavailable"), 0.0)
    now = 0.0
    while sender.outcome is None:
        now += 1.0
        for call in sender.tick(now):
            assert isinstance(call, Call)
            sender.failed(Failed(call.id, ChangeSender.UNREACHED), now)
    assert sender.outcome == Unknown()
    assert 30.0 <= now < 40.0


@pytest.mark.parametrize("code", ["unsupported", "denied", "bad-input"])
def test_what_is_refused_at_once_was_not_made_unless_it_was_sent_before(code: str) -> None:
    sender = ChangeSender("w", request(1), now=0.0, answer_seconds=60.0)
    sender.failed(Failed(asked(sender, 0.0).id, code, "why"), 0.0)
    assert sender.outcome == Refused({"code": code, "error": "why"})
    again = ChangeSender("w", request(1), now=0.0, answer_seconds=60.0)
    again.failed(Failed(asked(again, 0.0).id, "unavailable"), 0.0)
    again.failed(Failed(asked(again, 1.0).id, code, "why"), 1.0)
    assert again.outcome == Unknown()


def test_a_repetition_with_another_claim_is_the_same_request(tmp_path: Path) -> None:
    first, claims = request(1), Claims(NodeKey(tmp_path / "key"), "network")
    claim = claims.sign(Requester("ann"), "w", first, WALL)
    assert replace(first, claim=claim).digest == first.digest != request(2).digest


def test_a_late_answer_to_an_earlier_request_is_not_one_to_the_next() -> None:
    sender = ChangeSender("w", request(1), now=0.0, answer_seconds=60.0)
    first = asked(sender, 0.0)
    sender.failed(Failed(first.id, "deadline-exceeded"), 1.0)
    second = asked(sender, 2.0)
    sender.replied(Replied(first.id, ChangeReply(1, 1)))
    assert sender.outcome is None
    sender.replied(Replied(second.id, ChangeReply(2, 1)))
    assert sender.outcome == Made(2, 1)


# The writer


def receipt(of: ChangeRequest) -> Receipt:
    return Receipt(of.dataset, of.digest, 3, of.expires_at)


def test_a_request_runs_once_and_then_has_its_receipt() -> None:
    receipts: dict[str, Receipt] = {}
    ledger, asked_for = ChangeLedger(receipts.get), request(1)
    assert ledger.begin("a", asked_for, WALL) is Step.RUN
    assert ledger.begin("a", asked_for, WALL) is Step.JOIN
    receipts[ledger.key("a", asked_for.id)] = receipt(asked_for)
    ledger.end("a", asked_for)
    assert ledger.begin("a", asked_for, WALL + 10_000) == receipt(asked_for)
    # The ids of one node are not those of another.
    assert ledger.begin("b", asked_for, WALL) is Step.RUN


def test_an_id_names_one_change() -> None:
    receipts: dict[str, Receipt] = {}
    ledger, first, other = ChangeLedger(receipts.get), request(1), request(1, "TRUNCATE t")
    assert ledger.begin("a", first, WALL) is Step.RUN
    with pytest.raises(Conflict):
        ledger.begin("a", other, WALL)
    receipts[ledger.key("a", first.id)] = receipt(first)
    ledger.end("a", first)
    with pytest.raises(Conflict):
        ledger.begin("a", other, WALL)


@pytest.mark.parametrize("expires_at", [WALL - 1, WALL + 15 * 24 * 3600])
def test_an_expired_request_is_not_made_and_none_lives_for_long(expires_at: float) -> None:
    with pytest.raises(DeadlineExceeded):
        ChangeLedger(no_receipts).begin("a", request(1, expires_at=expires_at), WALL)


def test_one_node_does_not_keep_the_others_waiting() -> None:
    ledger = ChangeLedger(no_receipts, running_max=3, of_node_max=2)
    for number in range(2):
        ledger.begin("a", request(number), WALL)
    with pytest.raises(Busy):
        ledger.begin("a", request(2), WALL)
    assert ledger.begin("b", request(2), WALL) is Step.RUN
    with pytest.raises(Busy):
        ledger.begin("c", request(3), WALL)
    ledger.end("a", request(0))
    assert ledger.begin("c", request(3), WALL) is Step.RUN


@pytest.mark.parametrize(
    "member",
    [{"id": "x"}, {"sql": "x" * 200_000}, {"name": ""}, {"seconds": 1e9}],
)
def test_a_request_out_of_range_is_refused(member: dict[str, object]) -> None:
    document = {**request(1).to_json(), **member}
    with pytest.raises(BadInput):
        ChangeRequest.from_known(document).check()
