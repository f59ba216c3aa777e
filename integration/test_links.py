"""`platform put` of a file on the node's own machine, which is linked, and `platform path`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from nodes import RunningNode, platform, running_node

ROWS = "a,b\n" + "".join(f"{i},x{i}\n" for i in range(100))


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node whose datasets are of this module."""
    with running_node(tmp_path_factory.mktemp("node"), "--api-only", "--memory", "1GiB") as node:
        yield node


def test_a_file_is_linked_then_ingested_and_its_paths_are_printed(
    linked: RunningNode, tmp_path: Path
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(ROWS)

    platform("put", str(file), "--link-only", data=linked.data)
    assert platform("path", "t", data=linked.data).stdout == f"{file}\n"
    platform("put", str(file), "--mode", "replace", data=linked.data)
    (path,) = json.loads(platform("path", "t", "--json", data=linked.data).stdout)
    assert pq.read_table(path).num_rows == 100
    out = platform("put", str(file), "--name", "u", "--wait", "--json", data=linked.data).stdout
    assert json.loads(out)[0]["rows"] == 100
    source = json.loads(out)[0]["ingest"]["source"]
    assert "sha256" in source, "read in place, not uploaded"
    out = platform("put", str(file), "--name", "v", "--copy", "--json", data=linked.data).stdout
    assert "sha256" not in json.loads(out)[0]["ingest"]["source"]


def test_a_failed_put_leaves_no_dataset(linked: RunningNode, tmp_path: Path) -> None:
    file = tmp_path / "failed.csv"
    file.write_text(ROWS * 2000 + "1,2,3\n")

    failed = platform("put", str(file), "--wait", data=linked.data, check=False)
    assert "has 3 fields" in failed.stderr
    listed = json.loads(platform("datasets", "--json", data=linked.data).stdout)
    assert "failed" not in [each["name"] for each in listed]


def test_an_issued_admin_token_uploads_but_does_not_link(linked: RunningNode) -> None:
    headers = linked.headers
    issued = httpx.post(
        f"{linked.url}/api/tokens", json={"name": "other", "role": "admin"}, headers=headers
    ).json()["token"]
    refused = httpx.get(
        f"{linked.url}/api/datasets/t/paths", headers={"authorization": f"Bearer {issued}"}
    )
    assert refused.status_code == 403
    assert "admin token of the node's data folder" in refused.text
