"""The order-independent float sum of many groups at once, in numpy.

States are rows of `STATE_DTYPE`, the 80 bytes of `spec/float-sum.md`; `emsqrt.floats.exact` says
the same thing one value at a time.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emsqrt.floats.exact import BIAS_BITS, BIN_BITS, BINS, FloatSum, variance
from sennit_core.errors import Corrupt

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
States: TypeAlias = NDArray[np.void]

STATE_DTYPE = np.dtype(
    [
        ("top", "<i4"),
        ("zero", "<u4"),
        ("sums", [("low", "<u8"), ("high", "<i8")], 3),
        ("pos_inf", "<u8"),
        ("neg_inf", "<u8"),
        ("nan", "<u8"),
    ]
)
ROWS_MAX = 1 << 22
"""Rows in one pass: that many slices of 40 bits add up without overflow in 63 bits."""

_MASK = np.uint64((1 << BIN_BITS) - 1)
_WIDTH = np.uint64(BIN_BITS)


def sum_by_group(values: Floats, groups: Integers, group_count: int) -> States:
    """Return the state of each group's sum.

    Args:
        values: float64, one for each row.
        groups: the row's group, 0 to `group_count` - 1.
        group_count: how many groups there are; a group without rows has the empty state.
    """
    if len(values) > ROWS_MAX:
        half = len(values) // 2
        parts = [
            sum_by_group(values[cut], groups[cut], group_count)
            for cut in (slice(None, half), slice(half, None))
        ]
        return merge_by_group(
            np.concatenate(parts), np.tile(np.arange(group_count), 2), group_count
        )
    states = np.zeros(group_count, STATE_DTYPE)
    finite = np.isfinite(values)
    if not finite.all():
        _count_specials(states, values, groups)
        values, groups = values[finite], groups[finite]
    used = values != 0
    if not used.all():
        values, groups = values[used], groups[used]
    top, sums = _add_slices(values, groups, group_count)
    states["top"] = top
    states["sums"]["low"] = sums.view(np.uint64)
    states["sums"]["high"] = sums >> 63
    return states


def square_sum_by_group(values: Floats, groups: Integers, group_count: int) -> States:
    """Return the state of each group's sum of squares, each square exact in two parts."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        product = values * values
        split = values * 134217729.0
        high = split - (split - values)
        low = values - high
        error = ((high * high - product) + 2.0 * high * low) + low * low
    exact = (product >= 2.0**-968) & (product < np.inf)
    return sum_by_group(
        np.concatenate([product, error[exact]]),
        np.concatenate([groups, groups[exact]]),
        group_count,
    )


def _count_specials(states: States, values: Floats, groups: Integers) -> None:
    for name, chosen in (
        ("pos_inf", values == np.inf),
        ("neg_inf", values == -np.inf),
        ("nan", np.isnan(values)),
    ):
        states[name] = np.bincount(groups[chosen], minlength=len(states))


