"""The requests of the dashboard, and which users may send them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.server.app import elkyn_app

RULES = {
    "rules": {"users": {"$uid": {".read": "auth.uid === $uid", ".write": "auth.uid === $uid"}}}
}
ADMIN_PATHS = [
    "/.settings/search.json?text=a",
    "/.settings/outline.json",
    "/.settings/namespaces.json",
    "/.settings/changes",
]


@pytest.fixture(scope="module")
def server(emulator: Any) -> Any:
    """An emulator: its admin is `owner`, and namespaces are made when they are first named."""
    return emulator


@pytest.mark.slow
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


BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/", "/index.html"),
        ("/?ns=shop", "/index.html?ns=shop"),
        ("/users/ann%20b/", "/index.html#data/users/ann%20b"),
        ("/a%23b?ns=shop", None),
    ],
)
def test_a_path_opened_in_a_browser_is_shown_by_the_dashboard(
    server: Any, path: str, location: str | None
) -> None:
    answer = httpx.get(server.url + path, headers=BROWSER)
    if location is None:  # no key holds this
        assert answer.status_code == 400
    else:
        assert (answer.status_code, answer.headers["location"]) == (302, location)


def test_programs_get_the_value_where_browsers_get_the_dashboard(server: Any) -> None:
    server.client.put("/opened.json", json=1)
    requests: list[tuple[str, dict[str, str]]] = [
        ("/opened", {}),
        ("/opened", {"accept": "*/*"}),
        ("/opened", {"accept": "application/json, text/plain, */*"}),
        ("/opened.json", BROWSER),
        ("/opened?print=pretty", BROWSER),
    ]
    for path, headers in requests:
        answer = server.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()) == (200, 1)
    assert server.client.put("/opened", json=2, headers=BROWSER).json() == 2


def test_an_embedded_tree_sends_no_browser_to_a_dashboard() -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/a", 1)
        assert asyncio.run(_get(store, "/a", BROWSER)).json() == 1


@pytest.mark.slow
def test_the_sign_in_page_learns_how_to_sign_in(
    server: Any, start_server: Callable[..., Any]
) -> None:
    guarded = start_server()
    answers = [httpx.get(f"{url}/.dashboard/server.json") for url in (server.url, guarded.url)]
    assert [answer.json() for answer in answers] == [{"signIn": "owner"}, {"signIn": "token"}]


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
def test_the_data_of_the_dashboard_is_for_admins(server: Any, path: str) -> None:
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
        {"key": "map", "kind": "map", "count": 1, "list": False},
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


async def _get(
    store: ElkynStore, path: str, headers: dict[str, str], query: dict[str, str] | None = None
) -> Any:
    app = elkyn_app({"default": store}, authorize=lambda *_args: None)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path, params=query, headers=headers)
    app.close()
    return answer


async def _outline(store: ElkynStore, **query: str) -> Any:
    return (await _get(store, "/.settings/outline.json", {}, query)).json()


COUNTED: list[tuple[Any, dict[str, Any]]] = [
    (["a", "b", None, "d"], {"count": 3, "list": True}),
    ({"0": 1, "7": 1}, {"count": 2, "list": False}),
    ({"00": 1, "01": 1}, {"count": 2, "list": False}),
    ({f"n{number}": "x" * 9 for number in range(1000)}, {"count": 1000, "list": False}),
    (list(range(1, 900)), {"count": 899, "list": True}),
    ({f"n{number}": "x" * 9 for number in range(1001)}, {"count": 1000, "capped": True}),
]


@pytest.mark.parametrize(("value", "counted"), COUNTED)
def test_children_are_counted_and_arrays_distinguished_from_maps(
    server: Any, value: Any, counted: dict[str, Any]
) -> None:
    server.client.put("/counted.json", json={"node": value, "z": 1})
    page = server.client.get("/.settings/outline.json", params={"path": "/counted"}).json()
    assert page["children"][0] == {"key": "node", "kind": "map", **counted}
    assert (page["count"], page["list"]) == (2, False)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.integers(-3, 12).map(str) | st.sampled_from(["00", "07", "a", "-0"]),
        st.integers(),
        min_size=1,
    ),
    st.booleans(),
)
def test_what_the_outline_calls_an_array_is_one_to_clients(
    value: dict[str, int], ephemeral: bool
) -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/x", value, ephemeral=ephemeral)
        page = asyncio.run(_outline(store, path="/x"))
        assert page["list"] is isinstance(store.get("/x"), list)
        assert page["count"] == len(value)


AGES = {"ann": {"age": 31}, "bob": {"age": 22}, "cid": {"age": 40, "x": {"y": 1}}, "dot": {}}
QUERIES: list[tuple[dict[str, str], list[str]]] = [
    ({"orderBy": '"age"', "startAt": "30"}, ["ann", "cid"]),
    ({"orderBy": '"age"', "limitToFirst": "1"}, ["bob"]),
    ({"orderBy": '"age"', "limitToLast": "2", "limit": "1"}, ["ann", "cid"]),
    ({"orderBy": '"$key"', "startAt": '"b"', "endAt": '"c\uf8ff"'}, ["bob", "cid"]),
    ({"orderBy": '"$value"', "limit": "2"}, ["ann", "bob"]),
]


@pytest.mark.parametrize(("query", "keys"), QUERIES)
def test_a_query_shows_its_children_in_its_order(
    server: Any, query: dict[str, str], keys: list[str]
) -> None:
    server.client.put("/ages.json", json=AGES)
    page = server.client.get("/.settings/outline.json", params={"path": "/ages", **query}).json()
    assert [child["key"] for child in page["children"]] == keys
    assert page["more"] is (query.get("limit") == "2")
    assert page["count"] == 3


def test_a_query_says_what_it_orders_by_and_whether_clients_may_send_it(server: Any) -> None:
    server.client.put("/ages.json?ns=queried", json=AGES)
    query = {"path": "/ages", "orderBy": '"age"', "ns": "queried", "equalTo": "22"}
    before = server.client.get("/.settings/outline.json", params=query).json()
    server.rules("queried", {"ages": {".indexOn": "age"}})
    after = server.client.get("/.settings/outline.json", params=query).json()
    assert (before["indexed"], after["indexed"]) == (False, True)
    assert after["children"] == [
        {
            "key": "bob",
            "kind": "map",
            "count": 1,
            "list": False,
            "by": {"kind": "number", "value": 22},
        }
    ]


def test_search_of_keys_and_values_ignores_case(server: Any) -> None:
    tree = {"Bob": {"age": 5}, "c": {"name": "Kabob Hut", "tags": [True, 25]}, "d": {"n": "x"}}
    server.client.put("/searched.json", json=tree)
    found = {
        text: _search(server, path="/searched", text=text)["found"]
        for text in ("bob", "25", "true", "nothing")
    }
    paths = {text: [node["path"] for node in nodes] for text, nodes in found.items()}
    assert paths == {
        "bob": ["/searched/Bob", "/searched/c/name"],
        "25": ["/searched/c/tags/1"],
        "true": ["/searched/c/tags/0"],
        "nothing": [],
    }
    assert found["bob"][1] == {
        "path": "/searched/c/name",
        "kind": "text",
        "value": "Kabob Hut",
        "cut": False,
    }


def test_a_search_resumes_where_it_stopped(server: Any) -> None:
    deep = {"large": {f"k{n}": {"v": "yes " * 9} for n in range(120)}, "small": {"v": "yes"}}
    server.client.put("/resumed.json", json={**deep, "yes": {"yes": {"no": 1}}})
    everything = _search(server, path="/resumed", text="yes", limit=1000)
    assert "after" not in everything
    found: list[Any] = []
    after = "/"
    while after:
        part = _search(server, path="/resumed", text="yes", limit=7, after=after)
        found += part["found"]
        after = part.get("after", "")
    assert found == everything["found"]
    assert len(found) == 123


def _search(server: Any, **query: Any) -> Any:
    answer = server.client.get("/.settings/search.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("query", [{}, {"text": ""}, {"text": "a", "limit": "0"}])
def test_a_search_for_nothing_is_refused(server: Any, query: dict[str, str]) -> None:
    answer = server.client.get("/.settings/search.json", params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_value_and_nothing_have_outlines_too(server: Any) -> None:
    server.client.put("/single.json", json=1.5)
    outlines = [
        server.client.get("/.settings/outline.json", params={"path": path}).json()
        for path in ("/single", "/absent")
    ]
    assert outlines == [{"kind": "number", "value": 1.5}, {"kind": "null"}]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "9" * 30},
        {"path": "/a.b"},
        {"orderBy": "age"},
        {"startAt": "1"},
    ],
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


def test_a_flood_of_changes_is_shown_as_one(server: Any) -> None:
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
    body = {"rules": json.dumps(RULES), "method": method, "path": "/users/ann", "auth": auth}
    answer = server.client.post("/.settings/simulate.json", json=body | {"value": {"a": 1}}).json()
    assert answer["allowed"] is allowed
    assert any("$uid" in line for line in answer["trace"])
    assert server.client.get("/users/ann.json").json() is None


def test_bad_rules_are_reported_with_their_positions(server: Any) -> None:
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
