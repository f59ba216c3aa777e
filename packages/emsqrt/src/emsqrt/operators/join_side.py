"""One input of a join: its batches as packed rows, and its part of joined rows as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc

from emsqrt._kernel import Columns, KeySpec, pack_join_rows
from emsqrt.execution_context import ExecutionContext
from emsqrt.expr import Column, Expr
from emsqrt.expr.evaluate import Evaluator
from emsqrt.long_row import LongRow
from emsqrt.operators.nested import (
    carried_kinds,
    carried_type,
    is_nested,
    pack_nested,
    to_columns,
    unpack_batch,
)
from emsqrt.operators.operator import Operator
from sennit_core.schema import DataType, Field, Schema
from sennit_core.units import format_bytes

BLOCK_BYTES_MAX = 1 << 18
"""Size of blocks of packed or joined rows, unless one row is longer."""
LONG_ROW_SHARE = 64
"""A packed row may use this fraction of the working memory, if that is more than a block."""
_BLOCKS_SHARE = 16
_FIELD_BYTES = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, 4, 4)  # of each kind, as in pack.h
_HEAD_BYTES = 8  # of a packed row
_KEY_PART_BYTES = 17  # of a key, at most, apart from text


class JoinSide:
    """One input of a join: the columns that its rows carry, and its keys.

    Args:
        source: the input.
        fields: its columns in the join's output, with their output types.
        keys: the names of the key columns.
        types: the types in which the two sides' keys are compared.
    """

    def __init__(
        self,
        source: Operator,
        fields: Sequence[Field],
        keys: Sequence[str],
        types: Sequence[DataType],
    ) -> None:
        self.source = source
        self.fields = tuple(fields)
        self.schema = Schema(self.fields)
        self._arrow_schema = self.schema.to_arrow()
        kinds = carried_kinds(self.schema)
        self.absent = _absent(kinds)
        key_fields = [Field(f"key{at}", kind) for at, kind in enumerate(types)]
        self._made = [field.type for field in (*self.fields, *key_fields)]
        self._packed = [
            Field(field.name, carried_type(field.type)) for field in (*self.fields, *key_fields)
        ]
        self.varies = any(field.type.name in ("Utf8", "Binary") for field in self._packed)
        """Whether rows differ in length."""
        schema = source.schema
        self._columns = [
            *(Evaluator(_cast(field.name, field.type, schema), schema) for field in self.fields),
            # A value out of range for the common type equals no value, like NULL.
            *(
                Evaluator(_cast(name, kind, schema, strict=False), schema)
                for name, kind in zip(keys, types, strict=True)
            ),
        ]
        # A batch has the carried columns, then the keys: payload and key of each row.
        self._spec = KeySpec([(len(kinds) + at, False, False) for at in range(len(keys))])
        self._payload = tuple(range(len(kinds)))

    def packed(
        self, batches: Iterator[Any], room: memoryview, run: ExecutionContext
    ) -> Iterator[memoryview]:
        """Yield blocks of packed rows of the source's batches.

        Args:
            batches: the source's.
            room: buffer for the blocks; used beyond a block's size only for a longer row.
            run: checked for cancellation.

        Raises:
            LongRow: a row is longer than `room`.
        """
        block = room[:BLOCK_BYTES_MAX]
        for batch in batches:
            run.check()
            arrays = self._arrays(batch)
            columns = to_columns(arrays, self._packed, batch.num_rows)
            del batch
            start = 0
            while start < len(columns):
                # The longer buffer is used for one row only; blocks stay small otherwise.
                packed = self._pack(columns, start, block) or self._pack(columns, start, room)
                if packed is None:
                    raise _too_long(self._row_bytes(arrays, start), room)
                filled, rows = packed
                start += rows
                yield room[:filled]
            del columns, arrays

    def columns(self, block: memoryview, rows: int) -> list[Any]:
        """Return the columns of this side's part of joined rows (see `join_side`)."""
        if not self.fields:
            return []
        with block:
            return list(unpack_batch(block, rows, self.schema, self._arrow_schema).columns)

    def _arrays(self, batch: Any) -> list[Any]:
        """Return a batch's columns and keys, nested values as bytes."""
        return [
            pack_nested(column(batch), of) if is_nested(of) else column(batch)
            for column, of in zip(self._columns, self._made, strict=True)
        ]

    def _pack(self, columns: Columns, start: int, room: memoryview) -> tuple[int, int] | None:
        """Pack rows from `start` on: (bytes, rows); None when not even one fits."""
        try:
            return pack_join_rows(columns, self._spec, self._payload, start, room)
        except ValueError:
            return None

    def _row_bytes(self, arrays: Sequence[Any], row: int) -> int:
        """Return a bound on the length of a packed row."""
        one = [
            array.slice(row, 1).cast(field.type.to_arrow())
            for array, field in zip(arrays, self._packed, strict=True)
        ]
        keys = one[len(self.fields) :]
        # A zero byte of text is escaped as two bytes in a key.
        text = _text_bytes(one) + _text_bytes(keys)
        return _HEAD_BYTES + len(self.absent) + len(keys) * _KEY_PART_BYTES + text


def fixed_row_bytes(kinds: Sequence[int], keys: int) -> int:
    """Return the length of a packed row with `keys` key columns, apart from its texts."""
    return _HEAD_BYTES + len(_absent(kinds)) + keys * _KEY_PART_BYTES


def block_bytes(memory_bytes: int) -> int:
    """Return the size of a block of packed or joined rows for a size of working memory."""
    return min(BLOCK_BYTES_MAX, memory_bytes // _BLOCKS_SHARE)


def row_bytes_max(memory_bytes: int, *, varies: bool) -> int:
    """Return the most that one packed row may use; at most a block if all rows are equally long."""
    share = memory_bytes // LONG_ROW_SHARE if varies else 0
    return max(block_bytes(memory_bytes), share)


def _text_bytes(arrays: Sequence[Any]) -> int:
    texts = [array for array in arrays if str(array.type) in ("string", "binary")]
    return sum(pc.sum(pc.binary_length(array)).as_py() or 0 for array in texts)


def _too_long(row_bytes: int, room: memoryview) -> LongRow:
    """Return the error for a row that is longer than `room`."""
    return LongRow(
        cap_bytes=len(room) * LONG_ROW_SHARE,
        needed_bytes=row_bytes * LONG_ROW_SHARE,
        because=f"a row to be joined needs {format_bytes(row_bytes)}",
        row_bytes=row_bytes,
    )


def _cast(name: str, kind: DataType, schema: Schema, *, strict: bool = True) -> Expr:
    column = Column(name)
    if schema.field(name).type == kind:
        return column
    return column.cast(kind) if strict else column.try_cast(kind)


def _absent(kinds: Sequence[int]) -> bytes:
    """Return a packed row of nulls."""
    # In a packed row a set bit means NULL (pack.h), and a NULL's value is zeros.
    nulls = ((1 << len(kinds)) - 1).to_bytes((len(kinds) + 7) // 8, "little")
    return nulls + bytes(sum(_FIELD_BYTES[kind] for kind in kinds))
