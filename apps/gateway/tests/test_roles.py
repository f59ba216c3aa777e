"""Every route of a node against every role, as an HTTP client meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from unittest.mock import Mock

import httpx
import pytest
from opened_node import OpenNode
from starlette.routing import compile_path
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from elkyn.server.routes import ROUTES
from sennit.app import create_api
from sennit.auth import SOCKET
from sennit.route_roles import RouteRoles, declared_roles

LADDER = ("open", "reader", "writer", "admin")
# Apart from the ladder: see the tests of remote workers at the end.
WORKER_ROUTES = {
    ("GET", "/api/workers/inputs/{attempt}"),
    ("PUT", "/api/jobs/{job_id}/partials/{attempt}"),
    (SOCKET, "/api/workers"),
}

# Declared at the routes; no node is needed to read the declarations.
API: dict[tuple[str, str], str] = {
    (method, route.path): (route.openapi_extra or {}).get("x-role", "none")
    for route, methods in declared_roles(create_api(Mock(version="0"), "cookie").routes)
    for method in methods
    if (method, route.path) not in WORKER_ROUTES
}
# All other routes that are not GET or HEAD need at least a writer.
# A query needs a reader; a statement that changes a dataset needs a writer, which its text decides.
# Everybody may stop the queries that they have started.
WITHOUT_EFFECT = {
    ("POST", "/api/session"): "open",
    ("POST", "/api/query"): "reader",
    ("POST", "/api/plans/explain"): "reader",
    ("DELETE", "/api/queries/{query_id}"): "reader",
    ("OPTIONS", "/tus/"): "open",
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


def test_every_route_declares_its_role() -> None:
    assert set(API.values()) <= set(LADDER)
    assert set(ROUTES) == set(TREE_SYSTEM)


def test_readers_change_nothing() -> None:
    unsafe = {route: role for route, role in API.items() if route[0] not in {"GET", "HEAD"}}
    assert {r: role for r, role in unsafe.items() if role in {"open", "reader"}} == WITHOUT_EFFECT


def test_each_path_has_one_route() -> None:
    """So that the role which is looked up is that of the route which answers."""
    paths = {path: compile_path(path)[0] for _, path in API}
    filled = {path: re.sub(r"\{\w+\}", "x", path) for path in paths}
    for path, example in filled.items():
        assert [other for other, regex in paths.items() if regex.match(example)] == [path]


@pytest.mark.slow
@pytest.mark.sample(8)
@pytest.mark.parametrize(("route", "role"), API.items())
def test_a_line_end_after_a_path_lowers_no_role(route: tuple[str, str], role: str) -> None:
    """The router's expressions match before it as well, so such a request is answered."""
    method, path = route
    roles = RouteRoles(create_api(Mock(version="0"), "cookie").routes)
    needed = roles.needed(method, re.sub(r"\{\w+\}", "x", path) + "\n")
    assert LADDER.index(needed) >= LADDER.index(role)


OWNERS = "/api/datasets/{dataset}/paths"


@pytest.fixture(scope="session")
def clients(plain: OpenNode) -> Iterator[dict[str, httpx.Client]]:
    roles = ("reader", "writer", "admin")
    with ExitStack() as owned:
        made = {"open": plain.anonymous_client()} | {role: plain.client_of(role) for role in roles}
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


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "least"), cases())
def test_a_route_answers_its_role_and_those_above(
    clients: dict[str, httpx.Client], method: str, path: str, least: str
) -> None:
    filled = path.format(
        dataset="none", snapshot="none", shard="none", tag="none", token_id="none", upload_id="none",
        job_id="none", result_id="none", query_id="none", task="none",
        user="none", node="none", append="none", index=0,
    )  # fmt: skip
    for role, client in clients.items():
        if (path, role) == ("/db/.settings/changes", "admin"):
            continue  # a stream without an end
        status = client.request(method, filled).status_code
        # An issued admin token is not the owner's: see `lake.routes.links`.
        may = LADDER.index(role) >= LADDER.index(least) and path != OWNERS
        refused = 401 if role == "open" else 403
        assert (status not in (401, 403)) if may else (status == refused), (role, status)


def test_a_statement_that_changes_a_dataset_needs_a_writer(
    clients: dict[str, httpx.Client],
) -> None:
    def run(role: str, sql: str) -> httpx.Response:
        return clients[role].post("/api/query", json={"sql": sql})

    assert run("writer", "CREATE TABLE kept AS SELECT 1 AS a").json()["rows"] == [[1]]
    for sql in (
        "DELETE FROM kept",
        " -- a comment\n/* SELECT */ dElEtE FROM kept",
        "WITH w AS (SELECT 1) DELETE FROM kept",
        "INSERT INTO kept VALUES (2)",
        "UPDATE kept SET a = 2",
        "CREATE TABLE new AS SELECT 1",
        "CREATE OR REPLACE TABLE kept AS SELECT 2 AS a",
        "TRUNCATE kept",
        "DROP TABLE kept",
        "EXPLAIN ANALYZE DELETE FROM kept",
        "SELECT 1; DELETE FROM kept",
        "WITH w AS (DELETE FROM kept) SELECT 1",
        "FROM (DELETE FROM kept)",
    ):
        assert run("open", sql).status_code == 401
        assert run("reader", sql).status_code in (400, 403), sql
    assert run("reader", "FROM kept").json()["rows"] == [[1]]
    assert run("writer", "DROP TABLE kept").status_code == 200
    assert run("reader", "FROM kept").status_code == 404


def test_token_routes_are_for_admins_with_any_suffix_of_the_path(
    clients: dict[str, httpx.Client],
) -> None:
    assert clients["reader"].get("/api/tokens%0A").status_code == 403


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


def test_a_workers_token_is_accepted_by_the_routes_of_workers_alone(plain: OpenNode) -> None:
    values = dict.fromkeys(
        ("dataset", "snapshot", "shard", "tag", "token_id", "upload_id", "job_id", "result_id", "query_id",
         "task", "user", "node", "append", "attempt"), "none",
    )  # fmt: skip
    with plain.client_of("worker") as client:
        for method, path in API:
            expected = API[method, path] == "open"
            status = client.request(method, path.format(**values, index=0)).status_code
            assert (status not in (401, 403)) == expected, (method, path, status)
        for path in ("/a.json", "/db/a.json", "/sys.json?ns=sys", "/nosuch"):
            assert client.get(path).status_code in (403, 404)
            assert client.put(path, content="1").status_code == 403
        token = client.headers["authorization"].split()[1]
    for path in ("/.ws?v=5", "/db/.ws?v=5", "/db/.replica"):
        address = plain.url.replace("http", "ws", 1) + path
        with pytest.raises(WebSocketException):
            connect(address, additional_headers={"authorization": f"Bearer {token}"})


def test_routes_of_workers_accept_no_user(
    clients: dict[str, httpx.Client], plain: OpenNode
) -> None:
    for role, client in clients.items():
        refused = 401 if role == "open" else 403
        query = "?expires=9999999999&signature=0"
        assert client.get(f"/api/workers/inputs/none{query}").status_code == refused
        assert client.put(f"/api/jobs/none/partials/none{query}").status_code == refused
        address = plain.url.replace("http", "ws", 1) + "/api/workers"
        headers = {k: v for k, v in client.headers.items() if k == "authorization"}
        with pytest.raises(WebSocketException):
            connect(address, additional_headers=headers)
