"""Plans as JSON: one text each, strict reading, and a schema that agrees."""

import json
from decimal import Decimal
from importlib.resources import files
from typing import Any, TypeAlias

import jsonschema
import pytest

from emsqrt.expr import BadPlan, Expr, coalesce, col, count, lit, when
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Files,
    FileTarget,
    Filter,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sink,
    StreamTarget,
    WithColumn,
    canonical_plan,
    plan_from_json,
    plan_hash,
    plan_to_json,
)
from emsqrt.plan.reading import RESERVED_OPERATORS
from sennit_core.errors import TooLarge, Unsupported
from sennit_core.schema import Schema

Json = dict[str, Any]
Validator: TypeAlias = jsonschema.Draft202012Validator
SCHEMA = Schema.of(carrier="Utf8", distance="Int64", price="Decimal(10,2)", at="Timestamp(us,UTC)")
SCAN = Scan(Files(("a.csv", "b.csv"), "csv", {"delimiter": ";"}), SCHEMA, ("carrier", "distance"))
FAR = Filter(SCAN, (col("distance") > 1000) & col("carrier").is_in(["AA", None]))

PLANS: list[Plan] = [
    SCAN,
    Scan(DatasetRef("flights")),
    Scan(DatasetRef("flights", "01abc")),
    Scan(DatasetRef("flights", version=3)),
    Scan(DatasetRef("flights", version="before the fix")),
    Scan(DatasetRef("flights", timestamp="2026-01-01T00:00:00")),
    FAR,
    Project(SCAN, (("km", (col("distance") * 1.609344).round(1)), ("c", col("carrier")))),
    Rename(SCAN, (("carrier", "line"),)),
    WithColumn(SCAN, (("far", when(col("distance") > 5).then("y").otherwise(None)),)),
    Aggregate(FAR, (("carrier", col("carrier")),), (("n", count()), ("d", col("distance").sum()))),
    Aggregate(SCAN, (), (("u", col("carrier").count_distinct()),), "partial"),
    Limit(SCAN, 10),
    Limit(SCAN, 10, 5),
    Sample(SCAN, count=7, seed=3, first_row=9, phase="partial"),
    Sample(SCAN, count=7, phase="final"),
    Sink(FAR, FileTarget("out.parquet", "parquet")),
    Sink(SCAN, StreamTarget("json")),
    Filter(SCAN, coalesce(col("carrier").try_cast("Int64"), lit(-1)) == lit(Decimal("1.50"))),
]


