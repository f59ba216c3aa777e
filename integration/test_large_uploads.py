"""An upload of 4 GiB through a real socket: the node's memory does not grow with it."""

from __future__ import annotations

import hashlib
import http.client
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from nodes import RunningNode, running_node

MIB = 1 << 20
PART_BYTES = 16 * MIB
PARTS = 256


def put_parts(node: RunningNode, upload: str, part: bytes, indexes: range) -> None:
    """Send parts on one connection, each with its hash."""
    target = urlsplit(node.url)
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=600)
    headers = node.headers | {"X-Sha256": hashlib.sha256(part).hexdigest()}
    for index in indexes:
        connection.request("PUT", f"/api/uploads/{upload}/parts/{index}", part, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", ["parts", "tus"])
def test_memory_stays_flat_during_four_gibibytes(tmp_path: Path, protocol: str) -> None:
    part, size = random.Random(1).randbytes(PART_BYTES), PARTS * PART_BYTES
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        process = psutil.Process(node.process.pid)
        body = {"name": "big.csv", "size": size, "partBytes": PART_BYTES}
        start = httpx.post(f"{node.url}/api/start-upload", json=body, headers=node.headers)
        upload = start.json()["uploadId"]
        before, most, ended = process.memory_info().rss, 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.1):
                most = max(most, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            if protocol == "parts":
                with ThreadPoolExecutor(4) as pool:
                    spans = [range(at, PARTS, 4) for at in range(4)]
                    list(pool.map(lambda span: put_parts(node, upload, part, span), spans))
                found = httpx.get(f"{node.url}/api/uploads/{upload}", headers=node.headers).json()
                assert found["have"] == list(range(PARTS))
            else:
                append_by_tus(node, part, size)
        finally:
            ended.set()
            watcher.join()

        assert most - before < 64 * MIB


def append_by_tus(node: RunningNode, part: bytes, size: int) -> None:
    """Send all bytes in one request of tus, to a partial upload, which is not ingested."""
    tus = node.headers | {"Tus-Resumable": "1.0.0"}
    created = {"Upload-Length": str(size), "Upload-Concat": "partial"}
    place = httpx.post(f"{node.url}/tus/", headers=tus | created).headers["Location"]
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
        "Content-Length": str(size),
    }
    body = (part for _ in range(PARTS))
    answer = httpx.patch(f"{node.url}{place}", headers=tus | headers, content=body, timeout=600)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(size))
