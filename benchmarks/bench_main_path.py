"""The main job, step by step, beside plain DuckDB doing the same on the same machine.

    python benchmarks/bench_main_path.py [--times 20]

Sennit uploads flights × N through its public HTTP API (hashed, fsynced, resumable), ingests it to
checked Parquet shards under a memory cap, answers SQL, and runs a capped pipeline as a job. DuckDB
reads the same CSV file to Parquet in one call and queries that. Seconds are wall and, in brackets,
CPU of the processes involved; memory is the largest RssAnon + RssShmem of each process, sampled
from outside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

import sennit
from emsqrt.expr import col, count
from sennit.demo import csv_file

QUERY = """select carrier, count(*) as flights, avg(dep_delay) as delay, sum(distance) as miles
from {table} where distance > 500 group by carrier order by carrier"""
DUCKDB = """
import duckdb, json, sys, time
source, target, query = sys.argv[1:]
con = duckdb.connect(config={"threads": 2})
con.execute("set enable_progress_bar = false")
def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    rows = work()
    return time.perf_counter() - wall, time.process_time() - cpu, rows
read = f"from read_csv('{source}', nullstr=['NA', ''])"
ingest = timed(lambda: con.execute(f"copy ({read}) to '{target}' (format parquet, compression zstd)"))
ask = timed(lambda: con.execute(query).fetchall())
print(json.dumps({"ingest": ingest[:2], "query": ask[:2], "rows": ask[2]}))
"""


class Watch:
    """Samples a process tree from outside: peak memory of each process, CPU seconds of all."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self.peaks: dict[str, int] = {}
        self._cpu: dict[int, float] = {}  # of every process seen, since executors come and go
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            processes = self._processes()
            self._take_cpu(processes)
            for process in processes:
                role = "gateway" if process.pid == self._root.pid else f"executor {process.pid}"
                self.peaks[role] = max(self.peaks.get(role, 0), charged_bytes(process.pid))

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        self._take_cpu(self._processes())
        return sum(self._cpu.values())

    def _take_cpu(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._cpu[process.pid] = times.user + times.system

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def charged_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssShmem"))
    )


def repeated_flights(folder: Path, times: int) -> Path:
    target = folder / "flights.csv"
    with csv_file("flights") as path, target.open("wb") as out:
        header, _, body = path.read_bytes().partition(b"\n")
        out.write(header + b"\n")
        for _ in range(times):
            out.write(body if body.endswith(b"\n") else body + b"\n")
    return target


def sennit_run(source: Path, data: Path) -> tuple[dict[str, tuple[float, float]], Watch, list]:
    command = [
        sys.executable,
        "-m",
        "sennit.cli",
        "up",
        "--data",
        str(data),
        "--port",
        "0",
        "--api-only",
        "--json",
    ]
    node = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert node.stdout is not None
    up = json.loads(node.stdout.readline())
    watch = Watch(node.pid)
    steps: dict[str, tuple[float, float]] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        own, wall, cpu = time.process_time(), time.perf_counter(), watch.cpu_seconds()
        answer = work()
        spent = watch.cpu_seconds() - cpu + time.process_time() - own
        steps[name] = (time.perf_counter() - wall, spent)
        return answer

    try:
        with sennit.connect(up["url"], data=data) as session:
            size = source.stat().st_size
            sent_after: list[float] = []
            began = time.perf_counter()

            def on_progress(done: int, total: int) -> None:
                if done == total and not sent_after:
                    sent_after.append(time.perf_counter() - began)

            timed(
                "upload + ingest", lambda: session.put(source, "flights", on_progress=on_progress)
            )
            print(f"upload alone: {sent_after[0]:.2f} s, {size / sent_after[0] / 1e6:.0f} MB/s")
            text = QUERY.format(table="flights")
            timed("query, first", lambda: session.sql(text, use_cache=False).rows)
            rows = timed("query, warm", lambda: session.sql(text, use_cache=False).rows)
            pipeline = session.pipeline("flights").filter(col("distance") > 500).group_by("carrier")
            asked = pipeline.agg(
                flights=count(), delay=col("dep_delay").mean(), miles=col("distance").sum()
            )
            timed("pipeline, cap 128MiB", lambda: asked.distribute(mem_cap="128MiB").to_arrow())
    finally:
        watch.stop()
        node.terminate()
        node.wait()
    return steps, watch, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--times", type=int, default=20, help="how often the 336,776 rows are repeated"
    )
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = repeated_flights(folder, times)
        print(
            f"flights × {times}: {336_776 * times:,} rows, {source.stat().st_size / 1e6:.0f} MB of CSV"
        )
        steps, watch, rows = sennit_run(source, folder / "node")
        target = folder / "flights.parquet"
        query = QUERY.format(table=f"'{target}'")
        command = [sys.executable, "-c", DUCKDB, str(source), str(target), query]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as peer:
            assert peer.stdout is not None
            peer_watch = Watch(peer.pid)
            duckdb = json.loads(peer.stdout.read())
            peer_watch.stop()
    assert [list(row[:2]) for row in rows] == [row[:2] for row in duckdb["rows"]], (
        "the answers differ"
    )
    peers = {
        "upload + ingest": duckdb["ingest"], "query, first": duckdb["query"],
        "query, warm": duckdb["query"], "pipeline, cap 128MiB": duckdb["query"],
    }  # fmt: skip
    print(
        f"{'step':24}{'Sennit wall (CPU) s':>24}{'DuckDB wall (CPU) s':>24}{'wall ratio':>12}{'CPU ratio':>11}"
    )
    for name, (wall, cpu) in steps.items():
        other_wall, other_cpu = peers[name]
        print(
            f"{name:24}{f'{wall:.2f} ({cpu:.2f})':>24}{f'{other_wall:.2f} ({other_cpu:.2f})':>24}"
            f"{wall / other_wall:>12.2f}{cpu / max(other_cpu, 1e-9):>11.2f}"
        )
    peaks = {**watch.peaks, "DuckDB": max(peer_watch.peaks.values())}
    for role, peak in sorted(peaks.items()):
        print(f"peak RssAnon + RssShmem  {role:20}{peak / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
