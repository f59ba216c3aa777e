"""Typed records as columns: numpy arrays in and out of slots, in one pass of the C core.

All columns are converted to descriptions of buffers first, so that a column which does not fit its
field is refused before any record is written. Arrow has a module of its own (`strand.arrow`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sennit_core.errors import Corrupt, UnknownColumn, UsageError
from strand.conversions import NULLS, NUMPY_CODES
from strand.sources import FIXED, Source, describe

if TYPE_CHECKING:
    import pyarrow as pa

    from strand.consumer import RingConsumer
    from strand.fields import StrandField
    from strand.header import StrandMap
    from strand.producer import RingProducer
    from strand.schema import StrandSchema

__all__ = ["claim_records", "columns", "to_arrow", "write_batch", "write_columns"]

_ONLY_ARRAYS = {np.ndarray}


# ---- writing ------------------------------------------------------------------------------------


def write_columns(
    writer: RingProducer,
    columns: Mapping[str, Any] | np.ndarray[Any, Any],
    nulls: Mapping[str, Any] | None = None,
) -> int:
    """Publish records from columns, or from one structured array; return how many.

    Args:
        writer: the ring's producer.
        columns: for each field a numpy array (masked for nulls), an Arrow array or a sequence,
            all of one length; or one structured array with a field for each.
        nulls: for nullable fields a boolean array, True where the value is null.

    Raises:
        UsageError: a column is missing, of another length, or of a type that its field cannot store
            exactly; the message names column and types. No record was written.
        UnknownColumn: a column is not in the schema. No record was written.
        PayloadTooLarge: the payloads of a record need more than half of the heap. Likewise.
        StrandAbortError, ConsumerDied, RingExhausted: as in `write_record_batch`; earlier pieces of
            the batch were written.
    """
    if isinstance(columns, np.ndarray):
        return _write_array(writer, columns, nulls)
    schema = writer.map.schema
    try:
        values = schema.pick(columns)
    except KeyError:
        raise _missing(schema, columns) from None
    if len(columns) != len(values):
        unknown = next(name for name in columns if name not in schema.index)
        raise UnknownColumn(str(unknown), schema.names)
    return _write(writer, values, nulls)


def write_batch(writer: RingProducer, batch: pa.RecordBatch | pa.Table) -> int:
    """Publish the rows of an Arrow batch or table as typed records; return how many.

    Raises:
        UsageError, UnknownColumn, PayloadTooLarge: as `write_columns`.
    """
    from strand.arrow import pieces

    return sum(write_columns(writer, piece) for piece in pieces(batch, writer.map.schema))


def claim_records(writer: RingProducer, count: int) -> list[np.ndarray[Any, Any]]:
    """Claim slots to fill in place: one structured array, or two where the ring wraps.

    Values are zero, and nullable fields are present; clear their bits in `_nulls` to make them null.
    Heap fields are pointers to bytes claimed with `claim_heap_bytes`. Publish with `commit_slots`.

    Args:
        writer: the ring's producer.
        count: number of slots, at most the slots of the ring.
    """
    seq = writer._claim(count)  # noqa: SLF001 - of one package
    views = writer.map_records(seq, count)
    nullable = [bit for bit in writer.map.schema.null_bits if bit is not None]
    if nullable:
        for view in views:
            view[NULLS] = np.packbits(np.ones(len(nullable), bool), bitorder="little")
    return views


def _write_array(
    writer: RingProducer, array: np.ndarray[Any, Any], nulls: Mapping[str, Any] | None
) -> int:
    """Write a structured array: with one copy if its dtype is the slot's, else field by field."""
    schema = writer.map.schema
    dtype = schema.to_numpy(writer.map.version)
    plain = type(array) is np.ndarray and schema.plain_bytes == writer.map.stride and nulls is None
    if plain and array.dtype is dtype and array.ndim == 1:
        writer._plain = np.ndarray, dtype  # noqa: SLF001 - lets write_columns skip these checks
        return _count(writer._scatter(len(array), np.ascontiguousarray(array)))  # noqa: SLF001
    if array.dtype.names is None or array.ndim != 1:
        raise UsageError(
            f"pass one structured array with a field for each column, not {array.ndim} dimensions "
            f"of {array.dtype}",
            hint="its dtype is schema.to_numpy(); separate columns go in a mapping",
        )
    if array.dtype == dtype:
        if any(field.facts.heap for field in schema.fields):
            raise UsageError(
                "records with heap fields cannot be copied from ring to ring as slots",
                hint="pass columns, or an Arrow batch (view.to_arrow)",
            )
        if plain:
            writer._plain = np.ndarray, array.dtype  # noqa: SLF001 - equal dtype: likewise
            return _count(writer._scatter(len(array), np.ascontiguousarray(array)))  # noqa: SLF001
        if nulls is None:
            nulls = _nulls_of(schema, array)
    fields = np.ma.asarray(array) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
    return write_columns(
        writer, {name: fields[name] for name in array.dtype.names if name != NULLS}, nulls
    )


