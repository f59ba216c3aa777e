"""Pruning: find blocks of rows in which no row can satisfy a predicate, by their statistics.

Only simple conditions are used: a column compared with a constant, combined by AND. Any other one
counts as "may match", because the filter above evaluates every row. Statistics are trusted only as
far as all writers agree on them: text bounds may be truncated, but enclose all values; float bounds
exclude NaN, which is the greatest value here, so a float's upper bound is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from emsqrt.expr import Column, Expr
from emsqrt.expr.nodes import Call, Literal

_MIRRORED: Final = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that every row of the result satisfies.

    Args:
        column: the column.
        test: "eq", "ne", "lt", "le", "gt", "ge", "is_in", "is_null" or "is_not_null".
        values: the constants to compare with; none for the NULL tests.
    """

    column: str
    test: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """Statistics of one column's values in a block.

    Args:
        low: no value is smaller; None if unknown.
        high: no value except NaN is greater; None if unknown.
        null_count: the number of NULLs; None if unknown.
        row_count: the rows of the block.
    """

    low: Any
    high: Any
    null_count: int | None
    row_count: int


def conditions_of(predicate: Expr | None) -> tuple[Condition, ...]:
    """Return the simple conditions of a predicate that are combined by AND."""
    return () if predicate is None else tuple(_conditions(predicate))


def may_match(conditions: Sequence[Condition], facts: Mapping[str, ColumnFacts]) -> bool:
    """Return whether a block with these statistics may have a row that satisfies all conditions."""
    return all(
        _may_hold(condition, facts[condition.column])
        for condition in conditions
        if condition.column in facts
    )


def _conditions(expr: Expr) -> Iterator[Condition]:
    if not isinstance(expr, Call):
        return
    if expr.fn == "and":
        for part in expr.args:
            yield from _conditions(part)
    elif expr.fn == "between" and isinstance(expr.args[0], Column):
        yield from _comparison("ge", expr.args[0], expr.args[1])
        yield from _comparison("le", expr.args[0], expr.args[2])
    elif expr.fn in _MIRRORED:
        left, right = expr.args
        yield from _comparison(expr.fn, left, right)
        yield from _comparison(_MIRRORED[expr.fn], right, left)
    elif expr.fn == "is_in":
        yield from _membership(expr)
    else:
        yield from _null_test(expr)


def _comparison(test: str, left: Expr, right: Expr) -> Iterator[Condition]:
    if isinstance(left, Column) and isinstance(right, Literal) and right.value is not None:
        yield Condition(left.name, test, (right.value,))


def _membership(expr: Call) -> Iterator[Condition]:
    column, *items = expr.args
    if isinstance(column, Column) and all(isinstance(item, Literal) for item in items):
        values = tuple(item.value for item in items if isinstance(item, Literal))
        yield Condition(column.name, "is_in", tuple(v for v in values if v is not None))


def _null_test(expr: Call) -> Iterator[Condition]:
    negated = expr.fn == "not"
    inner = expr.args[0] if negated and expr.args else expr
    if isinstance(inner, Call) and inner.fn == "is_null" and isinstance(inner.args[0], Column):
        yield Condition(inner.args[0].name, "is_not_null" if negated else "is_null")


def _may_hold(condition: Condition, facts: ColumnFacts) -> bool:
    if condition.test == "is_null":
        return facts.null_count != 0
    if facts.null_count is not None and facts.null_count == facts.row_count:
        return False  # NULL satisfies no comparison
    if condition.test == "is_not_null":
        return True
    try:
        return any(_TESTS[condition.test](value, facts) for value in condition.values)
    except TypeError:  # bounds and constant are of different kinds; the filter decides
        return True


def _may_equal(value: Any, facts: ColumnFacts) -> bool:
    if _is_nan(value):
        return True
    return not _above(facts.low, value) and not _above(value, facts.high)


def _may_differ(value: Any, facts: ColumnFacts) -> bool:
    if isinstance(facts.low, float) or _is_nan(value):
        return True
    return facts.low is None or not facts.low == facts.high == value


def _may_be_less(value: Any, facts: ColumnFacts) -> bool:
    return _is_nan(value) or facts.low is None or _is_greater(value, facts.low)


def _may_be_at_most(value: Any, facts: ColumnFacts) -> bool:
    return _is_nan(value) or not _above(facts.low, value)


def _may_be_greater(value: Any, facts: ColumnFacts) -> bool:
    if isinstance(facts.high, float) or facts.high is None:
        return True
    return _is_greater(facts.high, value)


def _may_be_at_least(value: Any, facts: ColumnFacts) -> bool:
    return isinstance(facts.high, float) or not _above(value, facts.high)


def _above(low: Any, high: Any) -> bool:
    return low is not None and high is not None and _is_greater(low, high)


def _is_greater(one: Any, other: Any) -> bool:
    """Compare as expressions do: a number compared with a float is first rounded to a float."""
    if isinstance(one, float) and isinstance(other, int | Decimal):
        other = float(other)
    elif isinstance(other, float) and isinstance(one, int | Decimal):
        one = float(one)
    return bool(one > other)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


_TESTS: dict[str, Callable[[Any, ColumnFacts], bool]] = {
    "eq": _may_equal,
    "ne": _may_differ,
    "is_in": _may_equal,
    "lt": _may_be_less,
    "le": _may_be_at_most,
    "gt": _may_be_greater,
    "ge": _may_be_at_least,
}
