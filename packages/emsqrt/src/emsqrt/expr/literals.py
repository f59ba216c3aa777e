"""Constants: the type of a Python value, and the canonical JSON spelling of each value.

```
Bool  true      Int*, UInt*  "-12"      Float*  "0x1.8000000000000p+0" "inf" "nan"
Decimal(4,2)  "-1.50"      Utf8  itself      Binary  base64      Date  "2013-01-31"
Timestamp(us)  "2013-01-31T05:00:00.000000"      with a zone, in UTC:  "…Z"
Time  "05:00:00.000000"      Duration  microseconds, "1500000"      NULL of any type  null
```
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from emsqrt.expr.document import Entry
from emsqrt.expr.nodes import Literal, Value
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType

_EXACT = Context(prec=80)
_TIMESPEC = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
_MICROSECOND = timedelta(microseconds=1)
_PLAIN_TYPES: dict[type, str] = {
    float: "Float64",
    str: "Utf8",
    bytes: "Binary",
    date: "Date",
    time: "Time",
    timedelta: "Duration",
}


def make_literal(value: Any, kind: DataType | None) -> Literal:
    """Return the literal of a Python value, of type `kind` or of the inferred type."""
    if not isinstance(value, str | bytes) and hasattr(value, "item"):
        value = value.item()  # numpy's scalars
    if value is None:
        return Literal(None, kind)
    kind = type_of(value) if kind is None else kind
    return Literal(_fit(value, kind), kind)


def type_of(value: Any) -> DataType:
    """Return the type of a Python value as a literal."""
    match value:
        case bool():
            return DataType("Bool")
        case int():
            return _integer_type(value)
        case Decimal():
            return _decimal_type(value)
        case datetime():
            return DataType("Timestamp", unit="us", zone="UTC" if value.tzinfo else None)
    for python_type, name in _PLAIN_TYPES.items():
        if isinstance(value, python_type):
            return DataType(name)
    raise UsageError(
        f"a {type(value).__name__} cannot be a constant of an expression: {value!r}"[:200],
        hint="bool, int, float, str, bytes, Decimal, date, datetime, time and timedelta can",
    )


def _integer_type(value: int) -> DataType:
    """Return the type of a whole number: a Decimal where it exceeds 64 bits."""
    if -(2**63) <= value < 2**64:
        return DataType("Int64" if value < 2**63 else "UInt64")
    return _decimal_type(Decimal(value))


def _decimal_type(value: Decimal) -> DataType:
    if not value.is_finite():
        raise UsageError(f"a Decimal cannot hold {value}")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(0, -exponent)
    precision = max(len(digits) + max(0, exponent), scale, 1)
    if precision > 38:
        raise UsageError(f"{value} has {precision} digits, a Decimal holds 38")
    return DataType("Decimal", precision=precision, scale=scale)


def _fit(value: Any, kind: DataType) -> Value:
    """Return `value` as an exact value of `kind`; or raise UsageError."""
    if isinstance(value, str) and kind.name not in ("Utf8", "Binary"):
        return parse_spelling(value, kind)
    fitted = _FITS[kind.name](value, kind) if kind.name in _FITS else None
    if fitted is None:
        raise UsageError(f"{value!r} is not a value of type {kind}")
    return fitted


def _fit_bool(value: Any, _: DataType) -> bool | None:
    return value if isinstance(value, bool) else None


def _fit_integer(value: Any, kind: DataType) -> int | None:
    low, high = integer_range(kind)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if whole and low <= value <= high else None


def _fit_float(value: Any, kind: DataType) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    if kind.name == "Float32" and math.isfinite(number):
        try:
            return float(struct.unpack("<f", struct.pack("<f", number))[0])
        except OverflowError:
            return None
    return math.nan if math.isnan(number) else number


def _fit_decimal(value: Any, kind: DataType) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number, scale = Decimal(value), kind.scale or 0
    if not number.is_finite():
        return None
    exact = number.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    fits = exact == number and exact.copy_abs() < Decimal(10) ** ((kind.precision or 0) - scale)
    return (exact.copy_abs() if exact == 0 else exact) if fits else None


def _fit_timestamp(value: Any, kind: DataType) -> datetime | None:
    if kind.unit == "ns":
        raise Unsupported("a constant Timestamp(ns): write it in us and cast it")
    if not isinstance(value, datetime) or (value.tzinfo is None) != (kind.zone is None):
        return None
    timestamp = value if value.tzinfo is None else value.astimezone(UTC)
    step = {"s": 1_000_000, "ms": 1000}.get(kind.unit or "us", 1)
    return None if timestamp.microsecond % step else timestamp.replace(fold=0)


def _fit_date(value: Any, _: DataType) -> date | None:
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _fit_time(value: Any, _: DataType) -> time | None:
    return value.replace(fold=0) if isinstance(value, time) and value.tzinfo is None else None


_FITS: dict[str, Callable[[Any, DataType], Value | None]] = {
    "Bool": _fit_bool,
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64"), _fit_integer),
    **dict.fromkeys(("UInt8", "UInt16", "UInt32", "UInt64"), _fit_integer),
    **dict.fromkeys(("Float32", "Float64"), _fit_float),
    "Decimal": _fit_decimal,
    "Utf8": lambda value, _: value if isinstance(value, str) else None,
    "Binary": lambda value, _: value if isinstance(value, bytes) else None,
    "Date": _fit_date,
    "Timestamp": _fit_timestamp,
    "Time": _fit_time,
    "Duration": lambda value, _: value if isinstance(value, timedelta) else None,
}


def integer_range(kind: DataType) -> tuple[int, int]:
    """Return the smallest and the largest value of an integer type."""
    bits = int(kind.name.lstrip("UInt"))
    return (0, 2**bits - 1) if kind.name[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def spell(value: Value | None, kind: DataType) -> str | bool | None:
    """Return the canonical JSON spelling of a value of type `kind`."""
    match value:
        case None | bool() | str():
            return value
        case float():
            return value.hex()
        case Decimal():
            return f"{value:f}"
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case datetime():
            text = value.replace(tzinfo=None).isoformat(timespec=_TIMESPEC[kind.unit or "us"])
            return text if value.tzinfo is None else f"{text}Z"
        case time():
            return value.isoformat(timespec="microseconds")
        case timedelta():
            return str(value // _MICROSECOND)
        case _:
            return str(value)


def read_literal(entry: Entry, kind: DataType) -> Value | None:
    """Return the value at `entry`, whose spelling must be canonical."""
    if entry.value is None:
        return None
    if kind.name == "Bool":
        return entry.boolean()
    text = entry.text()
    try:
        value = parse_spelling(text, kind)
    except Unsupported:
        raise
    except UsageError as error:
        entry.fail(str(error))
    if spell(value, kind) != text:
        entry.fail(f"{text!r} is not the canonical {kind}", hint=f"write {spell(value, kind)!r}")
    return value


def parse_spelling(text: str, kind: DataType) -> Value:
    """Parse a value of type `kind`, in the canonical JSON form or a looser one.

    Raises:
        UsageError: the text is no such value.
    """
    try:
        value = _PARSERS[kind.name](text) if kind.name in _PARSERS else None
    except (ValueError, InvalidOperation, OverflowError):
        value = None
    if value is None:
        raise UsageError(f"{text[:80]!r} is not a value of type {kind}")
    if kind.zone is not None and isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return _fit(value, kind)


def _parse_integer(text: str) -> int | None:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def _parse_float(text: str) -> float:
    return float.fromhex(text) if "0x" in text.lower() else float(text)


def _parse_decimal(text: str) -> Decimal | None:
    return Decimal(text) if len(text) <= 60 else None


def _parse_binary(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_PARSERS: dict[str, Callable[[str], Value | None]] = {
    "Bool": lambda text: {"true": True, "false": False}.get(text.lower()),
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64"), _parse_integer),
    **dict.fromkeys(("UInt8", "UInt16", "UInt32", "UInt64"), _parse_integer),
    **dict.fromkeys(("Float32", "Float64"), _parse_float),
    "Decimal": _parse_decimal,
    "Utf8": lambda text: text,
    "Binary": _parse_binary,
    "Date": date.fromisoformat,
    "Timestamp": datetime.fromisoformat,
    "Time": time.fromisoformat,
    "Duration": lambda text: timedelta(microseconds=int(text)),
}
