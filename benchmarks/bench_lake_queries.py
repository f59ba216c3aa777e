"""Queries through the REST API beside plain DuckDB on the same Parquet files.

    python benchmarks/bench_lake_queries.py --data DIR [--scale 1] [--rounds 3] [--asks 500]
    python benchmarks/bench_lake_queries.py --pipeline-only

TPC-H's 22 queries, answered as Arrow: a node with its result cache bypassed, and DuckDB in this
process over the node's own shards, with as many threads. Both run each query in turn; the first
round does not count, the least of the others does. Answers must be equal. Then what a small query
costs on one connection, and the demo's pipeline as a job. --data keeps the tables between runs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa

import sennit
from emsqrt.expr import col, count
from lake.objects.store import ObjectStore
from sennit.demo import csv_file

TABLES = ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem")
ARROW = "application/vnd.apache.arrow.stream"
DEMO = """select origin, count(*) as flights, sum(distance) as miles, max(distance) as longest
from flights where distance > 1000 group by origin order by origin"""


class Node:
    """One connection to a node."""

    def __init__(self, url: str, data: Path) -> None:
        port = int(url.rpartition(":")[2])
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        token = (data / "admin.token").read_text().strip()
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, sql: str, accept: str = "application/json", *, cached: bool = False) -> bytes:
        control = {} if cached else {"Cache-Control": "no-cache"}
        headers = {**self._headers, "Accept": accept, **control}
        self._connection.request("POST", "/api/query", json.dumps({"sql": sql}).encode(), headers)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, (sql, response.status, body[:500])
        return body

    def shards(self, dataset: str) -> list[str]:
        """Return the object ids of the newest shards."""
        path = f"/api/datasets/{dataset}/snapshots/head"
        self._connection.request("GET", path, headers=self._headers)
        found = json.loads(self._connection.getresponse().read())
        return [shard["object"] for shard in found["shards"]]

    def table(self, sql: str) -> pa.Table:
        return pa.ipc.open_stream(self.ask(sql, ARROW)).read_all()


def queries() -> dict[str, str]:
    text = Path(__file__).with_name("tpch_queries.sql").read_text()
    parts = re.split(r"^-- (Q\d+)\n", text, flags=re.MULTILINE)[1:]
    return {
        name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)
    }


def make_tables(folder: Path, scale: float) -> dict[str, Path]:
    made = folder / f"tpch-{scale:g}"
    paths = {name: made / f"{name}.parquet" for name in TABLES}
    if not all(path.exists() for path in paths.values()):
        tool = Path(sys.executable).with_name("tpchgen-cli")
        command = [str(tool), "parquet", "-s", f"{scale:g}", f"--output-dir={made}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return paths


@contextmanager
def open_node(data: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(data), "--port", "0"]
    with subprocess.Popen([*command, "--api-only", "--json"], stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        try:
            yield json.loads(node.stdout.readline())["url"], node.pid
        finally:
            node.terminate()


def files_of(node: Node, data: Path, dataset: str) -> list[str]:
    objects = ObjectStore(data / "lake" / "objects")
    return [str(objects.place(shard)) for shard in node.shards(dataset)]


def cpu_seconds(pid: int) -> float:
    """CPU of a node's processes; none of them ends while queries alternate."""
    root = psutil.Process(pid)
    times = [each.cpu_times() for each in (root, *root.children())]
    return sum(each.user + each.system for each in times)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*[column.to_pylist() for column in table.columns], strict=True))


def is_equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float | Decimal) and isinstance(theirs, float | Decimal):
        return math.isclose(float(ours), float(theirs), rel_tol=1e-9)
    return bool(ours == theirs)


def check_equal(name: str, ours: pa.Table, theirs: pa.Table) -> None:
    left, right = rows_of(ours), rows_of(theirs)
    assert len(left) == len(right), (name, len(left), len(right))
    for one, other in zip(left, right, strict=True):
        assert all(map(is_equal, one, other)), (name, one, other)


def run_tpch(node: Node, pid: int, plain: duckdb.DuckDBPyConnection, rounds: int) -> None:
    cpu = {"node": 0.0, "duckdb": 0.0}
    totals = {"node": 0.0, "duckdb": 0.0}
    print(f"{'query':8}{'node ms':>10}{'DuckDB ms':>11}{'ratio':>8}{'rows':>9}")
    for name, sql in queries().items():
        seconds: dict[str, list[float]] = {"node": [], "duckdb": []}
        for number in range(rounds + 1):
            before = cpu_seconds(pid)
            ours_seconds, ours = timed(lambda sql=sql: node.table(sql))
            between, own = cpu_seconds(pid), time.process_time()
            theirs_seconds, theirs = timed(lambda sql=sql: plain.sql(sql).to_arrow_table())
            if number:
                seconds["node"].append(ours_seconds)
                seconds["duckdb"].append(theirs_seconds)
                cpu["node"] += between - before
                cpu["duckdb"] += time.process_time() - own
        check_equal(name, ours, theirs)
        least = {who: min(each) for who, each in seconds.items()}
        for who, value in least.items():
            totals[who] += value
        ratio = least["node"] / least["duckdb"]
        print(
            f"{name:8}{1e3 * least['node']:10.1f}{1e3 * least['duckdb']:11.1f}{ratio:8.2f}"
            f"{len(rows_of(ours)):9}",
            flush=True,
        )
    ratio = totals["node"] / totals["duckdb"]
    print(
        f"{'total':8}{1e3 * totals['node']:10.1f}{1e3 * totals['duckdb']:11.1f}{ratio:8.2f}"
        "     target 1.15"
    )
    print(
        f"{'CPU s':8}{cpu['node'] / rounds:10.2f}{cpu['duckdb'] / rounds:11.2f}"
        f"{cpu['node'] / cpu['duckdb']:8.2f}     of the node's processes, a round\n"
    )


