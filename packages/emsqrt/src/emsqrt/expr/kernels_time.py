"""Functions of dates and timestamps over Arrow arrays, always in UTC; see `emsqrt.expr.kernels`.

Days are counted from 1970-01-01 in the proleptic Gregorian calendar; the conversions between days
and (year, month, day) follow Howard Hinnant's "chrono-compatible low-level date algorithms".
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.calendar import STEPS, Integers, exceeds_arrow_years, to_civil
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.expr.formats import DIRECTIVES, split_format
from emsqrt.expr.kernels import Datum, kernel
from emsqrt.expr.typed import Typed

SECONDS = {"week": 604_800, "day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
MONTHS = {"year": 12, "quarter": 3, "month": 1}
PARTS_OF_SECOND = {"millisecond": 1_000, "microsecond": 1_000_000}
MONDAY = 3
"""Days from the Monday before 1970-01-01, which was a Thursday."""
_PARTS = {
    "year": pc.year,
    "month": pc.month,
    "day": pc.day,
    "hour": pc.hour,
    "minute": pc.minute,
    "second": pc.second,
    "quarter": pc.quarter,
    "week": pc.iso_week,
    "doy": pc.day_of_year,
}
_DAY_MAX = 2**31 - 1


def _utc(value: Datum) -> Any:
    """Return timestamps without their zone, in UTC."""
    if pa.types.is_timestamp(value.type) and value.type.tz is not None:
        return value.cast(pa.int64()).cast(pa.timestamp(value.type.unit))
    return value


@kernel(*_PARTS)
def _part(typed: Typed, value: Datum) -> Any:
    instants = _utc(value)
    if typed.op in _OF_YEAR and exceeds_arrow_years(instants):
        numbers = _OF_YEAR[typed.op](_days_and_rest(instants)[0])
        return _with_nulls(numbers, instants, pa.int64())
    return _PARTS[typed.op](instants)


@kernel("dow", "isodow")
def _day_of_week(typed: Typed, value: Datum) -> Any:
    iso = typed.op == "isodow"
    return pc.day_of_week(_utc(value), count_from_zero=not iso, week_start=1 if iso else 7)


@kernel("epoch", "epoch_ms")
def _epoch(typed: Typed, value: Datum) -> Any:
    ticks, steps = _ticks(value)
    if typed.op == "epoch":
        return _with_nulls(ticks / steps, value, pa.float64())
    if steps >= 1_000:
        return _with_nulls(ticks // (steps // 1_000), value, pa.int64())
    return pc.multiply_checked(_with_nulls(ticks, value, pa.int64()), pa.scalar(1_000 // steps))


def _ticks(value: Datum) -> tuple[Integers, int]:
    """Return dates or timestamps as ticks, 0 for NULL, and ticks per second (dates: per day)."""
    if pa.types.is_date32(value.type):
        days = value.cast(pa.int32()).cast(pa.int64())
        return _filled(days) * 86_400, 1
    return _filled(value.cast(pa.int64())), STEPS[value.type.unit]


def _filled(values: Datum) -> Integers:
    filled: Integers = values.fill_null(0).to_numpy()
    return filled


def _with_nulls(numbers: Any, like: Datum, kind: Any) -> Any:
    """Return numbers as an array with NULL where `like` is NULL."""
    made = pa.array(numbers).cast(kind)
    return pc.if_else(pc.is_valid(like), made, pa.scalar(None, kind)) if like.null_count else made


# The calendar -----------------------------------------------------------------------------------


def _from_civil(year: Integers, month: Integers, day: Integers) -> Integers:
    """Return the days since 1970-01-01."""
    years = year - (month <= 2)
    era = years // 400
    year_of_era = years - era * 400
    shifted_month = np.where(month > 2, month - 3, month + 9)
    of_year = (153 * shifted_month + 2) // 5 + day - 1
    of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + of_year
    days: Integers = era * 146_097 + of_era - 719_468
    return days


def _days_in(year: Integers, month: Integers) -> Integers:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    lengths = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    days: Integers = lengths[month - 1] + ((month == 2) & leap)
    return days


def _year(days: Integers) -> Integers:
    return to_civil(days)[0]


def _day_of_year(days: Integers) -> Integers:
    year = _year(days)
    return days - _from_civil(year, np.ones_like(year), np.ones_like(year)) + 1


def _week_of_year(days: Integers) -> Integers:
    """Return the ISO 8601 week number: the Thursday's week within its year."""
    weeks: Integers = (_day_of_year(_week(days) + 3) + 6) // 7
    return weeks


_OF_YEAR = {"year": _year, "doy": _day_of_year, "week": _week_of_year}


