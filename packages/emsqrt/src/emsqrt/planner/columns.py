"""Projection pushdown: every scan reads only the columns that operators above it use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from emsqrt.expr import Column, Expr, columns_of
from emsqrt.expr.check import bind
from emsqrt.plan import (
    Aggregate,
    Custom,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sort,
    TopK,
    Union,
    Window,
    WithColumn,
    inputs_of,
    with_inputs,
)
from emsqrt.plan.joining import right_names
from emsqrt.plan.nodes import ROW_NUMBER
from emsqrt.planner.schemas import schemas_known, schemas_of
from sennit_core.schema import Schema

Needed: TypeAlias = "frozenset[str] | None"
"""The columns that are used; None for all of them."""
Schemas: TypeAlias = dict[int, Schema]


def prune_columns(plan: Plan, folder: Path) -> Plan:
    """Read only the columns that operators above the scan use, and compute only those."""
    del folder
    if not schemas_known(plan):
        return plan
    return _pruned(plan, None, schemas_of(plan))


def _pruned(plan: Plan, needed: Needed, schemas: Schemas) -> Plan:
    if isinstance(plan, Scan):
        return _pruned_scan(plan, needed)
    inputs = inputs_of(plan)
    if needed is not None:
        plan = _narrowed(plan, needed, schemas[id(inputs[0])])
    wishes = _wishes(plan, needed, [schemas[id(below)] for below in inputs])
    made = [_pruned(below, wish, schemas) for below, wish in zip(inputs, wishes, strict=True)]
    # A union by position needs the same columns in the same order on each side, but an input may
    # keep more than was asked for (a filter above it reads them).
    if isinstance(plan, Union) and not plan.by_name:
        made = [
            _exactly(node, wish, schemas[id(below)])
            for node, wish, below in zip(made, wishes, inputs, strict=True)
        ]
    # The rename may name columns that were just dropped below it.
    if isinstance(plan, Rename):
        return _without_absent(plan, made[0], schemas)
    if isinstance(plan, WithColumn) and not plan.columns:
        return made[0]
    return with_inputs(plan, made)


def _pruned_scan(scan: Scan, needed: Needed) -> Plan:
    if needed is None or scan.schema is None:
        return scan
    present = scan.schema.names if scan.columns is None else scan.columns
    # At least one column: a scan without columns would have no rows to count.
    kept = tuple(name for name in present if name in needed) or present[:1]
    return scan if kept == scan.columns else replace(scan, columns=kept)


def _narrowed(plan: Plan, needed: frozenset[str], schema: Schema) -> Plan:
    """Drop columns that a node computes and no operator uses, unless computing them may fail."""
    match plan:
        case Project(columns=columns):
            kept = tuple(
                column
                for column in columns
                if column[0] in needed or bind(column[1], schema).fallible
            )
            # Likewise, a projection keeps one column.
            return replace(plan, columns=kept or columns[:1])
        case WithColumn(columns=columns):
            kept = tuple(
                column
                for column in columns
                if column[0] in needed or bind(column[1], schema).fallible
            )
            return replace(plan, columns=kept)
    return plan


def _without_absent(node: Rename, below: Plan, schemas: Schemas) -> Plan:
    """Return the rename of those columns that `below` still has."""
    present = schemas[id(below)] if id(below) in schemas else schemas_of(below)[id(below)]
    kept = tuple(pair for pair in node.names if pair[0] in present)
    return replace(node, input=below, names=kept) if kept else below


def _wishes(plan: Plan, needed: Needed, schemas: list[Schema]) -> list[Needed]:
    """Return the columns that a node needs of each input for those needed of its own output."""
    match plan:
        case Join():
            return _join_wishes(plan, needed, *schemas)
        case Union():
            return _union_wishes(plan, needed, schemas)
    # Only joins and unions have two inputs of which less than everything is needed.
    wish = _WISHES.get(type(plan))
    return [needed if wish is None else wish(plan, needed)] + [None] * (len(schemas) - 1)


def _join_wishes(node: Join, needed: Needed, left: Schema, right: Schema) -> list[Needed]:
    right_keys = frozenset(name for _, name in node.on)
    if node.how in ("semi", "anti"):
        return [_plus(needed, (name for name, _ in node.on)), right_keys]
    if needed is None:
        return [None, None]
    names = right_names(node, left, right)
    of_right = {old for old, new in names.items() if new in needed}
    # A right-side name has a suffix only as long as the left side has the same name.
    of_left = {name for name in left.names if name in needed or name in of_right}
    return [frozenset(of_left) | {name for name, _ in node.on}, frozenset(of_right) | right_keys]


def _union_wishes(node: Union, needed: Needed, schemas: list[Schema]) -> list[Needed]:
    if needed is None or node.by_name:
        return [needed for _ in schemas]
    # By position: the first input's names are those of the output.
    places = [place for place, name in enumerate(schemas[0].names) if name in needed] or [0]
    return [frozenset(schema.names[place] for place in places) for schema in schemas]


def _exactly(node: Plan, wish: Needed, before: Schema) -> Plan:
    """Return `node` with exactly the columns of `wish`, in their original order."""
    if wish is None:
        return node
    wanted = tuple(name for name in before.names if name in wish)
    if schemas_of(node)[id(node)].names == wanted:
        return node
    return Project(node, tuple((name, Column(name)) for name in wanted))


def _used(exprs: Iterable[Expr]) -> frozenset[str]:
    return frozenset(name for expr in exprs for name in columns_of(expr))


def _plus(needed: Needed, names: Iterable[str]) -> Needed:
    return None if needed is None else needed | frozenset(names)


def _aggregate_wish(node: Aggregate, _: Needed) -> Needed:
    if node.phase == "final":  # it reads states, whose names only the partial phase knows
        return None
    return _used([*(expr for _, expr in node.keys), *(agg for _, agg in node.aggs)])


def _with_column_wish(node: WithColumn, needed: Needed) -> Needed:
    if needed is None:
        return None
    made = {name for name, _ in node.columns}
    return (needed - made) | _used(expr for _, expr in node.columns)


def _rename_wish(node: Rename, needed: Needed) -> Needed:
    if needed is None:
        return None
    old_names = {new: old for old, new in node.names}
    return frozenset(old_names.get(name, name) for name in needed)


def _window_wish(node: Window, needed: Needed) -> Needed:
    if needed is None:
        return None
    args = [call.arg for _, call in node.functions if call.arg is not None]
    keys = [key.expr for key in node.order_by]
    return (needed - {name for name, _ in node.functions}) | _used(
        [*node.partition_by, *keys, *args]
    )


def _explode_wish(node: Explode, needed: Needed) -> Needed:
    if needed is None:
        return None
    return (needed - {node.as_name or node.column, node.position or ""}) | {node.column}


_WISHES: dict[type[Plan], Callable[[Any, Needed], Needed]] = {
    Project: lambda node, _: _used(expr for _, expr in node.columns),
    Aggregate: _aggregate_wish,
    Filter: lambda node, needed: _plus(needed, columns_of(node.predicate)),
    WithColumn: _with_column_wish,
    Rename: _rename_wish,
    Window: _window_wish,
    Explode: _explode_wish,
    Sort: lambda node, needed: _plus(needed, _used(key.expr for key in node.keys)),
    TopK: lambda node, needed: _plus(needed, _used(key.expr for key in node.keys)),
    Distinct: lambda node, needed: None if node.columns is None else _plus(needed, node.columns),
    Custom: lambda _, __: None,
    Sample: lambda node, needed: _plus(needed, [ROW_NUMBER] if node.phase == "final" else []),
    Expect: lambda node, needed: _plus(needed, (*node.unique, *node.not_null)),
}
"""Nodes that are not listed (limit, sample) need the same columns of their input."""
