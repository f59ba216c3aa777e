"""Claim: a file of any size is sorted under a small cap, for less CPU than GNU sort takes.

Each row is one file under one cap on the whole process tree, held from outside: engines run one
after the other in processes of their own, those that pass the cap are killed (RssAnon + RssShmem,
looked at every 5 ms). A peer may try several settings and the first that gets through counts. The
checksum of what was written does not depend on the order of equal keys.

    python benchmarks/bench_emsqrt_sort.py --data DIR --scratch DIR [--rows sf1-64] [--rounds 3]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from emsqrt_rows.data import Tables
from emsqrt_rows.planned import PlannedSort
from emsqrt_rows.tables import Row, main

from emsqrt.race import RaceQuery, work_for


def sorting(kind: str, scale: float, tables: Tables, _: Path, quick: bool) -> RaceQuery:
    source = tables.path("lineitem", kind, 0.1 if quick else scale)
    return work_for("sort", source, ["l_partkey", "l_orderkey"])


_CSV, _CSV5, _CSV13 = (partial(sorting, "csv", scale) for scale in (1, 5, 13))
_TEXT = ("DuckDB", "GNU sort")

ROWS = (
    Row("sf1-32", _CSV, 32, "completes"),
    Row("sf1-64", _CSV, 64, "≤ 4.5 CPU s, < 0.6 × GNU sort"),
    Row("sf1-160", _CSV, 160, "DuckDB completes here", quick=False),
    Row("sf1-plenty", _CSV, None, "within 4 × of the best", quick=False),
    Row("parquet-96", partial(sorting, "parquet", 1), 96, "≤ 9 CPU s", quick=False),
    Row("parquet-plenty", partial(sorting, "parquet", 1), None, "within 4 ×", quick=False),
    Row("sf5-100", _CSV5, 100, "≤ 30 CPU s, < 0.55 × GNU sort", quick=False, peers=_TEXT),
    Row("sf5-14", _CSV5, 14, "P ≥ 2", quick=False, peers=("GNU sort",), ours=PlannedSort()),
    Row("10gb-100", _CSV13, 100, "one merge pass", heavy=True, peers=("GNU sort",)),
)

if __name__ == "__main__":
    main(__doc__ or "", ROWS)
