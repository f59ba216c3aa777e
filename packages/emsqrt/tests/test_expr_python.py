"""Expressions built by Python operators."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from emsqrt.expr import (
    Agg,
    Expr,
    all_of,
    any_of,
    avg,
    coalesce,
    col,
    concat,
    count,
    count_distinct,
    expr_from_json,
    expr_to_json,
    lit,
    parse_expr,
    when,
)
from sennit_core.errors import UsageError

a, b, s = col("a"), col("b"), col("s")
BUILT: list[tuple[Expr, str]] = [
    ((a + 1) * b - 2 / a, "(a + 1) * b - 2 / a"),
    (7 // a % b, "7 // a % b"),
    (-a, "-a"),
    (abs(a), "abs(a)"),
    (round(a, 2), "round(a, 2)"),
    ((a > 25) & (s == "Alice") | ~(b != 3), "a > 25 and s == 'Alice' or not b != 3"),
    (a > 1, "a > 1"),
    (True & (a >= b), "true and a >= b"),
    (a.is_null(), "a is null"),
    (a.is_not_null(), "a is not null"),
    (a.is_in([1, None]), "a in (1, null)"),
    (a.between(1, b), "a between 1 and b"),
    (s.like("A%"), "s like 'A%'"),
    (a.cast("Float64"), "cast(a as Float64)"),
    (a.try_cast("Decimal(4,2)"), "try_cast(a as Decimal(4,2))"),
    (s.upper().substr(1, 3), "substr(upper(s), 1, 3)"),
    (s.trim().replace("x", "y"), "replace(trim(s), 'x', 'y')"),
    (concat(s, "x", s), "s || 'x' || s"),
    (coalesce(a, b, 0), "coalesce(a, b, 0)"),
    (
        when(a > 1).then("x").when(a > 0).then("y"),
        "case when a > 1 then 'x' when a > 0 then 'y' end",
    ),
    (when(a > 1).then(1).otherwise(0.5), "case when a > 1 then 1 else 0.5 end"),
    (count(), "count(*)"),
    (count("a"), "count(a)"),
    (count_distinct("a"), "count(distinct a)"),
    (avg(a * b), "avg(a * b)"),
    (col("odd name").sum(), "sum(`odd name`)"),
    (lit(date(2013, 1, 5)), "Date '2013-01-05'"),
    (lit(Decimal("1.50")), "Decimal(3,2) '1.50'"),
    (lit(None, "Int8"), "Int8 null"),
    (lit(float("nan")), "Float64 'nan'"),
    (all_of(a > 1, b > 2, s == ""), "a > 1 and b > 2 and s == ''"),
    (any_of(), "false"),
]


@pytest.mark.parametrize(("expr", "text"), BUILT, ids=[text for _, text in BUILT])
def test_operators_build_the_expression_of_their_text(expr: Expr, text: str) -> None:
    assert str(expr) == text
    assert parse_expr(text).equals(expr)
    assert expr_from_json(json.dumps(expr_to_json(expr))).equals(expr)


def test_long_chains_of_conditions_stay_shallow() -> None:
    chain = a == 0
    for number in range(1, 500):
        chain = chain | (a == number)
    assert expr_from_json(expr_to_json(chain)).equals(chain)


DECIDED: list[Callable[[Any], object]] = [
    lambda r: r.a > 1 and r.b > 2,
    lambda r: r.a > 1 or r.b > 2,
    lambda r: not r.a,
    lambda r: 1 < r.a < 5,
    lambda r: 1 if r.a else 2,
    lambda r: r.a in (1, 2),
    lambda r: 1 in r.a,
    lambda r: int(r.a),
    lambda r: float(r.a),
    lambda r: len(r.s),
    lambda r: [1, 2][r.a],
    lambda r: f"{r.s}!",
    lambda r: list(r.a),
    lambda r: max(r.a, r.b),
]


@pytest.mark.parametrize("fn", DECIDED, ids=range(len(DECIDED)))
def test_conditions_that_python_would_evaluate_are_refused_with_a_hint(
    fn: Callable[[Any], object],
) -> None:
    with pytest.raises(UsageError) as caught:
        fn(SimpleNamespace(a=a, b=b, s=s))
    assert caught.value.hint


def test_literals_know_their_types() -> None:
    eastern = timezone(timedelta(hours=-5))
    values: dict[str, object] = {
        "Bool": True,
        "Int64": -5,
        "UInt64": 2**63,
        "Float64": 0.5,
        "Utf8": "x",
        "Binary": b"x",
        "Date": date(2013, 1, 1),
        "Timestamp(us)": datetime(2013, 1, 1),  # noqa: DTZ001 - wall-clock time
        "Timestamp(us,UTC)": datetime(2013, 1, 1, tzinfo=eastern),
        "Duration": timedelta(seconds=1),
        "Decimal(2,1)": Decimal("-1.5"),
    }
    assert {str(lit(value).type): value for value in values.values()} == values


def test_moments_with_a_zone_are_spelled_in_utc() -> None:
    moment = datetime(2013, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    spelled = {"lit": "2012-12-31T23:30:00.000000Z", "type": "Timestamp(us,UTC)"}
    assert expr_to_json(lit(moment)) == spelled
    assert expr_to_json(lit(moment.astimezone(UTC))) == spelled


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (300, "UInt8"),
        (1.5, "Int64"),
        (True, "Int64"),
        ("x", "Date"),
        (Decimal("1.55"), "Decimal(3,1)"),
    ],
)
def test_a_literal_that_does_not_fit_its_type_is_refused(value: object, kind: str) -> None:
    with pytest.raises(UsageError, match="not a value of type"):
        lit(value, kind)


def test_values_of_no_type_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be a constant"):
        lit(object())


def test_an_aggregate_is_a_node_of_its_own() -> None:
    assert isinstance(a.sum(), Agg)
    assert not a.sum().equals(a.max())


def test_plan_and_expr_load_nothing_of_others() -> None:
    code = (
        "import sys, emsqrt.plan, emsqrt.expr; print(*sorted(m.split('.')[0] for m in sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "pyarrow", "pandas", "duckdb", "hypothesis"} & set(loaded.stdout.split())
