"""Terms: the expressions and types of the values in a traced function, and when they are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from emsqrt.expr import Case, Expr, Literal, coalesce, concat, infer, lit, when
from emsqrt.expr.nodes import call
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import DataType, Schema

_EXACT_INT = 1 << 53
"""Integers up to this size are exact in binary64; larger ones may not be."""
_DECIMAL_DIGITS = 28
"""Python's default decimal context rounds to this many digits; the engine is exact to 38."""
_NARROW = ("Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32")
EXPRESSION_HINT = (
    'an expression such as col("x") in place of the lambda has the engine\'s semantics '
    "(docs/expressions.md)"
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
