"""SQL with the engine `ray` as a user writes it: over HTTP and by the command line, with its refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from nodes import RunningNode, platform, running_node

TRIPS = "id,city,km\n" + "".join(
    f"{i},{'Oslo' if i % 3 else 'Rome'},{i % 7}\n" for i in range(5000)
)
GROUPS = "SELECT city, count(*) AS n, sum(km) AS total FROM trips GROUP BY city ORDER BY city"
ROWS = [["Oslo", "3334", "9997"], ["Rome", "1667", "4998"]]
RULES = {"rules": [{"principal": "role:reader", "rows": "km > 3"}]}
"""For a policy: readers see some of the rows, other tokens none."""


def ask(
    node: RunningNode,
    sql: str,
    *,
    token: str = "",
    accept: str = "application/json",
    **members: Any,
) -> httpx.Response:
    """Send a query with the engine `ray`."""
    headers = {"Authorization": f"Bearer {token or node.token}", "Accept": accept}
    body = {"sql": sql, "engine": "ray", **members}
    return httpx.post(f"{node.url}/api/query", json=body, headers=headers, timeout=300)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def texts(rows: list[list[Any]]) -> list[list[str]]:
    return [[str(value) for value in row] for row in rows]


def test_a_node_without_a_cluster_says_how_to_have_one(node: RunningNode) -> None:
    error = error_of(ask(node, "SELECT 1 AS n"), 400)
    assert error["code"] == "unsupported"
    assert "--ray auto" in error["hint"]
    refused = platform("sql", "SELECT 1 AS n", "--engine", "ray", data=node.data, check=False)
    assert refused.returncode != 0
    assert "without a Ray cluster" in refused.stderr
    assert "--ray auto" in refused.stderr


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_queries_run_on_ray_with_the_rows_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("SENNIT_ELYTRA__RAY_WORKERS", "2")
    monkeypatch.setenv("SENNIT_ELYTRA__RAY_WORKER_BYTES", "256MiB")
    data = tmp_path / "node"
    with running_node(data, "--api-only", "--ray", "auto") as node:
        (tmp_path / "trips.csv").write_text(TRIPS)
        (tmp_path / "none.csv").write_text("id,city,km\n0,Oslo,0\n")
        platform("put", str(tmp_path / "trips.csv"), "--copy", data=data)
        append = ("--name", "trips", "--mode", "append", "--copy", "--wait")
        platform("put", str(tmp_path / "none.csv"), *append, data=data)
        check_answers(node)
        check_command_line(node)
        check_errors(node)
        check_rights(node, tmp_path)


def check_answers(node: RunningNode) -> None:
    answer = ask(node, GROUPS)
    assert answer.status_code == 200, answer.text
    assert texts(answer.json()["rows"]) == ROWS
    assert answer.headers["Sennit-Engine"] == "duckdb"
    stream = ask(node, GROUPS, accept="application/vnd.apache.arrow.stream")
    assert pa.ipc.open_stream(io.BytesIO(stream.content)).read_all()["n"].to_pylist() == [
        3334,
        1667,
    ]
    assert ask(node, GROUPS, accept="text/csv").text.splitlines()[1] == "Oslo,3334,9997"
    explained = "\n".join(str(row) for row in ask(node, f"EXPLAIN {GROUPS}").json()["rows"])
    assert "units" in explained
    # A result with the name of a column has no parts: the node runs it, and the rows are the same.
    whole = "SELECT city, sum(km) AS km, avg(km) AS mean FROM trips GROUP BY city ORDER BY city"
    explained = "\n".join(str(row) for row in ask(node, f"EXPLAIN {whole}").json()["rows"])
    assert "one executor reads them here" in explained
    assert [row[:2] for row in texts(ask(node, whole).json()["rows"])] == [
        ["Oslo", "9997"],
        ["Rome", "4998"],
    ]


def check_command_line(node: RunningNode) -> None:
    found = json.loads(platform("sql", GROUPS, "--engine", "ray", "--json", data=node.data).stdout)
    assert texts(found["rows"]) == ROWS
    table = platform("sql", GROUPS, "--engine", "ray", data=node.data).stdout.splitlines()
    assert "3334" in table[2]
    printed = platform("sql", GROUPS, "--engine", "ray", "--csv", data=node.data).stdout
    assert printed.splitlines()[2] == "Rome,1667,4998"
    for sql, text in (
        ("SELECT kilometres FROM trips", "kilometres"),
        ("DELETE FROM trips", "Ray runs queries only"),
    ):
        refused = platform("sql", sql, "--engine", "ray", data=node.data, check=False)
        assert refused.returncode != 0
        assert text in refused.stderr


def check_errors(node: RunningNode) -> None:
    assert error_of(ask(node, "SELECT kilometres FROM trips"), 400)["code"] == "unknown-column"
    assert error_of(ask(node, "SELECT 1 FROM nothing"), 404)["code"] == "not-found"
    for sql, params in (
        ("SELECT count(*) FROM trips WHERE km > ?", [3]),
        ("DELETE FROM trips", None),
        ("CREATE TABLE copied AS SELECT * FROM trips", None),
    ):
        error = error_of(ask(node, sql, params=params), 400)
        assert (error["code"], "duckdb" in error["hint"]) == ("unsupported", True), sql
    long = (
        "SELECT count(*) AS n FROM trips a JOIN trips b ON a.km < b.id JOIN trips c ON b.km < c.id"
    )
    late = error_of(ask(node, long, deadlineSeconds=1), 504)
    assert late["code"] == "deadline-exceeded"
    assert texts(ask(node, GROUPS).json()["rows"]) == ROWS, "workers go on after a refusal"


def check_rights(node: RunningNode, folder: Path) -> None:
    tokens = {
        role: httpx.post(
            f"{node.url}/api/tokens", json={"name": role, "role": role}, headers=node.headers
        ).json()["token"]
        for role in ("reader", "writer", "worker")
    }
    assert texts(ask(node, GROUPS, token=tokens["reader"]).json()["rows"]) == ROWS
    assert ask(node, GROUPS, token=tokens["worker"]).status_code == 403
    assert ask(node, GROUPS, token="wrong").status_code == 401

    (folder / "rules.json").write_text(json.dumps(RULES))
    platform("policy", "trips", "--set", str(folder / "rules.json"), data=node.data)
    refused = error_of(ask(node, GROUPS, token=tokens["reader"]), 400)
    assert (refused["code"], "a policy shows" in refused["error"]) == ("unsupported", True)
    # To a user whom no rule names the dataset does not exist, whatever the engine.
    assert error_of(ask(node, GROUPS, token=tokens["writer"]), 404)["code"] == "not-found"
    assert texts(ask(node, GROUPS).json()["rows"]) == ROWS, "an admin sees all rows as they are"
