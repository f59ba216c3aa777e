"""Typing rules of arithmetic, comparison, logic and choice.

Each accepts a call and its typed operands, and returns the result's type and the operands with
explicit conversions.
"""

from __future__ import annotations

from emsqrt.expr import rules
from emsqrt.expr.functions import FUNCTIONS
from emsqrt.expr.nodes import Call
from emsqrt.expr.typed import (
    BOOL,
    FLOAT64,
    INT64,
    Bound,
    Rule,
    Typed,
    all_as,
    as_decimals,
    common,
    convert,
    expect,
    literal_int,
    mismatch,
    require_numbers,
    wide_integer,
    without_null,
)
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType


def _arithmetic(expr: Call, args: tuple[Typed, ...]) -> Bound:
    left, right = without_null(args)
    require_numbers(expr, (left, right))
    if left.type.is_float or right.type.is_float:
        return FLOAT64, all_as(args, FLOAT64)
    if "Decimal" in (left.type.name, right.type.name):
        one, two = rules.as_decimal(left.type), rules.as_decimal(right.type)
        return rules.decimal_result(expr, one, two), (convert(left, one), convert(right, two))
    kind = wide_integer(expr, (left, right))
    return kind, all_as(args, kind)


def _quotient(expr: Call, args: tuple[Typed, ...]) -> Bound:
    require_numbers(expr, without_null(args))
    return FLOAT64, all_as(args, FLOAT64)


def _integers(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = without_null(args)
    require_numbers(expr, operands)
    if not all(arg.type.is_integer for arg in operands):
        mismatch(expr, operands, f"{FUNCTIONS[expr.fn].symbol} takes integers, found")
    kind = wide_integer(expr, operands)
    return kind, all_as(args, kind)


def _remainder(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = without_null(args)
    require_numbers(expr, operands)
    if any(arg.type.is_float for arg in operands):
        return FLOAT64, all_as(args, FLOAT64)
    return _integers(expr, args)


def _number(expr: Call, args: tuple[Typed, ...]) -> Bound:
    (arg,) = args
    require_numbers(expr, args)
    if arg.type.name == "UInt64" and expr.fn == "neg":
        mismatch(expr, args, "a UInt64 has no negative; cast it first, found")
    kind = rules.wide(arg.type)
    return kind, all_as(args, kind)


def _rounding(expr: Call, args: tuple[Typed, ...]) -> Bound:
    arg, *digits = args
    require_numbers(expr, (arg,))
    places = literal_int(expr, digits[0]) if digits else 0
    if not -15 <= places <= 15:
        raise UsageError(f"round takes -15 to 15 digits in `{expr!s}`, not {places}")
    if places < 0 and not arg.type.is_float:
        raise Unsupported(f"round of {arg.type} to {places} digits in `{expr!s}`")
    kind = rules.wide(arg.type)
    if kind.name == "Decimal":
        kind = rules.decimal(min(38, (kind.precision or 0) + 1), kind.scale or 0)
    return kind, (convert(arg, kind), *digits)


def _comparison(expr: Call, args: tuple[Typed, ...]) -> Bound:
    if rules.no_decimal_holds(arg.type for arg in args):
        return BOOL, as_decimals(args)
    kind = common(expr, args, otherwise=BOOL)
    if kind.name in ("List", "Struct"):
        raise Unsupported(f"comparing {kind} in `{expr!s}`")
    return BOOL, all_as(args, kind)


def _logic(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return BOOL, tuple(expect(expr, arg, "Bool") for arg in args)


def _any_to_bool(_: Call, args: tuple[Typed, ...]) -> Bound:
    return BOOL, tuple(convert(arg, BOOL) if arg.type is rules.NULL else arg for arg in args)


def _float_to_bool(expr: Call, args: tuple[Typed, ...]) -> Bound:
    (arg,) = without_null(args, FLOAT64)
    if not arg.type.is_float:
        mismatch(expr, args, f"{expr.fn} takes a float, found")
    return BOOL, (arg,)


def _common_result(expr: Call, args: tuple[Typed, ...]) -> Bound:
    kind = common(expr, args)
    if kind.name in ("List", "Struct") and expr.fn != "coalesce":
        raise Unsupported(f"comparing {kind} in `{expr!s}`")
    return kind, args if kind is rules.NULL else all_as(args, kind)


def _first_of_common(expr: Call, args: tuple[Typed, ...]) -> Bound:
    if rules.no_decimal_holds(arg.type for arg in args):
        operands = as_decimals(args)
        return operands[0].type, operands
    return _common_result(expr, args)


def _sign(expr: Call, args: tuple[Typed, ...]) -> Bound:
    (arg,) = without_null(args)
    require_numbers(expr, (arg,))
    return (FLOAT64, (convert(arg, FLOAT64),)) if arg.type.is_float else (INT64, (arg,))


def _float_function(expr: Call, args: tuple[Typed, ...]) -> Bound:
    require_numbers(expr, args)
    return FLOAT64, all_as(args, FLOAT64)


def _hash(expr: Call, args: tuple[Typed, ...]) -> Bound:
    """Accept every value that has a canonical byte form."""
    operands = []
    for arg in without_null(args):
        if arg.type.name in ("List", "Struct"):
            raise Unsupported(f"hash of {arg.type} in `{expr!s}`")
        operands.append(convert(arg, rules.wide(arg.type)) if arg.type.is_numeric else arg)
    return DataType("UInt64"), tuple(operands)


RULES: dict[str, Rule] = {
    "hash": _hash,
    "arithmetic": _arithmetic,
    "quotient": _quotient,
    "integers": _integers,
    "remainder": _remainder,
    "number": _number,
    "rounding": _rounding,
    "sign": _sign,
    "float": _float_function,
    "comparison": _comparison,
    "logic": _logic,
    "any_to_bool": _any_to_bool,
    "float_to_bool": _float_to_bool,
    "common": _common_result,
    "first_of_common": _first_of_common,
}
