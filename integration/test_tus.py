"""Clients of tus as they are published, against a node: tuspy, tus-js-client, and Uppy's plugin."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_sdks import JS, install_sdks, run_script
from tusclient.client import TusClient

from elytra.client.transport import wait_for
from nodes import RunningNode, running_node

HEAD = {"Tus-Resumable": "1.0.0"}
ROWS = 40_000
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def sdks() -> None:
    install_sdks()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.csv", ROWS)


def write_rows(path: Path, rows: int) -> Path:
    path.write_text("id,name\n" + "".join(f"{i},some text of row {i}\n" for i in range(rows)))
    return path


def uploader(node: RunningNode, file: Path, **options: Any) -> Any:
    client = TusClient(f"{node.url}/tus/", headers=node.headers)
    named = {"filename": file.name}
    # tuspy does not close a file that it opens.
    stream = io.BytesIO(file.read_bytes())
    return client.uploader(file_stream=stream, metadata=named, **options)


def offset_of(node: RunningNode, url: str) -> int:
    answer = httpx.head(url, headers=node.headers | HEAD)
    assert answer.status_code == 200, answer.status_code
    return int(answer.headers["Upload-Offset"])


def check_rows(node: RunningNode, url: str, rows: int = ROWS, name: str = "rows") -> None:
    """Wait for the ingest that HEAD names; the dataset has every row once."""
    job = httpx.head(url, headers=node.headers | HEAD).headers["Sennit-Job"]
    place = f"{node.url}/api/jobs/{job}"

    def state() -> str | None:
        found = httpx.get(place, headers=node.headers).json()
        assert found["state"] != "failed", found
        return str(found["state"]) if found["state"] == "done" else None

    wait_for(state, what="the ingest", seconds=60)
    with node.session() as session:
        found = session.sql(f"select count(*), count(distinct id), sum(id) from {name}").rows[0]
        assert found == (rows, rows, rows * (rows - 1) // 2)
        session.delete(name)


def test_tuspy_uploads_with_checksums_and_resumes(node: RunningNode, source: Path) -> None:
    first = uploader(node, source, chunk_size=300_000, upload_checksum=True)
    first.upload_chunk()
    first.upload_chunk()

    again = uploader(node, source, url=first.url, chunk_size=10 * MIB)
    assert again.offset == 600_000
    again.upload()

    check_rows(node, str(first.url))


def test_tus_js_client_killed_in_the_middle_resumes(
    node: RunningNode, source: Path, tmp_path: Path
) -> None:
    place = (f"{node.url}/tus/", str(source))
    storage = str(tmp_path / "storage.json")
    command = ["node", str(JS / "tus.mjs"), *place, "killed", storage]
    killed = subprocess.run(command, env=os.environ | {"SENNIT_TOKEN": node.token}, timeout=60)
    assert killed.returncode == -signal.SIGKILL

    done = run_script("tus.mjs", *place, "resumed", storage, SENNIT_TOKEN=node.token)

    assert done["firstOffset"] == 3 * 256 * 1024
    check_rows(node, done["url"])


def test_the_example_of_the_page_runs(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (JS.parents[1] / "docs" / "uploads.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("TOKEN", node.token)
    monkeypatch.setenv("NODE", node.url)
    names: dict[str, Any] = {}

    exec(code, names)

    head = httpx.head(names["uploader"].url, headers=node.headers | HEAD)
    httpx.get(f"{node.url}/api/jobs/{head.headers['Sennit-Job']}?wait=30", headers=node.headers)
    with node.session() as session:
        assert session.sql("select sum(km) from trips").rows == [(7,)]
        session.delete("trips")


@pytest.mark.parametrize("mode", ["parallel", "uppy"])
def test_tus_js_client_and_uppy_work_unmodified(
    node: RunningNode, source: Path, tmp_path: Path, mode: str
) -> None:
    done = run_script(
        "tus.mjs", f"{node.url}/tus/", str(source), mode, str(tmp_path / "storage.json"),
        SENNIT_TOKEN=node.token,
    )  # fmt: skip

    check_rows(node, done["url"])


def create(node: RunningNode, size: int) -> str:
    headers = (
        node.headers | HEAD | {"Upload-Length": str(size), "Upload-Metadata": "filename cm93cw=="}
    )
    answer = httpx.post(f"{node.url}/tus/", headers=headers)
    return f"{node.url}{answer.headers['Location']}"


def open_patch(node: RunningNode, url: str, offset: int, announced: int) -> socket.socket:
    """A connection on which the head of a PATCH was sent, and none of its body."""
    target = httpx.URL(url)
    connection = socket.create_connection((target.host, target.port or 80))
    lines = [
        f"PATCH {target.path} HTTP/1.1", f"Host: {target.host}:{target.port}",
        f"Authorization: Bearer {node.token}", "Tus-Resumable: 1.0.0",
        "Content-Type: application/offset+octet-stream", f"Upload-Offset: {offset}",
        f"Content-Length: {announced}",
    ]  # fmt: skip
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def patch(node: RunningNode, url: str, offset: int, data: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    return httpx.patch(url, headers=node.headers | HEAD | headers, content=data, timeout=60)


def test_a_request_that_breaks_off_keeps_what_arrived(node: RunningNode, source: Path) -> None:
    data = source.read_bytes()
    url = create(node, len(data))
    with open_patch(node, url, 0, len(data)) as connection:
        connection.sendall(data[:700_001])

    wait_for(lambda: offset_of(node, url) == 700_001 or None, what="the prefix", seconds=20)

    assert patch(node, url, 700_001, data[700_001:]).status_code == 204
    check_rows(node, url)


def test_a_client_that_comes_back_ends_its_lost_request(node: RunningNode, source: Path) -> None:
    data = source.read_bytes()
    url = create(node, len(data))
    with open_patch(node, url, 0, len(data)) as lost:
        lost.sendall(data[:500_000])
        time.sleep(0.2)  # as a network that is gone: no byte and no end of the connection

        refused = patch(node, url, 0, data)

        assert refused.status_code == 409
        assert refused.headers["Upload-Offset"] == str(offset_of(node, url)) == "500000"
        assert patch(node, url, 500_000, data[500_000:]).status_code == 204
    check_rows(node, url)


@pytest.mark.nightly
@pytest.mark.crash
def test_a_node_killed_in_the_middle_of_a_request_has_what_it_acknowledged(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.csv", 2_000_000)
    data = source.read_bytes()
    assert len(data) > 50 * MIB
    with running_node(tmp_path / "data", "--api-only", "--memory", "1GiB") as node:
        url = create(node, len(data))
        assert patch(node, url, 0, data[:1000]).headers["Upload-Offset"] == "1000"
        with open_patch(node, url, 1000, len(data) - 1000) as connection:
            connection.sendall(data[1000 : 40 * MIB])
            shown = wait_for(lambda: offset_of(node, url) // (20 * MIB), what="parts", seconds=60)
            shown = offset_of(node, url)
            node.kill()
    path = httpx.URL(url).path
    with running_node(tmp_path / "data", "--api-only", "--memory", "1GiB") as node:
        url = f"{node.url}{path}"
        assert shown <= offset_of(node, url) <= 40 * MIB

        again = uploader(node, source, url=url, chunk_size=10**9)
        assert again.offset == offset_of(node, url)
        again.upload()

        check_rows(node, url, rows=2_000_000)
