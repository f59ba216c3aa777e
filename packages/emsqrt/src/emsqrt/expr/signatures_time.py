"""Typing rules of functions of dates and timestamps."""

from __future__ import annotations

from emsqrt.expr.formats import check_format
from emsqrt.expr.nodes import Call
from emsqrt.expr.typed import (
    DATE,
    FLOAT64,
    INT64,
    UTF8,
    Bound,
    Rule,
    Typed,
    common,
    convert,
    expect,
    literal_text,
    mismatch,
    without_null,
)
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType

DAY_UNITS = ("year", "quarter", "month", "week", "day")
CLOCK_UNITS = ("hour", "minute", "second", "millisecond", "microsecond")
UNITS = (*DAY_UNITS, *CLOCK_UNITS)
"""Units of truncation and of differences."""
TIMESTAMP = DataType("Timestamp", unit="us")


def _date_part(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return INT64, (_timestamp(expr, args, ("Date", "Timestamp")),)


def _time_part(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return INT64, (_timestamp(expr, args, ("Timestamp",)),)


def _timestamp(expr: Call, args: tuple[Typed, ...], names: tuple[str, ...]) -> Typed:
    (arg,) = without_null(args, DataType("Timestamp", unit="us"))
    if arg.type.name not in names:
        mismatch(expr, args, f"{expr.fn} takes a {' or '.join(names)}, found")
    return arg


def _epoch(expr: Call, args: tuple[Typed, ...]) -> Bound:
    return FLOAT64, (_timestamp(expr, args, ("Date", "Timestamp")),)


def _date_trunc(expr: Call, args: tuple[Typed, ...]) -> Bound:
    unit, timestamp = args
    _unit(expr, unit)
    timestamp = _timestamp(expr, (timestamp,), ("Date", "Timestamp"))
    _needs_clock(expr, unit, timestamp)
    return timestamp.type, (timestamp, unit)


def _date_diff(expr: Call, args: tuple[Typed, ...]) -> Bound:
    unit, *ends = args
    _unit(expr, unit)
    kind = common(expr, tuple(ends), TIMESTAMP)
    if kind.name not in ("Date", "Timestamp"):
        mismatch(expr, tuple(ends), "date_diff takes Dates or Timestamps, found")
    if kind.name == "Date" and unit.value in CLOCK_UNITS:
        kind = TIMESTAMP
    return INT64, (*(convert(end, kind) for end in ends), unit)


def _date_add(expr: Call, args: tuple[Typed, ...]) -> Bound:
    unit, count, timestamp = args
    _unit(expr, unit)
    timestamp = _timestamp(expr, (timestamp,), ("Date", "Timestamp"))
    _needs_clock(expr, unit, timestamp)
    (count,) = without_null((count,))
    if not count.type.is_integer or count.type.name == "UInt64":
        mismatch(expr, (count,), "date_add counts in signed integers, found")
    finer = {"s": ("millisecond", "microsecond"), "ms": ("microsecond",)}
    if unit.value in finer.get(timestamp.type.unit or "", ()):
        raise Unsupported(f"adding {unit.value}s to a {timestamp.type} in `{expr!s}`")
    return timestamp.type, (timestamp, convert(count, INT64), unit)


def _make_date(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = without_null(args)
    if not all(arg.type.is_integer and arg.type.name != "UInt64" for arg in operands):
        mismatch(expr, operands, "make_date takes signed integers, found")
    return DATE, tuple(convert(arg, INT64) for arg in operands)


def _strftime(expr: Call, args: tuple[Typed, ...]) -> Bound:
    timestamp, pattern = args
    check_format(expr, literal_text(expr, pattern))
    return UTF8, (_timestamp(expr, (timestamp,), ("Date", "Timestamp")), pattern)


def _strptime(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, pattern = args
    check_format(expr, literal_text(expr, pattern))
    return TIMESTAMP, (expect(expr, text, "Utf8"), pattern)


def _unit(expr: Call, unit: Typed) -> None:
    if literal_text(expr, unit) not in UNITS:
        raise UsageError(
            f"{expr.fn} has no unit {unit.value!r} in `{expr!s}`", hint=f"units: {', '.join(UNITS)}"
        )


def _needs_clock(expr: Call, unit: Typed, timestamp: Typed) -> None:
    if timestamp.type.name == "Date" and unit.value in CLOCK_UNITS:
        hint = 'cast it: .cast("Timestamp(us)")'
        mismatch(expr, (timestamp,), f"a Date has no {unit.value}, found", hint)


RULES: dict[str, Rule] = {
    "date_part": _date_part,
    "time_part": _time_part,
    "epoch": _epoch,
    "date_trunc": _date_trunc,
    "date_diff": _date_diff,
    "date_add": _date_add,
    "make_date": _make_date,
    "strftime": _strftime,
    "strptime": _strptime,
}
