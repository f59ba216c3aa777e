"""Uploads over a real socket beside a bare loop that receives and hashes: throughput, CPU, memory; and CSV cuts.

    python benchmarks/bench_elytra_uploads.py [--megabytes 512] [--connections 4] [--rounds 3]

The client sends parts of 16 MiB on several connections, raw, from memory. The bare loop is a thread for
each connection with `recv_into`, SHA-256 and a write to a new file, without HTTP and without fsync; the
node does the same with HTTP, access control, limits and records, and makes each part durable before
its answer, or within a second with `storage.upload_sync = "interval"`. Rounds take turns, and each figure is
the best of them. CPU is of the server's process alone. On a busy machine only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from emsqrt.io.records import CsvDialect
from lake.ingest.csv_cuts import record_start_at
from lake.ingest.csv_marks import mark_part, odd_quotes
from sennit_core.units import MIB

PART_BYTES = 16 * MIB
_BARE = """
import hashlib, os, socket, sys, threading
folder = sys.argv[1]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def serve(connection):
    buffer = bytearray(1 << 20)
    with connection:
        while head := connection.recv(8, socket.MSG_WAITALL):
            rest, digest = int.from_bytes(head, "big"), hashlib.sha256()
            name = f"{folder}/{threading.get_ident()}"
            with open(name, "wb", buffering=0) as file:
                while rest:
                    count = connection.recv_into(memoryview(buffer)[:min(rest, len(buffer))])
                    piece = memoryview(buffer)[:count]
                    digest.update(piece)
                    file.write(piece)
                    rest -= count
            os.unlink(name)
            connection.sendall(digest.digest())
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@dataclass(frozen=True)
class Figures:
    """What a round measured: seconds, CPU seconds of the server, and growth of its memory in bytes."""

    wall: float
    cpu: float
    grown: int


def main() -> None:
    """Print the tables."""
    arguments = parsed()
    size = arguments.megabytes * MIB // PART_BYTES * PART_BYTES
    parts = [random.Random(index).randbytes(PART_BYTES) for index in range(4)]
    modes: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="uploads-", dir=arguments.data) as scratch:
        for turn in range(arguments.rounds):
            for name, measure in measures(Path(scratch), size, parts, arguments).items():
                modes.setdefault(name, []).append(measure())
                print(f"round {turn + 1}: {name}: {modes[name][-1]}", file=sys.stderr)
    print_table(modes, size)
    print_cuts()


def parsed() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=512, help="size of the file")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", help="folder for the data; on the disk to measure")
    return parser.parse_args()


def measures(
    scratch: Path, size: int, parts: list[bytes], arguments: argparse.Namespace
) -> dict[str, Callable[[], Figures]]:
    """Return what to measure, by name."""
    count = arguments.connections
    return {
        "bare recv + SHA-256": lambda: bare(scratch, size, parts, count),
        "raw parts, durable": lambda: node(scratch, size, parts, count, "always", tus=False),
        "raw parts, interval": lambda: node(scratch, size, parts, count, "interval", tus=False),
        "tus, durable": lambda: node(scratch, size, parts, 1, "always", tus=True),
    }