def _add_slices(
    values: Floats, groups: Integers, group_count: int
) -> tuple[NDArray[np.int32], Integers]:
    """Cut each value at the bins' borders and add the slices of each group's three top bins."""
    bits = values.view(np.uint64)
    exponent = (bits >> np.uint64(52)) & np.uint64(0x7FF)
    mantissa = bits & np.uint64((1 << 52) - 1)
    mantissa |= (exponent > 0).astype(np.uint64) << np.uint64(52)
    # |value| is mantissa * 2^(shift - 1080): its lowest bit lies `shift % 40` up in bin `first`.
    shift = np.maximum(exponent, np.uint64(1)) + np.uint64(BIAS_BITS - 1075)
    first = (shift // _WIDTH).astype(np.int64)
    offset = shift % _WIDTH
    above = mantissa >> (_WIDTH - offset)
    slices = [(mantissa << offset) & _MASK, above & _MASK, above >> _WIDTH]
    negative = values < 0
    tops = first + np.where(slices[2] > 0, 2, np.where(slices[1] > 0, 1, 0))
    top = np.full(group_count, -1, np.int64)
    np.maximum.at(top, groups, tops)
    # Column 1 + r collects bin top - r; columns 0 and 4 swallow what lies outside.
    table = np.zeros(group_count * 5, np.int64)
    place = groups * 5 + 1
    depth = top[groups] - first
    for index, part in enumerate(slices):
        signed = np.where(negative, -part.view(np.int64), part.view(np.int64))
        np.add.at(table, place + np.clip(depth - index, -1, 3), signed)
    return top.astype(np.int32), table.reshape(-1, 5)[:, 1:4]


def merge_by_group(states: States, groups: Integers, group_count: int) -> States:
    """Return one state for each group from many.

    Args:
        states: rows of STATE_DTYPE.
        groups: the group each row belongs to.
        group_count: how many groups there are.
    """
    merged = np.zeros(group_count, STATE_DTYPE)
    top = np.full(group_count, -1, np.int64)
    np.maximum.at(top, groups, states["top"].astype(np.int64))
    merged["top"] = top
    for name in ("pos_inf", "neg_inf", "nan"):
        np.add.at(merged[name], groups, states[name])
    down = top[groups] - states["top"]
    tables = np.zeros((3, group_count * 4), np.int64)
    for kept in range(3):
        # Column 3 swallows the bins that are too low to be kept.
        place = groups * 4 + np.minimum(kept + down, 3)
        low = states["sums"]["low"][:, kept]
        np.add.at(tables[0], place, (low & np.uint64(0xFFFFFFFF)).view(np.int64))
        np.add.at(tables[1], place, (low >> np.uint64(32)).view(np.int64))
        np.add.at(tables[2], place, states["sums"]["high"][:, kept])
    first, second, third = (table.reshape(-1, 4)[:, :3] for table in tables)
    second = second + (first >> 32)
    merged["sums"]["low"] = (first & 0xFFFFFFFF).view(np.uint64) | (
        second.view(np.uint64) << np.uint64(32)
    )
    merged["sums"]["high"] = third + (second >> 32)
    return merged


def values_of(states: States) -> Floats:
    """Return the sums, each rounded once to the nearest binary64."""
    digits, negative = _digits(states["sums"])
    result = _round(digits, states["top"].astype(np.int64))
    result[negative] *= -1.0
    pos, neg = states["pos_inf"] > 0, states["neg_inf"] > 0
    result[pos] = np.inf
    result[neg] = -np.inf
    result[(states["nan"] > 0) | (pos & neg)] = np.nan
    return result


def _digits(sums: NDArray[Any]) -> tuple[Integers, NDArray[np.bool_]]:
    """Return each |sum| as digits of 40 bits, lowest first, and whether it was negative."""
    low, high = sums["low"].astype(np.uint64), sums["high"].astype(np.int64)
    parts = np.zeros((len(low), 6), np.int64)
    for kept in range(3):
        place = 2 - kept  # the lowest bin is digit 0
        parts[:, place] += (low[:, kept] & _MASK).view(np.int64)
        middle = (low[:, kept] >> _WIDTH).view(np.int64) | (high[:, kept] & 0xFFFF) << 24
        parts[:, place + 1] += middle
        parts[:, place + 2] += high[:, kept] >> 16
    parts = _carry(parts)
    negative = parts[:, 5] < 0
    parts[negative] = _carry(-parts[negative])
    return parts, negative


def _carry(parts: Integers) -> Integers:
    parts = parts.copy()
    for place in range(5):
        parts[:, place + 1] += parts[:, place] >> BIN_BITS
        parts[:, place] &= int(_MASK)
    return parts


def _round(digits: Integers, top: Integers) -> Floats:
    """Round digits of base 2^40 to binary64: 62 leading bits, then a sticky bit, then one cast."""
    rows = np.arange(len(digits))
    leading = 5 - np.argmax(digits[:, ::-1] != 0, axis=1)
    leading[~digits.any(axis=1)] = 0
    padded = np.concatenate([np.zeros((len(digits), 2), np.int64), digits], axis=1)
    first, second, third = (padded[rows, leading + 2 - step] for step in range(3))
    length = np.frexp(first.astype(np.float64))[1].astype(np.int64)
    take_second = np.minimum(62 - length, BIN_BITS)
    take_third = 62 - length - take_second
    window = (first << take_second) | (second >> (BIN_BITS - take_second))
    window = (window << take_third) | (third >> (BIN_BITS - take_third))
    places = np.arange(6)
    rest = (digits * (places < (leading - 2)[:, None])).any(axis=1)
    rest |= (second & ((1 << (BIN_BITS - take_second)) - 1)) != 0
    rest |= (third & ((1 << (BIN_BITS - take_third)) - 1)) != 0
    exponent = BIN_BITS * (top - 2 + leading) - BIAS_BITS - (62 - length)
    with np.errstate(over="ignore"):
        rounded: Floats = np.ldexp((window | rest).astype(np.float64), exponent.astype(np.int32))
    return rounded


def from_bytes(data: bytes | memoryview, count: int) -> States:
    """Return `count` states from their bytes, one after the other, without a copy.

    Raises:
        Corrupt: another length, or a state that breaks the specification.
    """
    if len(data) != count * STATE_DTYPE.itemsize:
        expected = f"{count} of {STATE_DTYPE.itemsize} bytes"
        raise Corrupt("float sums", expected=expected, found=f"{len(data)} bytes")
    states = np.frombuffer(data, STATE_DTYPE)
    if (states["zero"] != 0).any() or (states["top"] < -1).any() or (states["top"] >= BINS).any():
        raise Corrupt("float sums", expected=f"bins -1 to {BINS - 1}", found="others")
    return states


def empty_state() -> bytes:
    """Return the bytes of the sum of nothing."""
    return FloatSum().to_bytes()


def variances(counts: Integers, totals: States, squares: States) -> list[float | None]:
    """Return each group's sample variance, None for fewer than two values."""
    rows = zip(counts.tolist(), totals, squares, strict=True)
    return [
        variance(n, FloatSum.from_bytes(a.tobytes()), FloatSum.from_bytes(b.tobytes()))
        for n, a, b in rows
    ]
