"""Processes killed outright: acknowledged data is there, and nothing is half visible."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nodes import RunningNode, platform, running_node

pytestmark = pytest.mark.crash
ROWS = 400_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("source") / "big.csv"
    lines = (f"{i},name {i % 1000},{i * 0.5}\n" for i in range(ROWS))
    path.write_text("id,name,value\n" + "".join(lines))
    return path


def upload_parts(node: RunningNode, source: Path, count: int | None = None) -> Any:
    """Send the file's parts, all or the first `count`; answer the upload's id."""
    content = source.read_bytes()
    part = 1 << 20
    body = {"name": "big", "size": len(content), "partBytes": part}
    upload = httpx.post(f"{node.url}/api/start-upload", json=body, headers=node.headers).json()[
        "uploadId"
    ]
    pieces = [content[at : at + part] for at in range(0, len(content), part)]
    for index, piece in enumerate(pieces[:count]):
        headers = {**node.headers, "x-sha256": hashlib.sha256(piece).hexdigest()}
        url = f"{node.url}/api/uploads/{upload}/parts/{index}"
        assert httpx.put(url, content=piece, headers=headers).status_code == 200
    return upload


def wait_for_dataset(node: RunningNode, seconds: float = 60) -> Any:
    """The dataset once its ingest has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = httpx.get(f"{node.url}/api/datasets", headers=node.headers).json()
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError("no dataset appeared")


@pytest.mark.sample(1)
@pytest.mark.parametrize("delay", [0.4, 0.0, 0.15, 0.8, 1.5])
def test_a_node_killed_during_ingest_has_the_dataset_whole_afterwards(
    source: Path, tmp_path: Path, delay: float
) -> None:
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        upload = upload_parts(node, source)
        url = f"{node.url}/api/uploads/{upload}/complete"
        answer = httpx.post(url, headers=node.headers)
        assert answer.status_code == 200
        time.sleep(delay)
        node.kill()
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        assert wait_for_dataset(node)["rows"] == ROWS
        with node.session() as session:
            assert session.sql("select count(*), sum(id) from big").rows[0] == (
                ROWS,
                ROWS * (ROWS - 1) // 2,
            )


@pytest.mark.nightly
def test_an_upload_killed_half_way_is_resumed(source: Path, tmp_path: Path) -> None:
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        upload = upload_parts(node, source, count=3)
        node.kill()
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        have = httpx.get(f"{node.url}/api/uploads/{upload}", headers=node.headers).json()["have"]
        assert have == [0, 1, 2]
        assert httpx.get(f"{node.url}/api/datasets", headers=node.headers).json() == []
        done = platform("put", str(source), "--json", data=tmp_path)
        assert json.loads(done.stdout)[0]["rows"] == ROWS


def executors(node: RunningNode) -> Any:
    children = psutil.Process(node.process.pid).children(recursive=True)
    return [p for p in children if any("emsqrt.executor" in part for part in p.cmdline())]


@pytest.mark.nightly
def test_an_executor_killed_in_mid_query_fails_that_query_alone(tmp_path: Path) -> None:
    slow = "select sum(a.range * b.range) from range(100000) a, range(1000000) b"
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        answers = []

        def ask() -> None:
            body = {"sql": slow}
            answers.append(
                httpx.post(f"{node.url}/api/query", json=body, headers=node.headers, timeout=60)
            )

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            busy = [p for p in executors(node) if p.cpu_times().user > 0.5]
            if busy:
                break
            time.sleep(0.05)
        for process in busy:
            process.kill()
        asking.join()
        (answer,) = answers
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "worker-lost"
        with node.session() as session:
            assert session.sql("select 1").rows == [(1,)]


@pytest.mark.nightly
def test_executors_die_with_their_node(tmp_path: Path) -> None:
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        with node.session() as session:
            session.sql("select 1").to_arrow()
        family = executors(node)
        assert family
        node.kill()
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