def bare(scratch: Path, size: int, parts: list[bytes], connections: int) -> Figures:
    """Send the parts to the bare loop."""
    folder = scratch / "bare"
    folder.mkdir(exist_ok=True)
    with child([sys.executable, "-c", _BARE, str(folder)]) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def send(indexes: list[int]) -> None:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                for index in indexes:
                    part = parts[index % len(parts)]
                    connection.sendall(len(part).to_bytes(8, "big"))
                    connection.sendall(part)
                    assert len(connection.recv(32, socket.MSG_WAITALL)) == 32

        return measured(process.pid, lambda: spread(send, size // PART_BYTES, connections))


def node(
    scratch: Path, size: int, parts: list[bytes], connections: int, sync: str, *, tus: bool
) -> Figures:
    """Send the parts to a node."""
    data = scratch / f"{sync}-{tus}-{time.monotonic_ns()}"
    with running_node(data, SENNIT_STORAGE__UPLOAD_SYNC=sync) as started:
        url = urlsplit(started.url)
        client = NodeClient(str(url.hostname), url.port or 80, started.token)
        upload = client.create(size, tus=tus)
        digests = [hashlib.sha256(part).hexdigest() for part in parts]
        if tus:
            body = lambda: client.append(upload, parts, size)  # noqa: E731 - named below
        else:
            body = lambda: spread(  # noqa: E731
                lambda indexes: client.put(upload, parts, digests, indexes),
                size // PART_BYTES,
                connections,
            )
        found = measured(started.pid, body)
        client.abort(upload)
        return found


@dataclass(frozen=True)
class StartedNode:
    """A node of its own: its process, address and token of its administrator."""

    pid: int
    url: str
    token: str


@contextmanager
def running_node(data: Path, **settings: str) -> Iterator[StartedNode]:
    """Run a node over a new folder, with settings of the environment."""
    command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(data), "--port", "0"]
    flags = ["--api-only", "--no-flight", "--json"]
    with child([*command, *flags], os.environ | settings) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        yield StartedNode(process.pid, url, (data / "admin.token").read_text().strip())


class NodeClient:
    """Sends uploads with the standard library's HTTP client."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = (host, port)
        self._headers = {"Authorization": f"Bearer {token}"}

    def create(self, size: int, *, tus: bool) -> str:
        """Start an upload; return its id. A partial one of tus is not ingested when it is whole."""
        if tus:
            name = base64.b64encode(b"a.csv").decode()
            headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size), "Upload-Concat": "partial",
                       "Upload-Metadata": f"filename {name}"}  # fmt: skip
            answer = self._request(self._connect(), "POST", "/tus/", None, headers)
            return str(answer.headers["Location"]).rpartition("/")[2]
        body = json.dumps({"name": "a.csv", "size": size, "partBytes": PART_BYTES}).encode()
        answer = self._request(self._connect(), "POST", "/api/start-upload", body, {})
        return str(json.loads(answer.read())["uploadId"])

    def put(self, upload: str, parts: list[bytes], digests: list[str], indexes: list[int]) -> None:
        """Send some parts on one connection."""
        connection = self._connect()
        for index in indexes:
            which = index % len(parts)
            path = f"/api/uploads/{upload}/parts/{index}"
            headers = {"X-Sha256": digests[which]}
            self._request(connection, "PUT", path, parts[which], headers).read()
        connection.close()

    def append(self, upload: str, parts: list[bytes], size: int) -> None:
        """Send all bytes in one request of tus."""

        def body() -> Iterator[bytes]:
            for index in range(size // PART_BYTES):
                yield parts[index % len(parts)]

        headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Length": str(size),
                   "Content-Type": "application/offset+octet-stream"}  # fmt: skip
        connection = self._connect()
        answer = self._request(connection, "PATCH", f"/tus/{upload}", body(), headers)
        assert answer.headers["Upload-Offset"] == str(size)
        connection.close()

    def abort(self, upload: str) -> None:
        """Delete an upload."""
        self._request(self._connect(), "DELETE", f"/api/uploads/{upload}", None, {})

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=600, blocksize=MIB)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        connection.request(method, path, body, self._headers | headers)
        answer = connection.getresponse()
        assert answer.status < 300, (method, path, answer.status, answer.read())
        return answer


def spread(send: Callable[[list[int]], None], count: int, connections: int) -> None:
    """Let each connection send every n-th part, all at once."""
    with ThreadPoolExecutor(connections) as pool:
        for _ in pool.map(send, [list(range(at, count, connections)) for at in range(connections)]):
            pass


def measured(pid: int, work: Callable[[], None]) -> Figures:
    """Run the work; measure the process that serves it."""
    process = psutil.Process(pid)
    before, most = process.memory_info().rss, 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    times, wall = process.cpu_times(), time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    after = process.cpu_times()
    ended.set()
    watcher.join()
    cpu = after.user + after.system - times.user - times.system
    return Figures(wall, cpu, max(0, most - before))


@contextmanager
def child(
    command: list[str], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a server, which ends with the block."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def print_table(modes: dict[str, list[Figures]], size: int) -> None:
    """Print the best of each figure, and the ratios to the bare loop."""
    megabytes = size / 1e6
    base = modes["bare recv + SHA-256"]
    base_wall, base_cpu = min(each.wall for each in base), min(each.cpu for each in base)
    print(f"{'':24}{'MB/s':>8}{'of bare':>9}{'MB/cpu-s':>10}{'of bare':>9}{'memory':>10}")
    for name, rounds in modes.items():
        wall, cpu = min(each.wall for each in rounds), min(each.cpu for each in rounds)
        grown = min(each.grown for each in rounds) / MIB
        print(
            f"{name:24}{megabytes / wall:8.0f}{base_wall / wall:9.2f}"
            f"{megabytes / cpu:10.0f}{base_cpu / cpu:9.2f}{grown:+7.0f} MiB"
        )


def print_cuts() -> None:
    """Print how fast parts of CSV are marked, in CPU time, and how long one cut takes."""
    draw = random.Random(7)
    rows = []
    for number in range(60_000):
        note = f"row {number} of the table"
        if draw.random() < 0.08:
            note = '"said ""hi"", then left"' if draw.random() < 0.9 else '"two\nlines"'
        rows.append(f"{number},{draw.random():.6f},{note},2024-01-02T03:04:05,US,{number % 97},x\n")
    data = "".join(rows).encode()
    data *= max(1, 50_000_000 // len(data))

    def rate(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(5):
            begin = time.process_time()
            work()
            best = min(best, time.process_time() - begin)
        return len(data) / best / 1e9

    places = [(place, data.count(b'"', 0, place) % 2 == 1) for place in range(MIB, len(data), MIB)]
    file = io.BufferedReader(io.BytesIO(data))
    begin = time.process_time()
    for place, inside in places:
        record_start_at(file, place, CsvDialect(), inside=inside)
    per_cut = (time.process_time() - begin) / len(places)
    print(f"\n{'CSV parts':32}{'GB/cpu-s':>10}")
    print(f"{'parity of quotes alone':32}{rate(lambda: odd_quotes(io.BytesIO(data), 34)):10.1f}")
    marks = rate(lambda: mark_part(io.BytesIO(data), 44, 34, None))
    print(f"{'with the check of regularity':32}{marks:10.1f}")
    print(f"{'one cut':32}{per_cut * 1e6:8.0f} µs")


if __name__ == "__main__":
    main()
