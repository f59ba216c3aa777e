"""Estimate the share of rows that a predicate keeps, from column statistics (Selinger, 1979)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from emsqrt.expr import Call, Column, Expr, Literal
from emsqrt.planner.statistics import ColumnStats

# Selinger et al. use 1/3 for an open range and 1/10 for an equality without statistics, too.
UNKNOWN = 1 / 3
EQUAL = 0.1
FEW = 3
"""With fewer bounds than this, half a part is no useful estimate."""
_FLIPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def selectivity(predicate: Expr, columns: Mapping[str, ColumnStats]) -> float:
    """Return the share of rows, 0 to 1, for which `predicate` is likely true."""
    match predicate:
        case Literal(value=value):
            return 1.0 if value is True else 0.0
        case Call("and", args):
            # Terms are assumed to be independent.
            return _product([selectivity(arg, columns) for arg in args])
        case Call("or", args):
            return 1 - _product([1 - selectivity(arg, columns) for arg in args])
        case Call("not", (Call("is_null", (arg,)),)):
            return 1 - _nulls(arg, columns)
        case Call("not", (arg,)):
            return max(0.0, 1 - selectivity(arg, columns))
        case Call("is_null", (arg,)):
            return _nulls(arg, columns)
        case Call("between", (arg, low, high)):
            above = selectivity(Call("ge", (arg, low)), columns)
            # P(low ≤ x and x ≤ high) = P(x ≥ low) + P(x ≤ high) - 1, as every value fulfils at
            # least one.
            return max(0.0, above + selectivity(Call("le", (arg, high)), columns) - 1) or EQUAL
        case Call("is_in", (arg, *values)):
            each = (selectivity(Call("eq", (arg, value)), columns) for value in values)
            return min(1.0, sum(each))
        case Call(fn, (left, right)) if fn in _FLIPPED:
            return _comparison(fn, left, right, columns)
    return UNKNOWN


def fixed_columns(predicate: Expr) -> frozenset[str]:
    """Return the columns that have a single value in the rows that `predicate` keeps."""
    match predicate:
        case Call("and", args):
            return frozenset[str]().union(*map(fixed_columns, args))
        case Call("eq", (Column(name), Literal())) | Call("eq", (Literal(), Column(name))):
            return frozenset({name})
    return frozenset()


def _comparison(fn: str, left: Expr, right: Expr, columns: Mapping[str, ColumnStats]) -> float:
    match left, right:
        case Column(name), Literal(value=value):
            return _against(fn, columns.get(name), value)
        case Literal(value=value), Column(name):
            return _against(_FLIPPED[fn], columns.get(name), value)
        case Column(one), Column(other) if fn in ("eq", "ne"):
            known = [columns[name].distinct for name in (one, other) if name in columns]
            # Of two columns, each value of the one with fewer values is assumed to be among the
            # other's.
            most = max((count for count in known if count), default=1 / EQUAL)
            return 1 / max(1.0, most) if fn == "eq" else 1 - 1 / max(1.0, most)
    return EQUAL if fn == "eq" else 1 - EQUAL if fn == "ne" else UNKNOWN


def _against(fn: str, stats: ColumnStats | None, value: Any) -> float:
    if value is None:
        return 0.0
    if stats is None:
        return EQUAL if fn == "eq" else 1 - EQUAL if fn == "ne" else UNKNOWN
    present = 1 - stats.nulls
    if fn in ("eq", "ne"):
        equal = _equal(stats, value)
        return present * (equal if fn == "eq" else 1 - equal)
    below = _share_below(stats, value, inclusive=fn in ("le", "gt"))
    if below is None:
        return present * UNKNOWN
    return present * (below if fn in ("lt", "le") else 1 - below)


def _equal(stats: ColumnStats, value: Any) -> float:
    try:
        # Outside of the extremes: nothing is equal.
        if stats.minimum is not None and not stats.minimum <= value <= stats.maximum:
            return 0.0
        # A frequent value is the bound of more than one part.
        parts = stats.histogram.count(value) - 1
    except TypeError:
        return EQUAL
    # Each part has the same number of values, so a value that fills `parts` of them has that share.
    often = parts / (len(stats.histogram) - 1) if parts > 0 else 0.0
    return max(often, EQUAL if not stats.distinct else 1 / max(1.0, stats.distinct))


def _share_below(stats: ColumnStats, value: Any, *, inclusive: bool) -> float | None:
    """Return the share of values below `value`, by the histogram or by linear interpolation."""
    bounds = stats.histogram or (stats.minimum, stats.maximum)
    if bounds[0] is None or bounds[-1] is None:
        return None
    try:
        above = (bisect_right if inclusive else bisect_left)(bounds, value)
    except TypeError:
        return None
    if above == 0:
        return 0.0
    if above == len(bounds):
        return 1.0
    inside = _between(bounds[above - 1], bounds[above], value)
    if inside is None:
        return None if len(bounds) < FEW else (above - 0.5) / (len(bounds) - 1)
    return (above - 1 + inside) / (len(bounds) - 1)


def _between(low: Any, high: Any, value: Any) -> float | None:
    """Return the position of a value between `low` and `high`, None if these are no numbers."""
    if value in (low, high):
        return float(value == high)
    start, end, at = map(_number, (low, high, value))
    if start is None or end is None or at is None:
        return None
    return (at - start) / (end - start) if end > start else 0.5


def _number(value: Any) -> float | None:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, date):
        return float(value.toordinal())
    try:
        return None if value is None or isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        return None


def _nulls(arg: Expr, columns: Mapping[str, ColumnStats]) -> float:
    stats = columns.get(arg.name) if isinstance(arg, Column) else None
    return EQUAL if stats is None else stats.nulls


def _product(shares: list[float]) -> float:
    result = 1.0
    for share in shares:
        result *= min(1.0, max(0.0, share))
    return result
