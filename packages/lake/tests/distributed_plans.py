"""Run distributed plans in one process: fragments per unit in plain DuckDB, results over Arrow, a merge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from lake.ingest.partitions import buckets
from lake.peers.sql import (
    Bounds,
    BucketKey,
    Column,
    DistributedPlan,
    Fragment,
    Gather,
    Shard,
    Table,
)
from lake.peers.sql.planner import PlanOptions, plan_distributed
from lake.sql.distributed_worker import Engine
from lake.sql.sent_columns import is_sendable
from lake.sql.types import quoted

NODES = (1, 2)
"""Two nodes that hold shards; 0 is the coordinator."""


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": "1", "async_threads": "1"})


def connect() -> duckdb.DuckDBPyConnection:
    """Open what is a node or a coordinator here: temporary tables are those of one connection."""
    return _database().cursor()


def create_empty(connection: duckdb.DuckDBPyConnection, tables: Sequence[Table]) -> None:
    for table in tables:
        columns = ", ".join(f"{quoted(each.name)} {each.type}" for each in table.columns)
        connection.execute(f"CREATE TEMP TABLE {quoted(table.name)} ({columns})")


@dataclass
class Cluster:
    """Tables, where their shards are, and the rows of each shard."""

    data: Mapping[str, pa.Table]
    types: Mapping[str, tuple[Column, ...]]
    tables: list[Table] = field(default_factory=list)
    shards: dict[str, pa.Table] = field(default_factory=dict)
    engine: Engine = field(default_factory=lambda: Engine(connect()))
    options: PlanOptions = field(default_factory=PlanOptions)
    readers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The nodes that a table's rows may be sent to; every node if it is not there."""

    def replicate(self, name: str, nodes: Sequence[int] = (0, *NODES)) -> None:
        """Place all rows of a table at nodes; 0 is the coordinator."""
        self._add(name, None, [(self.data[name], None)])
        self.hold_at(name, nodes)

    def hold_at(self, name: str, nodes: Sequence[int]) -> None:
        """Let nodes hold all shards of a table, and no others."""
        table = self.table(name)
        shards = tuple(replace(shard, nodes=tuple(nodes)) for shard in table.shards)
        self.tables = [replace(t, shards=shards) if t is table else t for t in self.tables]

    def split_by_rows(self, name: str, count: int) -> None:
        rows = self.data[name]
        step = -(-rows.num_rows // count) or 1
        parts = [rows.slice(start, step) for start in range(0, count * step, step)]
        self._add(name, None, [(part, None) for part in parts if part.num_rows or count == 1])

    def split_by_bucket(self, name: str, column: str, count: int) -> None:
        rows = self.data[name]
        found = buckets(rows.column(column).combine_chunks(), count)
        parts = []
        for bucket in found.unique().to_pylist():
            mask = [each == bucket for each in found.to_pylist()]
            parts.append((rows.filter(pa.array(mask)), bucket))
        self._add(name, BucketKey(column, count), parts)

    def _add(
        self, name: str, key: BucketKey | None, parts: Sequence[tuple[pa.Table, int | None]]
    ) -> None:
        shards = []
        for number, (rows, bucket) in enumerate(parts):
            shard = f"{name}-{number}"
            self.shards[shard] = rows
            bounds = self._bounds(name, rows)
            # Equal buckets are at the same node.
            node = NODES[(number if key is None else bucket or 0) % len(NODES)]
            shards.append(Shard(shard, rows.num_rows, rows.nbytes, bounds, bucket, (node,)))
        self.tables.append(Table(name, self.types[name], tuple(shards), key))

    def _bounds(self, name: str, rows: pa.Table) -> dict[str, Bounds]:
        with connect() as connection:
            connection.register("rows", rows)
            found = {}
            for column in self.types[name]:
                each = quoted(column.name)
                values = connection.execute(
                    f"SELECT min({each})::VARCHAR, max({each})::VARCHAR, count(*) - count({each}) FROM rows"
                ).fetchone()
                assert values is not None
                found[column.name] = Bounds(*values)
            return found

    def table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)

    def nodes_of(self, name: str, objects: Sequence[str]) -> set[int]:
        """The nodes that have all of some shards of a table."""
        found = {0, *NODES}
        for shard in self.table(name).shards:
            found &= set(shard.nodes) if shard.object in objects else found
        return found

    def rows_of(self, name: str, objects: Sequence[str]) -> pa.Table:
        """The rows of some shards of a table."""
        empty = self.data[name].slice(0, 0)
        return pa.concat_tables([empty, *(self.shards[each] for each in objects)])

    def readers_of(self, name: str) -> tuple[int, ...]:
        return self.readers.get(name, NODES)

    def plan(self, sql: str) -> DistributedPlan:
        tables = [replace(t, readers=self.readers_of(t.name)) for t in self.tables]
        plan = plan_distributed(sql, tables, self.engine, self.options)
        # Users get a gather, but here it is a fault to be found. An average is not of numbers only.
        faults = ("the planner failed", "DuckDB does not run a part")
        found = [reason for reason in plan.reasons if reason.startswith(faults)]
        assert "avg(" in sql or not found, found
        return plan


@dataclass
class Answer:
    rows: list[tuple[Any, ...]]
    columns: tuple[Column, ...]
    moved_bytes: int


