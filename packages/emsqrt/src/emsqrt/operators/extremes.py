"""Smallest, largest and different values of many groups at once, for every type with an order.

Values are mapped to integers of the same order, so one integer loop serves all types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emsqrt.operators.grouping import plain_floats

Integers: TypeAlias = NDArray[np.int64]
Decode: TypeAlias = Callable[[Integers], Any]

_TOP_BIT = np.int64(-(2**63))


def ordered(values: Any) -> tuple[Integers, Decode]:
    """Return integers in the order of the values (none NULL), and the way back to an Array."""
    kind = values.type
    if pa.types.is_floating(kind):
        return _ordered_floats(values)
    if pa.types.is_uint64(kind):
        flipped = values.to_numpy().view(np.int64) ^ _TOP_BIT
        return flipped, lambda codes: pa.array((codes ^ _TOP_BIT).view(np.uint64))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        plain = values.to_numpy(zero_copy_only=False).astype(np.int64)
        return plain, lambda codes: pa.array(codes).cast(kind, safe=False)
    if pa.types.is_temporal(kind):
        whole = pa.int32() if pa.types.is_date32(kind) else pa.int64()
        plain = values.cast(whole).to_numpy().astype(np.int64)
        return plain, lambda codes: pa.array(codes).cast(whole, safe=False).cast(kind)
    return _ordered_by_rank(values)


def _ordered_floats(values: Any) -> tuple[Integers, Decode]:
    """Map floats to integers: by their bits, the negative ones reversed, NaN above all."""
    kind = values.type
    bits = plain_floats(values).cast(pa.float64()).to_numpy().view(np.int64)
    codes = np.where(bits < 0, ~bits ^ _TOP_BIT, bits)

    def decode(chosen: Integers) -> Any:
        back = np.where(chosen < 0, ~(chosen ^ _TOP_BIT), chosen)
        return pa.array(back.view(np.float64)).cast(kind, safe=False)

    return codes, decode


def _ordered_by_rank(values: Any) -> tuple[Integers, Decode]:
    encoded = pc.dictionary_encode(values)
    order = pc.sort_indices(encoded.dictionary)
    ranks = np.empty(len(order), np.int64)
    ranks[order.to_numpy()] = np.arange(len(order))
    ascending = encoded.dictionary.take(order)
    codes = ranks[encoded.indices.to_numpy()]
    return codes, lambda chosen: ascending.take(pa.array(chosen))


def extreme_by_group(values: Any, groups: Integers, group_count: int, *, largest: bool) -> Any:
    """Return each group's smallest or largest value, NULL for a group without values.

    Args:
        values: an Array without NULL.
        groups: the group of each value.
        group_count: how many groups there are.
        largest: whether the largest is wanted.
    """
    codes, decode = ordered(values)
    limits = np.iinfo(np.int64)
    best = np.full(group_count, limits.min if largest else limits.max, np.int64)
    (np.maximum if largest else np.minimum).at(best, groups, codes)
    seen = np.zeros(group_count, np.bool_)
    seen[groups] = True
    if not len(values):
        return pa.nulls(group_count, values.type)
    best[~seen] = codes[0]
    return pc.if_else(pa.array(seen), decode(best), pa.scalar(None, values.type))


def distinct_by_group(values: Any, groups: Integers, group_count: int) -> Any:
    """Return each group's different values as a List, in ascending order."""
    codes, decode = ordered(values)
    order = np.lexsort((codes, groups))
    sorted_groups, sorted_codes = groups[order], codes[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (np.diff(sorted_groups) != 0) | (np.diff(sorted_codes) != 0)
    counts = np.bincount(sorted_groups[fresh], minlength=group_count)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    items = decode(sorted_codes[fresh]) if len(values) else values
    return pa.ListArray.from_arrays(pa.array(offsets), items)
