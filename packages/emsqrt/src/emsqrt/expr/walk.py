"""Functions over whole expression trees: operands, depth, columns read, equality."""

from __future__ import annotations

from typing import Any

from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the direct operands of `expr`, in order."""
    match expr:
        case Call(args=args):
            return args
        case Cast(arg=arg):
            return (arg,)
        case Case(branches=branches, default=default):
            flat = tuple(part for branch in branches for part in branch)
            return flat if default is None else (*flat, default)
        case Agg(arg=arg) if arg is not None:
            return (arg,)
        case _:
            return ()


def depth_of(expr: Expr) -> int:
    """Return how many levels deep `expr` is; a column is 1. Safe for any depth."""
    level, depth = [expr], 0
    while level:
        level, depth = [child for parent in level for child in children(parent)], depth + 1
    return depth


def columns_of(expr: Expr) -> frozenset[str]:
    """Return the names of the columns that `expr` reads."""
    if isinstance(expr, Column):
        return frozenset((expr.name,))
    return frozenset().union(*map(columns_of, children(expr)))


def same(left: Any, right: Any) -> bool:
    """Compare two trees; floats by their bits, so NaN is itself and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    match left:
        case tuple():
            return len(left) == len(right) and all(map(same, left, right))
        case float():
            return left.hex() == float.hex(right)
        case Expr():
            names: tuple[str, ...] = tuple(left.__slots__)
            return all(same(getattr(left, name), getattr(right, name)) for name in names)
        case _:
            return bool(left == right)
