"""Test helpers: columns of every kind from Python values, their sort order, and decoded values."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from emsqrt._kernel import Columns

BOOL, I8, I16, I32, I64, U8, U16, U32, U64, F32, F64, DECIMAL, TEXT, BYTES = range(14)
FORMATS = {
    I8: "b",
    I16: "h",
    I32: "i",
    I64: "q",
    U8: "B",
    U16: "H",
    U32: "I",
    U64: "Q",
    F32: "f",
    F64: "d",
}
KINDS = range(14)
Part = tuple[int, bool, bool]


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.one_of(st.integers(low, high), st.integers(max(low, -3), 3), st.just(low))


def values_of(kind: int) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a column of this kind, NULL included."""
    few = st.sampled_from([0, 1, 97, 254, 255])
    texts = {
        TEXT: st.text("\x00\x01aé\U0010ffff", max_size=8),
        BYTES: st.one_of(
            st.lists(few, max_size=6).map(bytes),
            st.builds(lambda head, tail: bytes(head) + tail, st.just(200), st.binary(max_size=3)),
        ),
    }
    strategies = {
        BOOL: st.booleans(),
        F32: st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, math.nan, -math.inf])),
        F64: st.one_of(st.floats(), st.sampled_from([0.0, -0.0, math.nan, -math.nan])),
        DECIMAL: _integers(128, signed=True),
        **texts,
    }
    if kind in FORMATS and kind not in strategies:
        bits = 8 * struct.calcsize("=" + FORMATS[kind])
        strategies[kind] = _integers(bits, signed=FORMATS[kind].islower())
    return st.none() | strategies[kind]


def _bits(flags: Iterable[bool]) -> bytes:
    out = bytearray()
    for index, flag in enumerate(flags):
        if index % 8 == 0:
            out.append(0)
        out[-1] |= flag << index % 8
    return bytes(out)


def column(kind: int, values: Sequence[Any]) -> tuple[int, int, Any, Any, Any]:
    """Return one column in the form that `Columns` accepts."""
    validity = None
    if any(value is None for value in values):
        validity = _bits(value is not None for value in values)
    if kind in (TEXT, BYTES):
        parts = [b"" if v is None else v.encode() if kind == TEXT else v for v in values]
        ends = array("i", [0])
        for part in parts:
            ends.append(ends[-1] + len(part))
        return kind, 0, validity, b"".join(parts), ends
    filled = [0 if value is None else value for value in values]
    if kind == BOOL:
        return kind, 0, validity, _bits(bool(value) for value in filled), None
    if kind == DECIMAL:
        data = b"".join(value.to_bytes(16, "little", signed=True) for value in filled)
    else:
        data = struct.pack(f"={len(filled)}{FORMATS[kind]}", *filled)
    return kind, 0, validity, data, None


def columns(*pairs: tuple[int, Sequence[Any]]) -> Columns:
    """Return a batch of (kind, values) columns."""
    return Columns(len(pairs[0][1]), [column(kind, values) for kind, values in pairs])


def lines(texts: Sequence[bytes], *keys: int) -> bytes:
    """Return CSV records of integer keys and a text."""
    return b"".join(b"%d,%s\n" % (key, text) for key, text in zip(keys, texts, strict=True))


def sort_rank(value: Any) -> Any:
    """Return the sort key of one value: NaN greatest, -0.0 as 0.0, text by its bytes."""
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value + 0.0)
    return value.encode() if isinstance(value, str) else value


def ordered(rows: Sequence[tuple[Any, ...]], parts: Sequence[Part]) -> list[tuple[Any, ...]]:
    """Return the rows in the order of the parts, stable."""
    result = list(rows)
    for index, descending, nulls_first in reversed(parts):
        nulls = [row for row in result if row[index] is None]
        rest = [row for row in result if row[index] is not None]
        rest.sort(key=lambda row: sort_rank(row[index]), reverse=descending)
        result = nulls + rest if nulls_first else rest + nulls
    return result


def read_back(out: memoryview, filled: tuple[Any, ...], rows: int) -> list[Any]:
    """Return the Python values of an array that the kernel filled."""
    kind, nulls, validity, values, ends = filled
    valid = [bool(out[validity[0] + row // 8] >> row % 8 & 1) for row in range(rows)]
    assert valid.count(False) == nulls
    data = out[slice(*values)]
    if ends is not None:
        at = out[slice(*ends)].cast("i")
        parts = [bytes(data[at[row] : at[row + 1]]) for row in range(rows)]
        found: list[Any] = [part.decode() if kind == TEXT else part for part in parts]
    elif kind == BOOL:
        found = [bool(data[row // 8] >> row % 8 & 1) for row in range(rows)]
    elif kind == DECIMAL:
        found = [
            int.from_bytes(data[16 * row : 16 * row + 16], "little", signed=True)
            for row in range(rows)
        ]
    else:
        found = list(struct.unpack(f"={rows}{FORMATS[kind]}", data))
    return [value if valid[row] else None for row, value in enumerate(found)]


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal, counting NaN as equal to NaN."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return bool(left == right) and type(left) is type(right)
