"""Type checking: every expression has a type, determined before any row is read.

`bind` converts a tree over names into a `Typed` tree with explicit conversions, so that an engine
only sees operands of equal type. The rules are the table in `docs/plan-ir.md`.
"""

from __future__ import annotations

import math

from emsqrt.expr import rules, signatures, signatures_text, signatures_time
from emsqrt.expr.errors import BadPlan
from emsqrt.expr.functions import Function, function
from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr, Literal
from emsqrt.expr.typed import FLOAT64, Typed, common, convert, expect
from emsqrt.expr.walk import depth_of
from emsqrt.expr.wire import EXPR_DEPTH_MAX
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Schema


def infer(expr: Expr, schema: Schema) -> DataType:
    """Return the type of `expr` over rows of `schema`; raises as `bind`."""
    return bind(expr, schema).type


def bind(expr: Expr, schema: Schema) -> Typed:
    """Return `expr` typed and with explicit conversions.

    Raises:
        UnknownColumn: a column the schema does not have.
        TypeMismatch: incompatible operands; names them and their types.
        Unsupported: a type or function that no engine supports here.
        UsageError: an aggregate inside a row's expression, a NULL without a type.
    """
    if depth_of(expr) > EXPR_DEPTH_MAX:
        raise BadPlan(
            pointer="", reason=f"an expression nested deeper than {EXPR_DEPTH_MAX} levels"
        )
    typed = _bind(expr, schema)
    if typed.type is rules.NULL:
        raise UsageError(
            f"the type of {expr!s} is unknown", hint='specify the type of NULL: lit(None, "Int64")'
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


def _bind_case(expr: Case, schema: Schema) -> Typed:
    whens = [_bind(when, schema) for when, _ in expr.branches]
    thens = [_bind(then, schema) for _, then in expr.branches]
    default = Literal(None, None) if expr.default is None else expr.default
    results = (*thens, _bind(default, schema))
    kind = common(expr, results)
    conditions = [expect(expr, when, "Bool") for when in whens]
    values = [convert(result, kind) for result in results]
    pairs = zip(conditions, values, strict=False)
    args = (*(part for pair in pairs for part in pair), values[-1])
    return Typed("case", kind, args, source=expr, fallible=any(arg.fallible for arg in args))


def _bind_call(expr: Call, fn: Function, args: tuple[Typed, ...]) -> Typed:
    if not fn.args_min <= len(args) <= fn.args_max:
        raise UsageError(f"{fn.name} does not accept {len(args)} argument(s) in `{expr!s}`")
    if fn.name == "pi":
        return Typed("literal", FLOAT64, value=math.pi, source=expr)
    kind, operands = _RULES[fn.rule](expr, args)
    fallible = fn.fallible and rules.may_fail(fn.name, kind)
    return Typed(
        fn.name, kind, operands, source=expr, fallible=fallible or any(a.fallible for a in operands)
    )


_RULES = {**signatures.RULES, **signatures_text.RULES, **signatures_time.RULES}
