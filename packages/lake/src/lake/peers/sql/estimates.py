"""Estimates of rows and bytes, to choose between plans that are all right.

They need not be good: a fragment moves groups or filtered rows, a gather moves tables, and most choices
differ by a factor of a hundred. Selectivities of conditions without statistics are those of PostgreSQL's
order of size (`src/include/utils/selfuncs.h`), which also chooses 200 distinct values for an unknown
column.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Sequence

from sqlglot import exp

from lake.peers.sql.tables import Shard, Table

__all__ = ["distinct_values", "selectivity", "width"]

_WIDTHS = {
    **dict.fromkeys(("BOOLEAN", "TINYINT", "UTINYINT"), 1),
    **dict.fromkeys(("SMALLINT", "USMALLINT"), 2),
    **dict.fromkeys(("INTEGER", "UINTEGER", "FLOAT", "DATE"), 4),
    **dict.fromkeys(("VARCHAR", "BLOB"), 20),
}
_WIDTH = 8
_WIDE = 16
_EQUAL, _RANGE, _LIKE, _OTHER = 0.1, 0.33, 0.25, 0.5
_SHARES: dict[type[exp.Expr], float] = {
    **dict.fromkeys((exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between), _RANGE),
    **dict.fromkeys((exp.Like, exp.ILike), _LIKE),
    exp.Is: _EQUAL,
}
_DISTINCT = 200
_DECIMAL = re.compile(r"DECIMAL\((\d+)")


def width(kind: str) -> int:
    """Return the bytes of a value of a type as Arrow data."""
    upper = kind.upper()
    decimal = _DECIMAL.match(upper)
    if decimal is not None or upper == "HUGEINT":
        return _WIDE  # Arrow has 16 bytes for every DECIMAL
    return _WIDTHS.get(upper, _WIDTH)


def selectivity(conditions: Iterable[exp.Expr]) -> float:
    """Return the share of rows that meet conditions."""
    return math.prod(_share(each) for each in conditions)


def _share(node: exp.Expr) -> float:
    match node:
        case exp.Paren():
            return _share(node.this)
        case exp.And():
            return _share(node.this) * _share(node.expression)
        case exp.Or():
            return min(1.0, _share(node.this) + _share(node.expression))
        case exp.Not():
            return 1 - _share(node.this)
        case exp.Like() | exp.ILike() if node.args.get("negate"):
            return 1 - _LIKE
        case exp.EQ():
            sides = (node.this, node.expression)
            return 1.0 if all(isinstance(each, exp.Column) for each in sides) else _EQUAL
        case exp.In() if node.expressions:
            return min(_OTHER, _EQUAL * len(node.expressions))
        case _:
            return _SHARES.get(type(node), _OTHER)


def distinct_values(table: Table, column: str, shards: Sequence[Shard]) -> float:
    """Return the number of different values that a column may have in shards."""
    kind = (table.type_of(column) or "").upper()
    if kind == "BOOLEAN":
        return 2
    rows = sum(shard.rows for shard in shards)
    unknown = max(_DISTINCT, math.isqrt(rows))
    ends = [
        (bounds.low, bounds.high)
        for shard in shards
        for name, bounds in shard.bounds.items()
        if name.casefold() == column.casefold()
    ]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    if not known or len(known) < len(shards):
        return min(unknown, max(rows, 1))
    lows = [place for low, _ in known if (place := _place(low, kind)) is not None]
    highs = [place for _, high in known if (place := _place(high, kind)) is not None]
    if len(lows) < len(known) or len(highs) < len(known):
        return min(unknown, max(rows, 1))
    return min(max(highs) - min(lows) + 1, max(rows, 1))


def _place(text: str, kind: str) -> int | None:
    """Return a whole number, a date or a letter as a number; None for any other value."""
    try:
        if "INT" in kind:
            return int(text)
        if kind == "DATE":
            return datetime.date.fromisoformat(text).toordinal()
    except ValueError:  # a date outside of Python's years
        return None
    return ord(text) if kind == "VARCHAR" and len(text) == 1 else None
