"""Selective queries over a dataset of many shards, against DuckDB on the same rows in a hive-like folder.

    python benchmarks/bench_lake_pruning.py [--days 250] [--stores 8] [--rounds 7]

The dataset is partitioned by `day(ts), bucket(N, store)`, the folder by DuckDB's `PARTITION_BY (day, store)`,
so both have days × stores files. Each query runs in a lake on this machine, with its executor and without
the result cache, and in DuckDB in this process, with hive partitions and filters as DuckDB's users write
them; `unpruned` is the lake with an expression that it does not look through. Times are medians of wall
milliseconds, over shards that were verified before; `first` is the first query of a new lake.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from lake import Lake

ROWS = """
SELECT TIMESTAMP '2024-01-01' + INTERVAL (i * {seconds}) SECOND AS ts, 's' || (i % {stores}) AS store,
       i AS id, (i * 7919) % 100003 / 100.0 AS price
FROM range({rows}) AS r(i)
"""
QUERIES = {
    "one day": (
        "SELECT count(*), sum(price) FROM {t} WHERE ts >= '2024-02-03' AND ts < '2024-02-04'",
        "SELECT count(*), sum(price) FROM {t} WHERE day = '2024-02-03'",
        "SELECT count(*), sum(price) FROM {t} WHERE (ts + INTERVAL 0 DAY)::DATE = '2024-02-03'",
    ),
    "one day and store": (
        "SELECT sum(price) FROM {t} WHERE ts::DATE = '2024-02-03' AND store = 's3'",
        "SELECT sum(price) FROM {t} WHERE day = '2024-02-03' AND store = 's3'",
        "SELECT sum(price) FROM {t} WHERE (ts + INTERVAL 0 DAY)::DATE = '2024-02-03' AND id % 8 = 3",
    ),
    "one id": (
        "SELECT price FROM {t} WHERE id = 123456",
        "SELECT price FROM {t} WHERE id = 123456",
        "SELECT price FROM {t} WHERE id + 0 = 123456",
    ),
}


def median_ms(run: Callable[[], Any], rounds: int) -> float:
    """Return the median of some runs, after one that is not counted."""
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    """Write both copies, then print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=250)
    parser.add_argument("--stores", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    seconds = options.days * 86_400 / options.rows
    rows = ROWS.format(seconds=seconds, stores=options.stores, rows=options.rows)
    with tempfile.TemporaryDirectory() as name, duckdb.connect(config={"threads": "2"}) as peer:
        folder = Path(name)
        hive = folder / "hive"
        peer.execute(
            f"COPY (SELECT *, ts::DATE AS day FROM ({rows})) TO '{hive}' "
            "(FORMAT parquet, PARTITION_BY (day, store), WRITE_PARTITION_COLUMNS true)"
        )
        peer.execute(
            f"CREATE VIEW t AS FROM read_parquet('{hive}/*/*/*.parquet', hive_partitioning = true)"
        )
        with Lake(folder / "lake") as lake:
            start = time.perf_counter()
            lake.sql(f"CREATE TABLE t PARTITIONED BY (day(ts), bucket(64, store)) AS {rows}")
            print(
                f"lake wrote {lake.catalog.get('t').shards} shards in {time.perf_counter() - start:.1f} s"
            )
        with Lake(folder / "lake") as lake:
            measure(lake, peer, len(list(hive.rglob("*.parquet"))), options.rounds)


def measure(lake: Lake, peer: duckdb.DuckDBPyConnection, files: int, rounds: int) -> None:
    """Print the times of each query."""
    first = QUERIES["one day"][0].format(t="t")
    start = time.perf_counter()
    lake.sql(first).to_arrow()
    print(
        f"DuckDB has {files} files; first query of the lake {1000 * (time.perf_counter() - start):.0f} ms"
    )
    print(f"{'query':20} {'lake':>8} {'unpruned':>9} {'DuckDB':>8}  {'ratio':>6}  shards")
    for title, (own, plain, whole) in QUERIES.items():
        query = own.format(t="t")
        peer_query = plain.format(t="t")
        wanted = peer.execute(peer_query).fetchall()
        found = lake.sql(query).rows
        assert len(found) == len(wanted), (found, wanted)
        pruned = median_ms(lambda: lake.sql(query).to_arrow(), rounds)  # noqa: B023 - called at once
        unpruned = median_ms(lambda: lake.sql(whole.format(t="t")).to_arrow(), rounds)  # noqa: B023
        duck = median_ms(lambda: peer.execute(peer_query).fetchall(), rounds)  # noqa: B023
        shown = lake.sql(f"EXPLAIN {query}").to_arrow()["explain_value"].to_pylist()[-1]
        print(
            f"{title:20} {pruned:8.1f} {unpruned:9.1f} {duck:8.1f}  {pruned / duck:5.2f}x  {shown[3:]}"
        )


if __name__ == "__main__":
    main()
