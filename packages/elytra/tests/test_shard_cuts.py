"""Any cut of the rows into shards has the same result, to the bit; DuckDB agrees with it."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elytra.pipelines.pipeline import Pipeline
from elytra.testing.pipeline_runs import Rows, Schemas, batch_of, bits, distributed
from emsqrt.expr import col, count

rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "ä", None]),
        st.integers(-1000, 1000) | st.none(),
        st.floats(allow_nan=False, allow_infinity=False, width=32) | st.none(),
    ),
    max_size=40,
)
few = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
cuts = st.lists(st.integers(0, 40), max_size=6)


NUMBERED = "(select *, row_number() over () n from t)"
PIPELINES: dict[str, tuple[Callable[[Pipeline], Pipeline], str]] = {
    "rows": (
        lambda p: p.filter("i > 0").with_columns(g=col("f") * 2).select("k", "g"),
        "select k, f * 2 as g from t where i > 0",
    ),
    "one row": (
        lambda p: p.agg(n=count(), s=col("f").sum(), i=col("i").sum(), lo=col("k").min()),
        "select count(*), sum(f), sum(i), min(k) from t",
    ),
    "groups": (
        lambda p: p.group_by("k").agg(
            n=count(), s=col("f").sum(), m=col("f").mean(), top=col("i").max(), c=col("i").count()
        ),
        "select k, count(*), sum(f), avg(f), max(i), count(i) from t group by k order by k nulls last",
    ),
    "computed keys": (
        lambda p: p.group_by(even=col("i") % 2 == 0).agg(s=col("i").sum()),
        "select i % 2 = 0 as even, sum(i) from t group by even order by even nulls last",
    ),
    "computed keys, by a function": (  # None % 2 is None, and None == 0 is False in Python
        lambda p: p.group_by(even=lambda r: r.i % 2 == 0).agg(s=col("i").sum()),
        "select coalesce(i % 2 = 0, false) as even, sum(i) from t group by even order by even",
    ),
    "keys in order, by a function": (  # None > 0 is an error in Python, and None here
        lambda p: p.group_by(above=lambda r: r.i > 0).agg(s=col("i").sum()),
        "select i > 0 as above, sum(i) from t group by above order by above nulls last",
    ),
    "after groups": (
        lambda p: p.group_by("k").count().filter(col("count") > 1).agg(groups=count()),
        "select count(*) from (select k from t group by k having count(*) > 1)",
    ),
    "limit": (
        lambda p: p.filter("i is not null").limit(5, offset=2),
        "select * from t where i is not null limit 5 offset 2",
    ),
    "top rows": (
        lambda p: p.top_k(5, "i:desc", "k", "f", offset=1),
        "select * from t order by i desc nulls last, k nulls last, f nulls last limit 5 offset 1",
    ),
    "different rows": (
        lambda p: p.distinct(),
        "select distinct * from t order by k nulls last, i nulls last, f nulls last",
    ),
    "the first row of each": (
        lambda p: p.distinct("k"),
        "select k, i, f from (select *, row_number() over () n from t) qualify row_number() over (partition by k order by n) = 1 order by k",
    ),
    "groups, then sorted": (
        lambda p: p.group_by("k").agg(n=count()).sort("n:desc", "k"),
        "select k, count(*) as n from t group by k order by n desc, k nulls last",
    ),
    "all rows, sorted": (
        lambda p: p.sort("f:desc:nulls_first", "k"),
        f"select k, i, f from {NUMBERED} order by f desc nulls first, k nulls last, n",
    ),
    "sorted, then first rows of groups": (
        lambda p: p.sort("i").distinct("k"),
        f"select k, i, f from (select *, row_number() over (order by i nulls last, n) m from {NUMBERED}) qualify row_number() over (partition by k order by m) = 1 order by k",
    ),
    "checked rows": (
        lambda p: p.filter("i is not null").expect(not_null="i").agg(s=col("i").sum()),
        "select sum(i) from t",
    ),
    "limit, then groups": (
        lambda p: p.limit(7).group_by("k").agg(s=col("f").sum()),
        "select k, sum(f) from (select * from t limit 7) group by k order by k nulls last",
    ),
}


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
@few
@given(table=rows, places=cuts)
def test_no_cut_changes_a_bit_of_the_answer(name: str, table: Rows, places: list[int]) -> None:
    pipeline = PIPELINES[name][0](Pipeline.over(Schemas(), "t"))

    whole = distributed(pipeline, table, [])
    parts = distributed(pipeline, table, places)

    assert bits(parts) == bits(whole)


ORACLE: list[duckdb.DuckDBPyConnection] = []  # not an argument: hypothesis would hold it for ever


@pytest.fixture(scope="module", autouse=True)
def open_oracle() -> Iterator[None]:
    with duckdb.connect(config={"threads": 1}) as connection:
        ORACLE.append(connection)
        yield
    ORACLE.clear()


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
@few
@given(table=rows, places=cuts)
def test_duckdb_returns_the_same_answer(name: str, table: Rows, places: list[int]) -> None:
    grow, sql = PIPELINES[name]
    ours = distributed(grow(Pipeline.over(Schemas(), "t")), table, places)

    ORACLE[0].register("t", pa.Table.from_batches([batch_of(table)]))
    theirs = ORACLE[0].execute(sql).fetchall()
    ORACLE[0].unregister("t")

    columns = [column.to_pylist() for column in ours.columns]
    assert all(map(alike, zip(*columns, strict=True), theirs)), (columns, theirs)
    assert ours.num_rows == len(theirs)


def alike(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    return all(
        math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-9)
        if isinstance(a, float) and b is not None
        else a == b
        for a, b in zip(ours, theirs, strict=True)
    )
