"""Operators that order, join, unite and look around: their columns, their text, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from emsqrt.expr import TypeMismatch, col
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import (
    Custom,
    Join,
    Plan,
    SortKey,
    Union,
    WindowCall,
    canonical_plan,
    chain,
    check,
    explain,
    inputs_of,
    join_key_types,
    plan_from_json,
    plan_hash,
    sort_key,
    walk,
    window_call,
    with_inputs,
)
from emsqrt.plan.expectations import rows_hold, spell_rows
from sennit_core.errors import UnknownColumn, Unsupported, UsageError
from sennit_core.schema import Schema

A = scan("a.csv", schema=Schema.of(a="Int32", b="Utf8", l="List(Int64)"))
B = scan("b.csv", schema=Schema.of(a="Int64", b="Utf8", d="Float64"))


def names(pipeline: Pipeline) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in check(pipeline.plan))


@pytest.mark.parametrize(
    ("pipeline", "columns"),
    [
        (A.sort("a:desc", "b"), "a Int32, b Utf8, l List(Int64)"),
        (A.join(B, "a"), "a Int32, b Utf8, l List(Int64), b_right Utf8, d Float64"),
        (A.join(B, "a", "full"), "a Int64, b Utf8, l List(Int64), b_right Utf8, d Float64"),
        (A.join(B, "a", "left", "_2"), "a Int32, b Utf8, l List(Int64), b_2 Utf8, d Float64"),
        (A.join(B, "a", "semi"), "a Int32, b Utf8, l List(Int64)"),
        (
            A.join(B, {"b": "b"}),
            "a Int32, b Utf8, l List(Int64), a_right Int64, d Float64",
        ),
        (A.select("a", "b").union(B.select("a", "b")), "a Int64, b Utf8"),
        (A.select("a").union(B.select("d", "a"), by_name=True), "a Int64, d Float64"),
        (A.explode("l", "i", position="n"), "a Int32, b Utf8, i Int64, n Int64"),
        (
            B.window("b", "d", r="rank()", s="sum(a)", p="lag(d)", q="ntile(4)", f="avg(a)"),
            "a Int64, b Utf8, d Float64, r Int64, s Int64, p Float64, q Int64, f Float64",
        ),
        (B.expect(unique="a", rows=">0").sample(0.5), "a Int64, b Utf8, d Float64"),
    ],
)
def test_each_operator_reports_its_columns(pipeline: Pipeline, columns: str) -> None:
    assert names(pipeline) == columns


@pytest.mark.parametrize(
    ("pipeline", "error", "words"),
    [
        (A.sort("l"), Unsupported, "sorting by l"),
        (A.sort(), UsageError, "at least one key"),
        (A.top_k(-1, "a"), UsageError, "-1"),
        (A.distinct(), Unsupported, "distinct by l"),
        (A.join(B, "c"), UnknownColumn, "c"),
        (A.join(B), UsageError, "has no keys"),
        (A.join(B, "a", "cross"), UsageError, "no keys"),
        (A.join(B, "a", "outer"), UsageError, "outer"),  # type: ignore[arg-type]
        (A.join(B, {"a": "b"}), TypeMismatch, "compares a"),
        (A.join(B, {"a": "d"}), TypeMismatch, "Float64"),
        (A.join(B, "a", suffix=""), UsageError, 'called "b"'),
        (A.union(B.select("a")), UsageError, "equally many columns"),
        (A.select("b").union(B.select("a")), TypeMismatch, "one type for b"),
        (A.explode("a"), TypeMismatch, "needs a List"),
        (A.sample(), UsageError, "either"),
        (A.sample(1.5), UsageError, "1.5"),
        (A.expect(), UsageError, "expects nothing"),
        (A.expect(rows="many"), UsageError, "many"),
        (A.window("a", n=WindowCall("lag")), UsageError, "needs an argument"),
        (A.window("a", n=WindowCall("rank", col("a"))), UsageError, "no argument"),
        (A.window("a", n="ntile()"), UsageError, "1 constant"),
        (A.window("a", "b", n="sum(a) range between 2 preceding and current row"), Unsupported, "b"),
        (A.window("a", "a", n="sum(a) rows between 2 following and 1 following"), UsageError, "ends"),
        (B.window("b", n="lag(a, 1, 'x')"), TypeMismatch, "Int64"),
        (A.window("a"), UsageError, "adds no column"),
    ],
)  # fmt: skip
def test_invalid_plans_are_refused(pipeline: Pipeline, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(pipeline.plan)


TREES: list[Plan] = [
    A.sort("a:desc:nulls_first", col("a") * 2).top_k(3, "b", offset=1).plan,
    A.distinct("a").distinct().plan,
    A.join(B, [("a", "a"), ("b", "b")], "anti", "_x").join(B, how="cross").plan,
    A.union(A.union(A, by_name=True), A).plan,
    B.window(["a", col("b")], ["d:desc"], n="row_number()", k="lead(a, 2, 0)").plan,
    B.window((), "a", s="sum(d) range between 5 preceding and 1 following", c="count(*)").plan,
    A.explode("l").plan,
    A.explode("l", "i", outer=True, position="n").sample(0.25, seed=7).sample(count=9).plan,
    A.expect(unique="a", not_null=["a", "b"], rows=">=10").plan,
    Custom((A.plan, B.plan), "zip", {"by": 2}, Schema.of(x="Int64")),
]


@pytest.mark.sample(2)
@pytest.mark.parametrize("plan", TREES, ids=lambda plan: type(plan).__name__)
def test_a_tree_reads_back_equal_with_the_same_text(plan: Plan, validator: Any) -> None:
    text = canonical_plan(plan)
    again = plan_from_json(text)
    assert again == plan
    assert canonical_plan(again) == text
    assert explain(again) == explain(plan)
    validator(text)


@pytest.fixture(scope="module")
def validator() -> Any:
    import json
    from importlib.resources import files

    import jsonschema

    schema = json.loads(files("emsqrt.plan").joinpath("schema.json").read_text("utf-8"))
    checker = jsonschema.Draft202012Validator(schema)
    return lambda text: checker.validate(json.loads(text))


def test_the_text_of_a_tree_never_changes() -> None:
    a, b = scan("a.csv"), scan("b.csv")
    plan = a.join(b, "id", "left").sort("x:desc").window("x", n="row_number()").plan
    assert canonical_plan(plan).decode() == (
        '{"functions":[{"call":{"window":"row_number"},"name":"n"}],"input":{"input":{"how":"left",'
        '"left":{"op":"scan","source":{"files":["a.csv"],"format":"csv"}},"on":[{"left":"id",'
        '"right":"id"}],"op":"join","right":{"op":"scan","source":{"files":["b.csv"],'
        '"format":"csv"}}},"keys":[{"descending":true,"expr":{"col":"x"}}],"op":"sort"},'
        '"op":"window","partitionBy":[{"col":"x"}],"v":1}'
    )
    assert len(plan_hash(plan)) == 64


def test_a_hint_for_the_reader_cannot_be_submitted() -> None:
    with pytest.raises(UsageError, match="predicate"):
        plan_from_json(
            {"v": 1, "op": "scan", "source": {"dataset": "d"}, "predicate": {"col": "a"}}
        )


def test_a_wide_plan_has_as_many_operators_as_a_long_one() -> None:
    wide = Union(tuple(A.plan for _ in range(99)))
    assert plan_from_json(canonical_plan(wide)) == wide
    with pytest.raises(UsageError, match="100 operators"):
        canonical_plan(Union(tuple(A.plan for _ in range(100))))


def test_trees_are_walked_from_the_scans_up() -> None:
    plan = A.join(B.sort("a"), "a").plan
    assert [type(node).__name__ for node in walk(plan)] == ["Scan", "Scan", "Sort", "Join"]
    assert with_inputs(plan, inputs_of(plan)) is plan
    with pytest.raises(Unsupported, match="not a chain"):
        chain(plan)


def test_keys_of_a_join_are_compared_in_a_type_that_holds_both() -> None:
    plan = A.join(B, "a").plan
    assert isinstance(plan, Join)
    (kind,) = join_key_types(plan, check(A.plan), check(B.plan))
    assert str(kind) == "Int64"


def test_keys_and_windows_are_read_as_people_write_them() -> None:
    spoken = [
        sort_key(text) for text in ("a", "a:desc", "a:nulls_first:desc", "a desc nulls first")
    ]
    assert [(str(key.expr), key.descending, key.nulls_first) for key in spoken] == [
        ("a", False, False),
        ("a", True, False),
        ("a", True, True),
        ("a", True, True),
    ]
    assert isinstance(sort_key(col("a")), SortKey)
    framed = window_call("SUM(a + 1) ROWS BETWEEN 2 PRECEDING AND UNBOUNDED FOLLOWING".lower())
    assert (framed.fn, str(framed.arg)) == ("sum", "a + 1")
    assert str(framed.frame) == "rows between 2 preceding and unbounded following"
    lag = window_call("lag(a, 2, 0)")
    assert (lag.number, str(lag.default)) == (2, "0")
    with pytest.raises(UsageError, match="rnk"):
        window_call("rnk()")


def test_expected_numbers_of_rows() -> None:
    assert spell_rows(" = 7") == "==7"
    assert rows_hold(">0", 1)
    assert not rows_hold("!=2", 2)
