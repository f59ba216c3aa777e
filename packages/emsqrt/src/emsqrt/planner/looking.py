"""Find the columns whose values an estimate depends on; of the others only the size counts."""

from __future__ import annotations

from emsqrt.expr.walk import columns_of
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    WithColumn,
    walk,
)


def names_looked_at(plan: Plan) -> frozenset[str] | None:
    """Return the names of columns whose values are used; None for all.

    A name counts wherever it occurs, whichever node computes the column.
    """
    nodes = tuple(walk(plan))
    if any(isinstance(node, Distinct) and node.columns is None for node in nodes):
        return None
    names = {name for node in nodes for name in _own(node)}
    # From the top down: `walk` yields inputs first.
    for node in reversed(nodes):
        names |= _below(node, names)
    return frozenset(names)


def _own(node: Plan) -> frozenset[str]:
    match node:
        case Filter(predicate=predicate):
            return columns_of(predicate)
        case Aggregate(keys=keys):
            return frozenset(name for _, expr in keys for name in columns_of(expr))
        case Join(on=on):
            return frozenset(name for pair in on for name in pair)
        case Distinct(columns=columns):
            return frozenset(columns or ())
    return frozenset()


def _below(node: Plan, names: set[str]) -> set[str]:
    """Return the names that these columns have below a node that renames them."""
    match node:
        case Project(columns=made) | WithColumn(columns=made):
            return {old for new, expr in made if new in names for old in columns_of(expr)}
        case Rename(names=renamed):
            return {old for old, new in renamed if new in names}
        case Join(suffix=suffix):
            # A name may or may not have the suffix; naming a column too many costs only a sample of
            # it.
            return {name.removesuffix(suffix) for name in names}
    return set()
