"""Conversions between types: which values fit, and their results.

Strict: the first value that does not fit raises an error that shows it. Not strict: it becomes
NULL. Text is parsed by the small grammars below, the same in every engine; Arrow's own parser is
used only where it agrees with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.calendar import STEPS, datetime_texts
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.expr.literals import integer_range
from emsqrt.expr.nodes import Expr
from emsqrt.expr.rules import as_decimal, widens
from sennit_core.schema import DataType

_EXACT = Context(prec=400)
_INT64 = DataType("Int64")


def cast_values(
    values: Any, source: DataType, target: DataType, expr: Expr | None, *, strict: bool
) -> Any:
    """Return `values` as `target`.

    Args:
        values: an Array of type `source`.
        source: their type.
        target: the requested type; `emsqrt.expr.rules.castable` allows it.
        expr: the expression, for the error's text.
        strict: whether a value that does not fit is an error.

    Raises:
        ValueOutOfRange: a value does not fit and the cast is strict.
    """
    if source.name in ("Utf8", "Binary") and target.name not in ("Utf8", "Binary"):
        converted = _read(values, target)
        fits = pc.or_(pc.is_valid(converted), pc.is_null(values))
        return _keep(values, converted, fits, target, expr, strict=strict)
    if source.name == "Binary":
        return _decode(values, target, expr, strict=strict)
    if not widens(source, target):
        fits = pc.fill_null(_fits(values, source, target), True)
        values = _keep(values, values, fits, target, expr, strict=strict)
    return _convert(values, source, target)


def _keep(
    values: Any, converted: Any, fits: Any, target: DataType, expr: Expr | None, *, strict: bool
) -> Any:
    """Return `converted` with NULL where `values` do not fit, or raise for the first of them."""
    if pc.all(fits).as_py() is not False:
        return converted
    if strict:
        bad = shown(values.filter(pc.invert(fits))[0])
        raise ValueOutOfRange(str(expr), f"{bad!r} is not a {target}", hint="try_cast returns NULL")
    return pc.if_else(fits, converted, pa.scalar(None, converted.type))


def shown(value: Any) -> Any:
    """Return a Scalar as a Python value; as text if it is a time that Python cannot represent."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return value.cast(pa.string()).as_py()


# Which values fit -----------------------------------------------------------------------------


def _fits(values: Any, source: DataType, target: DataType) -> Any:
    """Return for each value whether `target` represents it exactly (floats: is in range)."""
    if target.name == "Bool":
        return pc.or_(_equals(values, 0), _equals(values, 1))
    if target.is_integer:
        return _fits_integer(values, source, target)
    if target.name == "Decimal":
        return _fits_decimal(values, source, target)
    if target.name == "Float32":
        narrow = values.cast(pa.float32(), safe=False) if source.is_float else None
        if narrow is None:
            return pc.is_valid(values)
        return pc.or_(pc.is_finite(narrow), pc.invert(pc.is_finite(values)))
    return _fits_time(values, source, target)


def _equals(values: Any, number: int) -> Any:
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.decimal256(76, values.type.scale))
        return pc.equal(values, _scalar(number, values.type))
    return pc.equal(values, pa.scalar(number).cast(values.type))


def _fits_integer(values: Any, source: DataType, target: DataType) -> Any:
    low, high = integer_range(target)
    if source.is_float:
        # 2^63 and 2^64 are doubles, their predecessors' neighbours are not: compare below them.
        whole = pc.equal(values, pc.trunc(values))
        return pc.and_(
            whole, pc.and_(pc.greater_equal(values, float(low)), pc.less(values, float(high + 1)))
        )
    exact = values if source.name == "Decimal" else values.cast(_wide(as_decimal(source)))
    wide = exact.cast(pa.decimal256(76, source.scale or 0))
    ranged = pc.and_(
        pc.greater_equal(wide, _scalar(low, wide.type)),
        pc.less_equal(wide, _scalar(high, wide.type)),
    )
    return pc.and_(ranged, pc.equal(pc.trunc(wide), wide)) if source.scale else ranged


def _wide(kind: DataType) -> Any:
    return pa.decimal256(kind.precision, kind.scale)


def _scalar(number: int, kind: Any) -> Any:
    return pa.scalar(Decimal(number), pa.decimal256(40, 0)).cast(kind)


