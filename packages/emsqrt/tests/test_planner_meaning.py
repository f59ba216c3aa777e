"""An optimised plan returns the rows of the plan as it was written, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import check, explain
from emsqrt.planner import optimize
from emsqrt.planner.testing import Row, Rows, rows_of
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

A = scan("a.csv", schema=Schema.of(a="Int64", b="Int64", c="Utf8"))
B = scan("b.parquet", schema=Schema.of(a="Int64", b="Int64", d="Int64"))
C = scan("c.csv", schema=Schema.of(a="Int32", b="Int64", c="Utf8"))
D = scan("d.csv", schema=Schema.of(a="Float64", b="Float64", d="Int64"))

NUMBERS = st.one_of(st.none(), st.integers(-1, 2))
ROWS = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.sampled_from([None, "", "x", "5"])), min_size=1, max_size=5
)
NUMBER_ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5)
FLOATS = st.sampled_from([None, 0.0, -0.0, 1.0])
FLOAT_ROWS = st.lists(st.tuples(FLOATS, FLOATS, NUMBERS), min_size=1, max_size=5)

PREDICATES = st.sampled_from(
    [
        *("a > 0", "b is null", "a == b", "a > 0 and b < 2", "a is not null or b > 1", "a / b > 1"),
        *("c == 'x'", "d > 0", "b_right > 0", "a in (1, 2, null)", "try_cast(c as Int64) > 1"),
        *("1 / a > 0", "power(b, -1) < 0", "atan2(a, -1) > 0"),
        *("a + 1 > b", "cast(c as Int64) > 1", "c != '' and cast(c as Int64) > 1", "n > 1", "true"),
        *(
            "a > 0 and d > 1 and c == 'x'",
            "coalesce(d, 0) == 0",
            "a between 0 and 2",
            "x > 0",
            "1 < 2 and a > 0",
        ),
    ]
)
COLUMNS = st.sampled_from(["a", "b", "c", "d", "n", "x", "b_right", "a_right", "c_right"])
HOWS = st.sampled_from(["inner", "left", "right", "full", "semi", "anti"])


VERBS: list[Callable[..., Pipeline]] = [
    lambda rows, p, c, e: rows.filter(p),
    lambda rows, p, c, e: rows.filter(p),
    lambda rows, p, c, e: rows.select(c, e),
    lambda rows, p, c, e: rows.select("a", "b", c).select(x="a", a="b"),
    lambda rows, p, c, e: rows.with_columns(x="a * 2", y="b + 1"),
    lambda rows, p, c, e: rows.with_column(c, "a"),
    lambda rows, p, c, e: rows.rename({c: e, e: c} if c != e else {c: "n"}),
    lambda rows, p, c, e: rows.rename({c: "x"}),
    lambda rows, p, c, e: rows.sort(f"{c}:desc", e),
    lambda rows, p, c, e: rows.sort(c).limit(3, 1),
    lambda rows, p, c, e: rows.limit(4, 1).limit(3, 1),
    lambda rows, p, c, e: rows.top_k(3, c).limit(1, 1),
    lambda rows, p, c, e: rows.distinct(),
    lambda rows, p, c, e: rows.distinct(c),
    lambda rows, p, c, e: rows.group_by(c).agg(n="count(*)", b="sum(b)"),
    lambda rows, p, c, e: rows.group_by(c, x="a").agg(n="count(b)"),
    lambda rows, p, c, e: rows.agg(n="count(*)", a="max(a)"),
    lambda rows, p, c, e: rows.window(c, e, n="row_number()"),
]
JOINS: list[Callable[..., Pipeline]] = [
    lambda left, right, how: left.join(right, "a", how),
    lambda left, right, how: left.join(right, {"a": "b"}, how),
    lambda left, right, how: left.join(right, ["a", "b"], how),
    lambda left, right, how: left.join(right, how="cross"),
    lambda left, right, how: left.union(right),
    lambda left, right, how: left.union(right, by_name=True),
]

Change = Callable[[Pipeline], Pipeline]


def apply(pipeline: Pipeline, changes: list[Change]) -> Pipeline:
    """Apply the changes that make sense where they come."""
    for change in changes:
        changed = change(pipeline)
        try:
            check(changed.plan)
        except UsageError:
            continue
        pipeline = changed
    return pipeline


SOURCES = st.sampled_from([A, B, C, D])
ALONE: st.SearchStrategy[Change] = st.builds(
    lambda verb, *words: lambda rows: verb(rows, *words),
    st.sampled_from(VERBS),
    PREDICATES,
    COLUMNS,
    COLUMNS,
)
SMALL = st.builds(apply, SOURCES, st.lists(ALONE, max_size=2))


def filtered(pipeline: Pipeline, predicates: list[str]) -> Pipeline:
    """Filter by as many of the predicates as make sense here."""
    return apply(pipeline, [methodcaller("filter", text) for text in predicates])


TOGETHER: st.SearchStrategy[Change] = st.builds(
    lambda join, other, how, texts: lambda rows: filtered(join(rows, other, how), texts),
    st.sampled_from(JOINS),
    SMALL,
    HOWS,
    st.lists(PREDICATES, min_size=2, max_size=5),
)
PLANS = st.builds(apply, SOURCES, st.lists(st.one_of(ALONE, TOGETHER), min_size=2, max_size=5))


def check_meaning(pipeline: Pipeline, a: Rows, b: Rows, c: Rows, d: Rows) -> None:
    tables = {"a.csv": a, "b.parquet": b, "c.csv": c, "d.csv": d}
    try:
        expected = rows_of(pipeline.plan, tables)
    except UsageError:
        return  # a row without a value, which the planner may not even compute
    optimised = optimize(pipeline.plan)
    assert check(optimised) == check(pipeline.plan)
    assert rows_of(optimised, tables) == expected, explain(optimised)


@pytest.mark.slow
@settings(max_examples=25)
@given(PLANS, ROWS, NUMBER_ROWS, ROWS, FLOAT_ROWS)
def test_rules_change_no_row(pipeline: Pipeline, a: Rows, b: Rows, c: Rows, d: Rows) -> None:
    check_meaning(pipeline, a, b, c, d)


ZEROS: list[Row] = [(0.0, 1.0, 1), (-0.0, 2.0, 2), (1.0, -0.0, 3)]


@pytest.mark.parametrize(
    "pipeline",
    [
        D.group_by("a").agg(n="count(*)").filter("1 / a > 0"),
        D.distinct("a").filter("power(a, -1) > 0"),
        D.select("a").distinct().filter("atan2(a, -1) > 3"),
        D.join(D, "a").filter("d_right > 0 and 1 / a < 0"),
        D.join(D, "a", "left").filter("1 / a < 0"),
        D.join(D, "a", "right").filter("1 / a < 0"),
    ],
)
def test_zeros_of_either_sign_stay_one_key_below_a_filter(pipeline: Pipeline) -> None:
    check_meaning(pipeline, [], [], [], ZEROS)
    check_meaning(pipeline, [], [], [], ZEROS[::-1])


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@settings(max_examples=4000)
@given(PLANS, ROWS, NUMBER_ROWS, ROWS, FLOAT_ROWS)
def test_rules_change_no_row_of_many_plans(
    pipeline: Pipeline, a: Rows, b: Rows, c: Rows, d: Rows
) -> None:
    check_meaning(pipeline, a, b, c, d)
