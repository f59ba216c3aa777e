"""Describe columns as buffers for the C core, and check them against their fields.

A description is (form, values, offsets, first row, validity bits, first bit). Values are cast where
the cast is lossless; any other type is refused with the column's name and both types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sennit_core.errors import UsageError
from strand import _native
from strand.conversions import NUMPY_CODES

if TYPE_CHECKING:
    from strand.fields import StrandField
    from strand.header import StrandMap

__all__ = ["BITS", "FIXED", "OFFSETS32", "OFFSETS64", "Source", "can_cast", "describe"]

FIXED, BITS, OFFSETS32, OFFSETS64 = range(4)

Source = tuple[int, Any, Any, int, Any, int]
Array = np.ndarray[Any, Any]

_FAMILIES = {"i": "integer", "u": "integer", "f": "float", "b": "boolean"}
_HANDLES = np.dtype("<u4")


def describe(
    map: StrandMap,  # noqa: A002 - the name that all modules use
    field: StrandField,
    value: Any,
    mask: Array | None,
) -> tuple[Source, int]:
    """Return the description of one column and its number of rows.

    Args:
        map: the ring, in whose intern table `utf8_ref` strings are looked up.
        field: the field that stores the column.
        value: a numpy array, or a sequence of values (None is null).
        mask: True where the value is null, overriding `value`; or None.

    Raises:
        UsageError: the column does not fit the field.
    """
    values, absent = _split(field, value)
    if mask is not None:
        check_length(field, mask, len(values))
        absent = mask if absent is None else absent | mask
    if absent is not None and not absent.any():
        absent = None
    validity = None if absent is None else np.packbits(~absent, bitorder="little")
    if field.facts.heap:
        data, offsets = _flatten(field, values, absent)
        return (OFFSETS64, data, offsets, 0, validity, 0), len(values)
    if field.facts.kind == "handle":
        array = _to_handles(map, field, values, absent)
    else:
        array = _to_array(field, values, np.dtype(NUMPY_CODES[field.type]), absent)
    return (FIXED, array, None, 0, validity, 0), len(values)


def can_cast(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether the cast is lossless and within one kind (integer, float, boolean)."""
    family = _FAMILIES.get(source.kind)
    return family == _FAMILIES.get(target.kind) and np.can_cast(source, target, "safe")


def intern_handles(
    map: StrandMap,  # noqa: A002 - see above
    field: StrandField,
    texts: Sequence[Any],
) -> Array:
    """Return the handle of each string in the ring's intern table.

    Raises:
        UsageError: a string that is not in the table.
    """
    table = {text: handle for handle, text in enumerate(map.metadata.get("intern", ()))}
    try:
        return np.fromiter((table[text] for text in texts), _HANDLES, len(texts))
    except KeyError as error:
        raise UsageError(
            f"column {field.name!r}: {error.args[0]!r} is not in the intern table",
            hint='open the ring with metadata={"intern": [...]}, or declare the field as utf8',
        ) from None


def mismatch(field: StrandField, found: object, hint: str | None = None) -> UsageError:
    """Return the error for a column whose type differs from its field's."""
    return UsageError(f"column {field.name!r} is {field.type}, not {found}", hint=hint)


# ---- nulls --------------------------------------------------------------------------------------


def _split(field: StrandField, value: Any) -> tuple[Array | Sequence[Any], Array | None]:
    """Return the values, and a mask of the nulls or None; sequences stay sequences."""
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmask(value)
        return value.data, None if mask is np.ma.nomask else np.asarray(mask)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        raise mismatch(field, type(value).__name__, "pass an array or a sequence of values")
    if not isinstance(value, (list, tuple, range)):
        array = np.asarray(value)
        if array.ndim == 1 and array.dtype.kind in "OUST":
            value = array.tolist()
        else:
            return array, None
    if isinstance(value, range):
        return list(value), None
    nulls = _native.find_nulls(value)
    return value, None if nulls is None else np.frombuffer(nulls, bool)


def check_length(field: StrandField, mask: Array, rows: int) -> None:
    """Raise UsageError unless the nulls mask has one value for each row."""
    if len(mask) != rows:
        raise UsageError(
            f"column {field.name!r} has {rows} values, and its nulls mask has {len(mask)}"
        )


# ---- values in the slot -------------------------------------------------------------------------


