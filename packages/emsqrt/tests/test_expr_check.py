"""Types are checked before anything runs, and refusals name column and types."""

import pytest

from emsqrt.expr import TypeMismatch, col, infer, lit, parse_expr
from sennit_core.errors import UnknownColumn, Unsupported, UsageError
from sennit_core.schema import Schema

SCHEMA = Schema.of(
    a="Int64", n="Int32", u="UInt64", v="UInt16", x="Float64", y="Float32", s="Utf8", p="Bool",
    d="Date", t="Timestamp(us)", z="Timestamp(ms,UTC)", m="Decimal(4,2)", l="List(Int64)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("n + n", "Int64"),
        ("u + 1", "UInt64"),
        ("u + v", "UInt64"),
        ("a + x", "Float64"),
        ("y + y", "Float64"),
        ("a / n", "Float64"),
        ("m + m", "Decimal(5,2)"),
        ("m * m", "Decimal(8,4)"),
        ("m * n", "Decimal(14,2)"),
        ("m + x", "Float64"),
        ("round(m)", "Decimal(5,2)"),
        ("round(x, 2)", "Float64"),
        ("n > x", "Bool"),
        ("coalesce(n, 0)", "Int32"),
        ("coalesce(n, a)", "Int64"),
        ("coalesce(a, u)", "Decimal(20,0)"),
        ("case when p then 1 end", "Int64"),
        ("case when p then null else d end", "Date"),
        ("greatest(d, t)", "Timestamp(us)"),
        ("d == '2013-01-01'", "Bool"),
        ("null + a", "Int64"),
        ("a is null", "Bool"),
        ("null is null", "Bool"),
        ("length(s)", "Int64"),
        ("year(d)", "Int64"),
        ("a", "Int64"),
        ("l", "List(Int64)"),
        ("l is null", "Bool"),
    ],
)
def test_types(text: str, kind: str) -> None:
    assert str(infer(parse_expr(text), SCHEMA)) == kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a + s", ["takes numbers", "a (Int64)", "s (Utf8)"]),
        ("a == 'x'", ["do not compare", "a (Int64)", "'x' (Utf8)"]),
        ("s > 5", ["do not compare", "s (Utf8)", "5 (Int64)"]),
        ("p and a", ["expected Bool", "a (Int64)"]),
        ("not s", ["expected Bool", "s (Utf8)"]),
        ("s || a", ["expected Utf8", "a (Int64)"]),
        ("upper(a)", ["expected Utf8", "a (Int64)"]),
        ("x // 2", ["takes integers", "x (Float64)"]),
        ("u + a", ["no integer type holds both", "u (UInt64)"]),
        ("u + -1", ["no integer type holds both"]),
        ("-u", ["no negative", "u (UInt64)"]),
        ("t == z", ["do not compare", "z (Timestamp(ms,UTC))"]),
        ("hour(d)", ["takes a Timestamp", "d (Date)"]),
        ("is_nan(a)", ["takes a float", "a (Int64)"]),
        ("case when a then 1 end", ["expected Bool", "a (Int64)"]),
        ("case when p then 1 else 'x' end", ["do not compare"]),
        ("d == 'soon'", ["'soon' is not a value of type Date"]),
    ],
)
def test_operands_that_do_not_go_together_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(TypeMismatch) as caught:
        infer(parse_expr(text), SCHEMA)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cast(x as Utf8)", "Float64 to Utf8"),
        ("cast(l as Utf8)", "List"),
        ("contains(s, s)", "not a constant"),
        ("substr(s, a)", "not a constant"),
        ("l == l", "comparing List"),
        ("round(a, -1)", "-1 digits"),
    ],
)
def test_expressions_that_no_engine_supports_are_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        infer(parse_expr(text), SCHEMA)


def test_an_unknown_column_suggests_the_nearest() -> None:
    with pytest.raises(UnknownColumn) as caught:
        infer(parse_expr("carrrier == 'AA'"), Schema.of(carrier="Utf8"))
    assert caught.value.suggestion == "carrier"


def test_aggregates_have_no_place_in_a_row() -> None:
    with pytest.raises(UsageError, match="aggregate"):
        infer(col("a").sum() + 1, SCHEMA)


def test_a_lone_null_needs_a_type() -> None:
    with pytest.raises(UsageError, match="is unknown"):
        infer(lit(None), SCHEMA)


@pytest.mark.slow
def test_depth_is_bounded() -> None:
    deep = col("a")
    for _ in range(5000):
        deep = deep + 1  # type: ignore[assignment]  # an expression like any other
    with pytest.raises(UsageError, match="deeper than 100"):
        infer(deep, SCHEMA)
