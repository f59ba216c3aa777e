"""Commits of a lake: small appends, a delete, and opening one with a long history.

    python benchmarks/bench_lake_commits.py [--appends 200] [--shards 100000] [--snapshots 1000]

An append is 1,000 rows of three columns, durable when the call returns (fsync); peers are deltalake and
pyiceberg with a SQLite catalog, where they are installed, and DuckDB's INSERT into a database file. CPU
seconds are of this process and of its children. The delete removes one row of a dataset with 16 shards;
the bytes written show that it writes one of them anew. The long history is made by commits without
files, after an append of 1,000 rows, whose shard is the only one that can be read: `one row` are
statements on one of its rows, each the median of five in a lake that was opened before. Then the history is opened by a new process: `open` is `lake.open`, `head` the newest manifest with all its
shards, `again` the same once more, `versions` the list of the newest 1,000 snapshots, `counting` what the
first deletion of any dataset needs: a count of the references of every object.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import duckdb
import pyarrow as pa

from lake import Lake
from sennit_core.errors import SennitError
from sennit_core.hashing import sha256_hex
from sennit_core.ids import new_id
from sennit_core.optional import import_optional
from sennit_core.records import ShardInfo
from sennit_core.schema import Schema

ROWS = pa.table(
    {
        "a": range(1000),
        "b": [f"x{number}" for number in range(1000)],
        "c": [number / 2 for number in range(1000)],
    }
)
OPENING = """
import os, sys, time
import lake
times, memory = [time.perf_counter()], []
def note():
    times.append(time.perf_counter())
