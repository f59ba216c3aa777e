"""What the executor that plans a distributed query accepts, and how it says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from lake import Lake
from lake.peers.sql import Column, DistributedPlan, Shard, Table, sharded_table
from lake.peers.sql.wire import plan_from_data, tables_to_data
from lake.sql import worker
from sennit_core.errors import Denied, SqlError, UnknownColumn, Unsupported


def planned(lake: Lake, sql: str) -> DistributedPlan:
    table = sharded_table("trips", lake.catalog.manifest("trips").snapshot, {})
    options = {"nodes": 3, "usesStates": False, "sendsBytesMax": 0, "usesWhole": True}
    request = {"engine": "distribute", "sql": sql, "tables": tables_to_data([table])}
    with lake.pool.submit("lake.sql", request | {"options": options}) as execution:
        return plan_from_data(execution.result()["plan"])


@pytest.fixture
def trips(lake: Lake) -> Lake:
    lake.append("trips", pa.table({"id": [1, 2, 3], "name": ["a", "b", None]}))
    return lake


def test_errors_of_the_query_have_their_place(trips: Lake) -> None:
    with pytest.raises(UnknownColumn, match=r'no column "nam" \(line 1, column 8\)') as found:
        planned(trips, "SELECT nam FROM trips")
    assert found.value.suggestion == "name"
    with pytest.raises(SqlError, match="syntax error"):
        planned(trips, "SELECT FROM FROM trips")


def test_a_query_reads_no_more_than_on_one_node(trips: Lake) -> None:
    # A dataset is a view, so its rows have no numbers; gathered rows are a table.
    with pytest.raises(UnknownColumn, match="rowid"):
        planned(trips, "SELECT rowid FROM trips")
    with pytest.raises(Denied, match="read_csv"):
        planned(trips, "SELECT median(id) FROM trips, read_csv('/etc/passwd')")
    with pytest.raises(SqlError):
        planned(trips, "SELECT id FROM trips; SELECT 2")


def test_a_dataset_by_another_name_is_left_to_one_node(trips: Lake) -> None:
    dataset = trips.catalog.get("trips").id
    for name in (f'"{dataset}"', "main.trips", "memory.main.trips"):
        with pytest.raises(Unsupported, match="by its id, or with a schema"):
            planned(trips, f"SELECT count(*) FROM {name}")
    assert planned(trips, "WITH c AS (FROM TRIPS) SELECT count(*) FROM c").strategy == "push"


def test_a_plan_leaves_the_databases_of_queries_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(worker, "release", lambda: closed.append("all"))
    options = {"nodes": 2, "usesStates": False, "sendsBytesMax": 0, "usesWhole": True}
    table = Table("trips", (Column("id", "BIGINT"),), (Shard("a", 3, 99, nodes=(1,)),))
    request = {"engine": "distribute", "sql": "SELECT sum(id) FROM trips", "options": options}
    context: Any = SimpleNamespace(check=lambda: None)
    answer = worker.run(request | {"tables": tables_to_data([table])}, context)
    assert plan_from_data(answer["plan"]).strategy == "push"
    assert not closed


_IN_NEW_YORK = """
from types import SimpleNamespace
from lake.peers.sql import Bounds, Column, Shard, Table
from lake.peers.sql.wire import tables_to_data
from lake.sql.distributed_worker import plan_query

hours = [f"2024-01-01 0{hour}:00:00+00:00" for hour in range(4)]
shards = tuple(Shard(at, 1, 9, {"seen": Bounds(at, at, 0)}) for at in hours)
request = {
    "sql": "SELECT count(*) FROM trips WHERE seen < '2024-01-01 02:00:00'",
    "tables": tables_to_data([Table("trips", (Column("seen", "TIMESTAMP WITH TIME ZONE"),), shards)]),
    "options": {"nodes": 3, "usesStates": False, "sendsBytesMax": 0, "usesWhole": True, "strategy": "push"},
}
(step,) = plan_query(request, SimpleNamespace(check=lambda: None))["plan"]["steps"]
print(len(step["units"]))
"""


@pytest.mark.slow  # starts a process, as DuckDB reads its time zone once
def test_times_are_compared_as_the_nodes_that_read_them_do() -> None:
    command = [sys.executable, "-c", _IN_NEW_YORK]
    environment = os.environ | {"TZ": "America/New_York"}
    assert subprocess.check_output(command, env=environment, text=True) == "2\n"
