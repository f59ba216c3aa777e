"""Partition values of rows, by the transforms of Apache Iceberg, for whole columns of Arrow data.

`bucket` is the 32-bit Murmur3 hash (x86 variant, seed 0) of a value's bytes, without its sign, modulo the
number of buckets (iceberg.apache.org/spec, "Appendix B: 32-bit Hash Requirements"). Years, months, days
and hours count from 1970-01-01 00:00 UTC. NULL is a partition of its own.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sennit_core.errors import Unsupported
from sennit_core.records import PartitionField

__all__ = ["PARTITIONS_MAX", "bucket_of", "buckets", "partition_runs", "values"]

PARTITIONS_MAX = 4096
"""The most partitions that one ingest or statement may write."""
_TEXT_MAX = 1024
_EXACT_INTEGER = 2**53
_LONG = 1024
"""Longer values are hashed one by one: all at once costs a step of numpy for each four bytes."""
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_SECONDS = {"day": 86_400, "hour": 3_600}
_INT32_MAX = 2**31 - 1

Words = npt.NDArray[np.uint32]


def partition_runs(
    batch: pa.RecordBatch, fields: Sequence[tuple[PartitionField, str]]
) -> Iterator[tuple[tuple[Any, ...], int, int]]:
    """Yield where consecutive rows of one partition start and stop, after the values of its fields.

    Args:
        batch: Rows, best sorted by partition.
        fields: The fields, with the names of their columns.
    """
    if not batch.num_rows:
        return
    found = [values(batch.column(name), field) for field, name in fields]
    changes = np.zeros(batch.num_rows, bool)
    for column in found:
        codes = _codes(column)
        changes[1:] |= codes[1:] != codes[:-1]
    starts = [0, *np.flatnonzero(changes).tolist(), batch.num_rows]
    for start, stop in pairwise(starts):
        yield tuple(_plain(column[start]) for column in found), start, stop


def values(column: pa.Array, field: PartitionField) -> pa.Array:
    """Return the partition value of each row."""
    match field.transform:
        case "identity":
            return column
        case "bucket":
            return buckets(column, field.buckets)
        case unit:
            return _times(column, unit)


def buckets(column: pa.Array, count: int) -> pa.Array:
    """Return the bucket of each value; NULL of NULL."""
    kind = column.type
    types = pa.types
    if types.is_decimal(kind):
        texts = [None if v is None else _decimal_bytes(v) for v in column.to_pylist()]
        hashes = _hash_bytes(pa.array(texts, pa.binary()))
    elif types.is_string(kind) or types.is_binary(kind):
        hashes = _hash_bytes(column.cast(pa.binary()))
    else:
        hashes = _hash_longs(_longs(column))
    kept = (hashes & np.uint32(_INT32_MAX)).astype(np.int64) % count
    return pa.array(kept.astype(np.int32), mask=_nulls(column))


def bucket_of(value: Any, kind: pa.DataType, count: int) -> int:
    """Return the bucket of one value of a column's type."""
    return int(buckets(pa.array([value], kind), count)[0].as_py())


def _times(column: pa.Array, unit: str) -> pa.Array:
    """Return years, months, days or hours from 1970-01-01 00:00 UTC."""
    nulls = _nulls(column)
    kind = column.type
    if pa.types.is_date(kind):
        ticks, second = _int64(column.cast(pa.int32()).cast(pa.int64())) * 86_400, 1
    else:
        ticks, second = _int64(column.cast(pa.int64())), _UNITS[kind.unit]
    if unit in _SECONDS:
        found = np.floor_divide(ticks, _SECONDS[unit] * second)
    else:
        days = np.floor_divide(ticks, 86_400 * second)
        # 400 years of the Gregorian calendar are 146,097 days, so any day has a date that numpy knows.
        cycles, rest = np.divmod(days, 146_097)
        dates = rest.astype("datetime64[D]").astype(f"datetime64[{unit[0].upper()}]")
        found = dates.astype(np.int64) + cycles * (400 if unit == "year" else 4_800)
    worst = np.abs(found[~nulls]).max(initial=0)
    if worst > _INT32_MAX:
        raise Unsupported(  # without the time: of an encrypted dataset no error has a value
            f"partitioning times more than {_INT32_MAX:,} {unit}s from 1970 by {unit}",
            hint=f"partition by a longer time than {unit}, or remove such values",
        )
    return pa.array(found.astype(np.int32), mask=nulls)