def _to_array(
    field: StrandField, values: Array | Sequence[Any], target: np.dtype[Any], absent: Array | None
) -> Array:
    """Convert values to an array of exactly the target type."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise mismatch(field, f"an array of {values.ndim} dimensions")
        if not can_cast(values.dtype, target):
            raise mismatch(field, values.dtype, f"cast it yourself: column.astype({target.str!r})")
        return values.astype(target, copy=False)
    items = list(values) if absent is None else _fill(values, absent, target.type(0).item())
    try:
        natural = np.asarray(items)
    except (ValueError, OverflowError) as error:
        raise mismatch(field, error) from error
    if not items:
        return natural.astype(target)
    allowed = {"i": "iu", "u": "iu", "f": "iuf", "b": "b"}[target.kind]
    if natural.ndim != 1 or natural.dtype.kind not in allowed:
        raise mismatch(field, f"a sequence of {natural.dtype}")
    if target.kind in "iu":
        _check_bounds(field, natural, target)
    with np.errstate(over="ignore"):
        array = natural.astype(target)
    if target.kind == "f" and not np.array_equal(np.isinf(array), np.isinf(natural)):
        raise mismatch(field, "numbers beyond its range")
    return array


def _fill(values: Sequence[Any], absent: Array, filler: object) -> list[Any]:
    return [filler if gone else item for gone, item in zip(absent.tolist(), values, strict=True)]


def _check_bounds(field: StrandField, values: Array, target: np.dtype[Any]) -> None:
    bounds = np.iinfo(target)
    least, greatest = int(values.min()), int(values.max())
    if least < bounds.min or greatest > bounds.max:
        outside = least if least < bounds.min else greatest
        raise UsageError(
            f"column {field.name!r} is {field.type} ({bounds.min} to {bounds.max}), and holds "
            f"{outside}"
        )


def _to_handles(
    map: StrandMap,  # noqa: A002 - see above
    field: StrandField,
    values: Array | Sequence[Any],
    absent: Array | None,
) -> Array:
    """Return handles, from handles or from strings of the intern table."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise mismatch(field, values.dtype, "pass handles (integers) or strings")
        if values.dtype != _HANDLES and len(values):
            _check_bounds(field, values, _HANDLES)
        return values.astype(_HANDLES, copy=False)
    if not any(isinstance(item, str) for item in values):
        return _to_array(field, values, _HANDLES, absent)
    handles = np.zeros(len(values), _HANDLES)
    present = np.ones(len(values), bool) if absent is None else ~absent
    texts = [item for item, there in zip(values, present.tolist(), strict=True) if there]
    handles[present] = intern_handles(map, field, texts)
    return handles


# ---- payloads -----------------------------------------------------------------------------------


def _flatten(
    field: StrandField, values: Array | Sequence[Any], absent: Array | None
) -> tuple[Any, Array]:
    """Return the concatenated payloads, and their offsets in items."""
    if isinstance(values, np.ndarray):
        return _flatten_matrix(field, values)
    items = values if isinstance(values, (list, tuple)) else list(values)
    encode = _ENCODERS.get(field.facts.kind)
    try:
        if encode is not None:
            left_out = [False] * len(items) if absent is None else absent.tolist()
            items = [
                b"" if skip else encode(field, item)
                for skip, item in zip(left_out, items, strict=True)
            ]
        skips = None if absent is None else absent.data
        data, offsets = _native.flatten(items, skips, field.facts.kind == "text")
    except (TypeError, ValueError, AttributeError, BufferError) as error:
        raise mismatch(field, f"a sequence with invalid values: {error}") from error
    ends = np.frombuffer(offsets, np.int64)
    # Only arrays have items of several bytes; a division would copy the offsets of all others.
    return data, ends if field.facts.item_bytes == 1 else ends // field.facts.item_bytes


def _flatten_matrix(field: StrandField, values: Array) -> tuple[Any, Array]:
    """Use the rows of a matrix as arrays of equal length."""
    if field.facts.kind != "array" or values.ndim != 2:
        raise mismatch(field, f"{values.ndim} dimensions of {values.dtype}")
    target = np.dtype(NUMPY_CODES[field.type])
    if not can_cast(values.dtype, target):
        raise mismatch(field, values.dtype, f"cast it yourself: column.astype({target.str!r})")
    rows, items = values.shape
    flat = np.ascontiguousarray(values, target).reshape(-1)
    return flat.view(np.uint8), np.arange(rows + 1, dtype=np.int64) * items


def _encode_json(field: StrandField, value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _encode_items(field: StrandField, value: Any) -> bytes:
    items, absent = _split(field, value)
    if absent is not None:
        raise TypeError("an array contains a null")
    return _to_array(field, items, np.dtype(NUMPY_CODES[field.type]), None).tobytes()


# Kinds that need an encoder; strings and bytes are passed to the C core unchanged.
_ENCODERS: dict[str, Callable[[StrandField, Any], bytes]] = {
    "json": _encode_json,
    "array": _encode_items,
}
