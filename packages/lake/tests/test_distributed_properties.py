"""Random queries over random small tables: every plan has the result of one DuckDB."""

from __future__ import annotations

import datetime
import decimal
import math
import random
from functools import cache

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from lake.peers.sql.planner import PlanOptions

from .distributed_plans import Cluster, differences, run_plan, run_whole
from .distributed_tables import ARROW, PLACEMENTS, place, sample_rows
from .random_queries import random_query

VALUES: dict[str, st.SearchStrategy[object]] = {
    "k": st.integers(0, 6),
    "g": st.sampled_from(["a", "b", "B", ""]),
    "n": st.integers(-3, 9),
    "x": st.sampled_from([0.5, -1.25, 3.0, math.nan]),
    "m": st.integers(-999, 999).map(lambda value: decimal.Decimal(value).scaleb(-2)),
    "d": st.integers(0, 40).map(lambda day: datetime.date(2024, 1, 1) + datetime.timedelta(day)),
    "b": st.booleans(),
    "v": st.integers(0, 4),
    "w": st.sampled_from(["x", "y"]),
    "label": st.sampled_from(["one", "two"]),
    "rank": st.integers(0, 3),
}
AGGREGATES = (
    "count(*)",
    "sum({})",
    "avg({})",
    "min({})",
    "max({})",
    "count({})",
    "count(DISTINCT {})",
    "sum(DISTINCT {})",
    "sum({}) FILTER (WHERE {} > 1)",
    "sum({}) / count(*)",
    "stddev({})",
    "median({})",
)
NUMBERS = ("n", "m", "k", "n + k", "n * 2", "abs(n)")
GROUPS = ("g", "k", "b", "k % 2", "upper(g)", "d", "x")
FILTERS = (
    "t.n > 2",
    "t.k = 3",
    "t.k IN (1, 2)",
    "t.g IS NULL",
    "t.g IS NOT NULL",
    "t.d >= DATE '2024-01-15'",
    "t.m BETWEEN -2 AND 5.5",
    "t.x > 1",
    "NOT t.b",
    "t.g LIKE 'b%' OR t.n < 0",
    "EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v > t.n)",
    "NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "t.k IN (SELECT k FROM u)",
    "t.k NOT IN (SELECT k FROM u WHERE k IS NOT NULL)",
    "t.n > (SELECT avg(v) FROM u)",
    "t.n >= (SELECT max(i.n) FROM t i WHERE i.k = t.k)",
    "t.g IN (SELECT e.g FROM d AS e WHERE e.rank > 0)",
)
JOINS = (
    "",
    " JOIN d ON d.g = t.g",
    " LEFT JOIN d ON d.g = t.g",
    " JOIN u ON u.k = t.k",
    " LEFT JOIN u ON u.k = t.k AND u.v > 1",
    " SEMI JOIN u ON u.k = t.k",
    " ANTI JOIN u ON u.k = t.k",
    " JOIN u ON u.v = t.n",
    " JOIN (SELECT k AS j, sum(v) AS s FROM u GROUP BY k) ON j = t.k",
    " LEFT JOIN t AS o ON o.k = t.k AND o.n < t.n",
)
QUALIFIED = ("k", "g", "n", "x", "m", "d", "b")


def qualified(text: str) -> str:
    """The columns of `t` by its name, as a join has others of the same name."""
    words = [f"t.{word}" if word.strip("(),") in QUALIFIED else word for word in text.split(" ")]
    return " ".join(words).replace("abs(n)", "abs(t.n)").replace("upper(g)", "upper(t.g)")


@st.composite
def tables(draw: st.DrawFn) -> dict[str, pa.Table]:
    found = {}
    for name, schema in ARROW.items():
        count = draw(st.integers(0, 12))
        rows = [
            {field.name: draw(st.none() | VALUES[field.name]) for field in schema}
            for _ in range(count)
        ]
        found[name] = pa.Table.from_pylist(rows, schema)
    return found


