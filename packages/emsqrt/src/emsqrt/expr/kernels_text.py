"""Functions of text, lists and structs over Arrow arrays; see `emsqrt.expr.kernels`."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emsqrt._kernel import xxh3_64
from emsqrt.expr.kernels import Datum, kernel
from emsqrt.expr.typed import Typed
from sennit_core.errors import UsageError


@kernel("concat")
def _concat(_: Typed, *values: Datum) -> Any:
    return pc.binary_join_element_wise(*values, pa.scalar(""), null_handling="emit_null")


@kernel("upper")
def _upper(_: Typed, value: Datum) -> Any:
    return pc.utf8_upper(value)


@kernel("lower")
def _lower(_: Typed, value: Datum) -> Any:
    return pc.utf8_lower(value)


@kernel("initcap")
def _initcap(_: Typed, value: Datum) -> Any:
    return pc.utf8_title(value)


_TRIMS = {"trim": pc.utf8_trim, "ltrim": pc.utf8_ltrim, "rtrim": pc.utf8_rtrim}


@kernel(*_TRIMS)
def _trim(typed: Typed, value: Datum, chars: Datum = None) -> Any:
    wanted = " " if chars is None else chars.as_py()
    return _TRIMS[typed.op](value, wanted) if wanted else value


@kernel("reverse")
def _reverse(_: Typed, value: Datum) -> Any:
    return pc.utf8_reverse(value)


@kernel("left")
def _left(_: Typed, value: Datum, count: Datum) -> Any:
    return pc.utf8_slice_codeunits(value, 0, count.as_py())


@kernel("right")
def _right(_: Typed, value: Datum, count: Datum) -> Any:
    kept = count.as_py()
    if kept == 0:
        return pc.utf8_slice_codeunits(value, 0, 0)
    return pc.utf8_slice_codeunits(value, -kept)


@kernel("repeat")
def _repeat(_: Typed, value: Datum, count: Datum) -> Any:
    return pc.binary_repeat(value, count.as_py())


@kernel("lpad", "rpad")
def _pad(typed: Typed, value: Datum, count: Datum, fill: Datum = None) -> Any:
    width: int = count.as_py()
    filling: str = " " if fill is None else fill.as_py()
    cut = pc.utf8_slice_codeunits(value, 0, width)
    if len(filling) == 1:
        pad = pc.utf8_lpad if typed.op == "lpad" else pc.utf8_rpad
        return pad(cut, width=width, padding=filling)
    pads: str = filling * (width // len(filling) + 1)
    left = typed.op == "lpad"

    def padded(text: str) -> str:
        missing = pads[: width - len(text)]
        return missing + text if left else text + missing

    return _each(cut, padded, pa.string())


@kernel("split_part")
def _split_part(_: Typed, value: Datum, separator: Datum, index: Datum) -> Any:
    parts, wanted = pc.split_pattern(value, separator.as_py()), index.as_py()
    found = item_at(parts, wanted)
    return pc.if_else(pc.is_valid(value), pc.fill_null(found, ""), pa.scalar(None, pa.string()))


@kernel("list_get")
def _list_get(_: Typed, items: Datum, index: Datum) -> Any:
    return item_at(items, index.as_py())


def item_at(items: Datum, index: int) -> Any:
    """Return each list's item at `index`: 1 is the first, -1 the last; NULL where there is none."""
    counts = pc.fill_null(pc.list_value_length(items), 0).cast(pa.int64())
    there = pc.greater_equal(counts, pa.scalar(abs(index)))
    starts = pa.array(items.offsets.to_numpy(zero_copy_only=False)[: len(items)], pa.int64())
    within = pa.scalar(index - 1) if index > 0 else pc.add(counts, pa.scalar(index))
    places = pc.if_else(there, pc.add(starts, within), pa.scalar(None, pa.int64()))
    return items.values.take(places)


@kernel("hash")
def _hash(typed: Typed, *values: Datum) -> Any:
    """XXH3-64 of each value's bytes, seeded with the hash of the value before it."""
    count = next(len(side) for side in values if isinstance(side, pa.Array))
    made = [0] * count
    for side in values:
        array = side if isinstance(side, pa.Array) else pa.repeat(side, count)
        made = list(map(xxh3_64, _bytes_of(array), made))
    return pa.array(made, pa.uint64())


