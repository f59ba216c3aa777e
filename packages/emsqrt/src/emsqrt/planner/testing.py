"""A reference implementation of plans, row at a time, for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pyarrow as pa

from emsqrt.expr import Agg, Expr
from emsqrt.expr.evaluate import evaluate
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Files,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    Sort,
    SortKey,
    TopK,
    Union,
    Window,
    WithColumn,
)
from emsqrt.plan.joining import LEFT_ONLY, right_names, shared_keys
from emsqrt.plan.tree import fold
from emsqrt.planner.schemas import schemas_of
from sennit_core.schema import Schema

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = list[Row]
Tables: TypeAlias = Mapping[str, Rows]


def rows_of(plan: Plan, tables: Tables) -> Rows:
    """Return the rows of a plan, in order.

    Args:
        plan: with the schemas of its scans.
        tables: the whole rows of each scan's first path.
    """
    schemas = schemas_of(plan)

    def visit(node: Plan, inputs: tuple[tuple[Rows, Schema], ...]) -> tuple[Rows, Schema]:
        schema = schemas[id(node)]
        if isinstance(node, Scan):
            return _scan(node, tables), schema
        return _OPERATORS[type(node)](node, *inputs, schema), schema

    return fold(plan, visit)[0]


def _scan(node: Scan, tables: Tables) -> Rows:
    assert isinstance(node.source, Files)
    assert node.schema is not None
    places = [node.schema.names.index(name) for name in node.columns or node.schema.names]
    return [tuple(row[place] for place in places) for row in tables[node.source.paths[0]]]


Input: TypeAlias = tuple[Rows, Schema]


def _values(expr: Expr, source: Input) -> list[Any]:
    rows, schema = source
    arrays = [
        pa.array([row[place] for row in rows], field.type.to_arrow())
        for place, field in enumerate(schema)
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())
    return list(evaluate(expr, batch).to_pylist())


def _columns(source: Input, columns: list[list[Any]]) -> Rows:
    return [tuple(column[index] for column in columns) for index in range(len(source[0]))]


def _filter(node: Filter, source: Input, _: Schema) -> Rows:
    kept = _values(node.predicate, source)
    return [row for row, keep in zip(source[0], kept, strict=True) if keep]


def _project(node: Project, source: Input, _: Schema) -> Rows:
    return _columns(source, [_values(expr, source) for _, expr in node.columns])


def _with_column(node: WithColumn, source: Input, schema: Schema) -> Rows:
    made = {name: _values(expr, source) for name, expr in node.columns}
    names = source[1].names
    return _columns(
        source,
        [
            made[n] if n in made else [row[names.index(n)] for row in source[0]]
            for n in schema.names
        ],
    )


def _order(keys: tuple[SortKey, ...], source: Input) -> Rows:
    rows = list(range(len(source[0])))
    for key in reversed(keys):
        values = _values(key.expr, source)
        present = [index for index in rows if values[index] is not None]
        absent = [index for index in rows if values[index] is None]
        present.sort(key=values.__getitem__, reverse=False)
        if key.descending:
            present = _descending(present, values)
        rows = absent + present if key.nulls_first else present + absent
    return [source[0][index] for index in rows]


def _descending(rows: list[int], values: list[Any]) -> list[int]:
    """Reverse the order, but keep equal rows as they are."""
    groups: list[list[int]] = []
    for index in rows:
        if groups and values[groups[-1][0]] == values[index]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [index for group in reversed(groups) for index in group]


def _sorting(row: Row) -> tuple[tuple[bool, Any], ...]:
    return tuple((value is None, 0 if value is None else value) for value in row)


def _distinct(node: Distinct, source: Input, _: Schema) -> Rows:
    names = node.columns or source[1].names
    places = [source[1].names.index(name) for name in names]
    first: dict[Row, Row] = {}
    for row in source[0]:
        first.setdefault(tuple(row[place] for place in places), row)
    return [first[key] for key in sorted(first, key=_sorting)]


def _aggregate(node: Aggregate, source: Input, _: Schema) -> Rows:
    keys = _columns(source, [_values(expr, source) for _, expr in node.keys])
    args = [None if a.arg is None else _values(a.arg, source) for _, a in node.aggs]
    groups: dict[Row, list[int]] = {} if node.keys else {(): []}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return [
        (*key, *(_reduce(a, v, groups[key]) for (_, a), v in zip(node.aggs, args, strict=True)))
        for key in sorted(groups, key=_sorting)
    ]


def _reduce(agg: Agg, values: list[Any] | None, rows: list[int]) -> Any:
    if values is None:
        return len(rows)
    present = [values[index] for index in rows if values[index] is not None]
    if agg.fn == "count":
        return len(present)
    reducers: dict[str, Callable[[list[Any]], Any]] = {"sum": sum, "min": min, "max": max}
    return reducers[agg.fn](present) if present else None


def _join(node: Join, left: Input, right: Input, _: Schema) -> Rows:
    matches = [_matches(node, row, left[1], right) for row in left[0]]
    if node.how in LEFT_ONLY:
        wanted = node.how == "semi"
        return [row for row, found in zip(left[0], matches, strict=True) if bool(found) is wanted]
    kept = [right[1].names.index(name) for name in right_names(node, left[1], right[1])]
    nothing = (None,) * len(kept)
    rows: Rows = []
    for row, found in zip(left[0], matches, strict=True):
        rows += [(*row, *(right[0][each][place] for place in kept)) for each in found]
        if not found and node.how in ("left", "full"):
            rows.append((*row, *nothing))
    if node.how in ("right", "full"):
        seen = {each for found in matches for each in found}
        shared = shared_keys(node)
        for index, row in enumerate(right[0]):
            if index not in seen:
                own = (
                    row[right[1].names.index(name)] if name in shared else None
                    for name in left[1].names
                )
                rows.append((*own, *(row[place] for place in kept)))
    return rows


def _matches(node: Join, row: Row, schema: Schema, right: Input) -> list[int]:
    key = [row[schema.names.index(one)] for one, _ in node.on]
    places = [right[1].names.index(other) for _, other in node.on]
    if None in key:
        return []
    return [
        index
        for index, other in enumerate(right[0])
        if all(other[place] == value for place, value in zip(places, key, strict=True))
    ]


def _union(node: Union, *rest: Any) -> Rows:
    *inputs, schema = rest
    if not node.by_name:
        return [row for rows, _ in inputs for row in rows]
    return [
        tuple(row[own.names.index(name)] if name in own else None for name in schema.names)
        for rows, own in inputs
        for row in rows
    ]


def _window(node: Window, source: Input, _: Schema) -> Rows:
    assert all(call.fn == "row_number" for _, call in node.functions)
    keys = (*(SortKey(expr) for expr in node.partition_by), *node.order_by)
    rows = _order(keys, source)
    parts = [_values(expr, (rows, source[1])) for expr in node.partition_by]
    made, counts = [], dict[Row, int]()
    for index, row in enumerate(rows):
        part = tuple(values[index] for values in parts)
        counts[part] = counts.get(part, 0) + 1
        made.append((*row, *(counts[part] for _ in node.functions)))
    return made


_OPERATORS: dict[type[Plan], Callable[..., Rows]] = {
    Filter: _filter,
    Project: _project,
    WithColumn: _with_column,
    Rename: lambda _, source, __: source[0],
    Sort: lambda node, source, _: _order(node.keys, source),
    TopK: lambda node, source, _: _order(node.keys, source)[node.offset :][: node.count],
    Limit: lambda node, source, _: source[0][node.offset :][: node.count],
    Distinct: _distinct,
    Aggregate: _aggregate,
    Join: _join,
    Union: _union,
    Window: _window,
}
