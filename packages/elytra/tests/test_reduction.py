"""`reduce` names the aggregate that a fold computes and refuses the rest."""

import operator
from typing import Any

import pytest

from elytra.pipelines.pipeline import Pipeline
from elytra.tracing.reduction import recognise
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema

ONE = Schema.of(v="Int64")
ROW = Schema.of(price="Float64", qty="Int64", name="Utf8")


def smaller(a: Any, b: Any) -> Any:
    if a < b:
        return a
    return b


def larger_by_smaller(a: Any, b: Any) -> Any:
    if a <= b:
        return b
    return a


def larger(a: Any, b: Any) -> Any:
    if b > a:
        return b
    return a


def below_three(a: Any, b: Any) -> Any:
    if a < 3:
        return a
    return b


def only_above(a: Any, b: Any) -> Any:
    if b > 3:
        return a + b
    return a


@pytest.mark.parametrize(
    ("fold", "name"),
    [
        (lambda a, b: a + b, "sum"),
        (lambda a, b: b + a, "sum"),
        (operator.add, "sum"),
        (min, "min"),
        (max, "max"),
        (lambda a, b: min(b, a), "min"),
        (lambda a, b: max(b, a), "max"),
        (smaller, "min"),
        (larger_by_smaller, "max"),
        (larger, "max"),
    ],
)
def test_known_folds_of_a_value_are_recognised(fold: Any, name: Any) -> None:
    found = recognise(fold, ONE, "value")
    assert found.name == name
    assert found.is_plain


@pytest.mark.parametrize(
    ("fold", "name", "term", "constant"),
    [
        (lambda total, r: total + r.price * r.qty, "sum", "price * qty", 0),
        (lambda total, r: total + r["qty"] - 2, "sum", "qty", -2),
        (lambda total, r: 1 + total - r.qty, "sum", "-qty", 1),
        (lambda total, r: total + r.qty + r.qty, "sum", "qty + qty", 0),
        (lambda n, _: n + 1, "sum", None, 1),
        (lambda best, r: max(best, r.price), "max", "price", 0),
        (lambda best, r: min(best, r.price), "min", "price", 0),
    ],
)
def test_folds_of_a_row_name_what_they_add(
    fold: Any, name: Any, term: str | None, constant: int
) -> None:
    found = recognise(fold, ROW, "row")
    assert found.name == name
    assert (None if found.term is None else found.term.text) == term
    assert found.constant == constant
    assert not found.is_plain


@pytest.mark.parametrize(
    ("fold", "seen"),
    [
        (lambda a, b: a * b, r"a \* v"),
        (lambda a, b: b * a, r"a \* v"),
        (operator.mul, r"a \* v"),
        (lambda a, b: b - a, "a - v"),
        (lambda a, b: a + a, "a \\+ a"),
        (lambda a, b: (a + b) / 2, "a \\+ v / 2"),
        (lambda a, b: a, "not one of"),
        (lambda a, b: b, "not one of"),
        (lambda a, b: 7, "not one of"),
        (lambda a, b: a and b, "a if"),
        (lambda a, b: max(a + b, b), "a \\+ v <"),
        (lambda a, b: max(a, b + 1) + 1, "cannot run|not one of"),
        (lambda a, b: min(a, b) if a < b else a, "more than one comparison"),
        (below_three, "a < 3"),
        (only_above, "truth value"),
        (lambda a, b: [*a, b], r"iter"),
        (lambda a, b: f"{a}{b}", "format"),
        (lambda a: a, "cannot be traced"),
        (lambda a, b: a.price, "cannot be traced.*price"),
    ],
)
def test_other_folds_are_refused_by_name(fold: Any, seen: str) -> None:
    with pytest.raises(Unsupported, match=seen) as caught:
        recognise(fold, ONE, "value")
    assert caught.value.hint


def test_texts_are_not_joined_in_the_order_that_shards_end() -> None:
    with pytest.raises(Unsupported, match="cannot run a \\+ v"):
        recognise(lambda a, b: a + b, Schema.of(v="Utf8"), "value")


@pytest.mark.parametrize("initial", ["x", None, 1.5, [0]])
def test_an_initial_value_of_another_type_is_refused(flights: Pipeline, initial: Any) -> None:
    with pytest.raises(UsageError, match="cannot be the initial value"):
        flights.map(lambda r: r.air_time).reduce(max, initial)


def test_a_column_in_the_place_of_the_initial_value_is_distinguished(flights: Pipeline) -> None:
    with pytest.raises(UsageError) as caught:
        flights.reduce(lambda a, b: a + b, "distance")
    assert "column='distance'" in (caught.value.hint or "")


def test_a_fold_of_rows_needs_an_initial_value(flights: Pipeline) -> None:
    with pytest.raises(UsageError, match="initial value"):
        flights.reduce(lambda total, r: total + r.distance)
    with pytest.raises(UsageError, match="initial value"):
        flights.map(lambda r: r.distance).reduce(lambda a, b: a + b * 2)
