"""Aggregates of rows in an order, spelled with WITHIN GROUP, as those that take a value and a share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlglot import exp

from emsqrt.sql_plan.errors import fail, refuse

_NAMES: dict[type, str] = {
    exp.PercentileCont: "percentile_cont",
    exp.PercentileDisc: "percentile_disc",
    exp.Quantile: "quantile",
}


def plain_aggregates(statement: Any, text: str) -> Any:
    """Return a statement whose quantiles are `quantile_cont(x, q)` and `quantile_disc(x, q)` alone.

    Raises:
        Unsupported: WITHIN GROUP of another aggregate, or by what no quantile is taken of.
        SqlError: an order of several values.
    """

    def plain(node: Any) -> Any:
        if isinstance(node, exp.WithinGroup):
            return _unwrapped(node, text)
        if isinstance(node, exp.Quantile) and not isinstance(node.parent, exp.WithinGroup):
            return exp.PercentileDisc(this=node.this, expression=node.args.get("quantile"))
        return node

    return statement.transform(plain)


def _unwrapped(node: Any, text: str) -> Any:
    function, order = node.this, node.expression.expressions
    kind = type(function)
    if kind not in _NAMES:
        refuse(node, text, f"{kind.__name__} WITHIN GROUP")
    if function.args.get("expression") or function.args.get("quantile"):
        fail(node, text, f"{_NAMES[kind]} WITHIN GROUP takes the share alone")
    if len(order) != 1:
        fail(node, text, f"{_NAMES[kind]} is of one value, and {len(order)} are given")
    (ordered,), share = order, function.this
    made = exp.PercentileCont if kind is exp.PercentileCont else exp.PercentileDisc
    if ordered.args.get("desc"):
        if made is exp.PercentileDisc or not isinstance(share, exp.Literal) or share.is_string:
            hint = "order by it ascending, or by its negative"
            refuse(node, text, f"{_NAMES[kind]} of a descending order", hint)
        share = exp.Literal.number(str(1 - Decimal(str(share.this))))
    return made(this=ordered.this.copy(), expression=share.copy())
