"""Orders of rows: the columns that they are sorted by, and whether the order is observable.

An operator may read rows in any order if its own rows do not depend on it: an aggregate's states
are the same in any order, except first and last. A join whose order is not observable need not
restore it after partitioning, and a sort there is useless.

(Interesting orders: Selinger et al., "Access path selection in a relational database management
system", SIGMOD 1979.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from emsqrt.expr import Column, Expr
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Sort,
    SortKey,
    TopK,
    Union,
    Window,
    WithColumn,
    inputs_of,
    walk,
    with_inputs,
)
from emsqrt.plan.joining import LEFT_ONLY, join_key_types
from emsqrt.planner.schemas import schemas_known, schemas_of
from sennit_core.schema import Schema

Order: TypeAlias = tuple[str, ...]
"""Columns by which rows are sorted, ascending and NULL last; empty when unknown."""

_BY_PLACE = frozenset({"first", "last"})
_KEEPS_LEFT_ORDER = frozenset({"inner", "left", "semi", "anti", "cross"})


def order_seen(plan: Plan) -> tuple[bool, ...]:
    """Return for each node, in the order of `walk`, whether its rows' order affects the result.

    The consumer of the last node counts as observing it.
    """
    nodes, inputs = _tree(plan)
    seen = [True] * len(nodes)
    # From the top down: whether a node's order matters depends on the node above it.
    for place in reversed(range(len(nodes))):
        looks = _looks(nodes[place], seen=seen[place])
        for below, look in zip(inputs[place], looks, strict=True):
            seen[below] = look
    return tuple(seen)


def orders_of(plan: Plan) -> tuple[Order, ...]:
    """Return for each node, in the order of `walk`, the columns that its rows are sorted by.

    The scans of the plan must have schemas.
    """
    schemas = schemas_of(plan)
    nodes, inputs = _tree(plan)
    orders: list[Order] = []
    for place, node in enumerate(nodes):
        below = tuple(orders[each] for each in inputs[place])
        orders.append(order_of(node, below, schemas[id(node)].names))
    return tuple(orders)


def merge_keys(node: Join, orders: tuple[Order, Order], schemas: tuple[Schema, Schema]) -> Order:
    """Return the left keys in the order by which both sides are sorted; empty when they are not.

    Args:
        node: the join.
        orders: of its inputs.
        schemas: of its inputs; the type in which keys are compared must not reorder values.
    """
    keys = node.on
    left, right = (order[: len(keys)] for order in orders)
    # Both sides must be sorted by the same keys in the same order: (a, b) and (x, y) for a = x and
    # b = y.
    if set(zip(left, right, strict=False)) != set(keys) or len(set(keys)) < len(keys):
        return ()
    types = join_key_types(node, *schemas)
    for pair, kind in zip(keys, types, strict=True):
        own = (schema.field(name).type for schema, name in zip(schemas, pair, strict=True))
        # A key that is converted to be compared may have another order: an integer as a float, for
        # example.
        if any(each != kind for each in own):
            return ()
    return left


def drop_sorts(plan: Plan, folder: Path) -> Plan:
    """Remove sorts whose order is not observable, and sorts of rows that are already in order."""
    del folder
    if not schemas_known(plan):
        return plan
    seen, orders = order_seen(plan), orders_of(plan)
    nodes, inputs = _tree(plan)
    made: list[Plan] = []
    for place, node in enumerate(nodes):
        changed = with_inputs(node, [made[each] for each in inputs[place]])
        order = orders[inputs[place][0]] if inputs[place] else ()
        made.append(_without_sort(changed, order, seen=seen[place]))
    return made[-1]


def _without_sort(node: Plan, order: Order, *, seen: bool) -> Plan:
    match node:
        case Sort(below, keys):
            return below if not seen or _sorted_by(keys, order) else node
        case TopK(below, keys, count, offset) if _sorted_by(keys, order):
            return Limit(below, count, offset)
    return node


def _sorted_by(keys: Sequence[SortKey], order: Order) -> bool:
    """Return whether rows in `order` are unchanged by a sort by `keys`."""
    known = _plain(keys)
    return len(known) == len(keys) and order[: len(known)] == known


def _tree(plan: Plan) -> tuple[list[Plan], list[tuple[int, ...]]]:
    """Return the nodes in the order of `walk`, and the indexes of the inputs of each."""
    nodes: list[Plan] = []
    inputs: list[tuple[int, ...]] = []
    waiting: list[int] = []
    for place, node in enumerate(walk(plan)):
        first = len(waiting) - len(inputs_of(node))
        nodes.append(node)
        inputs.append(tuple(waiting[first:]))
        waiting[first:] = [place]
    return nodes, inputs


def _looks(node: Plan, *, seen: bool) -> tuple[bool, ...]:
    """Return for each input whether its order is observable if the node's own is `seen`."""
    match node:
        case Aggregate(aggs=aggs):
            return (any(agg.fn in _BY_PLACE for _, agg in aggs),)
        # The first row of each key is kept, unless all columns are the key.
        case Distinct(columns=columns):
            return (columns is not None,)
        # Matches are in the order of the right side; semi and anti joins write no right row.
        case Join(how=how):
            return (seen, seen and how not in LEFT_ONLY)
        case Union(inputs=inputs):
            return (seen,) * len(inputs)
        case Filter() | Project() | WithColumn() | Rename() | Explode():
            return (seen,)
    return (True,) * len(inputs_of(node))


