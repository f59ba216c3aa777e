"""The layout of a sorted row: its key, and only those columns that the key does not encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from emsqrt._kernel import Columns, KeySpec
from emsqrt.expr import Column, SortKey
from emsqrt.expr.evaluate import Evaluator
from emsqrt.external.layout import KINDS, kind_of
from emsqrt.io.parquet_facts import Span
from emsqrt.operators.coded import CodedText
from emsqrt.operators.columns import Narrow, key_arrays, packed_columns, unpack_arrays
from emsqrt.operators.nested import carried_type, flattened, is_nested, restored
from emsqrt.operators.packing import NO_SPANS, packed_kind
from sennit_core.schema import DataType, Field, Schema

_LOSSY = ("Float32", "Float64", "Utf8", "Binary")
"""Floats have one zero and one NaN in keys; text is slow to decode."""
NO_TEXTS: Mapping[str, CodedText] = MappingProxyType({})


class SortColumns:
    """The columns that rows are ordered by, computed from a batch.

    Args:
        keys: what to order by, most significant first.
        schema: the rows.
    """

    def __init__(self, keys: Sequence[SortKey], schema: Schema) -> None:
        self._evaluators = [Evaluator(key.expr, schema) for key in keys]
        self.keys = keys
        self.fields = [
            Field(f"key{at}", evaluator.type) for at, evaluator in enumerate(self._evaluators)
        ]
        for field in self.fields:
            kind_of(field.type, "ordering")

    def __call__(self, batch: Any) -> list[Any]:
        """Return the keys' arrays for a batch."""
        return [evaluator(batch) for evaluator in self._evaluators]

    def spec(self, first: int) -> KeySpec:
        """Return the order of rows whose key columns begin at column `first`."""
        return KeySpec(
            [(first + at, key.descending, key.nulls_first) for at, key in enumerate(self.keys)]
        )


class SortLayout:
    """Converts batches to rows for a sort, and sorted rows back to batches.

    Args:
        keys: what to order by.
        schema: the rows.
        coded: text columns that are dictionary arrays, and no keys.
        spans: ranges of columns, as the integers that are stored.
    """

    def __init__(
        self,
        keys: Sequence[SortKey],
        schema: Schema,
        coded: Mapping[str, CodedText] = NO_TEXTS,
        spans: Mapping[str, Span] = NO_SPANS,
    ) -> None:
        self._schema = schema
        self._coded = {schema.names.index(name): texts for name, texts in coded.items()}
        self._arrow_schema = schema.to_arrow()
        self._columns = SortColumns(keys, schema)
        self.key_fields = self._columns.fields
        # A packed row, for `ORDER BY a` of columns a (Int64), b (coded text), c (text):
        #
        #     | head | key: a | payload: code of b, c |      a is decoded from the key
        travelling = [
            field if field.name not in coded else Field(field.name, coded[field.name].type)
            for field in schema
        ]
        self._fields = [*travelling, *self._columns.fields]
        self._in_key = _columns_in_key(self._columns, schema)
        self.payload = tuple(at for at, name in enumerate(schema.names) if name not in self._in_key)
        carried = [travelling[at] for at in self.payload]
        self._carried = carried
        self._column_kinds = [
            *(packed_kind(carried_type(field.type), spans.get(field.name)) for field in travelling),
            *(packed_kind(field.type, None) for field in self._columns.fields),
        ]
        self._column_types = [carried_type(field.type).to_arrow() for field in self._fields]
        self._has_nested = any(is_nested(field.type) for field in self._fields)
        self._kinds = [self._column_kinds[at] for at in self.payload]
        self._types = [self._column_types[at] for at in self.payload]
        self._dictionaries: set[int] = set()
        self.spec = self._columns.spec(len(schema))

    def pack(self, batch: Any) -> Columns:
        """Return a batch's columns and keys in the kernel's representation."""
        arrays = [*batch.columns, *self._columns(batch)]
        for at, texts in self._coded.items():
            arrays[at] = texts.places(arrays[at])
        if self._has_nested:
            arrays = flattened(arrays, self._fields)
        return packed_columns(arrays, self._column_types, batch.num_rows, self._column_kinds)

    def unpack(self, block: memoryview, rows: int) -> Any:
        """Return the batch of a block of `rows` rows."""
        arrays = unpack_arrays(block, rows, self._kinds, self._types)
        found = dict(zip(self.payload, restored(arrays, self._carried), strict=True))
        if self._in_key:
            keys = key_arrays(block, rows, self.spec, self._columns.fields)
            found |= {self._schema.names.index(name): keys[at] for name, at in self._in_key.items()}
        for at, texts in self._coded.items():
            found[at] = self._text(found[at], texts, coded=at in self._dictionaries)
        columns = [found[at] for at in range(len(self._schema))]
        return pa.RecordBatch.from_arrays(columns, schema=self._arrow_schema)

    def yield_as_stored(self, bytes_max: int, count_max: int) -> None:
        """Yield texts as dictionary arrays and short decimals in eight bytes, once all are packed.

        Args:
            bytes_max: of a dictionary; texts with a larger one are yielded plain.
            count_max: of its texts, likewise.
        """
        self._dictionaries = {
            at
            for at, coded in self._coded.items()
            if coded.texts.nbytes <= bytes_max and len(coded.texts) <= count_max
        }
        # Only once the dictionary is known to be small enough for the sink.
        for at in self._dictionaries:
            self._convert(at, pa.dictionary(self._coded[at].type.to_arrow(), pa.string()))
        for place, (at, kind) in enumerate(zip(self.payload, self._types, strict=True)):
            packed = self._kinds[place]
            if isinstance(packed, Narrow) and packed.kind == KINDS["Decimal"]:
                # A short decimal is unpacked as the 64-bit integer that it is stored as.
                self._kinds[place] = packed._replace(kind=KINDS["Int64"])
                self._types[place] = pa.decimal64(kind.precision, kind.scale)
                self._convert(at, self._types[place])

    def _convert(self, at: int, kind: Any) -> None:
        field = self._arrow_schema.field(at).with_type(kind)
        self._arrow_schema = self._arrow_schema.set(at, field)

    def _text(self, places: Any, texts: CodedText, *, coded: bool) -> Any:
        if coded:
            return pa.DictionaryArray.from_arrays(places, texts.texts)
        return texts.texts.take(places)


def _columns_in_key(columns: SortColumns, schema: Schema) -> dict[str, int]:
    """Return the columns that a key encodes losslessly, and the key part of each."""
    found: dict[str, int] = {}
    for at, (key, field) in enumerate(zip(columns.keys, columns.fields, strict=True)):
        of: DataType = field.type
        if isinstance(key.expr, Column) and of.name not in _LOSSY and key.expr.name in schema:
            # The first key of a column that is a key twice.
            found.setdefault(key.expr.name, at)
    return found
