"""Sums of integers and decimals in 128 bits, many groups at once, as Arrow decimals.

A wide number is a pair of arrays: the low 64 bits, unsigned, and the high 64 bits, signed; two's
complement, which is how Arrow stores a decimal128.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Unsigned: TypeAlias = NDArray[np.uint64]
Flags: TypeAlias = NDArray[np.bool_]
Wide: TypeAlias = tuple[Unsigned, Integers]

_HALF = np.uint64(0xFFFFFFFF)
_HALF_BITS = np.uint64(32)
_LIMIT_HIGH, _LIMIT_LOW = divmod(10**38, 2**64)


def sum_integers(values: NDArray[Any], groups: Integers, group_count: int) -> Wide:
    """Return each group's sum of int64 or uint64 values, exactly."""
    small = len(values) == 0 or (
        int(values.max()) * len(values) < 2**63 and int(values.min()) * len(values) >= -(2**63)
    )
    if small:
        total = np.zeros(group_count, np.int64)
        np.add.at(total, groups, values.astype(np.int64))
        return total.view(np.uint64), total >> 63
    low = values.view(np.uint64)
    high = values >> 63 if values.dtype == np.int64 else np.zeros(len(values), np.int64)
    total_low, total_high, _ = sum_wide((low, high), groups, group_count)
    return total_low, total_high


def sum_wide(values: Wide, groups: Integers, group_count: int) -> tuple[Unsigned, Integers, Flags]:
    """Return each group's sum of wide values, and where it has more than 38 digits."""
    low, high = values
    limbs = [
        (low & _HALF).view(np.int64),
        (low >> _HALF_BITS).view(np.int64),
        high & 0xFFFFFFFF,
        high >> 32,
    ]
    sums = np.zeros((4, group_count), np.int64)
    for limb, total in zip(limbs, sums, strict=True):
        np.add.at(total, groups, limb)
    for place in range(3):
        sums[place + 1] += sums[place] >> 32
        sums[place] &= 0xFFFFFFFF
    result_low = sums[0].view(np.uint64) | sums[1].view(np.uint64) << _HALF_BITS
    result_high = sums[2] | sums[3] << 32
    lost = (sums[3] >= 2**31) | (sums[3] < -(2**31))
    return result_low, result_high, lost | _over_38_digits(result_low, result_high)


def _over_38_digits(low: Unsigned, high: Integers) -> Flags:
    above = (high > _LIMIT_HIGH) | ((high == _LIMIT_HIGH) & (low >= np.uint64(_LIMIT_LOW)))
    # -x has the bits ~x + 1, so -10^38 and below are found by the complement.
    flipped_low, flipped_high = ~low + np.uint64(1), ~high + (low == 0)
    below = (flipped_high > _LIMIT_HIGH) | (
        (flipped_high == _LIMIT_HIGH) & (flipped_low >= np.uint64(_LIMIT_LOW))
    )
    over: Flags = (above & (high >= 0)) | (below & (high < 0))
    return over


def to_decimals(values: Wide, valid: Flags, scale: int) -> Any:
    """Return wide numbers as an Arrow Decimal(38,scale), NULL where not `valid`."""
    low, high = values
    pairs = np.empty((len(low), 2), np.uint64)
    pairs[:, 0] = np.where(valid, low, 0)
    pairs[:, 1] = np.where(valid, high, 0).view(np.uint64)
    bitmap = pa.array(valid).buffers()[1]
    kind = pa.decimal128(38, scale)
    return pa.Array.from_buffers(kind, len(low), [bitmap, pa.py_buffer(pairs)])


def from_decimals(values: Any) -> Wide:
    """Return the numbers of an Arrow decimal128 array, without its scale; NULL is 0."""
    filled = values if values.null_count == 0 else values.fill_null(0)
    data = np.frombuffer(filled.buffers()[1], np.uint64).reshape(-1, 2)
    pairs = data[filled.offset : filled.offset + len(filled)]
    return pairs[:, 0].copy(), pairs[:, 1].copy().view(np.int64)
