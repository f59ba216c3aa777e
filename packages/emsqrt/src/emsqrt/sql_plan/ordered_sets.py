"""Normalize aggregates: WITHIN GROUP to calls with a value and a fraction, and `mean`."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sqlglot import exp

from emsqrt.sql_plan.errors import fail, refuse

_NAMES: dict[type, str] = {
    exp.PercentileCont: "percentile_cont",
    exp.PercentileDisc: "percentile_disc",
    exp.Quantile: "quantile",
}
_SPELLED: dict[str, Callable[..., Any]] = {
    "mean": lambda *args: exp.Avg(this=args[0], expressions=list(args[1:])),
    "var": lambda *args: exp.Variance(this=args[0], expressions=list(args[1:])),
    "count_distinct": lambda *args: exp.Count(this=exp.Distinct(expressions=list(args))),
}
"""Aggregates that sqlglot does not know; without operands they are refused like unknown calls."""


def plain_aggregates(statement: Any, text: str) -> Any:
    """Return a statement whose quantiles are all `quantile_cont(x, q)` or `quantile_disc(x, q)`.

    Raises:
        Unsupported: WITHIN GROUP of another aggregate, or with an order that no quantile supports.
        SqlError: an order of several values.
    """

    def plain(node: Any) -> Any:
        if _is_spelled(node):
            return _SPELLED[str(node.this).lower()](*node.expressions)
        if isinstance(node, exp.WithinGroup):
            return _unwrapped(node, text)
        if isinstance(node, exp.Quantile) and not isinstance(node.parent, exp.WithinGroup):
            return exp.PercentileDisc(this=node.this, expression=node.args.get("quantile"))
        return node

    return statement.transform(plain)


def _is_spelled(node: Any) -> bool:
    return (
        isinstance(node, exp.Anonymous)
        and bool(node.expressions)
        and str(node.this).lower() in _SPELLED
    )


def _unwrapped(node: Any, text: str) -> Any:
    function, order = node.this, node.expression.expressions
    kind = type(function)
    if kind not in _NAMES:
        refuse(node, text, f"{kind.__name__} WITHIN GROUP")
    if function.args.get("expression") or function.args.get("quantile"):
        fail(node, text, f"{_NAMES[kind]} WITHIN GROUP has the fraction as its only argument")
    if len(order) != 1:
        fail(node, text, f"{_NAMES[kind]} is over one value, found {len(order)}")
    (ordered,), share = order, function.this
    made = exp.PercentileCont if kind is exp.PercentileCont else exp.PercentileDisc
    if ordered.args.get("desc"):
        if made is exp.PercentileDisc or not isinstance(share, exp.Literal) or share.is_string:
            hint = "order by it ascending, or by its negative"
            refuse(node, text, f"{_NAMES[kind]} of a descending order", hint)
        share = exp.Literal.number(str(1 - Decimal(str(share.this))))
    return made(this=ordered.this.copy(), expression=share.copy())
