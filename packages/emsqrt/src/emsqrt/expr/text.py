"""Render an expression as text that `parse_expr` parses back to the same tree."""

from __future__ import annotations

from emsqrt.expr.functions import FUNCTIONS
from emsqrt.expr.lexer import KEYWORDS
from emsqrt.expr.literals import spell
from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr, Literal, Value
from sennit_core.schema import DataType

OR, AND, NOT, COMPARISON, JOIN, SUM, PRODUCT, SIGN, ATOM = range(1, 10)
"""Precedence of each form, loosest first."""

BINDING = {
    "or": OR,
    "and": AND,
    "concat": JOIN,
    "add": SUM,
    "sub": SUM,
    "mul": PRODUCT,
    "div": PRODUCT,
    "idiv": PRODUCT,
    "mod": PRODUCT,
}


def to_text(expr: Expr) -> str:
    """Return `expr` in the language of `parse_expr`, without unnecessary brackets."""
    return _text(expr, OR)


def _text(expr: Expr, least: int) -> str:
    """Write `expr`; bracket it if it binds less tightly than `least`."""
    text, binding = _form(expr)
    return text if binding >= least else f"({text})"


def _form(expr: Expr) -> tuple[str, int]:
    match expr:
        case Column(name):
            return column_text(name), ATOM
        case Literal(value, kind):
            return _literal(value, kind)
        case Cast(arg, kind, strict):
            return f"{'cast' if strict else 'try_cast'}({_text(arg, OR)} as {kind})", ATOM
        case Case(branches, default):
            pairs = " ".join(f"when {_text(w, OR)} then {_text(t, OR)}" for w, t in branches)
            last = "" if default is None else f" else {_text(default, OR)}"
            return f"case {pairs}{last} end", ATOM
        case Agg(fn, arg, distinct, params):
            inner = "*" if arg is None else ", ".join(_text(each, OR) for each in (arg, *params))
            return f"{fn}({'distinct ' if distinct else ''}{inner})", ATOM
        case Call(fn, args):
            return _call(fn, args)
        case _:
            raise AssertionError(f"not an expression node: {type(expr).__name__}")


def _call(fn: str, args: tuple[Expr, ...]) -> tuple[str, int]:
    if fn in BINDING:
        return _operators(fn, args), BINDING[fn]
    match fn, args:
        case (("eq" | "ne" | "lt" | "le" | "gt" | "ge"), (left, right)):
            symbol = FUNCTIONS[fn].symbol
            return f"{_text(left, JOIN)} {symbol} {_text(right, JOIN)}", COMPARISON
        case "not", (Call("is_null", (arg,)),):
            return f"{_text(arg, JOIN)} is not null", COMPARISON
        case "not", (arg,):
            return f"not {_text(arg, NOT)}", NOT
        case "neg", (arg,):
            # A bare number would be parsed as a negative literal.
            bare = isinstance(arg, Literal)
            return f"-{'(' * bare}{_text(arg, SIGN)}{')' * bare}", SIGN
        case "is_null", (arg,):
            return f"{_text(arg, JOIN)} is null", COMPARISON
        case "is_in", (arg, *values):
            listed = ", ".join(_text(value, OR) for value in values)
            return f"{_text(arg, JOIN)} in ({listed})", COMPARISON
        case "between", (arg, low, high):
            return (
                f"{_text(arg, JOIN)} between {_text(low, JOIN)} and {_text(high, JOIN)}",
                COMPARISON,
            )
        case (("like" | "ilike"), (arg, pattern)):
            return f"{_text(arg, JOIN)} {fn} {_text(pattern, JOIN)}", COMPARISON
        case _:
            return f"{fn}({', '.join(_text(arg, OR) for arg in args)})", ATOM


def _operators(fn: str, args: tuple[Expr, ...]) -> str:
    symbol = {"or": "or", "and": "and", "concat": "||"}.get(fn) or FUNCTIONS[fn].symbol
    binding = BINDING[fn]
    # All of these are left-associative, so only the first operand may bind as loosely.
    first = binding + 1 if fn in ("or", "and", "concat") else binding
    parts = [_text(args[0], first), *(_text(arg, binding + 1) for arg in args[1:])]
    return f" {symbol} ".join(parts)


def _literal(value: Value | None, kind: DataType | None) -> tuple[str, int]:
    if kind is None:
        return "null", ATOM
    name = str(kind)
    if value is None:
        return f"{name} null", ATOM
    match name, value:
        case "Bool", _:
            return str(value).lower(), ATOM
        case "Int64", int():
            return str(value), ATOM if value >= 0 else SIGN
        case "Float64", float() if abs(value) < float("inf"):
            text = repr(value)
            return text, SIGN if text.startswith("-") else ATOM
        case "Utf8", str():
            return "'" + value.replace("'", "''") + "'", ATOM
        case _:
            return f"{name} '{spell(value, kind)}'", ATOM


def column_text(name: str) -> str:
    """Return a column's name, in backticks when it is no plain name."""
    if name.isidentifier() and name.lower() not in KEYWORDS:
        return name
    return "`" + name.replace("`", "``") + "`"