def _fits_decimal(values: Any, source: DataType, target: DataType) -> Any:
    digits, scale = (target.precision or 0) - (target.scale or 0), target.scale or 0
    if source.is_float:
        return pa.array([_to_decimal(value, target) is not None for value in values.to_pylist()])
    held = as_decimal(source)
    wide = values.cast(_wide(held)).cast(pa.decimal256(76, held.scale or 0))
    ranged = pc.less(pc.abs(wide), _scalar(10**digits, wide.type))
    if (held.scale or 0) <= scale:
        return ranged
    kept = pc.round(wide, ndigits=scale, round_mode="towards_zero")
    return pc.and_(ranged, pc.equal(kept, wide))


def _to_decimal(value: float | None, target: DataType) -> Decimal | None:
    """Round the exact binary value half away from zero to the scale; None on overflow."""
    if value is None or not math.isfinite(value):
        return None
    unit = Decimal(1).scaleb(-(target.scale or 0))
    exact = Decimal(value).quantize(unit, rounding=ROUND_HALF_UP, context=_EXACT)
    limit = Decimal(10) ** ((target.precision or 0) - (target.scale or 0))
    return abs(exact) if exact == 0 else exact if abs(exact) < limit else None


def _fits_time(values: Any, source: DataType, target: DataType) -> Any:
    ticks = values.cast(pa.int32()).cast(pa.int64()) if source.name == "Date" else _ticks(values)
    factor, divisor = _time_step(source, target)
    if divisor > 1:
        return _equals(_minus_floor(ticks, divisor), 0)
    limit = (2**63 - 1) // factor
    return pc.and_(
        pc.less_equal(ticks, pa.scalar(limit)), pc.greater_equal(ticks, pa.scalar(-limit))
    )


