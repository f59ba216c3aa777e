"""`reduce` names what it recognises and refuses the rest."""

import operator
from typing import Any

import pytest

from elytra.reduction import recognise
from sennit_core.errors import Unsupported


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


@pytest.mark.parametrize(
    ("fold", "name"),
    [
        (lambda a, b: a + b, "sum"),
        (lambda a, b: b + a, "sum"),
        (operator.add, "sum"),
        (min, "min"),
        (max, "max"),
        (lambda a, b: min(b, a), "min"),
        (smaller, "min"),
        (larger_by_smaller, "max"),
        (larger, "max"),
    ],
)
def test_known_folds_are_recognised(fold: Any, name: Any) -> None:
    assert recognise(fold) == name


@pytest.mark.parametrize(
    ("fold", "seen"),
    [
        (lambda a, b: a * b, r"a \* b"),
        (lambda a, b: a - b, "a - b"),
        (lambda a, b: a + a, "a \\+ a"),
        (lambda a, b: a + 1, "a \\+ 1"),
        (lambda a, b: a, "not one of"),
        (lambda a, b: 7, "not one of"),
        (below_three, "a < 3"),
        (lambda a, b: a + b + 1, "cannot read|cannot run"),
        (lambda a: a, "cannot read"),
        (lambda a, b: a.price, "price"),
    ],
)
def test_other_folds_are_refused_by_name(fold: Any, seen: Any) -> None:
    with pytest.raises(Unsupported, match=seen) as caught:
        recognise(fold)
    assert "agg" in (caught.value.hint or "")
