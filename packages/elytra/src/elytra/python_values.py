"""Values inside a traced function: operators with Python's semantics, built as expressions.

An expression of `col(...)` has SQL's semantics: `-7 // 2` is -3, `x != 5` excludes NULL. A value in
a lambda has Python's: `-7 // 2` is -4, `None != 5` is true. Each operator here either builds an
expression with Python's result, or refuses and names an alternative. Where Python would raise for
one row (a division by zero) the job fails. One difference remains: where Python would raise because
a value is None, the result is None, as in other data tools.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from emsqrt.expr import Agg, Case, Expr, Literal, coalesce, concat, infer, lit, when
from emsqrt.expr.nodes import call
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import DataType, Schema

CONSTANTS = (bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta)
_EXACT_INT = 1 << 53
"""Integers up to this size are exact in binary64; larger ones may not be."""
_DECIMAL_DIGITS = 28
"""Python's default decimal context rounds to this many digits; the engine is exact to 38."""
_NARROW = ("Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32")
WHITESPACE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
"""The characters that `str.strip()` removes."""
_PYTHON_NAMES = frozenset(
    name for kind in (str, int, float, bytes, Decimal, datetime, timedelta) for name in dir(kind)
)
_AGGREGATES = frozenset({"count"})  # also a method of str, which has an argument
_DATE_PARTS = {
    "Date": ("year", "month", "day"),
    "Timestamp": ("year", "month", "day", "hour", "minute", "second"),
}
EXPRESSION_HINT = (
    'an expression such as col("x") in place of the lambda has the engine\'s semantics '
    "(docs/expressions.md)"
)
_BOOL_HINT = (
    "write & | ~ instead of and, or, not; (a < x) & (x < b) instead of a < x < b; "
    "when(condition).then(x).otherwise(y) instead of if; x.is_in([...]) instead of in"
)


