"""Types: every expression has one, found before any row is read.

`bind` turns a tree over names into a `Typed` tree in which each conversion is written out, so an
engine meets only operands of equal type. The rules are the table in `docs/plan-ir.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from emsqrt.expr import rules
from emsqrt.expr.errors import BadPlan, TypeMismatch
from emsqrt.expr.functions import FUNCTIONS, Function, function
from emsqrt.expr.literals import parse_spelling
from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr, Literal
from emsqrt.expr.walk import depth_of
from emsqrt.expr.wire import EXPR_DEPTH_MAX
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Schema


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """An expression with its type.

    `op` is a function's name or "column", "literal", "cast", "case"; `value` is the column's name,
    the literal's value, or whether a cast is strict. A case's `args` are when, then, …, default.
    `fallible`: some rows' values may have no result, so it must not see rows it need not.
    """

    op: str
    type: DataType
    args: tuple[Typed, ...] = ()
    value: Any = None
    source: Expr | None = None
    fallible: bool = False


def infer(expr: Expr, schema: Schema) -> DataType:
    """Return the type of `expr` over rows of `schema`; raises what `bind` raises."""
    return bind(expr, schema).type


def bind(expr: Expr, schema: Schema) -> Typed:
    """Return `expr` typed and with every conversion written out.

    Raises:
        UnknownColumn: a column the schema does not have.
        TypeMismatch: operands that do not go together; names them and their types.
        Unsupported: a type or function that no engine can do here.
        UsageError: an aggregate inside a row's expression, a NULL without a type.
    """
    if depth_of(expr) > EXPR_DEPTH_MAX:
        raise BadPlan(
            pointer="", reason=f"an expression nested deeper than {EXPR_DEPTH_MAX} levels"
        )
    typed = _bind(expr, schema)
    if typed.type is rules.NULL:
        raise UsageError(
            f"the type of {expr!s} cannot be told", hint='give NULL a type: lit(None, "Int64")'
        )
    return typed


def _bind(expr: Expr, schema: Schema) -> Typed:
    match expr:
        case Column(name):
            return Typed("column", schema.field(name).type, value=name, source=expr)
        case Literal(value, kind):
            return Typed("literal", kind or rules.NULL, value=value, source=expr)
        case Cast(arg, kind, strict):
            return _bind_cast(expr, _bind(arg, schema), kind, strict=strict)
        case Case():
            return _bind_case(expr, schema)
        case Call(fn, args):
            return _bind_call(expr, function(fn), tuple(_bind(arg, schema) for arg in args))
        case Agg():
            raise UsageError(
                f"{expr!s} is an aggregate: it has no value in a single row",
                hint="put it in the aggs of an aggregate, and filter or compute on its result",
            )
        case _:
            raise AssertionError(f"not an expression node: {type(expr).__name__}")


def _bind_cast(expr: Expr, arg: Typed, kind: DataType, *, strict: bool) -> Typed:
    if arg.type is rules.NULL:
        return Typed("literal", kind, value=None, source=expr)
    if not rules.castable(arg.type, kind):
        raise Unsupported(
            f"cast from {arg.type} to {kind} in `{expr!s}`", hint=_cast_hint(arg.type)
        )
    if arg.type == kind:
        return arg
    fallible = arg.fallible or (strict and not rules.widens(arg.type, kind))
    return Typed("cast", kind, (arg,), value=strict, source=expr, fallible=fallible)


def _cast_hint(kind: DataType) -> str | None:
    return "floats become text only in the result's format" if kind.is_float else None


def convert(arg: Typed, kind: DataType) -> Typed:
    """Return `arg` as a value of `kind`, by a conversion the typing rules made."""
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


def _bind_case(expr: Case, schema: Schema) -> Typed:
    whens = [_bind(when, schema) for when, _ in expr.branches]
    thens = [_bind(then, schema) for _, then in expr.branches]
    default = Literal(None, None) if expr.default is None else expr.default
    results = (*thens, _bind(default, schema))
    kind = _common(expr, results)
    conditions = [_expect(expr, when, "Bool") for when in whens]
    values = [convert(result, kind) for result in results]
    pairs = zip(conditions, values, strict=False)
    args = (*(part for pair in pairs for part in pair), values[-1])
    return Typed("case", kind, args, source=expr, fallible=any(arg.fallible for arg in args))


def _bind_call(expr: Call, fn: Function, args: tuple[Typed, ...]) -> Typed:
    if not fn.args_min <= len(args) <= fn.args_max:
        raise UsageError(f"{fn.name} does not take {len(args)} argument(s) in `{expr!s}`")
    kind, operands = _RULES[fn.rule](expr, args)
    fallible = fn.fallible and rules.may_fail(fn.name, kind)
    return Typed(
        fn.name, kind, operands, source=expr, fallible=fallible or any(a.fallible for a in operands)
    )


# Typing rules: each returns the result's type and the operands with their conversions ----------

Bound = tuple[DataType, tuple[Typed, ...]]
BOOL, INT64, FLOAT64, UTF8 = map(DataType, ("Bool", "Int64", "Float64", "Utf8"))


def _arithmetic(expr: Call, args: tuple[Typed, ...]) -> Bound:
    left, right = _without_null(args)
    _require_numbers(expr, (left, right))
    if left.type.is_float or right.type.is_float:
        return FLOAT64, _all_as(args, FLOAT64)
    if "Decimal" in (left.type.name, right.type.name):
        one, two = rules.as_decimal(left.type), rules.as_decimal(right.type)
        return rules.decimal_result(expr, one, two), (convert(left, one), convert(right, two))
    kind = _wide_integer(expr, (left, right))
    return kind, _all_as(args, kind)


def _quotient(expr: Call, args: tuple[Typed, ...]) -> Bound:
    _require_numbers(expr, _without_null(args))
    return FLOAT64, _all_as(args, FLOAT64)


def _integers(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = _without_null(args)
    _require_numbers(expr, operands)
    if not all(arg.type.is_integer for arg in operands):
        _mismatch(expr, operands, f"{FUNCTIONS[expr.fn].symbol} takes integers, found")
    kind = _wide_integer(expr, operands)
    return kind, _all_as(args, kind)


def _remainder(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = _without_null(args)
    _require_numbers(expr, operands)
    if any(arg.type.is_float for arg in operands):
        return FLOAT64, _all_as(args, FLOAT64)
    return _integers(expr, args)


def _number(expr: Call, args: tuple[Typed, ...]) -> Bound:
    (arg,) = args
    _require_numbers(expr, args)
    if arg.type.name == "UInt64" and expr.fn == "neg":
        _mismatch(expr, args, "a UInt64 has no negative; cast it first, found")
    kind = rules.wide(arg.type)
    return kind, _all_as(args, kind)


def _rounding(expr: Call, args: tuple[Typed, ...]) -> Bound:
    arg, *digits = args
    _require_numbers(expr, (arg,))
    places = _literal_int(expr, digits[0]) if digits else 0
    if not -15 <= places <= 15:
        raise UsageError(f"round takes -15 to 15 digits in `{expr!s}`, not {places}")
    if places < 0 and not arg.type.is_float:
        raise Unsupported(f"round of {arg.type} to {places} digits in `{expr!s}`")
    kind = rules.wide(arg.type)
    if kind.name == "Decimal":
        kind = rules.decimal(min(38, (kind.precision or 0) + 1), kind.scale or 0)
    return kind, (convert(arg, kind), *digits)


def _comparison(expr: Call, args: tuple[Typed, ...]) -> Bound:
    kind = _common(expr, args, otherwise=BOOL)
    if kind.name in ("List", "Struct"):
        raise Unsupported(f"comparing {kind} in `{expr!s}`")
    return BOOL, _all_as(args, kind)


def _logic(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return BOOL, tuple(_expect(expr, arg, "Bool") for arg in args)


def _any_to_bool(_: Call, args: tuple[Typed, ...]) -> Bound:
    return BOOL, tuple(convert(arg, BOOL) if arg.type is rules.NULL else arg for arg in args)


def _float_to_bool(expr: Call, args: tuple[Typed, ...]) -> Bound:
    (arg,) = _without_null(args, FLOAT64)
    if not arg.type.is_float:
        _mismatch(expr, args, f"{expr.fn} takes a float, found")
    return BOOL, (arg,)


def _common_result(expr: Call, args: tuple[Typed, ...]) -> Bound:
    kind = _common(expr, args)
    if kind.name in ("List", "Struct") and expr.fn != "coalesce":
        raise Unsupported(f"comparing {kind} in `{expr!s}`")
    return kind, args if kind is rules.NULL else _all_as(args, kind)


def _first_of_common(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return _common_result(expr, args)


def _text(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = tuple(_expect(expr, arg, "Utf8") for arg in args)
    if expr.fn == "replace":
        _require_literals(expr, operands[1:])
    return UTF8, operands


def _text_slice(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, *bounds = args
    start, *length = [_literal_int(expr, bound) for bound in bounds]
    if start == 0 or any(count < 0 for count in length):
        raise UsageError(f"substr counts from 1, or from the end by -1, in `{expr!s}`")
    return UTF8, (_expect(expr, text, "Utf8"), *bounds)


def _text_to_int(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return INT64, tuple(_expect(expr, arg, "Utf8") for arg in args)


def _text_to_bool(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, part = (_expect(expr, arg, "Utf8") for arg in args)
    _require_literals(expr, (part,))
    return BOOL, (text, part)


def _date_part(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return INT64, (_moment(expr, args, ("Date", "Timestamp")),)


def _time_part(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return INT64, (_moment(expr, args, ("Timestamp",)),)


def _moment(expr: Call, args: tuple[Typed, ...], names: tuple[str, ...]) -> Typed:
    (arg,) = _without_null(args, DataType("Timestamp", unit="us"))
    if arg.type.name not in names:
        _mismatch(expr, args, f"{expr.fn} takes a {' or '.join(names)}, found")
    return arg


_RULES = {
    "arithmetic": _arithmetic,
    "quotient": _quotient,
    "integers": _integers,
    "remainder": _remainder,
    "number": _number,
    "rounding": _rounding,
    "comparison": _comparison,
    "logic": _logic,
    "any_to_bool": _any_to_bool,
    "float_to_bool": _float_to_bool,
    "common": _common_result,
    "first_of_common": _first_of_common,
    "text": _text,
    "text_slice": _text_slice,
    "text_to_int": _text_to_int,
    "text_to_bool": _text_to_bool,
    "date_part": _date_part,
    "time_part": _time_part,
}

# What the rules share ---------------------------------------------------------------------------


def _all_as(args: tuple[Typed, ...], kind: DataType) -> tuple[Typed, ...]:
    return tuple(convert(arg, kind) for arg in args)


def _without_null(args: tuple[Typed, ...], kind: DataType = INT64) -> tuple[Typed, ...]:
    """Return `args` with each untyped NULL taking the type of its neighbours, or `kind`."""
    known = [arg.type for arg in args if arg.type is not rules.NULL]
    adopted = known[0] if known else kind
    return tuple(convert(arg, adopted) if arg.type is rules.NULL else arg for arg in args)


def _common(expr: Expr, args: tuple[Typed, ...], otherwise: DataType = rules.NULL) -> DataType:
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
        _mismatch(expr, (first, arg), "these do not compare:")
    return joined


def _wide_integer(expr: Call, args: tuple[Typed, ...]) -> DataType:
    """Return the type integers are computed in: Int64, or UInt64 when all are unsigned."""
    if all(arg.type.name != "UInt64" for arg in args):
        return INT64
    for arg in args:
        unsigned = arg.type.name.startswith("U")
        constant = arg.op == "literal" and (arg.value is None or arg.value >= 0)
        if not unsigned and not constant:
            _mismatch(expr, args, "no integer type holds both; cast one, found")
    return DataType("UInt64")


def _expect(expr: Expr, arg: Typed, name: str) -> Typed:
    if arg.type is rules.NULL:
        return convert(arg, DataType(name))
    if arg.type.name != name:
        hint = (
            'cast it: .cast("Utf8")' if name == "Utf8" and rules.castable(arg.type, UTF8) else None
        )
        _mismatch(expr, (arg,), f"expected {name}, found", hint)
    return arg


def _require_numbers(expr: Call, args: tuple[Typed, ...]) -> None:
    if not all(arg.type.is_numeric or arg.type is rules.NULL for arg in args):
        _mismatch(expr, args, f"{FUNCTIONS[expr.fn].symbol or expr.fn} takes numbers, found")


def _require_literals(expr: Call, args: tuple[Typed, ...]) -> None:
    if not all(arg.op == "literal" for arg in args):
        raise Unsupported(f"{expr.fn} with a pattern that is not a constant, in `{expr!s}`")


def _literal_int(expr: Call, arg: Typed) -> int:
    if arg.op != "literal" or not arg.type.is_integer or arg.value is None:
        raise Unsupported(
            f"{expr.fn} with a position that is not a constant integer, in `{expr!s}`"
        )
    return int(arg.value)


def _mismatch(
    expr: Expr, args: tuple[Typed, ...], reason: str, hint: str | None = None
) -> NoReturn:
    named = " and ".join(f"{arg.source!s} ({arg.type})" for arg in args)
    types = tuple(str(arg.type) for arg in args)
    raise TypeMismatch(str(expr), types, f"{reason} {named}", hint=hint)
