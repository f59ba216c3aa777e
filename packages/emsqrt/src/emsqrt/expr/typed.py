"""An expression with its type, and helpers of the typing rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from emsqrt.expr import rules
from emsqrt.expr.errors import TypeMismatch
from emsqrt.expr.functions import FUNCTIONS
from emsqrt.expr.literals import parse_spelling
from emsqrt.expr.nodes import Call, Expr
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType

BOOL, INT64, FLOAT64, UTF8, DATE = map(DataType, ("Bool", "Int64", "Float64", "Utf8", "Date"))


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """An expression with its type.

    `op` is a function's name or "column", "literal", "cast", "case"; `value` is the column's name,
    the literal's value, or whether a cast is strict. A case's `args` are when, then, …, default.
    `fallible`: it may have no value for some rows, so it must not be evaluated for rows that do not
    need it.
    """

    op: str
    type: DataType
    args: tuple[Typed, ...] = ()
    value: Any = None
    source: Expr | None = None
    fallible: bool = False


Bound: TypeAlias = tuple[DataType, tuple[Typed, ...]]
"""The result of a typing rule: the result's type, and the operands with their conversions."""
Rule: TypeAlias = Callable[[Call, tuple[Typed, ...]], Bound]


def convert(arg: Typed, kind: DataType) -> Typed:
    """Return `arg` as a value of `kind`, by a conversion that the typing rules inserted."""
    if arg.type == kind:
        return arg
    if arg.type is rules.NULL:
        return Typed("literal", kind, value=None, source=arg.source)
    if arg.op == "literal" and isinstance(arg.value, str) and kind.name != "Utf8":
        return Typed("literal", kind, value=_read_text(arg, kind), source=arg.source)
    fallible = arg.fallible or not rules.widens(arg.type, kind)
    return Typed("cast", kind, (arg,), value=True, source=arg.source, fallible=fallible)


def _read_text(arg: Typed, kind: DataType) -> Any:
    try:
        return parse_spelling(arg.value, kind)
    except UsageError as error:
        raise TypeMismatch(str(arg.source), (str(kind), "Utf8"), str(error)) from None


def all_as(args: tuple[Typed, ...], kind: DataType) -> tuple[Typed, ...]:
    """Return `args`, each converted to `kind`."""
    return tuple(convert(arg, kind) for arg in args)


def as_decimals(args: tuple[Typed, ...]) -> tuple[Typed, ...]:
    """Return exact numbers as decimals, each of a type that holds it; they compare by value."""
    return tuple(convert(arg, rules.as_decimal(arg.type)) for arg in without_null(args))


def without_null(args: tuple[Typed, ...], kind: DataType = INT64) -> tuple[Typed, ...]:
    """Return `args` with each untyped NULL as its neighbours' type, or `kind`."""
    known = [arg.type for arg in args if arg.type is not rules.NULL]
    adopted = known[0] if known else kind
    return tuple(convert(arg, adopted) if arg.type is rules.NULL else arg for arg in args)


def common(expr: Expr, args: tuple[Typed, ...], otherwise: DataType = rules.NULL) -> DataType:
    """Return the type in which all `args` can be compared or returned."""
    known = [arg for arg in args if arg.type is not rules.NULL]
    if not known:
        return otherwise
    kind = known[0].type
    for arg in known[1:]:
        kind = _join(expr, known, kind, arg)
    return kind


def _join(expr: Expr, args: list[Typed], kind: DataType, arg: Typed) -> DataType:
    if arg.op == "literal" and arg.type.name == "Utf8" and kind.name in rules.FROM_TEXT:
        return kind
    first = args[0]
    if first.op == "literal" and kind.name == "Utf8" and arg.type.name in rules.FROM_TEXT:
        return arg.type
    if arg.op == "literal" and rules.literal_fits(arg.value, arg.type, kind):
        return kind
    joined = rules.join(kind, arg.type)
    if joined is None:
        mismatch(expr, (first, arg), "these do not compare:")
    return joined


def wide_integer(expr: Call, args: tuple[Typed, ...]) -> DataType:
    """Return the type integers are computed in: Int64, or UInt64 when all are unsigned."""
    if all(arg.type.name != "UInt64" for arg in args):
        return INT64
    for arg in args:
        unsigned = arg.type.name.startswith("U")
        constant = arg.op == "literal" and (arg.value is None or arg.value >= 0)
        if not unsigned and not constant:
            mismatch(expr, args, "no integer type holds both; cast one, found")
    return DataType("UInt64")


def expect(expr: Expr, arg: Typed, name: str) -> Typed:
    """Return `arg`, which must be of the type called `name`, or NULL."""
    if arg.type is rules.NULL:
        return convert(arg, DataType(name))
    if arg.type.name != name:
        mismatch(expr, (arg,), f"expected {name}, found", _expect_hint(expr, arg, name))
    return arg


def _expect_hint(expr: Expr, arg: Typed, name: str) -> str | None:
    if name != "Utf8" or not rules.castable(arg.type, UTF8):
        return None
    hint = 'cast it: .cast("Utf8")'
    if isinstance(expr, Call) and expr.fn == "concat":
        return f"{hint}; || joins texts, between conditions write or"
    return hint


def require_numbers(expr: Call, args: tuple[Typed, ...]) -> None:
    """Refuse operands that are not numbers."""
    if not all(arg.type.is_numeric or arg.type is rules.NULL for arg in args):
        mismatch(expr, args, f"{FUNCTIONS[expr.fn].symbol or expr.fn} takes numbers, found")


def require_literals(expr: Call, args: tuple[Typed, ...]) -> None:
    """Refuse operands that are not constants."""
    if not all(arg.op == "literal" for arg in args):
        raise Unsupported(f"{expr.fn} with a pattern that is not a constant, in `{expr!s}`")


def literal_int(expr: Call, arg: Typed) -> int:
    """Return the value of a constant integer; refuse anything else."""
    if arg.op != "literal" or not arg.type.is_integer or arg.value is None:
        raise Unsupported(
            f"{expr.fn} with a position that is not a constant integer, in `{expr!s}`"
        )
    return int(arg.value)


def literal_text(expr: Call, arg: Typed) -> str:
    """Return the text of a constant; refuse anything else."""
    if arg.op != "literal" or not isinstance(arg.value, str):
        raise Unsupported(
            f"{expr.fn} with {arg.source!s}, which is not a constant text, in `{expr!s}`"
        )
    return arg.value


def mismatch(expr: Expr, args: tuple[Typed, ...], reason: str, hint: str | None = None) -> NoReturn:
    """Raise TypeMismatch that names the operands and their types."""
    named = " and ".join(f"{arg.source!s} ({arg.type})" for arg in args)
    types = tuple(str(arg.type) for arg in args)
    raise TypeMismatch(str(expr), types, f"{reason} {named}", hint=hint)