def _codes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return a number for each row, which is equal for equal values."""
    encoded = column.dictionary_encode().indices
    return _int64(encoded.cast(pa.int64()), missing=-1)


def _int64(column: pa.Array, missing: int = 0) -> npt.NDArray[np.int64]:
    filled = pc.fill_null(column, missing)
    return cast("npt.NDArray[np.int64]", filled.to_numpy(zero_copy_only=False))


def _nulls(column: pa.Array) -> npt.NDArray[np.bool_]:
    found = column.is_null().to_numpy(zero_copy_only=False)
    return cast("npt.NDArray[np.bool_]", found)


def _longs(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return what Iceberg hashes as a number: days of a date, microseconds of a time."""
    kind = column.type
    if pa.types.is_date(kind):
        return _int64(column.cast(pa.int32()).cast(pa.int64()))
    if pa.types.is_time(kind) or pa.types.is_timestamp(kind):
        ticks = _int64(
            (column.cast(pa.int32()) if kind.bit_width == 32 else column).cast(pa.int64())
        )
        unit = _UNITS[kind.unit]
        if unit > _UNITS["us"]:
            return np.floor_divide(ticks, unit // _UNITS["us"])
        return ticks * (_UNITS["us"] // unit)
    return _int64(column.cast(pa.int64()))


def _decimal_bytes(value: decimal.Decimal) -> bytes:
    """Return the unscaled value in the fewest bytes of two's complement, big-endian."""
    sign, digits, _ = value.as_tuple()
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    bits = (~number if number < 0 else number).bit_length()
    return number.to_bytes(bits // 8 + 1, "big", signed=True)


def _rotated(words: Words, bits: int) -> Words:
    return (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))


def _mixed(hashes: Words, block: Words) -> Words:
    """Add a block of four bytes to the hashes."""
    block = _rotated(block * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    return _rotated(hashes ^ block, 13) * np.uint32(5) + np.uint32(0xE6546B64)


def _finished(hashes: Words, sizes: Words) -> Words:
    hashes = hashes ^ sizes
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def _hash_longs(numbers: npt.NDArray[np.int64]) -> Words:
    """Hash numbers as eight bytes, little-endian."""
    words = numbers.view(np.uint64)
    hashes = np.zeros(len(numbers), np.uint32)
    hashes = _mixed(hashes, (words & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    hashes = _mixed(hashes, (words >> np.uint64(32)).astype(np.uint32))
    return _finished(hashes, np.full(len(numbers), 8, np.uint32))


def _hash_bytes(column: pa.BinaryArray) -> Words:
    """Hash values of any length; that of NULL is of no use."""
    _, offsets, data = column.buffers()
    found = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    ends: npt.NDArray[np.int64] = found.astype(np.int64)
    starts, sizes = ends[:-1], ends[1:] - ends[:-1]
    raw = np.frombuffer(data or b"", np.uint8)
    hashes = np.zeros(len(column), np.uint32)
    rows = np.flatnonzero(sizes <= _LONG)
    blocks = int(sizes[rows].max(initial=0)) // 4
    for block in range(blocks):
        rows = rows[sizes[rows] // 4 > block]
        hashes[rows] = _mixed(hashes[rows], _word(raw, starts[rows] + 4 * block, 4))
    for row in np.flatnonzero(sizes > _LONG):
        value = raw[starts[row] : starts[row] + sizes[row] // 4 * 4].view("<u4")
        hashes[row] = _hash_long(value.tolist())
    for tail in (1, 2, 3):
        rows = np.flatnonzero(sizes % 4 == tail)
        word = _word(raw, ends[1:][rows] - tail, tail)
        hashes[rows] ^= _rotated(word * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    return _finished(hashes, sizes.astype(np.uint32))


def _word(raw: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], size: int) -> Words:
    """Return the bytes at each start as a little-endian number."""
    word = np.zeros(len(starts), np.uint32)
    for place in range(size):
        word |= raw[starts + place].astype(np.uint32) << np.uint32(8 * place)
    return word


def _hash_long(words: list[int]) -> int:
    """As `_mixed`, for the blocks of one long value."""
    mask = 0xFFFFFFFF
    state = 0
    for word in words:
        word = word * 0xCC9E2D51 & mask
        word = (word << 15 | word >> 17) * 0x1B873593 & mask
        state ^= word
        state = ((state << 13 | state >> 19) * 5 + 0xE6546B64) & mask
    return state


def _plain(scalar: pa.Scalar) -> Any:
    """Return a partition value as JSON, in the form of statistics (`lake.ingest.statistics`)."""
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError) as error:  # outside of Python's years
        # Without the date, as of an encrypted dataset no error has a value.
        raise Unsupported("partitioning by a date before the year 1 or after 9999") from error
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) < _EXACT_INTEGER else str(value)
        case str():
            if len(value) > _TEXT_MAX:
                raise Unsupported(
                    f"partitioning by a text of {len(value):,} characters",
                    hint="partition by bucket(16, column) instead",
                )
            return value
        case decimal.Decimal():
            return str(value)
        case datetime.date():
            return value.isoformat()
        case _:
            raise AssertionError(f"no partition value: {scalar!r}")
