"""Ingest of TPC-H's lineitem as CSV beside DuckDB: CPU, wall, stored bytes, peak memory, reads.

    python benchmarks/bench_lake_ingest.py [--data DIR] [--scale 2] [--rounds 3]

The node gets the file twice: uploaded in parts over HTTP (hashed twice, fsynced), and linked where it
is (hashed once). It reads the file under its memory cap and writes verified shards. DuckDB reads the
same file and writes one Parquet file with zstd and its default row groups. Both run in turns; each
figure is the least of the rounds. `ingest` is the executor's part; the others are all processes, the
client's included. The linked file is queried over HTTP, before it is ingested, beside `read_csv`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emsqrt_rows.data import Tables
from emsqrt_rows.queries import QUERIES
from process_watch import ProcessWatch

from sennit_core.units import format_bytes

_DUCKDB = """
import duckdb, sys, time
source, target = sys.argv[1:]
con = duckdb.connect(config={"threads": 2})
con.execute("set enable_progress_bar = false")
sys.stdin.readline()
con.execute(f"copy (from read_csv('{source}')) to '{target}' (format parquet, compression zstd)")
print("done", flush=True)
sys.stdin.readline()
"""
_PREVIEW = "select * from {} limit 100"
_AGGREGATES = {
    "linked: preview of 100 rows, wall": _PREVIEW,
    "linked: first aggregate of 5 columns, wall": "select sum(l_quantity), sum(l_extendedprice), "
    "max(l_shipdate), sum(l_orderkey), max(l_shipmode) from {}",
    "linked: Q1, wall": QUERIES["q1"].replace("lineitem", "{}"),
}
_CSV_READER = """
import duckdb, json, sys, time
source, queries = sys.argv[1], json.loads(sys.argv[2])
con = duckdb.connect(config={"threads": 2})
con.execute("set enable_progress_bar = false")
walls = {}
for name, query in queries.items():
    began = time.perf_counter()
    con.execute(query.format(f"read_csv('{source}')")).fetchall()
    walls[name] = time.perf_counter() - began
print(json.dumps(walls))
"""
_CLIENT = """
import json, sys, time
from pathlib import Path
from sennit.client import Session
url, data, source, how, queries = sys.argv[1:]
with Session.open(url, token=None, data=Path(data)) as session:
    session.stats()
    session.sql("select 1")
    walls = {}
    if how == "link":
        session.link(source, "linked", only=True)
        for name, query in json.loads(queries).items():
            began = time.perf_counter()
            session.sql(query.format("linked"))
            walls[name] = time.perf_counter() - began
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    if how == "link":
        session.link(source, "lineitem").job.wait()
    else:
        session.put(source, "lineitem")
    own = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps(own | {"queries": walls}))
"""
_READS = {
    "every column": """select sum(l_orderkey), sum(l_partkey), sum(l_suppkey), sum(l_quantity),
        sum(l_extendedprice), max(length(l_comment)), max(l_shipdate + 1), max(l_commitdate + 1),
        max(l_receiptdate + 1), max(lower(l_shipmode)) from lineitem""",
    "Q1": QUERIES["q1"],
    "Q6": QUERIES["q6"],
    "101 keys": "select * from lineitem where l_orderkey between 100000 and 100100",
}
_READER = """
import duckdb, json, sys, time
files, reads = json.loads(sys.argv[1]), json.loads(sys.argv[2])
con = duckdb.connect(config={"threads": 1})
con.execute("set enable_progress_bar = false")
con.execute(f"create view lineitem as from read_parquet({files})")
def cpu(query):
    began = time.process_time()
    con.execute(query).fetchall()
    return time.process_time() - began
