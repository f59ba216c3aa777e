"""What a shuffle may do with a plan: pure functions of plans, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from elytra.backends.ray.partitions import KEY, POSITION, TYPES
from emsqrt.expr import Expr, col
from emsqrt.expr.check import infer
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Explode,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    Sort,
    WithColumn,
    check,
    inputs_of,
    partial_schema,
    walk,
)
from emsqrt.planner.ordering import order_seen
from sennit_core.schema import Schema

__all__ = [
    "EACH_ROW",
    "JOINS",
    "Exchange",
    "exchange_of",
    "is_decomposable",
    "ordered_joins",
    "shuffles",
]

EACH_ROW = (Filter, Project, Rename, WithColumn, Explode)
"""Operators whose rows depend on one row of the input each."""
JOINS = ("inner", "left", "semi", "anti")
"""Joins whose rows each depend on one row of the left side, and come in its order."""


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
    """Whether any operator of a typed plan can be run by ranges of keys."""
    return any(exchange_of(node) is not None for node in walk(plan))


def exchange_of(node: Plan) -> Exchange | None:
    """Return by what the inputs of an operator are partitioned, so that it can run on each partition.

    The rows of the partitions, one after the other, are those of the operator; for a join in another
    order. None if it needs all rows together.
    """
    schemas = [check(each) for each in inputs_of(node)]
    if any(name in schema for schema in schemas for name in (KEY, POSITION)):
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
        case Join(how=how, on=((left, right), *_)) if how in JOINS:
            return _exchange([col(left), col(right)], schemas)
    return None


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


def _exchange(keys: Sequence[Expr], schemas: Sequence[Schema]) -> Exchange | None:
    kinds = [infer(key, schema) for key, schema in zip(keys, schemas, strict=True)]
    # Of two types the values would have to be compared in a third one.
    if any(kind != kinds[0] for kind in kinds) or kinds[0].name not in TYPES:
        return None
    return Exchange(tuple(keys))
