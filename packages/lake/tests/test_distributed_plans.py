"""What a distributed plan says: its units, what it gathers and why, and names that cannot collide."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot

from lake import Lake
from lake.peers.sql import (
    BucketKey,
    Column,
    Shard,
    StepRun,
    Table,
    explain_json,
    explain_text,
    planner,
    sharded_table,
)
from lake.peers.sql.estimates import selectivity
from lake.peers.sql.planner import PlanOptions, plan_distributed
from lake.peers.sql.schemes import Scheme
from lake.peers.sql.wire import tables_from_data, tables_to_data
from lake.sql.distributed_worker import Engine
from lake.sql.guard import check_statement, query_nodes, tree_of
from lake.sql.sent_columns import is_sendable
from sennit_core.canonical import canonical_json

from .distributed_plans import Cluster, connect, differences, run_plan, run_whole
from .distributed_tables import PLACEMENTS, place, sample_rows


def pushing(placement: str) -> Cluster:
    cluster = place(placement, sample_rows())
    cluster.options = PlanOptions(strategy="push")
    return cluster


def test_a_fragment_runs_once_for_each_shard_or_bucket() -> None:
    by_shard = pushing("rows").plan("SELECT sum(n) FROM t").fragments[0]
    by_bucket = pushing("buckets").plan("SELECT count(*) FROM t, u WHERE t.k = u.k").fragments[0]
    assert [unit.name for unit in by_shard.units] == ["t-0", "t-1", "t-2", "t-3"]
    assert by_bucket.by == "bucket"
    assert set(by_bucket.sharded) == {"t", "u"}
    assert {unit.name for unit in by_bucket.units} <= {f"bucket {n}" for n in (0, 1, 2, "NULL")}


def test_units_without_rows_that_a_filter_needs_are_left_out() -> None:
    cluster = pushing("buckets")
    found = cluster.plan("SELECT count(*), sum(v) FROM t JOIN u ON t.k = u.k WHERE t.k = 3")
    (fragment,) = found.fragments
    assert len(fragment.units) == 1
    assert fragment.shards == 8


def test_bounds_leave_shards_out_of_fragments_and_gathers() -> None:
    rows = {"a": list(range(40)), "g": [f"g{i}" for i in range(40)]}
    columns = (Column("a", "BIGINT"), Column("g", "VARCHAR"))
    cluster = Cluster({"s": pa.table(rows)}, {"s": columns})
    cluster.split_by_rows("s", 4)
    sql = "SELECT g, a FROM s WHERE a >= 10 + 5 AND a < 20 AND g <> ''"
    cluster.options = PlanOptions(strategy="push")
    assert [unit.name for unit in cluster.plan(sql).fragments[0].units] == ["s-1"]
    cluster.options = PlanOptions(strategy="gather")
    assert cluster.plan(sql).gathers[0].objects == ("s-1",)


def test_a_gather_has_the_columns_and_rows_that_the_query_uses() -> None:
    cluster = place("t by rows", sample_rows())
    cluster.options = PlanOptions(strategy="gather")
    (gather,) = cluster.plan("SELECT median(n) FROM t WHERE g = 'a'").gathers
    assert gather.columns == ("g", "n")
    assert gather.sql == """SELECT "g", "n" FROM "t" WHERE (("g" = 'a'))"""


def test_a_filter_is_not_pushed_to_the_side_that_an_outer_join_fills() -> None:
    cluster = place("t by rows", sample_rows())
    (gather,) = cluster.plan("SELECT * FROM d LEFT JOIN t ON t.g = d.g WHERE t.n IS NULL").gathers
    assert gather.condition is None


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT sum(n) FROM t WHERE random() < 0.5", "volatile"),
        ("SELECT now(), sum(n) FROM t", "volatile"),
        (
            "SELECT label, count(n) FROM d LEFT JOIN t ON t.g = d.g GROUP BY 1",
            "all nodes have whole",
        ),
        ("SELECT count(*) FROM t FULL JOIN d ON t.g = d.g", "FULL JOIN"),
        ("PIVOT t ON b USING sum(n)", "no SELECT"),
        ("SELECT count(*) FROM t TABLESAMPLE 50%", "volatile"),
        ("SELECT t FROM t", "not distributed"),
    ],
)
def test_what_is_gathered_says_why(sql: str, reason: str) -> None:
    plan = pushing("t by rows").plan(sql)
    assert plan.strategy == "gather"
    assert reason in " ".join(plan.reasons)
    assert reason in explain_text(plan)


def test_tables_of_another_key_type_or_count_are_not_joined_by_bucket() -> None:
    cluster = pushing("buckets")
    t, u = (next(each for each in cluster.tables if each.name == name) for name in "tu")
    sql = "SELECT count(*) FROM t, u WHERE t.k = u.k"
    assert t.key is not None
    assert t.key_class() == u.key_class()
    for other in (
        replace(u, key=BucketKey("k", 4)),
        replace(u, columns=(Column("k", "VARCHAR"), *u.columns[1:])),
    ):
        cluster.tables = [each if each.name != "u" else other for each in cluster.tables]
        assert all(len(fragment.sharded) == 1 for fragment in cluster.plan(sql).fragments)


def test_integer_keys_of_any_width_are_in_the_same_buckets() -> None:
    columns = (Column("k", "SMALLINT"),)
    one = Table("a", columns, (), BucketKey("k", 3))
    other = Table("b", (Column("k", "BIGINT"),), (), BucketKey("K", 3))
    assert one.key_class() == other.key_class()


def test_names_of_results_are_free_in_the_statement() -> None:
    cluster = pushing("rows")
    sql = "SELECT sum(n) AS __sennit_part0 FROM t AS __sennit_x"
    plan = cluster.plan(sql)
    assert plan.strategy == "push"
    assert all(step.result.startswith("__sennit_1_") for step in plan.steps)
    assert run_plan(cluster, plan).columns == (Column("__sennit_part0", "HUGEINT"),)


def test_a_small_sharded_table_is_sent_along() -> None:
    plan = pushing("rows").plan("SELECT t.g, sum(v) FROM t JOIN u ON t.n = u.v GROUP BY t.g")
    assert plan.strategy == "mixed"
    (gather,), (fragment,) = plan.gathers, plan.fragments
    (sent,) = fragment.broadcasts
    assert (sent.result, sent.tables) == (gather.result, ("u",))
    assert [column.type for column in sent.columns] == ["INTEGER"]
    assert fragment.bytes > gather.bytes


SENT = "SELECT t.g, sum(v) FROM t JOIN u ON t.n = u.v GROUP BY t.g"


def test_rows_are_sent_only_where_all_tables_that_they_come_from_may_go() -> None:
    cluster = pushing("rows")
    for readers in ((), (1,)):
        cluster.readers = {"u": readers, "t": ()}
        plan = cluster.plan(SENT)
        assert not any(fragment.broadcasts for fragment in plan.fragments), readers
    # A value that is computed from two tables.
    scalar = "SELECT count(*) FROM t WHERE n > (SELECT avg(v) FROM u JOIN d ON d.rank = u.v)"
    cluster.readers = {}
    (fragment,) = [each for each in cluster.plan(scalar).fragments if each.sharded == ("t",)]
    assert [each.tables for each in fragment.broadcasts] == [("d", "u")]
    for name in ("d", "u"):
        cluster.readers = {name: (2,), "t": ()}
        assert not any(each.broadcasts for each in cluster.plan(scalar).fragments), name


def test_a_unit_runs_at_the_holder_that_may_have_the_rows() -> None:
    cluster = pushing("rows")
    # The second node has all shards of `t`, the first one every other one of them too.
    held = [
        replace(s, nodes=(2,) if n % 2 else (1, 2)) for n, s in enumerate(cluster.table("t").shards)
    ]
    cluster.tables = [
        replace(table, shards=tuple(held)) if table.name == "t" else table
        for table in cluster.tables
    ]
    cluster.readers = {"u": (2,), "t": ()}
    plan = cluster.plan(SENT)
    assert plan.fragments[0].broadcasts
    assert differences(run_plan(cluster, plan), run_whole(cluster, SENT), is_ordered=False) == []
    cluster.readers = {"u": (), "t": ()}
    assert not any(fragment.broadcasts for fragment in cluster.plan(SENT).fragments)


def test_many_rows_are_not_sent_along() -> None:
    cluster = pushing("rows")
    cluster.options = replace(cluster.options, sends_bytes_max=100)
    plan = cluster.plan(SENT)
    assert not any(fragment.broadcasts for fragment in plan.fragments)
    assert "too many to be sent along" in explain_text(plan)


def test_types_that_a_receiver_does_not_declare_are_not_sent_along() -> None:
    sql = "SELECT count(*) FROM t, (SELECT [max(v)] AS m FROM u) AS s WHERE t.n < s.m[1]"
    cluster = pushing("rows")
    plan = cluster.plan(sql)
    assert not any(fragment.broadcasts for fragment in plan.fragments)
    assert differences(run_plan(cluster, plan), run_whole(cluster, sql), is_ordered=False) == []
    assert is_sendable([("a", "BIGINT"), ("b", "DECIMAL(4,1)")])
    for bad in (
        "INTEGER); DROP TABLE x; --",
        "BIGINT[]",
        "STRUCT(a INTEGER)",
        "bigint",
        "",
        "JSON",
    ):
        assert not is_sendable([("a", bad)]), bad
    for names in (("a", "A"), ("", "b"), ("x" * 129, "b")):
        assert not is_sendable([(name, "BIGINT") for name in names])
    assert not is_sendable(())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_no_rows_are_sent_along_unless_that_is_allowed(placement: str) -> None:
    cluster = place(placement, sample_rows())
    cluster.options = PlanOptions(strategy="push", sends_bytes_max=0)
    for sql in (
        "SELECT t.g, sum(v) FROM t JOIN u ON t.n = u.v GROUP BY t.g",
        "SELECT count(*) FROM t WHERE n > (SELECT avg(v) FROM u)",
        "SELECT count(*) FROM t, (SELECT max(v) AS m FROM u) AS s WHERE t.n < s.m",
    ):
        plan = cluster.plan(sql)
        assert not any(fragment.broadcasts for fragment in plan.fragments), sql
        found, expected = run_plan(cluster, plan), run_whole(cluster, sql)
        assert differences(found, expected, is_ordered=False) == [], sql


def without_rows(placement: str) -> Cluster:
    """Nodes that are sent no rows, as in a network."""
    cluster = place(placement, sample_rows())
    cluster.options = PlanOptions(strategy="push", sends_bytes_max=0)
    return cluster


JOINED = (
    "SELECT label, sum(v), count(*) FROM t JOIN u ON t.k = u.k JOIN d ON d.g = t.g GROUP BY label"
)


def test_tables_that_each_node_has_whole_are_joined_there() -> None:
    plan = without_rows("whole at holders").plan(JOINED)
    (fragment,) = plan.fragments
    assert (plan.strategy, fragment.by, fragment.sharded) == ("push", "shard", ("t",))
    assert set(fragment.replicated) == {"u", "d"}
    assert "\n  t: shards: 4 of 4\n  u whole\n  d whole\n" in explain_text(plan)


def test_a_node_with_all_tables_computes_what_parts_cannot() -> None:
    cluster = without_rows("one node")
    plan = cluster.plan("SELECT d.g, median(n) FROM d LEFT JOIN t ON t.g = d.g GROUP BY d.g")
    (fragment,) = plan.fragments
    assert (plan.strategy, fragment.by, fragment.sharded) == ("push", "node", ())
    assert [unit.name for unit in fragment.units] == ["all"]
    # Where parts do, several nodes may compute it.
    assert cluster.plan("SELECT b, sum(n) FROM t GROUP BY b").fragments[0].by == "shard"


def test_tables_that_no_node_has_together_are_not_joined_there() -> None:
    cluster = without_rows("copies")
    assert cluster.plan(JOINED).strategy == "gather"
    for other in ("u ON t.k = u.k", "d ON t.g = d.g"):
        plan = cluster.plan(f"SELECT count(*) FROM t JOIN {other}")
        assert plan.strategy == "push", other


def test_a_table_that_is_split_is_not_whole_in_the_same_part() -> None:
    cluster = without_rows("copies")
    plan = cluster.plan("SELECT count(*) FROM t JOIN t AS o ON t.n = o.n")
    assert [fragment.by for fragment in plan.fragments] == ["node"]
    found = run_plan(cluster, plan)
    assert differences(found, run_whole(cluster, plan.sql), is_ordered=False) == []


def test_no_part_reads_what_only_the_coordinator_has() -> None:
    cluster = without_rows("seen here")
    table = cluster.table("t")
    # A shard is missing, and the coordinator has all others.
    nodes: list[tuple[int, ...]] = [(0,), (0,), (0,), ()]
    shards = tuple(replace(s, nodes=n) for s, n in zip(table.shards, nodes, strict=True))
    changed = replace(table, shards=shards)
    for placed in (table, changed):
        cluster.tables = [placed if t.name == "t" else t for t in cluster.tables]
        plan = cluster.plan("SELECT label, count(*) FROM t JOIN d ON d.g = t.g GROUP BY label")
        assert "d" in plan.reads_in_place
        assert not any("d" in (*e.replicated, *e.broadcasts) for e in plan.fragments)


def test_tables_are_not_taken_as_whole_once_a_node_had_less() -> None:
    cluster = without_rows("whole at holders")
    cluster.options = replace(cluster.options, uses_whole=False)
    assert not any(each.replicated for each in cluster.plan(JOINED).fragments)


def test_what_the_merge_reads_of_other_nodes_is_gathered() -> None:
    cluster = without_rows("whole at holders")
    plan = cluster.plan("SELECT g, sum(n) AS s FROM t GROUP BY g HAVING s > (SELECT avg(v) FROM u)")
    assert plan.reads_in_place == frozenset()
    found = run_plan(cluster, plan)
    assert differences(found, run_whole(cluster, plan.sql), is_ordered=False) == []


def test_buckets_whose_shards_no_node_has_together_are_no_units() -> None:
    cluster = without_rows("buckets")
    sql = "SELECT count(*) FROM t, u WHERE t.k = u.k"
    assert cluster.plan(sql).fragments[0].by == "bucket"
    table = cluster.table("u")
    apart = replace(table.shards[0], nodes=(3,))
    moved = replace(table, shards=(apart, *table.shards[1:]))
    cluster.tables = [moved if each is table else each for each in cluster.tables]
    assert not any(len(each.sharded) > 1 for each in cluster.plan(sql).fragments)


def test_states_are_sent_only_if_all_nodes_have_one_version() -> None:
    cluster = pushing("t by rows")
    sql = "SELECT stddev(x) FROM t"
    assert "EXPORT_STATE" not in str(cluster.plan(sql))
    cluster.options = PlanOptions(strategy="push", uses_states=True)
    assert "EXPORT_STATE" in str(cluster.plan(sql))


def test_shards_of_this_node_need_no_fragment() -> None:
    cluster = place("t by rows", sample_rows())
    cluster.hold_at("t", [0, 1])
    plan = cluster.plan("SELECT g, sum(n) FROM t GROUP BY g")
    assert (plan.strategy, plan.moved_bytes) == ("local", 0)
    assert explain_text(plan).startswith("local: this node has all rows")


def test_a_fault_of_the_planner_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = place("t by rows", sample_rows())

    def fail(*_: object) -> None:
        raise RecursionError("a query that is nested too deep")

    monkeypatch.setattr("lake.peers.sql.planner.find_references", fail)
    sql = "SELECT sum(n) FROM t"
    plan = plan_distributed(sql, cluster.tables, cluster.engine)
    assert (plan.strategy, plan.final_sql) == ("gather", sql)
    assert plan.reasons == ("the planner failed: RecursionError",)


def test_a_query_that_is_not_valid_has_a_plan_with_its_error() -> None:
    cluster = place("t by rows", sample_rows())
    plan = cluster.plan("SELECT nothing FROM t")
    assert plan.columns == ()
    with pytest.raises(Exception, match="nothing"):
        run_plan(cluster, plan)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_plan_is_shown_as_text_and_json(placement: str) -> None:
    plan = pushing(placement).plan("SELECT t.g, sum(v) FROM t JOIN u ON t.k = u.k GROUP BY t.g")
    text, data = explain_text(plan), explain_json(plan)
    assert all(step.result in text and step.sql in text for step in plan.steps)
    assert [step["result"] for step in data["steps"]] == [step.result for step in plan.steps]
    assert canonical_json(data)


def test_a_plan_is_shown_with_the_nodes_that_run_it() -> None:
    plan = pushing("rows").plan("SELECT g, sum(n) FROM t WHERE n > 0 GROUP BY g")
    result = plan.fragments[0].result
    planned = explain_text(plan, {result: StepRun({"oslo": 3}, missing=1)})
    assert "  t: shards: 4 of 4\n  at oslo: 3 units\n  nowhere: 1 of the units" in planned
    run = StepRun({"oslo": 3, "rome": 1}, attempts=3, bytes={"oslo": 512, "bern": 100}, rows=7)
    analyzed = explain_text(plan, {result: run})
    assert "\nmoved: 612 bytes\n" in analyzed
    assert "  at oslo: 3 units, 512 bytes\n  at rome: 1 unit, 0 bytes\n  requests: 3" in analyzed
    step = explain_json(plan, {result: run})["steps"][0]
    assert (step["bytesByNode"]["oslo"], step["rows"]) == (512, 7)


def test_a_table_without_shards_has_one_row_of_a_global_aggregate() -> None:
    engine = Engine(connect())
    table = Table("e", (Column("n", "INTEGER"),), ())
    cluster = Cluster(
        {"e": pa.table({"n": pa.array([], pa.int32())})}, {"e": table.columns}, [table]
    )
    cluster.options = PlanOptions(strategy="push")
    plan = plan_distributed("SELECT count(*), sum(n) FROM e", [table], engine, cluster.options)
    assert plan.fragments[0].units == ()
    assert run_plan(cluster, plan).rows == [(0, None)]


def test_shards_of_a_dataset_have_bounds_and_buckets(lake: Lake) -> None:
    rows = pa.table({"k": list(range(50)), "x": [float(i) for i in range(50)]})
    lake.sql("CREATE TABLE t (k BIGINT, x DOUBLE) PARTITIONED BY (bucket(4, k))")
    lake.append("t", rows)
    snapshot = lake.catalog.manifest("t").snapshot
    table = sharded_table("t", snapshot, {snapshot.shards[-1].object: [0, 2]})
    assert table.key == BucketKey("k", 4)
    assert {shard.bucket for shard in table.shards} == {0, 1, 2, 3}
    assert all(isinstance(shard, Shard) and shard.bounds["k"].low for shard in table.shards)
    assert sorted(shard.nodes for shard in table.shards) == [(), (), (), (0, 2)]
    named = sharded_table("t", snapshot, {}, sql="SELECT count(*) FROM t WHERE K > 3")
    assert all(
        shard.bounds == {"k": table.shards[n].bounds["k"]} for n, shard in enumerate(named.shards)
    )


def test_the_planner_loads_no_duckdb() -> None:
    code = "import sys, lake.peers.sql; assert 'duckdb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nodes_that_need_no_rows_are_planned_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = place("t by rows", sample_rows())
    tried: list[Scheme] = []
    push = planner._Planner._pushed

    def record(self: Any, body: Any, tail: Any, scheme: Scheme) -> Any:
        tried.append(scheme)
        return push(self, body, tail, scheme)

    monkeypatch.setattr(planner._Planner, "_pushed", record)
    # By shards of `t`, nodes have the rest whole; by shards of `u` they would need `t`.
    cluster.hold_at("u", (1, 2))
    assert cluster.plan(JOINED).fragments[0].sharded == ("t",)
    assert [tuple(scheme.keys.values()) for scheme in tried] == [(None,)]


def test_an_empty_database_is_used_again_without_what_was_defined() -> None:
    table = Table("t", (Column("k", "BIGINT"),))
    with closing(Engine(connect())) as engine:
        with engine.empty([table]) as first:
            assert first.columns("FROM t") == table.columns
            first.define("x", "SELECT k::VARCHAR AS k FROM t")
            assert first.columns("FROM x") == (Column("k", "VARCHAR"),)
        with engine.empty([table]) as again:
            assert again is first
            with pytest.raises(duckdb.CatalogException):
                again.columns("FROM x")
        with pytest.raises(duckdb.CatalogException), engine.empty([table]) as broken:
            broken.columns("FROM nothing")
        with engine.empty([table]) as another, engine.empty([table]) as third:
            assert another is not third
            assert third.columns("FROM t") == table.columns


def test_tables_come_back_from_their_data() -> None:
    cluster = place("buckets", sample_rows())
    tables = [replace(table, readers=(1, 2)) for table in cluster.tables]
    assert tables_from_data(json.loads(json.dumps(tables_to_data(tables)))) == tables


def test_a_tree_that_is_kept_is_not_changed() -> None:
    sql = "SELECT g, sum(n) FROM t WHERE k = 3 GROUP BY g"
    before = json.dumps(tree_of(sql))
    for placement in ("rows", "buckets"):
        pushing(placement).plan(sql)
    check_statement(sql, frozenset("t"))
    query_nodes(sql)
    assert json.dumps(tree_of(sql)) == before


def test_a_condition_that_is_negated_leaves_the_other_rows() -> None:
    for text, share in (("LIKE 'a%'", 0.25), ("NOT LIKE 'a%'", 0.75), ("NOT ILIKE 'a'", 0.75)):
        assert selectivity([sqlglot.parse_one(f"g {text}", dialect="duckdb")]) == share
