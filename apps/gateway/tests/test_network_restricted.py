"""A dataset with a policy at another node over HTTP: no route there shows what its writer hides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from opened_node import OpenNode, open_node

from elytra.client.transport import wait_for
from sennit.cli.policy_verb import _names_of_nodes, _print
from sennit.client import Session

pytestmark = pytest.mark.slow  # two nodes, which find each other
CSV = b"city,visitors,note\nOslo,777001,hidden-oslo\nRome,3,shown\n"
HIDDEN = ("777001", "hidden-oslo", "city = 'Rome'")
RULES = [
    {"principal": "*@rome", "rows": "city = 'Rome'", "columns": [{"name": "visitors"}]},
    {"principal": "role:writer@rome", "rows": "city = 'Rome'"},
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenNode, OpenNode]]:
    """Oslo, which shares its visits, and Rome."""
    with ExitStack() as stack:
        oslo, rome = (
            stack.enter_context(open_node(tmp_path_factory.mktemp(name), {"network.name": name}))
            for name in ("oslo", "rome")
        )
        invite = oslo.client.post("/api/network/invites", json={}).json()["invite"]
        assert rome.client.post("/api/network/join", json={"invite": invite}).status_code == 200
        oslo.upload("visits.csv", CSV)
        assert oslo.client.put("/api/datasets/visits/policies", json={"rules": RULES}).is_success
        body = {"nodes": ["rome"], "copies": 2}
        assert oslo.client.put("/api/datasets/visits/sharing", json=body).is_success
        wait_for(lambda: _listed(rome), what="the dataset", seconds=30)
        yield oslo, rome


def _listed(node: OpenNode) -> object:
    return node.client.get("/api/datasets").json() or None


def rows(client: httpx.Client, sql: str) -> list[list[object]]:
    answer = client.post("/api/query", json={"sql": sql})
    assert answer.status_code == 200, answer.text
    found: list[list[object]] = answer.json()["rows"]
    return found


def test_roles_of_the_other_node_see_what_the_policy_shows(
    nodes: tuple[OpenNode, OpenNode],
) -> None:
    _, rome = nodes
    with rome.client_of("reader") as reader, rome.client_of("writer") as writer:
        assert rows(reader, "SELECT * FROM visits") == [["Rome", "shown"]]
        assert rows(writer, "SELECT city, visitors FROM visits") == [["Rome", 3]]


def test_no_route_of_the_other_node_shows_more(nodes: tuple[OpenNode, OpenNode]) -> None:
    _, rome = nodes
    [info] = rome.client.get("/api/datasets").json()
    base = f"/api/datasets/{info['id']}"
    paths = [
        "/api/datasets", base, f"{base}/snapshots", f"{base}/snapshots/head", f"{base}/sharing",
        f"{base}/policies", f"{base}/tags", "/api/stats/storage", "/api/maintenance",
        "/.json?ns=sys", "/datasets.json?ns=sys", "/snapshots.json?ns=sys",
    ]  # fmt: skip
    with rome.client_of("reader") as reader:
        for client in (rome.client, reader):
            for path in paths:
                text = client.get(path).text
                assert not any(hidden in text for hidden in HIDDEN), (path, text)
        assert "visitors" not in reader.get(base).text
    shown = rome.client.get(base).json()
    assert (shown["restricted"], shown["rows"], shown["bytes"]) == (True, 0, 0)
    sharing = rome.client.get(f"{base}/sharing").json()
    assert (sharing["restricted"], sharing["writer"]) == (True, "oslo")


def test_the_policy_is_the_writers(
    nodes: tuple[OpenNode, OpenNode], capsys: pytest.CaptureFixture[str]
) -> None:
    oslo, rome = nodes
    for call in (
        rome.client.put("/api/datasets/visits/policies", json={"rules": []}),
        rome.client.delete("/api/datasets/visits/policies"),
    ):
        assert call.status_code == 403, call.text
    rules = oslo.client.get("/api/datasets/visits/policies").json()["rules"]
    assert {rule["principal"] for rule in rules} == {
        f"*@{rome.node.node_id}", f"role:writer@{rome.node.node_id}",
    }  # fmt: skip
    token = oslo.client.headers["authorization"].removeprefix("Bearer ")
    with Session.open(oslo.url, token=token, data=None) as session:
        _print(rules, _names_of_nodes(session, rules))
    assert "role:writer@rome" in capsys.readouterr().out
