"""Claim: TPC-H's queries 1, 3 and 6 are answered exactly, under 48 MiB, from CSV and Parquet.

Amounts are decimals of two digits. Answers are compared digit by digit with what DuckDB gives when
it has all the memory it wants (the rows without a cap). As bench_emsqrt_sort.py.

    python benchmarks/bench_emsqrt_tpch.py --data DIR --scratch DIR [--rows q1-csv] [--rounds 3]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from emsqrt_rows.data import Tables
from emsqrt_rows.queries import QUERIES, query
from emsqrt_rows.tables import Row, main

from emsqrt.race import RaceQuery


def asking(name: str, kind: str, tables: Tables, scratch: Path, quick: bool) -> RaceQuery:
    return query(name, kind, tables, scratch, 0.1 if quick else 1)


ROWS = tuple(
    Row(f"{name}-{kind}{suffix}", partial(asking, name, kind), cap_mib, goal)
    for kind in ("csv", "parquet")
    for name in QUERIES
    for suffix, cap_mib, goal in (
        ("", 48, "completes"),
        ("-plenty", None, "DuckDB's answer, to the last digit"),
    )
)

if __name__ == "__main__":
    main(__doc__ or "", ROWS)