def run_plan(cluster: Cluster, plan: DistributedPlan) -> Answer:
    """Run a plan as a network would: each unit alone, its result as Arrow data."""
    moved = 0
    with connect() as coordinator:
        for name in plan.reads_in_place:
            table = cluster.table(name)
            assert table.is_here, f"{name} is not at the coordinator"
            coordinator.register(name, cluster.data[name])
        results: dict[str, pa.Table] = {}
        for step in plan.steps:
            match step:
                case Fragment():
                    parts = [_run_unit(cluster, step, unit.shards, results) for unit in step.units]
                    nodes = min(cluster.options.nodes, len(step.units))
                    moved += sum(results[each.result].nbytes for each in step.broadcasts) * nodes
                case Gather():
                    parts = [_run_shard(cluster, step, name) for name in step.objects]
                case _:
                    parts = []
                    _define(coordinator, step.result, step.sql, empty=False)
            if isinstance(step, Fragment | Gather):
                moved += sum(part.nbytes for part in parts)
                _define_result(coordinator, cluster, step, plan.reads_in_place)
                for part in parts:
                    coordinator.register("arrived", part)
                    coordinator.execute(f"INSERT INTO {quoted(step.result)} FROM arrived")
                    coordinator.unregister("arrived")
            results[step.result] = coordinator.sql(f"FROM {quoted(step.result)}").to_arrow_table()
        return _answer(coordinator, plan.final_sql, moved)


def run_whole(cluster: Cluster, sql: str) -> Answer:
    """Run a query in one DuckDB over all rows."""
    with connect() as connection:
        for table in cluster.tables:
            connection.register(table.name, cluster.data[table.name])
        return _answer(connection, sql, 0)


def _answer(connection: duckdb.DuckDBPyConnection, sql: str, moved: int) -> Answer:
    found = connection.sql(sql)
    columns = tuple(Column(n, str(t)) for n, t in zip(found.columns, found.types, strict=True))
    return Answer(found.fetchall(), columns, moved)


def _define(
    connection: duckdb.DuckDBPyConnection, name: str, sql: str, *, empty: bool = True
) -> None:
    limit = " LIMIT 0" if empty else ""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS FROM ({sql}){limit}")


def _define_result(
    coordinator: duckdb.DuckDBPyConnection,
    cluster: Cluster,
    step: Fragment | Gather,
    in_place: frozenset[str],
) -> None:
    """Create the table of a step by running its SQL over empty tables.

    In the database of the coordinator itself: the type of a state has no name in SQL.
    """
    names = (step.table,) if isinstance(step, Gather) else (*step.sharded, *step.replicated)
    tables = [t for t in cluster.tables if t.name in names and t.name not in in_place]
    create_empty(coordinator, tables)
    _define(coordinator, "the_result", step.sql)
    for table in tables:
        coordinator.execute(f"DROP TABLE {quoted(table.name)}")
    coordinator.execute(f"ALTER TABLE the_result RENAME TO {quoted(step.result)}")


def _run_unit(
    cluster: Cluster,
    step: Fragment,
    shards: Mapping[str, tuple[str, ...]],
    results: Mapping[str, pa.Table],
) -> pa.Table:
    whole = {n: [s.object for s in cluster.table(n).shards] for n in step.replicated}
    nodes = [cluster.nodes_of(name, ids) for name, ids in (*shards.items(), *whole.items())]
    found = set.intersection({0, *NODES}, *nodes)
    assert found, "no node has what the unit reads"
    readers = [{0, *cluster.readers_of(t)} for each in step.broadcasts for t in each.tables]
    assert found.intersection(*readers), "no node of the unit may have what is sent along"
    with connect() as node:
        for name in step.replicated:
            node.register(name, cluster.data[name])
        for name, objects in shards.items():
            node.register(name, cluster.rows_of(name, objects))
        for each in step.broadcasts:
            # As a receiver does, which knows names of types only.
            assert is_sendable([(column.name, column.type) for column in each.columns])
            create_empty(node, [Table(each.result, each.columns)])
            node.register("sent", results[each.result])
            node.execute(f"INSERT INTO {quoted(each.result)} FROM sent")
            node.unregister("sent")
        return node.sql(step.sql).to_arrow_table()


def _run_shard(cluster: Cluster, step: Gather, shard: str) -> pa.Table:
    with connect() as node:
        node.register(step.table, cluster.shards[shard])
        return node.sql(step.sql).to_arrow_table()


def without_fragments(cluster: Cluster) -> Cluster:
    """The same cluster, whose plans gather: what a push is compared with."""
    return replace(cluster, options=replace(cluster.options, strategy="gather"))


def differences(found: Answer, expected: Answer, *, is_ordered: bool) -> list[str]:
    """Where two results differ: columns exactly, floats at rel 1e-9, rows in any order unless sorted."""
    if found.columns != expected.columns:
        return [f"{found.columns} instead of {expected.columns}"]
    rows, wanted = found.rows, expected.rows
    if not is_ordered:
        rows, wanted = sorted(rows, key=_sort_key), sorted(wanted, key=_sort_key)
    if len(rows) != len(wanted):
        return [f"{len(rows)} rows instead of {len(wanted)}: {rows[:5]}, {wanted[:5]}"]
    return [
        f"{row} instead of {other}"
        for row, other in zip(rows, wanted, strict=True)
        if not all(map(_is_close, row, other))
    ]


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return type(one) is type(other) and bool(one == other)


def _sort_key(row: tuple[Any, ...]) -> tuple[str, ...]:
    # Floats that differ in the last digits must not be sorted apart.
    return tuple(f"{each:.9g}" if isinstance(each, float) else repr(each) for each in row)
