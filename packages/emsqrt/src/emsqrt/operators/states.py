"""The parts of aggregates' states: made from rows, merged, and turned into results.

The names and types of the parts are in `emsqrt.plan.states`. Every part is an Arrow array with one
value for each group, and merging is exact, so no cut of the rows can change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emsqrt.expr import Agg
from emsqrt.expr.casts import cast_values
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.floats import STATE_BYTES, grouped
from emsqrt.operators.extremes import distinct_by_group, extreme_by_group
from emsqrt.operators.wide import from_decimals, sum_integers, sum_wide, to_decimals
from sennit_core.errors import Corrupt
from sennit_core.schema import DataType

Integers: TypeAlias = NDArray[np.int64]
Part: TypeAlias = Callable[[Any, Integers, int], Any]
"""(values or states, their groups, number of groups) -> states."""

FLOAT64 = DataType("Float64")


def make_part(part: str, values: Any, groups: Integers, group_count: int) -> Any:
    """Return the states of one part from the argument's values in a batch of rows.

    Args:
        part: the part's name, such as "isum".
        values: the argument's values, None for `count()`.
        groups: the group of each row.
        group_count: how many groups there are.
    """
    if values is None:
        return pa.array(np.bincount(groups, minlength=group_count))
    if values.null_count:
        valid = pc.is_valid(values)
        groups = groups[valid.to_numpy(zero_copy_only=False)]
        values = values.filter(valid)
    return _MAKE[part](values, groups, group_count)


def merge_part(part: str, states: Any, groups: Integers, group_count: int) -> Any:
    """Return one state for each group from many, of which some may be NULL."""
    if states.null_count:
        valid = pc.is_valid(states)
        groups = groups[valid.to_numpy(zero_copy_only=False)]
        states = states.filter(valid)
    return _MERGE[part](states, groups, group_count)


def _seen(groups: Integers, group_count: int) -> NDArray[np.bool_]:
    seen = np.zeros(group_count, np.bool_)
    seen[groups] = True
    return seen


# Counts ---------------------------------------------------------------------------------------


def _count_values(_: Any, groups: Integers, group_count: int) -> Any:
    return pa.array(np.bincount(groups, minlength=group_count))


def _add_counts(states: Any, groups: Integers, group_count: int) -> Any:
    total = np.zeros(group_count, np.int64)
    np.add.at(total, groups, states.to_numpy())
    return pa.array(total)


# Exact sums -----------------------------------------------------------------------------------


def _sum_integers(values: Any, groups: Integers, group_count: int) -> Any:
    kind = pa.uint64() if pa.types.is_uint64(values.type) else pa.int64()
    numbers = values.cast(kind).to_numpy()
    total = sum_integers(numbers, groups, group_count)
    return to_decimals(total, _seen(groups, group_count), 0)


def _sum_decimals(values: Any, groups: Integers, group_count: int) -> Any:
    low, high, over = sum_wide(from_decimals(values), groups, group_count)
    if over.any():
        raise ValueOutOfRange("sum", "a sum of decimals has more than 38 digits")
    return to_decimals((low, high), _seen(groups, group_count), values.type.scale)


# Float sums -----------------------------------------------------------------------------------


def _sum_floats(values: Any, groups: Integers, group_count: int) -> Any:
    states = grouped.sum_by_group(_floats(values), groups, group_count)
    return _to_binary(states, _seen(groups, group_count))


def _sum_squares(values: Any, groups: Integers, group_count: int) -> Any:
    states = grouped.square_sum_by_group(_floats(values), groups, group_count)
    return _to_binary(states, _seen(groups, group_count))


def _floats(values: Any) -> NDArray[np.float64]:
    source = DataType.from_arrow(values.type)
    floats: NDArray[np.float64] = cast_values(values, source, FLOAT64, None, strict=True).to_numpy()
    return floats


def _merge_floats(states: Any, groups: Integers, group_count: int) -> Any:
    merged = grouped.merge_by_group(_from_binary(states), groups, group_count)
    return _to_binary(merged, _seen(groups, group_count))


def _to_binary(states: grouped.States, valid: NDArray[np.bool_]) -> Any:
    packed = states[valid]
    lengths = np.where(valid, STATE_BYTES, 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    buffers = [pa.array(valid).buffers()[1], pa.py_buffer(offsets), pa.py_buffer(packed.tobytes())]
    return pa.Array.from_buffers(pa.binary(), len(states), buffers)


def _from_binary(states: Any) -> grouped.States:
    """View the bytes of states (none NULL) where they lie, one after the other."""
    _, offset_buffer, data = states.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[
        states.offset : states.offset + len(states) + 1
    ]
    if not len(states):
        return grouped.from_bytes(b"", 0)
    if (np.diff(offsets) != STATE_BYTES).any():
        raise Corrupt("float sums", expected=f"{STATE_BYTES} bytes each", found="other lengths")
    return grouped.from_bytes(memoryview(data)[offsets[0] : offsets[-1]], len(states))


# Sets -----------------------------------------------------------------------------------------


def _merge_sets(states: Any, groups: Integers, group_count: int) -> Any:
    lengths = pc.list_value_length(states).to_numpy(zero_copy_only=False)
    return distinct_by_group(states.flatten(), np.repeat(groups, lengths), group_count)


def _extreme(*, largest: bool) -> Part:
    return lambda values, groups, count: extreme_by_group(values, groups, count, largest=largest)


_MAKE: dict[str, Part] = {
    "count": _count_values,
    "isum": _sum_integers,
    "usum": _sum_integers,
    "dsum": _sum_decimals,
    "fsum": _sum_floats,
    "fsum2": _sum_squares,
    "min": _extreme(largest=False),
    "max": _extreme(largest=True),
    "set": distinct_by_group,
}
_MERGE: dict[str, Part] = {
    **_MAKE,
    "count": _add_counts,
    "isum": _sum_decimals,
    "usum": _sum_decimals,
    "fsum": _merge_floats,
    "fsum2": _merge_floats,
    "set": _merge_sets,
}

# Results --------------------------------------------------------------------------------------


def finish(agg: Agg, parts: dict[str, Any], result: DataType) -> Any:
    """Return the values of an aggregate from its states.

    Args:
        agg: the aggregate.
        parts: the states by the part's name.
        result: the type of the values.

    Raises:
        ValueOutOfRange: an integer sum that Int64 or UInt64 cannot hold.
    """
    match agg.fn:
        case "count":
            return _sizes(parts["set"]) if "set" in parts else parts["count"]
        case "min" | "max":
            return parts[agg.fn]
        case "sum":
            ((part, states),) = parts.items()
            return _total(agg, part, states, result)
        case "avg":
            return _mean(parts)
        case _:
            return _spread(agg, parts)


def _sizes(sets: Any) -> Any:
    return pc.fill_null(pc.list_value_length(sets), 0).cast(pa.int64())


def _total(agg: Agg, part: str, states: Any, result: DataType) -> Any:
    if part == "fsum":
        return _float_totals(states)
    if part == "dsum":
        return states
    try:
        return states.cast(result.to_arrow())
    except pa.ArrowInvalid:
        raise ValueOutOfRange(
            str(agg),
            f"the sum is beyond {result}",
            hint=f'sum a cast: {agg.arg!s}.cast("Decimal(38,0)")',
        ) from None


def _float_totals(states: Any) -> Any:
    valid = pc.is_valid(states)
    totals = np.zeros(len(states))
    totals[valid.to_numpy(zero_copy_only=False)] = grouped.values_of(
        _from_binary(states.filter(valid))
    )
    return pc.if_else(valid, pa.array(totals), pa.scalar(None, pa.float64()))


def _mean(parts: dict[str, Any]) -> Any:
    """Divide the sum, rounded once to binary64, by the count."""
    counts = parts["count"].cast(pa.float64())
    if "fsum" in parts:
        totals = _float_totals(parts["fsum"])
    else:
        states = next(parts[part] for part in ("isum", "usum", "dsum") if part in parts)
        totals = cast_values(states, DataType.from_arrow(states.type), FLOAT64, None, strict=True)
    return pc.divide(totals, counts)


def _spread(agg: Agg, parts: dict[str, Any]) -> Any:
    counts = parts["count"].to_numpy()
    empty = grouped.empty_state()
    states = [
        _from_binary(pc.fill_null(parts[part], pa.scalar(empty, pa.binary())))
        for part in ("fsum", "fsum2")
    ]
    variances = pa.array(grouped.variances(counts, *states), pa.float64())
    return variances if agg.fn == "var" else pc.sqrt(variances)
