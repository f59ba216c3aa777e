"""Queries that are easy to split wrongly: each has the result of one DuckDB, in every placement."""

from __future__ import annotations

from functools import cache

import duckdb
import pyarrow as pa
import pytest

from lake.peers.sql import Column
from lake.peers.sql.planner import PlanOptions

from .distributed_plans import Cluster, differences, run_plan, run_whole
from .distributed_tables import ARROW, PLACEMENTS, place, sample_rows

# Rows of a query without `ORDER BY` over all columns are compared in any order.
QUERIES = (
    # Aggregates, with NULL groups and without rows.
    "SELECT g, sum(n), count(*), count(n), avg(n), min(n), max(n) FROM t GROUP BY g",
    "SELECT sum(n), avg(n), count(*), count(x), min(g), max(d) FROM t WHERE k > 1000",
    "SELECT count_if(b), count_if(n > 3) FILTER (WHERE b), sum(DISTINCT n) FROM t WHERE k > 1000",
    "SELECT g, count(DISTINCT 2), avg(DISTINCT -2), count_if(NULL) FROM t GROUP BY g",
    "SELECT 2 AS a, k, -1 AS c, count(*) FROM t GROUP BY a, k, c",
    "SELECT weighted_avg(n, k), geometric_mean(k), geomean(k) FROM t WHERE k > 0",
    "SELECT g, weighted_avg(n, k) + 1 FROM t GROUP BY g HAVING geomean(k) > 2",
    "SELECT sum(m), avg(m), min(m), max(m), sum(x), avg(x) FROM t",
    "SELECT g, sum(m * 2), avg(m + n), sum(n * n) / count(*) FROM t GROUP BY g",
    "SELECT sum(n::HUGEINT * 1000000000000), sum(k::TINYINT) FROM t",
    "SELECT g, sum(n) FILTER (WHERE x > 0), count(*) FILTER (WHERE b) FROM t GROUP BY g",
    "SELECT avg(n) FILTER (WHERE b), min(m) FILTER (WHERE NOT b) FROM t",
    "SELECT bool_and(b), bool_or(b), bit_xor(n), bit_and(n), bit_or(n) FROM t",
    "SELECT g, count_if(n > 3), sum(b::INTEGER) FROM t GROUP BY g",
    "SELECT count(DISTINCT g), count(DISTINCT n) FROM t",
    "SELECT b, count(DISTINCT g), count(*), sum(n), avg(x) FROM t GROUP BY b",
    "SELECT sum(DISTINCT n), avg(DISTINCT n), count(DISTINCT n), max(DISTINCT n) FROM t",
    "SELECT max(DISTINCT n), count(*) FROM t",
    "SELECT count(DISTINCT n) FILTER (WHERE b), count(*) FROM t",
    "SELECT count(DISTINCT (g, n)) FROM t",
    "SELECT stddev(x), var_pop(x), corr(x, n), median(n), mode(g) FROM t",
    "SELECT g, stddev_samp(n) FILTER (WHERE n > 0), skewness(n) FROM t GROUP BY g",
    "SELECT avg(d), avg(d::TIMESTAMP), avg(INTERVAL (n) DAY), sum(INTERVAL (n) DAY) FROM t",
    "SELECT max('12:00:00+05'::TIMETZ), max('1010'::BIT), max([{'bits': '10'::BIT}]) FROM t",
    "SELECT max(to_hours(3000000 + n)), max((n + 9)::UHUGEINT * 37 * 10::UHUGEINT ** 37) FROM t",
    "SELECT g, list(n ORDER BY n), string_agg(g, ',' ORDER BY g) FROM t GROUP BY g",
    "SELECT arg_max(n, m), min_by(g, m) FROM t WHERE m IS NOT NULL",
    "SELECT quantile_cont(n, 0.25), approx_count_distinct(k) FROM t",
    "SELECT g FROM t GROUP BY g HAVING sum(n) > 10",
    "SELECT 1 FROM t HAVING count(*) > 3",
    "SELECT 1 FROM t HAVING true",
    "SELECT 'x' FROM t GROUP BY g",
    "SELECT g, n % 3, sum(m) FROM t GROUP BY g, n % 3 HAVING count(*) > 1 ORDER BY 2, 1",
    "SELECT extract(year FROM d), month(d), count(*) FROM t GROUP BY 1, 2",
    "SELECT g AS h, sum(n) AS total FROM t GROUP BY h ORDER BY total DESC, h",
    "SELECT upper(g), max(n) FROM t GROUP BY upper(g) ORDER BY max(m), upper(g) NULLS FIRST",
    "SELECT g, n, sum(x) FROM t GROUP BY ROLLUP (g, n)",
    "SELECT g, n, grouping(g), sum(x) FROM t GROUP BY GROUPING SETS ((g), (n), ())",
    "SELECT g, count(*) FROM t GROUP BY ALL",
    "SELECT k, sum(n), count(DISTINCT g), median(x) FROM t GROUP BY k",
    "SELECT k % 2, median(n) FROM t GROUP BY k % 2",
    "SELECT sum(n) + (SELECT max(v) FROM u) FROM t",
    "SELECT g, sum(n) AS s, s * 2 FROM t GROUP BY g",
    "SELECT sum(n) AS n FROM t WHERE n > 3",
    # Order, limits and names.
    "SELECT k, n FROM t ORDER BY k NULLS FIRST, n DESC NULLS LAST, g, x, m, d, b LIMIT 7 OFFSET 3",
    "SELECT g FROM t ORDER BY n * 2 DESC, k, g, m LIMIT 5",
    "SELECT g, count(*) FROM t GROUP BY g ORDER BY count(*) DESC, g LIMIT 2",
    "SELECT count(*) FROM (SELECT * FROM t LIMIT 5)",
    "SELECT * FROM t WHERE n IS NULL",
    'SELECT "G" AS "My G", T.N FROM "T" WHERE t."K" = 3',
    "SELECT n, n, k AS n FROM t",
    "SELECT * EXCLUDE (x, m) FROM t",
    "FROM t SELECT k + 1 AS k WHERE k > 3",
    "SELECT t FROM t WHERE n = 3",
    "SELECT a.n FROM t AS a(k, g, n)",
    "SELECT COLUMNS('k|n') FROM t",
    # DISTINCT and set operations.
    "SELECT DISTINCT g FROM t",
    "SELECT DISTINCT g, b FROM t ORDER BY g, b LIMIT 4",
    "SELECT DISTINCT k, g FROM t",
    "SELECT DISTINCT ON (g) g, n FROM t ORDER BY g, n, k",
    "SELECT count(*) FROM (SELECT DISTINCT g, n FROM t)",
    "SELECT k FROM t UNION ALL SELECT k FROM u",
    "SELECT k FROM t UNION SELECT k FROM u ORDER BY k LIMIT 6",
    "SELECT k FROM t EXCEPT SELECT k FROM u",
    "SELECT k, n FROM t INTERSECT SELECT k, v FROM u",
    "SELECT sum(k) FROM (SELECT k FROM t UNION ALL SELECT k FROM u)",
    "SELECT count(*) FROM (SELECT g FROM t UNION ALL SELECT g FROM d)",
    "(SELECT k FROM t ORDER BY k LIMIT 3) UNION ALL (SELECT k FROM u ORDER BY k LIMIT 2)",
    # Joins.
    "SELECT d.label, sum(t.n) FROM t JOIN d USING (g) GROUP BY d.label",
    "SELECT t.g, label, count(*) FROM t LEFT JOIN d ON t.g = d.g GROUP BY ALL",
    "SELECT label, count(t.n) FROM d LEFT JOIN t ON t.g = d.g GROUP BY label",
    "SELECT label, count(t.n) FROM t RIGHT JOIN d ON t.g = d.g GROUP BY label",
    "SELECT count(*), count(t.g), count(d.g) FROM t FULL JOIN d ON t.g = d.g",
    "SELECT t.g, sum(v) FROM t, u WHERE t.k = u.k GROUP BY t.g",
    "SELECT t.k, sum(n), max(v) FROM t JOIN u ON u.k = t.k GROUP BY t.k ORDER BY 1",
    "SELECT u.k, count(*) FROM t LEFT JOIN u ON u.k = t.k GROUP BY u.k",
    "SELECT t.k, count(u.v) FROM t LEFT JOIN u ON u.k = t.k AND u.v > 3 GROUP BY t.k",
    "SELECT count(*) FROM t a JOIN t b ON a.k = b.k WHERE a.n < b.n",
    "SELECT count(*) FROM t JOIN u ON t.n = u.v",
    "SELECT count(*), sum(v) FROM t CROSS JOIN u WHERE t.k + 1 = u.k",
    "SELECT count(*) FROM t NATURAL JOIN u",
    "SELECT count(*) FROM t SEMI JOIN u ON t.k = u.k",
    "SELECT count(*) FROM t ANTI JOIN u ON t.k = u.k AND u.v > t.n",
    "SELECT count(*) FROM d ANTI JOIN t ON t.g = d.g",
    "SELECT count(*) FROM t ANTI JOIN u ON t.k = u.k AND t.n > 3",
    "SELECT count(*) FROM t SEMI JOIN u AS q0 ON t.k = q0.k",
    "SELECT 1 FROM t SEMI JOIN u ON t.k = u.k AND v > 3 ANTI JOIN (SELECT * FROM d SEMI JOIN u ON v < 3) ON true",
    "SELECT count(*) FROM t SEMI JOIN u ON v > 6 WHERE EXISTS (SELECT 1 FROM d SEMI JOIN u ON v < 3)",
    "SELECT sum(x) FROM t POSITIONAL JOIN d",
    "SELECT k, y FROM t, (VALUES (1, 'one'), (2, 'two')) AS v(z, y) WHERE k = z",
    # Subqueries and CTEs.
    "SELECT count(*) FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v > t.n)",
    "SELECT count(*) FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT count(*) FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.v = t.n)",
    "SELECT count(*) FROM t WHERE k IN (SELECT k FROM u WHERE v > 2)",
    "SELECT count(*) FROM t WHERE k NOT IN (SELECT k FROM u WHERE v > 2)",
    "SELECT count(*) FROM t WHERE k NOT IN (SELECT k FROM u WHERE v > 2 AND k IS NOT NULL)",
    "SELECT count(*) FROM t WHERE k IN (SELECT k FROM u GROUP BY k HAVING count(*) > 1)",
    "SELECT count(*) FROM t WHERE n IN (SELECT v FROM u) OR b",
    "SELECT count(*) FROM t WHERE (k IN (SELECT k FROM u)) IS NULL",
    "SELECT count(*) FROM t WHERE n > (SELECT avg(n) FROM t)",
    "SELECT k, n FROM t WHERE n = (SELECT max(n) FROM t i WHERE i.k = t.k)",
    "SELECT k, (SELECT sum(v) FROM u WHERE u.k = t.k) FROM t",
    "SELECT k, (SELECT sum(v) FROM u WHERE u.k = t.k), row_number() OVER (ORDER BY k, n, x, m, d) FROM t",
    "SELECT g, (SELECT label FROM d WHERE d.g = t.g) FROM t",
    "SELECT count(*) FROM d WHERE EXISTS (SELECT 1 FROM t WHERE t.g = d.g)",
    "SELECT g FROM d WHERE rank > ALL (SELECT n FROM t WHERE n < 0)",
    "SELECT s, count(*) FROM (SELECT k, sum(n) AS s FROM t GROUP BY k) GROUP BY s",
    "SELECT max(s) FROM (SELECT g, sum(n) AS s FROM t GROUP BY g)",
    "SELECT a, median(c) FROM (SELECT n AS a, k AS a, n AS c FROM t) GROUP BY a",
    "SELECT count(*) FROM (SELECT DISTINCT * FROM (SELECT k AS a, n AS a FROM t))",
    "SELECT * FROM (SELECT t.*, u.* FROM t JOIN u ON t.k = u.k)",
    "SELECT a FROM (SELECT k AS b FROM t UNION ALL SELECT a FROM (SELECT n AS a, k AS a FROM t)) AS e(a)",
    "WITH c AS (SELECT g, sum(n) AS s FROM t GROUP BY g) SELECT * FROM c a JOIN c b ON a.s < b.s",
    "WITH c AS (SELECT k, n FROM t WHERE n > 2) SELECT count(*) FROM c JOIN u ON c.k = u.k",
    "WITH c AS (SELECT k FROM t ORDER BY k, n LIMIT 3) SELECT * FROM c UNION ALL SELECT * FROM c",
    "WITH t AS (SELECT k FROM u) SELECT count(*) FROM t",
    "WITH c AS (SELECT 1 AS one), e AS (SELECT one + 1 AS two FROM c) SELECT two, n FROM e, t",
    "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT i, n FROM r, t",
    "SELECT t.k, s FROM t JOIN (SELECT k, sum(v) AS s FROM u GROUP BY k) j ON j.k = t.k",
    "SELECT g, s FROM t JOIN (SELECT w, sum(v) AS s FROM u GROUP BY w) j ON j.s > t.n",
    # Windows.
    "SELECT k, n, sum(n) OVER (PARTITION BY k) FROM t",
    "SELECT g, rank() OVER (PARTITION BY g ORDER BY n, k, m, x, d) FROM t",
    "SELECT g, sum(n), rank() OVER (ORDER BY sum(n)) FROM t GROUP BY g",
    "SELECT g, sum(sum(n)) OVER () FROM t GROUP BY g",
    "SELECT k, n FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY n, g, x, m, d, b) = 1",
    "SELECT g, max(n) OVER w FROM t WINDOW w AS (PARTITION BY g)",
    # What only DuckDB knows, or no one may split.
    "PIVOT t ON b USING sum(n) GROUP BY g",
    "SELECT unnest([n, k]) FROM t",
    "SELECT list_transform([n, k], lambda e: e + 1) FROM t",
    "SELECT {'a': k}.a AS a FROM t",
    "SELECT count(*) FROM t, range(3)",
    "SELECT substr(g, 1, 1), if(b, n, k), n ** 2, d + INTERVAL 3 DAYS FROM t",
    "SELECT date_trunc('month', d), date_diff('day', d, DATE '2024-02-01'), count(*) FROM t GROUP BY ALL",
    "SELECT nullif(n, 3), coalesce(n, k, 0), CASE g WHEN 'a' THEN 1 ELSE n END FROM t",
    "SELECT count(*) FROM t WHERE g LIKE 'a%' OR g ILIKE 'B' OR g SIMILAR TO 'ü'",
    "SELECT count(*) FROM t WHERE d BETWEEN DATE '2024-01-05' AND DATE '2024-01-05' + INTERVAL 1 MONTH",
    "SELECT count(*) FROM t WHERE n IS DISTINCT FROM 3 AND b IS NOT TRUE",
    "SELECT count(*) FROM t WHERE k = 3",
    "SELECT sum(n) FROM t WHERE k IN (1, 5) AND d IS NOT NULL",
)