@kernel("make_date")
def _make_date(typed: Typed, *parts: Datum) -> Any:
    count = next(len(part) for part in parts if isinstance(part, pa.Array))
    arrays = [part if isinstance(part, pa.Array) else pa.repeat(part, count) for part in parts]
    valid = np.logical_and.reduce(
        [part.is_valid().to_numpy(zero_copy_only=False) for part in arrays]
    )
    year, month, day = (np.where(valid, _filled(part), 1) for part in arrays)
    there = (year >= 1) & (year <= 9_999) & (month >= 1) & (month <= 12) & (day >= 1)
    month_there = np.where(there, month, 1)
    there &= day <= _days_in(np.where(there, year, 1), month_there)
    if not there.all():
        row = int(np.argmin(there))
        shown = f"{year[row]}-{month[row]}-{day[row]}"
        raise ValueOutOfRange(str(typed.source), f"there is no day {shown}")
    made = pa.array(_from_civil(year, month, day).astype(np.int32)).cast(pa.date32())
    return pc.if_else(pa.array(valid), made, pa.scalar(None, pa.date32()))


# Units ------------------------------------------------------------------------------------------


def _days_and_rest(value: Datum) -> tuple[Integers, Integers, int]:
    """Return whole days, the ticks within the day, and the ticks per second."""
    if pa.types.is_date32(value.type):
        days = _filled(value.cast(pa.int32()).cast(pa.int64()))
        return days, np.zeros_like(days), 1
    ticks, steps = _ticks(value)
    days = ticks // (86_400 * steps)
    return days, ticks - days * 86_400 * steps, steps


def _back(days: Integers, rest: Integers, steps: int, like: Datum) -> Any:
    """Return days and the ticks within the day as values of the type of `like`."""
    if pa.types.is_date32(like.type):
        if days.size and max(-int(days.min()), int(days.max())) > _DAY_MAX:
            raise pa.ArrowInvalid("no Date is so far away")
        made = pa.array(days.astype(np.int32)).cast(pa.date32())
    else:
        limit = (2**63 - 1) // (86_400 * steps) - 1
        if days.size and max(-int(days.min()), int(days.max())) > limit:
            raise pa.ArrowInvalid("no Timestamp is so far away")
        made = pa.array(days * 86_400 * steps + rest).cast(like.type)
    return pc.if_else(pc.is_valid(like), made, pa.scalar(None, like.type))


