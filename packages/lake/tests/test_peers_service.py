"""Real nodes in one process: founding, joining, accepting, revoking, leaving, restarting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from elkyn import ElkynStore
from lake.peers import joined
from lake.peers.members.membership import MembershipOptions
from lake.peers.service import PeerOptions, PeerService
from lake.peers.sharing.publications import EVERYONE, Publications
from lake.peers.transport.identity import fingerprint
from sennit_core.errors import BadInput, Conflict, Denied, NotFound, Unavailable, WaitingToJoin

from .peers_world import identity

# Not faster: on a busy machine nodes would suspect each other all the time.
FAST = MembershipOptions(
    period_seconds=0.4, answer_seconds=0.3, compare_seconds=0.5, settled_seconds=1.0
)
WAIT_SECONDS = 40.0


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail after a time that only a broken protocol needs."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)  # polls another process's state; not a wait for a fixed time


class Office:
    """The folder of a node, which can be started more than once."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder / name, name
        self.folder.mkdir()

    @contextmanager
    def running(self, port: int = 0) -> Iterator[PeerService]:
        options = PeerOptions(self.name, port=port, membership=FAST)
        with (
            ElkynStore(self.folder / "sys") as tree,
            PeerService(identity(self.folder, "node"), tree, options) as service,
        ):
            yield service


@pytest.fixture
def offices(tmp_path: Path) -> dict[str, Office]:
    return {name: Office(tmp_path, name) for name in ("oslo", "rome", "bern")}


