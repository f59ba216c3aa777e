"""Substitute expressions for columns, with helpers on expression trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emsqrt.expr import Agg, Call, Case, Cast, Column, Expr, Literal
from emsqrt.expr.walk import children

CHEAP_NODES = 3
"""An expression of at most this many nodes may be evaluated twice."""


def substitute(expr: Expr, columns: Mapping[str, Expr]) -> Expr:
    """Return `expr` with each column that `columns` names replaced by its expression."""
    match expr:
        case Column(name):
            return columns.get(name, expr)
        case Call(args=args):
            return replace(expr, args=tuple(substitute(arg, columns) for arg in args))
        case Cast(arg=arg):
            return replace(expr, arg=substitute(arg, columns))
        case Case(branches=branches, default=default):
            pairs = tuple((substitute(w, columns), substitute(t, columns)) for w, t in branches)
            return Case(pairs, None if default is None else substitute(default, columns))
        case Agg(arg=arg) if arg is not None:
            return replace(expr, arg=substitute(arg, columns))
        case _:
            return expr


def size_of(expr: Expr) -> int:
    """Return the number of nodes of `expr`."""
    return 1 + sum(map(size_of, children(expr)))


def uses_of(expr: Expr) -> dict[str, int]:
    """Return how often each column occurs in `expr`."""
    if isinstance(expr, Column):
        return {expr.name: 1}
    found: dict[str, int] = {}
    for child in children(expr):
        for name, count in uses_of(child).items():
            found[name] = found.get(name, 0) + count
    return found


def conjuncts(predicate: Expr) -> list[Expr]:
    """Return the terms of a conjunction, from left to right."""
    if isinstance(predicate, Call) and predicate.fn == "and":
        return [term for arg in predicate.args for term in conjuncts(arg)]
    return [predicate]


def conjunction(terms: list[Expr]) -> Expr:
    """Return the conjunction of at least one term."""
    if len(terms) == 1:
        return terms[0]
    return Call("and", tuple(terms))


def is_constant(expr: Expr, value: object) -> bool:
    """Return whether `expr` is the literal `value`, compared by identity: True, False or None."""
    return isinstance(expr, Literal) and expr.value is value
