"""Convert columns to columns of text, with Arrow's kernels instead of a Python loop over cells.

`text_cells` returns the plain text of CSV; `json_cells` returns one JSON value for each cell. A
NULL stays NULL in both. Rare types (nested, binary, intervals) are converted cell by cell.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.calendar import datetime_texts

_EXACT_INT_MAX = 2**53 - 1
_BACKSLASH, _QUOTE, _SPACE = 0x5C, 0x22, 0x20
_LOOK_BYTES = 1 << 18
_SHORT_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def text_cells(column: pa.Array) -> pa.Array:
    """Return each value as text; instants in UTC with a Z, decimals plain, bytes in base64."""
    kind = column.type
    if pa.types.is_decimal(kind):
        return _plain_decimals(column)
    if pa.types.is_timestamp(kind):
        return _timestamps(column)
    if pa.types.is_date(kind):
        return datetime_texts(column)
    if pa.types.is_duration(kind):
        return column.cast(pa.int64()).cast(pa.string())
    if _is_rare(kind):
        return _by_cell(column, _text_of)
    return column.cast(pa.string())


def json_cells(column: pa.Array) -> pa.Array:
    """Return each value as JSON: integers beyond 2^53, decimals, NaN and infinities as strings."""
    text, bare = json_text(column)
    return quoted(text) if bare else text


def json_text(column: pa.Array) -> tuple[pa.Array, bool]:
    """Return each value as JSON, and whether the quotes around the values are still missing.

    The caller, which joins columns, can add quotes more cheaply than a separate pass.
    """
    kind = column.type
    if _is_rare(kind):
        write = partial(json.dumps, ensure_ascii=False)
        return _by_cell(column, lambda value: write(to_json(value))), False
    if pa.types.is_boolean(kind):
        return column.cast(pa.string()), False
    if pa.types.is_integer(kind) or pa.types.is_duration(kind):
        return _integers(column.cast(pa.int64()) if pa.types.is_duration(kind) else column), False
    if pa.types.is_floating(kind):
        return _floats(column), False
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return _escaped(column.cast(pa.string())), True
    text = text_cells(column)
    if pa.types.is_timestamp(kind):
        text = pc.replace_substring(text, " ", "T", max_replacements=1)
    return text, True


def quoted(text: pa.Array) -> pa.Array:
    """Put quotes around each value."""
    return pc.binary_join_element_wise('"', text, '"', "")


def has_any(text: pa.Array, octets: bytes, *, below: int = 0) -> bool:
    """Return whether a string column contains any of these bytes, or any byte under `below`."""
    values = _value_bytes(text)
    for start in range(0, values.size, _LOOK_BYTES):
        part = values[start : start + _LOOK_BYTES]
        if below > 0 and int(part.min()) < below:
            return True
        if any(bool((part == octet).any()) for octet in octets):
            return True
    return False


def to_json(value: Any) -> Any:
    """Return a Python value as a JSON value of the HTTP contract, also for nested values."""
    match value:
        case bool() | None | str():
            return value
        case int():
            return value if abs(value) <= _EXACT_INT_MAX else str(value)
        case float():
            return value if math.isfinite(value) else _float_name(value)
        case dict():
            return {str(key): to_json(inner) for key, inner in value.items()}
        case list() | tuple():
            return [to_json(inner) for inner in value]
        case _:
            return _text_of(value)


def _text_of(value: Any) -> str:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case decimal.Decimal():
            return format(value, "f")
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case dict() | list() | tuple():
            return json.dumps(to_json(value), ensure_ascii=False)
        case _:
            return str(value)


def _is_rare(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_interval(kind)
    )


def _by_cell(column: pa.Array, write: Any) -> pa.Array:
    values = column.to_pylist()
    return pa.array([None if value is None else write(value) for value in values], pa.string())


def _integers(column: pa.Array) -> pa.Array:
    text = column.cast(pa.string())
    if column.type.bit_width < 64:
        return text
    bounds = pc.min_max(column).as_py()
    if bounds["min"] is None or max(-bounds["min"], bounds["max"]) <= _EXACT_INT_MAX:
        return text
    exact = pc.less_equal(column, pa.scalar(_EXACT_INT_MAX, column.type))
    if bounds["min"] < 0:
        above = pc.greater_equal(column, pa.scalar(-_EXACT_INT_MAX, column.type))
        exact = pc.and_(exact, above)
    return pc.if_else(exact, text, quoted(text))


def _floats(column: pa.Array) -> pa.Array:
    text = column.cast(pa.string())
    finite = pc.is_finite(column)
    if pc.all(finite).as_py() is not False:
        return text
    names = pc.if_else(
        pc.is_nan(column), '"NaN"', pc.if_else(pc.greater(column, 0), '"Infinity"', '"-Infinity"')
    )
    return pc.if_else(finite, text, names)


def _float_name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain_decimals(column: pa.Array) -> pa.Array:
    text = column.cast(pa.string())
    return _by_cell(column, _text_of) if has_any(text, b"E") else text


def _timestamps(column: pa.Array) -> pa.Array:
    unit, zone = column.type.unit, column.type.tz
    if zone is not None:
        column = column.cast(pa.timestamp(unit, "UTC"))
    if unit == "s":
        return datetime_texts(column)
    seconds = column.cast(pa.timestamp("s", column.type.tz), safe=False)
    whole = pc.equal(seconds.cast(column.type), column)
    if pc.all(whole).as_py() is not False:
        return datetime_texts(seconds)
    return pc.if_else(whole, datetime_texts(seconds), datetime_texts(column))


def _escaped(text: pa.Array) -> pa.Array:
    if not has_any(text, bytes((_QUOTE, _BACKSLASH)), below=_SPACE):
        return text
    for plain, escape in _SHORT_ESCAPES:
        text = pc.replace_substring(text, plain, escape)
    if not has_any(text, b"", below=_SPACE):
        return text
    return _by_cell(text, _escape_controls)


def _escape_controls(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" if c < " " else c for c in text)


def _value_bytes(text: pa.Array) -> Any:
    _, offsets, values = text.buffers()
    if values is None or not len(text):
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32, count=len(text) + 1, offset=4 * text.offset)
    return np.frombuffer(values, np.uint8)[ends[0] : ends[-1]]
