"""No interface of a node shows a user what a policy hides: every route, the tree, SQL, and Flight SQL.

The routes are those of the application itself, so a new one fails here until it has its requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx
import pytest
from guarded_node import ABSENT, COLUMN, HIDDEN, MARKERS, USERS, GuardedNode, guarded, run
from opened_node import OpenNodes
from websockets.sync.client import ClientConnection, connect

from elytra.client.transport import wait_for
from sennit.auth import SOCKET
from sennit.route_roles import declared_roles

PLAN = {"v": 1, "op": "scan", "source": {"dataset": "{dataset}"}}
D = "/api/datasets/{dataset}"
TUS = {"tus-resumable": "1.0.0"}
APPEND_TUS = TUS | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
# To the dataset `people`, by mode `append`, both in Base64.
CREATE_TUS = TUS | {
    "upload-length": "3", "upload-metadata": "filename cGVvcGxlLmNzdg==,mode YXBwZW5k"
}  # fmt: skip
Sent = tuple[str, dict[str, Any]]

# What is sent to each route: the query and the body, in which `{dataset}` and others are replaced.
REQUESTS: dict[str, list[Sent]] = {
    "GET /healthz": [("", {})],
    "GET /readyz": [("", {})],
    "GET /metrics": [("", {})],
    "GET /docs": [("", {})],
    "GET /api/openapi.json": [("", {})],
    "HEAD /api/openapi.json": [("", {})],
    "GET /api/stats": [("", {})],
    "GET /api/nodes": [("", {})],
    "GET /api/network": [("", {})],
    "POST /api/network/invites": [("", {"json": {}})],
    "POST /api/network/join": [("", {"json": {"invite": "sennit-invite:x"}})],
    "POST /api/network/accept": [("", {"json": {"fingerprint": "0" * 32}})],
    "GET /api/network/nodes/{node}": [("", {})],
    "DELETE /api/network/nodes/{node}": [("", {})],
    "POST /api/network/leave": [("", {"json": {}})],
    "GET /api/network/leave": [("", {})],
    "GET /api/network/check": [("", {})],
    "GET /api/network/discover": [("", {})],
    "GET /api/network/map": [("", {})],
    "GET /api/network/datasets": [("", {})],
    "POST /api/network/heal": [("", {"json": {}}), ("", {"json": {"dataset": "{dataset}"}})],
    "GET /api/network/queue": [("", {})],
    "DELETE /api/network/queue/{append}": [("", {}), ("?forget=true", {})],
    "POST /api/network/queue/{append}/retry": [("", {})],
    "POST /api/session": [("", {"json": {"token": "x"}})],
    "GET /api/tokens": [("", {})],
    "POST /api/tokens": [("", {"json": {"name": "admin", "role": "admin"}})],
    "DELETE /api/tokens/{token_id}": [("", {})],
    "GET /api/audit": [("?limit=1000", {}), ("", {})],
    "GET /api/datasets": [("", {}), ("?damaged=true", {})],
    f"GET {D}": [("", {})],
    f"DELETE {D}": [("", {})],
    f"GET {D}/snapshots": [("", {}), ("?before=3&limit=1", {})],
    f"GET {D}/snapshots/{{snapshot}}": [("", {}), ("?limit=0", {})],
    f"POST {D}/rollback": [("", {"json": {"version": 1}})],
    f"POST {D}/fork": [("", {"json": {"name": "forked"}})],
    f"POST {D}/reorder-columns": [
        ("", {"json": {"columns": ["owner", "id"]}}), ("", {"json": {"columns": []}}),
    ],
    f"POST {D}/iceberg": [("", {"json": {}}), ("", {"json": {"version": 1}})],
    f"GET {D}/tags": [("", {})],
    f"PUT {D}/tags/{{tag}}": [("", {"json": {"version": 1}}), ("", {"json": {"version": 99}})],
    f"DELETE {D}/tags/{{tag}}": [("", {})],
    f"GET {D}/changes": [
        ("?since=1", {}), ("?since=1&until=2", {"headers": {"accept": "text/csv"}}),
        ("?since=kept", {}), ("?since=nosuch", {}), ("?since=77", {}),
    ],
    f"POST {D}/expire": [("", {"json": {}})],
    f"POST {D}/compact": [("", {})],
    f"GET {D}/policies": [("", {})],
    f"PUT {D}/policies": [("", {"json": {"rules": []}})],
    f"DELETE {D}/policies": [("", {})],
    f"GET {D}/rejects": [("", {}), ("?snapshot={snapshot}", {})],
    f"GET {D}/paths": [("", {})],
    f"GET {D}/retention": [("", {})],
    f"PUT {D}/retention": [("", {"json": {"keep": 1}})],
    f"DELETE {D}/retention": [("", {})],
    f"PUT {D}/keep": [("", {})],
    f"DELETE {D}/keep": [("", {})],
    "GET /api/cleanup": [("", {})],
    "GET /api/trash": [("", {})],
    "POST /api/trash/{dataset}/restore": [("", {"json": {}})],
    f"POST {D}/purge": [("", {"json": {"where": "true"}})],
    f"GET {D}/sharing": [("", {})],
    f"PUT {D}/sharing": [("", {"json": {"nodes": None}}), ("", {"json": {"nodes": ["none"], "copies": 2}})],
    f"DELETE {D}/sharing": [("", {})],
    f"PUT {D}/hand-over": [("", {"json": {"node": "none"}})],
    f"DELETE {D}/hand-over": [("", {})],
    f"POST {D}/hand-over/accept": [("", {})],
    "GET /api/views": [("", {})],
    "GET /files/{dataset}": [("", {})],
    "GET /files/{dataset}/{snapshot}": [("", {}), ("?limit=1", {})],
    "GET /files/{dataset}/{snapshot}/{shard}": [
        ("", {}), ("", {"headers": {"range": "bytes=0-3"}}),
        ("", {"headers": {"if-none-match": "*"}}), ("", {"headers": {"range": "bytes=9999999-"}}),
    ],
    "HEAD /files/{dataset}/{snapshot}/{shard}": [("", {})],
    "POST /api/link": [("", {"json": {
        "path": "/tmp/x", "file": {"inode": "1", "size": "1", "mtimeNs": "1"},
    }})],
    "POST /api/bundles/export": [("", {"json": {
        "datasets": ["{dataset}"], "path": "/tmp/x", "passphrase": "x" * 12,
    }})],
    "POST /api/bundles/import": [("", {"json": {
        "path": "/tmp/x", "file": {"inode": "1", "size": "1", "mtimeNs": "1"}, "passphrase": "x" * 12,
    }})],
    "GET /api/queries": [("", {})],
    "DELETE /api/queries/{query_id}": [("", {})],
    "POST /api/verify": [("", {"json": {}}), ("", {"json": {"dataset": "{dataset}"}}),
                         ("", {"json": {"dataset": "{dataset}", "repair": True}})],
    "GET /api/maintenance": [("", {})],
    "POST /api/maintenance/{task}": [("", {})],
    "GET /api/quotas": [("", {})],
    "GET /api/quotas/{user}": [("", {})],
    "PUT /api/quotas/{user}": [("", {"json": {}})],
    "DELETE /api/quotas/{user}": [("", {})],
    "GET /api/stats/storage": [("", {})],
    "GET /api/results/{result_id}": [("", {})],
    "POST /api/upload": [
        ("?name={dataset}.csv&mode=append", {"content": b"id\n1\n"}),
        ("?name={dataset}.csv&mode=replace", {"content": b"id\n1\n"}),
    ],
    "POST /api/start-upload": [
        ("", {"json": {"name": "{dataset}.csv", "mode": "append", "size": 3}}),
        (
            "",
            {
                "json": {
                    "name": "{dataset}.csv",
                    "mode": "upsert",
                    "size": 3,
                    "options": {"key": ["idd"]},
                }
            },
        ),
    ],
    "POST /api/upload-chunk": [("", {"data": {"uploadId": "x", "index": "0", "sha256": "0" * 64}})],
    "PUT /api/uploads/{upload_id}/parts/{index}": [("", {"content": b"x"})],
    "POST /api/uploads/{upload_id}/reuse": [("", {"json": {"parts": {"0": "0" * 64}}})],
    "GET /api/uploads/{upload_id}": [("", {})],
    "GET /api/uploads/{upload_id}/ranges": [("", {}), ("?bytes=65536", {})],
    "GET /api/uploads/{upload_id}/content": [("?start=0&stop=4", {})],
    "DELETE /api/uploads/{upload_id}": [("", {})],
    "POST /api/uploads/{upload_id}/complete": [("", {})],
    "OPTIONS /tus/": [("", {})],
    "POST /tus": [("", {"headers": CREATE_TUS})],
    "POST /tus/": [("", {"headers": CREATE_TUS})],
    "HEAD /tus/{upload_id}": [("", {"headers": TUS})],
    "POST /tus/{upload_id}": [("", {"headers": TUS | {"x-http-method-override": "HEAD"}})],
    "PATCH /tus/{upload_id}": [("", {"headers": APPEND_TUS, "content": b"id\n1\n"})],
    "DELETE /tus/{upload_id}": [("", {"headers": TUS})],
    "GET /api/workers": [("", {})],
    "DELETE /api/workers/excluded": [("?token=x", {})],
    "POST /api/workers/join": [("", {})],
    "GET /api/workers/inputs/{attempt}": [("?expires=9999999999&signature=0", {})],
    "PUT /api/jobs/{job_id}/partials/{attempt}": [
        ("?expires=9999999999&signature=0", {"headers": {"x-sha256": "0" * 64}, "content": b"x"})
    ],
    "GET /api/jobs": [("", {})],
    "POST /api/jobs": [("", {"json": {"plan": PLAN}}), ("", {"json": {"plan": PLAN, "engine": "x"}})],
    "GET /api/plans/functions": [("", {})],
    "POST /api/plans/explain": [("", {"json": {"plan": PLAN}}), ("", {"json": {"plan": PLAN, "engine": "x"}})],
    "GET /api/jobs/{job_id}": [("", {}), ("?wait=0.1", {})],
    "DELETE /api/jobs/{job_id}": [("", {})],
    "POST /api/jobs/{job_id}/dataset": [("", {"json": {"name": "saved"}}), ("", {"json": {"name": "x", "mode": "y"}})],
    "POST /api/jobs/{job_id}/retry": [("", {})],
    "GET /api/jobs/{job_id}/result": [("", {}), ("?limit=1", {"headers": {"accept": "text/csv"}})],
}  # fmt: skip
BY_OTHER_TESTS = {"POST /api/query"}
"""Routes that the tests of statements are about."""


@pytest.fixture(scope="module")
def guard(opened: OpenNodes) -> Iterator[GuardedNode]:
    with guarded(opened) as found:
        yield found


def assert_no_marker(answer: httpx.Response, sent: str = "") -> None:
    """No marker is in a response, beyond what the request itself has sent."""
    text = f"{answer.headers} {answer.content.decode('latin-1')}"
    found = [word for word in MARKERS if word.casefold() in text.casefold() and word not in sent]
    assert not found, f"{sent}: {answer.status_code} {text[:2000]}"


def filled(value: Any, values: dict[str, str]) -> Any:
    """Return a request in which `{name}` is replaced, at any depth."""
    if isinstance(value, dict):
        return {key: filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, values) for each in value]
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def targets(guard: GuardedNode) -> Iterator[dict[str, str]]:
    """Values for the parameters of paths: every dataset, by name and by id."""
    ids = guard.ids
    for name, job in (("people", "people_job"), (HIDDEN, f"{HIDDEN}_job"), (HIDDEN, "upload_job")):
        others = {"shard": "0.parquet", "tag": "kept", "job_id": ids[job], "task": "scrub"}
        others |= {"user": "admin", "index": "0", "token_id": "1", "query_id": ids[job]}
        others |= {"result_id": ids[job], "upload_id": ids[job], "append": ids[job]}
        others |= {"attempt": f"{ids[job]}-t000000-1"}
        for snapshot in ("head", "1", ids[f"{name}_head"]):
            for dataset in (name, ids[name]):
                yield others | {"dataset": dataset, "snapshot": snapshot}
    yield others | {"dataset": "copied", "snapshot": "head"}
    yield others | {"dataset": "spy", "snapshot": "head"}
    yield others | {"dataset": "vault_view", "snapshot": "head"}


def test_every_route_has_its_requests(guard: GuardedNode) -> None:
    served = {
        f"{method} {route.path}"
        for route, roles in declared_roles(guard.node.app.api.routes)
        for method in roles
        if method != SOCKET  # of workers, whose tokens are not those of users
    }
    assert served == set(REQUESTS) | BY_OTHER_TESTS


@pytest.mark.slow  # several hundred requests
@pytest.mark.parametrize("user", USERS)
def test_no_route_shows_a_marker(guard: GuardedNode, user: str) -> None:
    client, seen = guard.clients[user], set()
    for route, requests in REQUESTS.items():
        for values in targets(guard):
            # Of datasets that they may change, users may do so.
            if values["dataset"] == "copied" and not route.startswith("GET"):
                continue
            for query, body in requests:
                method, path = filled(route, values).split(" ", 1)
                sent = filled(body, values)
                key = f"{method} {path}{filled(query, values)} {sent}"
                if key not in seen:
                    seen.add(key)
                    answer = client.request(method, path + filled(query, values), **sent)
                    assert answer.status_code != 500, f"{key}: {answer.text}"
                    assert_no_marker(answer, key)
    assert len(seen) > 200
    assert guard.node.client.get("/api/datasets/people").json()["rows"] == 4


@pytest.mark.parametrize("user", [name for name, role in USERS.items() if role])
def test_a_hidden_dataset_is_as_one_that_does_not_exist(guard: GuardedNode, user: str) -> None:
    """What a route says of its name is what it says of a name in no use."""
    client = guard.clients[user]
    others = {"snapshot": "1", "shard": "0.parquet", "tag": "kept"}
    for route, requests in REQUESTS.items():
        # That a name is in use, its creation shows (docs/access.md).
        for query, body in requests if "{dataset}" in f"{route}{requests}" else ():
            found = []
            for name in (HIDDEN, ABSENT):
                values = others | {"dataset": name}
                method, path = filled(route, values).split(" ", 1)
                answer = client.request(
                    method, path + filled(query, values), **filled(body, values)
                )
                found.append((answer.status_code, answer.text.replace(name, "NAME")))
                if job := re.search(r'"jobId": *"(\w+)"', answer.text):  # it may create the dataset
                    guard.node.client.get(f"/api/jobs/{job[1]}?wait=30")
            guard.node.client.delete(f"/api/datasets/{ABSENT}")
            if not _creates(route, found):
                assert found[0] == found[1], f"{route} {query} {body}"


def _creates(route: str, found: list[tuple[int, str]]) -> bool:
    """Whether a name that is not in use was accepted, as an upload to a new dataset is."""
    return "upload" in route and found[1][0] < 300 and found[0][0] in (403, 404)


STATEMENTS = [
    "SELECT * FROM people",
    "SELECT * FROM people ORDER BY ALL DESC",
    "SELECT zqss FROM people",
    f"SELECT {COLUMN} FROM people",
    "SELECT people FROM people",
    "SELECT COLUMNS(*) FROM people",
    "SELECT CAST(owner AS INTEGER) FROM people",
    "SELECT error(owner) FROM people",
    "SELECT error(owner || id) FROM people WHERE owner LIKE 'Z%'",
    "SELECT 1 / (id - 2) FROM people WHERE error(owner) IS NULL",
    "SELECT strptime(owner, '%Y') FROM people",
    "SELECT max(owner), min(owner), list(owner) FROM people",
    "DESCRIBE people",
    "SUMMARIZE people",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "EXPLAIN SELECT * FROM people WHERE id > 1",
    "EXPLAIN ANALYZE SELECT * FROM people",
    "EXPLAIN SELECT * FROM spy",
    "EXPLAIN SELECT * FROM number",
    "EXPLAIN SELECT * FROM vault_view",
    "EXPLAIN ANALYZE SELECT * FROM spy",
    "EXPLAIN UPDATE people SET id = 1",
    "DESCRIBE spy",
    "SUMMARIZE number",
    "SELECT * FROM spy WHERE nosuch = 1",
    "SELECT n FROM number",
    "SELECT CAST(v AS INTEGER) FROM spy",
    "SELECT * FROM zqvaul",
    "SELECT * FROM vault_vie",
    "SELECT * FROM vault_view",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.views",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_columns()",
    "SELECT * FROM duckdb_constraints()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_catalog.pg_views",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_table_info('people')",
    "SELECT * FROM pragma_storage_info('people')",
    "SELECT * FROM read_parquet('people')",
    "SELECT sql FROM duckdb_views() WHERE internal = false",
    "SELECT current_query()",
    "SELECT * FROM people AT (VERSION => 1)",
    "SELECT * FROM people AT (TAG => 'kept')",
    f"SELECT * FROM {HIDDEN[:-1]}x AT (VERSION => 1)",
    "SELECT * FROM copied, spy",
    "SELECT * FROM people NATURAL JOIN copied",
    "SELECT count(*) FROM people WHERE rowid = 2",
    "SELECT stats(owner) FROM people",
    "SELECT file_row_number, filename FROM people",
    "CREATE TABLE mine AS SELECT * FROM people",
    "CREATE VIEW mine_view AS SELECT zqss FROM people",
    "CREATE OR REPLACE VIEW spy AS SELECT 1 AS a",
    "DROP VIEW spy",
    "INSERT INTO people VALUES (1)",
    "INSERT INTO people VALUES (1, 'ZQ', 3)",
    "INSERT INTO people SELECT * FROM people",
    "UPDATE people SET owner = 'ZQ' WHERE id = 1",
    "UPDATE people SET zqss = 'ZQ'",
    "UPDATE people SET owner = error(owner)",
    "DELETE FROM people WHERE CAST(owner AS INTEGER) = 1",
    "MERGE INTO people USING (SELECT 2 AS id) s ON people.id = s.id WHEN MATCHED THEN DELETE",
    "ALTER TABLE people ADD COLUMN zqss BIGINT",
    "ALTER TABLE people RENAME COLUMN zqss TO b",
    "CREATE OR REPLACE TABLE people AS SELECT 1 AS a",
    "BEGIN; SELECT CAST(owner AS INTEGER) FROM people; COMMIT",
]


@pytest.mark.slow  # 70 statements in two formats
@pytest.mark.parametrize("engine", ["duckdb", "emsqrt"])
@pytest.mark.parametrize("user", USERS)
def test_no_statement_shows_a_marker(guard: GuardedNode, user: str, engine: str) -> None:
    client = guard.clients[user]
    for sql in STATEMENTS:
        for accept in ("application/json", "application/vnd.apache.arrow.stream"):
            body = {"sql": sql, "engine": engine}
            answer = client.post("/api/query", json=body, headers={"accept": accept})
            assert answer.status_code != 500, f"{sql}: {answer.text}"
            # A user's own tables are what was shown to it.
            assert_no_marker(answer, sql)
    guard.node.client.delete("/api/datasets/mine")
    guard.node.client.delete("/api/datasets/mine_view")


def tree_paths(guard: GuardedNode) -> Iterator[str]:
    """Every row and list of the tree `sys`, below the top as well as the top itself."""
    rows = guard.node.node.lake.tree.get("/")
    yield ""
    for table, members in rows.items():
        yield table
        for id_, row in members.items() if isinstance(members, dict) else ():
            yield f"{table}/{id_}"
            if isinstance(row, dict):
                yield from (f"{table}/{id_}/{member}" for member in row)


@pytest.mark.slow  # every row of the tree in six forms
@pytest.mark.sample(2)
@pytest.mark.parametrize("user", USERS)
def test_no_path_of_the_tree_shows_a_marker(guard: GuardedNode, user: str) -> None:
    client, paths = guard.clients[user], list(tree_paths(guard))
    assert len(paths) > 60
    for path in paths:
        for prefix in ("/db/", "/"):
            for query in ("", "&shallow=true", '&orderBy="$key"&limitToFirst=1'):
                url = f"{prefix}{path}.json?ns=sys{query}"
                assert_no_marker(client.get(url), url)
        url = f"/db/{path}.json?ns=sys"
        allowed = client.get(url).status_code == 200
        with client.stream("GET", url, headers={"accept": "text/event-stream"}) as stream:
            assert (stream.status_code == 200) == allowed, url
            first = "".join(islice(stream.iter_lines(), 2)) if allowed else ""
            assert_no_marker(httpx.Response(200, text=first), url)
            # Without this, a stream that shows nothing at first could show later rows.
            assert not allowed or is_for_all(guard, path), url


@pytest.mark.slow  # every row of the tree
@pytest.mark.parametrize("user", [name for name, role in USERS.items() if role])
def test_no_message_of_the_tree_shows_a_marker(guard: GuardedNode, user: str) -> None:
    paths, shown = list(tree_paths(guard)), 0
    with watching(guard, user) as socket:
        for path in paths:
            listening = socket.ask("q", p=f"/{path}", h="") == "ok"
            assert not listening or is_for_all(guard, path), path
            shown += listening
            assert (socket.ask("g", p=f"/{path}") == "ok") == listening, path
            query = {"i": "owner", "l": 1, "vf": "l"}
            assert socket.ask("q", p=f"/{path}", q=query, t=1, h="") != "ok" or listening, path
            for action in ("p", "m", "o", "om"):
                data = {"zq": 1} if action in ("m", "om") else 1
                assert socket.ask(action, p=f"/{path}", d=data) != "ok", path
        assert shown
        # What changes meanwhile is sent to those that listen.
        run(guard.node.client, f"INSERT INTO {HIDDEN} VALUES (7, 'ZQROW7')")
        run(guard.node.client, "INSERT INTO people VALUES (4, 'alice', 'ZQCOL4')")
        socket.ask("g", p="/nodes")
    assert_no_marker(httpx.Response(200, text="".join(socket.received)), "the tree")


@dataclass
class Watching:
    """A connection to the tree `sys`; `received` has all that the node sent."""

    socket: ClientConnection
    received: list[str] = field(default_factory=list)
    requests: int = 0

    def ask(self, action: str, **body: Any) -> str:
        """Send a request, and return the status of its answer."""
        self.requests += 1
        asked = {"t": "d", "d": {"r": self.requests, "a": action, "b": body}}
        self.socket.send(json.dumps(asked))
        while True:
            message = self._message()
            if message["t"] == "d" and message["d"].get("r") == self.requests:
                status: str = message["d"]["b"]["s"]
                return status

    def _message(self) -> dict[str, Any]:
        # A long message comes in frames, after their number.
        frame = self._frame()
        if frame.isdigit():
            frame = "".join(self._frame() for _ in range(int(frame)))
        message: dict[str, Any] = json.loads(frame)
        return message

    def _frame(self) -> str:
        frame = str(self.socket.recv(timeout=20))
        self.received.append(frame)
        return frame


@contextmanager
def watching(guard: GuardedNode, user: str) -> Iterator[Watching]:
    """Connect to the tree as a user."""
    client = guard.clients[user]
    url = str(client.base_url).replace("http", "ws", 1)
    sent = {"authorization": client.headers["authorization"]}
    with connect(f"{url}/.ws?v=5&ns=sys", open_timeout=20, additional_headers=sent) as socket:
        yield Watching(socket)


def is_for_all(guard: GuardedNode, path: str) -> bool:
    """Whether a path of the tree has nothing that a policy is about, so that readers may watch it."""
    table, _, rest = path.partition("/")
    hidden = [guard.ids["people"], guard.ids[HIDDEN]]
    if table in ("datasets", "snapshots", "tags"):
        return bool(rest) and rest.split("/")[0] not in hidden
    if table == "jobs":
        return bool(rest) and rest.split("/")[0] not in guard.ids.values()
    return table in ("nodes", "workers") or (table in ("uploads", "queries") and bool(rest))


@pytest.mark.slow  # a node of its own
def test_the_problem_of_a_task_names_its_dataset_to_admins_alone(opened: OpenNodes) -> None:
    with guarded(opened) as guard:
        lake = guard.node.node.lake
        for number in range(9):  # so many small shards are compacted
            run(guard.node.client, f"INSERT INTO {HIDDEN} VALUES ({number}, 'x')")
        for shard in lake.resolve(HIDDEN)[1]:
            shard.chmod(0o600)
            shard.write_bytes(shard.read_bytes()[::-1])
        guard.node.client.post("/api/maintenance/compact")
        assert wait_for(
            lambda: HIDDEN in guard.node.client.get("/api/maintenance").text or None,
            what="the problem",
            seconds=60,
        )
        for name, client in guard.clients.items():
            for path in ("/api/maintenance", "/api/stats/storage", "/api/datasets?damaged=true",
                         "/api/jobs", "/db/maintenance.json?ns=sys", "/api/stats"):  # fmt: skip
                assert_no_marker(client.get(path), f"{name} {path}")
        assert "admins see" in guard.clients["bob"].get("/api/maintenance").text
