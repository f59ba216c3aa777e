"""Every route of a node against every role, as an HTTP client meets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from opened_node import OpenNode
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from elkyn.server.routes import ROUTES

LADDER = ("open", "reader", "writer", "admin")

API: dict[tuple[str, str], str] = {
    ("GET", "/healthz"): "open",
    ("GET", "/readyz"): "open",
    ("POST", "/api/session"): "open",
    ("GET", "/docs"): "reader",
    ("GET", "/metrics"): "reader",
    ("GET", "/api/openapi.json"): "reader",
    ("HEAD", "/api/openapi.json"): "reader",
    ("GET", "/api/stats"): "reader",
    ("GET", "/api/nodes"): "reader",
    ("GET", "/api/tokens"): "admin",
    ("POST", "/api/tokens"): "admin",
    ("DELETE", "/api/tokens/{token_id}"): "admin",
    ("GET", "/api/datasets"): "reader",
    ("GET", "/api/datasets/{dataset}"): "reader",
    ("DELETE", "/api/datasets/{dataset}"): "writer",
    ("GET", "/api/datasets/{dataset}/snapshots"): "reader",
    ("GET", "/files/{dataset}/{snapshot}/{shard}"): "reader",
    ("HEAD", "/files/{dataset}/{snapshot}/{shard}"): "reader",
    ("POST", "/api/query"): "reader",
    ("GET", "/api/answers/{answer_id}"): "reader",
    ("POST", "/api/verify"): "writer",
    ("POST", "/api/upload"): "writer",
    ("POST", "/api/start-upload"): "writer",
    ("POST", "/api/upload-chunk"): "writer",
    ("PUT", "/api/uploads/{upload_id}/parts/{index}"): "writer",
    ("GET", "/api/uploads/{upload_id}"): "reader",
    ("DELETE", "/api/uploads/{upload_id}"): "writer",
    ("POST", "/api/uploads/{upload_id}/complete"): "writer",
    ("POST", "/api/jobs"): "writer",
    ("GET", "/api/jobs"): "reader",
    ("GET", "/api/jobs/{job_id}"): "reader",
    ("DELETE", "/api/jobs/{job_id}"): "writer",
    ("GET", "/api/jobs/{job_id}/result"): "reader",
}

TREE: dict[tuple[str, str], str] = {
    ("GET", "/a.json"): "reader",
    ("PUT", "/a.json"): "writer",
    ("PATCH", "/a.json"): "writer",
    ("POST", "/a.json"): "writer",
    ("DELETE", "/a.json"): "writer",
}

# Of Elkyn's own routes, which /db/ leads to: by path, for reading and for writing.
TREE_SYSTEM: dict[str, tuple[str, str]] = {
    "/.dashboard/server.json": ("reader", "writer"),
    "/healthz": ("reader", "writer"),
    "/readyz": ("reader", "writer"),
    "/metrics": ("reader", "writer"),
    "/.settings/rules.json": ("admin", "admin"),
    "/.settings/outline.json": ("admin", "admin"),
    "/.settings/namespaces.json": ("admin", "admin"),
    "/.settings/search.json": ("admin", "admin"),
    "/.settings/simulate.json": ("admin", "admin"),
    "/.settings/changes": ("admin", "admin"),
    "/.replica": ("admin", "admin"),
    "/.replica/accounts": ("admin", "admin"),
    "/.replica/identify": ("admin", "admin"),
    "/.replica/promote": ("admin", "admin"),
    "/.replica/status": ("admin", "admin"),
    "/.replica/write": ("admin", "admin"),
    "/.ws": ("reader", "writer"),
}


def all_routes(routes: Iterable[Any]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for route in routes:
        inside = getattr(route, "original_router", None)
        if inside is not None:
            found |= all_routes(inside.routes)
        else:
            found |= {(method, route.path) for method in route.methods}
    return found


def test_every_route_of_the_node_has_a_role_here(plain: OpenNode) -> None:
    assert all_routes(plain.app.api.routes) == set(API)
    assert set(ROUTES) == set(TREE_SYSTEM)


@pytest.fixture(scope="session")
def clients(plain: OpenNode) -> Iterator[dict[str, httpx.Client]]:
    roles = ("reader", "writer", "admin", "worker")
    with ExitStack() as owned:
        made = {"open": plain.stranger()} | {role: plain.client_of(role) for role in roles}
        for client in made.values():
            owned.enter_context(client)
        yield made


def cases() -> list[tuple[str, str, str]]:
    found = [(method, path, least) for (method, path), least in (API | TREE).items()]
    found += [(method, f"/db{path}", least) for (method, path), least in TREE.items()]
    for path, (reading, writing) in TREE_SYSTEM.items():
        aliases = [f"/db{path}"] + [path] * path.startswith("/.settings/") * path.endswith(".json")
        found += [("GET", alias, reading) for alias in aliases]
        found += [
            (method, alias, writing) for alias in aliases for method in ("PUT", "POST", "DELETE")
        ]
    return found


@pytest.mark.parametrize(("method", "path", "least"), cases())
def test_a_route_answers_its_role_and_those_above(
    clients: dict[str, httpx.Client], method: str, path: str, least: str
) -> None:
    filled = path.format(
        dataset="none", snapshot="none", shard="none", token_id="none", upload_id="none",
        job_id="none", answer_id="none", index=0,
    )  # fmt: skip
    for role, client in clients.items():
        if (path, role) == ("/db/.settings/changes", "admin"):
            continue  # a stream without an end
        status = client.request(method, filled).status_code
        may = least == "open" if role == "worker" else LADDER.index(role) >= LADDER.index(least)
        refused = 401 if role == "open" else 403
        assert (status not in (401, 403)) if may else (status == refused), (role, status)


@pytest.mark.parametrize("path", ["/.ws?v=5", "/db/.ws?v=5", "/db/.replica"])
def test_a_socket_opens_for_its_role_and_those_above(
    clients: dict[str, httpx.Client], plain: OpenNode, path: str
) -> None:
    opened = []
    for role, client in clients.items():
        headers = {k: v for k, v in client.headers.items() if k == "authorization"}
        address = plain.url.replace("http", "ws", 1) + path
        try:
            with connect(address, additional_headers=headers):
                opened.append(role)
        except WebSocketException:
            pass
    assert opened == (["admin"] if "replica" in path else ["reader", "writer", "admin"])


def test_rules_of_a_tree_change_by_an_admin_alone(
    clients: dict[str, httpx.Client], plain: OpenNode
) -> None:
    rules = '{"rules": {".read": false}}'
    before = clients["admin"].get("/.settings/rules.json").text
    for path in ("/.settings/rules.json", "/db/.settings/rules.json"):
        assert clients["writer"].put(path, content=rules).status_code == 403
    assert clients["admin"].get("/.settings/rules.json").text == before
    assert clients["admin"].put("/db/.settings/rules.json", content=rules).status_code == 200
    assert clients["admin"].put("/.settings/rules.json?ns=sys", content=rules).status_code == 401


def test_no_override_of_the_method_reaches_above_a_role(clients: dict[str, httpx.Client]) -> None:
    headers = {"x-http-method-override": "PUT"}
    for path in ("/.settings/rules.json", "/a.json"):
        assert clients["reader"].post(path, headers=headers, content="1").status_code == 403
    assert clients["reader"].get("/a.json?x-http-method-override=DELETE").status_code == 200