@pytest.fixture
def nodes(offices: dict[str, Office]) -> Iterator[dict[str, PeerService]]:
    """Three nodes of one network, founded by Oslo."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(each.running()) for name, each in offices.items()}
        for name in ("rome", "bern"):
            found[name].join(found["oslo"].invite())
        eventually(lambda: all(states(each) <= {"alive", "suspect"} for each in found.values()))
        yield found


def states(service: PeerService) -> set[str]:
    found = service.nodes()
    return {node.state for node in found} if len(found) == 3 else {"incomplete"}


def publish(service: PeerService, dataset: str, audience: str) -> None:
    async def run() -> None:
        network = service._network
        assert network is not None
        network.put(network.logs.publish(dataset, {"name": dataset}, audience, []))

    service._call(run())


def heard(service: PeerService) -> set[str]:
    """What other nodes publish, as one knows it."""

    async def run() -> set[str]:
        assert service._network is not None
        return {dataset for _, dataset, _ in service._network.logs.items()}

    return service._call(run())


def test_a_node_without_a_network_listens_on_no_port(offices: dict[str, Office]) -> None:
    with offices["oslo"].running() as oslo:
        assert (oslo.port, oslo.nodes(), oslo.network_id) == (0, [], None)
        with pytest.raises(Conflict, match="no network"):
            oslo.leave()


def test_invited_nodes_find_each_other(nodes: dict[str, PeerService]) -> None:
    for service in nodes.values():
        assert {node.member.name for node in service.nodes()} == {"oslo", "rome", "bern"}
        assert service.nodes()[0].member.name == service.options.name


def test_an_invite_is_for_one_node(offices: dict[str, Office]) -> None:
    with offices["oslo"].running() as oslo, offices["rome"].running() as rome:
        text = oslo.invite()
        rome.join(text)
        with offices["bern"].running() as bern, pytest.raises(Denied, match="was used"):
            bern.join(text)
        with pytest.raises(BadInput, match="cut off"):
            rome.join("sennit-invite:x")
        with pytest.raises(Conflict, match="is in a network"):
            rome.join(oslo.invite())


def test_a_member_that_is_no_admin_invites_no_one(nodes: dict[str, PeerService]) -> None:
    with pytest.raises(Denied, match="admin") as refused:
        nodes["rome"].invite()
    assert refused.value.hint == "do it at node oslo"


@pytest.mark.parametrize(("name", "hint"), [("romme", '"rome"'), ("paris", "net nodes")])
def test_a_node_that_is_none_is_refused_with_what_to_do(
    nodes: dict[str, PeerService], name: str, hint: str
) -> None:
    with pytest.raises(NotFound) as refused:
        nodes["oslo"].revoke(name)
    assert hint in (refused.value.hint or "")


def test_a_node_is_accepted_by_its_fingerprint(offices: dict[str, Office]) -> None:
    with offices["oslo"].running() as oslo, offices["rome"].running() as rome:
        oslo.invite()
        address, node = f"127.0.0.1:{oslo.port}", oslo.identity.id
        with pytest.raises(WaitingToJoin, match="accept"):
            rome.ask_to_join(address, node, wait_seconds=0)
        [waiting] = oslo.waiting()
        with pytest.raises(NotFound):
            oslo.accept(waiting.fingerprint[:8])
        asking = Thread(target=rome.ask_to_join, args=(address, node), kwargs={"wait_seconds": 15})
        asking.start()
        assert oslo.accept(waiting.fingerprint).name == "rome"
        asking.join()
        assert rome.network_id


def test_a_node_that_joins_with_an_invite_waits_no_more(offices: dict[str, Office]) -> None:
    with offices["oslo"].running() as oslo, offices["rome"].running() as rome:
        invite = oslo.invite()
        with pytest.raises(WaitingToJoin):
            rome.ask_to_join(f"127.0.0.1:{oslo.port}", oslo.identity.id, wait_seconds=0)
        assert [each.name for each in oslo.waiting()] == ["rome"]
        rome.join(invite)
        assert oslo.waiting() == []


def test_a_node_that_asks_in_time_is_accepted_at_once(offices: dict[str, Office]) -> None:
    """Others may have displaced it from the list, which anybody can fill."""
    with offices["oslo"].running() as oslo, offices["rome"].running() as rome:
        oslo.invite()
        with ThreadPoolExecutor(1) as threads:
            accepting = threads.submit(oslo.accept, fingerprint(rome.identity.id))
            address, node = f"127.0.0.1:{oslo.port}", oslo.identity.id
            with suppress(WaitingToJoin):
                rome.ask_to_join(address, node, wait_seconds=0)
            assert accepting.result().name == "rome"


def test_a_fingerprint_of_no_node_is_refused(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "_ACCEPT_SECONDS", 0.05)
    with offices["oslo"].running() as oslo:
        oslo.invite()
        with pytest.raises(NotFound, match="waits to join"):
            oslo.accept("f" * 32)


def test_a_revoked_node_is_out_for_all(nodes: dict[str, PeerService]) -> None:
    nodes["oslo"].revoke("bern")
    eventually(lambda: len(nodes["rome"].nodes()) == 2)
    assert {node.member.name for node in nodes["rome"].nodes()} == {"oslo", "rome"}


def test_a_node_that_leaves_is_seen_to(nodes: dict[str, PeerService]) -> None:
    nodes["bern"].leave()
    assert nodes["bern"].network_id is None
    eventually(lambda: "left" in states(nodes["oslo"]) and "left" in states(nodes["rome"]))


def test_a_node_that_dies_is_seen_to_and_comes_back(offices: dict[str, Office]) -> None:
    with offices["oslo"].running() as oslo:
        with offices["rome"].running() as rome:
            rome.join(oslo.invite())
            eventually(lambda: [n.state for n in oslo.nodes()] == ["alive", "alive"])
            heard_at = oslo.nodes()[1].heard_at
        eventually(lambda: [n.state for n in oslo.nodes()] == ["alive", "dead"])
        dead = oslo.nodes()[1]
        assert dead.connection is None
        assert heard_at <= dead.heard_at <= time.time()
        with offices["rome"].running() as rome:
            eventually(lambda: [n.state for n in oslo.nodes()] == ["alive", "alive"])
            assert rome.network_id


def test_what_is_published_reaches_all_that_may_know_it(nodes: dict[str, PeerService]) -> None:
    publish(nodes["oslo"], "open", EVERYONE)
    publish(nodes["oslo"], "secret", nodes["rome"].identity.id)
    eventually(lambda: heard(nodes["rome"]) == {"open", "secret"})
    eventually(lambda: heard(nodes["bern"]) == {"open"})


def test_a_node_that_comes_back_hears_at_once_what_it_missed(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It and the others compare what they know when they connect, not at their next turn."""
    monkeypatch.setattr(Publications, "tick", lambda _self, _now, _alive: iter(()))
    with offices["oslo"].running() as oslo:
        with offices["rome"].running() as rome:
            rome.join(oslo.invite())
        publish(oslo, "missed", EVERYONE)
        with offices["rome"].running() as rome:
            eventually(lambda: heard(rome) == {"missed"})


def test_what_is_open_and_refused_is_counted(nodes: dict[str, PeerService]) -> None:
    oslo = nodes["oslo"].counters()
    assert oslo.sessions >= 2
    assert (oslo.refused_connections, oslo.refused_messages, oslo.dropped_messages) == (0, 0, 0)


def test_a_seed_that_is_gone_is_unavailable(offices: dict[str, Office]) -> None:
    with offices["oslo"].running() as oslo:
        text = oslo.invite()
    with offices["rome"].running() as rome, pytest.raises(Unavailable):
        rome.join(text)
