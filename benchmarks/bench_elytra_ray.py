"""Claim: many groups, and a join of large tables, on two CPUs of Ray take 0.7 times Dask's and Ray Data's time.

Each contender is a program of its own with two CPUs, and writes its answers to Parquet; DuckDB in one process
is the reference. In each round each contender runs the queries once, and the medians of the later rounds are
shown: clusters are up then, and code is imported. The CPU time is that of the whole tree of processes. The
memory is the largest sum, over the tree at one time, of Pss_Anon and Pss_Shmem, so what Ray's processes
share counts once. Answers that differ end the run.

    python benchmarks/bench_elytra_ray.py [--rows 4000000] [--rounds 4] [--peers PYTHON] [--only NAME,…]

`--peers` names an interpreter that has ray[data], dask[dataframe,distributed] and duckdb, of which Sennit does not
have the first two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import psutil

QUERIES = {
    "group, few": "1,000 groups",
    "group, many": "groups by the key that a quarter as many values as rows has",
    "join": "with as many customers, then a few groups",
    "join, small": "with 1,000 products, then a few groups",
}
_HERE = Path(__file__).parent / "ray_peers"
_SAMPLE_SECONDS = 1.0
_TIMEOUT_SECONDS = 600.0


@dataclass
class Figures:
    """What one query cost."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class TreeWatch:
    """Samples the CPU time and the memory of a tree of processes; ended processes count."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[int, float] = {}
        self._peak = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def cpu_seconds(self) -> float:
        """Return the CPU time of the tree so far."""
        self._look()
        return sum(self._cpu.values())

    def peak_bytes(self) -> int:
        """Return the peak since the last call."""
        with self._lock:
            peak, self._peak = self._peak, 0
        return peak

    def stop(self) -> None:
        """End the sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        with self._lock:
            total = 0
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                self._cpu[process.pid] = times.user + times.system
                total += charged_bytes(process.pid)
            self._peak = max(self._peak, total)


