"""A dataset that is handed from one node to another over HTTP and by the verbs; then both ways of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from opened_node import OpenNode, open_node

from elytra.client.transport import wait_for
from lake.peers.handovers.accepting import Taker
from sennit.cli.share_verbs import _lines
from sennit_core.errors import Unavailable

pytestmark = pytest.mark.slow  # two nodes, which find each other
TRIPS = "/api/datasets/trips"


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenNode, OpenNode]]:
    """Oslo, which shares its trips, and Rome."""
    with ExitStack() as stack:
        oslo, rome = (
            stack.enter_context(open_node(tmp_path_factory.mktemp(name), {"network.name": name}))
            for name in ("oslo", "rome")
        )
        invite = oslo.client.post("/api/network/invites", json={}).json()["invite"]
        assert rome.client.post("/api/network/join", json={"invite": invite}).status_code == 200
        oslo.upload("trips.csv", b"city,km\nOslo,5\nRome,2\n")
        assert oslo.client.put(f"{TRIPS}/sharing", json={"nodes": ["rome"]}).is_success
        until(lambda: rome.client.get("/api/datasets").json())
        yield oslo, rome


def until(condition: Callable[[], object]) -> None:
    wait_for(lambda: condition() or None, what="what the other node does", seconds=30)


def sharing(node: OpenNode) -> dict[str, Any]:
    found: dict[str, Any] = node.client.get(f"{TRIPS}/sharing").json()
    return found


def insert(node: OpenNode, km: int) -> int:
    sql = f"INSERT INTO trips VALUES ('Bern', {km})"
    return node.client.post("/api/query", json={"sql": sql}).status_code


def total(node: OpenNode) -> int:
    answer = node.client.post("/api/query", json={"sql": "SELECT sum(km) FROM trips"})
    return int(answer.json()["rows"][0][0])


def test_a_dataset_is_handed_over(nodes: tuple[OpenNode, OpenNode]) -> None:
    oslo, rome = nodes
    not_offered = rome.client.post(f"{TRIPS}/hand-over/accept")
    assert (not_offered.status_code, not_offered.json()["code"]) == (404, "not-found")
    assert oslo.client.put(f"{TRIPS}/hand-over", json={"node": "bern"}).status_code == 404
    offered = oslo.client.put(f"{TRIPS}/hand-over", json={"node": "rome"})
    assert offered.json()["handOver"] == {"state": "offered", "node": "rome"}, offered.text
    undone = oslo.client.delete(f"{TRIPS}/hand-over").json()
    assert undone["handOver"] is None
    assert oslo.client.delete(f"{TRIPS}/hand-over").status_code == 409
    assert oslo.client.put(f"{TRIPS}/hand-over", json={"node": "rome"}).is_success
    assert any("platform accept-hand-over trips" in line for line in _lines("trips", sharing(oslo)))
    with rome.client_of("writer") as writer:
        assert writer.post(f"{TRIPS}/hand-over/accept").status_code == 403
    taken = rome.client.post(f"{TRIPS}/hand-over/accept")
    assert taken.status_code == 202, taken.text
    until(lambda: sharing(rome)["writer"] is None)
    found = sharing(rome)
    assert (found["nodes"], found["readOnly"], found["handOver"]) == (["oslo"], False, None)
    until(lambda: sharing(oslo)["handOver"] is None)
    assert sharing(oslo)["writer"] == "rome"
    # Each of them changes it, Oslo by a statement that Rome runs now.
    assert insert(rome, 10) == 200
    until(lambda: total(oslo) == 17)
    assert insert(oslo, 100) == 200
    assert total(oslo) == total(rome) == 117
    # And back.
    assert rome.client.put(f"{TRIPS}/hand-over", json={"node": "oslo"}).is_success
    assert oslo.client.post(f"{TRIPS}/hand-over/accept").status_code == 202
    until(lambda: sharing(oslo)["writer"] is None)
    until(lambda: sharing(rome)["writer"] == "oslo")
    assert insert(oslo, 1000) == 200
    until(lambda: total(rome) == 1117)


def test_the_quota_of_the_new_owner_is_asked_first(nodes: tuple[OpenNode, OpenNode]) -> None:
    oslo, rome = nodes
    assert oslo.client.put(f"{TRIPS}/hand-over", json={"node": "rome"}).is_success
    assert rome.client.put("/api/quotas/anna", json={"diskBytes": 100}).is_success
    refused = rome.client.post(f"{TRIPS}/hand-over/accept", json={"owner": "anna"})
    assert (refused.status_code, refused.json()["code"]) == (507, "storage-full")
    assert "user 'anna' may store 100 B" in refused.json()["error"]
    assert "too many" in refused.json()["error"]
    assert sharing(rome)["handOver"] is None
    assert sharing(oslo)["handOver"] == {"state": "offered", "node": "rome"}
    assert insert(oslo, 10) == 200
    no_user = rome.client.post(f"{TRIPS}/hand-over/accept", json={"owner": "*@*"})
    assert no_user.json()["code"] == "usage"
    assert rome.client.put("/api/quotas/anna", json={"diskBytes": 1 << 20}).is_success
    taken = rome.client.post(f"{TRIPS}/hand-over/accept", json={"owner": "anna"})
    assert taken.status_code == 202, taken.text
    until(lambda: sharing(rome)["writer"] is None)
    assert rome.client.get(TRIPS).json()["owner"] == "anna"
    assert rome.client.get("/api/quotas/anna").json()["storedBytes"] > 100


@pytest.mark.nightly  # the lake's tests have it between two nodes in one process
def test_the_writer_is_told_why_it_is_refused(
    nodes: tuple[OpenNode, OpenNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo, rome = nodes

    async def no_room(*_: Any) -> None:
        raise Unavailable("a shard")

    monkeypatch.setattr(Taker, "_obtain", no_room)
    assert oslo.client.put(f"{TRIPS}/hand-over", json={"node": "rome"}).is_success
    assert rome.client.post(f"{TRIPS}/hand-over/accept").status_code == 202
    assert sharing(rome)["handOver"] == {"state": "accepting", "node": "oslo"}
    assert rome.client.delete(f"{TRIPS}/hand-over").is_success
    until(lambda: sharing(oslo)["handOverRefusal"])
    assert sharing(oslo)["handOver"] is None
    reason = "it was not handed over: node rome: its administrator does not accept"
    assert any(line.startswith(reason) for line in _lines("trips", sharing(oslo)))
    assert insert(oslo, 10) == 200
    until(lambda: sharing(rome)["handOver"] is None)
    assert oslo.client.delete(f"{TRIPS}/hand-over").json()["handOverRefusal"] is None


def test_a_restricted_dataset_is_not_handed_over(nodes: tuple[OpenNode, OpenNode]) -> None:
    oslo, _ = nodes
    rules = [{"principal": "*@rome", "rows": "km > 2"}]
    assert oslo.client.put(f"{TRIPS}/policies", json={"rules": rules}).is_success
    answer = oslo.client.put(f"{TRIPS}/hand-over", json={"node": "rome"})
    assert answer.json()["code"] == "unsupported"
    assert "access policy" in answer.json()["error"]
