"""Limits of what is copied: bytes in a second, hours of the day, on both sides; queries do not wait."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from lake.peers.copies import bandwidth as bandwidth_module
from lake.peers.copies.bandwidth import CopyBandwidth, Hours
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply, ListRequest
from lake.peers.copies.copies import CopyOptions
from lake.peers.copies.placement import Placement
from lake.peers.copies.replication import ReplicationOptions
from lake.peers.copies.transfers import FindKept, Transfers, WriteChunk
from lake.peers.transport.machine import Call, Failed, Replied
from sennit_core.errors import UsageError
from sennit_core.hashing import object_id
from sennit_core.testing import ManualClock
from sennit_core.units import KIB, MIB

from .real_offices import Office, joined_offices
from .test_peers_service import eventually

RATE = 256 * KIB
CHUNK = MIB


def test_hours_may_pass_midnight_and_be_several() -> None:
    hours = Hours.parse("22:00-06:30, 12:00-13:00")
    open_at = [h for h in range(24) if hours.include(h * 60)]
    assert open_at == [0, 1, 2, 3, 4, 5, 6, 12, 22, 23]
    assert not hours.include(6 * 60 + 30)
    assert Hours.parse("").include(0)
    assert Hours.parse("00:00-24:00").include(23 * 60 + 59)


@pytest.mark.parametrize(
    "text", ["22-6", "22:00", "24:00-06:00", "22:00-24:30", "06:00-06:00", "a", ",", "22:00-06:00,"]
)
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no hours"):
        Hours.parse(text)


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_hours_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(datetime.fromisoformat("2026-01-05T21:59:00+09:00").timestamp())
    bandwidth = CopyBandwidth(0, Hours.parse("22:00-06:00"), clock)
    assert not bandwidth.may_send("rome", 1)
    clock.advance(60)
    assert bandwidth.may_send("rome", 1)
    clock.advance(8 * 3600)
    assert not bandwidth.may_receive(1)


def test_each_direction_has_its_own_limit() -> None:
    clock = ManualClock()
    bandwidth = CopyBandwidth(RATE, None, clock)
    counted = {"sent": 0, "received": 0}
    for _ in range(4000):
        clock.advance(0.01)
        counted["sent"] += 10 * KIB * bandwidth.may_send("rome", 10 * KIB)
        counted["received"] += 10 * KIB * bandwidth.may_receive(10 * KIB)
    for size in counted.values():
        assert 40 * RATE - 10 * KIB <= size <= 40 * RATE + MIB


def test_a_peer_that_calls_all_urgent_gets_no_more_than_its_share() -> None:
    clock = ManualClock()
    bandwidth = CopyBandwidth(RATE, None, clock)
    sent = {"greedy": 0, "modest": 0}
    while sent["greedy"] < bandwidth_module.URGENT_BYTES:  # as it may, for its queries
        sent["greedy"] += CHUNK * bandwidth.may_send("greedy", CHUNK, is_urgent=True)
    sent["greedy"] = 0
    for step in range(20_000):
        clock.advance(0.05)
        sent["greedy"] += CHUNK * bandwidth.may_send("greedy", CHUNK, is_urgent=True)
        if step % 40 == 0:  # a peer that was refused waits for two seconds
            sent["modest"] += CHUNK * bandwidth.may_send("modest", CHUNK)
    urgent = 1000 * bandwidth_module.URGENT_BYTES / bandwidth_module.URGENT_SECONDS
    assert sum(sent.values()) <= 1000 * RATE + urgent + 2 * CHUNK
    assert sent["modest"] >= 0.4 * 1000 * RATE
    assert sent["greedy"] - urgent >= 0.4 * 1000 * RATE  # and no less


def test_a_peer_that_is_refused_and_does_not_come_back_holds_up_no_other() -> None:
    clock = ManualClock()
    bandwidth = CopyBandwidth(RATE, None, clock)
    assert bandwidth.may_send("rome", CHUNK)
    assert not bandwidth.may_send("gone", CHUNK)
    clock.advance(4)
    assert not bandwidth.may_send("rome", CHUNK)
    clock.advance(2)
    assert bandwidth.may_send("rome", CHUNK)


class OnePeer:
    """A peer that has two objects of zeros, and answers at once, or is busy."""

    def __init__(self, chunks: int) -> None:
        digest = hashlib.sha256(bytes(CHUNK)).hexdigest()
        self.digests = (digest,) * chunks
        self.size = chunks * CHUNK
        self.name = object_id(self.size, CHUNK, self.digests)
        self.background = self.urgent = 0
        self.is_busy = False

    def answer(self, call: Call) -> Replied | Failed:
        message = call.message
        if isinstance(message, ListRequest):
            body = bytes.fromhex("".join(self.digests))
            return Replied(call.id, ListReply(self.size, CHUNK), body)
        assert isinstance(message, ChunkRequest)
        if message.background and self.is_busy:
            return Failed(call.id, "busy", "it sends no more copies now")
        if message.background:
            self.background += CHUNK
        else:
            self.urgent += CHUNK
        return Replied(call.id, Chunk(), bytes(CHUNK))


def step(transfers: Transfers, peer: OnePeer, effect: object, now: float) -> list[object]:
    """Perform an effect; return those that it leads to."""
    match effect:
        case Call():
            result = peer.answer(effect)
            if isinstance(result, Replied):
                return transfers.replied(result, now)
            return transfers.failed(result, now)
        case FindKept():
            return transfers.found_kept(effect, {}, now)
        case WriteChunk():
            return transfers.written(effect, is_right=True, now=now)
    return []


def run(transfers: Transfers, peer: OnePeer, clock: ManualClock, seconds: float) -> None:
    """Let time pass; requests are answered, and files written, at once."""
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        effects = transfers.tick(clock.monotonic())
        while effects:
            effects += step(transfers, peer, effects.pop(0), clock.monotonic())
        clock.advance(0.25)


def test_copies_come_as_fast_as_allowed_and_queries_at_once() -> None:
    clock, peer = ManualClock(), OnePeer(40)
    transfers = Transfers(None, CopyBandwidth(RATE, None, clock), now=clock.monotonic())
    for number in range(6):  # more than are fetched at the same time
        transfers.want(f"copied{number}", peer.name, ["rome"])
    run(transfers, peer, clock, 60)
    assert 60 * RATE - CHUNK <= peer.background <= 60 * RATE + 2 * CHUNK
    transfers.want("queried", peer.name, ["rome"], priority=-1.0)
    run(transfers, peer, clock, 1)
    assert peer.urgent == peer.size
    # A query that needs one of the copies does not wait for the rest of it either.
    transfers.want("copied0", peer.name, ["rome"], priority=-1.0)
    run(transfers, peer, clock, 1)
    assert ("copied0", peer.name) not in transfers.objects


def test_a_peer_without_bandwidth_is_asked_again_later_and_not_given_up() -> None:
    clock, peer = ManualClock(), OnePeer(2)
    transfers = Transfers(None, CopyBandwidth(RATE, None, clock), now=clock.monotonic())
    peer.is_busy = True
    transfers.want("copied", peer.name, ["rome"])
    run(transfers, peer, clock, 600)
    assert list(transfers.objects) == [("copied", peer.name)]
    peer.is_busy = False
    # What was refused has taken none of the bandwidth.
    run(transfers, peer, clock, 8)
    assert peer.background == peer.size


def closed_now() -> Hours:
    hour = datetime.now().hour  # noqa: DTZ005 - local, as the setting
    return Hours.parse(f"{(hour + 6) % 24:02}:00-{(hour + 7) % 24:02}:00")


PLAN = ReplicationOptions(plan_seconds=0.3, confirm_seconds=3.0)


@pytest.mark.slow  # real nodes with executors, and times of the protocols
def test_outside_of_its_hours_a_node_sends_no_copy_and_answers_queries(tmp_path: Path) -> None:
    with joined_offices(tmp_path, CopyOptions(PLAN, hours=closed_now())) as offices:
        oslo, rome = offices["oslo"], offices["rome"]
        oslo.peers.share("trips", ["rome"], Placement(2))
        eventually(lambda: "trips" in rome.names())
        eventually(lambda: rome.peers.shared.states() and rome_wants(rome))
        assert not rome.has_all("trips")
        assert rome.query("SELECT sum(id) FROM trips AT (VERSION => 1)") == [(6,)]


def rome_wants(rome: Office) -> bool:
    """Whether Rome is to hold a copy, has the list of its chunks, and waits with these."""
    return rome.peers.repairs.missing_chunks() > 0
