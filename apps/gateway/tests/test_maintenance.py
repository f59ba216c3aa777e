"""Maintenance and purges of a node, as jobs, routes and verbs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from opened_node import OpenNode, OpenNodes

from elytra.client.transport import wait_for
from sennit.cli import run
from sennit_core.testing import ManualClock


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    return opened({"storage.compact_hours": 0, "storage.sweep_hours": 0})


@pytest.fixture
def verbs(node: OpenNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENNIT_URL", node.url)
    monkeypatch.setenv("SENNIT_TOKEN", node.client.headers["authorization"].split()[1])


def sql(node: OpenNode, text: str) -> list[Any]:
    answer = node.client.post("/api/query", json={"sql": text})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["rows"])


def job(node: OpenNode, job_id: str) -> dict[str, Any]:
    return dict(node.client.get(f"/api/jobs/{job_id}").json())


def ended(node: OpenNode, job_id: str) -> dict[str, Any]:
    states = ("done", "failed", "cancelled")
    wait_for(lambda: job(node, job_id)["state"] in states or None, what=job_id, seconds=60)
    return job(node, job_id)


def small_shards(node: OpenNode, name: str) -> None:
    sql(node, f"CREATE TABLE {name} AS SELECT 0 AS a")
    for number in range(1, 9):
        sql(node, f"INSERT INTO {name} VALUES ({number})")


def test_a_run_on_request_is_a_job(node: OpenNode) -> None:
    small_shards(node, "small")

    done = ended(node, node.client.post("/api/maintenance/compact").json()["jobId"])

    assert (done["kind"], done["state"]) == ("maintenance", "done")
    assert (done["result"]["task"], done["result"]["changed"]) == ("compact", 1)
    assert done["submittedBy"] == "admin"
    assert done["id"] in {each["id"] for each in node.client.get("/api/jobs").json()}
    assert node.client.get("/api/datasets/small").json()["shards"] == 1
    assert node.client.get(f"/api/jobs/{done['id']}/result").status_code == 404


def test_a_scrub_is_a_job_that_can_be_cancelled(node: OpenNode) -> None:
    small_shards(node, "many")
    lake = node.node.lake
    lake.scrubber.rate_bytes = 1024
    try:
        job_id = node.client.post("/api/maintenance/scrub").json()["jobId"]
        running = "running"
        wait_for(lambda: job(node, job_id)["state"] == running or None, what=running, seconds=60)
        node.client.delete(f"/api/jobs/{job_id}")
        assert ended(node, job_id)["state"] == "cancelled"
    finally:
        lake.scrubber.rate_bytes = 1 << 30


def test_runs_need_an_admin(node: OpenNode) -> None:
    with node.anonymous_client() as writer:
        writer.headers["authorization"] = f"Bearer {node.node.tokens.issue('walt', 'writer')}"
        assert writer.post("/api/maintenance/compact").status_code == 403
        assert writer.get("/api/maintenance").status_code == 200


def test_purges_erase_the_results_of_pipelines(node: OpenNode, verbs: None) -> None:
    node.upload("people.csv", b"id,email\n1,ada\n2,zelda-4711\n")
    plan = {"v": 1, "op": "scan", "source": {"dataset": "people"}}
    done = ended(node, node.client.post("/api/jobs", json={"plan": plan}).json()["jobId"])
    assert done["state"] == "done"

    assert run(["purge", "people", "--where", "email = ?", "--param", "zelda-4711", "--yes"]) == 0

    assert sql(node, "SELECT id FROM people") == [[1]]
    assert node.client.get(f"/api/jobs/{done['id']}").status_code == 404
    places = [node.node.data / name for name in ("lake", "jobs", "elkyn", "uploads", "spill")]
    found = [
        path
        for place in places
        for path in place.rglob("*")
        if path.is_file() and b"zelda-4711" in path.read_bytes()
    ]
    assert found == []


def test_a_purge_needs_the_owner_or_an_admin(node: OpenNode) -> None:
    node.upload("owned.csv", b"id\n1\n")
    with node.anonymous_client() as writer:
        writer.headers["authorization"] = f"Bearer {node.node.tokens.issue('eve', 'writer')}"
        answer = writer.post("/api/datasets/owned/purge", json={"where": "id = 1"})
    assert answer.status_code == 403
    assert "owner or an admin" in answer.text
    assert sql(node, "SELECT count(*) FROM owned") == [[1]]


def test_the_verbs(
    node: OpenNode, verbs: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["maintenance", "run", "compact"]) == 0
    small_shards(node, "verbs")
    capsys.readouterr()
    assert run(["maintenance"]) == 0
    assert "compact" in capsys.readouterr().out
    assert run(["maintenance", "run", "compact"]) == 0
    assert "1 changed, 0 skipped" in capsys.readouterr().out
    assert run(["maintenance", "run"]) == 2
    assert run(["maintenance", "run", "nothing"]) == 4

    assert run(["retention", "verbs"]) == 0
    assert "every version" in capsys.readouterr().out
    assert run(["retention", "verbs", "--keep", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keep"] == 2
    assert run(["maintenance", "run", "expire"]) == 0
    assert len(node.client.get("/api/datasets/verbs/snapshots").json()) == 2
    assert run(["retention", "verbs", "--clear"]) == 0
    assert run(["retention", "verbs", "--clear", "--keep", "1"]) == 2
    assert run(["retention", "verbs", "--days", "3"]) == 2

    capsys.readouterr()
    assert run(["purge", "verbs", "--where", "a = 3", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1


def test_the_verb_of_the_cleanup(
    node: OpenNode, verbs: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("idle", "wanted"):
        sql(node, f"CREATE TABLE {name} AS SELECT 7 AS a")
    monkeypatch.setattr(node.node.lake.cleanup, "_unused_seconds", 1.0)
    monkeypatch.setattr(node.node.lake.cleanup, "_clock", ManualClock(time.time() + 7200))
    for each in node.client.get("/api/datasets").json():
        if each["name"] != "idle":
            assert run(["cleanup", "keep", each["name"]]) == 0
    assert run(["cleanup"]) == 0
    assert "it is kept" in capsys.readouterr().out
    assert run(["cleanup", "run"]) == 0
    assert "1 removed" in capsys.readouterr().out
    assert run(["cleanup", "trash", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["idle"]
    assert run(["cleanup", "restore", "nosuch"]) != 0
    assert run(["cleanup", "restore", "idle", "--name", "back"]) == 0
    assert sql(node, "SELECT a FROM back") == [[7]]
    assert run(["cleanup", "keep"]) == 2
    assert run(["cleanup", "sweep"]) == 2
    for each in node.client.get("/api/datasets").json():
        assert run(["cleanup", "release", each["name"]]) == 0


def test_a_quota_has_a_users_weight_in_jobs(
    node: OpenNode, verbs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quota", "wim", "--weight", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobWeight"] == 5
    assert node.client.get("/api/quotas/wim").json()["jobWeight"] == 5
    for weight in (0, 101, 2.5, "5"):
        answer = node.client.put("/api/quotas/wim", json={"jobWeight": weight})
        assert answer.status_code in (400, 422)
    assert run(["quota", "wim", "--clear"]) == 0


def test_quotas_of_users_at_every_door(
    node: OpenNode, verbs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quota", "quinn", "--disk", "1KiB", "--per-minute", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diskBytes"] == 1024
    assert run(["quota", "quinn", "--statements", "3"]) == 0
    assert "1.0 KiB" in capsys.readouterr().out  # what is not named stays
    with node.anonymous_client() as quinn:
        quinn.headers["authorization"] = f"Bearer {node.node.tokens.issue('quinn', 'writer')}"
        create = {"sql": "CREATE TABLE small_one AS SELECT i FROM range(300) r(i)"}
        assert quinn.post("/api/query", json=create).status_code == 200
        refused = {"sql": "CREATE TABLE large AS SELECT hash(i) FROM range(9000) r(i)"}
        answer = quinn.post("/api/query", json=refused)
        assert answer.status_code == 507
        assert "quinn" in answer.json()["error"]
        assert "ask an admin" in answer.json()["hint"]
        assert quinn.put("/api/quotas/quinn", json={}).status_code == 403
        assert quinn.get("/api/quotas/quinn").json()["diskBytes"] == 1024
        assert quinn.get("/api/quotas/other").status_code == 404
        assert run(["quota", "quinn", "--disk", "1"]) == 0
        start = {"name": "x.csv", "size": 4}
        assert quinn.post("/api/start-upload", json=start).status_code == 507
        assert run(["quota", "quinn", "--per-minute", "1"]) == 0
        codes = {quinn.post("/api/query", json={"sql": "SELECT 1"}).status_code for _ in range(3)}
        assert 429 in codes
        assert "disk" not in quinn.get("/api/stats/storage").json()
    assert run(["quota", "quinn", "--clear"]) == 0
    unknown, known = "ab" * 32, node.node.node_id
    node.node.peers.invite()  # founds a network, in which this node is known by its name
    for each in (unknown, known):
        assert run(["quota", f"*@{each}", "--statements", "3"]) == 0
    capsys.readouterr()
    assert run(["quota"]) == 0
    shown = capsys.readouterr().out
    assert "*@abababababababab " in shown
    assert f"*@{node.node.peers.options.name} " in shown
    assert unknown not in shown
    assert run(["quota", "--json"]) == 0
    whole = capsys.readouterr().out
    assert unknown in whole
    assert known in whole
    for each in (unknown, known):
        assert run(["quota", f"*@{each}", "--clear"]) == 0
    assert run(["quota", "--clear"]) == 2
    assert run(["quota"]) == 0
