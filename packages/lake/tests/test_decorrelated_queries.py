"""Correlated subqueries that are rewritten: the same rows, also with NULL, duplicates and empty tables."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.peers.sql import planner
from lake.peers.sql.aggregates import to_sql
from lake.peers.sql.decorrelation import decorrelated
from lake.peers.sql.planner import PlanOptions
from lake.peers.sql.syntax import Query, read_query

from .distributed_plans import Cluster, differences, run_plan, run_whole
from .distributed_tables import PLACEMENTS, place, sample_rows
from .test_distributed_properties import tables

REWRITTEN = (
    "SELECT * FROM t WHERE n > (SELECT avg(v) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n * 2 <= (SELECT 3 * (max(v) - min(v)) FROM u WHERE t.k = u.k AND w = 'x')",
    "SELECT * FROM t WHERE b AND m < (SELECT sum(i.m) / 4 FROM t AS i WHERE i.g = t.g AND i.k > 2)",
    "SELECT * FROM t WHERE (SELECT sum(i.n) FROM t AS i WHERE i.g = t.g AND i.k = t.k) IS NULL",
    "SELECT * FROM u WHERE v >= 1 AND EXISTS (SELECT * FROM t WHERE t.k = u.k AND t.b)",
    "SELECT * FROM u WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.k = u.k AND t.n = u.v)",
    "SELECT u.k, g FROM u, d WHERE rank > 1 AND NOT EXISTS (SELECT 1 FROM t WHERE t.g = d.g)",
    "SELECT * FROM u WHERE w = 'y' OR EXISTS (SELECT 1 FROM t WHERE t.k = u.k)",
    """SELECT label FROM d LEFT JOIN u ON u.v = rank WHERE NOT EXISTS
       (SELECT 1 FROM t WHERE t.k = u.k) AND (u.w IS NULL OR u.w <> 'z')""",
    """SELECT w, count(*) AS c FROM u WHERE k IN (SELECT k FROM t WHERE n > 0 AND n >
       (SELECT 0.5 * sum(v) FROM u AS i WHERE i.k = t.k)) GROUP BY w""",
    "SELECT * FROM u WHERE v > (SELECT avg(v) FROM u) AND NOT EXISTS (SELECT 1 FROM t WHERE t.k = u.k)",
)
KEPT = (
    "SELECT * FROM t WHERE n > (SELECT count(*) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n > (SELECT coalesce(sum(v), 0) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n > (SELECT sum(v) + count(*) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n IN (SELECT max(v) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n NOT IN (SELECT max(v) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n > ALL (SELECT max(v) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE EXISTS (SELECT max(v) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n > (SELECT sum(v) FROM u WHERE u.k < t.k)",
    "SELECT * FROM t WHERE n > (SELECT sum(v) FROM u WHERE u.v = t.k)",
    "SELECT * FROM u WHERE v > (SELECT sum(x) FROM t WHERE t.k = u.k)",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM t AS i WHERE i.x = t.x)",
    "SELECT * FROM t WHERE n > (SELECT sum(DISTINCT v) FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n > (SELECT sum(v) FILTER (WHERE w = 'x') FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE n > (SELECT sum(v) FROM u WHERE u.k = t.k GROUP BY w)",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u, d WHERE u.k = t.k AND d.rank = u.v)",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v IN (SELECT rank FROM d))",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k OR u.v = 1)",
    "SELECT * FROM t WHERE n > (SELECT avg(v) FROM u)",
)


def read(cluster: Cluster, sql: str) -> Query:
    return read_query(sql, cluster.tables, cluster.engine, "__sennit_")


def check(cluster: Cluster, sql: str) -> None:
    """Compare a statement with its rewritten form, and with plans of that."""
    rewritten = decorrelated(read(cluster, sql), uses_states=True)
    assert rewritten is not None
    text, expected = to_sql(rewritten.tree), run_whole(cluster, sql)
    assert differences(run_whole(cluster, text), expected, is_ordered=False) == [], text
    cluster.options = PlanOptions(uses_states=True, strategy="push")
    plan = cluster.plan(sql)
    assert differences(run_plan(cluster, plan), expected, is_ordered=False) == [], plan.steps


@pytest.fixture(autouse=True)
def rewrites_whatever_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_REWRITTEN_MARGIN", 0)


@pytest.mark.parametrize("sql", REWRITTEN)
def test_a_rewritten_subquery_has_the_same_result(sql: str) -> None:
    check(place("t by rows", sample_rows()), sql)


@pytest.mark.nightly
@pytest.mark.parametrize("rows", [0, 1, 60])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("sql", REWRITTEN)
def test_a_rewritten_subquery_has_the_same_result_in_every_placement(
    sql: str, placement: str, rows: int
) -> None:
    check(place(placement, sample_rows(rows)), sql)


@pytest.mark.slow
@given(tables(), st.sampled_from(REWRITTEN), st.sampled_from(PLACEMENTS))
def test_a_rewritten_subquery_has_the_same_result_over_any_rows(
    data: dict[str, pa.Table], sql: str, placement: str
) -> None:
    check(place(placement, data), sql)


@pytest.mark.parametrize("sql", KEPT)
def test_what_is_not_equal_for_certain_is_not_rewritten(sql: str) -> None:
    assert decorrelated(read(place("rows", sample_rows(1)), sql), uses_states=True) is None


def test_an_average_is_rewritten_only_if_its_state_is_sent() -> None:
    query = read(place("rows", sample_rows(1)), REWRITTEN[0])
    assert decorrelated(query, uses_states=False) is None


def test_an_average_of_parts_is_that_of_all_rows_to_the_last_digit() -> None:
    sql = "SELECT k, avg(m) AS a FROM t GROUP BY k"
    cluster = place("rows", sample_rows(400))
    cluster.options = PlanOptions(uses_states=True, strategy="push")
    plan = cluster.plan(sql)
    assert plan.strategy == "push"
    found, expected = run_plan(cluster, plan).rows, run_whole(cluster, sql).rows
    assert set(found) == set(expected)