print(json.dumps({name: min(cpu(query) for _ in range(3)) for name, query in reads.items()}))
"""


@dataclass
class Run:
    """What one ingest took."""

    wall: float
    cpu: float  # of all processes
    ingest_cpu: float  # of the process that reads the CSV
    peak: int  # of that process
    stored: int
    reads: dict[str, float]
    queries: dict[str, float]


def duckdb_run(source: Path, folder: Path) -> Run:
    target = folder / "lineitem.parquet"
    command = [sys.executable, "-c", _DUCKDB, str(source), str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        watch = ProcessWatch(peer.pid)
        time.sleep(1)  # its imports are not measured, as the node's are not
        before, began = watch.cpu_seconds()[peer.pid], time.perf_counter()
        peer.stdin.write(b"go\n")
        peer.stdin.flush()
        peer.stdout.readline()
        wall = time.perf_counter() - began
        cpu = watch.cpu_seconds()[peer.pid] - before
        watch.stop()
        peer.stdin.write(b"end\n")
    reads = _read([str(target)])
    stored = target.stat().st_size
    target.unlink()
    command = [sys.executable, "-c", _CSV_READER, str(source), json.dumps(_AGGREGATES)]
    queries = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return Run(wall, cpu, cpu, max(watch.peaks.values()), stored, reads, queries)


def sennit_run(source: Path, folder: Path, how: str) -> Run:
    data = folder / "node"
    command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(data)]
    command += ["--port", "0", "--api-only", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        try:
            up = json.loads(node.stdout.readline())
            session = [sys.executable, "-c", _CLIENT, up["url"], str(data), str(source), how]
            session.append(json.dumps(_AGGREGATES))
            with subprocess.Popen(session, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdout.readline()
                # From here on, so that the queries of the linked file are not in the figures.
                watch = ProcessWatch(node.pid)
                before = watch.cpu_seconds()
                child.stdin.write(b"go\n")
                child.stdin.flush()
                client = json.loads(child.stdout.readline())
                after = watch.cpu_seconds()
                watch.stop()
        finally:
            node.terminate()
    spent = {pid: cpu - before.get(pid, 0) for pid, cpu in after.items()}
    reader = max((pid for pid in spent if pid != node.pid), key=lambda pid: spent[pid])
    objects = sorted(str(path) for path in data.rglob("*") if _is_parquet(path))
    return Run(
        wall=client["wall"],
        cpu=sum(spent.values()) + client["cpu"],
        ingest_cpu=spent[reader],
        peak=watch.peaks[reader],
        stored=sum(Path(path).stat().st_size for path in objects),
        reads=_read(objects),
        queries=client["queries"],
    )


def _is_parquet(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _read(files: list[str]) -> dict[str, float]:
    command = [sys.executable, "-c", _READER, json.dumps(files), json.dumps(_READS)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found: dict[str, float] = json.loads(answer)
    return found


def _least(runs: list[Run]) -> Run:
    """Return the least of each figure: other work on the machine only adds to them."""
    return Run(
        wall=min(run.wall for run in runs),
        cpu=min(run.cpu for run in runs),
        ingest_cpu=min(run.ingest_cpu for run in runs),
        peak=max(run.peak for run in runs),
        stored=max(run.stored for run in runs),
        reads={name: min(run.reads[name] for run in runs) for name in _READS},
        queries={name: min(run.queries[name] for run in runs) for name in runs[0].queries},
    )


def _print(ours: Run, linked: Run, theirs: Run) -> None:
    def row(name: str, own: float, other: float, form: Callable[[float], str]) -> None:
        print(f"| {name} | {form(own)} | {form(other)} | {own / other:.2f} |")

    def seconds(value: float) -> str:
        return f"{value:.2f} s"

    def size(value: float) -> str:
        return format_bytes(int(value))

    print("| | Sennit | DuckDB | ratio |\n|---|---|---|---|")
    row("ingest, CPU", ours.ingest_cpu, theirs.ingest_cpu, seconds)
    row("upload + ingest, CPU of all processes", ours.cpu, theirs.cpu, seconds)
    row("upload + ingest, wall", ours.wall, theirs.wall, seconds)
    row("link + ingest, CPU of all processes", linked.cpu, theirs.cpu, seconds)
    row("link + ingest, wall", linked.wall, theirs.wall, seconds)
    row("peak memory of the reading process", ours.peak, theirs.peak, size)
    row("stored bytes", ours.stored, theirs.stored, size)
    row("peak memory, linked", linked.peak, theirs.peak, size)
    for name in _AGGREGATES:
        row(name, linked.queries[name], theirs.queries[name], seconds)
    for name in _READS:
        row(f"DuckDB reads {name}, CPU", ours.reads[name], theirs.reads[name], seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    place = Path(tempfile.gettempdir()) / "sennit-tpch"
    parser.add_argument("--data", type=Path, default=place, help="where TPC-H's tables are")
    parser.add_argument("--scale", type=float, default=2, help="2 is 1.5 GB of CSV")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    source = Tables(asked.data).path("lineitem", "csv", asked.scale)
    ours, linked, theirs = [], [], []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            theirs.append(duckdb_run(source, Path(scratch)))
        with tempfile.TemporaryDirectory() as scratch:
            ours.append(sennit_run(source, Path(scratch), "upload"))
        with tempfile.TemporaryDirectory() as scratch:
            linked.append(sennit_run(source, Path(scratch), "link"))
    print(f"lineitem, {format_bytes(source.stat().st_size)} of CSV, least of {asked.rounds}\n")
    _print(_least(ours), _least(linked), _least(theirs))


if __name__ == "__main__":
    main()
