"""Arithmetic and comparisons of traced values, with Python's semantics."""

from __future__ import annotations

import math
from dataclasses import replace

from elytra.tracing.terms import (
    Term,
    beyond_float,
    failing,
    fits_decimal,
    fits_float,
    is_large_or_nan,
)
from emsqrt.expr import Expr, Literal, coalesce, when
from emsqrt.expr.nodes import call
from sennit_core.schema import DataType

_CALLS = {"+": "add", "-": "sub", "*": "mul"}
_COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_NUMBERS = ("int", "float")
_ORDERED = ("int", "float", "decimal", "str", "bytes", "date", "timestamp", "timestamp with a zone",
            "time", "duration")  # fmt: skip
_FLOAT = DataType("Float64")
_INT = DataType("Int64")
_ZERO = "ZeroDivisionError: division by"
_INEXACT = "an integer beyond 2**53, which a float does not hold exactly"


def arithmetic(operator: str, left: Term, right: Term) -> Term:
    """Return the expression for Python's result of `left operator right`."""
    families = (left.family, right.family)
    if families == ("str", "str") and operator == "+":
        return left.trace.term(call("concat", left.expr, right.expr))
    if all(family in _NUMBERS for family in families):
        return _numbers(operator, left, right)
    # Python rounds decimal results to 28 digits and the engine does not, so no result may be
    # longer.
    if "decimal" in families and set(families) <= {"decimal", "int"} and operator in _CALLS:
        answer = left.trace.term(call(_CALLS[operator], left.expr, right.expr))
        if fits_decimal(answer.kind):
            return answer
    raise left.trace.refuse(
        f"{left.text} {operator} {right.text} is not traced: {left.kind} and {right.kind}"
    )


def _numbers(operator: str, left: Term, right: Term) -> Term:
    if operator in _CALLS:
        return left.trace.term(call(_CALLS[operator], left.expr, right.expr))
    # Refused while the function is traced, rather than for the first row.
    if right.is_constant:
        assert isinstance(right.expr, Literal)
        if right.expr.value == 0:
            raise left.trace.refuse(
                f"{left.text} {operator} 0 divides by zero", "change the divisor"
            )
    are_ints = left.family == right.family == "int"
    if operator == "/":
        return _quotient(left, right, are_ints=are_ints)
    # The engine truncates towards zero, Python rounds down; the remainder differs accordingly:
    #                  engine          Python
    #      -7, 2     -3, rest -1     -4, rest 1
    #       7, -2    -3, rest 1      -4, rest -1
    if operator == "%" and not are_ints:
        remainder = _floored_remainder(call("mod", left.expr, right.expr), right)
        return left.trace.term(_unless_zero(right, remainder, _FLOAT))
    # A quotient of UInt64 may be beyond Int64, which the result has.
    if not are_ints or "UInt64" in (left.kind.name, right.kind.name):
        raise left.trace.refuse(
            f"{left.text} {operator} {right.text} is traced for signed integers only",
            "write math.floor(a / b) for floats",
        )
    remainder = call("mod", left.expr, right.expr)
    if operator == "%":
        return left.trace.term(_unless_zero(right, _floored_remainder(remainder, right), _INT))
    quotient = call("idiv", left.expr, right.expr)
    floored = when(_signs_differ(remainder, right)).then(quotient - 1).otherwise(quotient)
    return left.trace.term(_unless_zero(right, floored, _INT))


def _quotient(left: Term, right: Term, *, are_ints: bool) -> Term:
    """Divide rounding once, as Python does; binary64 does too if it holds both integers exactly."""
    quotient: Expr = call("div", left.expr, right.expr)
    for side in (left, right) if are_ints else ():
        if side.is_constant and not fits_float(side):
            raise left.trace.refuse(f"{left.text} / {right.text}: {_INEXACT}")
        if not fits_float(side):
            quotient = failing(beyond_float(side), _INEXACT, side, quotient, _FLOAT)
    answer = left.trace.term(_unless_zero(right, quotient, _FLOAT))
    return replace(answer, nan_parts=_nan_parts_of_quotient(left, right))


