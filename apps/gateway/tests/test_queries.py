"""Running queries and the audit log of a node over HTTP."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from opened_node import OpenNode, OpenNodes

from elytra.client.transport import wait_for
from sennit import logs
from sennit.cli import run
from sennit.settings import LoggingSettings

ENDLESS = {"sql": "SELECT count(*) FROM range(10000000000) a, range(1000) b"}


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    return opened()


def test_a_response_names_its_query(node: OpenNode) -> None:
    answer = node.client.post("/api/query", json={"sql": "SELECT 1"})
    assert len(answer.headers["sennit-query"]) == 26


@pytest.mark.parametrize("way", ["http", "command"])
def test_a_query_is_listed_and_stopped(
    node: OpenNode, way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENNIT_URL", node.url)
    monkeypatch.setenv("SENNIT_TOKEN", node.client.headers["authorization"].split()[1])
    answers: list[httpx.Response] = []
    with node.client_of("reader") as reader, node.client_of("writer") as other:

        def ask() -> None:
            answers.append(reader.post("/api/query", json=ENDLESS))

        asking = threading.Thread(target=ask)
        asking.start()
        (query,) = wait_for(
            lambda: node.client.get("/api/queries").json() or None, what="the query", seconds=30
        )
        assert query["user"] == "reader"
        assert query["statement"] == ENDLESS["sql"]
        assert other.get("/api/queries").json() == []
        assert other.delete(f"/api/queries/{query['id']}").status_code == 404
        if way == "http":
            assert node.client.delete(f"/api/queries/{query['id']}").status_code == 200
        else:
            assert run(["queries"]) == 0
            assert query["id"] in capsys.readouterr().out
            assert run(["queries", query["id"], "--stop"]) == 0
        asking.join(30)

    assert answers[0].status_code == 409
    assert answers[0].json()["hint"] == "it was stopped by admin"
    assert node.client.get("/api/queries").json() == []
    assert node.client.post("/api/query", json={"sql": "SELECT 7"}).json()["rows"] == [[7]]
    assert run(["queries", "--stop"]) == 2


def test_the_audit_log_has_each_query_without_secrets(node: OpenNode) -> None:
    folder = node.node.data / "logs"
    folder.mkdir(exist_ok=True)
    root, audit = logging.getLogger(), logging.getLogger("sennit.audit")
    kept = [*root.handlers], root.level, [*audit.handlers], audit.level, audit.propagate
    logs.configure(LoggingSettings(level="ERROR", rotate_bytes=20_000, rotate_count=2), folder)
    try:
        sql = "SELECT 'token=abcdefghijklmnop', $1"
        node.client.post("/api/query", json={"sql": sql, "params": ["PARAMETER"]})
        node.client.post("/api/query", json={"sql": "SELEC"})
        (second, first, *_) = node.client.get("/api/audit", params={"limit": 5}).json()
        for _ in range(100):
            node.client.post("/api/query", json={"sql": "SELECT 1 -- " + "x" * 500})
        files = sorted(file.name for file in folder.glob("audit.log*"))
        modes = {file.stat().st_mode & 0o777 for file in folder.glob("audit.log*")}
        text = first_line(folder / "audit.log")
    finally:
        close(root, audit, kept)

    assert (first["user"], first["role"], first["outcome"], first["rows"]) == (
        "admin", "admin", "ok", 1,
    )  # fmt: skip
    assert second["outcome"] == "sql"
    assert "abcdefghijklmnop" not in json.dumps(first)
    assert "PARAMETER" not in json.dumps(first)
    assert files == ["audit.log", "audit.log.1", "audit.log.2"]
    assert modes == {0o600}
    assert json.loads(text)["logger"] == "sennit.audit"


def first_line(path: Path) -> str:
    return path.read_text().splitlines()[0]


def close(root: logging.Logger, audit: logging.Logger, kept: Any) -> None:
    """Restore the logging of the test run."""
    for logger in (root, audit, logging.getLogger("lake.peers")):
        for handler in [*logger.handlers]:
            if handler not in kept[0] and handler not in kept[2]:
                logger.removeHandler(handler)
                handler.close()
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    audit.setLevel(kept[3])
    audit.propagate = kept[4]


def test_the_audit_log_is_for_admins(node: OpenNode) -> None:
    with node.client_of("writer") as writer:
        assert writer.get("/api/audit").status_code == 403
    assert node.client.get("/api/audit", params={"limit": 0}).status_code == 422