class Trace:
    """The state of tracing one function.

    Args:
        schema: Columns of the rows that the function will see.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.refusal: SennitError | None = (
            None  # the first error: the function may catch and drop it
        )

    def refuse(self, what: str, hint: str = EXPRESSION_HINT) -> SennitError:
        """Return the error for an operation that cannot be traced, for the caller to raise."""
        return self.fail(Unsupported(what, hint=hint))

    def fail(self, error: SennitError) -> SennitError:
        """Record an error in case the function catches it, and return it."""
        self.refusal = self.refusal or error
        return error

    def term(self, expr: Expr, definite: Expr | None = None) -> Term:
        """Return the term of an expression."""
        try:
            kind = infer(expr, self.schema)
        except SennitError as error:
            raise self.fail(error) from None
        return Term(self, expr, kind, expr if definite is None else definite)

    def value(self, expr: Expr) -> Value:
        """Return a value of the function for an expression."""
        return Value(self.term(expr))

    def constant(self, value: Any) -> Term:
        """Return the term of a Python constant."""
        try:
            literal = lit(value)
        except SennitError as error:
            raise self.fail(error) from None
        return self.term(literal)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """The expression and type of a value in a traced function.

    Args:
        trace: The tracing it belongs to.
        expr: Its expression.
        kind: Its type.
        definite: The same expression with Python's result instead of NULL; only comparisons set it.
            `expr` is shorter, and equivalent where a condition that is NULL counts as false.
        nan_parts: Expressions of which one is NaN in exactly the rows where this value is, so that
            a comparison need not recompute all of it to test for NaN; None means `expr` itself.
    """

    trace: Trace
    expr: Expr
    kind: DataType
    definite: Expr
    nan_parts: tuple[Expr, ...] | None = None

    @property
    def family(self) -> str:
        """The Python type that Python would compute with."""
        return _family(self.kind)

    @property
    def text(self) -> str:
        """The expression as text, for messages."""
        return str(self.expr)

    @property
    def is_constant(self) -> bool:
        """Whether it is a constant of the function."""
        return isinstance(self.expr, Literal)

    def is_nan(self) -> Expr | None:
        """Return the condition that the value is NaN; None if it can never be NaN."""
        if self.family != "float" or self.is_constant:
            return None
        parts = (self.expr,) if self.nan_parts is None else self.nan_parts
        checks = [call("is_nan", part) for part in parts]
        return call("or", *checks) if len(checks) > 1 else next(iter(checks), None)

    def need(self, operator: str, *families: str) -> None:
        """Refuse an operator that is not traced for this type."""
        if self.family not in families:
            raise self.trace.refuse(
                f"{operator} is not traced for {self.text}, which is {self.kind}"
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
        return self.sennit_term.trace.value(call("neg", self.sennit_term.expr))

    def __pos__(self) -> Value:
        self.sennit_term.need("+", "int", "float", "decimal")
        return self

    def __abs__(self) -> Value:
        self.sennit_term.need("abs()", "int", "float", "decimal")
        return self.sennit_term.trace.value(call("abs", self.sennit_term.expr))

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
        return self.sennit_term.trace.value(call(fn, self.sennit_term.expr).cast("Int64"))

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
        return self.sennit_term.trace.value(call("not", self.sennit_term.definite))

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
        from elytra.python_text import piece

        self.sennit_term.need("[...]", "str")
        return piece(self.sennit_term, key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.sennit_term.family == "str":
            from elytra.python_text import METHODS

            if name in METHODS:
                return METHODS[name](self.sennit_term)
        if (
            name in _DATE_PARTS.get(self.sennit_term.kind.name, ())
            and self.sennit_term.kind.zone is None
        ):
            return self.sennit_term.trace.value(call(name, self.sennit_term.expr))
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
            return built if isinstance(built, Agg) else self.sennit_term.trace.value(built)

        return build

    # Building operators ----------------------------------------------------------------------

    def _binary(self, operator: str, other: object, *, swap: bool = False) -> Any:
        # Imported here, as that module imports this one.
        from elytra.python_arithmetic import arithmetic

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
        from elytra.python_arithmetic import comparison

        term, trace = self.sennit_term, self.sennit_term.trace
        if other is None:
            null = call("is_null", term.expr)
            if operator not in ("==", "!="):
                raise trace.refuse(f"{term.text} {operator} None is an error in Python")
            return trace.value(null if operator == "==" else call("not", null))
        operand = lift(trace, other)
        return NotImplemented if operand is None else Value(comparison(operator, term, operand))


def lift(trace: Trace, operand: object) -> Term | None:
    """Return an operand as a term; None if it is not a supported value."""
    if isinstance(operand, Value):
        return operand.sennit_term
    if isinstance(operand, Expr):
        return trace.term(operand)
    return trace.constant(operand) if isinstance(operand, CONSTANTS) else None


def _family(kind: DataType) -> str:
    name = kind.name
    # Also UInt8 to UInt64: Python has one type for all.
    if "Int" in name:
        return "int"
    if name == "Timestamp":
        return "timestamp" if kind.zone is None else "timestamp with a zone"
    plain = {"Float32": "float", "Float64": "float", "Utf8": "str", "Binary": "bytes"}
    return plain.get(name, name.lower())


def fits_float(value: Term) -> bool:
    """Whether an integer is exact in binary64 for all rows."""
    if value.is_constant:
        assert isinstance(value.expr, Literal)
        return abs(int(value.expr.value)) <= _EXACT_INT  # type: ignore[arg-type]
    return value.kind.name in _NARROW


def is_large_or_nan(value: Term) -> bool:
    """Whether a constant float is NaN or outside the range where integers compare exactly."""
    assert isinstance(value.expr, Literal)
    number = float(value.expr.value)  # type: ignore[arg-type]
    return math.isnan(number) or (_EXACT_INT <= abs(number) < math.inf)


def beyond_float(value: Term) -> Expr:
    """Return the condition that an integer is too large for binary64 to hold exactly."""
    return (value.expr > _EXACT_INT) | (value.expr < -_EXACT_INT)


def fits_decimal(kind: DataType) -> bool:
    """Whether a Decimal has at most as many digits as Python's default context."""
    return kind.name != "Decimal" or (kind.precision or 0) <= _DECIMAL_DIGITS


def failing(condition: Expr, reason: str, culprit: Term, otherwise: Expr, kind: DataType) -> Case:
    """Return an expression that fails the job for rows where the condition is true.

    No function of the engine raises, so this uses a cast that always fails. Its text depends on the
    row; otherwise the cast would be a constant and would fail at planning time.
    """
    if culprit.family == "int":
        shown = coalesce(culprit.expr.cast("Utf8"), "")
    else:  # floats cannot be cast to text, and the only failing float is zero
        shown = when(call("is_null", culprit.expr)).then("").otherwise("0.0")
    return when(condition).then(concat(f"{reason}: ", shown).cast(kind)).otherwise(otherwise)
