"""Convert outer joins to inner joins below a filter that rejects the rows made of NULLs.

(Galindo-Legaria and Rosenthal, "Outerjoin simplification and reordering for query optimization",
TODS 22(1), 1997.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from emsqrt.expr import Call, Cast, Column, Expr, Literal
from emsqrt.plan import Join, JoinKind
from emsqrt.plan.joining import join_schema, right_names, shared_keys
from sennit_core.schema import Schema

_STRICT = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "div", "not", "neg"})
"""Functions whose result is NULL whenever an argument is."""
_STRICT_IN_FIRST = frozenset({"between", "is_in", "like", "ilike"})
_WITHOUT_LEFT_NULLS: dict[JoinKind, JoinKind] = {"right": "inner", "full": "left"}
_WITHOUT_RIGHT_NULLS: dict[JoinKind, JoinKind] = {"left": "inner", "full": "right"}


def without_nulls(node: Join, terms: Iterable[Expr], left: Schema, right: Schema) -> Join:
    """Return the join without the unmatched rows that a filter above it rejects.

    Args:
        node: the join.
        terms: of the filter, over the join's columns.
        left: columns of its left input.
        right: of its right input.
    """
    kept = tuple(terms)
    shared = shared_keys(node)
    of_left = frozenset(left.names) - frozenset(shared)
    of_right = frozenset(right_names(node, left, right).values())
    how: JoinKind = node.how
    # The filter drops every row whose right side is missing: unmatched left rows need not be made.
    if any(_never_true(term, of_right) for term in kept):
        how = _WITHOUT_RIGHT_NULLS.get(how, how)
    if any(_never_true(term, of_left) for term in kept):
        how = _WITHOUT_LEFT_NULLS.get(how, how)
    if how == node.how:
        return node
    changed = replace(node, how=how)
    # A key with different types on the two sides, or a column that may not be NULL, would change.
    same = join_schema(changed, left, right) == join_schema(node, left, right)
    return changed if same else node


def _never_true(expr: Expr, absent: frozenset[str]) -> bool:
    """Return whether `expr` cannot be true if all columns of `absent` are NULL."""
    match expr:
        # One term that is never true is enough for `and`; for `or` all must be.
        case Call("and", args):
            return any(_never_true(arg, absent) for arg in args)
        case Call("or", args):
            return all(_never_true(arg, absent) for arg in args)
        case Call("not", (Call("is_null", (arg,)),)):
            return _is_null(arg, absent)
        case Literal(value=value):
            return value is not True
    return _is_null(expr, absent)


def _is_null(expr: Expr, absent: frozenset[str]) -> bool:
    match expr:
        case Column(name):
            return name in absent
        case Literal(value=value):
            return value is None
        case Cast(arg):
            return _is_null(arg, absent)
        case Call(fn, args) if fn in _STRICT:
            return any(_is_null(arg, absent) for arg in args)
        case Call(fn, (arg, *_)) if fn in _STRICT_IN_FIRST:
            return _is_null(arg, absent)
    return False
