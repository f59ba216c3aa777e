"""Shards that a query's filters leave out: the answer is that of all shards, and EXPLAIN says why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from sennit_core.errors import Corrupt, SennitError, SqlError

TYPES = {
    "i": "INTEGER",
    "f": "DOUBLE",
    "s": "VARCHAR",
    "d": "DATE",
    "ts": "TIMESTAMP",
    "tz": "TIMESTAMPTZ",
    "m": "DECIMAL(9,2)",
    "b": "BOOLEAN",
}


@pytest.fixture
def events(lake: Lake) -> Lake:
    """Dataset `t` of 28 shards, `u` of 8 and `few` of one."""
    lake.sql(
        "CREATE TABLE t PARTITIONED BY (month(ts), bucket(4, u)) SORTED BY (i) AS "
        "SELECT i, 'u' || (i % 7) AS u, TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS ts, "
        "i / 4.0 AS f, CASE WHEN i < 4000 THEN i END AS n FROM range(5000) AS t(i)"
    )
    lake.sql(
        "CREATE TABLE u PARTITIONED BY (k) AS SELECT i % 8 AS k, i AS v FROM range(80) AS r(i)"
    )
    lake.sql("CREATE TABLE few AS SELECT i FROM range(3) AS r(i)")
    return lake


def explained(lake: Lake, query: str, params: Any = None, verb: str = "EXPLAIN") -> str:
    result = lake.sql(f"{verb} {query}", params).to_arrow()
    found = dict(
        zip(result["explain_key"].to_pylist(), result["explain_value"].to_pylist(), strict=True)
    )
    return str(found["shards"])


@pytest.mark.parametrize(
    ("query", "params", "shown"),
    [
        ("FROM t WHERE u = 'u3'", None, "t: shards: 7 of 28 (partition bucket(4, u))"),
        ("FROM t WHERE u = ?", ["u3"], "t: shards: 7 of 28 (partition bucket(4, u))"),
        ("FROM t WHERE ts < '2024-02-01' AND u IN ('u1', 'u2')", None,
         "t: shards: 2 of 28 (partition month(ts), partition bucket(4, u))"),
        ("FROM t WHERE f > $x", {"x": 1200}, "t: shards: 4 of 28 (statistics of f)"),
        ("FROM t WHERE u LIKE 'u3%' AND i < 9", None,
         "t: shards: 1 of 28 (partition bucket(4, u), statistics of i)"),
        ("FROM t WHERE 10 > i", None, "t: shards: 4 of 28 (statistics of i)"),
        ("FROM t WHERE i BETWEEN 5 AND 10 OR i >= 4999", None,
         "t: shards: 5 of 28 (statistics of i)"),
        ("FROM t WHERE n IS NULL", None, "t: shards: 8 of 28 (statistics of n)"),
        ("FROM t WHERE n IS NOT NULL", None, "t: shards: 24 of 28 (statistics of n)"),
        ("FROM t WHERE year(ts) = 2023", None, "t: shards: 0 of 28 (partition month(ts))"),
        ("FROM t WHERE date_trunc('month', ts) = '2024-03-01'", None,
         "t: shards: 4 of 28 (partition month(ts))"),
        ("FROM t WHERE ts::DATE = '2024-03-05'", None, "t: shards: 4 of 28 (partition month(ts))"),
        ("FROM t WHERE ts > now() + INTERVAL 1 DAY", None,
         "t: shards: 0 of 28 (partition month(ts))"),
        ("FROM t WHERE i = 5.0 AND u = 'u5'", None,
         "t: shards: 1 of 28 (statistics of i, partition bucket(4, u))"),
        ("FROM t AS a JOIN u ON a.i = u.v AND u.k = 3 WHERE a.i < 20", None,
         "t AS a: shards: 4 of 28 (statistics of i)\nu: shards: 1 of 8 (partition k)"),
        ("FROM u LEFT JOIN t ON u.v = t.i AND t.i < 9", None,
         "u: shards: 8 of 8\nt: shards: 4 of 28 (statistics of i)"),
        ("FROM few, (SELECT max(v) AS v FROM u WHERE k > 5) AS w WHERE few.i = w.v", None,
         "few: shards: 1 of 1\nu: shards: 2 of 8 (partition k)"),
    ],
)  # fmt: skip
def test_explain_shows_what_is_read_and_why(
    events: Lake, query: str, params: Any, shown: str
) -> None:
    assert sorted(explained(events, query, params).splitlines()) == sorted(shown.splitlines())
    if "now()" not in query:
        assert explained(events, query, params, "EXPLAIN ANALYZE") == explained(
            events, query, params
        )


@pytest.mark.parametrize(
    "query",
    [
        "FROM t WHERE i + 1 < 5",  # no column by itself
        "FROM t WHERE i <> 5",
        "FROM t WHERE NOT (i < 5)",
        "FROM t WHERE u > 5::VARCHAR AND random() < i",
        "FROM t WHERE i < 5 OR random() < 0.5",
        "FROM (FROM t LIMIT 9999) AS q WHERE i < 5",
        "FROM (SELECT i, count(*) AS c FROM t GROUP BY i) AS q WHERE i < 5",
        "FROM (SELECT i, lag(n) OVER (ORDER BY i) AS l FROM t) AS q WHERE i < 5",
        "FROM (SELECT DISTINCT ON (u) u, i FROM t) AS q WHERE i < 5",
        "FROM (SELECT i + 1 AS i FROM t) AS q WHERE i < 5",
        "FROM (SELECT i, n AS i FROM t) AS q WHERE i < 5",
        "FROM (SELECT i FROM t UNION ALL SELECT u FROM t) AS q WHERE i < '5'",
        "FROM t TABLESAMPLE 50% WHERE i < 5",
        "FROM t AS x(a, b) WHERE a < 5",
        "FROM u POSITIONAL JOIN t WHERE t.i < 5 AND u.k = 1",
        "FROM u LEFT JOIN t ON u.v = t.i WHERE t.n IS NULL",  # also rows without a match
        "FROM t FULL JOIN u ON u.v = t.i AND t.i < 5 AND u.k = 1",
        "FROM t LEFT JOIN u ON u.v = t.i AND t.i < 5",  # a row of the left side stays
        "FROM few ASOF JOIN t ON few.i >= t.i WHERE t.f > 1000",
        "FROM t JOIN few USING (i) RIGHT JOIN u ON u.v = i WHERE i IS NULL",
        "FROM t WHERE i IN (SELECT v FROM u)",
        "FROM t WHERE i < (SELECT 5)",
    ],
)
def test_what_might_need_a_row_of_a_shard_reads_it(events: Lake, query: str) -> None:
    shown = explained(events, query).splitlines()
    shown = [line for line in shown if line.startswith("t")]
    assert shown
    assert all(" of 28" in line and "shards: 28 of" in line for line in shown)


JOINS = [
    "FROM u LEFT JOIN t ON u.v = t.i WHERE t.i < 9",
    "FROM u LEFT JOIN t ON u.v = t.i WHERE t.i IS NULL",
    "FROM t RIGHT JOIN u ON u.v = t.i AND t.i < 9 AND u.k = 2",
    "FROM t FULL JOIN u ON u.v = t.i WHERE t.i < 9 OR u.k = 3",
    "FROM u SEMI JOIN t ON u.v = t.i AND t.i < 9",
    "FROM u ANTI JOIN t ON u.v = t.i AND t.i < 9 WHERE k = 1",
    "FROM few LEFT JOIN (u JOIN t ON u.v = t.i AND t.i > 5) ON few.i = u.k WHERE t.i IS NULL",
    "FROM few LEFT JOIN (u LEFT JOIN t ON u.v = t.i) ON few.i = u.k AND t.n IS NULL",
    "FROM t NATURAL JOIN few WHERE i < 2",
    "FROM t JOIN few USING (i) WHERE i < 2",
    "FROM t WHERE i < 9 UNION ALL SELECT i, u, ts, f, n FROM t WHERE i > 4990",
    "FROM few WHERE EXISTS (FROM t WHERE t.i = few.i AND t.i < 2)",
    "FROM few ASOF JOIN t ON few.i >= t.f WHERE t.i > 4",
    "FROM t AS a, t AS b WHERE a.i = b.i + 1 AND a.i < 5 AND b.f < 3",
    "FROM (SELECT * FROM t WHERE i < 5) SELECT count(*)",
    "WITH w AS (FROM t WHERE i > 4990) FROM w WHERE i < 4995",
    "FROM few SELECT i, (SELECT count(*) FROM u WHERE k = few.i AND i < 2)",
    "FROM main.t WHERE i < 5",
]


@pytest.mark.parametrize("query", JOINS)
def test_joins_have_the_rows_of_all_shards(events: Lake, query: str) -> None:
    with duckdb.connect() as peer:
        for name in ("t", "u", "few"):
            peer.register(f"{name}_", events.sql(f"FROM {name}").to_arrow())
            peer.execute(f"CREATE TABLE {name} AS FROM {name}_")
        wanted = peer.execute(query).fetchall()
    found = events.sql(query).rows
    assert sorted(map(repr, map(tuple, _values(found)))) == sorted(map(repr, wanted))


def _values(rows: Any) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield tuple(row.values()) if isinstance(row, dict) else tuple(row)


@pytest.mark.parametrize(
    "query",
    ["SELECT c, i FROM v, t WHERE i = 55", "SELECT (SELECT c FROM v), i FROM t WHERE i = 55"],
)
def test_a_view_beside_a_filter_reads_all_shards(events: Lake, query: str) -> None:
    events.sql("CREATE VIEW v AS SELECT count(*) AS c FROM t")

    assert events.sql(query).fetchall() == [(5000, 55)]


def test_shards_that_are_left_out_are_not_opened(events: Lake) -> None:
    shards = events.catalog.manifest("t").snapshot.shards
    for shard in shards[1:]:
        if "2024-01" not in str(shard.stats["ts"]["min"]):
            events.objects.place(shard.object).write_bytes(b"damaged")
    assert events.sql("SELECT count(*) FROM t WHERE ts < '2024-02-01'").value == 744
    with pytest.raises(Corrupt):
        events.sql("SELECT sum(i) FROM t WHERE ts < '2024-03-02'")
    with pytest.raises(Corrupt):  # the view with all shards
        events.sql("SELECT sum(i) FROM main.t WHERE ts < '2024-02-01'")


def test_errors_are_those_of_the_query(events: Lake) -> None:
    for query in ("FROM t WHERE i > 'x'", "FROM t WHERE u > 5", "FROM t WHERE i < 1 / 'a'"):
        with pytest.raises(SennitError):
            events.sql(query)


CONSTANTS: dict[str, st.SearchStrategy[str]] = {
    "i": st.integers(-3, 12).map(str) | st.sampled_from(["2.5", "3.0", "'4'", "NULL", "1e0"]),
    "f": st.sampled_from(
        ["0.0", "-0.0", "1.5", "'nan'::DOUBLE", "'inf'::DOUBLE", "'-inf'::DOUBLE", "2", "NULL"]
    ),
    "s": st.sampled_from(["''", "'a'", "'ab'", "'é'", "'z'", "'A'", "NULL", f"'{'x' * 130}'"]),
    "d": st.integers(1, 28).map(lambda day: f"'2024-02-{day:02}'")
    | st.sampled_from(["DATE '2024-01-31'", "TIMESTAMP '2024-02-10 12:00:00'", "NULL"]),
    "ts": st.integers(0, 23).map(lambda hour: f"TIMESTAMP '2024-02-03 {hour:02}:30:00'")
    | st.sampled_from(["'2024-02-05'", "DATE '2024-02-05'", "NULL"]),
    "tz": st.sampled_from(
        ["'2024-02-03 12:00:00+05'", "TIMESTAMPTZ '2024-02-05 00:00:00+00'", "DATE '2024-02-07'"]
    ),
    "m": st.sampled_from(["0", "1.25", "1.255", "-3.1", "7", "2.5e0", "NULL"]),
    "b": st.sampled_from(["true", "false", "NULL"]),
}
VALUES: dict[str, st.SearchStrategy[str]] = {
    "i": st.integers(-2, 10).map(str),
    "f": st.sampled_from(["0.0", "-0.0", "1.5", "'nan'", "'inf'", "'-inf'", "3.25", "-7"]),
    "s": st.sampled_from(["''", "'a'", "'abc'", "'é'", "'zz'", "'B'", f"'{'x' * 140}'"]),
    "d": st.integers(1, 28).map(lambda day: f"'2024-02-{day:02}'"),
    "ts": st.tuples(st.integers(1, 9), st.integers(0, 23)).map(
        lambda at: f"'2024-02-{at[0]:02} {at[1]:02}:30:00'"
    ),
    "tz": st.tuples(st.integers(1, 9), st.integers(0, 23)).map(
        lambda at: f"'2024-02-{at[0]:02} {at[1]:02}:00:00+02'"
    ),
    "m": st.sampled_from(["0", "1.25", "-3.1", "7", "9999999.99"]),
    "b": st.sampled_from(["true", "false"]),
}
ROWS = st.lists(
    st.tuples(*(st.just("NULL") | VALUES[name] | VALUES[name] for name in TYPES)),
    min_size=1,
    max_size=4,
)


@st.composite
def predicates(draw: st.DrawFn, depth: int = 0) -> str:
    kinds = ["compare"] * 5 + ["in", "between", "null", "and", "or", "not", "prefix", "raise"]
    kind = draw(st.sampled_from(kinds))
    if kind == "prefix":
        text = draw(st.sampled_from(["a", "a%", "ab%c", "é%", "%", "z_", "A%", "x" * 130 + "%"]))
        form = draw(st.sampled_from(["s LIKE {}", "s NOT LIKE {}", "starts_with(s, {})"]))
        return form.format(f"'{text}'")
    if kind == "raise":
        return draw(
            st.sampled_from(["s::INT > 3", "1 // i = 1", "i < 1 / 0", "i + 2147483647 > 5"])
        )
    if kind in ("and", "or", "not") and depth < 3:
        left, right = draw(predicates(depth + 1)), draw(predicates(depth + 1))
        return f"NOT ({left})" if kind == "not" else f"({left} {kind} {right})"
    name = draw(st.sampled_from(list(TYPES)))
    one, two = draw(CONSTANTS[name]), draw(CONSTANTS[name])
    if kind == "in":
        return f"{name} {draw(st.sampled_from(['IN', 'NOT IN']))} ({one}, {two})"
    if kind == "between":
        return f"{name} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {one} AND {two}"
    if kind == "null":
        return f"{name} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
    if name in ("d", "ts", "tz") and draw(st.booleans()):
        day = f"DATE '2024-02-{draw(st.integers(1, 9)):02}'"
        value = draw(st.sampled_from(["CAST({} AS DATE)", "date_trunc('day', {})"])).format(name)
        return f"{value} {draw(st.sampled_from(['=', '<', '>=']))} {day}"
    sign = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "<>", "IS DISTINCT FROM"]))
    return f"{name} {sign} {one}" if draw(st.booleans()) else f"{one} {sign} {name}"


FIELDS = st.lists(
    st.sampled_from(
        ["i", "s", "b", "d", "m", "bucket(3, i)", "bucket(2, s)", "bucket(3, ts)", "bucket(3, m)",
         "bucket(2, d)", "bucket(2, tz)", "day(ts)", "hour(tz)", "month(d)", "year(ts)"]
    ),
    unique=True,
    max_size=2,
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.just("insert"), ROWS)
    | st.tuples(st.just("insert"), ROWS)
    | st.tuples(st.just("partition"), FIELDS)
    | st.tuples(st.just("sort"), st.lists(st.sampled_from(list(TYPES)), unique=True, max_size=2))
    | st.tuples(st.just("update"), predicates(), st.sampled_from(list(TYPES)))
    | st.tuples(st.just("delete"), predicates())
    | st.tuples(st.just("widen"), st.just("i"))
    | st.tuples(st.just("rename"), st.sampled_from("sdm"))
    | st.tuples(st.just("compact"), st.none()),
    min_size=3,
    max_size=9,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("lake")
    with (
        pytest.MonkeyPatch.context() as patch,
        ElkynStore(mode="memory") as tree,
        Lake(folder, tree=tree, pool=pool) as lake,
    ):
        patch.setattr("lake.statements.shard_statistics.PRUNED_MIN", 1)
        yield lake


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(FIELDS, ROWS, STEPS, st.lists(predicates(), min_size=6, max_size=12))
def test_random_filters_after_random_histories(
    shared: Lake, fields: Any, rows: Any, steps: Any, filters: Any
) -> None:
    """The answers are those of DuckDB over all rows, and of the lake without pruning."""
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    by = f" PARTITIONED BY ({', '.join(fields)})" if fields else ""
    shared.sql(f"CREATE OR REPLACE TABLE r ({columns}){by}")
    with duckdb.connect() as peer:
        peer.execute(f"SET TimeZone = 'UTC'; CREATE TABLE r ({columns})")
        for step in (("insert", rows), *steps):
            _apply(shared, peer, step)
        for condition in filters:
            query = f"SELECT * REPLACE (tz::VARCHAR AS tz) FROM r WHERE {condition}"
            try:
                wanted = peer.execute(query).fetchall()
            except duckdb.Error:
                continue
            found = list(_values(shared.sql(query).rows))
            assert sorted(map(_key, found)) == sorted(map(_key, wanted)), condition


def test_numbers_in_a_list_with_a_double_are_compared_as_it_is(shared: Lake) -> None:
    big = 2**53
    shared.sql(f"CREATE OR REPLACE TABLE r AS SELECT {big} AS k")
    shared.sql(f"INSERT INTO r VALUES ({big + 1})")
    for condition, count in (
        (f"k BETWEEN {big + 1} AND 1e17", 2),
        (f"k BETWEEN {big + 1} AND 10000", 0),
        (f"k BETWEEN {big + 1} AND {big + 2}", 1),
        (f"k IN ({big + 1}, 0.5::DOUBLE)", 2),
        (f"k IN ({big + 1}, 0.5)", 1),
        (f"k = {big}e0", 2),
    ):
        assert shared.sql(f"SELECT count(*) FROM r WHERE {condition}").value == count, condition
    query = f"SELECT count(*) FROM r WHERE k BETWEEN {big + 1} AND $1"
    assert [shared.sql(query, [most]).value for most in (1e17, 10**17)] == [2, 1]
    shared.sql("CREATE OR REPLACE TABLE r PARTITIONED BY (bucket(7, k)) AS FROM r")
    assert shared.sql(f"SELECT count(*) FROM r WHERE k = {big}e0").value == 2
    assert shared.sql(f"SELECT count(*) FROM r WHERE k IN ({big}, 0.5e0)").value == 2


def _key(row: tuple[Any, ...]) -> list[str]:
    return [
        "nan" if isinstance(value, float) and math.isnan(value) else repr(value) for value in row
    ]


def _apply(lake: Lake, peer: duckdb.DuckDBPyConnection, step: tuple[Any, ...]) -> None:
    both: list[str] = []
    own: list[str] = []
    match step:
        case ("insert", rows):
            listed = ", ".join("(" + ", ".join(row) + ")" for row in rows)
            both = [f"INSERT INTO r VALUES {listed}"]
        case ("update", condition, name):
            both = [f"UPDATE r SET {name} = NULL WHERE {condition}"]
        case ("delete", condition):
            both = [f"DELETE FROM r WHERE {condition}"]
        case ("widen", name):
            own = both = [f"ALTER TABLE r ALTER {name} TYPE BIGINT"]
        case ("rename", name):
            both = [
                f"ALTER TABLE r RENAME {name} TO other",
                f"ALTER TABLE r RENAME other TO {name}",
            ]
        case ("partition" | "sort" as kind, fields):
            word = "PARTITIONED BY" if kind == "partition" else "SORTED BY"
            change = f"SET {word} ({', '.join(fields)})" if fields else f"RESET {word}"
            own = [f"ALTER TABLE r {change}"]
        case _:
            lake.compact("r")
    for statement in both:
        try:
            peer.execute(statement)
        except duckdb.Error:
            return
    for statement in own or both:
        lake.sql(statement)


def test_a_constant_of_another_type_harms_no_query(events: Lake) -> None:
    for query in (
        "SELECT count(*) FROM t WHERE i IN ('5', '7.5x') OR i = 6",
        "SELECT count(*) FROM t WHERE i < 10 AND (u = 'u1' OR i < 1 / (i - i))",
    ):
        try:
            whole = events.sql(query.replace("FROM t", "FROM main.t")).value
        except SqlError:
            with pytest.raises(SqlError):
                events.sql(query)
        else:
            assert events.sql(query).value == whole
    assert events.sql("SELECT count(*) FROM t WHERE u IN ('u1', 'u2') AND i < 7").value == 2


def test_nan_is_greater_than_all_bounds(lake: Lake) -> None:
    for start in range(9):
        values = [float(start), math.nan if start == 4 else 0.5]
        lake.append("t", pa.table({"f": values}))
    assert lake.sql("SELECT count(*) FROM t WHERE f > 7.5").value == 2
    assert "shards: 2 of 9" in explained(lake, "FROM t WHERE f > 7.5")
    assert lake.sql("SELECT count(*) FROM t WHERE f = 'nan'::DOUBLE").value == 1
