"""Claim: millions of groups are counted and summed under 20 and 32 MiB.

TPC-H's lineitem by l_orderkey (1.5 M groups, clustered) and five times of it by l_partkey and
l_quantity (22.7 M groups, anywhere), CSV in and out. As bench_emsqrt_sort.py.

    python benchmarks/bench_emsqrt_aggregate.py --data DIR --scratch DIR [--rows few-20] [--rounds 3]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from emsqrt_rows.data import Tables
from emsqrt_rows.tables import Row, main

from emsqrt.race import RaceQuery, work_for

AGGS = ("sum(l_quantity)", "sum(l_extendedprice)", "count(*)")


def grouping(keys: str, scale: float, kind: str, tables: Tables, _: Path, quick: bool) -> RaceQuery:
    source = tables.path("lineitem", kind, 0.1 if quick else scale)
    return work_for("agg", source, keys.split(","), aggs=AGGS)


_FEW = partial(grouping, "l_orderkey", 1)
_MANY = partial(grouping, "l_partkey,l_quantity", 5, "csv")

ROWS = (
    Row("few-20", partial(_FEW, "csv"), 20, "≤ 2 CPU s"),
    Row("few-plenty", partial(_FEW, "csv"), None, "within 4 × of the best", quick=False),
    Row("parquet-64", partial(_FEW, "parquet"), 64, "DuckDB completes here", quick=False),
    Row("many-32", _MANY, 32, "≤ 20 CPU s", quick=False),
    Row("many-plenty", _MANY, None, "within 4 × of the best", quick=False),
)

if __name__ == "__main__":
    main(__doc__ or "", ROWS)
