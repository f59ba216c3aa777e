"""Expectations of all rows together: by shards they fail exactly where one task fails."""

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from elytra.pipelines.pipeline import Pipeline
from elytra.splitter import Rules, Split, Whole, split
from elytra.testing.pipeline_runs import (
    SCHEMA,
    Rows,
    Schemas,
    batch_of,
    bits,
    distributed,
    random_rows,
    run,
)
from emsqrt.errors import ExpectationFailed

ABOVE: list[Callable[[Pipeline], Pipeline]] = [
    lambda rows: rows,
    lambda rows: rows.filter("i > 0").select("i"),
    lambda rows: rows.group_by("k").agg(n="count()", one="first(i)"),
    lambda rows: rows.agg(n="count()", most="max(f)"),
    lambda rows: rows.sort("i:desc").limit(3),
    lambda rows: rows.distinct("k"),
]


def result(answer: Callable[[], pa.Table]) -> list[list[Any]] | None:
    """Return the bits of an answer; None if an expectation failed."""
    try:
        return bits(answer())
    except ExpectationFailed:
        return None


def compare(seed: int, above: Callable[[Pipeline], Pipeline]) -> bool:
    """Compare an expectation at a cut with one task; return whether it holds."""
    dice = random.Random(seed)
    table: Rows = list(dict.fromkeys(random_rows(dice)))
    table += dice.choices(table, k=dice.randint(0, 1)) if table else []
    dice.shuffle(table)
    expectation: dict[str, Any] = dice.choice(
        ({"unique": ["k", "i", "f"]}, {"unique": "i"}, {"rows": ">=9"})
    )
    if dice.random() < 0.5:
        expectation = {"unique": ["k", "i", "f"], "rows": dice.choice((">9", "<=20"))}
    pipeline = above(Pipeline.over(Schemas(), "t").expect(**expectation))
    whole, cut = split(pipeline.plan, SCHEMA, whole=True), split(pipeline.plan, SCHEMA)
    assert isinstance(whole, Whole)
    wanted = result(lambda: run(whole.plan, {"t": [batch_of(table)]}))
    if isinstance(cut, Split):
        places = [dice.randint(0, 40) for _ in range(dice.randint(0, 4))]
        found = result(lambda: distributed(pipeline, table, places, rules=Rules()))
        assert found == wanted, (seed, places)
    else:
        assert "unique" not in expectation
    return wanted is not None


@pytest.mark.parametrize("above", ABOVE)
def test_an_expectation_holds_for_all_shards_together(
    above: Callable[[Pipeline], Pipeline],
) -> None:
    for seed in range(2):
        compare(seed, above)


@pytest.mark.nightly
def test_many_expectations_hold_for_all_shards_together() -> None:
    held = {compare(seed, ABOVE[seed % len(ABOVE)]) for seed in range(600)}

    assert held == {True, False}


def test_rows_of_two_shards_that_agree_are_named_by_the_columns() -> None:
    pipeline = Pipeline.over(Schemas(), "t").expect(unique=["k", "i"]).agg(n="count()")
    table: Rows = [("a", 1, 0.5), ("b", 1, 0.5), ("a", 1, 0.7)]

    with pytest.raises(ExpectationFailed, match=r"unique\(k, i\).*'a', 1.*2 times"):
        distributed(pipeline, table, [2])


@pytest.mark.parametrize("limited", [True, False])
def test_what_an_expectation_cannot_see_of_all_rows_is_one_task(limited: bool) -> None:
    rows = Pipeline.over(Schemas(), "t")
    pipeline = rows.expect(unique="k").limit(3) if limited else rows.expect(rows=">0")

    cut = split(pipeline.plan, SCHEMA)

    assert isinstance(cut, Whole)
    assert "expectation" in cut.because