@kernel("date_trunc")
def _date_trunc(_: Typed, value: Datum, unit: Datum) -> Any:
    name = unit.as_py()
    days, rest, steps = _days_and_rest(value)
    if name in MONTHS:
        year, month, _day = to_civil(days)
        first = (month - 1) // MONTHS[name] * MONTHS[name] + 1
        return _back(_from_civil(year, first, np.ones_like(days)), 0 * rest, steps, value)
    if name in ("week", "day"):
        return _back(_week(days) if name == "week" else days, 0 * rest, steps, value)
    size = _unit_ticks(name, steps)
    return value if size <= 1 else _back(days, rest // size * size, steps, value)


def _week(days: Integers) -> Integers:
    monday: Integers = (days + MONDAY) // 7 * 7 - MONDAY
    return monday


def _unit_ticks(unit: str, steps: int) -> int:
    """Return the ticks in a unit of the clock; 0 or 1 when it is the finest resolution."""
    if unit in PARTS_OF_SECOND:
        return steps // PARTS_OF_SECOND[unit]
    return SECONDS[unit] * steps


@kernel("date_diff")
def _date_diff(_: Typed, start: Datum, end: Datum, unit: Datum) -> Any:
    """Count the boundaries of the unit between two dates or timestamps."""
    count = next(len(side) for side in (start, end) if isinstance(side, pa.Array))
    sides = [s if isinstance(s, pa.Array) else pa.repeat(s, count) for s in (start, end)]
    first, last = (_boundary(side, unit.as_py()) for side in sides)
    valid = pc.and_(pc.is_valid(sides[0]), pc.is_valid(sides[1]))
    gap = pc.subtract_checked(pa.array(last), pa.array(first))
    return pc.if_else(valid, gap, pa.scalar(None, pa.int64()))


def _boundary(value: Datum, unit: str) -> Integers:
    """Return how many units begin between year 0, or 1970, and each value."""
    days, rest, steps = _days_and_rest(value)
    if unit in MONTHS:
        year, month, _ = to_civil(days)
        months: Integers = (year * 12 + month - 1) // MONTHS[unit]
        return months
    if unit in ("week", "day"):
        return (days + MONDAY) // 7 if unit == "week" else days
    per_day = _checked(86_400 * PARTS_OF_SECOND.get(unit, 1) // SECONDS.get(unit, 1), days)
    if unit in PARTS_OF_SECOND and steps < PARTS_OF_SECOND[unit]:
        finer: Integers = days * per_day + rest * (PARTS_OF_SECOND[unit] // steps)
        return finer
    whole: Integers = days * per_day + rest // _unit_ticks(unit, steps)
    return whole


def _checked(per_day: int, days: Integers) -> int:
    if days.size and max(-int(days.min()), int(days.max())) > (2**63 - 1) // per_day - 1:
        raise pa.ArrowInvalid("too many units for 64 bits")
    return per_day


@kernel("date_add")
def _date_add(_: Typed, value: Datum, count: Datum, unit: Datum) -> Any:
    rows = next(len(side) for side in (value, count) if isinstance(side, pa.Array))
    timestamp, counts = (
        s if isinstance(s, pa.Array) else pa.repeat(s, rows) for s in (value, count)
    )
    timestamp = pc.if_else(pc.is_valid(counts), timestamp, pa.scalar(None, timestamp.type))
    counts = pc.if_else(pc.is_valid(timestamp), counts, pa.scalar(None, pa.int64()))
    name, moved = unit.as_py(), _filled(counts)
    days, rest, steps = _days_and_rest(timestamp)
    if moved.size and max(-int(moved.min()), int(moved.max())) > 2**53:
        raise pa.ArrowInvalid("an interval of more than 2^53 units")
    if name in MONTHS:
        return _back(_add_months(days, moved * MONTHS[name]), rest, steps, timestamp)
    if name in ("week", "day"):
        return _back(days + moved * (SECONDS[name] // 86_400), rest, steps, timestamp)
    ticks = pc.multiply_checked(pa.array(moved), pa.scalar(_unit_ticks(name, steps)))
    total = pc.add_checked(_with_nulls(days * 86_400 * steps + rest, timestamp, pa.int64()), ticks)
    return total.cast(timestamp.type)


def _add_months(days: Integers, months: Integers) -> Integers:
    """Add months; a day that the month does not have becomes its last."""
    year, month, day = to_civil(days)
    index = year * 12 + month - 1 + months
    moved_year, moved_month = index // 12, index % 12 + 1
    if index.size and max(-int(index.min()), int(index.max())) > 2**40:
        raise pa.ArrowInvalid("a year far beyond the calendar")
    return _from_civil(moved_year, moved_month, np.minimum(day, _days_in(moved_year, moved_month)))


# Text -------------------------------------------------------------------------------------------


@kernel("strftime")
def _strftime(_: Typed, value: Datum, pattern: Datum) -> Any:
    days, rest, steps = _days_and_rest(value)
    year, month, day = to_civil(days)
    second, fraction = rest // steps, rest % steps * 1_000_000 // steps
    numbers = {
        "%Y": (year, 4),
        "%y": (year % 100, 2),
        "%m": (month, 2),
        "%d": (day, 2),
        "%H": (second // 3_600, 2),
        "%M": (second // 60 % 60, 2),
        "%S": (second % 60, 2),
        "%f": (fraction, 6),
        "%j": (_day_of_year(days), 3),
    }
    parts = [
        pc.utf8_lpad(pa.array(numbers[part][0]).cast(pa.string()), numbers[part][1], "0")
        if part in numbers
        else pa.scalar("%" if part == "%%" else part)
        for part in split_format(pattern.as_py())
    ]
    empty = pa.repeat(pa.scalar(""), len(value))
    made = pc.binary_join_element_wise(empty, *parts, pa.scalar(""))
    return pc.if_else(pc.is_valid(value), made, pa.scalar(None, pa.string()))


@kernel("strptime", "try_strptime")
def _strptime(typed: Typed, value: Datum, pattern: Datum) -> Any:
    parts = split_format(pattern.as_py())
    groups = [part for part in parts if part in DIRECTIVES]
    regex = re.compile(
        "".join(
            f"({DIRECTIVES[part]})" if part in DIRECTIVES else re.escape(part.replace("%%", "%"))
            for part in parts
        )
    )
    made = [None if text is None else _read(text, regex, groups) for text in value.to_pylist()]
    if typed.op == "strptime":
        for text, timestamp in zip(value.to_pylist(), made, strict=True):
            if timestamp is None and text is not None:
                reason = f"{text!r} does not match {pattern.as_py()!r}"
                raise ValueOutOfRange(str(typed.source), reason, hint="try_strptime returns NULL")
    return pa.array(made, pa.timestamp("us"))


def _read(text: str, regex: re.Pattern[str], groups: list[str]) -> datetime | None:
    match = regex.fullmatch(text)
    if match is None:
        return None
    found = {name: int(part) for name, part in zip(groups, match.groups(), strict=True)}
    for name, part in zip(groups, match.groups(), strict=True):
        if name == "%f":
            found[name] = int(part.ljust(6, "0"))
        elif name == "%y":
            found["%Y"] = int(part) + (1900 if int(part) >= 69 else 2000)
    hour, minute, second, micro = (found.get(name, 0) for name in ("%H", "%M", "%S", "%f"))
    day = (found.get("%Y", 1900), found.get("%m", 1), found.get("%d", 1))
    try:
        timestamp = datetime(*day, hour, minute, second, micro)  # noqa: DTZ001 - the text has no zone
    except ValueError:
        return None
    if "%j" in found:
        timestamp = timestamp.replace(month=1, day=1) + timedelta(found["%j"] - 1)
        return timestamp if timestamp.year == found.get("%Y", 1900) else None
    return timestamp
