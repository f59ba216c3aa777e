"""Flight SQL of a real node: its tokens and roles, its address, its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import httpx
import pyarrow as pa
import pytest

from nodes import RunningNode, platform, running_node
from sennit import run_file


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running_node(tmp_path_factory.mktemp("node"), "--api-only") as node:
        yield node


def connect(node: RunningNode, token: str) -> Any:
    running = run_file.read(node.data)
    assert running is not None
    assert running.flight is not None
    options = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    return adbc.connect(running.flight, options, autocommit=True)


def issue(node: RunningNode, role: str) -> str:
    body = {"name": role, "role": role}
    answer = httpx.post(f"{node.url}/api/tokens", json=body, headers=node.headers)
    return str(answer.json()["token"])


def test_a_client_writes_and_reads_by_its_role(node: RunningNode) -> None:
    rows = pa.table({"a": [1, 2, 3]})
    with connect(node, issue(node, "writer")) as client, client.cursor() as cursor:
        assert cursor.adbc_ingest("numbers", rows) == 3
    with connect(node, issue(node, "reader")) as client, client.cursor() as cursor:
        cursor.execute("select a from numbers where a > ?", [1])
        assert cursor.fetchall() == [(2,), (3,)]
        with pytest.raises(adbc_driver_manager.Error, match="writer"):
            cursor.execute("delete from numbers")
    with httpx.Client(base_url=node.url, headers=node.headers) as client:
        (dataset,) = client.get("/api/datasets").json()
    assert (dataset["name"], dataset["owner"], dataset["rows"]) == ("numbers", "writer", 3)


def test_a_revoked_token_is_refused(node: RunningNode) -> None:
    token = issue(node, "reader")
    with httpx.Client(base_url=node.url, headers=node.headers) as client:
        revoked = client.get("/api/tokens").json()
        for row in revoked:
            client.delete(f"/api/tokens/{row['id']}")
    with (
        connect(node, token) as client,
        client.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match="not signed in"),
    ):
        cursor.execute("select 1")
    assert "refused flight" in (node.data / "logs" / "audit.log").read_text()


def test_the_address_is_shown(node: RunningNode) -> None:
    running = run_file.read(node.data)
    assert running is not None
    assert f"Flight SQL: {running.flight}" in platform("status", data=node.data).stdout
    assert f"Flight SQL: {running.flight}" in platform("up", "--detach", data=node.data).stdout
