"""Small queries over HTTP: what one costs, beside DuckDB behind FastAPI as a user would write it.

    python benchmarks/bench_small_queries.py [--datasets 0 300 3000] [--queries 2000]

A node is started by its command line over a folder with that many datasets, and asked over
connections that stay open, by 1 and by 8 clients. CPU milliseconds a query are those of the node's
processes, from /proc; latency and queries a second are the client's, which shares the cores. Every
text of `select N` is another, every text of the others the same. The peer is one uvicorn process:
FastAPI, an open DuckDB (no locked configuration, no limits, no tokens) and a cursor for each request
that reads the same Parquet files; `peer, locked` opens a locked instance for each request instead.
Ingest is of files of 1,000 rows, one after the other, by the node over HTTP.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

PEER = """
import json, sys
import duckdb, uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

port, shard, locked = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "locked"

def connect():
    con = duckdb.connect(config={"threads": 2, "memory_limit": "1GiB"})
    con.execute(f"create view flights as from read_parquet('{shard}')")
    if locked:
        con.execute(f"set allowed_paths = ['{shard}']")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")
    return con

app, shared = FastAPI(), connect()

class Query(BaseModel):
    sql: str

@app.post("/api/query")
def query(query: Query):
    con = connect() if locked else shared.cursor()
    try:
        found = con.execute(query.sql)
        columns = [{"name": c[0], "type": str(c[1])} for c in found.description]
        body = {"columns": columns, "rows": found.fetchall(), "truncated": False}
        return Response(json.dumps(body), media_type="application/json")
    finally:
        con.close()

uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
"""
ROWS = 1_000
SMALL = {
    "select N": lambda number: f"select {number}",
    "count": lambda _: "select count(*) from flights",
    "group": lambda _: "select carrier, count(*), avg(delay) from flights group by 1 order by 1",
}
"""The queries, by the name of their row."""


@dataclass(frozen=True)
class Target:
    """Something that answers POST /api/query."""

    name: str
    pid: int
    port: int
    headers: dict[str, str]


@dataclass(frozen=True)
class Cost:
    """What a run of queries took: CPU seconds by role, and each query's seconds."""

    cpu: dict[str, float]
    seconds: list[float]
    wall: float

    def row(self) -> str:
        count, ordered = len(self.seconds), sorted(self.seconds)
        gateway, others = (1e3 * self.cpu[role] / count for role in ("gateway", "executors"))
        p50, p99 = (1e3 * ordered[int(count * share)] for share in (0.5, 0.99))
        return (
            f"{gateway:9.2f}{others:11.2f}{gateway + others:8.2f}{p50:9.2f}{p99:9.2f}"
            f"{count / self.wall:9.0f}"
        )

    @property
    def cpu_ms(self) -> float:
        return 1e3 * sum(self.cpu.values()) / len(self.seconds)


class Client:
    """One connection that stays open."""

    def __init__(self, target: Target) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", target.port)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Content-Type": "application/json", **target.headers}

    def ask(self, sql: str) -> bytes:
        self.send("POST", "/api/query", json.dumps({"sql": sql}).encode())
        return self.body

    def send(self, method: str, path: str, body: bytes, **headers: str) -> None:
        self._connection.request(method, path, body, {**self._headers, **headers})
        response = self._connection.getresponse()
        self.body = response.read()
        assert response.status < 300, (method, path, response.status, self.body)

    def close(self) -> None:
        self._connection.close()


def cpu_seconds(pid: int) -> float:
    """CPU of a process with all its threads, those that have ended too (proc(5): stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    lists = (t / "children" for t in Path(f"/proc/{pid}/task").iterdir())
    return [int(child) for each in lists for child in each.read_text().split()]


def cpu_of_tree(pid: int) -> dict[str, float]:
    return {"gateway": cpu_seconds(pid), "executors": sum(map(cpu_seconds, children_of(pid)))}


def measure(target: Target, text: Callable[[int], str], queries: int, clients: int) -> Cost:
    """Ask `queries` queries by `clients` connections at once, after some that do not count."""
    seconds: list[float] = []
    numbers = itertools.count()
    together = threading.Barrier(clients + 1)

    def ask(warm: int, counted: int) -> None:
        client = Client(target)
        for _ in range(warm):
            client.ask(text(next(numbers)))
        together.wait()
        for _ in range(counted):
            began = time.perf_counter()
            client.ask(text(next(numbers)))
            seconds.append(time.perf_counter() - began)
        client.close()

    threads = [
        threading.Thread(target=ask, args=(min(50, queries // clients), queries // clients))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    together.wait()
    before, began = cpu_of_tree(target.pid), time.perf_counter()
    for thread in threads:
        thread.join()
    wall, after = time.perf_counter() - began, cpu_of_tree(target.pid)
    return Cost({role: after[role] - before[role] for role in after}, seconds, wall)


def fill(data: Path, count: int) -> Path:
    """Make a data folder of `count` datasets of one shard; returns the shard's path."""
    import pyarrow as pa

    from lake import Lake
    from sennit_core.ids import new_id

    rows = {
        "carrier": [("AA", "UA", "B6", "DL")[i % 4] for i in range(ROWS)],
        "delay": [float(i % 97) for i in range(ROWS)],
    }
    with Lake(data) as lake:
        if not count:
            return Path()
        info = lake.append("flights", pa.table(rows))
        manifest = lake.catalog.manifest(info.id)
        for number in range(count - 1):
            dataset, snapshot = new_id(), new_id()
            lake.catalog.commit(
                replace(info, id=dataset, name=f"set_{number}", head=None),
                replace(
                    manifest,
                    snapshot=replace(manifest.snapshot, id=snapshot, dataset=dataset),
                ),
                expected_head=None,
            )
        return lake.objects.path(manifest.snapshot.shards[0].object)


