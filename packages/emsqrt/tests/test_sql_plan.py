"""SELECT statements become plans that answer as DuckDB does, or are refused by name and place."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pytest
from fuzz_runs import run_batches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_rows import plain

from emsqrt.expr import TypeMismatch
from emsqrt.pipeline import Pipeline, scan
from emsqrt.sql_plan import sql
from sennit_core.errors import SqlError, TooLarge, Unsupported
from sennit_core.schema import Schema
from sennit_core.testing import run_markdown

T = Schema.of(a="Int64", b="Int64", s="Utf8", x="Float64", m="Decimal(9,2)", d="Date")
U = Schema.of(a="Int64", name="Utf8", n="Int32")
TABLES = {"t": scan("t.csv", schema=T), "u": scan("u.csv", schema=U)}
MEMORY_BYTES = 32 << 20

QUERIES = [
    "select a, b + 1 as c, upper(s) from t",
    "select * from t where a > 1 and (s like 'a%' or x is null)",
    "select s not like 'a%', s not ilike 'A_', not s not like '%b', x is not null from t",
    "select b from t where s not like 'a%' and not (s ilike 'B' or b is null)",
    "select t.*, a * 2 as twice from t where a in (1, 2, 3) and b not between 0 and 1",
    "select case when a > 1 then 'big' when a is null then 'none' else 'small' end k, a from t",
    "select case a when 1 then 'one' else 'other' end, coalesce(s, '?') || '!' from t",
    "select m * 2, m + 1.5, -m, abs(b), a / 2, b // 2, b % 2 from t",
    "select cast(a as double), a::varchar, try_cast(b as smallint), cast(d as timestamp) from t",
    "select d + interval '1 month' > date '2013-02-01', extract(year from d), month(d) from t",
    "select date_diff('day', d, date '2013-03-01'), cast(date_trunc('month', d) as date) from t",
    "select concat(s, '-', 'x'), substr(s, 1, 1), strpos(s, 'b'), length(s), trim(s) from t",
    "select a from t where d < '2013-02-01' and not (b = 1)",
    "select a is distinct from b, a is not distinct from b, (a > b) is true from t",
    "select count(*), count(a), sum(a), min(s), max(d), avg(b), sum(m) from t",
    "select a, count(*) as n, sum(b) total from t group by a",
    "select a + 1 as k, count(distinct b) from t group by 1",
    "select s, sum(b) * 2 + 1 from t group by s having count(*) > 1 and sum(b) > 0",
    "select a % 2 as odd, sum(b) as total from t group by odd having total > 0",
    "select a, s, count(*) from t group by all",
    "select sum(case when b > 0 then m * (1 - 0.05) else 0 end) from t where x >= 0",
    "select percentile_cont(0.3) within group (order by b), quantile_cont(x, 0.3) from t",
    "select a, percentile_disc(0.25) within group (order by m) as p from t group by a",
    "select percentile_cont(0.9) within group (order by b desc nulls first) from t",
    "select a, quantile(b, 0.5) q from t group by a having quantile(b, 0.5) > 0 order by q, a",
    "select a from t group by a having percentile_disc(1) within group (order by b) > 0",
    "select distinct a, b from t",
    "select a, b from t order by a, b desc nulls first, s, x, m, d",
    "select s from t order by a + b, s, d",
    "select a as k from t order by k desc, 1 limit 3",
    "select a, b from t order by a, b, s, x, m, d limit 2 offset 1",
    "select t.a, u.name from t join u on t.a = u.a",
    "select t.a, u.a as ua, name from t left join u on t.a = u.a and u.n > 0",
    "select t.a, u.a, name from t right join u on t.a = u.a",
    "select * from (select a, b from t) t full join (select a, n from u) u on t.a = u.a",
    "select t.s, u.name from t inner join u on t.a = u.a and t.b < u.n",
    "select a, b, name from t join u using (a)",
    "select a, b, name from t full join u using (a)",
    "select t.a, u.a as ua, a as k, u.* from t right join u using (a)",
    "select t.a, u.name from t, u where t.a = u.a and t.b > 0",
    "select count(*) from t cross join u",
    "select x.a, y.b from t x join t y on x.a = y.b where x.s <> y.s",
    "select t.b from t semi join u on t.a = u.a",
    "select t.b from t anti join u on t.a = u.a",
    "select t.b, u.n from t join u on t.a + 1 = u.n",
    "select name, sum(b) from t, u where u.a = t.a group by name order by 2 desc, 1 limit 2",
    "with big as (select a, b from t where b > 0) select x.a, y.b from big x join big y using (a)",
    "with k(p, q) as (select a, count(*) from t group by a) select p, q + 1 from k where q > 1",
    "select k, k * 2 from (select a + b as k from t where b is not null) where k > 0",
    "select a from t union all select n from u",
    "select a, b from t union select a, n from u",
    "select a, row_number() over (partition by a order by b, s, x, m, d) as r from t",
    "select b, rank() over (order by b), dense_rank() over (order by b) from t",
    "select b, sum(b) over (partition by a), count(*) over () from t",
    "select b, lag(b, 1, 0) over (order by b, s, a, x, m, d) from t",
    "select sum(b) over (order by a, b, s, x, m, d rows between 1 preceding and current row) from t",
    "select a, sum(b) as s, rank() over (order by sum(b) desc nulls last) from t group by a",
    "select a, b from t qualify row_number() over (partition by a order by b, s, x, m, d) = 1",
    "select A, T.B from T where S = 'b'",
    'select "a" as "odd name", a as A2 from t',
]

_ROW = st.tuples(
    st.none() | st.integers(0, 3),
    st.none() | st.integers(-2, 3),
    st.none() | st.sampled_from(("a", "ab", "b", "")),
    st.none() | st.sampled_from((0.0, 1.5, -2.0, 7.25)),
    st.none() | st.sampled_from(("1.50", "-0.25", "10.00")).map(Decimal),
    st.none() | st.sampled_from((date(2013, 1, 31), date(2013, 2, 28), date(2012, 2, 29))),
)
_OTHER = st.tuples(
    st.none() | st.integers(0, 3), st.none() | st.sampled_from("pq"), st.integers(-1, 3)
)


Rows: TypeAlias = list[Any]


def table(rows: Rows, schema: Schema) -> pa.Table:
    columns = [[row[i] for row in rows] for i in range(len(schema))]
    arrays = [pa.array(c, f.type.to_arrow()) for c, f in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema.to_arrow())


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))
SOME, OTHERS = st.lists(_ROW, min_size=3, max_size=9), st.lists(_OTHER, min_size=1, max_size=5)


@pytest.mark.sample(25)
@pytest.mark.parametrize("query", QUERIES)
@settings(UNHURRIED, max_examples=2)
@given(t=SOME, u=OTHERS)
def test_a_query_answers_as_duckdb_does(query: str, t: Rows, u: Rows, reference: Any) -> None:
    agree(query, {"t": table(t, T), "u": table(u, U)}, reference)


@pytest.mark.nightly
@pytest.mark.parametrize("query", QUERIES)
@settings(UNHURRIED, max_examples=40)
@given(t=SOME, u=OTHERS)
def test_many_queries_answer_as_duckdb_does(query: str, t: Rows, u: Rows, reference: Any) -> None:
    agree(query, {"t": table(t, T), "u": table(u, U)}, reference)


def agree(query: str, tables: dict[str, pa.Table], reference: Any) -> None:
    """Fail unless the plan of a query has the rows that DuckDB answers."""
    plan = sql(query, TABLES).plan
    inputs = {f"{name}.csv": each for name, each in tables.items()}
    with tempfile.TemporaryDirectory() as scratch:
        ours = run_batches(plan, inputs, MEMORY_BYTES, Path(scratch)).rows
    for name, each in tables.items():
        reference.register(name, each)
    found, wanted = list(plain(ours)), list(plain(reference.execute(query).fetchall()))
    if "order by" in query.replace("within group (order by", "") and "over" not in query:
        assert found == wanted
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))


REFUSED = [
    ("select a from t where a in (select a from u)", "IN (SELECT", (1, 23)),
    ("select a from t where exists (select 1 from u)", "EXISTS", None),
    ("select a from t except select a from u", "EXCEPT", None),
    ("select a,\n  list(b) from t group by a", "ArrayAgg", (2, 3)),
    ("select a from t join u on t.a > u.a", "without an equality", (1, 1)),
    ("select a from t left join u on t.a = u.a and t.b > u.n", "in an left join", None),
    ("with recursive r as (select 1) select * from r", "WITH RECURSIVE", None),
    ("select * exclude (a) from t", "EXCLUDE", None),
    ("select distinct on (a) a, b from t", "DISTINCT ON", None),
    ("select count(*) filter (where a > 1) from t", "Filter", None),
    ("select mode() within group (order by a) from t", "Mode WITHIN GROUP", None),
    (
        "select percentile_disc(0.5) within group (order by a desc) from t",
        "percentile_disc of a descending order",
        None,
    ),
    ("select percentile_cont([0.5]) within group (order by a) from t", "Array", None),
    ("select initcap(s, '-') from t", "initcap with delimiters", None),
    ("select regexp_matches(s, 'A', 'i') from t", "regexp_matches with 3 arguments", (1, 8)),
    ("select max(a, 2) from t", "Max with a count", None),
    ("select a from t limit 50%", "LIMIT in percent", None),
    ("select first(a order by b) from t", "Order", None),
    ("select a from t group by rollup (a)", "ROLLUP", None),
    ("insert into t values (1)", "INSERT", None),
    ("select nonesuch(a) from t", "the function nonesuch", (1, 8)),
    ("select a from read_csv('x')", "ReadCSV", None),
]


@pytest.mark.parametrize("word", ["like", "ilike"])
def test_not_like_is_the_complement_of_like(word: str) -> None:
    plain, negated = (
        sql(f"select s from t where s {each} 'a%'", TABLES) for each in (word, f"not {word}")
    )
    assert "filter not s" in negated.explain()
    assert "filter s" in plain.explain()


@pytest.mark.parametrize(("query", "words", "place"), REFUSED, ids=[q for q, _, _ in REFUSED])
def test_sql_that_is_not_covered_is_refused_by_name(
    query: str, words: str, place: tuple[int, int] | None
) -> None:
    with pytest.raises(Unsupported) as caught:
        sql(query, TABLES)
    assert words in str(caught.value)
    if place is not None and place != (1, 1):
        assert f"line {place[0]}, column {place[1]}" in str(caught.value)


@pytest.mark.parametrize(
    ("query", "words", "hint"),
    [
        ("select nam from u", "no column nam", "did you mean name?"),
        ("select v.a from t", "no column v.a", None),
        ("select a from t, u", "a is a column of t and u", "write the table before it"),
        ("select a from tt", "no table tt", None),
        ("select a, b from t group by a", "b is neither in GROUP BY", None),
        ("select a from t where sum(b) > 1", "an aggregate is not allowed here", None),
        ("select a from t order by 2", "no output column 2", None),
        ("selec a from t", "line 1", None),
        ("select a from t; select b from t", "one statement, found 2", None),
        ("", "one statement, found 0", None),
        ("select date '2013-02-30' from t", "not a value of type Date", None),
        (
            "select percentile_cont(0.5) within group (order by a, b) from t",
            "percentile_cont is over one value, found 2",
            None,
        ),
        (
            "select percentile_cont(1.5) within group (order by a) from t",
            "takes a constant from 0 to 1",
            None,
        ),
    ],
)
def test_a_mistake_is_reported_with_its_position(query: str, words: str, hint: str | None) -> None:
    with pytest.raises(SqlError) as caught:
        sql(query, TABLES)
    assert words in str(caught.value)
    assert hint is None or caught.value.hint == hint


def test_initcap_is_the_engine_s_own() -> None:
    assert sql("select initcap(s) as c from t", TABLES).plan == (
        TABLES["t"].select(c="initcap(s)").plan
    )


def test_types_are_checked_before_anything_runs() -> None:
    with pytest.raises(TypeMismatch, match="takes numbers"):
        sql("select a + s from t", TABLES)
    with pytest.raises(TooLarge):
        sql("select" + " " * 70_000 + "a from t", TABLES)


def test_a_table_may_be_a_file_or_a_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("a,b\n1,2\n3,4\n")
    query = sql("select a from some where b > 2", {"some": file})
    assert str(query.schema()) == "a: Int64"
    piped = sql("select k from p", {"p": scan(file).select(k="a + b")})
    assert isinstance(piped, Pipeline)


@pytest.mark.nightly
def test_the_page_on_sql_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(Path(__file__).resolve().parents[3] / "docs" / "sql.md")


def test_sqlglot_is_loaded_only_when_needed() -> None:
    code = "import sys, emsqrt.sql_plan; assert 'sqlglot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
