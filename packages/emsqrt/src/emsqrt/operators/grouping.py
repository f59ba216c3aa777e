"""Which group each row belongs to, for keys of any type, NULL being a key like any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_CODES_MAX = 1 << 62


def plain_floats(values: Any) -> Any:
    """Return float values with one zero and one NaN, so that equal values have equal bits."""
    if not pa.types.is_floating(values.type):
        return values
    nan = pa.scalar(float("nan"), values.type)
    return pc.if_else(pc.is_nan(values), nan, pc.add(values, pa.scalar(0.0, values.type)))


def group_rows(keys: list[Any], row_count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's group and each group's first row.

    Groups are numbered in the order in which they first appear. Without keys all rows are one
    group, also when there is no row.

    Args:
        keys: Arrow arrays of `row_count` values, floats already plain.
        row_count: how many rows there are.
    """
    if not keys:
        return np.zeros(row_count, np.int64), np.zeros(1, np.int64)
    groups, count = _codes(keys[0])
    for key in keys[1:]:
        codes, size = _codes(key)
        if count * size >= _CODES_MAX:
            groups, count = _codes(pa.array(groups))
        groups, count = _codes(pa.array(groups * size + codes))
    first = np.empty(count, np.int64)
    first[groups[::-1]] = np.arange(row_count - 1, -1, -1)
    return groups, first


def _codes(values: Any) -> tuple[NDArray[np.int64], int]:
    """Return a small number for each value, equal for equal values, and how many there are."""
    encoded = pc.dictionary_encode(values, null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, len(encoded.dictionary)
