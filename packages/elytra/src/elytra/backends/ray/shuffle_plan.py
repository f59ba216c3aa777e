"""What a shuffle may do with a plan: pure functions of plans, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from elytra.backends.ray.partitions import KEY, POSITION, TYPES
from elytra.functions.step import FunctionStep, is_function
from emsqrt.expr import Cast, Expr, coalesce, col, lit
from emsqrt.expr.check import bind, infer
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Explode,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    Scan,
    Sort,
    Window,
    WithColumn,
    check,
    inputs_of,
    partial_schema,
    rewrite,
    walk,
)
from emsqrt.plan.joining import join_key_types, right_names
from emsqrt.planner import (
    drop_sorts,
    fold_constants,
    optimize,
    order_seen,
    prune_columns,
    push_down_filters,
)
from sennit_core.schema import DataType, Schema

__all__ = [
    "EACH_ROW",
    "Exchange",
    "exchange_of",
    "is_decomposable",
    "is_each_row",
    "ordered_joins",
    "pruned",
    "sent_sides",
    "shuffles",
    "with_one_position",
]

EACH_ROW = (Filter, Project, Rename, WithColumn, Explode)
"""Operators whose rows depend on one row of the input each."""
_BY_LEFT_ROW = ("inner", "left", "semi", "anti", "cross")
"""Joins whose rows each depend on one row of the left side, and come in its order."""
_BY_RIGHT_ROW = ("inner", "right", "cross")
"""Joins whose rows each depend on one row of the right side, in another order."""
_INT8 = DataType.parse("Int8")
_UNMATCHED = 1 << 62
"""Added to the positions of right rows without a match, which come after all others."""


def is_each_row(node: Plan) -> bool:
    """Whether the rows of an operator of one input depend on one row of it each."""
    if is_function(node):
        return FunctionStep.from_json(node.options).is_of_each_row
    return isinstance(node, EACH_ROW)


@dataclass(frozen=True, slots=True)
class Exchange:
    """By what rows are partitioned.

    Args:
        keys: The key in each input.
        descending: Whether the first partition has the largest keys.
        nulls_first: Whether it has the rows without a key.
    """

    keys: tuple[Expr, ...]
    descending: bool = False
    nulls_first: bool = False


def shuffles(plan: Plan) -> bool:
    """Whether any operator of a typed plan can be run by ranges of keys, or with a side at all workers."""
    return any(exchange_of(node) is not None or isinstance(node, Join) for node in walk(plan))


def pruned(plan: Plan) -> Plan:
    """Return a plan with the same rows, whose operators pass on only what those above them need.

    Executors optimize what they run. But a stage ends at an exchange, and they do not see the columns and
    filters above it.
    """
    found = optimize(plan, rules=(fold_constants, push_down_filters, drop_sorts, prune_columns))
    # Hints for a reader are no part of a plan that is sent; the executor finds them again.
    return rewrite(found, lambda node: _without_hint(node) if isinstance(node, Scan) else node)


def exchange_of(node: Plan) -> Exchange | None:
    """Return by what the inputs of an operator are partitioned, so that it can run on each partition.

    The rows of the partitions, one after the other, are those of the operator; for a join in another
    order. None if it needs all rows together.
    """
    schemas = [check(each) for each in inputs_of(node)]
    if _has_own_columns(schemas):
        return None
    match node:
        case Aggregate(keys=((_, key), *_)):
            return _exchange([key], schemas)
        case Distinct(columns=columns):
            first = (columns or schemas[0].names)[0]
            return _exchange([col(first)], schemas)
        case Sort(keys=(key, *_)):
            found = _exchange([key.expr], schemas)
            nulls_first = bool(key.nulls_first)
            return found and replace(found, descending=key.descending, nulls_first=nulls_first)
        case Window(partition_by=(key, *_)):
            return _exchange([key], schemas)
        case Join(on=pairs):
            return _exchange_of_join(node, pairs, schemas)
    return None


def sent_sides(node: Join, *, is_ordered: bool) -> tuple[int, ...]:
    """Return which sides of a join (0: left, 1: right) may be whole at each part of the other side.

    Args:
        node: The join, over its inputs.
        is_ordered: Whether the order of its rows is seen.
    """
    if _has_own_columns([check(each) for each in inputs_of(node)]):
        return ()
    left = (0,) if node.how in _BY_RIGHT_ROW and not is_ordered else ()
    return (*left, 1) if node.how in _BY_LEFT_ROW else left


def with_one_position(plan: Plan, node: Join) -> Plan:
    """Return the rows of a join of two sides with positions, with one position that sorts them.

    Args:
        plan: The join, over these sides.
        node: The join as it was written.
    """
    assert isinstance(plan, Join)
    left, right = (check(each) for each in inputs_of(plan))
    of_right = right_names(node, left, right)[POSITION]
    position = coalesce(col(POSITION), col(of_right) + lit(_UNMATCHED))
    names = (name for name in check(plan).names if name not in (POSITION, of_right))
    return Project(plan, (*((name, col(name)) for name in names), (POSITION, position)))


def is_decomposable(node: Aggregate, schema: Schema) -> bool:
    """Whether partial states of an aggregate are small, so that they are shuffled and not its rows."""
    states = partial_schema(node, schema).fields[len(node.keys) :]
    return node.phase == "full" and not any(field.type.name == "List" for field in states)


def ordered_joins(plan: Plan) -> set[int]:
    """Return the ids (`id`) of the joins of a plan whose rows' order affects the result."""
    nodes = list(walk(plan))
    seen = order_seen(plan)
    return {
        id(node)
        for node, is_seen in zip(nodes, seen, strict=True)
        if is_seen and isinstance(node, Join)
    }


def _without_hint(scan: Scan) -> Scan:
    return scan if scan.predicate is None else replace(scan, predicate=None)


def _has_own_columns(schemas: Sequence[Schema]) -> bool:
    """Return whether an input has a column with a name that the stages use."""
    return any(name in schema for schema in schemas for name in (KEY, POSITION))


def _as(kind: DataType, name: str, schema: Schema) -> Expr:
    """Return a key of a join in the type in which the join compares it."""
    return col(name) if schema.field(name).type == kind else Cast(col(name), kind)


def _exchange_of_join(
    node: Join, pairs: Sequence[tuple[str, str]], schemas: Sequence[Schema]
) -> Exchange | None:
    """Return an exchange by one pair of keys, whichever: rows of equal pairs are equal in each of them."""
    kinds = join_key_types(node, *schemas)
    # Those of two values come last: they have two ranges at most.
    for kind, (left, right) in sorted(zip(kinds, pairs, strict=True), key=lambda x: _is_bool(x[0])):
        keys = [_as(kind, left, schemas[0]), _as(kind, right, schemas[1])]
        if (found := _exchange(keys, schemas)) is not None:
            return found
    return None


def _is_bool(kind: DataType) -> bool:
    return kind.name == "Bool"


def _exchange(keys: Sequence[Expr], schemas: Sequence[Schema]) -> Exchange | None:
    kind = infer(keys[0], schemas[0])
    if _is_bool(kind):  # as 0 and 1, in the same order
        keys, kind = [Cast(key, _INT8) for key in keys], _INT8
    if kind.name not in TYPES:
        return None
    # A conversion that may fail would fail for rows that the operator does not compare.
    if any(
        isinstance(key, Cast) and bind(key, schema).fallible
        for key, schema in zip(keys, schemas, strict=True)
    ):
        return None
    return Exchange(tuple(keys))