@cache
def cluster_of(placement: str, strategy: str) -> Cluster:
    cluster = place(placement, sample_rows())
    cluster.options = PlanOptions(strategy=strategy)
    return cluster


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("strategy", ["push", "cheapest", "gather"])
@pytest.mark.sample(3)
def test_queries_have_the_results_of_one_duckdb(placement: str, strategy: str) -> None:
    cluster = cluster_of(placement, strategy)
    wrong = {sql: found for sql in QUERIES if (found := compared(cluster, sql))}
    assert wrong == {}


@pytest.mark.slow
def test_queries_over_empty_tables_have_the_results_of_one_duckdb() -> None:
    empty = {name: ARROW[name].empty_table() for name in ARROW}
    cluster = place("t by rows", empty)
    cluster.options = PlanOptions(strategy="push")
    wrong = {sql: found for sql in QUERIES if (found := compared(cluster, sql))}
    assert wrong == {}


@pytest.mark.slow
def test_states_of_aggregates_have_the_results_of_one_duckdb() -> None:
    cluster = place("rows", sample_rows())
    cluster.options = PlanOptions(uses_states=True, strategy="push")
    sql = "SELECT g, stddev(n), var_pop(x), corr(x, n), skewness(n) FROM t GROUP BY g"
    assert cluster.plan(sql).strategy == "push"
    wrong = {each: found for each in (sql, *QUERIES) if (found := compared(cluster, each))}
    assert wrong == {}


