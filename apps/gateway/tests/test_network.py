"""The network of a node over HTTP and in the tree: rows of earlier versions, and who may read what."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from opened_node import OpenNode, OpenNodes, open_node

from elkyn import ElkynStore
from elkyn.records import Table
from lake.peers.members.store import PeerStore
from sennit_core.records import NodeInfo, WorkerInfo

EARLIER = "01jbz0v6m6g1p1tqk3y6rj3w5s"


@pytest.fixture(scope="module")
def founder(opened: OpenNodes) -> OpenNode:
    """A node that has founded a network, so that all its rows exist."""
    node = opened({"network.name": "oslo", "network.zone": "north"})
    assert node.client.post("/api/network/invites", json={}).status_code == 201
    return node


def test_rows_of_an_earlier_version_of_the_node_are_gone(opened: OpenNodes, tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "elkyn" / "sys") as tree:
        row = NodeInfo(EARLIER, ("127.0.0.1:8600",), "local", 1, 0, "down", 1.0)
        Table(tree, "/nodes", NodeInfo).put(EARLIER, row)
        worker = WorkerInfo(f"{EARLIER}-0", "local", EARLIER, 1, "0.1.0", "down")
        Table(tree, "/workers", WorkerInfo).put(worker.id, worker)

    node = opened(data=tmp_path)

    own = node.node.node_id
    assert [each["id"] for each in node.client.get("/api/nodes").json()] == [own]
    workers = node.client.get("/workers.json?ns=sys").json()
    assert {each["node"] for each in workers.values()} == {own}


def test_the_node_is_shown_with_its_name_and_zone(founder: OpenNode) -> None:
    shown = founder.client.get("/api/network").json()
    assert shown["network"] == shown["node"]["id"] == founder.node.node_id
    [own] = shown["nodes"]
    assert (own["name"], own["zone"], own["admin"], own["state"]) == (
        "oslo",
        "north",
        True,
        "alive",
    )
    assert own["addresses"] == [f"127.0.0.1:{shown['node']['port']}"]
    assert shown["node"]["fingerprint"].replace(":", "") == founder.node.node_id[:32]


def test_whether_a_node_may_be_removed_is_known_before_it_is(founder: OpenNode) -> None:
    own = founder.node.node_id
    for node, status in (("oslo", 403), (own[:8], 403), ("osla", 404), ("no-such", 404)):
        shown = founder.client.get(f"/api/network/nodes/{node}")
        assert shown.status_code == status, shown.text
        assert founder.client.delete(f"/api/network/nodes/{node}").status_code == status
    assert '"oslo"' in founder.client.get("/api/network/nodes/osla").text  # the nearest name


def test_what_the_node_has_refused_is_counted(founder: OpenNode) -> None:
    counters = founder.client.get("/api/network").json()["counters"]
    names = ("sessions", "unverified", "refusedConnections", "refusedMessages", "droppedMessages")
    assert counters == dict.fromkeys(names, 0)
    metrics = founder.client.get("/metrics").text
    assert (
        "# TYPE sennit_peers_refused_messages gauge\nsennit_peers_refused_messages 0\n" in metrics
    )


@pytest.mark.parametrize(
    "path",
    [
        "/peers.json", "/queued.json", "/%70eers.json", "/peers/roster.json", "/peers/logs.json",
        "/db/peers.json", "/db//peers/network.json", "/.json", "/db/.json", "/db//.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("query", ["", "&shallow=true"])
def test_only_admins_read_the_rows_of_peers(founder: OpenNode, path: str, query: str) -> None:
    for role in ("reader", "writer"):
        with founder.client_of(role) as client:
            answer = client.get(f"{path}?ns=sys{query}")
        assert answer.status_code in (400, 401, 403, 404), answer.text
        assert "network" not in answer.json()


def test_admins_read_the_rows_of_peers_and_readers_those_of_nodes(founder: OpenNode) -> None:
    assert founder.client.get("/peers/network/id.json?ns=sys").json() == founder.node.node_id
    with founder.client_of("reader") as client:
        assert list(client.get("/nodes.json?ns=sys").json()) == [founder.node.node_id]


def test_a_reader_watches_nodes_and_not_the_rows_of_peers(founder: OpenNode) -> None:
    with founder.client_of("reader") as client:
        assert _stream_status(client, "/nodes.json") == 200
        assert _stream_status(client, "/peers.json") == 401
        assert _stream_status(client, "/.json") == 401


def _stream_status(client: httpx.Client, path: str) -> int:
    headers = {"accept": "text/event-stream"}
    with client.stream("GET", f"{path}?ns=sys", headers=headers) as answer:
        return answer.status_code


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("join", {"invite": "sennit-invite:x"}),
        ("join", {}),
        ("join", {"address": "127.0.0.1:9000"}),
        ("join", {"address": "nowhere", "node": "0" * 64}),
        ("join", {"invite": "x", "address": "127.0.0.1:9000", "node": "0" * 64}),
        ("invites", {"seconds": 0}),
        ("invites", {"seconds": 1e9}),
        ("accept", {"fingerprint": ""}),
    ],
)
def test_a_malformed_request_says_what_is_wrong(
    plain: OpenNode, route: str, body: dict[str, object]
) -> None:
    answer = plain.client.post(f"/api/network/{route}", json=body)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]
    assert plain.client.get("/api/network").json()["network"] is None


def scrubs(node: OpenNode) -> list[object]:
    return [job.kind for job in node.node.jobs.list() if job.kind == "maintenance"]


@pytest.mark.slow  # three lives of a node
def test_a_node_that_was_lost_for_its_network_verifies_what_it_has(tmp_path: Path) -> None:
    with open_node(tmp_path, {}) as node:
        node.node.peers.invite()
    with open_node(tmp_path, {}) as node:
        assert scrubs(node) == []
    with ElkynStore(tmp_path / "elkyn" / "sys") as tree:
        PeerStore(tree).note_active(1.0)
    with open_node(tmp_path, {}) as node:
        assert len(scrubs(node)) == 1


def test_all_nodes_only_read_what_is_shared_with_them(founder: OpenNode) -> None:
    client = founder.client
    query = {"sql": "CREATE TABLE shared_with_all AS SELECT 1 AS a"}
    assert client.post("/api/query", json=query).status_code == 200
    path = "/api/datasets/shared_with_all/sharing"
    assert client.get(path).json()["readOnly"] is None
    answer = client.put(path, json={"nodes": None, "readOnly": False})
    assert answer.status_code == 400, answer.text
    assert client.put(path, json={"nodes": None}).json()["readOnly"] is True
    named = client.put(path, json={"nodes": ["oslo"]}).json()
    assert (named["nodes"], named["readOnly"]) == (["oslo"], False)
    only = client.put(path, json={"nodes": ["oslo"], "readOnly": True}).json()
    assert only["readOnly"] is True
    assert client.delete(path).json() == {"deleted": True}


def test_the_node_is_shown_with_its_version_and_room_and_no_connection_to_itself(
    founder: OpenNode,
) -> None:
    shown = founder.client.get("/api/network").json()
    [own] = shown["nodes"]
    assert own["fingerprint"] == shown["node"]["fingerprint"]
    assert (own["connection"], own["heardAt"]) == (None, None)
    assert own["capacityBytes"] > own["usedBytes"] >= 0
    assert own["version"]
    assert shown["time"] >= own["since"]


def test_who_may_change_the_network_and_who_may_share_is_shown(founder: OpenNode) -> None:
    found = {}
    for role in ("reader", "writer", "admin"):
        with founder.client_of(role) as client:
            shown = client.get("/api/network").json()
        found[role] = (shown["mayManage"], shown["mayWrite"])
    assert found == {"reader": (False, False), "writer": (False, True), "admin": (True, True)}


def test_shared_datasets_are_listed_with_their_copies_and_private_ones_are_not(
    founder: OpenNode,
) -> None:
    client = founder.client
    for name in ("listed_ports", "private_ports"):
        query = {"sql": f"CREATE TABLE {name} AS SELECT 1 AS a"}
        assert client.post("/api/query", json=query).status_code == 200
    body = {"nodes": None, "copies": 2}
    assert client.put("/api/datasets/listed_ports/sharing", json=body).status_code == 200

    [listed] = client.get("/api/network/datasets").json()

    assert (listed["name"], listed["copies"], listed["nodes"]) == ("listed_ports", 2, None)
    assert (listed["encrypted"], listed["restricted"], listed["mayShare"]) == (False, False, True)
    with founder.client_of("writer") as other:
        [theirs] = other.get("/api/network/datasets").json()
    # What is known of the copies may have changed meanwhile.
    assert theirs == listed | {"mayShare": False, "state": theirs["state"]}
    assert client.delete("/api/datasets/listed_ports/sharing").json() == {"deleted": True}
    assert client.get("/api/network/datasets").json() == []


def test_a_dataset_that_a_user_may_not_see_is_not_listed(founder: OpenNode) -> None:
    client = founder.client
    query = {"sql": "CREATE TABLE secret_ports AS SELECT 1 AS a"}
    assert client.post("/api/query", json=query).status_code == 200
    rules = {"rules": [{"principal": "somebody"}]}
    assert client.put("/api/datasets/secret_ports/policies", json=rules).status_code == 200
    shared = client.put("/api/datasets/secret_ports/sharing", json={"nodes": None})
    assert shared.status_code == 200, shared.text
    [listed] = client.get("/api/network/datasets").json()
    assert (listed["name"], listed["restricted"]) == ("secret_ports", True)
    leaving = client.get("/api/network/leave").json()
    assert leaving == {"writes": ["secret_ports"], "reads": []}
    with founder.client_of("reader") as reader:
        assert reader.get("/api/network/datasets").json() == []
    assert client.delete("/api/datasets/secret_ports/sharing").json() == {"deleted": True}