def charged_bytes(pid: int) -> int:
    """Return a process's share of anonymous and shared memory, 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))
    )


@dataclass
class Contender:
    """A program that runs queries.

    Args:
        name: As it is shown.
        program: Its file.
        python: Its interpreter.
    """

    name: str
    program: str
    python: str
    figures: dict[str, list[Figures]] = field(default_factory=dict)

    @contextmanager
    def running(self, data: Path) -> Iterator[None]:
        """Start it, and wait until it is ready."""
        with (data / f"{self.program}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.python, str(_HERE / f"{self.program}.py"), str(data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._watch = TreeWatch(self._process.pid)
        try:
            self._answer()
            yield
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._watch.stop()

    def run(self, query: str, folder: Path) -> Figures:
        """Run a query; its answer is in the folder."""
        assert self._process.stdin is not None
        cpu, began = self._watch.cpu_seconds(), time.monotonic()
        self._watch.peak_bytes()
        print(json.dumps([query, str(folder)]), file=self._process.stdin, flush=True)
        self._answer()
        seconds = time.monotonic() - began
        return Figures(seconds, self._watch.cpu_seconds() - cpu, self._watch.peak_bytes())

    def _answer(self) -> None:
        timer = threading.Timer(_TIMEOUT_SECONDS, self._process.kill)
        timer.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise RuntimeError(f"{self.name} has ended; see {self.program}.log")


def write_data(data: Path, rows: int) -> int:
    """Write three tables as Parquet files; return the bytes of the files."""
    customers, files = rows // 4, 8
    tables = {
        "sales": (
            f"SELECT i AS sale, (hash(i) % {customers})::BIGINT AS customer, "
            "(hash(i + 1) % 1000)::INT AS product, (hash(i + 2) % 20)::INT AS qty, "
            "(hash(i + 3) % 100000)::BIGINT AS cents, DATE '2026-01-01' + (i % 365)::INT AS day, "
            "'note ' || (i % 5000) AS note FROM range({first}, {last}) t(i)"
        ),
        "customers": (
            "SELECT i AS customer, 'region ' || (hash(i) % 10) AS region, 'name ' || i AS name "
            "FROM range({first}, {last}) t(i)"
        ),
        "products": (
            "SELECT i::INT AS product, 'category ' || (hash(i) % 25) AS category "
            "FROM range({first}, {last}) t(i)"
        ),
    }
    counts = {"sales": (rows, files), "customers": (customers, 2), "products": (1000, 1)}
    for name, query in tables.items():
        (data / name).mkdir()
        count, parts = counts[name]
        for part in range(parts):
            edges = {"first": count * part // parts, "last": count * (part + 1) // parts}
            path = data / name / f"{part}.parquet"
            duckdb.execute(f"COPY ({query.format(**edges)}) TO '{path}'")
    return sum(path.stat().st_size for path in data.glob("*/*.parquet"))


def digest(folder: Path) -> tuple[object, ...]:
    """Return an answer in a form that does not depend on the order of its rows."""
    columns = duckdb.execute(
        f"DESCRIBE FROM read_parquet('{folder}/**/*.parquet', union_by_name = true)"
    ).fetchall()
    key = next(name for name, *_ in columns if name not in ("n", "cents", "qty"))
    found = duckdb.execute(
        f"SELECT count(*), sum(n)::BIGINT, sum(hash({key}::VARCHAR, n::BIGINT, cents::BIGINT, qty::INT)) "
        f"FROM read_parquet('{folder}/**/*.parquet', union_by_name = true)"
    ).fetchone()
    assert found is not None
    return found


def run_all(found: Sequence[Contender], data: Path, rounds: int) -> None:
    """Run all contenders, one after the other, and compare their answers."""
    answers: dict[str, tuple[object, ...]] = {}
    for each in found:
        # Alone: idle clusters take CPU time too.
        with each.running(data):
            for _ in range(rounds):
                for query in QUERIES:
                    with tempfile.TemporaryDirectory(dir=data) as folder:
                        figures = each.run(query, Path(folder))
                        answer = digest(Path(folder))
                    assert answers.setdefault(query, answer) == answer, (
                        f"{query}: {each.name} answers {answer}, and {found[0].name} {answers[query]}"
                    )
                    each.figures.setdefault(query, []).append(figures)
        print(f"{each.name}: done", file=sys.stderr, flush=True)


def show(found: Sequence[Contender]) -> None:
    """Print a table for each query, with the ratios of Elytra's figures to each contender's."""
    ours = next((each for each in found if each.program == "elytra_node"), found[0])
    for query, what in QUERIES.items():
        print(f"\n{query}: {what}")
        print(
            f"{'':16}{'wall s':>8}{'ours ÷':>8}{'CPU s':>8}{'ours ÷':>8}{'MB':>8}{'ours ÷':>8}{'first s':>9}"
        )
        base = medians(ours.figures[query])
        for each in found:
            mine = medians(each.figures[query])
            cells = "".join(
                f"{value / unit:>8.{digits}f}{own / value if value else 0:>8.2f}"
                for value, own, unit, digits in zip(mine, base, (1, 1, 1e6), (2, 2, 0), strict=True)
            )
            print(f"{each.name:16}{cells}{each.figures[query][0].seconds:>9.2f}")


def medians(rounds: Sequence[Figures]) -> tuple[float, float, float]:
    """Return the medians of the rounds after the first, if there are any."""
    later = rounds[1:] or rounds
    return (
        statistics.median(each.seconds for each in later),
        statistics.median(each.cpu_seconds for each in later),
        statistics.median(each.peak_bytes for each in later),
    )


def contenders(peers: str | None, only: str | None) -> list[Contender]:
    """Return the contenders; the first one's answers are those of all."""
    found = [
        Contender("DuckDB", "duck", sys.executable),
        Contender("Elytra on Ray", "elytra_node", sys.executable),
    ]
    if peers is not None:
        found += [
            Contender("Ray Data", "ray_data", peers),
            Contender("Dask", "dask_frames", peers),
        ]
    return [each for each in found if only is None or each.program in only.split(",")]


def main() -> None:
    """Write the data, run every contender, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peers", help="a Python with ray[data] and dask[dataframe,distributed]")
    parser.add_argument("--only", help="some of duck,elytra_node,ray_data,dask_frames")
    parser.add_argument("--data", type=Path, help="a folder for the data; a new one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        size = write_data(Path(folder), options.rows)
        print(f"{options.rows:,} rows, {size / 1e6:.0f} MB of Parquet")
        found = contenders(options.peers, options.only)
        run_all(found, Path(folder), options.rounds)
        show(found)


if __name__ == "__main__":
    main()
