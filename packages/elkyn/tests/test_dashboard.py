"""What the dashboard asks of its server, and who gets it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from elkyn import ElkynStore
from elkyn.server.app import elkyn_app

RULES = {
    "rules": {"users": {"$uid": {".read": "auth.uid === $uid", ".write": "auth.uid === $uid"}}}
}
ADMIN_PATHS = [
    "/.settings/outline.json",
    "/.settings/namespaces.json",
    "/.settings/changes",
]


@pytest.fixture(scope="module")
def server(emulator: Any) -> Any:
    """An emulator: its admin is `owner`, and namespaces are made when they are first named."""
    return emulator


def test_the_page_and_everything_it_names_come_without_a_credential(server: Any) -> None:
    page = httpx.get(f"{server.url}/index.html")
    names = re.findall(r'(?:src|href)="\./(\.dashboard/[^"]+)"', page.text)
    for name in list(names):
        answer = httpx.get(f"{server.url}/{name}")
        assert answer.status_code == 200
        names += [f".dashboard/{name}" for name in re.findall(r"from '\./([^']+)'", answer.text)]
    assert len(set(names)) >= 8
    assert all(httpx.get(f"{server.url}/{name}").status_code == 200 for name in set(names))
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_a_page_that_is_known_is_not_sent_again(server: Any) -> None:
    first = httpx.get(f"{server.url}/index.html")
    known = {"if-none-match": first.headers["etag"]}
    assert httpx.get(f"{server.url}/index.html", headers=known).status_code == 304


@pytest.mark.parametrize(
    "name", ["other.js", "..%2fstore.py", "../../store.py", "", "index.html/x", "%2e%2e/store.py"]
)
def test_no_other_file_is_reached(server: Any, name: str) -> None:
    assert server.client.get(f"/.dashboard/{name}").status_code in (400, 404)


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_what_the_dashboard_reads_is_for_admins(server: Any, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 401


def test_children_come_by_pages_with_their_kinds(server: Any) -> None:
    children = {f"k{number:03}": number for number in range(250)}
    server.client.put("/pages.json", json=children | {"map": {"a": 1}, "t": True, "x": "é" * 300})
    found: list[dict[str, object]] = []
    while True:
        after = str(found[-1]["key"]) if found else ""
        query = {"path": "/pages", "after": after, "limit": 100}
        page = server.client.get("/.settings/outline.json", params=query).json()
        found += page["children"]
        if not page["more"]:
            break
    assert [child["key"] for child in found] == [*sorted(children), "map", "t", "x"]
    assert found[250:] == [
        {"key": "map", "kind": "map"},
        {"key": "t", "kind": "bool", "value": True},
        {"key": "x", "kind": "text", "value": "é" * 200, "cut": True},
    ]


def test_children_that_are_ephemeral_have_their_place_in_the_pages() -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/live", {f"k{number}": number for number in range(7)})
        store.set("/live/k3/x", 1, ephemeral=True)
        page = asyncio.run(_outline(store, path="/live", after="k1", limit="3"))
    kinds = [(child["key"], child["kind"]) for child in page["children"]]
    assert kinds == [("k2", "number"), ("k3", "map"), ("k4", "number")]
    assert page["more"]


async def _outline(store: ElkynStore, **query: str) -> Any:
    app = elkyn_app({"default": store}, authorize=lambda *_asked: None)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/.settings/outline.json", params=query)
    app.close()
    return answer.json()


def test_a_value_and_nothing_have_outlines_too(server: Any) -> None:
    server.client.put("/single.json", json=1.5)
    outlines = [
        server.client.get("/.settings/outline.json", params={"path": path}).json()
        for path in ("/single", "/absent")
    ]
    assert outlines == [{"kind": "number", "value": 1.5}, {"kind": "null"}]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "x"}, {"limit": "9" * 30}, {"path": "/a.b"}]
)
def test_bad_questions_get_an_error(server: Any, query: dict[str, str]) -> None:
    answer = server.client.get("/.settings/outline.json", params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_changed_paths_are_streamed_without_values(server: Any) -> None:
    with server.client.stream("GET", "/.settings/changes") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data:"))
        server.client.put("/changed/a.json", json="a secret of many bytes")
        server.client.patch("/changed.json", json={"b": 1, "c/d": 2})
        seen: set[str] = set()
        while not {"/changed/a", "/changed/b", "/changed/c/d"} <= seen:
            seen |= set(json.loads(next(lines).removeprefix("data:")))


def test_a_flood_of_changes_is_told_as_one(server: Any) -> None:
    with server.client.stream("GET", "/.settings/changes") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data:"))
        server.client.patch("/flood.json", json={f"k{number}": 1 for number in range(500)})
        assert json.loads(next(lines).removeprefix("data:")) == ["/"]


@pytest.mark.parametrize(
    ("uid", "method", "allowed"),
    [("ann", "read", True), ("ann", "write", True), ("bob", "read", False), (None, "write", False)],
)
def test_rules_are_tried_without_being_in_force(
    server: Any, uid: str | None, method: str, allowed: bool
) -> None:
    auth = None if uid is None else {"uid": uid}
    asked = {"rules": json.dumps(RULES), "method": method, "path": "/users/ann", "auth": auth}
    answer = server.client.post("/.settings/simulate.json", json=asked | {"value": {"a": 1}}).json()
    assert answer["allowed"] is allowed
    assert any("$uid" in line for line in answer["trace"])
    assert server.client.get("/users/ann.json").json() is None


def test_bad_rules_come_back_with_their_places(server: Any) -> None:
    source = '{"rules": {\n  ".read": "auth.uid ==="\n}}'
    tried = {"rules": source, "method": "read", "path": "/"}
    for answer in (
        server.client.put("/.settings/rules.json", content=source),
        server.client.post("/.settings/simulate.json", json=tried),
    ):
        assert answer.status_code == 400
        assert [problem["line"] for problem in answer.json()["problems"]] == [2]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"method": "x"}', b"[" * 5000])
def test_a_trial_that_is_none_is_refused(server: Any, body: bytes) -> None:
    assert server.client.post("/.settings/simulate.json", content=body).status_code == 400


def test_namespaces_are_listed(server: Any) -> None:
    server.client.put("/a.json?ns=other", json=1)
    names = server.client.get("/.settings/namespaces.json").json()
    assert names["default"] == "default"
    assert {"default", "other"} <= set(names["namespaces"])