def _time_step(source: DataType, target: DataType) -> tuple[int, int]:
    """Return the factor and the divisor that convert ticks of `source` to ticks of `target`."""
    target_steps = STEPS[target.unit or "us"]
    if source.name == "Date":
        return 86_400 * target_steps, 1
    source_steps = STEPS[source.unit or "us"]
    return max(1, target_steps // source_steps), max(1, source_steps // target_steps)


def _ticks(values: Any) -> Any:
    return values.cast(pa.int64())


def _minus_floor(ticks: Any, divisor: int) -> Any:
    numbers = ticks.fill_null(0).to_numpy()
    return pc.if_else(pc.is_valid(ticks), pa.array(numbers % divisor), pa.scalar(None, pa.int64()))


# The converted values ------------------------------------------------------------------------


def _convert(values: Any, source: DataType, target: DataType) -> Any:
    kind = target.to_arrow()
    if target.name == "Utf8":
        if source.name == "Decimal":
            return pa.array([v if v is None else f"{v:f}" for v in values.to_pylist()], kind)
        return datetime_texts(values) if source.name == "Date" else values.cast(kind)
    if target.name in ("Date", "Timestamp"):
        return _convert_time(values, source, target)
    if target.name == "Bool":
        return pc.invert(_equals(values, 0))
    if target.name == "Decimal":
        return _convert_decimal(values, source, target)
    if source.name == "Decimal" and target.is_float:
        # Arrow multiplies by an inexact power of ten; its text is exact and reads back rounded.
        return values.cast(pa.string()).cast(pa.float64()).cast(kind, safe=False)
    if source.name == "Decimal":
        whole = values.cast(pa.decimal128(38, source.scale or 0)).cast(pa.decimal128(38, 0))
        if target.name == "UInt64":
            return whole.cast(pa.uint64())
        return whole.cast(pa.int64()).cast(kind, safe=False)
    return values.cast(kind, safe=False)


def _convert_decimal(values: Any, source: DataType, target: DataType) -> Any:
    if source.is_float:
        return pa.array([_to_decimal(v, target) for v in values.to_pylist()], target.to_arrow())
    held = as_decimal(source)
    exact = values if source.name == "Decimal" else values.cast(_wide(held))
    return exact.cast(pa.decimal256(76, target.scale or 0)).cast(target.to_arrow())


def _convert_time(values: Any, source: DataType, target: DataType) -> Any:
    if target.name == "Date":
        steps = 86_400 * STEPS[source.unit or "us"]
        days = _ticks(values).fill_null(0).to_numpy() // steps
        made = pa.array(days.astype(np.int32)).cast(pa.date32())
        return pc.if_else(pc.is_valid(values), made, pa.scalar(None, pa.date32()))
    factor, divisor = _time_step(source, target)
    ticks = values.cast(pa.int32()).cast(pa.int64()) if source.name == "Date" else _ticks(values)
    moved = pc.multiply(ticks, factor) if factor > 1 else pc.divide(ticks, divisor)
    return moved.cast(target.to_arrow())


def _decode(values: Any, target: DataType, expr: Expr | None, *, strict: bool) -> Any:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [None if value is None else _utf8(value) for value in values.to_pylist()]
        converted = pa.array(texts, pa.string())
        fits = pc.or_(pc.is_valid(converted), pc.is_null(values))
        return _keep(values, converted, fits, target, expr, strict=strict)


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None


# Parsing text: all of it, with no space around ------------------------------------------------

_INTEGER = r"-?[0-9]{1,18}"
_FLOAT = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"

_AGREED: dict[str, str] = {
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64"), _INTEGER),
    **dict.fromkeys(("UInt8", "UInt16", "UInt32", "UInt64"), "[0-9]{1,18}"),
    "Float64": _FLOAT,
    "Date": _DAY,
    "Timestamp": f"{_DAY}[ T]{_CLOCK}",
}
"""For each type the texts that Arrow parses exactly as the grammar does."""


def _read(values: Any, target: DataType) -> Any:
    """Return the values of texts, NULL where a text is no value of the type."""
    pattern = None if target.zone else _AGREED.get(target.name)
    if pattern is not None:
        agreed = pc.all(pc.match_substring_regex(values, f"^({pattern})$"))
        if agreed.as_py() is not False:
            try:
                return values.cast(target.to_arrow())
            except pa.ArrowInvalid:
                pass
    read = _READERS[target.name]
    spelled = [None if text is None else read(text, target) for text in values.to_pylist()]
    return pa.array(spelled, target.to_arrow())


def _read_bool(text: str, _: DataType) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _read_integer(text: str, target: DataType) -> int | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
        return None
    low, high = integer_range(target)
    return number if low <= (number := int(text)) <= high else None


def _read_float(text: str, target: DataType) -> float | None:
    if not re.fullmatch(rf"{_FLOAT}|[+-]?(inf(inity)?|nan)", text, re.IGNORECASE | re.ASCII):
        return None
    number = float(text)
    if target.name == "Float32":
        with np.errstate(over="ignore"):
            return float(np.float32(number))
    return number


def _read_decimal(text: str, target: DataType) -> Decimal | None:
    if len(text) > 100 or not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", text):
        return None
    exact = Decimal(text)
    kept = exact.quantize(Decimal(1).scaleb(-(target.scale or 0)), context=_EXACT)
    limit = Decimal(10) ** ((target.precision or 0) - (target.scale or 0))
    return kept if kept == exact and abs(kept) < limit else None


_NO_YEAR = "0000"
"""Python's calendar begins a year later; parse the year 2000 instead and subtract this many
days."""
_DAYS_TO_2000 = 730_485


def _read_date(text: str, _: DataType) -> int | None:
    if not re.fullmatch(_DAY, text):
        return None
    known, earlier = _in_known_year(text)
    try:
        return (date.fromisoformat(known) - date(1970, 1, 1)).days - earlier
    except ValueError:
        return None


def _in_known_year(text: str) -> tuple[str, int]:
    """Return a text that Python can parse, and the days by which it is later than the original."""
    return ("2000" + text[4:], _DAYS_TO_2000) if text.startswith(_NO_YEAR) else (text, 0)


def _read_timestamp(text: str, target: DataType) -> int | None:
    """Parse ISO 8601: a day, perhaps a time, fractions to microseconds; an offset with a zone."""
    match = re.fullmatch(
        rf"({_DAY})([ T]([0-9:]+)(\.[0-9]{{1,6}})?)?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?", text
    )
    if match is None or (match[5] is not None and target.zone is None):
        return None
    clock = match[3] or "00:00"
    if not re.fullmatch(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", clock) or (match[4] and len(clock) < 8):
        return None
    known, earlier = _in_known_year(match[1])
    try:
        timestamp = datetime.fromisoformat(f"{known}T{clock}{match[4] or ''}{match[5] or 'Z'}")
    except ValueError:
        return None
    since = timestamp - datetime(1970, 1, 1, tzinfo=UTC)
    ticks = ((since.days - earlier) * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    steps = STEPS[target.unit or "us"]
    if ticks * steps % 1_000_000 or not -(2**63) <= ticks * steps // 1_000_000 < 2**63:
        return None
    return ticks * steps // 1_000_000


_READERS: dict[str, Callable[[str, DataType], Any]] = {
    "Bool": _read_bool,
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64"), _read_integer),
    **dict.fromkeys(("UInt8", "UInt16", "UInt32", "UInt64"), _read_integer),
    **dict.fromkeys(("Float32", "Float64"), _read_float),
    "Decimal": _read_decimal,
    "Date": _read_date,
    "Timestamp": _read_timestamp,
}
