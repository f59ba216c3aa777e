"""Constant folding: evaluate parts that no row can change once, with the same meaning.

Three invariants. Types do not change: a constant is not folded where its result would adopt a
neighbour's type that the expression did not have. Errors do not disappear: an expression without a
value is left for the run to report, and an operand that may fail is dropped only where the run
would not evaluate it either (`and`, `or` are evaluated from the left). NULL stays NULL: `x and
false` is false only if `x` cannot fail.
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Context, Decimal, Inexact
from typing import Any

from emsqrt.expr.check import bind
from emsqrt.expr.literals import integer_range, make_literal
from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr, Literal
from emsqrt.expr.typed import Typed
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

NOTHING = Schema(())
CHOOSING = ("coalesce", "greatest", "least", "nullif")
"""Functions whose result has the common type of their operands, so a constant's own type
matters."""
_EXACT = Context(prec=80, traps=[Inexact])


class _NoValueError(Exception):
    """The constant has no value, or is not evaluated here."""


def fold(expr: Expr) -> Expr:
    """Return `expr` with constant parts evaluated and logic simplified."""
    match expr:
        case Call(fn, args):
            folded: Expr = _logic(Call(fn, tuple(_below(fn, arg) for arg in args)))
        case Cast(arg):
            folded = replace(expr, arg=fold(arg))
        case Case(branches, default):
            pairs = tuple((fold(when), _below("case", then)) for when, then in branches)
            folded = Case(pairs, None if default is None else _below("case", default))
        case Agg(arg=arg) if arg is not None:
            return replace(expr, arg=fold(arg))
        case _:
            return expr
    return _constant(folded)


def _below(fn: str, arg: Expr) -> Expr:
    folded = fold(arg)
    flexible = isinstance(folded, Literal) and not isinstance(arg, Literal)
    if flexible and (fn == "case" or fn in CHOOSING):
        kind = folded.type if isinstance(folded, Literal) else None
        if kind is not None and (kind.is_integer or kind.name == "Utf8"):
            return arg
    return folded


# Logic ------------------------------------------------------------------------------------------


def _logic(expr: Call) -> Expr:
    if expr.fn == "not":
        (arg,) = expr.args
        if isinstance(arg, Call) and arg.fn == "not":
            return arg.args[0]
        return expr
    if expr.fn not in ("and", "or"):
        return expr
    decides = expr.fn == "or"
    kept: list[Expr] = []
    for arg in expr.args:
        value = arg.value if isinstance(arg, Literal) else None
        if value is (not decides):
            continue
        kept.append(arg)
        if value is decides:
            break
    if not kept:
        return make_literal(not decides, None)
    last = kept[-1]
    if isinstance(last, Literal) and last.value is decides and all(map(_cannot_fail, kept)):
        return last
    if len(kept) == 1 and not (isinstance(last, Literal) and last.value is None):
        return last
    return Call(expr.fn, tuple(kept)) if len(kept) > 1 else expr


def _cannot_fail(expr: Expr) -> bool:
    """Return whether `expr` cannot fail on any row, by its structure alone."""
    if isinstance(expr, Call):
        return expr.fn in ("and", "or", "not", "is_null") and all(map(_cannot_fail, expr.args))
    return isinstance(expr, Column | Literal)


# Constants --------------------------------------------------------------------------------------


def _constant(expr: Expr) -> Expr:
    """Return the literal value of `expr`, or `expr` itself if it is not folded."""
    if isinstance(expr, Literal) or not _is_constant(expr):
        return expr
    try:
        typed = bind(expr, NOTHING)
        return make_literal(_value(typed), typed.type)
    except (UsageError, _NoValueError, ArithmeticError, ValueError):
        return expr


def _is_constant(expr: Expr) -> bool:
    """Return whether the direct operands are constants; deeper ones were folded before."""
    match expr:
        case Call(args=args):
            return all(isinstance(arg, Literal) for arg in args)
        case Cast(arg=arg):
            return isinstance(arg, Literal)
        case Case(branches, default):
            parts = [part for branch in branches for part in branch]
            return all(isinstance(part, Literal) for part in parts) and isinstance(
                default, Literal | None
            )
    return False


def _value(typed: Typed) -> Any:
    """Return the Python value of a typed constant.

    Raises:
        _NoValueError: it has none, or it is not evaluated here.
    """
    if typed.op == "literal":
        return typed.value
    if typed.op == "case":
        return _case(typed)
    args = [_value(arg) for arg in typed.args]
    if typed.op in _TOLERANT:
        return _TOLERANT[typed.op](*args)
    if any(arg is None for arg in args):
        if typed.op in CHOOSING:  # these handle NULL themselves
            raise _NoValueError
        return None
    if typed.op not in _STRICT or any(isinstance(arg, float) and arg != arg for arg in args):
        raise _NoValueError
    return _fitted(_STRICT[typed.op](typed, *args), typed)


def _case(typed: Typed) -> Any:
    *pairs, default = typed.args
    for when, then in zip(pairs[::2], pairs[1::2], strict=True):
        if _value(when) is True:
            return _value(then)
    return _value(default)


def _fitted(value: Any, typed: Typed) -> Any:
    """Refuse a value that the type cannot hold; the run reports the error."""
    kind = typed.type
    if value is None:
        return None
    if kind.is_integer:
        low, high = integer_range(kind)
        if not low <= value <= high:
            raise _NoValueError
    if kind.name == "Decimal":
        exact = Decimal(value).quantize(Decimal(1).scaleb(-(kind.scale or 0)), context=_EXACT)
        if exact.copy_abs() >= Decimal(10) ** ((kind.precision or 0) - (kind.scale or 0)):
            raise _NoValueError
        return exact
    return value


def _and(*values: bool | None) -> bool | None:
    return False if False in values else None if None in values else True


def _or(*values: bool | None) -> bool | None:
    return True if True in values else None if None in values else False


def _in(value: Any, *others: Any) -> bool | None:
    if any(isinstance(each, float) for each in (value, *others)):
        raise _NoValueError
    same = [None if None in (value, other) else value == other for other in others]
    return _or(*same) if same else False


_TOLERANT: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "is_null": lambda value: value is None,
    "is_in": _in,
    "coalesce": lambda *values: next((each for each in values if each is not None), None),
}
"""Functions whose result may not be NULL when an operand is NULL."""


def _arithmetic(compute: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def worked(typed: Typed, left: Any, right: Any) -> Any:
        if typed.type.name == "Decimal":
            return compute(*(_Wide(side) for side in (left, right)))
        return compute(left, right)

    return worked


class _Wide(Decimal):
    """A decimal that computes in 80 digits."""

    def __add__(self, other: Any) -> Any:
        return _EXACT.add(Decimal(self), Decimal(other))

    def __sub__(self, other: Any) -> Any:
        return _EXACT.subtract(Decimal(self), Decimal(other))

    def __mul__(self, other: Any) -> Any:
        return _EXACT.multiply(Decimal(self), Decimal(other))


def _quotient(_: Typed, left: float, right: float) -> float:
    if right != 0:
        return left / right
    if left == 0:
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _truncated(_: Typed, left: int, right: int) -> int | None:
    if right == 0:
        return None
    whole = abs(left) // abs(right)
    return whole if (left < 0) == (right < 0) else -whole


def _remainder(typed: Typed, left: Any, right: Any) -> Any:
    if typed.type.is_float:
        raise _NoValueError
    whole = _truncated(typed, left, right)
    return None if whole is None else left - whole * right


def _cast(typed: Typed, value: Any) -> Any:
    source, target = typed.args[0].type, typed.type
    if source.is_integer and (target.is_integer or target.name in ("Float64", "Decimal")):
        return float(value) if target.is_float else value
    if source.name == target.name == "Decimal":
        return value
    raise _NoValueError


def _date_add(_: Typed, timestamp: Any, count: int, unit: str) -> Any:
    months = {"year": 12, "quarter": 3, "month": 1}.get(unit)
    if months is not None:
        index = timestamp.year * 12 + timestamp.month - 1 + count * months
        year, month = divmod(index, 12)
        if not 1 <= year <= 9999:
            raise _NoValueError
        day = min(timestamp.day, calendar.monthrange(year, month + 1)[1])
        return timestamp.replace(year=year, month=month + 1, day=day)
    return timestamp + timedelta(**{f"{unit}s": count})


def _date_trunc(_: Typed, timestamp: Any, unit: str) -> Any:
    if type(timestamp) is not date or unit not in ("year", "month", "day"):
        raise _NoValueError
    return timestamp.replace(
        month=1 if unit == "year" else timestamp.month, day=timestamp.day if unit == "day" else 1
    )


_STRICT: dict[str, Callable[..., Any]] = {
    "add": _arithmetic(lambda left, right: left + right),
    "sub": _arithmetic(lambda left, right: left - right),
    "mul": _arithmetic(lambda left, right: left * right),
    "div": _quotient,
    "idiv": _truncated,
    "mod": _remainder,
    "neg": lambda _, value: value.copy_negate() if isinstance(value, Decimal) else -value,
    "abs": lambda _, value: value.copy_abs() if isinstance(value, Decimal) else abs(value),
    "not": lambda _, value: not value,
    "eq": lambda _, left, right: left == right,
    "ne": lambda _, left, right: left != right,
    "lt": lambda _, left, right: left < right,
    "le": lambda _, left, right: left <= right,
    "gt": lambda _, left, right: left > right,
    "ge": lambda _, left, right: left >= right,
    "concat": lambda _, *texts: "".join(texts),
    "length": lambda _, text: len(text),
    "cast": _cast,
    "date_add": _date_add,
    "date_trunc": _date_trunc,
}
"""Functions whose result is NULL when an operand is NULL."""
