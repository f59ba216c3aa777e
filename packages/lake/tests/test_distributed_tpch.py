"""The 22 queries of TPC-H as distributed plans, in three placements, against one DuckDB with all rows."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from lake.peers.sql import Column
from lake.peers.sql.planner import PlanOptions

from .distributed_plans import (
    Cluster,
    connect,
    differences,
    run_plan,
    run_whole,
    without_fragments,
)

ROOT = Path(__file__).resolve().parents[3]
TABLES = ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem")
PARTS = re.split(r"-- Q(\d+)\n", (ROOT / "benchmarks/tpch_queries.sql").read_text())[1:]
QUERIES = {int(PARTS[i]): PARTS[i + 1].strip().rstrip(";") for i in range(0, len(PARTS), 2)}
WHOLLY_PUSHED = {
    "lineitem by rows": {1, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 17, 19, 20},
    "lineitem and orders by order": {*range(1, 23)} - {2, 11, 13, 16},
}
MOVES_LESS_MEDIAN, MOVES_LESS_MIN = 100, 5

Placed = Callable[[str], Cluster]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Placed:
    folder = tmp_path_factory.mktemp("tpch")
    words = [str(Path(sys.executable).with_name("tpchgen-cli")), "parquet", "-s", "0.01"]
    subprocess.run([*words, f"--output-dir={folder}"], check=True, capture_output=True)
    data: dict[str, pa.Table] = {}
    types = {}
    with connect() as connection:
        for name in TABLES:
            found = connection.sql(f"FROM '{folder}/{name}.parquet'")
            types[name] = tuple(
                Column(n, str(t)) for n, t in zip(found.columns, found.types, strict=True)
            )
            data[name] = found.to_arrow_table()

    @cache
    def place(placement: str) -> Cluster:
        cluster = Cluster(data, types, options=PlanOptions(uses_states=True))
        for name in TABLES:
            if placement == "lineitem and orders by order" and name in ("lineitem", "orders"):
                cluster.split_by_bucket(name, f"{name[0]}_orderkey", 4)
            elif placement == "all by rows":
                cluster.split_by_rows(name, 4 if data[name].num_rows > 100 else 1)
            elif placement == "lineitem by rows" and name == "lineitem":
                cluster.split_by_rows(name, 4)
            else:
                cluster.replicate(name)
        return cluster

    return place


@pytest.mark.parametrize(
    "placement", ["lineitem by rows", "lineitem and orders by order", "all by rows"]
)
@pytest.mark.parametrize("number", sorted(QUERIES))
def test_a_distributed_query_has_the_result_of_one_duckdb(
    placed: Placed, placement: str, number: int
) -> None:
    cluster, sql = placed(placement), QUERIES[number]
    found = run_plan(cluster, cluster.plan(sql))
    assert found.rows
    assert differences(found, run_whole(cluster, sql), is_ordered=True) == []


@pytest.mark.parametrize("placement", sorted(WHOLLY_PUSHED))
def test_the_queries_that_run_on_the_holders_of_shards(placed: Placed, placement: str) -> None:
    cluster = placed(placement)
    pushed = {number for number in QUERIES if cluster.plan(QUERIES[number]).strategy == "push"}
    assert pushed == WHOLLY_PUSHED[placement]


@pytest.mark.parametrize("placement", sorted(WHOLLY_PUSHED))
def test_a_pushed_query_moves_a_fraction_of_the_rows(placed: Placed, placement: str) -> None:
    cluster = placed(placement)
    gathering = without_fragments(cluster)
    ratios = []
    for number in sorted(WHOLLY_PUSHED[placement]):
        pushed = run_plan(cluster, cluster.plan(QUERIES[number]))
        gathered = run_plan(gathering, gathering.plan(QUERIES[number]))
        ratios.append(gathered.moved_bytes / pushed.moved_bytes)
    assert statistics.median(ratios) >= MOVES_LESS_MEDIAN
    assert min(ratios) >= MOVES_LESS_MIN
