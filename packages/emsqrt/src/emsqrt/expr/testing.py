"""Random expressions and rows for differential tests; needs hypothesis.

An engine is tested by comparing it with another one on `typed_expressions()` over `tables()`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeAlias

from hypothesis import strategies as st

from emsqrt.expr.build import coalesce, col, concat, greatest, least, nullif, when
from emsqrt.expr.nodes import Expr, call, lit
from emsqrt.expr.signatures_time import UNITS
from sennit_core.schema import Schema

Sub: TypeAlias = Callable[[str], st.SearchStrategy[Expr]]

SCHEMA = Schema.of(
    i="Int64",
    j="Int32",
    f="Float64",
    s="Utf8",
    p="Bool",
    d="Date",
    t="Timestamp(us)",
    m="Decimal(9,2)",
)
"""The columns of the random rows, one for each kind of value."""

INT64 = (-(2**63), 2**63 - 1)
_FLOATS = (0.0, -0.0, 0.5, -1.5, 2.5, 1e16, -1e-7, 1e308, float("nan"), float("inf"), -float("inf"))
_WORDS = ("", "a", "Ab", " a b ", "éÉ", "👍", "~", "zz", "%_", "A\n", "10")
_CHARS = ("a", "👍", "ab", " ", "é%")
_PATTERNS = ("a", "[ab]+", "^A", "é|👍", "(.)b", "x*", "")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall-clock time, as the column has no zone

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i": st.sampled_from((0, 1, -1, 2, 7, -7, 10**9, *INT64)) | st.integers(*INT64),
    "j": st.integers(-9, 9) | st.integers(-(2**31), 2**31 - 1),
    "f": st.sampled_from(_FLOATS) | st.floats(width=64),
    "s": st.sampled_from(_WORDS) | st.text("abAB é👍%_", max_size=4),
    "p": st.booleans(),
    "d": st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    "t": st.integers(-(2**50), 2**51).map(lambda us: _EPOCH + timedelta(microseconds=us)),
    "m": st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: Decimal(n).scaleb(-2)),
}


def tables(rows_max: int = 12) -> st.SearchStrategy[dict[str, list[Any]]]:
    """Return a strategy of columns for SCHEMA: lists of equal length with NULLs among them."""
    row = st.tuples(*(st.none() | _VALUES[name] for name in SCHEMA.names))
    return st.lists(row, min_size=1, max_size=rows_max).map(
        lambda drawn: dict(zip(SCHEMA.names, map(list, zip(*drawn, strict=True)), strict=True))
    )


@cache
def expressions(kind: str, depth: int = 3) -> st.SearchStrategy[Expr]:
    """Return a strategy of expressions over SCHEMA.

    Args:
        kind: the column whose kind of value is generated: i, f, s, p, d, t or m.
        depth: how deep they may nest.
    """
    leaves = st.just(col(kind)) | _VALUES[kind].map(lit)
    if kind == "i":
        leaves |= st.just(col("j"))
    if depth <= 0:
        return leaves

    def sub(other: str) -> st.SearchStrategy[Expr]:
        return expressions(other, depth - 1)

    return leaves | _conditional(kind, sub) | _BUILDERS[kind](sub)


def _conditional(kind: str, sub: Sub) -> st.SearchStrategy[Expr]:
    same = sub(kind)
    cases = st.builds(lambda c, a, b: when(c).then(a).otherwise(b), sub("p"), same, same)
    pairs = st.builds(lambda fn, a, b: fn(a, b), st.sampled_from((coalesce, nullif)), same, same)
    extremes = st.builds(lambda fn, a, b: fn(a, b), st.sampled_from((greatest, least)), same, same)
    return cases | pairs | (extremes if kind != "p" else pairs)


def _calls(names: tuple[str, ...], *operands: st.SearchStrategy[Any]) -> st.SearchStrategy[Expr]:
    return st.builds(lambda fn, *args: call(fn, *args), st.sampled_from(names), *operands)


def _integers(sub: Sub) -> st.SearchStrategy[Expr]:
    names = ("year", "month", "day", "quarter", "week", "dow", "isodow", "doy", "epoch_ms")
    parts = _calls(names, sub("d") | sub("t"))
    clock = _calls(("hour", "minute", "second"), sub("t"))
    return (
        _calls(("add", "sub", "mul", "idiv", "mod"), sub("i"), sub("i"))
        | _calls(("neg", "abs", "round", "floor"), sub("i"))
        | _calls(("length",), sub("s"))
        | _calls(("strpos",), sub("s"), st.sampled_from(_WORDS))
        | _calls(("sign", "trunc"), sub("i"))
        | _calls(("date_diff",), st.sampled_from(UNITS[:5]), sub("d"), sub("d"))
        | _calls(("date_diff",), st.sampled_from(UNITS), sub("t"), sub("t"))
        | parts
        | clock
        | sub("f").map(lambda e: e.try_cast("Int64"))
        | sub("p").map(lambda e: e.cast("Int64"))
        | sub("i").map(lambda e: e.try_cast("Int16"))
    )


def _floats(sub: Sub) -> st.SearchStrategy[Expr]:
    return (
        _calls(("add", "sub", "mul", "div", "mod"), sub("f"), sub("f"))
        | _calls(("add", "mul", "div"), sub("f"), sub("i"))
        | _calls(("div",), sub("i"), sub("i"))
        | _calls(("neg", "abs", "floor", "ceil", "trunc", "sign", "sqrt"), sub("f"))
        | _calls(("epoch",), sub("d") | sub("t"))
        | _calls(("round",), sub("f"), st.integers(0, 3))
        | sub("i").map(lambda e: e.cast("Float64"))
    )


def _texts(sub: Sub) -> st.SearchStrategy[Expr]:
    word = st.sampled_from(_WORDS)
    return (
        st.builds(concat, sub("s"), sub("s"))
        | _calls(("upper", "lower", "trim"), sub("s"))
        | _calls(("replace",), sub("s"), word, word)
        | _calls(("substr",), sub("s"), st.sampled_from((1, 2, 3, -1, -2)), st.integers(0, 3))
        | _calls(("trim", "ltrim", "rtrim"), sub("s"), st.sampled_from(_CHARS))
        | _calls(("left", "right"), sub("s"), st.integers(-3, 3))
        | _calls(("repeat",), sub("s"), st.integers(0, 2))
        | _calls(("lpad", "rpad"), sub("s"), st.integers(0, 5), st.sampled_from(_CHARS))
        | _calls(("split_part",), sub("s"), st.sampled_from(_CHARS), st.sampled_from((1, 2, -1)))
        | _calls(("regexp_replace",), sub("s"), st.sampled_from(_PATTERNS), word)
        | _calls(("regexp_replace",), sub("s"), st.sampled_from(_PATTERNS), word, st.just("g"))
        | sub("i").map(lambda e: e.cast("Utf8"))
        | sub("d").map(lambda e: e.cast("Utf8"))
    )


def _conditions(sub: Sub) -> st.SearchStrategy[Expr]:
    compare = ("eq", "ne", "lt", "le", "gt", "ge")
    kinds = st.sampled_from(("i", "f", "s", "p", "d", "t", "m"))
    same = kinds.flatmap(lambda kind: _calls(compare, sub(kind), sub(kind)))
    several = kinds.flatmap(
        lambda kind: _calls(("between",), *[sub(kind)] * 3) | _calls(("is_in",), *[sub(kind)] * 4)
    )
    return (
        same
        | several
        | _calls(compare, sub("i"), sub("f"))
        | _calls(("and", "or"), sub("p"), sub("p"))
        | _calls(("not",), sub("p"))
        | kinds.flatmap(lambda kind: _calls(("is_null",), sub(kind)))
        | _calls(("is_nan",), sub("f"))
        | _calls(
            ("contains", "starts_with", "ends_with", "like", "ilike"),
            sub("s"),
            st.sampled_from(_WORDS),
        )
        | _calls(("regexp_matches",), sub("s"), st.sampled_from(_PATTERNS))
    )


def _days(sub: Sub) -> st.SearchStrategy[Expr]:
    return (
        sub("t").map(lambda e: e.cast("Date"))
        | _calls(("date_trunc",), st.sampled_from(UNITS[:5]), sub("d"))
        | _calls(("date_add",), st.sampled_from(UNITS[:5]), st.integers(-40, 40), sub("d"))
        | _calls(("make_date",), st.integers(1900, 2100), st.integers(1, 12), st.integers(1, 28))
    )


def _moments(sub: Sub) -> st.SearchStrategy[Expr]:
    return (
        sub("d").map(lambda e: e.cast("Timestamp(us)"))
        | _calls(("date_trunc",), st.sampled_from(UNITS), sub("t"))
        | _calls(("date_add",), st.sampled_from(UNITS), st.integers(-40, 40), sub("t"))
    )


def _decimals(sub: Sub) -> st.SearchStrategy[Expr]:
    return _calls(("neg", "abs"), sub("m")) | _calls(("add", "sub"), st.just(col("m")), sub("m"))


_BUILDERS: dict[str, Callable[[Sub], st.SearchStrategy[Expr]]] = {
    "i": _integers,
    "f": _floats,
    "s": _texts,
    "p": _conditions,
    "d": _days,
    "t": _moments,
    "m": _decimals,
}
