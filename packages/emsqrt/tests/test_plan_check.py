"""Plans are typed whole before they run, and have known output columns."""

import pytest

from emsqrt.expr import TypeMismatch, avg, col, count, lit
from emsqrt.expr.nodes import Agg
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
    Scan,
    Sink,
    WithColumn,
    chain,
    check,
    explain,
    partial_schema,
)
from sennit_core.errors import UnknownColumn, Unsupported, UsageError
from sennit_core.schema import Schema

SCHEMA = Schema.of(
    carrier="Utf8", distance="Int32", delay="Float64", m="Decimal(9,2)", l="List(Int64)"
)
SCAN = Scan(Files(("flights.csv",), "csv"), SCHEMA)
BY_CARRIER = (("carrier", col("carrier")),)


def names(plan: Plan) -> dict[str, str]:
    return {field.name: str(field.type) for field in check(plan)}


def test_each_operator_reports_its_columns() -> None:
    assert names(Scan(Files(("a",), "csv"), SCHEMA, ("delay", "carrier"))) == {
        "delay": "Float64",
        "carrier": "Utf8",
    }
    assert names(Project(SCAN, (("km", col("distance") * 1.6),))) == {"km": "Float64"}
    assert list(names(Rename(SCAN, (("carrier", "distance"), ("distance", "carrier"))))) == [
        "distance",
        "carrier",
        "delay",
        "m",
        "l",
    ]
    added = WithColumn(SCAN, (("distance", lit("far")), ("n", col("distance") + 1)))
    assert list(names(added).items())[1] == ("distance", "Utf8")
    assert list(names(added).items())[-1] == ("n", "Int64")
    assert check(Sink(Limit(Filter(SCAN, col("delay") > 1), 1), FileTarget("o", "csv"))) == SCHEMA


def test_aggregates_derive_results_and_states() -> None:
    node = Aggregate(
        SCAN,
        BY_CARRIER,
        (
            ("n", count()),
            ("d", col("distance").sum()),
            ("a", avg("delay")),
            ("hi", col("m").max()),
            ("u", col("distance").count_distinct()),
            ("v", col("m").var()),
        ),
    )
    assert names(node) == {
        "carrier": "Utf8",
        "n": "Int64",
        "d": "Int64",
        "a": "Float64",
        "hi": "Decimal(9,2)",
        "u": "Int64",
        "v": "Float64",
    }
    assert {field.name: str(field.type) for field in partial_schema(node)} == {
        "carrier": "Utf8",
        "n$count": "Int64",
        "d$isum": "Decimal(38,0)",
        "a$fsum": "Binary",
        "a$count": "Int64",
        "hi$max": "Decimal(9,2)",
        "u$set": "List(Int32)",
        "v$fsum": "Binary",
        "v$fsum2": "Binary",
        "v$count": "Int64",
    }


def test_a_final_phase_is_typed_from_the_states_alone() -> None:
    aggs = (("d", col("distance").sum()), ("a", avg("m")))
    partial = Aggregate(SCAN, BY_CARRIER, aggs, "partial")
    merged = Scan(Files(("partials.arrow",), "arrow"), check(partial))
    assert check(Aggregate(merged, BY_CARRIER, aggs, "final")) == check(
        Aggregate(SCAN, BY_CARRIER, aggs)
    )


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (Filter(SCAN, col("distance")), TypeMismatch, "a filter needs Bool"),
        (Filter(SCAN, col("distanse") > 1), UnknownColumn, "distanse"),
        (Project(SCAN, (("a", col("m")), ("a", col("m")))), UsageError, 'called "a"'),
        (Rename(SCAN, (("m", "delay"),)), UsageError, 'called "delay"'),
        (Rename(SCAN, (("x", "y"),)), UnknownColumn, "x"),
        (WithColumn(SCAN, (("a", lit(1)), ("a", lit(2)))), UsageError, 'called "a"'),
        (Aggregate(SCAN, (), ()), UsageError, "makes no column"),
        (Aggregate(SCAN, (), (("a", col("carrier").sum()),)), TypeMismatch, "carrier"),
        (Aggregate(SCAN, (), (("a", col("l").max()),)), Unsupported, "no order"),
        (Aggregate(SCAN, (("l", col("l")),), ()), Unsupported, "grouping by l"),
        (Aggregate(SCAN, (), (("a", Agg("first", col("m"), True)),)), Unsupported, "distinct"),
        (Aggregate(SCAN, BY_CARRIER, (("carrier", count()),)), UsageError, "carrier"),
        (Aggregate(SCAN, (), (("a", col("m").sum()),), "final"), UsageError, "no state column"),
        (Limit(SCAN, -1), UsageError, "-1"),
        (Scan(DatasetRef("flights")), UsageError, "no schema yet"),
        (Scan(Files(("a",), "csv"), SCHEMA, ("nope",)), UnknownColumn, "nope"),
    ],
)
def test_invalid_plans_are_refused(plan: Plan, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(plan)


def test_plans_compare_and_hash_by_their_text() -> None:
    same = Filter(Scan(Files(("flights.csv",), "csv"), SCHEMA), col("delay") > 1)
    assert {Filter(SCAN, col("delay") > 1): "x"}[same] == "x"
    assert same != Filter(SCAN, col("delay") > 2)


def test_a_plan_explains_itself() -> None:
    node = Aggregate(Filter(SCAN, col("delay") > 1), BY_CARRIER, (("n", count()),))
    assert explain(Limit(node, 3)).splitlines() == [
        "limit 3",
        "  aggregate count(*) as n by carrier",
        "    filter delay > 1",
        "      scan csv flights.csv",
    ]
    assert [type(each).__name__ for each in chain(node)] == ["Scan", "Filter", "Aggregate"]