def run_small(node: Node, plain: duckdb.DuckDBPyConnection, asks: int) -> None:
    print(f"{'small query':22}{'HTTP p50 ms':>12}{'DuckDB p50':>12}{'more':>8}   target")
    texts = {
        "select 1": ("select 1", "≤ 3 ms more"),
        "100 rows": ("select * from orders limit 100", "≤ 3 ms more"),
        "count(*)": ("select count(*) from lineitem", "≤ 8 ms"),
        "min, max": ("select min(l_orderkey), max(l_shipdate) from lineitem", ""),
    }
    for name, (sql, target) in texts.items():
        ours, theirs = [], []
        for _ in range(asks):
            ours.append(timed(lambda sql=sql: node.ask(sql))[0])
            theirs.append(timed(lambda sql=sql: plain.cursor().execute(sql).fetchall())[0])
        ours_ms, theirs_ms = 1e3 * median(ours), 1e3 * median(theirs)
        print(f"{name:22}{ours_ms:12.2f}{theirs_ms:12.2f}{ours_ms - theirs_ms:8.2f}   {target}")
    for name, sql in (("cached count(*)", texts["count(*)"][0]), ("cached Q1", queries()["Q1"])):
        seconds = [timed(lambda sql=sql: node.ask(sql, cached=True))[0] for _ in range(asks)]
        print(f"{name:22}{1e3 * median(seconds):12.2f}{'':20}   ≤ 4 ms")


def run_pipeline(node: Node, session: Any, data: Path, pid: int, jobs: int) -> None:
    with csv_file("flights") as source:
        session.put(source, "flights")
    pipeline = (
        session.pipeline("flights").filter(col("distance") > 1000).group_by("origin")
        .agg(flights=count(), miles=col("distance").sum(), longest=col("distance").max())
    )  # fmt: skip

    def run() -> list[tuple[Any, ...]]:
        return sorted(rows_of(pipeline.distribute(mem_cap="128MiB").to_arrow()))

    cold, ours = timed(run)
    first, _ = timed(lambda: session.sql(DEMO).rows)
    with connect({"flights": files_of(node, data, "flights")}) as plain:
        assert ours == plain.execute(DEMO).fetchall(), "the answers differ"
        run()
        seconds: dict[str, list[float]] = {"job": [], "duckdb": []}
        cpu = dict.fromkeys(("node", "client", "duckdb"), 0.0)
        for _ in range(jobs):  # alternately, so that other work on the cores slows both
            before, own = cpu_seconds(pid), time.process_time()
            seconds["job"].append(timed(run)[0])
            between = time.process_time()
            cpu["node"] += cpu_seconds(pid) - before
            cpu["client"] += between - own
            between = time.process_time()
            seconds["duckdb"].append(timed(lambda: plain.execute(DEMO).fetchall())[0])
            cpu["duckdb"] += time.process_time() - between
    warm, theirs = median(seconds["job"]), median(seconds["duckdb"])
    print(
        f"\nthe demo's pipeline as a job: first {1e3 * cold:.0f} ms (target 300), warm "
        f"{1e3 * warm:.1f} ms, DuckDB warm {1e3 * theirs:.1f} ms: {warm / theirs:.1f} × (target 3)"
    )
    least = min(seconds["job"]), min(seconds["duckdb"])
    print(
        f"least {1e3 * least[0]:.1f} ms and {1e3 * least[1]:.1f} ms: {least[0] / least[1]:.1f} ×; "
        f"CPU of a job {1e3 * cpu['node'] / jobs:.1f} ms in the node and "
        f"{1e3 * cpu['client'] / jobs:.1f} ms in the client, DuckDB {1e3 * cpu['duckdb'] / jobs:.1f} ms"
    )
    print(f"first query after an ingest: {1e3 * first:.0f} ms")  # fmt: skip


def connect(tables: dict[str, list[str]]) -> duckdb.DuckDBPyConnection:
    plain = duckdb.connect(config={"threads": min(4, os.cpu_count() or 1)})
    for name, paths in tables.items():
        plain.execute(f"create view {name} as from read_parquet({paths})")
    return plain


def measure_pipeline() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "node"
        with open_node(data) as (url, pid), sennit.connect(url, data=data) as session:
            print(f"load {os.getloadavg()[0]:.1f}")
            run_pipeline(Node(url, data), session, data, pid, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder for TPC-H's tables")
    parser.add_argument("--pipeline-only", action="store_true", help="only the demo's pipeline")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--asks", type=int, default=500)
    given = parser.parse_args()
    if given.pipeline_only:
        measure_pipeline()
        return
    if given.data is None:
        parser.error("--data is needed for TPC-H")
    tables = make_tables(given.data, given.scale)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "node"
        with open_node(data) as (url, pid), sennit.connect(url, data=data) as session:
            for name, path in tables.items():
                session.put(path, name)
            node = Node(url, data)
            paths = {name: files_of(node, data, name) for name in TABLES}
            with connect(paths) as plain:
                print(f"TPC-H, scale {given.scale:g}; load {os.getloadavg()[0]:.1f}")
                run_tpch(node, pid, plain, given.rounds)
                run_small(node, plain, given.asks)
            run_pipeline(node, session, data, pid, 40)


if __name__ == "__main__":
    main()
