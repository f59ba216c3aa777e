"""What `platform net check` and `net map` find, in made-up networks and in real ones."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from lake.peers.copies.copy_states import CopyState
from lake.peers.members.health import (
    Contested,
    Finding,
    NodeState,
    SharedCopies,
    Surveyed,
    examine,
    examine_copies,
)
from lake.peers.members.reports import Answer, Dialed, Link, ReportReply, Reports
from lake.peers.members.roster import Member
from lake.peers.members.statuses import NodeStatus
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.machine import Call, Replied

from .peers_world import identity
from .test_peers_service import FAST, eventually

REACHED = ReportReply(0.0, (), (Dialed("127.0.0.1:8601"),))
FULL = CopyState(10, 0, 0, 0, {}, 2, 2)


def member(name: str) -> Member:
    return Member(name, name, "", admin=False, by="", since=0.0)


def node(name: str, state: str = "alive", **status: Any) -> NodeState:
    said = NodeStatus(name, 1, capacity=1 << 30, **{"addresses": ("127.0.0.1:8601",), **status})
    return NodeState(member(name), state, said, 0.001)


HEALTHY = Surveyed(
    (node("oslo"), node("rome")), False, {"rome": Answer(REACHED)},
    (SharedCopies("trips", "oslo", FULL),), 600.0, None, 0, (), (),
)  # fmt: skip


def problems(found: Surveyed) -> list[Finding]:
    return [finding for finding in examine(found) if not finding.ok]


def test_a_node_that_cannot_store_what_is_published_is_named() -> None:
    [finding] = problems(replace(HEALTHY, not_stored="no space left on device"))
    assert (finding.subject, finding.ok) == ("publications", False)
    assert "no space left" in finding.found


def test_a_dataset_that_two_nodes_publish_is_a_problem() -> None:
    [finding] = problems(replace(HEALTHY, contested=(Contested("trips", "rome", "oslo"),)))
    assert "oslo publishes it too" in finding.found
    assert "net revoke rome" in finding.remedy


def test_a_node_that_has_published_two_histories_is_named() -> None:
    [finding] = problems(replace(HEALTHY, forked={"rome"}))
    assert finding.subject == "publications of rome"
    assert "restored from a backup" in finding.found
    assert "fork" in finding.remedy


def test_a_dataset_of_a_node_that_was_removed_is_named_with_what_can_be_done() -> None:
    gone = replace(HEALTHY, orphaned=(("plans", "bern"),))
    assert problems(gone) == []  # else it would be one for ever
    [finding] = [each for each in examine(gone) if each.subject == "dataset plans"]
    assert "writer bern was removed" in finding.found
    assert "platform fork plans NEW" in finding.found
    assert "platform datasets plans --delete" in finding.found
    few = copies(replace(FULL, under_replicated=10, places=1))["datasets"]
    [found] = examine_copies(few, str, {"trips"})
    assert "platform fork trips NEW" in found.remedy


def test_a_healthy_network_has_no_problem() -> None:
    assert problems(HEALTHY) == []
    subjects = [finding.subject for finding in examine(HEALTHY)]
    assert subjects == [
        "this node's addresses", "node rome", "clocks", "versions", "dataset trips",
        "copies on oslo", "copies on rome", "damage",
    ]  # fmt: skip


def copies(state: CopyState) -> dict[str, Any]:
    return {"datasets": (SharedCopies("trips", "oslo", state),)}


SILENT = {"rome": Answer(None, code="unavailable", problem="it is asleep")}
UNREACHED = {"rome": Answer(replace(REACHED, dialed=(Dialed("127.0.0.1:8601", "refused"),)))}
OLDER = replace(node("rome"), cannot=("relay",))
FAULTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"answers": UNREACHED}, "this node's addresses", "refused", "network.peer_host"),
    ({"nodes": (node("oslo"), node("rome", "dead"))}, "node rome", "dead", "net revoke rome"),
    ({"nodes": (node("oslo"), node("rome", "unknown"))}, "node rome", "nothing", "start it"),
    ({"answers": {"rome": Answer(REACHED, 90.0)}}, "clocks", "1 m 30 s ahead", "timedatectl"),
    ({"answers": {"rome": Answer(REACHED, -90.0)}}, "clocks", "1 m 30 s behind", "timedatectl"),
    ({"nodes": (node("oslo"), OLDER)}, "versions", "with rome", "update"),
    (copies(replace(FULL, unavailable=3)), "dataset trips", "no node that answers has 3 of 10", "oslo writes it"),
    (
        copies(replace(FULL, under_replicated=4, lacking={"rome": 4})),
        "dataset trips", "too few copies of 4 of 10 shards; rome lacks 4", "net heal trips",
    ),
    (
        copies(replace(FULL, under_replicated=10, places=1)),
        "dataset trips", "offer room: 1, wanted: 2", "storage.copy_bytes",
    ),
    ({"no_room": "9 bytes are free"}, "disk", "9 bytes", "make room"),
    (
        {"nodes": (node("oslo"), node("rome", used=1 << 30))},
        "copies on rome", "1.0 GiB of 1.0 GiB", "storage.copy_bytes",
    ),
    ({"damaged": ("trips",), "quarantined": 1}, "damage", "1 damaged", "net heal"),
    ({"wrong": ("rome",)}, "wrong data", "rome sent", "platform verify"),
    ({"is_revoked": True}, "membership", "removed", "net leave"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "subject", "words", "remedy"), FAULTS)
def test_each_fault_is_found_with_what_to_do(
    fault: dict[str, Any], subject: str, words: str, remedy: str
) -> None:
    [found] = problems(replace(HEALTHY, **fault))
    assert found.subject == subject
    assert words in found.found
    assert remedy in found.remedy


def test_a_node_that_does_not_answer_is_a_problem_and_so_is_that_no_other_tries_the_address() -> (
    None
):
    found = problems(replace(HEALTHY, answers=SILENT))
    assert [each.subject for each in found] == ["this node's addresses", "node rome"]
    assert "it is asleep" in found[1].found


def test_an_older_version_without_reports_is_no_fault_of_its_own() -> None:
    older = {"rome": Answer(REACHED), "bern": Answer(None, code="unsupported", problem="no")}
    nodes = (*HEALTHY.nodes, node("bern"))
    assert problems(replace(HEALTHY, nodes=nodes, answers=older)) == []


@dataclass
class OnePeer:
    """A network in which one peer sends a given report."""

    report: ReportReply
    roster: Any = None
    members: Any = None
    sessions: Any = None

    def __post_init__(self) -> None:
        self.roster = self.members = self

    def is_member(self, node: str) -> bool:
        return node in ("oslo", "rome", "bern")

    def alive(self) -> list[str]:
        return ["rome"]

    def wall(self) -> float:
        return 100.0

    async def call(self, call: Call) -> Replied:
        return Replied(call.id, self.report)


def test_a_report_is_not_believed_about_nodes_that_are_no_members() -> None:
    links = (
        Link("bern", float("nan")), Link("evil", 0.1), Link("rome", 0.1), Link("oslo", 0.1, "evil"),
        Link("oslo", 0.2),
    )  # fmt: skip
    reports = Reports(OnePeer(ReportReply(190.0, links)))
    answers = asyncio.run(reports.ask_all(["rome"], dial=False))
    report = answers["rome"].report
    assert report is not None
    assert report.links == (Link("bern", None), Link("oslo", 0.2))
    assert answers["rome"].skew_seconds == 90.0


def start(stack: ExitStack, folder: Path, name: str, **options: Any) -> PeerService:
    (folder / name).mkdir()
    tree = stack.enter_context(ElkynStore(folder / name / "sys"))
    made = PeerOptions(name, membership=FAST, **options)
    return stack.enter_context(PeerService(identity(folder / name, "node"), tree, made))


def test_real_nodes_are_asked_and_dial_back(tmp_path: Path) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as unused:
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
        unused.close()
        oslo = start(stack, tmp_path, "oslo")
        # Only Oslo can be dialed: Rome announces an address at which nothing listens.
        rome = start(stack, tmp_path, "rome", announce=(closed,))
        bern = start(stack, tmp_path, "bern", host=None)
        for each in (rome, bern):
            each.join(oslo.invite())
        everyone = (oslo, rome, bern)
        alive = ["alive"] * 3
        eventually(lambda: all([n.state for n in each.nodes()] == alive for each in everyone))
        assert [each for each in oslo.check() if not each.ok] == []
        [unreached] = [each for each in rome.check() if not each.ok]
        assert unreached.subject == "this node's addresses"
        assert closed in unreached.found
        assert bern.check()[0].found.startswith("none")

        def relayed() -> dict[frozenset[str], str]:
            found = oslo.map()
            names = {each.member.id: each.member.name for each in found.nodes}
            return {
                frozenset(names[n] for n in link.nodes): names.get(link.relay, "")
                for link in found.links
            }

        expected = {("oslo", "rome"): "", ("oslo", "bern"): "", ("rome", "bern"): "oslo"}
        eventually(lambda: relayed() == {frozenset(k): via for k, via in expected.items()})

        [own, to_bern, to_oslo] = rome.nodes()
        assert (own.connection, own.heard_at) == (None, 0.0)
        assert to_bern.connection is not None
        assert to_bern.connection.relay == oslo.identity.id
        assert to_oslo.connection is not None
        assert to_oslo.connection.relay == ""
        assert min(to_oslo.connection.sent_bytes, to_oslo.connection.received_bytes) > 1000


@pytest.mark.parametrize(
    ("objects", "said"), [(1, "2 copies of its shard"), (10, "of each of its 10 shards")]
)
def test_a_single_shard_is_no_plural(objects: int, said: str) -> None:
    shared = copies(replace(FULL, objects=objects))["datasets"]
    [found] = examine_copies(shared, str)
    assert found.ok
    assert said in found.found
