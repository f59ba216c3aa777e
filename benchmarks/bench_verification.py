"""What verification costs: the first query over a dataset, and every one after it.

    python benchmarks/bench_verification.py [--mib 256] [--repeats 20]

The first open is the hashing of all shards, beside one SHA-256 over as many bytes in memory. The warm
query is an aggregate over one column, answered by one executor with verification and by one whose
`verify_shards` does nothing, in turns; CPU seconds are of the executor. The scrub reads the same
files, from the disk as far as the kernel drops them from its page cache. "The check alone" is the same
call on files that are known, a thousand times: on a busy machine it is steadier than a difference.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext
    from lake import Lake

MIB = 1 << 20
QUERY = "SELECT k, sum(v) FROM numbers GROUP BY k ORDER BY k"
_GROUPS = 50
_CHECKS = 1000


def run_query(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Executor entry: the worker's query, with or without verification; adds its CPU seconds."""
    from lake.sql import duckdb_worker

    if not request["verifies"]:
        duckdb_worker.verify_shards = lambda *_: None
    began = time.process_time()
    answer = duckdb_worker.run(request, context)
    return answer | {"cpu": time.process_time() - began}


def verify_once(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Executor entry: hash the shards as a first query does; CPU and wall seconds."""
    from lake.objects.verification import ShardFile, Verifier

    verifier = Verifier()
    cpu, wall = time.process_time(), time.perf_counter()
    for shard in map(ShardFile.from_json, request["shards"]):
        verifier.check(shard, context.check)
    first = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    began = time.process_time()
    for _ in range(_CHECKS):
        for shard in map(ShardFile.from_json, request["shards"]):
            verifier.check(shard, context.check)
    return first | {"known": (time.process_time() - began) / _CHECKS}


def make(lake: Lake, mib: int) -> int:
    """Append random numbers until the dataset has `mib` MiB; returns its bytes."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(1)
    rows = 2_000_000
    while True:
        table = {"k": random.integers(0, _GROUPS, rows), "v": random.random(rows)}
        info = lake.append("numbers", pa.table(table))
        if info.bytes >= mib * MIB:
            return info.bytes


def main() -> None:
    from emsqrt.executor import ExecutorPool
    from lake import Lake
    from lake.objects.verification import ShardFile

    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        pools = [
            ExecutorPool(
                1,
                memory_bytes=1 << 30,
                spill_dir=Path(folder) / name,
                allow_module_entries=True,
            )
            for name in ("with", "without")
        ]
        with pools[0] as with_it, pools[1] as without, Lake(folder, pool=with_it) as lake:
            size = make(lake, options.mib)
            snapshot, paths = lake.resolve("numbers")
            info = lake.catalog.get("numbers")
            shards = [ShardFile("numbers", i, str(p)).to_json() for i, p in enumerate(paths)]
            table = {
                "name": info.name, "id": info.id, "schema": info.schema.to_json(),
                "paths": [str(p) for p in paths], "snapshot": snapshot.id,
            }  # fmt: skip
            _print_first(with_it, shards, size)
            _print_warm((with_it, without), table, options.repeats, len(paths))
            _print_scrub(lake)


def _print_first(pool: Any, shards: list[Any], size: int) -> None:
    data = bytes(min(size, 256 * MIB))
    began = time.process_time()
    hashlib.sha256(data)
    plain = len(data) / (time.process_time() - began)
    runs = [_run(pool, "verify_once", {"shards": shards}) for _ in range(3)]
    cpu = min(run["cpu"] for run in runs)
    known = min(run["known"] for run in runs)
    print(f"{size / MIB:.0f} MiB in {len(shards)} shards")
    print(f"SHA-256 in memory      {plain / 1e9:.2f} GB/s of CPU")
    print(f"first open, per CPU s  {size / cpu / 1e9:.2f} GB/s ({size / cpu / plain:.2f} of that)")
    print(f"the check alone        {known * 1e6:.0f} µs for {len(shards)} known shards")


def _print_warm(pools: tuple[Any, Any], table: dict[str, Any], repeats: int, shards: int) -> None:
    seconds: tuple[list[float], list[float]] = ([], [])
    request = {"sql": QUERY, "tables": [table], "format": "arrow", "maxRows": None}
    for turn in range(repeats + 3):
        for index, pool in enumerate(pools):
            answer = _run(pool, "run_query", request | {"verifies": index == 0})
            if turn >= 3:  # the first ones open files and make instances
                seconds[index].append(answer["cpu"])
    with_it, without = map(statistics.median, seconds)
    print(f"warm query of {shards} shards: {with_it * 1e3:.2f} ms of CPU with verification,")
    print(f"  {without * 1e3:.2f} without: {100 * (with_it / without - 1):+.1f} %")
    quiet = [min(each) for each in seconds]
    print(f"  least of each: {quiet[0] * 1e3:.2f} and {quiet[1] * 1e3:.2f} ms")


def _print_scrub(lake: Lake) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    report = lake.verify()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"scrub: {report.bytes_done / cpu / 1e9:.2f} GB/s of CPU, {wall:.2f} s")
    assert not report.findings


def _run(pool: Any, name: str, request: dict[str, Any]) -> dict[str, Any]:
    with pool.submit(f"bench_verification:{name}", request) as execution:
        for _ in execution.payloads():
            pass
        result: dict[str, Any] = execution.result()
        return result


if __name__ == "__main__":
    main()
