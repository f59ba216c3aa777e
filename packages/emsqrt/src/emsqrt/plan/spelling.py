"""Parse sort keys and window functions written as text: `amount:desc`, `lag(amount, 1)`."""

from __future__ import annotations

import re

from emsqrt.expr import Agg, Call, Column, Expr, Literal, SortKey, parse_expr
from emsqrt.expr.errors import BadExpression
from emsqrt.expr.parser import parse_order
from emsqrt.plan.window import WINDOW_FUNCTIONS, Frame, FrameUnit, WindowCall
from sennit_core.errors import UsageError
from sennit_core.text import nearest

_MARKS = ("asc", "desc", "nulls_first", "nulls_last")
_WORDS = re.compile(r"\s(asc|desc|nulls\s+(first|last))\s*$", re.IGNORECASE)
_CALL = re.compile(r"\s*([A-Za-z_]+)\s*\((.*)\)\s*(?:over\s+)?(?:(rows|range)\s+(.*))?", re.DOTALL)
_BOUND = re.compile(
    r"(?:(unbounded)\s+(?:preceding|following)|(current)\s+row|([0-9]{1,15})\s+(preceding|following))"
)


def sort_key(value: SortKey | Expr | str) -> SortKey:
    """Return the sort key of a column's name, with or without a direction, or of an expression.

    Args:
        value: `"age"`, `"age:desc"`, `"age:desc:nulls_first"`, `"age desc nulls first"`,
            `col("age") * 2`, or a key itself.
    """
    if isinstance(value, SortKey):
        return value
    if isinstance(value, Expr):
        return SortKey(value)
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is no sort key", hint='such as "age" or "age:desc"')
    name, marks = value, list[str]()
    while (parts := name.rpartition(":"))[0] and parts[2].strip().lower() in _MARKS:
        name, marks = parts[0], [*marks, parts[2].strip().lower()]
    if not marks and _WORDS.search(name):
        expr, descending, nulls_first = parse_order(name)
        return SortKey(expr, descending, bool(nulls_first))
    return SortKey(Column(name.strip()), "desc" in marks, "nulls_first" in marks)


def window_call(value: WindowCall | Agg | str) -> WindowCall:
    """Return the window function of a text, of an aggregate or of the call itself.

    Args:
        value: such as `"row_number()"`, `"lag(amount, 1, 0)"`, `col("amount").sum()` or
            `"avg(amount) rows between 2 preceding and current row"`.

    Raises:
        UsageError: it is not a window function, or its arguments do not parse.
    """
    if isinstance(value, WindowCall):
        return value
    if isinstance(value, Agg):
        return WindowCall(value.fn, value.arg)
    found = _CALL.fullmatch(value.strip())
    if found is None:
        raise UsageError(f"{value!r} is no window function", hint='such as "row_number()"')
    fn, inner, unit, bounds = found[1].lower(), found[2].strip(), found[3], found[4]
    if fn not in WINDOW_FUNCTIONS:
        guess = nearest(fn, WINDOW_FUNCTIONS)
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(WINDOW_FUNCTIONS)}"
        raise UsageError(f"{fn} is not a window function", hint=hint)
    arg, params = _arguments(fn, inner)
    frame = None if unit is None else _frame("rows" if unit == "rows" else "range", bounds)
    return WindowCall(fn, arg, params, frame)


def _arguments(fn: str, inner: str) -> tuple[Expr | None, tuple[Literal, ...]]:
    if inner in ("", "*"):
        return None, ()
    try:
        parsed = parse_expr(f"coalesce({inner})")  # a function of any number of arguments
    except BadExpression:
        raise UsageError(
            f"{fn}({inner}): these are no arguments of a window function",
            hint='such as "lag(amount, 1)"; DISTINCT and OVER are not allowed here',
        ) from None
    assert isinstance(parsed, Call)
    args = parsed.args
    first = 0 if fn == "ntile" else 1
    params = args[first:]
    for param in params:
        if not isinstance(param, Literal):
            raise UsageError(f"{fn}: {param!s} must be a constant")
    literals = tuple(param for param in params if isinstance(param, Literal))
    return (args[0] if first else None), literals


def _frame(unit: FrameUnit, text: str) -> Frame:
    low, _, high = text.strip().lower().removeprefix("between").strip().partition(" and ")
    return Frame(unit, _bound(low, text), _bound(high or "current row", text))


def _bound(text: str, whole: str) -> int | None:
    found = _BOUND.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{whole!r} is no frame", hint="such as rows between 2 preceding and current row"
        )
    if found[1]:
        return None
    distance = int(found[3] or 0)
    return -distance if found[4] == "preceding" else distance
