"""Plans in other notations: as the steps of a document, and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from emsqrt.plan import Files, Plan, Scan, SortKey
from emsqrt.plan.nodes import (
    Aggregate,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Limit,
    Project,
    Rename,
    Sample,
    Sort,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.tree import fold
from emsqrt.plan.window import Window, WindowCall

Steps: TypeAlias = list[dict[str, Any]]


def as_steps(plan: Plan) -> Steps:
    """Return the steps of a document that means `plan`."""

    def visit(node: Plan, inputs: tuple[Steps, ...]) -> Steps:
        before, others = (inputs[0], inputs[1:]) if inputs else ([], ())
        return [*before, _STEPS[type(node)](node, *others)]

    return fold(plan, visit)


def _scan(node: Scan) -> dict[str, Any]:
    assert isinstance(node.source, Files)
    assert node.schema is not None
    schema = [
        {"name": field.name, "type": str(field.type), "nullable": field.nullable}
        for field in node.schema
    ]
    step = {"op": "scan", "source": list(node.source.paths), "format": node.source.format}
    return {**step, "schema": schema, "options": dict(node.source.options)}


def _join(node: Join, other: Steps) -> dict[str, Any]:
    # A mapping cannot say that one left column is compared with two right ones.
    on = [{left: right} for left, right in node.on]
    return {"join": {"with": other, "on": on, "how": node.how, "suffix": node.suffix}}


def _window(node: Window) -> dict[str, Any]:
    step: dict[str, Any] = {"functions": {name: _call(call) for name, call in node.functions}}
    if node.partition_by:
        step["partition_by"] = [str(part) for part in node.partition_by]
    if node.order_by:
        step["order_by"] = _keys(node.order_by)
    return {"window": step}


def _call(call: WindowCall) -> str:
    return f"{call!s} {'' if call.frame is None else call.frame}".strip()


def _keys(keys: tuple[SortKey, ...]) -> list[dict[str, Any]]:
    return [
        {"expr": str(key.expr), "descending": key.descending, "nulls_first": key.nulls_first}
        for key in keys
    ]


def _named(columns: Any) -> list[dict[str, str]]:
    return [{name: str(expr)} for name, expr in columns]


def _sample(node: Sample) -> dict[str, Any]:
    size = {"count": node.count} if node.fraction is None else {"fraction": node.fraction}
    return {"sample": {**size, "seed": node.seed}}


def _explode(node: Explode) -> dict[str, Any]:
    names = {"column": node.column, "as": node.as_name, "position": node.position}
    names_of = {key: name for key, name in names.items() if name is not None}
    return {"explode": {**names_of, "outer": node.outer}}


def _expect(node: Expect) -> dict[str, Any]:
    step: dict[str, Any] = {"unique": list(node.unique), "not_null": list(node.not_null)}
    return {"expect": {key: value for key, value in {**step, "rows": node.rows}.items() if value}}


_STEPS: dict[type[Plan], Callable[..., dict[str, Any]]] = {
    Scan: _scan,
    Filter: lambda node: {"filter": str(node.predicate)},
    Project: lambda node: {"project": {"columns": _named(node.columns)}},
    WithColumn: lambda node: {"with_column": {"columns": _named(node.columns)}},
    Rename: lambda node: {"rename": dict(node.names)},
    Sort: lambda node: {"sort": {"by": _keys(node.keys)}},
    TopK: lambda node: {
        "top_k": {"by": _keys(node.keys), "count": node.count, "offset": node.offset}
    },
    Limit: lambda node: {"limit": {"count": node.count, "offset": node.offset}},
    Aggregate: lambda node: {
        "aggregate": {"group_by": _named(node.keys), "aggs": _named(node.aggs)}
    },
    Distinct: lambda node: {"distinct": {"columns": list(node.columns)} if node.columns else {}},
    Join: _join,
    Union: lambda node, *others: {
        "union": {"with": [list(other) for other in others], "by_name": node.by_name}
    },
    Window: _window,
    Sample: _sample,
    Explode: _explode,
    Expect: _expect,
}