MOMENTS = ("stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop", "sem", "skewness",
           "kurtosis", "kurtosis_pop", "approx_count_distinct", "fsum", "favg", "kahan_sum")  # fmt: skip
PAIRS = ("corr", "covar_samp", "covar_pop", "regr_slope", "regr_intercept", "regr_r2", "regr_count",
         "regr_sxx", "regr_syy", "regr_sxy", "regr_avgx", "regr_avgy")  # fmt: skip
CALLS = [*(f"{name}(x)" for name in MOMENTS), *(f"{name}(x, n)" for name in PAIRS)]


@cache
def many_rows() -> Cluster:
    """Of few rows, their values would move less than states."""
    data = {name: pa.concat_tables([rows] * 300) for name, rows in sample_rows().items()}
    cluster = place("rows", data)
    cluster.options = PlanOptions(uses_states=True, strategy="push")
    return cluster


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sample(4)
def test_each_aggregate_with_a_state_is_pushed(call: str) -> None:
    """With NULLs, groups without values, and no rows at all."""
    cluster = many_rows()
    for sql in (
        f"SELECT g, {call}, {call} FILTER (WHERE n > 3) FROM t GROUP BY g",
        f"SELECT {call} FROM t",
        f"SELECT {call}, count(*) FROM t WHERE n > 1000000",
        f"SELECT g, {call} FROM t WHERE n > 1000000 GROUP BY g",
    ):
        assert compared(cluster, sql) == [], sql
    assert cluster.plan(f"SELECT {call} FROM t").fragments[0].has_states


