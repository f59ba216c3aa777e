"""The order-independent float sum in plain Python, as defined by `spec/float-sum.md`.

A slow reference; `_kernel/float_sum.c` is the fast form and returns the same bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from sennit_core.errors import Corrupt

BIN_BITS = 40
BINS = 53
KEPT = 3
BIAS_BITS = 1080
"""Bin b holds the bits of weight 2^(40b - 1080) to 2^(40b - 1041)."""

STATE = struct.Struct("<iI16s16s16sQQQ")
STATE_BYTES = STATE.size
_MASK = (1 << BIN_BITS) - 1
_SQUARE_LOW_MIN = 2.0**-968


@dataclass(frozen=True, slots=True)
class FloatSum:
    """The state of one sum: the highest bin used, the sums of three bins, the special values.

    Addition is associative and commutative in every bin: the same values lead to the same state in
        any order, partitioning and merge tree.
    """

    top: int = -1
    sums: tuple[int, int, int] = (0, 0, 0)
    pos_inf: int = 0
    neg_inf: int = 0
    nan: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> FloatSum:
        """Return the sum of `values`."""
        state = cls()
        for value in values:
            state = state.add(value)
        return state

    @classmethod
    def of_squares(cls, values: Iterable[float]) -> FloatSum:
        """Return the sum of the squares of `values`, each square exact in two parts."""
        return cls.of(part for value in values for part in square(value))

    def add(self, value: float) -> FloatSum:
        """Return the state with one more value."""
        return self.merge(_state_of(value))

    def merge(self, other: FloatSum) -> FloatSum:
        """Return the state of both sets of values together."""
        top = max(self.top, other.top)
        mine, theirs = self._aligned(top), other._aligned(top)
        return FloatSum(
            top,
            (mine[0] + theirs[0], mine[1] + theirs[1], mine[2] + theirs[2]),
            self.pos_inf + other.pos_inf,
            self.neg_inf + other.neg_inf,
            self.nan + other.nan,
        )

    def _aligned(self, top: int) -> tuple[int, int, int]:
        """Return the sums of bins top, top - 1, top - 2; lower bins are dropped."""
        down = top - self.top
        padded = (*(0,) * min(down, KEPT), *self.sums)
        return padded[0], padded[1], padded[2]

    def exact(self) -> Fraction:
        """Return the exact sum of the three bins, without rounding."""
        scaled = (self.sums[0] << 2 * BIN_BITS) + (self.sums[1] << BIN_BITS) + self.sums[2]
        shift = BIN_BITS * (self.top - 2) - BIAS_BITS
        return Fraction(scaled << shift) if shift >= 0 else Fraction(scaled, 1 << -shift)

    def value(self) -> float:
        """Return the sum, rounded once to the nearest binary64, ties to even."""
        if self.nan or (self.pos_inf and self.neg_inf):
            return math.nan
        if self.pos_inf or self.neg_inf:
            return math.inf if self.pos_inf else -math.inf
        return _nearest(self.exact())

    def to_bytes(self) -> bytes:
        """Return the 80 bytes of the state."""
        wide = [total.to_bytes(16, "little", signed=True) for total in self.sums]
        return STATE.pack(self.top, 0, *wide, self.pos_inf, self.neg_inf, self.nan)

    @classmethod
    def from_bytes(cls, data: bytes) -> FloatSum:
        """Return the state in 80 bytes.

        Raises:
            Corrupt: another length, a bin that does not exist, or a reserved word that is not 0.
        """
        if len(data) != STATE_BYTES:
            raise Corrupt("float sum", expected=f"{STATE_BYTES} bytes", found=f"{len(data)} bytes")
        top, zero, high, middle, low, pos_inf, neg_inf, nan = STATE.unpack(data)
        if zero or not -1 <= top < BINS:
            raise Corrupt("float sum", expected=f"bin -1 to {BINS - 1}", found=f"{top}, {zero}")
        sums = [int.from_bytes(part, "little", signed=True) for part in (high, middle, low)]
        return cls(top, (sums[0], sums[1], sums[2]), pos_inf, neg_inf, nan)


def _state_of(value: float) -> FloatSum:
    """Return the state of one value: its bits, split at the bins' boundaries."""
    if math.isnan(value):
        return FloatSum(nan=1)
    if math.isinf(value):
        return FloatSum(pos_inf=1) if value > 0 else FloatSum(neg_inf=1)
    if value == 0:
        return FloatSum()
    bits = int(abs(Fraction(value)) * (1 << BIAS_BITS))
    sign = 1 if value > 0 else -1
    top = (bits.bit_length() - 1) // BIN_BITS
    # A double has 53 bits, so it never reaches below the third bin from its top.
    high, middle, low = (
        sign * (bits >> BIN_BITS * index & _MASK) if index >= 0 else 0
        for index in (top, top - 1, top - 2)
    )
    return FloatSum(top, (high, middle, low))


def square(value: float) -> tuple[float, ...]:
    """Return doubles that add up to `value * value` exactly: the product and its rounding error.

    Dekker's two-product (T. J. Dekker, "A floating-point technique for extending the available
    precision", 1971). Where the product overflows, or is so small that the error is no double,
    the product is the only element.
    """
    product = value * value
    if not _SQUARE_LOW_MIN <= product < math.inf:
        return (product,)
    split = value * 134217729.0  # 2^27 + 1 cuts the mantissa into halves of 26 bits
    high = split - (split - value)
    low = value - high
    return product, ((high * high - product) + 2.0 * high * low) + low * low


def variance(count: int, total: FloatSum, squares: FloatSum) -> float | None:
    """Return the sample variance of `count` values, rounded once; None for fewer than two.

    Args:
        count: how many values there were.
        total: their sum.
        squares: the sum of their squares.
    """
    if count < 2:
        return None
    if not (math.isfinite(total.value()) and math.isfinite(squares.value())):
        return math.nan
    spread = count * squares.exact() - total.exact() ** 2
    return _nearest(max(spread, Fraction(0)) / (count * (count - 1)))


def _nearest(exact: Fraction) -> float:
    """Round to the nearest binary64, ties to even; beyond the largest, to infinity."""
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
