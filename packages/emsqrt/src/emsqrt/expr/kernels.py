"""The functions over Arrow arrays; operands have equal types, see `emsqrt.expr.check`.

A kernel receives the typed call and its operands, of which at least one is an Array. It raises
ArrowInvalid where a row has no value.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.expr.typed import Typed

Datum = Any
Kernel = Callable[..., Any]
KERNELS: dict[str, Kernel] = {}
_IS_IN_SET_MIN = 8


def kernel(*names: str) -> Callable[[Kernel], Kernel]:
    """Register a kernel under the functions it computes."""

    def register(fn: Kernel) -> Kernel:
        KERNELS.update(dict.fromkeys(names, fn))
        return fn

    return register


def has_nan(datum: Datum) -> bool:
    """Return whether a float operand holds a NaN anywhere."""
    if isinstance(datum, pa.Scalar):
        return bool(datum.is_valid and np.isnan(datum.as_py()))
    return bool(pc.any(pc.is_nan(datum)).as_py())


# Arithmetic -----------------------------------------------------------------------------------

_CHECKED = {"add": pc.add_checked, "sub": pc.subtract_checked, "mul": pc.multiply_checked}
_FLOAT = {"add": pc.add, "sub": pc.subtract, "mul": pc.multiply}
_PYTHON = {
    "add": lambda left, right: left + right,
    "sub": lambda left, right: left - right,
    "mul": lambda left, right: left * right,
}


@kernel("add", "sub", "mul")
def _arithmetic(typed: Typed, left: Datum, right: Datum) -> Any:
    if typed.type.is_float:
        return _FLOAT[typed.op](left, right)
    if typed.type.name == "Decimal":
        return _decimal(typed, left, right)
    return _CHECKED[typed.op](left, right)


def _decimal(typed: Typed, left: Datum, right: Datum) -> Any:
    """Compute exactly in 256 bits, then narrow; a result over 38 digits is an error."""
    digits = left.type.precision + right.type.precision + 1
    if digits <= 76:
        wide = [
            side.cast(pa.decimal256(side.type.precision, side.type.scale)) for side in (left, right)
        ]
        return _FLOAT[typed.op](*wide).cast(typed.type.to_arrow())
    compute = _PYTHON[typed.op]
    count = next(len(side) for side in (left, right) if isinstance(side, pa.Array))
    pairs = zip(_listed(left, count), _listed(right, count), strict=True)
    return pa.array(
        [None if a is None or b is None else _exactly(compute, a, b) for a, b in pairs],
        typed.type.to_arrow(),
    )


def _exactly(
    compute: Callable[[Decimal, Decimal], Decimal], left: Decimal, right: Decimal
) -> Decimal:
    from decimal import localcontext

    with localcontext(prec=100):
        return compute(left, right)


def _listed(side: Datum, count: int) -> list[Any]:
    return [side.as_py()] * count if isinstance(side, pa.Scalar) else side.to_pylist()


@kernel("div")
def _div(_: Typed, left: Datum, right: Datum) -> Any:
    return pc.divide(left, right)


def _no_zero(divisor: Datum) -> Datum:
    """Return the divisor with NULL for 0."""
    zero = pa.scalar(0, divisor.type)
    return pc.if_else(pc.equal(divisor, zero), pa.scalar(None, divisor.type), divisor)


@kernel("idiv")
def _idiv(_: Typed, left: Datum, right: Datum) -> Any:
    return pc.divide_checked(left, _no_zero(right))


@kernel("mod")
def _mod(typed: Typed, left: Datum, right: Datum) -> Any:
    if typed.type.is_float:
        return _float_mod(left, right)
    divisor = _no_zero(right)
    if typed.type.name == "Int64":
        # The remainder by -1 is 0, as by 1; but the smallest integer has no quotient by -1.
        divisor = pc.if_else(pc.equal(divisor, pa.scalar(-1)), pa.scalar(1), divisor)
    return pc.subtract(left, pc.multiply(pc.divide(left, divisor), divisor))


def _float_mod(left: Datum, right: Datum) -> Any:
    """C's fmod: the sign of the dividend, NaN for a divisor of 0."""
    count = next(len(side) for side in (left, right) if isinstance(side, pa.Array))
    arrays = [
        side if isinstance(side, pa.Array) else pa.repeat(side, count) for side in (left, right)
    ]
    with np.errstate(invalid="ignore"):
        values = np.fmod(*(side.fill_null(1.0).to_numpy() for side in arrays))
    valid = pc.and_(pc.is_valid(arrays[0]), pc.is_valid(arrays[1]))
    return pc.if_else(valid, pa.array(values), pa.scalar(None, pa.float64()))


@kernel("neg")
def _neg(typed: Typed, value: Datum) -> Any:
    return pc.negate(value) if typed.type.is_float else pc.negate_checked(value)


@kernel("abs")
def _abs(typed: Typed, value: Datum) -> Any:
    return value if typed.type.name == "UInt64" else pc.abs_checked(value)


_WHOLE = {"floor": pc.floor, "ceil": pc.ceil, "trunc": pc.trunc}


@kernel(*_WHOLE)
def _whole(typed: Typed, value: Datum) -> Any:
    return value if typed.type.is_integer else _WHOLE[typed.op](value)


