"""Convert expressions to JSON and back; the form is defined in `emsqrt/plan/schema.json`.

```
{"col": name}    {"lit": text, "type": T}    {"fn": name, "args": […]}    {"cast": e, "type": T}
{"case": [{"when": e, "then": e}], "else": e}
{"agg": name, "arg": e, "distinct": true, "params": [{"lit": …}]}
```
A member with its default value is omitted when written and optional when read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emsqrt.expr.aggregates import check_params
from emsqrt.expr.document import Entry, Json, open_document
from emsqrt.expr.errors import BadPlan
from emsqrt.expr.functions import MANY, check_aggregate, function
from emsqrt.expr.literals import read_literal, spell
from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr, Literal
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType

EXPR_DEPTH_MAX = 100
"""Levels of nesting in one expression; each needs up to three levels of JSON."""


def expr_to_json(expr: Expr, depth: int = 1) -> Json:
    """Return the JSON object of `expr`; its canonical text is `canonical_json` of it.

    Raises:
        BadPlan: nested deeper than a reader accepts.
    """
    _check_depth(depth, "")
    below = depth + 1
    match expr:
        case Column(name):
            return {"col": name}
        case Literal(value, None):
            return {"lit": value}
        case Literal(value, kind) if kind is not None:
            return {"lit": spell(value, kind), "type": str(kind)}
        case Call(fn, args):
            return {"fn": fn, "args": [expr_to_json(arg, below) for arg in args]}
        case Cast(arg, kind, strict):
            cast = {"cast": expr_to_json(arg, below), "type": str(kind)}
            return cast if strict else {**cast, "strict": False}
        case Case(branches, default):
            pairs = [(expr_to_json(w, below), expr_to_json(t, below)) for w, t in branches]
            case: Json = {"case": [{"when": when, "then": then} for when, then in pairs]}
            return case if default is None else {**case, "else": expr_to_json(default, below)}
        case Agg(fn, arg, distinct, params):
            agg: Json = {"agg": fn}
            if arg is not None:
                agg["arg"] = expr_to_json(arg, below)
            if params:
                agg["params"] = [expr_to_json(param, below) for param in params]
            return {**agg, "distinct": True} if distinct else agg
        case _:
            raise AssertionError(f"not an expression node: {type(expr).__name__}")


def expr_from_json(source: str | bytes | Mapping[str, Any]) -> Expr:
    """Return the expression written in untrusted JSON.

    Raises:
        BadPlan: not an expression; the error's `pointer` is the position.
        Unsupported: it names a function or type that is reserved for later.
        TooLarge: over the limits of `open_document`.
    """
    return read_expr(open_document(source))


def _check_depth(depth: int, pointer: str) -> None:
    if depth > EXPR_DEPTH_MAX:
        raise BadPlan(
            pointer=pointer, reason=f"an expression nested deeper than {EXPR_DEPTH_MAX} levels"
        )


def read_expr(entry: Entry, depth: int = 1) -> Expr:
    """Return the expression at `entry`."""
    _check_depth(depth, entry.pointer)
    if not isinstance(entry.value, dict):
        entry.members(())
    forms = [form for form in _READERS if form in entry.value]
    if len(forms) != 1:
        entry.fail(f"an expression has exactly one of the members {', '.join(_READERS)}")
    return _READERS[forms[0]](entry, depth + 1)


def read_type(entry: Entry) -> DataType:
    """Return the data type named at `entry`."""
    text = entry.text()
    try:
        kind = DataType.parse(text)
    except Unsupported:
        raise
    except UsageError as error:
        entry.fail(str(error), hint=error.hint)
    if str(kind) != text:
        entry.fail(f"{text!r} is not the canonical name of this type", hint=f"write {str(kind)!r}")
    return kind


def _column(entry: Entry, _below: int) -> Expr:
    return Column(entry.members(("col",)).at("col").text())


def _literal(entry: Entry, _below: int) -> Expr:
    entry.members(("lit",), ("type",))
    if entry.find("type") is None:
        if entry.value["lit"] is not None:
            entry.fail("member 'type' is missing: only a NULL literal may go without")
        return Literal(None, None)
    kind = read_type(entry.at("type"))
    return Literal(read_literal(entry.at("lit"), kind), kind)


def _call(entry: Entry, below: int) -> Expr:
    entry.members(("fn", "args"))
    name, args = entry.at("fn").text(), entry.at("args").items()
    try:
        known = function(name)
    except Unsupported:
        raise
    except UsageError as error:
        entry.at("fn").fail(str(error), hint=error.hint)
    if not known.args_min <= len(args) <= known.args_max:
        entry.at("args").fail(
            f"{name} takes {_arity(known.args_min, known.args_max)}, not {len(args)}"
        )
    return Call(name, tuple(read_expr(arg, below) for arg in args))


def _arity(low: int, high: int) -> str:
    if low == high:
        return f"{low} argument(s)"
    return f"{low} or more arguments" if high == MANY else f"{low} to {high} arguments"


def _cast(entry: Entry, below: int) -> Expr:
    entry.members(("cast", "type"), ("strict",))
    strict = entry.find("strict")
    kind = read_type(entry.at("type"))
    return Cast(read_expr(entry.at("cast"), below), kind, strict is None or strict.boolean())


def _case(entry: Entry, below: int) -> Expr:
    entry.members(("case",), ("else",))
    branches = [branch.members(("when", "then")) for branch in entry.at("case").items(minimum=1)]
    default = entry.find("else")
    return Case(
        tuple(
            (read_expr(branch.at("when"), below), read_expr(branch.at("then"), below))
            for branch in branches
        ),
        None if default is None else read_expr(default, below),
    )


def _aggregate(entry: Entry, below: int) -> Expr:
    entry.members(("agg",), ("arg", "distinct", "params"))
    try:
        name = check_aggregate(entry.at("agg").text())
    except Unsupported:
        raise
    except UsageError as error:
        entry.at("agg").fail(str(error), hint=error.hint)
    arg, distinct = entry.find("arg"), entry.find("distinct")
    if arg is None and name != "count":
        entry.fail(f"{name} needs an 'arg': only count goes without")
    return Agg(
        name,
        None if arg is None else read_expr(arg, below),
        distinct is not None and distinct.boolean(),
        _params(entry, name, below),
    )


def _params(entry: Entry, name: str, below: int) -> tuple[Literal, ...]:
    constants = entry.find("params")
    read = [] if constants is None else [read_expr(item, below) for item in constants.items()]
    try:
        return check_params(name, read)
    except UsageError as error:
        (constants or entry).fail(str(error), hint=error.hint)


_READERS = {
    "col": _column,
    "lit": _literal,
    "fn": _call,
    "cast": _cast,
    "case": _case,
    "agg": _aggregate,
}
