"""A scan over Flight SQL, beside raw Arrow Flight and beside DuckDB behind Flight.

    python benchmarks/bench_lake_flight.py [--rows 4000000] [--passes 5]

A node is started by its command line and gets one dataset; its peers read the same shards. Every
server is a process of its own, and one client process (pyarrow.flight) reads all of them in turn, so
that all share the cores in the same way. The peers:

    raw        pyarrow.flight sends batches that are in its memory: no query at all
    duckdb     pyarrow.flight sends what DuckDB reads from the shards, as a user would write it

Rows whose columns compress well cost DuckDB less to read, so there are two tables: `numbers` has
four columns of numbers, `trips` also has text and decimals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from pyarrow import flight

import lake
from lake.flight.messages import Any_, CommandStatementQuery
from lake.flight.protobuf import encode
from lake.flight.statements import TYPE_PREFIX

PEER = """
import sys
import duckdb, pyarrow as pa, pyarrow.flight as flight

kind, *files = sys.argv[1:]
con = duckdb.connect(config={"threads": 2})
query = f"select * from read_parquet({files})"
ROWS = 8192
held = con.sql(query).to_arrow_table(ROWS).to_batches(ROWS) if kind == "raw" else None

class Server(flight.FlightServerBase):
    def do_get(self, context, ticket):
        if held is not None:
            reader = pa.RecordBatchReader.from_batches(held[0].schema, iter(held))
        else:
            reader = con.cursor().sql(query).to_arrow_reader(ROWS)
        return flight.RecordBatchStream(reader)

server = Server("grpc://127.0.0.1:0")
print(server.port, flush=True)
server.serve()
"""
TABLES = {
    "numbers": "select range as id, (range * 7919) % 100003 as k, random() as x, random() as y "
    "from range({rows})",
    "trips": "select range as id, random() * 100 as km, 'city ' || (range % 997) as city, "
    "date '2020-01-01' + (range % 1000)::int as day, (range % 10000 / 100)::decimal(9, 2) as fare, "
    "'a note about trip ' || range as note from range({rows})",
}


@dataclass(frozen=True)
class Target:
    """A server to read from; `token` is that of a node."""

    name: str
    url: str
    pid: int
    token: str | None = None


@dataclass(frozen=True)
class Reading:
    """What reading one table took: CPU seconds are those of the server's processes."""

    size: int
    seconds: float
    cpu: float


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description="A scan over Flight SQL beside raw Flight.")
    options.add_argument("--rows", type=int, default=4_000_000)
    options.add_argument("--passes", type=int, default=7)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = fill(Path(folder), chosen.rows)
        print(f"{chosen.rows:,} rows, {chosen.passes} passes, load {os.getloadavg()[0]:.1f}")
        print(f"{'table':8} {'server':11}{'MB':>6}{'s':>7}{'GB/s':>7}{'of raw':>8}{'CPU s':>7}")
        with node(Path(folder)) as own:
            for table in TABLES:
                compare(table, own, files[table], chosen.passes)


def compare(table: str, own: Target, files: list[str], passes: int) -> None:
    """Read a table from each server in turn; print a row for each."""
    with peer("raw", files) as raw, peer("duckdb", files) as duckdb:
        targets = (raw, duckdb, own)
        took: dict[str, list[Reading]] = {target.name: [] for target in targets}
        for _ in range(passes + 1):
            for target in targets:
                took[target.name].append(read(target, table))
    base = median(each.seconds for each in took["raw"][1:])
    for name, readings in took.items():
        counted = readings[1:]  # the first pass starts executors and fills caches
        seconds = median(each.seconds for each in counted)
        cpu = median(each.cpu for each in counted)
        size = counted[0].size / 1e6
        row = f"{size:6.0f}{seconds:7.2f}{size / seconds / 1e3:7.2f}{base / seconds:8.2f}{cpu:7.2f}"
        print(f"{table:8} {name:11}{row}", flush=True)


def read(target: Target, table: str) -> Reading:
    """Read a whole table."""
    headers = [(b"authorization", f"Bearer {target.token}".encode())] if target.token else []
    options = flight.FlightCallOptions(headers=headers)
    with flight.connect(target.url) as client:
        cpu, started = cpu_seconds(target.pid), time.perf_counter()
        ticket = flight.Ticket(b"")
        if target.token:
            query = CommandStatementQuery(f"select * from {table}")
            command = encode(Any_(TYPE_PREFIX + "CommandStatementQuery", encode(query)))
            descriptor = flight.FlightDescriptor.for_command(command)
            ticket = client.get_flight_info(descriptor, options).endpoints[0].ticket
        size = sum(chunk.data.nbytes for chunk in client.do_get(ticket, options))
        seconds = time.perf_counter() - started
    return Reading(size, seconds, cpu_seconds(target.pid) - cpu)


def fill(folder: Path, rows: int) -> dict[str, list[str]]:
    """Create the datasets; return the paths of their shards."""
    files = {}
    with lake.open(folder) as opened:
        for name, query in TABLES.items():
            opened.sql(f"create table {name} as {query.format(rows=rows)}")
            files[name] = [str(path) for path in opened.resolve(name)[1]]
    return files


@contextmanager
def node(folder: Path) -> Iterator[Target]:
    """Start a node over the folder."""
    command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(folder), "--port", "0"]
    with subprocess.Popen([*command, "--api-only", "--json"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        up = json.loads(process.stdout.readline())
        token = (folder / "admin.token").read_text().strip()
        try:
            yield Target("Flight SQL", up["flight"], process.pid, token)
        finally:
            process.terminate()


@contextmanager
def peer(kind: str, files: list[str]) -> Iterator[Target]:
    """Start a peer over the shards."""
    command = [sys.executable, "-c", PEER, kind, *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"grpc://127.0.0.1:{process.stdout.readline().strip()}"
        try:
            yield Target(kind, url, process.pid)
        finally:
            process.kill()  # `serve` of pyarrow ignores SIGTERM


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children so far."""
    root = psutil.Process(pid)
    times = [each.cpu_times() for each in (root, *root.children())]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    main()