@kernel("round")
def _round(typed: Typed, value: Datum, digits: Datum = None) -> Any:
    """Round half away from zero; a float by `value * 10^digits`, in binary64."""
    places = 0 if digits is None else digits.as_py()
    if typed.type.is_integer:
        return value
    if typed.type.name == "Decimal":
        if places >= (typed.type.scale or 0):
            return value
        return pc.round(value, ndigits=places, round_mode="half_towards_infinity")
    floats = value.fill_null(0.0).to_numpy()
    scale = 10.0 ** abs(places)
    with np.errstate(all="ignore"):
        scaled = floats * scale if places >= 0 else floats / scale
        whole = np.trunc(scaled)
        whole += np.where(np.abs(scaled - whole) >= 0.5, np.copysign(1.0, scaled), 0.0)
        rounded = whole / scale if places >= 0 else whole * scale
    kept = np.where(np.isfinite(scaled) & np.isfinite(rounded), rounded, floats)
    return pc.if_else(pc.is_valid(value), pa.array(kept), pa.scalar(None, pa.float64()))


# Comparison: DuckDB's total order of floats, NaN equal to itself and above everything ----------


def _alike(left: Datum, right: Datum) -> tuple[Datum, Datum]:
    """Return decimals in a common type even if no type of 38 digits holds both."""
    if left.type == right.type:
        return left, right
    scale = max(left.type.scale, right.type.scale)
    whole = max(side.type.precision - side.type.scale for side in (left, right))
    kind = pa.decimal256(whole + scale, scale)
    return left.cast(kind), right.cast(kind)


def _equal(left: Datum, right: Datum) -> Any:
    left, right = _alike(left, right)
    plain = pc.equal(left, right)
    if pa.types.is_floating(left.type) and has_nan(left) and has_nan(right):
        return pc.or_(plain, pc.and_(pc.is_nan(left), pc.is_nan(right)))
    return plain


def _less(left: Datum, right: Datum) -> Any:
    left, right = _alike(left, right)
    plain = pc.less(left, right)
    if pa.types.is_floating(left.type) and has_nan(right):
        return pc.or_(plain, pc.and_not(pc.is_nan(right), pc.is_nan(left)))
    return plain


def _less_equal(left: Datum, right: Datum) -> Any:
    left, right = _alike(left, right)
    plain = pc.less_equal(left, right)
    if pa.types.is_floating(left.type) and has_nan(right):
        return pc.or_(plain, pc.is_nan(right))
    return plain


_COMPARE: dict[str, Callable[[Datum, Datum], Any]] = {
    "eq": _equal,
    "ne": lambda left, right: pc.invert(_equal(left, right)),
    "lt": _less,
    "le": _less_equal,
    "gt": lambda left, right: _less(right, left),
    "ge": lambda left, right: _less_equal(right, left),
}


@kernel(*_COMPARE)
def _compare(typed: Typed, left: Datum, right: Datum) -> Any:
    return _COMPARE[typed.op](left, right)


@kernel("between")
def _between(_: Typed, value: Datum, low: Datum, high: Datum) -> Any:
    return pc.and_kleene(_less_equal(low, value), _less_equal(value, high))


@kernel("is_in")
def _is_in(_: Typed, value: Datum, *others: Datum) -> Any:
    if not others:
        return pa.repeat(pa.scalar(False), len(value))
    constants = all(
        isinstance(other, pa.Scalar) and other.is_valid and other.type == value.type
        for other in others
    )
    if constants and len(others) >= _IS_IN_SET_MIN and not pa.types.is_floating(value.type):
        found = pc.is_in(value, value_set=pa.array([other.as_py() for other in others], value.type))
        return pc.if_else(pc.is_valid(value), found, pa.scalar(None, pa.bool_()))
    return reduce(pc.or_kleene, [_equal(value, other) for other in others])


@kernel("not")
def _not(_: Typed, value: Datum) -> Any:
    return pc.invert(value)


@kernel("is_null")
def _is_null(_: Typed, value: Datum) -> Any:
    return pc.is_null(value)


@kernel("is_nan")
def _is_nan(_: Typed, value: Datum) -> Any:
    return pc.is_nan(value)


@kernel("greatest", "least")
def _extreme(typed: Typed, *values: Datum) -> Any:
    wins = _less if typed.op == "least" else lambda left, right: _less(right, left)

    def better(best: Datum, value: Datum) -> Any:
        chosen = pc.if_else(wins(value, best), value, best)
        return pc.coalesce(chosen, best, value)  # if one side is NULL, the other remains

    return reduce(better, values)


@kernel("nullif")
def _nullif(_: Typed, value: Datum, other: Datum) -> Any:
    same = pc.fill_null(_equal(value, other), False)
    return pc.if_else(same, pa.scalar(None, value.type), value)


# Functions of floats: IEEE 754's answers, so sqrt(-1) is NaN and ln(0) is -inf -----------------

_FLOATS = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "ln": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "power": np.power,
}


@kernel(*_FLOATS)
def _float_function(typed: Typed, *values: Datum) -> Any:
    count = next(len(side) for side in values if isinstance(side, pa.Array))
    arrays = [side if isinstance(side, pa.Array) else pa.repeat(side, count) for side in values]
    with np.errstate(all="ignore"):
        made = _FLOATS[typed.op](*(side.fill_null(1.0).to_numpy() for side in arrays))
    valid = reduce(pc.and_, [pc.is_valid(side) for side in arrays])
    return pc.if_else(valid, pa.array(made), pa.scalar(None, pa.float64()))


@kernel("sign")
def _sign(typed: Typed, value: Datum) -> Any:
    return pc.sign(value).cast(typed.type.to_arrow())