def _nan_parts_of_quotient(left: Term, right: Term) -> tuple[Expr, ...] | None:
    """Return operands of which one is NaN where the quotient is; None to test the quotient itself.

    0 / 0 fails and integers are finite: only a NaN operand or two infinities make a quotient NaN.
    """
    parts: list[Expr] = []
    # Number of operands that could be infinite.
    infinite = 0
    for side in (left, right):
        if side.family != "float":
            continue
        if side.is_constant:
            assert isinstance(side.expr, Literal)
            if not math.isfinite(float(side.expr.value)):  # type: ignore[arg-type]
                return None
            continue
        infinite += 1
        parts += (side.expr,) if side.nan_parts is None else side.nan_parts
    return tuple(parts) if infinite < 2 else None


def _signs_differ(remainder: Expr, right: Term) -> Expr:
    """Whether the engine's remainder, which has the dividend's sign, has not the divisor's."""
    if right.is_constant:
        assert isinstance(right.expr, Literal)
        return remainder < 0 if float(right.expr.value) > 0 else remainder > 0  # type: ignore[arg-type]
    # A remainder of 0 has no sign, and nothing is to be corrected then.
    return ((remainder < 0) & (right.expr > 0)) | ((remainder > 0) & (right.expr < 0))


def _floored_remainder(remainder: Expr, right: Term) -> Expr:
    differ = _signs_differ(remainder, right)
    return when(differ).then(remainder + right.expr).otherwise(remainder)


def _unless_zero(right: Term, answer: Expr, kind: DataType) -> Expr:
    if right.is_constant:
        return answer
    return failing(right.expr == 0, _ZERO, right, answer, kind)


def comparison(operator: str, left: Term, right: Term) -> Term:
    """Return the expression for Python's `left operator right`: never None for == and !=."""
    _check_comparable(operator, left, right)
    plain: Expr = call(_COMPARISONS[operator], left.expr, right.expr)
    plain = _with_python_nan(operator, plain, left, right)
    plain = _exact_with_floats(plain, left, right)
    answer = left.trace.term(plain)
    one_constant = left.is_constant or right.is_constant
    if operator == "==":
        if one_constant:  # a condition that is NULL counts as false, as in Python
            return left.trace.term(plain, coalesce(plain, False))
        # NULL where either side is NULL: None == None is True in Python, and None == x False.
        return left.trace.term(coalesce(plain, _both_null(left, right)))
    if operator == "!=":
        return left.trace.term(coalesce(plain, one_constant or ~_both_null(left, right)))
    return answer


def _check_comparable(operator: str, left: Term, right: Term) -> None:
    families = {left.family, right.family}
    if families == {"bool"} and operator in ("==", "!="):
        return
    if len(families) == 1 and left.family in _ORDERED:
        return
    if families == {"int", "decimal"}:
        return
    # A column of floats is checked row by row (`_exact_with_floats`); a constant once, here.
    if families == {"int", "float"}:
        number = left if left.family == "float" else right
        if not number.is_constant or not is_large_or_nan(number):
            return
    hint = "compare with a value of the column's own type, such as datetime.date(2024, 1, 31)"
    raise left.trace.refuse(
        f"{left.text} {operator} {right.text} is not traced: {left.kind} and {right.kind}", hint
    )


def _both_null(left: Term, right: Term) -> Expr:
    return call("is_null", left.expr) & call("is_null", right.expr)


def _with_python_nan(operator: str, plain: Expr, left: Term, right: Term) -> Expr:
    """Apply Python's NaN rules: the engine orders NaN above all values and equal to itself."""
    # With NaN above all values, `x < NaN` is true in the engine, and so is `NaN > x`. Only the
    # operand on the larger side can make a comparison true that must be false.
    left_nan, right_nan = left.is_nan(), right.is_nan()
    if operator in ("<", "<=") and right_nan is not None:
        return plain & ~right_nan
    if operator in (">", ">=") and left_nan is not None:
        return plain & ~left_nan
    if left_nan is None or right_nan is None:  # an operand that is never NaN needs no check
        return plain
    if operator == "==":
        return plain & ~left_nan
    if operator == "!=":
        return plain | left_nan
    return plain


def _exact_with_floats(plain: Expr, left: Term, right: Term) -> Expr:
    """Fail on integers that binary64 does not hold: Python compares them with floats exactly."""
    if {left.family, right.family} != {"int", "float"}:
        return plain
    integer, number = (left, right) if left.family == "int" else (right, left)
    if number.is_constant or fits_float(integer):
        return plain
    return failing(beyond_float(integer), _INEXACT, integer, plain, DataType("Bool"))
