"""Claim: two files of 766 MB are joined, all columns of both, under 50 MiB.

TPC-H's lineitem with itself on its two keys, CSV in and 1.45 GB of CSV out. As bench_emsqrt_sort.py.

    python benchmarks/bench_emsqrt_join.py --data DIR --scratch DIR [--rows sf1-50] [--rounds 3]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from emsqrt_rows.data import Tables
from emsqrt_rows.tables import Row, main

from emsqrt.race import RaceQuery, work_for


def joining(kind: str, tables: Tables, _: Path, quick: bool) -> RaceQuery:
    source = tables.path("lineitem", kind, 0.1 if quick else 1)
    return work_for("join", source, ["l_orderkey", "l_linenumber"])


ROWS = (
    Row("sf1-50", partial(joining, "csv"), 50, "≤ 10 CPU s"),
    Row("sf1-512", partial(joining, "csv"), 512, "DuckDB completes here", quick=False),
    Row("sf1-plenty", partial(joining, "csv"), None, "within 4 × of the best", quick=False),
)

if __name__ == "__main__":
    main(__doc__ or "", ROWS)