# The columns that rows are sorted by ---------------------------------------------------------


def order_of(node: Plan, below: tuple[Order, ...], names: Sequence[str]) -> Order:
    """Return the columns that a node's rows are sorted by, if it keeps its promised order.

    Args:
        node: the node without its inputs.
        below: the columns that its inputs are sorted by.
        names: of its columns.
    """
    if isinstance(node, Distinct):
        return node.columns or tuple(names)
    rule = _ORDERS.get(type(node))
    return () if rule is None else _until(rule(node, below), frozenset(names).__contains__)


def _until(order: Sequence[str], keeps: Callable[[str], bool]) -> Order:
    """Return the columns before the first one that is not kept."""
    kept: list[str] = []
    for name in order:
        if not keeps(name):
            break
        kept.append(name)
    return tuple(kept)


def _plain(keys: Sequence[SortKey]) -> Order:
    """Return the leading sort keys that are ascending columns with NULL last."""
    names: list[str] = []
    for key in keys:
        if not isinstance(key.expr, Column) or key.descending or key.nulls_first:
            break
        names.append(key.expr.name)
    return tuple(dict.fromkeys(names)) if len(set(names)) == len(names) else ()


def _sort(node: Sort | TopK, below: tuple[Order, ...]) -> Order:
    names = _plain(node.keys)
    # Rows that are equal by all keys keep their order.
    return names if len(names) < len(node.keys) else tuple(dict.fromkeys((*names, *below[0])))


def _project(columns: Sequence[tuple[str, Expr]], order: Order) -> Order:
    names: dict[str, str] = {}
    for name, expr in columns:
        if isinstance(expr, Column):
            names.setdefault(expr.name, name)
    return tuple(names[name] for name in _until(order, names.__contains__))


def _rename(node: Rename, below: tuple[Order, ...]) -> Order:
    names = dict(node.names)
    return tuple(names.get(name, name) for name in below[0])


def _with_column(node: WithColumn, below: tuple[Order, ...]) -> Order:
    made = {name for name, _ in node.columns}
    return _until(below[0], lambda name: name not in made)


def _aggregate(node: Aggregate, _: tuple[Order, ...]) -> Order:
    return tuple(name for name, _ in node.keys) if node.phase == "full" else ()


def _join(node: Join, below: tuple[Order, ...]) -> Order:
    return below[0] if node.how in _KEEPS_LEFT_ORDER else ()


def _window(node: Window, _: tuple[Order, ...]) -> Order:
    by = [SortKey(expr) for expr in node.partition_by]
    made = {name for name, _ in node.functions}
    return _until(_plain([*by, *node.order_by]), lambda name: name not in made)


_ORDERS: dict[type[Plan], Callable[[Any, tuple[Order, ...]], Order]] = {
    Sort: _sort,
    TopK: _sort,
    Project: lambda node, below: _project(node.columns, below[0]),
    Rename: _rename,
    WithColumn: _with_column,
    Aggregate: _aggregate,
    Join: _join,
    Window: _window,
    Filter: lambda _, below: below[0],
    Limit: lambda _, below: below[0],
    Expect: lambda _, below: below[0],
    Sample: lambda node, below: below[0] if node.fraction is not None else (),
}
"""The order of nodes that are not listed is unknown: scans, unions, explode, custom nodes."""