def resident():
    memory.append(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    times[-1] = time.perf_counter()
opened = lake.open(sys.argv[1])
note(); resident()
shards = len(opened.catalog.manifest("t").snapshot.shards)
note(); resident()
opened.catalog.manifest("t")
note()
versions = len(opened.catalog.snapshots("t", limit=1000))
note()
opened.catalog.count_references()
note(); resident()
steps = [after - before for before, after in zip(times, times[1:])]
print(*steps, *memory, shards, versions)
opened.close()
"""


def cpu_seconds() -> float:
    """CPU of this process and of its ended children."""
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peers(folder: Path, stack: ExitStack) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what appends 1,000 rows, by name."""
    lake = stack.enter_context(Lake(folder / "lake"))
    yield "lake, append", lambda: lake.append("t", ROWS)
    yield (
        "lake, INSERT",
        lambda: lake.sql("INSERT INTO t SELECT i, 'x' || i, i / 2 FROM range(1000) r(i)"),
    )
    database = stack.enter_context(duckdb.connect(str(folder / "peer.duckdb")))
    database.execute("CREATE TABLE t (a BIGINT, b VARCHAR, c DOUBLE)")
    database.register("rows", ROWS)
    yield "DuckDB, INSERT", lambda: database.execute("INSERT INTO t FROM rows")
    try:
        delta = import_optional("deltalake", "this peer")
        yield "deltalake", lambda: delta.write_deltalake(str(folder / "delta"), ROWS, mode="append")
    except ImportError as error:
        print(f"deltalake: {error}")
    try:
        catalogs = import_optional("pyiceberg.catalog.sql", "this peer")
        (folder / "iceberg").mkdir()
        catalog = catalogs.SqlCatalog(
            "peer",
            uri=f"sqlite:///{folder}/iceberg/catalog.db",
            warehouse=f"file://{folder}/iceberg",
        )
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", ROWS.schema)
        yield "pyiceberg", lambda: table.append(ROWS)
    except ImportError as error:
        print(f"pyiceberg: {error}")


def appends(count: int) -> None:
    """Print the time of small appends."""
    print(f"{'append of 1,000 rows':24}{'p50 ms':>10}{'p95 ms':>10}{'CPU ms':>10}")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name, append in peers(Path(folder), stack):
            append()
            walls, start = [], cpu_seconds()
            for _ in range(count):
                before = time.perf_counter()
                append()
                walls.append(1000 * (time.perf_counter() - before))
            spent = 1000 * (cpu_seconds() - start) / count
            p95 = statistics.quantiles(walls, n=20)[-1]
            print(f"{name:24}{statistics.median(walls):10.1f}{p95:10.1f}{spent:10.1f}")


def delete() -> None:
    """Print what a delete of one row writes."""
    with tempfile.TemporaryDirectory() as folder, Lake(folder) as lake:
        lake.sql("CREATE TABLE t (a BIGINT, b VARCHAR)")
        for shard in range(16):
            lake.sql(
                "INSERT INTO t SELECT i, 'x' || i FROM range(?, ?) r(i)",
                [shard * 10_000, (shard + 1) * 10_000],
            )
        before = lake.catalog.get("t")
        kept = {shard.object for shard in lake.catalog.manifest("t").snapshot.shards}
        start = time.perf_counter()
        lake.sql("DELETE FROM t WHERE a = 77777")
        wall = 1000 * (time.perf_counter() - start)
        new = [s for s in lake.catalog.manifest("t").snapshot.shards if s.object not in kept]
        written = sum(shard.bytes for shard in new)
        print(f"\na delete of one row of {before.shards} shards: {len(new)} shard, {written:,} of "
              f"{before.bytes:,} bytes, {wall:.0f} ms")  # fmt: skip


def shard_without_file(number: int) -> ShardInfo:
    """Return a shard that is only described, with rows after those of the first."""
    stats = {name: {"min": 1000 * number + 1000, "max": 1000 * number + 1999, "nulls": 0}
             for name in "ac"}  # fmt: skip
    stats["b"] = {"min": "x0", "max": "x999", "nulls": 0}  # type: ignore[dict-item]
    return ShardInfo(sha256_hex(b"%d" % number), 1000, 9000, {}, stats)


def one_row(lake: Lake) -> None:
    """Print how long statements on one row of a dataset with a long history take."""
    print(f"\none row of {lake.catalog.get('t').shards:,} shards: p50 and first, ms")
    for verb, sql in (
        ("SELECT", "SELECT b FROM t WHERE a = {}"),
        ("DELETE", "DELETE FROM t WHERE a = {}"),
        ("UPDATE", "UPDATE t SET b = 'new' WHERE a = {}"),
    ):
        walls = []
        for number in range(6):
            before = time.perf_counter()
            try:
                assert len(lake.sql(sql.format(100 * len(verb) + number + ord(verb[0]))).rows) == 1
            except SennitError as error:
                print(f"{verb:12}{type(error).__name__}")
                break
            walls.append(1000 * (time.perf_counter() - before))
        else:
            print(f"{verb:12}{statistics.median(walls[1:]):8.0f} {walls[0]:8.0f}")


def history(shards: int, snapshots: int) -> None:
    """Print how long a lake with a long history takes to open."""
    schema = Schema.of(a="Int64", b="Utf8", c="Float64")
    each = shards // snapshots
    with tempfile.TemporaryDirectory() as folder:
        with Lake(folder) as lake:
            lake.append("t", ROWS)
            info = lake.catalog.get("t")
            assert info.schema == schema
            start, walls = time.perf_counter(), []
            for number in range(snapshots):
                before = time.perf_counter()
                fresh = range(number * each, (number + 1) * each)
                added = tuple(shard_without_file(n) for n in fresh)
                head = lake.catalog.stored_manifest(info.id)
                snapshot = replace(head.snapshot, id=new_id(), parent=info.head, shards=added)
                manifest = head.extended(snapshot, time.time())
                info = lake.catalog.commit(info, manifest, expected_head=info.head)
                walls.append(1000 * (time.perf_counter() - before))
            spent = time.perf_counter() - start
            stored = lake.objects.stored_bytes()
            one_row(lake)
        command = [sys.executable, "-c", OPENING, folder]
        runs = [
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            for _ in range(3)
        ]
    figures = "open", "head", "again", "versions", "counting"
    least = [min(float(run[place]) for run in runs) for place in range(len(figures))]
    tenth = len(walls) // 10
    print(
        f"\n{runs[0][-2]} shards in {snapshots} snapshots: committed in {spent:.1f} s "
        f"(p50 {statistics.median(walls[:tenth]):.1f} ms for the first tenth, "
        f"{statistics.median(walls[-tenth:]):.1f} ms for the last), "
        f"{stored / 1e6:.1f} MB of manifests, {runs[0][-1]} versions listed"
    )
    for name, value in zip(figures, least, strict=True):
        print(f"{name:12}{1000 * value:8.0f} ms")
    print("memory of the process after open, head, counting: "
          + ", ".join(f"{int(each) / 2**20:.0f} MiB" for each in runs[0][5:8]))  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--appends", type=int, default=200)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--snapshots", type=int, default=1000)
    options = parser.parse_args()
    if options.appends:
        appends(options.appends)
        delete()
    history(options.shards, options.snapshots)


if __name__ == "__main__":
    main()