def _bytes_of(values: Any) -> list[bytes]:
    """Return the bytes that represent each value; NULL has a first byte that no text has."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return [_NULL if each is None else each for each in values.cast(pa.binary()).to_pylist()]
    if pa.types.is_decimal(kind):
        ticks = [None if v is None else int(v.scaleb(kind.scale)) for v in values.to_pylist()]
        return [_NULL if v is None else v.to_bytes(16, "little", signed=True) for v in ticks]
    if pa.types.is_floating(kind):
        floats = values.to_pylist()
        return [_NULL if v is None else _float_bytes(v) for v in floats]
    if pa.types.is_date32(kind):
        values = values.cast(pa.int32())
    signed = not pa.types.is_uint64(kind)
    whole = values.cast(pa.int64()) if signed else values
    return [
        _NULL if v is None else v.to_bytes(8, "little", signed=signed) for v in whole.to_pylist()
    ]


_NULL = b"\xff"


def _float_bytes(value: float) -> bytes:
    """Return binary64 with one zero and one NaN."""
    return struct.pack("<d", math.nan if value != value else value + 0.0)


@kernel("struct_get")
def _struct_get(_: Typed, record: Datum, name: Datum) -> Any:
    return pc.struct_field(record, [name.as_py()])


@kernel("strpos")
def _strpos(_: Typed, value: Datum, part: Datum) -> Any:
    """Return where `part` begins, in code points from 1; 0 where it does not occur."""
    if pc.all(pc.string_is_ascii(value)).as_py() is not False:
        return pc.add(pc.find_substring(value, part.as_py()).cast(pa.int64()), pa.scalar(1))
    return _each(value, lambda text: text.find(part.as_py()) + 1, pa.int64())


def _each(values: Datum, compute: Callable[[str], Any], kind: Any) -> Any:
    """Return Python's result for each text; NULL of NULL."""
    made = [None if text is None else compute(text) for text in values.to_pylist()]
    return pa.array(made, kind)


@kernel("length")
def _length(_: Typed, value: Datum) -> Any:
    return pc.utf8_length(value)


@kernel("replace")
def _replace(_: Typed, value: Datum, old: Datum, new: Datum) -> Any:
    if not old.as_py():  # Arrow would search an empty text forever
        return value
    return pc.replace_substring(value, old.as_py(), new.as_py())


@kernel("substr")
def _substr(_: Typed, value: Datum, start: Datum, length: Datum = None) -> Any:
    first = start.as_py()
    begin = first - 1 if first > 0 else first
    if length is None:
        return pc.utf8_slice_codeunits(value, begin)
    end = begin + length.as_py()
    return pc.utf8_slice_codeunits(value, begin, None if begin < 0 <= end else end)


@kernel("contains")
def _contains(_: Typed, value: Datum, part: Datum) -> Any:
    return pc.match_substring(value, part.as_py())


@kernel("starts_with")
def _starts_with(_: Typed, value: Datum, part: Datum) -> Any:
    return pc.starts_with(value, part.as_py())


@kernel("ends_with")
def _ends_with(_: Typed, value: Datum, part: Datum) -> Any:
    return pc.ends_with(value, part.as_py())


@kernel("like")
def _like(_: Typed, value: Datum, pattern: Datum) -> Any:
    return pc.match_substring_regex(value, _like_regex(pattern.as_py()))


@kernel("ilike")
def _ilike(_: Typed, value: Datum, pattern: Datum) -> Any:
    lower = pc.utf8_lower(pattern).as_py()
    return pc.match_substring_regex(pc.utf8_lower(value), _like_regex(lower))


def _like_regex(pattern: str) -> str:
    wild = {"%": ".*", "_": "."}
    return f"(?s)^{''.join(wild.get(char) or re.escape(char) for char in pattern)}$"


@kernel("regexp_matches")
def _regexp_matches(typed: Typed, value: Datum, pattern: Datum) -> Any:
    _check_regex(typed, pattern.as_py())
    return pc.match_substring_regex(value, pattern.as_py())


@kernel("regexp_replace")
def _regexp_replace(
    typed: Typed, value: Datum, pattern: Datum, new: Datum, option: Datum = None
) -> Any:
    _check_regex(typed, pattern.as_py(), new.as_py())
    return pc.replace_substring_regex(
        value, pattern.as_py(), new.as_py(), max_replacements=1 if option is None else None
    )


def _check_regex(typed: Typed, pattern: str, new: str = "") -> None:
    """Refuse a pattern that RE2 cannot parse, before it is reported as a failing row."""
    try:
        pc.replace_substring_regex(pa.array(["a"]), pattern, new)
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{pattern!r} is not a regular expression in `{typed.source!s}`: {error}",
            hint="patterns are those of RE2: no look-around, no references back",
        ) from None
