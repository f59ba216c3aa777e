"""A canonical hash of rows: equal for the same columns and values, however they are cut into batches.

    SHA-256 of the canonical JSON {"columns": [[name, type]…], "rows": n, "parts": [hex…]}

where the parts are, for each column and depth first, SHA-256 digests of its validity (a byte for each
value), then its lengths (u64, of texts and lists), then its values (little-endian, a null as zeros, NaN
as the quiet NaN without a payload). Buffers are not hashed as they are: their padding, bits below
nulls, offsets and dictionaries may differ between writers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sennit_core.canonical import canonical_json
from sennit_core.schema import Schema

__all__ = ["row_digest"]


def row_digest(schema: Schema, batches: Iterable[pa.RecordBatch]) -> str:
    """Return the hash of rows in order.

    Args:
        schema: Their columns.
        batches: Validated batches.
    """
    arrow = schema.to_arrow()
    columns = [_Digest(field.type) for field in arrow]
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for digest, field, column in zip(columns, arrow, batch.columns, strict=True):
            digest.add(column.cast(field.type))
    document = {
        "columns": [[field.name, str(field.type)] for field in schema.fields],
        "rows": rows,
        "parts": [part for digest in columns for part in digest.parts()],
    }
    return hashlib.sha256(canonical_json(document)).hexdigest()


class _Digest:
    """The digests of a column.

    Args:
        kind: Its type; what is nested in it has digests also if there are no rows.
    """

    def __init__(self, kind: pa.DataType) -> None:
        self._validity = hashlib.sha256()
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()
        # Of a list's items or of a struct's fields, in order.
        self._inner = [_Digest(kind.field(at).type) for at in range(kind.num_fields)]

    def parts(self) -> list[str]:
        """Return the digests, depth first."""
        own = [each.hexdigest() for each in (self._validity, self._lengths, self._values)]
        return [*own, *(part for each in self._inner for part in each.parts())]

    def add(self, column: pa.Array) -> None:
        """Add the values of the next batch."""
        kind = column.type
        valid = np.asarray(column.is_valid()).astype(np.uint8)
        self._validity.update(valid.tobytes())
        if pa.types.is_struct(kind):
            self._add_inner(column.flatten())
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = pc.fill_null(pc.list_value_length(column), 0)
            self._lengths.update(np.asarray(lengths).astype("<u8").tobytes())
            self._add_inner([column.flatten()])
        elif _is_text(kind):
            filled = pc.fill_null(column.cast(pa.large_binary()), b"")
            lengths = pc.binary_length(filled)
            self._lengths.update(np.asarray(lengths).astype("<u8").tobytes())
            self._values.update(b"".join(filled.to_pylist()))
        else:
            self._values.update(_fixed_bytes(column, valid))

    def _add_inner(self, columns: list[pa.Array]) -> None:
        for digest, column in zip(self._inner, columns, strict=True):
            digest.add(column)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _fixed_bytes(column: pa.Array, valid: Any) -> bytes:
    """Return the values of a column of fixed width, with zeros for nulls."""
    kind = column.type
    if pa.types.is_null(kind):
        return b""
    if pa.types.is_boolean(kind):
        return np.asarray(pc.fill_null(column, False)).astype(np.uint8).tobytes()
    width = kind.bit_width // 8
    data = column.buffers()[1]
    start = column.offset * width
    raw = np.frombuffer(data, np.uint8, len(column) * width, start) if len(column) else np.empty(0)
    rows = raw.reshape(len(column), width).astype(np.uint8)
    rows[valid == 0] = 0
    if pa.types.is_floating(kind):
        floats = rows.view(f"<f{width}")
        floats[np.isnan(floats)] = np.nan
    return rows.tobytes()
