"""A node on a file system without a free byte: it answers, deletes, stops and starts again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from small_disks import fill, mounted

from nodes import RunningNode, platform, running_node

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # several processes, two starts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 140 MiB: an upload leaves 64 MiB free."""
    with mounted(tmp_path / "disk", 140) as folder:
        yield folder


def put(node: RunningNode, folder: Path, *names: str) -> None:
    """Make datasets of 20,000 rows."""
    rows = "a,b\n" + "".join(f"{index},{index * 7919 % 10007}\n" for index in range(20_000))
    with node.session() as session:
        for name in names:
            (folder / f"{name}.csv").write_text(rows)
            session.put(folder / f"{name}.csv")


def delete(node: RunningNode, name: str) -> None:
    answer = httpx.delete(f"{node.url}/api/datasets/{name}", headers=node.headers, timeout=60)
    assert answer.status_code == 200, answer.text


def count(node: RunningNode, name: str) -> object:
    body = {"sql": f"select count(*) from {name}"}
    answer = httpx.post(f"{node.url}/api/query", json=body, headers=node.headers, timeout=60)
    return answer.json()["rows"]


def test_a_node_on_a_full_disk_answers_and_deletes(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "node"
    with running_node(data, "--api-only", "--memory", "1GiB") as node:
        put(node, tmp_path, "one", "two")
        fill(small_disk)
        assert json.loads(platform("status", "--json", data=data).stdout)["url"] == node.url
        refused = platform("put", str(tmp_path / "one.csv"), "--name", "x", data=data, check=False)
        assert refused.returncode == 6
        assert "no space left" in refused.stderr
        delete(node, "one")
        fill(small_disk)
        assert count(node, "two") == [[20_000]]
        delete(node, "two")
        assert httpx.get(f"{node.url}/api/datasets", headers=node.headers).json() == []


def test_a_node_starts_and_stops_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "node"
    with running_node(data, "--api-only", "--memory", "1GiB") as node:
        put(node, tmp_path, "one")
        fill(small_disk)
    fill(small_disk)
    with running_node(data, "--api-only", "--memory", "1GiB") as node:
        fill(small_disk)
        assert count(node, "one") == [[20_000]]
        delete(node, "one")
