"""Recognises what a two-argument lambda folds with, so that `reduce` can run as an aggregate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sennit_core.errors import Unsupported

_HINT = "reduce understands a + b, min(a, b) and max(a, b); use agg(...) for anything else"
_COMPARISONS = {"<": "min", "<=": "min", ">": "max", ">=": "max"}


@dataclass(frozen=True, slots=True, eq=False)
class _Operand:
    """Stands for one argument of the lambda, and remembers the first choice made on it."""

    name: str
    script: _Script

    def __add__(self, other: object) -> _Formula:
        return self._formula("+", other)

    def __mul__(self, other: object) -> _Formula:
        return self._formula("*", other)

    def __sub__(self, other: object) -> _Formula:
        return self._formula("-", other)

    def __lt__(self, other: object) -> _Comparison:
        return self._compare("<", other)

    def __le__(self, other: object) -> _Comparison:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> _Comparison:
        return self._compare(">", other)

    def __ge__(self, other: object) -> _Comparison:
        return self._compare(">=", other)

    def _formula(self, symbol: str, other: object) -> _Formula:
        right = other.name if isinstance(other, _Operand) else repr(other)
        return _Formula(symbol, frozenset({self.name, right}), f"{self.name} {symbol} {right}")

    def _compare(self, symbol: str, other: object) -> _Comparison:
        if not isinstance(other, _Operand) or other.name == self.name:
            _refuse(f"{self.name} {symbol} {other!r}")
        return _Comparison(self.name, symbol, self.script)


@dataclass(frozen=True, slots=True)
class _Formula:
    symbol: str
    operands: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    left: str
    symbol: str
    script: _Script

    def __bool__(self) -> bool:
        return self.script.decide(self)


@dataclass(slots=True)
class _Script:
    """The answer that the one comparison of a run gets; the lambda runs once for each answer."""

    answer: bool
    asked: _Comparison | None = None

    def decide(self, comparison: _Comparison) -> bool:
        if self.asked is not None:
            _refuse("more than one comparison")
        self.asked = comparison
        return self.answer


def recognise(fold: Callable[[Any, Any], Any]) -> str:
    """Find the aggregate that a fold computes.

    Args:
        fold: A function of two values, such as `lambda a, b: a + b` or the builtin `max`. It is
            called with stand-ins, never with data.

    Returns:
        `"sum"`, `"min"` or `"max"`.

    Raises:
        Unsupported: The fold is something else; the message names what was seen.
    """
    when_true, script = _run(fold, answer=True)
    if isinstance(when_true, _Formula):
        if when_true.symbol == "+" and when_true.operands == {"a", "b"}:
            return "sum"
        _refuse(when_true.text)
    when_false, _ = _run(fold, answer=False)
    if (
        script.asked is None
        or not isinstance(when_true, _Operand)
        or not isinstance(when_false, _Operand)
        or when_true.name == when_false.name
    ):
        _refuse("a result that is not one of a + b, min(a, b), max(a, b)")
    smallest_or_largest = _COMPARISONS[script.asked.symbol]
    if when_true.name == script.asked.left:
        return smallest_or_largest
    return "max" if smallest_or_largest == "min" else "min"


def _run(fold: Callable[[Any, Any], Any], *, answer: bool) -> tuple[object, _Script]:
    script = _Script(answer)
    try:
        return fold(_Operand("a", script), _Operand("b", script)), script
    except (AttributeError, TypeError) as problem:
        raise Unsupported(f"reduce cannot read this function: {problem}", hint=_HINT) from problem


def _refuse(seen: str) -> NoReturn:
    raise Unsupported(f"reduce cannot run {seen} as an aggregate", hint=_HINT)
