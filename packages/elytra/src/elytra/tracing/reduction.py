"""Translate folds of `reduce(f, initial)` to aggregates: f is called with placeholders, not data.

A fold adds a term of each row to its accumulator (`a + b`, `total + r.price * r.qty`, `n + 1`) or
keeps the smaller or larger of both. Such folds run at the shards in any order. All other folds
would need all rows in order in one process, and are refused with an error that names the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from elytra.tracing.function import Shape, call_traced, placeholder_row
from elytra.tracing.terms import Term, Trace
from elytra.tracing.values import Value, lift
from emsqrt.expr import Expr, columns_of
from sennit_core.errors import SennitError, UsageError
from sennit_core.schema import Schema

FoldName: TypeAlias = Literal["sum", "min", "max"]

_HINT = (
    "reduce supports sums (total + r.price * r.qty), counts (n + 1), min and max; "
    "use agg(...) for other aggregates: arbitrary functions are not supported yet"
)
# What a fold computes that keeps the accumulator where `accumulator symbol term` is true.
_COMPARISONS: dict[str, FoldName] = {"<": "min", "<=": "min", ">": "max", ">=": "max"}


@dataclass(frozen=True)
class Fold:
    """The aggregate that a fold computes.

    Args:
        name: The aggregate.
        term: The expression that is summed or compared; None when only a constant is added.
        constant: Added for each row, in addition to the term.
        is_plain: The fold uses the element unchanged, so it needs no initial value.
    """

    name: FoldName
    term: Term | None
    constant: int | float = 0
    is_plain: bool = False


class _Accumulator:
    """Placeholder for the accumulator; records the terms added to it."""

    def __init__(self, script: _Script, terms: tuple[Term, ...] = (), text: str = "a") -> None:
        self.script = script
        self.terms = terms
        self.text = text

    def __add__(self, other: object) -> _Accumulator:
        return self._added("+", other, other)

    __radd__ = __add__

    def __sub__(self, other: object) -> _Accumulator:
        # Recorded as the addition of the negative: a sum may run in any order.
        return self._added("-", other, -other if isinstance(other, Value | int | float) else None)

    # Also reached by `term < accumulator`, as `accumulator > term`: a Value does not know the
    # accumulator, so Python calls the reflected method.
    def __lt__(self, other: object) -> _Comparison:
        return self._compared("<", other)

    def __le__(self, other: object) -> _Comparison:
        return self._compared("<=", other)

    def __gt__(self, other: object) -> _Comparison:
        return self._compared(">", other)

    def __ge__(self, other: object) -> _Comparison:
        return self._compared(">=", other)

    def _added(self, symbol: str, other: object, term: object) -> _Accumulator:
        shown = other.text if isinstance(other, _Accumulator) else _text(other)
        text = f"{self.text} {symbol} {shown}"
        lifted = None if isinstance(other, str | bytes) else lift(self.script.trace, term)
        if lifted is None or lifted.family not in ("int", "float", "decimal"):
            raise self.script.refuse(text)
        return _Accumulator(self.script, (*self.terms, lifted), text)

    def _compared(self, symbol: str, other: object) -> _Comparison:
        term = lift(self.script.trace, other)
        # A comparison after an addition, or with a constant, depends on the order of the rows.
        if term is None or self.terms or term.is_constant:
            raise self.script.refuse(f"{self.text} {symbol} {_text(other)}")
        return _Comparison(symbol, term, self.script)


def _refusing(symbol: str) -> Any:
    def operator(self: _Accumulator, other: object = None) -> None:
        shown = other.text if isinstance(other, _Accumulator) else _text(other)
        raise self.script.refuse(f"{self.text} {symbol} {shown}")

    return operator


# Set on the class, because Python looks special methods up there and not on the object.
for _name, _symbol in (
    *(("mul", "*"), ("rmul", "*"), ("truediv", "/"), ("rtruediv", "/"), ("floordiv", "//")),
    *(("mod", "%"), ("pow", "**"), ("rsub", "-"), ("and", "&"), ("or", "|"), ("xor", "^")),
    *(("eq", "=="), ("ne", "!="), ("neg", "-"), ("abs", "abs"), ("bool", "if"), ("hash", "hash")),
    *(("str", "str"), ("repr", "repr"), ("format", "format"), ("iter", "iter"), ("len", "len")),
    *(("getitem", "[...]"), ("int", "int"), ("float", "float"), ("index", "index")),
):
    setattr(_Accumulator, f"__{_name}__", _refusing(_symbol))


@dataclass(frozen=True, eq=False)
class _Comparison:
    """`accumulator symbol term`."""

    symbol: str
    term: Term
    script: _Script

    def __bool__(self) -> bool:
        return self.script.decide(self)


@dataclass
class _Script:
    """The outcome of the only comparison in a call; the fold is called once for each outcome."""

    trace: Trace
    answer: bool
    asked: _Comparison | None = None

    def decide(self, comparison: _Comparison) -> bool:
        # Two comparisons have four outcomes, and no aggregate computes such a fold.
        if self.asked is not None:
            raise self.refuse("more than one comparison")
        self.asked = comparison
        return self.answer

    def refuse(self, seen: str) -> SennitError:
        return self.trace.refuse(f"reduce cannot run {seen} as an aggregate", _HINT)


def recognise(fold: Callable[[Any, Any], Any], schema: Schema, shape: Shape) -> Fold:
    """Find the aggregate that a fold computes.

    Args:
        fold: A function of the accumulator and a row, such as `lambda a, b: a + b` or `max`.
        schema: The columns.
        shape: The form in which the fold receives a row.

    Raises:
        Unsupported: The function is not such a fold; the message names what was found.
    """
    # A sum asks nothing, so one call is enough. A minimum or maximum is called once for each
    # outcome of its comparison, and must return the accumulator in one and the term in the other:
    #      lambda a, b: a if a < b else b      a < b: a     else: b      min
    #      lambda a, b: b if a < b else a      a < b: b     else: a      max
    script, if_true, element = _call(fold, schema, shape, answer=True)
    if isinstance(if_true, _Accumulator) and script.asked is None and if_true.terms:
        return _sum(if_true, element)
    other, if_false, _ = _call(fold, schema, shape, answer=False)
    if script.asked is None or other.asked is None:
        raise script.refuse("a result that is not one of a + b, min(a, b), max(a, b)")
    name = _COMPARISONS[script.asked.symbol]
    term = script.asked.term
    if _is_accumulator(if_true) and _is_term(if_false, term):
        return Fold(name, term, is_plain=_is_element(term, element))
    if _is_accumulator(if_false) and _is_term(if_true, term):
        return Fold("max" if name == "min" else "min", term, is_plain=_is_element(term, element))
    raise script.refuse("a result that is not one of a + b, min(a, b), max(a, b)")


def check_initial(fold: Fold, initial: object) -> None:
    """Refuse an initial value that Python could not fold with the rows exactly.

    Raises:
        UsageError: The initial value is of another type.
    """
    if fold.term is None:
        allowed = type(initial) in (int, float)
    else:
        family = fold.term.family
        # Exact types: in Python, a bool is an int and a datetime a date.
        allowed = type(initial) in _INITIALS.get(family, ())
        if fold.name != "sum" and type(initial) is int and family == "float":
            # It becomes a float to be compared, which must not round it.
            allowed = abs(initial) <= 1 << 53
        if fold.name == "sum" and family == "int":
            allowed = type(initial) in (int, float)
    if not allowed:
        kind = "of rows" if fold.term is None else f"of {fold.term.kind}"
        raise UsageError(
            f"{initial!r} cannot be the initial value of a {fold.name} {kind}",
            hint="pass an initial value of the same type",
        )


_INITIALS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "decimal": (Decimal, int),
    "str": (str,),
    "bytes": (bytes,),
    "date": (date,),
    "timestamp": (datetime,),
    "timestamp with a zone": (datetime,),
    "time": (time,),
    "duration": (timedelta,),
}


def _call(
    fold: Callable[[Any, Any], Any], schema: Schema, shape: Shape, *, answer: bool
) -> tuple[_Script, object, object]:
    trace = Trace(schema)
    script, element = _Script(trace, answer), placeholder_row(trace, shape)
    return script, call_traced(trace, fold, _Accumulator(script), element), element


def _sum(added: _Accumulator, element: object) -> Fold:
    # A constant counts once a row, so the aggregate multiplies it by the number of rows.
    constants = [term for term in added.terms if not columns_of(term.expr)]
    rows = [term for term in added.terms if columns_of(term.expr)]
    constant = sum(_number(term) for term in constants)
    if not rows:
        return Fold("sum", None, constant)
    total: Expr = rows[0].expr
    for term in rows[1:]:
        total = total + term.expr
    term = added.script.trace.term(total)
    is_plain = len(added.terms) == 1 and _is_element(term, element)
    return Fold("sum", term, constant, is_plain)


def _number(term: Term) -> int | float:
    value = getattr(term.expr, "value", None)
    if not isinstance(value, int | float):
        raise term.trace.refuse(f"reduce cannot add {term.text} as an aggregate", _HINT)
    return value


def _is_accumulator(result: object) -> bool:
    return isinstance(result, _Accumulator) and not result.terms


def _is_term(result: object, term: Term) -> bool:
    return isinstance(result, Value) and result.sennit_term.expr.equals(term.expr)


def _is_element(term: Term, element: object) -> bool:
    return isinstance(element, Value) and term.expr.equals(element.sennit_term.expr)


def _text(value: object) -> str:
    return value.sennit_term.text if isinstance(value, Value) else repr(value)
