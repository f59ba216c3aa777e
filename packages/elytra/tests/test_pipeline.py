"""A pipeline builds a plan lazily, and reports errors in it."""

from typing import Any

import pytest

from elytra.pipelines.pipeline import Pipeline
from emsqrt.expr import col, count
from emsqrt.plan import Aggregate, Filter, plan_hash
from sennit_core.errors import UnknownColumn, Unsupported, UsageError


def test_verbs_leave_their_pipeline_as_it_was(flights: Pipeline) -> None:
    before = plan_hash(flights.plan)
    flights.filter(col("distance") > 1).count()

    assert plan_hash(flights.plan) == before


def test_verbs_submit_nothing(flights: Pipeline, drawer: Any) -> None:
    grown = flights.filter(col("distance") > 1).group_by("carrier").agg(n=count()).sum("n")

    assert grown.explain()
    assert drawer.submitted == []


@pytest.mark.parametrize(
    "condition",
    [col("air_time") > 1000, "air_time > 1000", lambda r: r.air_time > 1000],
    ids=["expression", "text", "lambda"],
)
def test_a_condition_is_the_same_in_every_form(flights: Pipeline, condition: Any) -> None:
    expected = flights.filter(col("air_time") > 1000)

    assert plan_hash(flights.filter(condition).plan) == plan_hash(expected.plan)
    assert plan_hash(flights.where(condition).plan) == plan_hash(expected.plan)


def test_several_conditions_are_several_filters(flights: Pipeline) -> None:
    grown = flights.filter("distance > 1", "air_time > 1")

    assert isinstance(grown.plan, Filter)
    assert isinstance(grown.plan.input, Filter)


def test_the_schema_follows_the_verbs(flights: Pipeline) -> None:
    grown = flights.with_columns(km=col("distance") * 1.609).drop("origin", "distance")

    assert grown.schema.names == ("carrier", "air_time", "km")
    assert str(grown.count().schema) == "count: Int64"


def test_dropping_an_unknown_column_suggests_the_nearest(flights: Pipeline) -> None:
    with pytest.raises(UnknownColumn) as caught:
        flights.drop("orgin")
    assert caught.value.suggestion == "origin"


def test_map_names_its_columns(flights: Pipeline) -> None:
    assert flights.map(lambda r: r.distance * 2).schema.names == ("value",)
    assert flights.map(lambda r: r.distance).schema.names == ("distance",)
    assert flights.map({"a": "distance * 2", "b": col("carrier")}).schema.names == ("a", "b")


def test_python_decisions_inside_a_lambda_are_refused_with_a_hint(flights: Pipeline) -> None:
    with pytest.raises(UsageError, match="truth value") as caught:
        flights.filter(lambda r: r.distance > 1 and r.air_time > 1)
    assert "&" in (caught.value.hint or "")


def test_a_column_without_a_name_must_be_named(flights: Pipeline) -> None:
    with pytest.raises(UsageError, match="cannot name"):
        flights.select(col("distance") * 2)


def test_agg_wants_aggregates(flights: Pipeline) -> None:
    with pytest.raises(UsageError, match="not an aggregate"):
        flights.agg(total=col("distance"))


def test_an_aggregate_may_be_text(flights: Pipeline) -> None:
    texts = flights.group_by("carrier").agg(n="count()", far="max(distance)")
    built = flights.group_by("carrier").agg(n=count(), far=col("distance").max())

    assert plan_hash(texts.plan) == plan_hash(built.plan)


def test_grouping_without_aggregates_lists_the_groups(flights: Pipeline) -> None:
    assert flights.group_by("carrier").agg().schema.names == ("carrier",)


@pytest.mark.parametrize(
    ("verb", "fn"), [("sum", "sum"), ("min", "min"), ("max", "max"), ("mean", "avg")]
)
def test_folds_of_a_column_are_aggregates(flights: Pipeline, verb: Any, fn: Any) -> None:
    plan = getattr(flights, verb)("distance").plan

    assert isinstance(plan, Aggregate)
    assert plan.aggs[0][0] == verb
    assert plan.aggs[0][1].fn == fn


def test_the_only_column_needs_no_name(flights: Pipeline) -> None:
    one = flights.select("distance")

    assert plan_hash(one.sum().plan) == plan_hash(one.sum("distance").plan)
    with pytest.raises(UsageError, match="4 columns"):
        flights.max()


def test_reduce_of_a_column_is_an_aggregate(flights: Pipeline) -> None:
    folded = flights.reduce(lambda a, b: a + b, column="distance")

    assert folded.schema.names == ("sum",)
    assert flights.map(lambda r: r.air_time).reduce(max, 0).schema.names == ("max",)


def test_reduce_refuses_unknown_functions(flights: Pipeline) -> None:
    with pytest.raises(Unsupported, match=r"a \* distance"):
        flights.reduce(lambda a, b: a * b, column="distance")


def test_functions_get_the_result_of_the_map_before_them(flights: Pipeline) -> None:
    value = flights.map(lambda r: r.air_time).filter(lambda v: v > 60).sort("air_time")
    pair = flights.map(lambda r: (r.carrier, r.air_time)).map(lambda t: {"minutes": t[1] % 60})

    assert str(value.map(lambda v: v * 2).schema) == "value: Int64"
    assert pair.filter(lambda r: r.minutes > 1).schema.names == ("minutes",)
    with pytest.raises(Unsupported, match="one Int64"):
        value.filter(lambda r: r.air_time > 60)
    assert value.select("air_time").filter(lambda r: r.air_time > 60)


def test_limit_refuses_negative_numbers(flights: Pipeline) -> None:
    with pytest.raises(UsageError, match="negative"):
        flights.limit(-1)


def test_submit_passes_the_plan_on(flights: Pipeline, drawer: Any) -> None:
    grown = flights.count()
    grown.submit(engine="local", mem_cap="64MiB")

    plan, options = drawer.submitted[0]
    assert plan is grown.plan
    assert options == {"engine": "local", "memCap": "64MiB"}


@pytest.mark.parametrize(
    ("grow", "says"),
    [
        (
            lambda p: p.select("distance").filter("orgin = 'a'"),
            "step 2, filter orgin == 'a': there",
        ),
        (lambda p: p.filter("carrier > 5").count(), "step 1, filter carrier > 5: "),
        (lambda p: p.join(p.drop("origin"), "origin"), "step 2, "),
    ],
    ids=["column", "type", "join"],
)
def test_an_error_names_the_step(flights: Pipeline, grow: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        grow(flights).explain()
    assert str(caught.value).startswith(says)


def test_an_error_of_a_run_names_the_step(tmp_path: Any) -> None:
    from elytra import Elytra

    with Elytra.local("128MiB", tmp_path) as local, pytest.raises(UnknownColumn) as caught:
        local.dataset([{"a": 1}]).limit(5).filter("b > 1").collect()
    assert str(caught.value).startswith("step 2, filter b > 1: there is no column")
    assert caught.value.name == "b"
