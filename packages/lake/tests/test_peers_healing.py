"""`platform net heal` and `net leave`: copies are made now, and what cannot be made is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from lake.peers.copies import healing
from lake.peers.copies.copies import CopyOptions
from lake.peers.copies.healing import HealReport, heal
from lake.peers.copies.placement import Placement
from lake.peers.copies.repairs import RepairRequest, Repairs
from lake.peers.copies.replication import ReplicationOptions
from lake.peers.members import leaving
from lake.peers.members.leaving import leave
from sennit_core.errors import Busy, NotFound

from .real_offices import Office, joined_offices
from .test_peers_service import eventually


@dataclass
class FakeNetwork:
    """A node that sees one dead node, and counts how often its copies are looked at."""

    time: float = 100.0
    looks: int = 0
    peers: dict[str, Any] = field(
        default_factory=lambda: {"rome": SimpleNamespace(state="dead", since=90.0, stays=True)}
    )

    @property
    def members(self) -> Any:
        return self

    def now(self) -> float:
        return self.time

    @property
    def copies(self) -> Any:
        return SimpleNamespace(loss_seconds=600.0, replication=self)

    def ask_again(self, _now: float) -> None:
        self.looks += 1


async def ask(repairs: Repairs) -> None:
    session: Any = None  # it is not looked at
    await repairs.serve(session, RepairRequest(), b"")


def test_a_dead_node_is_given_up_at_a_request_until_it_is_back() -> None:
    network: Any = FakeNetwork()
    repairs = Repairs(network, network.copies)
    assert repairs.awaited(network.time) == ["rome"]
    asyncio.run(ask(repairs))
    assert repairs.awaited(network.time) == []
    network.peers["rome"].state = "alive"
    assert repairs.awaited(network.time) == []
    network.peers["rome"] = SimpleNamespace(state="dead", since=170.0, stays=True)
    assert repairs.awaited(network.time) == ["rome"]
    assert repairs.awaited(771.0) == []
    network.peers["rome"] = SimpleNamespace(state="dead", since=700.0, stays=False)
    assert repairs.awaited(711.0) == []


def test_a_node_that_was_suspected_or_alive_at_the_request_is_given_up_once_it_is_dead() -> None:
    network: Any = FakeNetwork()
    repairs = Repairs(network, network.copies)
    network.peers["rome"].state = "suspect"
    asyncio.run(ask(repairs))
    assert repairs.awaited(network.time) == []
    network.peers["rome"] = SimpleNamespace(state="dead", since=112.0, stays=True)
    assert repairs.awaited(112.0) == []
    # One that dies long after the request may come back.
    network.peers["bern"] = SimpleNamespace(state="dead", since=180.0, stays=True)
    assert repairs.awaited(181.0) == ["bern"]


def test_a_peer_that_asks_all_the_time_is_refused() -> None:
    network: Any = FakeNetwork()
    repairs = Repairs(network, network.copies)
    for _ in range(8):
        asyncio.run(ask(repairs))
    with pytest.raises(Busy):
        asyncio.run(ask(repairs))
    assert network.looks == 8
    network.time += 2.0
    asyncio.run(ask(repairs))


PATIENT = CopyOptions(ReplicationOptions(plan_seconds=0.3, confirm_seconds=3.0, loss_seconds=600.0))


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    with joined_offices(tmp_path, PATIENT) as found:
        yield found


def healed(at: Office, dataset: str | None = None) -> HealReport:
    *_, last = heal(at.peers, at.lake.scrub, dataset, Event())
    assert last.done
    return last


def become_settled(offices: dict[str, Office]) -> None:
    """Wait until each node has a copy: they count for placement some seconds after they joined."""
    eventually(lambda: all("trips" in o.names() and o.has_all("trips") for o in offices.values()))


def is_dead(node: Office, name: str) -> bool:
    return any(n.member.name == name and n.state == "dead" for n in node.peers.nodes())


def damage(node: Office, name: str) -> None:
    path = node.lake.objects.place(name)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow  # real nodes with executors, and times of the protocols
def test_a_lost_copy_is_made_elsewhere_without_waiting(offices: dict[str, Office]) -> None:
    oslo, others = offices["oslo"], [offices["rome"], offices["bern"]]
    oslo.peers.share("trips", None, Placement(2))
    eventually(lambda: any("trips" in each.names() and each.has_all("trips") for each in others))
    # The surplus of the first seconds is dropped: one of the two holds the second copy.
    eventually(lambda: sum(each.has_all("trips") for each in others) == 1)
    holder, other = sorted(others, key=lambda each: not each.has_all("trips"))
    name = holder.peers.options.name
    holder.peers.close()
    eventually(lambda: is_dead(oslo, name) and is_dead(other, name))
    report = healed(oslo, "trips")
    assert (report.problems, report.is_whole) == ((), True)
    assert other.has_all("trips")


@pytest.mark.slow  # real nodes with executors, and times of the protocols
def test_the_writer_s_damaged_shard_comes_back_from_a_copy(offices: dict[str, Office]) -> None:
    oslo = offices["oslo"]
    oslo.peers.share("trips", None, Placement(3))
    become_settled(offices)
    [shard] = oslo.lake.catalog.manifest("trips").snapshot.shards
    damage(oslo, shard.object)
    report = healed(oslo)
    assert (report.damaged, report.problems, report.is_whole) == (1, (), True)
    oslo.lake.objects.verify(shard.object)


def names_of(node: Office) -> set[str]:
    return {each.member.name for each in node.peers.nodes() if each.state == "alive"}


@pytest.mark.slow  # real nodes with executors, and times of the protocols
def test_a_writer_leaves_when_others_have_its_shards_and_stays_if_none_may(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    oslo.peers.share("trips", ["rome"], Placement(1))
    eventually(lambda: "trips" in rome.names())
    assert not rome.has_all("trips")
    # Bern has nothing of it and leaves at once.
    *_, last = leave(offices["bern"].peers, 30.0, Event())
    assert (last.left, last.objects) == (True, 0)
    oslo.peers.share("trips", ["rome"], Placement(1, only=(oslo.peers.identity.id,)))
    monkeypatch.setattr(leaving, "_HOPELESS_SECONDS", 1.0)
    *_, last = leave(oslo.peers, 30.0, Event())
    assert (last.left, last.done, last.waiting, last.datasets) == (False, True, 1, ("trips",))
    eventually(lambda: "oslo" in names_of(rome))
    monkeypatch.setattr(leaving, "_HOPELESS_SECONDS", 30.0)
    oslo.peers.share("trips", ["rome"], Placement(1))
    *_, last = leave(oslo.peers, 30.0, Event())
    assert last.left
    assert oslo.peers.network_id is None
    assert rome.has_all("trips")
    assert rome.query("SELECT sum(id) FROM trips") == [(6,)]


@pytest.mark.slow  # real nodes with executors, and times of the protocols
def test_a_node_whose_owner_interrupts_it_stays(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    oslo.peers.share("trips", ["rome"], Placement(1, only=(oslo.peers.identity.id,)))
    eventually(lambda: oslo.peers.shared.copies())
    stop = Event()
    reports = leave(oslo.peers, 30.0, stop)
    assert next(reports).waiting == 1
    eventually(lambda: any(each.state == "leaving" for each in rome.peers.nodes()))
    stop.set()
    assert [each.left for each in reports] == [False]
    eventually(lambda: "oslo" in names_of(rome))
    assert oslo.peers.network_id


@pytest.mark.slow  # real nodes with executors, and times of the protocols
def test_what_cannot_be_repaired_is_named(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo = offices["oslo"]
    with pytest.raises(NotFound, match="shared dataset"):
        healed(oslo, "trips")
    monkeypatch.setattr(healing, "_HOPELESS_SECONDS", 1.0)
    oslo.peers.share("trips", None, Placement(4))
    become_settled(offices)
    eventually(lambda: all(c.state.places == 3 for c in oslo.peers.shared.copies().values()))
    [problem] = healed(oslo).problems
    assert "offer room: 3, wanted: 4" in problem.found