@st.composite
def queries(draw: st.DrawFn) -> str:
    source = f"FROM t{draw(st.sampled_from(JOINS))}"
    filters = draw(st.lists(st.sampled_from(FILTERS), max_size=2, unique=True))
    where = f" WHERE {' AND '.join(f'({each})' for each in filters)}" if filters else ""
    kind = draw(st.sampled_from(["rows", "groups", "distinct", "window", "nested", "union"]))
    groups = [qualified(each) for each in draw(st.lists(st.sampled_from(GROUPS), max_size=2))]
    body = source + where
    match kind:
        case "rows":
            order = "t.k NULLS FIRST, t.n DESC, t.g, t.x, t.m, t.d, t.b"
            limit = draw(st.sampled_from(["", " LIMIT 3", " LIMIT 4 OFFSET 2"]))
            return f"SELECT t.k, t.n + 1 AS n1, t.g {body} ORDER BY {order}{limit}"
        case "distinct":
            return f"SELECT DISTINCT {', '.join(groups or ['t.g'])} {body}"
        case "window":
            key = draw(st.sampled_from(["t.k", "t.g", "t.k, t.b"]))
            return f"SELECT t.k, t.g, count(*) OVER (PARTITION BY {key}) {body}"
        case "union":
            return f"SELECT t.k {body} {draw(st.sampled_from(SETS))} SELECT k FROM u"
        case "nested":
            aggregate = draw(aggregates())
            key = draw(st.sampled_from(["t.k", "t.g"]))
            return (
                f"SELECT a, count(*) FROM (SELECT {key} AS c, {aggregate} AS a {body} GROUP BY {key})"
                " GROUP BY a"
            )
    found = draw(st.lists(aggregates(), min_size=1, max_size=3))
    having = draw(st.sampled_from(["", " HAVING count(*) > 1"]))
    by = f" GROUP BY {', '.join(groups)}" if groups else ""
    return f"SELECT {', '.join([*groups, *found])} {body}{by}{having}"


SETS = ("UNION ALL", "UNION", "EXCEPT", "INTERSECT")


@st.composite
def aggregates(draw: st.DrawFn) -> str:
    values = [qualified(draw(st.sampled_from(NUMBERS))) for _ in range(2)]
    return draw(st.sampled_from(AGGREGATES)).format(*values)


READERS = {name: st.sampled_from([(), (1,), (2,)]) for name in ("t", "u", "d")}
"""The nodes that rows may be sent to; both of them otherwise."""


@pytest.mark.slow
@given(
    tables(),
    queries(),
    st.sampled_from(PLACEMENTS),
    st.sampled_from(["push", "cheapest"]),
    st.booleans(),
    st.fixed_dictionaries({}, optional=READERS),
)
def test_a_plan_has_the_result_of_one_duckdb(
    data: dict[str, pa.Table],
    sql: str,
    placement: str,
    strategy: str,
    uses_states: bool,
    readers: dict[str, tuple[int, ...]],
) -> None:
    cluster = place(placement, data)
    cluster.readers = readers
    cluster.options = PlanOptions(strategy=strategy, uses_states=uses_states)
    plan = cluster.plan(sql)
    note(f"{sql}\n{placement} {plan.strategy} {plan.reasons}\n{plan.steps}\n{plan.final_sql}")
    found, expected = run_plan(cluster, plan), run_whole(cluster, sql)
    assert differences(found, expected, is_ordered="ORDER BY" in sql) == []


@cache
def small_cluster(rows: int, placement: str) -> Cluster:
    return place(placement, sample_rows(rows, seed=rows))


@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(1000, 1600), marks=pytest.mark.nightly)], ids=str
)
def test_random_queries_have_the_results_of_one_duckdb(seeds: range) -> None:
    """Deeper than the queries above: subqueries of all kinds, outer joins, set operations, CTEs."""
    for seed in seeds:
        choose = random.Random(seed)
        sql = random_query(seed)
        cluster = small_cluster(choose.choice([0, 60, 60]), choose.choice(PLACEMENTS))
        strategy = choose.choice(["push", "push", "cheapest", "gather"])
        cluster.options = PlanOptions(strategy=strategy, uses_states=choose.random() < 0.3)
        # A part of the seeds has tables that may go nowhere, or to one node.
        cluster.readers = {
            name: choose.choice([(), (1,), (2,)]) for name in "tud" if choose.random() < 0.3
        }
        try:
            expected = run_whole(cluster, sql)
        except duckdb.Error:
            continue
        found = run_plan(cluster, cluster.plan(sql))
        is_ordered = " LIMIT " in sql
        assert differences(found, expected, is_ordered=is_ordered) == [], (seed, strategy, sql)
