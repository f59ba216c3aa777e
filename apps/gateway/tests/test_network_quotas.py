"""Disk quotas between two nodes: who is refused, where, and that nothing is stored then."""

from __future__ import annotations

import pytest
from opened_node import OpenNode

from .test_network_hand_over import TRIPS, nodes, total, until

__all__ = ["nodes"]
pytestmark = pytest.mark.nightly  # two nodes, which find each other


def test_users_of_another_node_are_refused_at_their_own(nodes: tuple[OpenNode, OpenNode]) -> None:
    oslo, rome = nodes
    until(lambda: rome.client.get(f"{TRIPS}/sharing").json()["readOnly"] is False)

    def insert(km: int) -> tuple[int, str]:
        sql = f"INSERT INTO trips VALUES ('Bern', {km})"
        with rome.client_of("writer") as writer:
            answer = writer.post("/api/query", json={"sql": sql})
        return answer.status_code, answer.text

    assert insert(10)[0] == 200
    assert oslo.client.put("/api/quotas/*@rome", json={"diskBytes": 1}).is_success
    status, text = insert(100)
    assert (status, "storage-full" in text) == (507, True), text
    assert "users of node" in text
    uploaded = rome.client.post(
        "/api/upload", params={"name": "trips.csv", "mode": "append"}, content=b"city,km\nBern,1\n"
    )
    job = uploaded.json().get("jobId")
    until(lambda: rome.node.jobs.get(job).state == "failed")
    assert "users of node" in str(rome.node.jobs.get(job).error)
    assert total(oslo) == 17
    [quota] = oslo.client.get("/api/quotas").json()
    assert quota["user"].startswith("*@")
    assert quota["storedBytes"] > 1
    assert oslo.client.put("/api/quotas/*@rome", json={"diskBytes": 1 << 20}).is_success
    assert insert(100)[0] == 200
    assert total(oslo) == 117
