"""Constant folding: evaluate expressions that do not depend on a row once, before the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from emsqrt.expr import Agg, Expr, fold
from emsqrt.plan import (
    Aggregate,
    Filter,
    Limit,
    Plan,
    Project,
    Sort,
    SortKey,
    TopK,
    Window,
    WithColumn,
    rewrite,
)
from emsqrt.planner.substitution import is_constant


def fold_constants(plan: Plan, folder: Path) -> Plan:
    """Evaluate constant parts of expressions; simplify filters that keep all rows, or none."""
    del folder
    return rewrite(plan, _folded)


def _folded(node: Plan) -> Plan:
    match node:
        case Filter(input=below, predicate=predicate):
            return _filter(node, below, fold(predicate))
        case Project(columns=columns) | WithColumn(columns=columns):
            made = tuple((name, fold(expr)) for name, expr in columns)
            return cast("Plan", replace(cast("Any", node), columns=made))
        case Aggregate(keys=keys, aggs=aggs):
            return replace(
                node,
                keys=tuple((name, fold(expr)) for name, expr in keys),
                aggs=tuple((name, _fold_agg(agg)) for name, agg in aggs),
            )
        case Sort(keys=keys) | TopK(keys=keys):
            return cast("Plan", replace(cast("Any", node), keys=_fold_keys(keys)))
        case Window(partition_by=parts, order_by=order_by):
            return replace(
                node, partition_by=tuple(map(fold, parts)), order_by=_fold_keys(order_by)
            )
    return node


def _filter(node: Filter, below: Plan, predicate: Expr) -> Plan:
    if is_constant(predicate, True):
        return below
    if is_constant(predicate, False) or is_constant(predicate, None):
        # `Limit 0` keeps the schema, and reads nothing.
        return Limit(below, 0)
    return replace(node, predicate=predicate)


def _fold_keys(keys: tuple[SortKey, ...]) -> tuple[SortKey, ...]:
    return tuple(replace(key, expr=fold(key.expr)) for key in keys)


def _fold_agg(agg: Agg) -> Agg:
    return agg if agg.arg is None else replace(agg, arg=fold(agg.arg))
