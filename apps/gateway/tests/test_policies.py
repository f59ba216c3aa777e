"""Access policies over HTTP: every interface of a node, as users with tokens meet it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from opened_node import OpenNode, OpenNodes

from elytra.client.transport import wait_for
from sennit.cli import run

CSV = b"id,owner,ssn\n1,alice,SECRET1\n2,bob,SECRET2\n3,alice,SECRET3\n"
RULES = [
    {"principal": "alice", "rows": "owner = current_user", "columns": [{"name": "ssn"}]},
    {"principal": "walt", "write": True},
]
Clients = Callable[..., httpx.Client]
QUERY = "SELECT * FROM people ORDER BY id"


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    """A node with the dataset `people`, of which alice sees two rows without a column."""
    node = opened()
    node.upload("people.csv", CSV)
    node.upload("open.csv", b"a\n1\n")
    answer = node.client.put("/api/datasets/people/policies", json={"rules": RULES})
    assert answer.status_code == 200, answer.text
    return node


@pytest.fixture(scope="module")
def client(node: OpenNode) -> Iterator[Clients]:
    """`client(name, role)`: a client of the node with a token of its own."""
    with ExitStack() as owned:

        def open_client(name: str, role: str = "reader") -> httpx.Client:
            client = owned.enter_context(node.anonymous_client())
            client.headers["authorization"] = f"Bearer {node.node.tokens.issue(name, role)}"
            return client

        yield open_client


def plan(dataset: str = "people") -> dict[str, Any]:
    source = {"dataset": dataset}
    return {"plan": {"v": 1, "op": "scan", "source": source}}


def test_a_query_returns_what_the_policy_shows(node: OpenNode, client: Clients) -> None:
    alice = client("alice").post("/api/query", json={"sql": QUERY}).json()
    bob = client("bob").post("/api/query", json={"sql": QUERY})
    everything = node.client.post("/api/query", json={"sql": QUERY}).json()

    assert alice["rows"] == [[1, "alice"], [3, "alice"]]
    assert bob.status_code == 404
    assert len(everything["rows"]) == 3


def test_listings_show_what_the_policy_shows(node: OpenNode, client: Clients) -> None:
    alice, bob = client("alice"), client("bob")
    shown = alice.get("/api/datasets/people").json()

    assert [field["name"] for field in shown["schema"]["fields"]] == ["id", "owner"]
    assert (shown["rows"], shown["bytes"], shown["restricted"]) == (0, 0, True)
    assert "ingest" not in shown
    assert [row["name"] for row in bob.get("/api/datasets").json()] == ["open"]
    assert bob.get("/api/datasets/people").status_code == 404
    assert "people" not in bob.get("/api/datasets/peopl").text.replace("peopl'", "")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/datasets/people/snapshots", None),
        ("GET", "/api/datasets/people/snapshots/head", None),
        ("GET", "/api/datasets/people/changes?since=1", None),
        ("PUT", "/api/datasets/people/tags/x", {"version": 1}),
        ("DELETE", "/api/datasets/people/tags/x", None),
        ("POST", "/api/datasets/people/expire", {}),
        ("POST", "/api/datasets/people/compact", None),
        ("POST", "/api/datasets/people/reorder-columns", {"columns": ["id"]}),
        ("POST", "/api/datasets/people/fork", {"name": "mine"}),
        ("GET", "/files/people/head/0.parquet", None),
        ("HEAD", "/files/people/head/0.parquet", None),
        ("GET", "/api/datasets/people/policies", None),
        ("PUT", "/api/datasets/people/policies", {"rules": []}),
        ("DELETE", "/api/datasets/people/policies", None),
        ("DELETE", "/api/datasets/people", None),
        ("POST", "/api/datasets/people/rollback", {"version": 1}),
        ("POST", "/api/verify", {"dataset": "people"}),
        ("POST", "/api/start-upload", {"name": "people.csv", "mode": "append", "size": 3}),
        ("POST", "/api/start-upload", {"name": "PEOPLE.csv", "mode": "replace", "size": 3}),
        ("POST", "/api/upload?name=people.csv&mode=append", None),
        ("POST", "/api/query", {"sql": "DELETE FROM people"}),
        ("GET", "/db/.json?ns=sys", None),
        ("GET", "/db/datasets.json?ns=sys", None),
        ("GET", "/db/policies.json?ns=sys", None),
        ("GET", "/db/snapshots.json?ns=sys&shallow=true", None),
        ("GET", "/db/jobs.json?ns=sys", None),
        ("GET", "/datasets.json?ns=sys", None),
    ],
)
def test_interfaces_around_sql_are_refused(
    node: OpenNode, client: Clients, method: str, path: str, body: Any
) -> None:
    for name, status in (("alice", 403), ("bob", 404)):
        answer = client(name, "writer").request(method, path, json=body)

        assert answer.status_code in (status, 403, 401), (name, answer.text)
        assert "SECRET" not in answer.text
    assert node.client.get("/api/datasets/people").json()["rows"] == 3


def test_a_principal_that_may_write_sees_and_changes_the_dataset(
    node: OpenNode, client: Clients
) -> None:
    walt = client("walt", "writer")

    assert walt.get("/files/people/head/0.parquet").status_code == 200
    sql = "UPDATE people SET id = id WHERE id = 1"
    assert walt.post("/api/query", json={"sql": sql}).json()["rows"] == [[1]]
    # The role is needed as well.
    assert client("walt").post("/api/query", json={"sql": sql}).status_code == 403


def test_a_job_shows_what_the_policy_shows(node: OpenNode, client: Clients) -> None:
    alice = client("alice", "writer")
    job = alice.post("/api/jobs", json=plan()).json()["jobId"]
    record = wait_for(
        lambda: (
            found if (found := alice.get(f"/api/jobs/{job}").json())["state"] == "done" else None
        ),
        what="the job",
        seconds=60,
    )
    text = alice.get(f"/api/jobs/{job}/result", headers={"accept": "text/csv"}).text
    assert text.split() == ["id,owner", "1,alice", "3,alice"]
    assert "SECRET" not in json.dumps(record)
    answer = client("bob", "writer").post("/api/jobs", json=plan())
    assert (answer.status_code, "SECRET" in answer.text) == (404, False)


def test_results_of_jobs_are_for_those_who_may_read_the_datasets(
    node: OpenNode, client: Clients
) -> None:
    walt = client("walt", "writer")
    job = walt.post("/api/jobs", json=plan()).json()["jobId"]
    wait_for(
        lambda: walt.get(f"/api/jobs/{job}").json()["state"] == "done" or None,
        what="the job",
        seconds=60,
    )

    assert "SECRET2" in walt.get(f"/api/jobs/{job}/result").text
    for name in ("alice", "bob"):
        other = client(name)
        assert other.get(f"/api/jobs/{job}/result").status_code == 404
        assert other.get(f"/db/jobs/{job}.json?ns=sys").status_code in (401, 403)
        assert job not in other.get("/api/jobs").text
    assert client("walt").get(f"/db/jobs/{job}.json?ns=sys").status_code == 200


def test_an_owner_manages_the_policy_of_a_dataset(node: OpenNode, client: Clients) -> None:
    olga = client("olga", "writer")
    made = olga.post("/api/query", json={"sql": "CREATE TABLE olgas AS SELECT 7 AS a"})
    assert made.status_code == 200, made.text
    rules = [{"principal": "role:reader", "rows": "a > 7"}]

    assert olga.put("/api/datasets/olgas/policies", json={"rules": rules}).status_code == 200
    assert olga.get("/api/datasets/olgas/policies").json()["author"] == "olga"
    query = {"sql": "SELECT count(*) FROM olgas"}
    assert client("eve").post("/api/query", json=query).json()["rows"] == [[0]]
    assert olga.post("/api/query", json=query).json()["rows"] == [[1]]
    assert olga.delete("/api/datasets/olgas/policies").json() == {"deleted": True}
    assert client("eve").post("/api/query", json=query).json()["rows"] == [[1]]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"principal": "a", "rows": "nosuch = 1"}], "nosuch"),
        ([{"principal": "a", "rows": "1 = 1) OR (SELECT true"}], ""),
        ([{"principal": "a", "nosuch": 1}], "nosuch"),
        ([{"rows": "true"}], "principal"),
        ([{"principal": "a"}] * 300, "256"),
        ([{"principal": "a", "rows": 5}], "rows"),
        ("all", "rules"),
    ],
)
def test_a_malformed_policy_is_refused(node: OpenNode, rules: Any, words: str) -> None:
    answer = node.client.put("/api/datasets/open/policies", json={"rules": rules})

    assert 400 <= answer.status_code < 500
    assert words in answer.text
    assert node.client.get("/api/datasets/open/policies").json() == {"rules": None}


def test_the_command_shows_sets_and_clears_a_policy(
    node: OpenNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("SENNIT_URL", node.url)
    monkeypatch.setenv("SENNIT_TOKEN", node.client.headers["authorization"].split()[1])
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"rules": [{"principal": "*", "rows": "a < 1"}]}))

    assert run(["policy", "open", "--set", str(file)]) == 0
    assert "a < 1" in capsys.readouterr().out
    assert run(["policy", "open", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"][0]["principal"] == "*"
    assert run(["policy", "open", "--clear"]) == 0
    assert "no policy" in capsys.readouterr().out
    assert run(["policy", "open", "--clear", "--set", str(file)]) == 2


def test_open_streams_end_when_a_policy_is_set(opened: OpenNodes) -> None:
    node = opened()
    node.upload("open.csv", b"a\n1\n")
    path = "/db/datasets.json?ns=sys"
    with node.client_of("reader") as reader:
        accept = {"accept": "text/event-stream"}
        with reader.stream("GET", path, headers=accept) as stream:
            lines = stream.iter_lines()
            assert "put" in next(lines)
            node.client.put("/api/datasets/open/policies", json={"rules": []})
            assert all("SECRET" not in line for line in lines)  # it ends
        assert reader.get(path).status_code == 401  # as Firebase's rules answer