@pytest.fixture(scope="module")
def validator() -> Validator:
    schema = json.loads(files("emsqrt.plan").joinpath("schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: type(plan).__name__)
def test_a_plan_reads_back_equal_with_the_same_hash(plan: Plan) -> None:
    text = canonical_plan(plan)
    again = plan_from_json(text)
    assert again == plan
    assert plan_hash(again) == plan_hash(plan)
    assert canonical_plan(plan_from_json(json.loads(text))) == text


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: type(plan).__name__)
def test_the_schema_accepts_every_plan(plan: Plan, validator: Validator) -> None:
    validator.validate(plan_to_json(plan))


def test_the_text_of_a_plan_never_changes() -> None:
    text = canonical_plan(Limit(Filter(Scan(Files(("a.csv",), "csv")), col("é") >= 0.1), 3))
    assert text.decode() == (
        '{"count":3,"input":{"input":{"op":"scan","source":{"files":["a.csv"],"format":"csv"}},'
        '"op":"filter","predicate":{"args":[{"col":"é"},'
        '{"lit":"0x1.999999999999ap-4","type":"Float64"}],"fn":"ge"}},"op":"limit","v":1}'
    )
    assert plan_hash(plan_from_json(text)) == (
        "4e90ee7cdcd966a4e53e26128c5b17f3693e6070886bc5ae3eef33c7e3f25631"
    )


def test_explicit_defaults_are_left_out_of_the_text() -> None:
    spoken = {
        "v": 1,
        "op": "limit",
        "count": 1,
        "offset": 0,
        "input": {"op": "scan", "source": {"dataset": "d", "snapshot": None}, "columns": None},
    }
    assert plan_to_json(plan_from_json(spoken)) == {
        "v": 1,
        "op": "limit",
        "count": 1,
        "input": {"op": "scan", "source": {"dataset": "d"}},
    }


SOURCE: Json = {"op": "scan", "source": {"dataset": "d"}}
EXPR: Json = {"col": "a"}


def filtered(predicate: object) -> Json:
    return {"v": 1, "op": "filter", "input": SOURCE, "predicate": predicate}


@pytest.mark.parametrize(
    ("document", "pointer", "reason"),
    [
        ([], "", "version"),
        ({"op": "scan"}, "", "version"),
        ({"v": 1, "op": "scan"}, "", "source"),
        ({"v": 1}, "", "op"),
        ({"v": 1, "op": "filtre", "input": SOURCE}, "/op", "filtre"),
        ({"v": 1, "op": "limit", "count": 1}, "", "input"),
        ({"v": 1, "op": "limit", "count": -1, "input": SOURCE}, "/count", "between"),
        ({"v": 1, "op": "limit", "count": True, "input": SOURCE}, "/count", "whole number"),
        ({"v": 1, "op": "limit", "count": 1, "input": {**SOURCE, "v": 1}}, "/input", "'v'"),
        ({"v": 1, "op": "limit", "count": 1, "input": 5}, "/input", "object"),
        (filtered({**EXPR, "lit": None}), "/predicate", "exactly one"),
        (filtered({"col": 5}), "/predicate/col", "string"),
        (filtered({"fn": "eq", "args": [EXPR, {"lit": 5}]}), "/predicate/args/1", "type"),
        (filtered({"fn": "eq", "args": [EXPR]}), "/predicate/args", "2 argument"),
        (filtered({"fn": "eqq", "args": [EXPR]}), "/predicate/fn", "eqq"),
        (filtered({"lit": "007", "type": "Int64"}), "/predicate/lit", "the canonical Int64"),
        (filtered({"lit": "1.5", "type": "Float64"}), "/predicate/lit", "the canonical Float64"),
        (filtered({"lit": "999", "type": "Int8"}), "/predicate/lit", "Int8"),
        (filtered({"lit": "x", "type": "Decimal(3, 1)"}), "/predicate/type", "canonical"),
        (filtered({"lit": "x", "type": "Int46"}), "/predicate/type", "Int46"),
        (filtered({"lit": 1.5, "type": "Float64"}), "/predicate/lit", "floats are written"),
        (filtered({"agg": "sum"}), "/predicate", "arg"),
        (filtered({"case": []}), "/predicate/case", "at least 1"),
        (filtered({"col": "a\ud800"}), "/predicate/col", "surrogate"),
    ],
)
def test_errors_are_reported_with_their_position(document: Any, pointer: str, reason: str) -> None:
    with pytest.raises(BadPlan) as caught:
        plan_from_json(document)
    assert caught.value.pointer == pointer
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", RESERVED_OPERATORS)
def test_reserved_operators_are_refused_by_name(name: str) -> None:
    with pytest.raises(Unsupported, match=f"operator {name} "):
        plan_from_json({"v": 1, "op": name, "input": SOURCE})


def test_reserved_functions_and_later_versions_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="mode"):
        plan_from_json(filtered({"agg": "mode", "arg": EXPR}))
    with pytest.raises(Unsupported, match="version 2"):
        plan_from_json({**SOURCE, "v": 2})


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"v":1,"v":1}', '{"v":NaN}', b"\xff", '{"v":' + "1" * 5000 + "}", "[" * 100_000],
    ids=range(7),
)
def test_text_that_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadPlan):
        plan_from_json(text)


def test_bounds_hold_for_size_depth_and_length() -> None:
    with pytest.raises(TooLarge):
        plan_from_json(" " * (5 << 20))
    deep = EXPR
    for _ in range(101):
        deep = {"fn": "not", "args": [deep]}
    with pytest.raises(BadPlan, match="deeper than 100"):
        plan_from_json(filtered(deep))
    long = SOURCE
    for _ in range(120):
        long = {"op": "limit", "count": 1, "input": long}
    with pytest.raises(BadPlan, match="100 operators"):
        plan_from_json({**long, "v": 1})


def test_a_plan_too_deep_to_read_is_not_written() -> None:
    deep: Expr = col("a")
    for _ in range(101):
        deep = ~deep
    with pytest.raises(BadPlan, match="deeper than 100"):
        plan_to_json(Filter(SCAN, deep))


def test_the_schema_refuses_what_the_reader_refuses(validator: Validator) -> None:
    for document in ({"v": 1, "op": "limit", "input": SOURCE}, filtered({"agg": "sum"}), SOURCE):
        assert not validator.is_valid(document)


def test_the_schema_names_every_reserved_word() -> None:
    schema = json.loads(files("emsqrt.plan").joinpath("schema.json").read_text("utf-8"))
    assert schema["$defs"]["reserved"]["properties"]["op"]["enum"] == list(RESERVED_OPERATORS)
