"""`f(x) OVER (PARTITION BY … ORDER BY … ROWS …)` to a window function of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlglot import exp

from emsqrt.expr import Expr, Literal
from emsqrt.plan import Frame, SortKey, WindowCall
from emsqrt.sql_plan.errors import fail, refuse
from emsqrt.sql_plan.expressions import AGGREGATES, Converter

Node: TypeAlias = Any

_FUNCTIONS: dict[type, str] = {
    exp.RowNumber: "row_number",
    exp.Rank: "rank",
    exp.DenseRank: "dense_rank",
    exp.Ntile: "ntile",
    exp.Lag: "lag",
    exp.Lead: "lead",
    exp.FirstValue: "first_value",
    exp.LastValue: "last_value",
    exp.First: "first_value",
    exp.Last: "last_value",
}


def open_window(
    node: Node, convert: Converter, named: Mapping[str, Node]
) -> tuple[list[Expr], list[SortKey], WindowCall]:
    """Return partition, order and function of one window expression.

    Raises:
        Unsupported: a function, frame or option that is not covered.
    """
    over = node
    if node.args.get("alias") is not None:
        name = node.args["alias"].name
        if name not in named:
            fail(node, convert.text, f"there is no window {name}")
        over = named[name]
    function = node.this
    if isinstance(function, exp.IgnoreNulls | exp.Filter | exp.RespectNulls):
        refuse(function, convert.text, type(function).__name__.upper())
    parts = [convert(each) for each in over.args.get("partition_by") or []]
    order = over.args.get("order")
    keys = [
        SortKey(convert(each.this), bool(each.args.get("desc")), bool(each.args.get("nulls_first")))
        for each in ([] if order is None else order.expressions)
    ]
    return parts, keys, _call(function, convert, _frame(over.args.get("spec"), convert))


def _call(node: Node, convert: Converter, frame: Frame | None) -> WindowCall:
    kind = type(node)
    if kind in AGGREGATES and kind not in _FUNCTIONS:
        if isinstance(node.this, exp.Distinct):
            refuse(node, convert.text, "DISTINCT in a window")
        star = node.this is None or isinstance(node.this, exp.Star)
        return WindowCall(AGGREGATES[kind], None if star else convert(node.this), (), frame)
    if kind not in _FUNCTIONS:
        refuse(node, convert.text, f"{kind.__name__} as a window function")
    name = _FUNCTIONS[kind]
    if name in ("row_number", "rank", "dense_rank"):
        return WindowCall(name)
    if name == "ntile":
        return WindowCall(name, None, (_constant(node.this, convert),))
    params = tuple(
        _constant(node.args[key], convert)
        for key in ("offset", "default")
        if node.args.get(key) is not None
    )
    return WindowCall(name, convert(node.this), params, None if params else frame)


def _constant(node: Node, convert: Converter) -> Literal:
    value = convert(node)
    if not isinstance(value, Literal):
        refuse(node, convert.text, "anything but a constant here")
    return value


def _frame(spec: Node | None, convert: Converter) -> Frame | None:
    if spec is None:
        return None
    unit = str(spec.args.get("kind") or "").lower()
    if unit not in ("rows", "range") or spec.args.get("exclude"):
        refuse(spec, convert.text, f"a frame of {unit.upper()}, or with EXCLUDE")
    start = _bound(spec, "start", convert)
    end = _bound(spec, "end", convert) if spec.args.get("end") is not None else 0
    return Frame("rows" if unit == "rows" else "range", start, end)


def _bound(spec: Node, side: str, convert: Converter) -> int | None:
    value = spec.args.get(side)
    if value == "UNBOUNDED":
        return None
    if value == "CURRENT ROW":
        return 0
    distance = convert(value)
    if not isinstance(distance, Literal) or not isinstance(distance.value, int):
        refuse(spec, convert.text, "a frame whose bounds are not whole numbers")
    back = str(spec.args.get(f"{side}_side")).upper() == "PRECEDING"
    return -distance.value if back else distance.value
