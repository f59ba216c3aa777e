"""Values inside a traced function: operators with Python's semantics, built as expressions.

An expression of `col(...)` has SQL's semantics: `-7 // 2` is -3, `x != 5` excludes NULL. A value in
a lambda has Python's: `-7 // 2` is -4, `None != 5` is true. Each operator here either builds an
expression with Python's result, or refuses and names an alternative. Where Python would raise for
one row (a division by zero) the job fails. One difference remains: where Python would raise because
a value is None, the result is None, as in other data tools.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from elytra.tracing.arithmetic import arithmetic, comparison
from elytra.tracing.terms import EXPRESSION_HINT, Term, Trace
from elytra.tracing.text import METHODS, piece
from emsqrt.expr import Agg, Expr
from emsqrt.expr.nodes import call

CONSTANTS = (bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta)
_PYTHON_NAMES = frozenset(
    name for kind in (str, int, float, bytes, Decimal, datetime, timedelta) for name in dir(kind)
)
_AGGREGATES = frozenset({"count"})  # also a method of str, which has an argument
_DATE_PARTS = {
    "Date": ("year", "month", "day"),
    "Timestamp": ("year", "month", "day", "hour", "minute", "second"),
}
_BOOL_HINT = (
    "write & | ~ instead of and, or, not; (a < x) & (x < b) instead of a < x < b; "
    "when(condition).then(x).otherwise(y) instead of if; x.is_in([...]) instead of in"
)


class Value:
    """Placeholder for one value of a row while a function is traced.

    Its data is in one attribute, whose name no Python value has: any other attribute that the
    function reads behaves as in Python, or is refused.
    """

    __slots__ = ("sennit_term",)

    def __init__(self, term: Term) -> None:
        self.sennit_term = term

    def __expr__(self) -> Expr:
        """Return the expression, for `when`, `coalesce` and others that build expressions."""
        return self.sennit_term.definite

    # Arithmetic -----------------------------------------------------------------------------

    def __add__(self, other: object) -> Any:
        return self._binary("+", other)

    def __radd__(self, other: object) -> Any:
        return self._binary("+", other, swap=True)

    def __sub__(self, other: object) -> Any:
        return self._binary("-", other)

    def __rsub__(self, other: object) -> Any:
        return self._binary("-", other, swap=True)

    def __mul__(self, other: object) -> Any:
        return self._binary("*", other)

    def __rmul__(self, other: object) -> Any:
        return self._binary("*", other, swap=True)

    def __truediv__(self, other: object) -> Any:
        return self._binary("/", other)

    def __rtruediv__(self, other: object) -> Any:
        return self._binary("/", other, swap=True)

    def __floordiv__(self, other: object) -> Any:
        return self._binary("//", other)

    def __rfloordiv__(self, other: object) -> Any:
        return self._binary("//", other, swap=True)

    def __mod__(self, other: object) -> Any:
        return self._binary("%", other)

    def __rmod__(self, other: object) -> Any:
        return self._binary("%", other, swap=True)

    def __neg__(self) -> Value:
        self.sennit_term.need("-", "int", "float", "decimal")
        return value_of(self.sennit_term.trace, call("neg", self.sennit_term.expr))

    def __pos__(self) -> Value:
        self.sennit_term.need("+", "int", "float", "decimal")
        return self

    def __abs__(self) -> Value:
        self.sennit_term.need("abs()", "int", "float", "decimal")
        return value_of(self.sennit_term.trace, call("abs", self.sennit_term.expr))

    def __floor__(self) -> Value:
        return self._to_int("floor")

    def __ceil__(self) -> Value:
        return self._to_int("ceil")

    def __trunc__(self) -> Value:
        return self._to_int("trunc")

    def _to_int(self, fn: str) -> Value:
        self.sennit_term.need(f"math.{fn}()", "int", "float")
        if self.sennit_term.family == "int":
            return self
        return value_of(self.sennit_term.trace, call(fn, self.sennit_term.expr).cast("Int64"))

    # Comparison and logic -------------------------------------------------------------------

    def __eq__(self, other: object) -> Any:
        return self._compare("==", other)

    def __ne__(self, other: object) -> Any:
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Any:
        return self._compare("<", other)

    def __le__(self, other: object) -> Any:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Any:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Any:
        return self._compare(">=", other)

    def __and__(self, other: object) -> Any:
        return self._logic("and", "&", other)

    def __or__(self, other: object) -> Any:
        return self._logic("or", "|", other)

    def __xor__(self, other: object) -> Any:
        return self._logic("ne", "^", other)

    # All three are symmetric, also for NULL.
    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Value:
        self.sennit_term.need("~", "bool")
        return value_of(self.sennit_term.trace, call("not", self.sennit_term.definite))

    # Operations that need a concrete value: refused -----------------------------------------

    def __bool__(self) -> NoReturn:
        raise self.sennit_term.trace.refuse(
            f"{self.sennit_term.text} has no truth value here: it is computed for each row",
            _BOOL_HINT,
        )

    def _no_python_value(self, *_: object) -> NoReturn:
        raise self.sennit_term.trace.refuse(
            f"{self.sennit_term.text} is a placeholder for the values of all rows, not a value",
            'for int(), float() and str() use .cast("Int64"), for len() .length(), '
            "for an f-string concat(...), for round() col(...).round() outside a lambda",
        )

    # Each is listed, because Python looks special methods up on the class: `__getattr__` never sees
    # them.
    __int__ = __float__ = __complex__ = __index__ = __len__ = __iter__ = _no_python_value
    __contains__ = __str__ = __repr__ = __format__ = __hash__ = __round__ = _no_python_value
    __reversed__ = __bytes__ = __reduce_ex__ = _no_python_value

    def _no_operator(self, *_: object) -> NoReturn:
        raise self.sennit_term.trace.refuse(
            f"this operator on {self.sennit_term.text} is not traced",
            f"write powers as products (x * x); {EXPRESSION_HINT}",
        )

    __pow__ = __rpow__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _no_operator
    __divmod__ = __rdivmod__ = __matmul__ = __rmatmul__ = _no_operator

    # Text and dates -------------------------------------------------------------------------

    def __getitem__(self, key: object) -> Value:
        self.sennit_term.need("[...]", "str")
        return Value(piece(self.sennit_term, key))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.sennit_term.family == "str" and name in METHODS:
            return _returns_value(METHODS[name](self.sennit_term))
        if (
            name in _DATE_PARTS.get(self.sennit_term.kind.name, ())
            and self.sennit_term.kind.zone is None
        ):
            return value_of(self.sennit_term.trace, call(name, self.sennit_term.expr))
        # What is left are methods of expressions. Those whose name a Python value has too are
        # refused, as the function's author means Python's.
        method = getattr(self.sennit_term.definite, name, None)
        if method is None:
            raise self.sennit_term.trace.refuse(
                f"{self.sennit_term.text} is one {self.sennit_term.kind}: it has no attribute {name!r} that can be traced",
                f"after a map of one value the function's argument is the value itself; "
                f"{EXPRESSION_HINT}",
            )
        if name in _PYTHON_NAMES and name not in _AGGREGATES:
            raise self.sennit_term.trace.refuse(
                f".{name} in a lambda would need Python's semantics, and the engine's differ",
                f"use col(...).{name}(...) in place of the lambda for the engine's semantics "
                "(docs/expressions.md)",
            )
        return self._engine_function(name, method)

    def _engine_function(self, name: str, method: Any) -> Any:
        """Return a method of expressions that no value of Python has, such as `is_in`."""

        def build(*args: Any, **options: Any) -> Any:
            if name in _AGGREGATES and (args or options):
                raise self.sennit_term.trace.refuse(f".{name}() of a str is not traced")
            built = method(*args, **options)
            return built if isinstance(built, Agg) else value_of(self.sennit_term.trace, built)

        return build

    # Building operators ----------------------------------------------------------------------

    def _binary(self, operator: str, other: object, *, swap: bool = False) -> Any:
        term, operand = self.sennit_term, lift(self.sennit_term.trace, other)
        # Python then tries the reflected operator of the other operand.
        if operand is None:
            return NotImplemented
        left, right = (operand, term) if swap else (term, operand)
        return Value(arithmetic(operator, left, right))

    def _logic(self, fn: str, operator: str, other: object) -> Any:
        term, operand = self.sennit_term, lift(self.sennit_term.trace, other)
        if operand is None:
            return NotImplemented
        term.need(operator, "bool")
        operand.need(operator, "bool")
        definite = call(fn, term.definite, operand.definite)
        # Where NULL counts as false, the short forms will do for `and` and `or`. NULL ^ true would
        # be NULL as well, but must be true.
        expr = definite if fn == "ne" else call(fn, term.expr, operand.expr)
        return Value(term.trace.term(expr, definite))

    def _compare(self, operator: str, other: object) -> Any:
        term, trace = self.sennit_term, self.sennit_term.trace
        if other is None:
            null = call("is_null", term.expr)
            if operator not in ("==", "!="):
                raise trace.refuse(f"{term.text} {operator} None is an error in Python")
            return value_of(trace, null if operator == "==" else call("not", null))
        operand = lift(trace, other)
        return NotImplemented if operand is None else Value(comparison(operator, term, operand))


def value_of(trace: Trace, expr: Expr) -> Value:
    """Return a value of the traced function for an expression."""
    return Value(trace.term(expr))


def lift(trace: Trace, operand: object) -> Term | None:
    """Return an operand as a term; None if it is not a supported value."""
    if isinstance(operand, Value):
        return operand.sennit_term
    if isinstance(operand, Expr):
        return trace.term(operand)
    return trace.constant(operand) if isinstance(operand, CONSTANTS) else None


def _returns_value(method: Callable[..., Term]) -> Callable[..., Value]:
    """Return a method that builds a term as one that the traced function can call."""

    def build(*args: Any, **options: Any) -> Value:
        return Value(method(*args, **options))

    return build