def _write(writer: RingProducer, values: tuple[Any, ...], nulls: Mapping[str, Any] | None) -> int:
    """Write one column for each field: directly if all are exact arrays, else by descriptions."""
    if nulls is None and set(map(type, values)) == _ONLY_ARRAYS and values[0].ndim == 1:
        written = writer._scatter(len(values[0]), values)  # noqa: SLF001 - of one package
        if written is not None:
            return written
    schema = writer.map.schema
    masks = _check_masks(schema, nulls)
    rows, first = -1, ""
    sources = []
    for field, value in zip(schema.fields, values, strict=True):
        source, count = _describe(writer.map, field, value, masks.get(field.name))
        if rows >= 0 and count != rows:
            raise UsageError(
                f"column {field.name!r} has {count} values, and column {first!r} has {rows}"
            )
        rows, first = count, first or field.name
        sources.append(source)
    return _count(writer._scatter(rows, tuple(sources)))  # noqa: SLF001


def _describe(
    map: StrandMap,  # noqa: A002 - the name that all modules use
    field: StrandField,
    value: Any,
    mask: np.ndarray[Any, Any] | None,
) -> tuple[Source, int]:
    """Return the description of a column and its number of rows; Arrow arrays have their own."""
    arrow = sys.modules.get("pyarrow")
    if arrow is None or not isinstance(value, (arrow.Array, arrow.ChunkedArray)):
        return describe(map, field, value, mask)
    from strand.arrow import describe_array

    return describe_array(map, field, value, mask)


def _count(written: int | None) -> int:
    assert written is not None, "described columns are always written"
    return written


def _check_masks(
    schema: StrandSchema, nulls: Mapping[str, Any] | None
) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    masks = {}
    for name, values in (nulls or {}).items():
        position = schema.position(name)
        mask = np.asarray(values)
        if mask.dtype != np.bool_ or mask.ndim != 1:
            raise UsageError(f"the nulls of {name!r} are a boolean array, not {mask.dtype}")
        if not schema.fields[position].nullable and mask.any():
            raise UsageError(f"field {name!r} cannot be null")
        masks[name] = mask
    return masks


def _missing(schema: StrandSchema, columns: Mapping[str, Any]) -> UsageError:
    """Return the error for missing names; unknown names come first, as they may be misspelt."""
    for name in columns:
        if name not in schema.index:
            return UnknownColumn(str(name), schema.names)
    missing = next(name for name in schema.names if name not in columns)
    return UsageError(
        f"column {missing!r} is missing",
        hint="pass a column for every field; nulls are allowed in nullable fields",
    )


def _nulls_of(schema: StrandSchema, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    bits = zip(schema.names, schema.null_bits, strict=True)
    return {
        name: array[NULLS][:, bit // 8] >> (bit & 7) & 1 == 0
        for name, bit in bits
        if bit is not None
    }


# ---- reading ------------------------------------------------------------------------------------


def columns(
    view: RingConsumer, start: int, stop: int, names: Sequence[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Copy fixed-width fields of records into numpy arrays; nullable ones are masked.

    Args:
        view: the ring's consumer.
        start: the first record.
        stop: one past the last.
        names: which fields; by default all that are not strings, bytes, JSON or arrays.

    Raises:
        UsageError: a heap field, or records that may not be read.
        Corrupt: a handle outside the intern table.
    """
    view.check_range(start, stop)
    schema = view.map.schema
    rows = stop - start
    picked = names
    if picked is None:
        picked = [field.name for field in schema.fields if not field.facts.heap]
    found, targets, bits = {}, [], {}
    for name in picked:
        position = schema.position(name)
        field = schema.fields[position]
        if field.facts.heap:
            raise UsageError(
                f"field {name!r} is {field.type}, which has no numpy column",
                hint="view.to_arrow or view.tuples read strings, bytes and arrays",
            )
        found[name] = np.empty(rows, NUMPY_CODES[field.type])
        if field.nullable:
            bits[name] = np.empty((rows + 7) // 8, np.uint8)
        targets.append((position, FIXED, found[name], None, bits.get(name)))
    view._gather(start, stop, targets)  # noqa: SLF001 - of one package
    for name, packed in bits.items():
        absent = np.unpackbits(packed, count=rows, bitorder="little") == 0
        found[name] = np.ma.MaskedArray(found[name], absent)
    return found


def to_arrow(view: RingConsumer, start: int, stop: int) -> pa.RecordBatch:
    """Copy records into an Arrow batch: see `strand.arrow.gather`."""
    from strand.arrow import gather

    view.check_range(start, stop)
    try:
        return gather(view, view.map.schema, view._compiled.intern, start, stop)  # noqa: SLF001
    except Corrupt:
        for seq in range(start, stop):
            view.tuples(seq, seq + 1)  # raises CorruptRecord, which names the record
        raise
