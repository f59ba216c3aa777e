"""Results of jobs that may not become datasets: by right, by quota, by name; over HTTP and with the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from opened_node import OpenNode, OpenNodes

from elytra import Client, Elytra, Pipeline
from sennit_core.errors import Denied, SennitError, StorageFull, UsageError

PLAN = {"v": 1, "op": "scan", "source": {"dataset": "open"}}
Clients = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    """A node with `open`, and with `guarded`, which walt may change and others may only read."""
    node = opened()
    node.upload("open.csv", b"a\n1\n2\n")
    node.upload("guarded.csv", b"a\n7\n")
    rules = [{"principal": "*"}, {"principal": "walt", "write": True}]
    answer = node.client.put("/api/datasets/guarded/policies", json={"rules": rules})
    assert answer.status_code == 200, answer.text
    return node


@pytest.fixture(scope="module")
def client(node: OpenNode) -> Iterator[Clients]:
    """`client(name, role)`: a client of the node with a token of its own."""
    with ExitStack() as owned:

        def open_client(name: str, role: str = "writer") -> httpx.Client:
            made = owned.enter_context(node.anonymous_client())
            made.headers["authorization"] = f"Bearer {node.node.tokens.issue(name, role)}"
            return made

        yield open_client


def _job(client: httpx.Client) -> str:
    answer = client.post("/api/jobs?wait=30", json={"plan": PLAN}).json()
    assert answer["job"]["state"] == "done", answer
    return str(answer["jobId"])


def _save(client: httpx.Client, job: str, name: str, mode: str = "create") -> httpx.Response:
    return client.post(f"/api/jobs/{job}/dataset", json={"name": name, "mode": mode})


def _pipeline(node: OpenNode, client: httpx.Client, owned: ExitStack) -> Pipeline:
    token = client.headers["authorization"].split()[1]
    return Elytra(owned.enter_context(Client(node.url, token))).remote("open")


def _rows(node: OpenNode, name: str) -> Any:
    return node.client.post("/api/query", json={"sql": f"SELECT a FROM {name}"}).json()["rows"]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_who_may_not_change_a_dataset_saves_nothing_in_it(
    node: OpenNode, client: Clients, mode: str
) -> None:
    eve = client("eve")
    answer = _save(eve, _job(eve), "guarded", mode)

    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert _rows(node, "guarded") == [[7]]
    with ExitStack() as owned, pytest.raises(Denied):
        _pipeline(node, eve, owned).save_as("guarded", mode)


def test_the_role_reader_saves_nothing(node: OpenNode, client: Clients) -> None:
    job = _job(client("walt"))
    reader = client("rita", "reader")
    answer = _save(reader, job, "ritas")
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert node.client.get("/api/datasets/ritas").status_code == 404


def test_a_name_is_never_a_path(node: OpenNode, client: Clients) -> None:
    walt, data = client("walt"), node.node.data
    around = sorted(data.parent.iterdir()), sorted(data.iterdir())

    answer = _save(walt, _job(walt), "../guarded")

    assert node.client.get(f"/api/jobs/{answer.json()['jobId']}?wait=30").json()["state"] == "done"
    assert _rows(node, '"../guarded"') == [[1], [2]]
    assert _rows(node, "guarded") == [[7]]
    assert (sorted(data.parent.iterdir()), sorted(data.iterdir())) == around


@pytest.mark.parametrize("name", ["", "x" * 300, "a\u0000b"])
def test_what_is_no_name_is_refused(node: OpenNode, client: Clients, name: str) -> None:
    walt = client("walt")
    answer = _save(walt, _job(walt), name)
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.text) < 1000
    with ExitStack() as owned, pytest.raises((UsageError, SennitError)):
        _pipeline(node, walt, owned).save_as(name)


def test_an_existing_dataset_is_not_created_again(node: OpenNode, client: Clients) -> None:
    walt = client("walt")
    answer = _save(walt, _job(walt), "open")
    job = answer.json().get("jobId")
    if answer.status_code == 200:  # the ingest finds it
        ended = node.client.get(f"/api/jobs/{job}?wait=30").json()
        assert (ended["state"], ended["error"]["code"]) == ("failed", "conflict")
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert _rows(node, "open") == [[1], [2]]


def test_a_user_without_room_gets_507_and_may_save_after_the_quota_was_raised(
    node: OpenNode, client: Clients
) -> None:
    quinn = client("quinn")
    assert node.client.put("/api/quotas/quinn", json={"diskBytes": 10}).status_code == 200
    job = _job(quinn)

    answer = _save(quinn, job, "quinns")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
    with ExitStack() as owned, pytest.raises(StorageFull, match="quinn"):
        _pipeline(node, quinn, owned).save_as("quinns")
    assert node.client.get("/api/datasets/quinns").status_code == 404

    node.client.delete("/api/quotas/quinn")
    saved = _save(quinn, job, "quinns")
    assert saved.status_code == 200, saved.text
    assert node.client.get(f"/api/jobs/{saved.json()['jobId']}?wait=30").json()["state"] == "done"
    assert _rows(node, "quinns") == [[1], [2]]


def test_a_failed_save_is_checked_again_when_it_is_repeated(
    node: OpenNode, client: Clients
) -> None:
    """A right that was taken away after an attempt has failed holds for the next one."""
    node.upload("shared.csv", b"a\n5\n")
    fay = client("fay")
    job = _job(fay)
    node.client.put("/api/quotas/fay", json={"diskBytes": 1 << 40})
    first = _save(fay, job, "shared", "append").json()["jobId"]
    assert node.client.get(f"/api/jobs/{first}?wait=30").json()["state"] == "done"
    rules = [{"principal": "*"}]
    node.client.put("/api/datasets/shared/policies", json={"rules": rules})

    answer = _save(fay, job, "shared", "append")

    assert answer.status_code == 403
    assert _rows(node, "shared") == [[5], [1], [2]]


@pytest.mark.nightly
def test_a_node_without_room_fails_the_ingest_and_keeps_the_rows(opened: OpenNodes) -> None:
    node = opened({"storage.quota_objects": 4})
    node.upload("open.csv", b"a\n1\n2\n")
    job = _job(node.client)
    problem: Exception | None = None
    with ExitStack() as owned:
        rows = _pipeline(node, node.client, owned)
        for number in range(6):
            try:
                rows.save_as(f"copy{number}")
            except StorageFull as found:
                problem = found
                break
    assert problem is not None
    assert node.client.get(f"/api/jobs/{job}/result").json()["rows"] == [[1], [2]]