@contextmanager
def open_node(data: Path) -> Iterator[Target]:
    command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(data), "--port", "0"]
    with subprocess.Popen([*command, "--api-only", "--json"], stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        try:
            up = json.loads(node.stdout.readline())
            token = (data / "admin.token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}", "Cache-Control": "no-cache"}
            yield Target("node", node.pid, int(up["url"].rpartition(":")[2]), headers)
        finally:
            node.terminate()


@contextmanager
def open_peer(shard: Path, mode: str) -> Iterator[Target]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PEER, str(port), str(shard), mode]
    with subprocess.Popen(command) as peer:
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            name = "peer" if mode == "open" else "peer, locked"
            yield Target(name, peer.pid, port, {})
        finally:
            peer.terminate()


def ingest_rate(target: Target, data: Path, scratch: Path, files: int) -> float:
    """Upload and ingest small files, one after the other; returns files a second."""
    import sennit

    source = scratch / "rows.csv"
    source.write_text("id,delay\n" + "".join(f"{i},{i % 97}.5\n" for i in range(ROWS)))
    with sennit.connect(f"http://127.0.0.1:{target.port}", data=data) as session:
        session.put(source, "ingest_warm")
        began = time.perf_counter()
        for number in range(files):
            session.put(source, f"ingest_{number}")
        return files / (time.perf_counter() - began)


def print_ratios(costs: dict[tuple[str, str, int, int], Cost]) -> None:
    print("\nratio of the node to its peers: CPU, p50")
    for (who, query, datasets, clients), cost in costs.items():
        if who != "node":
            continue
        shown = f"{query:10}{datasets:9} datasets{clients:3} clients"
        for peer_name in ("peer", "peer, locked"):
            other = costs[peer_name, query, 1, clients]
            p50, other_p50 = (sorted(c.seconds)[len(c.seconds) // 2] for c in (cost, other))
            shown += f"   {peer_name}: {cost.cpu_ms / other.cpu_ms:.2f}, {p50 / other_p50:.2f}"
        print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, nargs="+", default=[0, 300, 3_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument(
        "--ingests", type=int, default=20, help="files for each ingest rate; 0: none"
    )
    given = parser.parse_args()
    head = f"{'who':14}{'query':10}{'datasets':>9}{'clients':>8}"
    print(
        f"{head}{'gateway':>9}{'executors':>11}{'CPU ms':>8}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}"
    )
    costs: dict[tuple[str, str, int, int], Cost] = {}

    def run(target: Target, query: str, datasets: int) -> None:
        for clients in given.clients:
            queries = given.queries if target.name != "peer, locked" else given.queries // 10
            cost = measure(target, SMALL[query], queries, clients)
            costs[target.name, query, datasets, clients] = cost
            print(f"{target.name:14}{query:10}{datasets:9}{clients:8}{cost.row()}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        shard = fill(Path(scratch) / "peer", 1)
        for mode in ("open", "locked"):
            with open_peer(shard, mode) as peer:
                for query in SMALL:
                    run(peer, query, 1)
        rates: dict[int, float] = {}
        for datasets in given.datasets:
            data = Path(scratch) / str(datasets)
            fill(data, datasets)
            with open_node(data) as node:
                for query in SMALL if datasets else ("select N",):
                    run(node, query, datasets)
                if given.ingests:
                    rates[datasets] = ingest_rate(node, data, Path(scratch), given.ingests)
    print_ratios(costs)
    for datasets, rate in rates.items():
        print(f"ingest with {datasets} datasets: {rate:.1f} files a second")


if __name__ == "__main__":
    main()