@pytest.mark.parametrize("call", ["median(x)", "mad(x)", "product(n)", "list(n)", "mode(n)"])
def test_an_aggregate_of_all_values_has_no_state(call: str) -> None:
    cluster = many_rows()
    plan = cluster.plan(f"SELECT {call} FROM t")
    assert not any(fragment.has_states for fragment in plan.fragments)
    assert any("does not follow from parts" in reason for reason in plan.reasons)


def test_a_float_that_equals_two_keys_is_one_group() -> None:
    big = 2**53
    rows = {"k": [big, big + 1] * 4, "x": [float(big)] * 8}
    columns = (Column("k", "BIGINT"), Column("x", "DOUBLE"))
    cluster = Cluster({"t": pa.table(rows)}, {"t": columns})
    cluster.split_by_bucket("t", "k", 7)
    cluster.options = PlanOptions(strategy="push")
    assert len(cluster.tables[0].shards) == 2
    assert compared(cluster, "SELECT x, median(k - k) FROM t WHERE k = x GROUP BY x") == []


def test_a_constant_that_equals_several_keys_leaves_their_buckets() -> None:
    big = 2**53
    rows = {"k": [big, big + 1, 3, 4] * 4, "g": ["5", "05", " 5", "x"] * 4}
    columns = (Column("k", "BIGINT"), Column("g", "VARCHAR"))
    for key in columns:
        cluster = Cluster({"t": pa.table(rows)}, {"t": columns})
        cluster.split_by_bucket("t", key.name, 7)
        for condition in (
            f"k = {big}e0",
            f"k IN ({big}, 1.5e0)",
            f"k BETWEEN {big + 1} AND 1e17",
            f"k IN ({big}, 3)",
            "k IN (3, 4.0)",
            "g = 5",
            "g IN ('5', 6)",
            "g IN ('5', 'x')",
        ):
            sql = f"SELECT count(*), min(k) FROM t WHERE {condition}"
            assert compared(cluster, sql) == [], (key.name, condition)


def compared(cluster: Cluster, sql: str) -> list[str]:
    """What differs; an error of DuckDB must be the same one."""
    plan = cluster.plan(sql)
    try:
        expected = run_whole(cluster, sql)
    except duckdb.Error as error:  # the plan's last query must have it too
        with pytest.raises(type(error)):
            run_plan(cluster, plan)
        return []
    try:
        found = run_plan(cluster, plan)
    except duckdb.Error as error:
        return [f"{plan.strategy}: {type(error).__name__}: {error}", *map(str, plan.steps)]
    return [f"{plan.strategy}: {each}" for each in differences(found, expected, is_ordered=False)]
