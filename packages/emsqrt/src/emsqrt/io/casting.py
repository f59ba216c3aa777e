"""Convert a file's batches to the columns and types that the plan expects."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sennit_core.errors import BadInput, UnknownColumn
from sennit_core.schema import DataType, Schema


class BatchCaster:
    """Selects and orders columns, and casts those of another type without loss.

    Args:
        found: the file's Arrow schema.
        wanted: the plan's columns.
        what: the file, for errors.

    Raises:
        UnknownColumn: the file lacks a column of the plan.
    """

    def __init__(self, found: Any, wanted: Schema, what: str) -> None:
        known = dict.fromkeys(found.names)
        for name in wanted.names:
            if name not in known:
                raise UnknownColumn(name=name, known=tuple(known))
        self._what = what
        self._names = list(wanted.names)
        self._schema = wanted.to_arrow()
        self.unchanged = frozenset(
            field.name for field in self._schema if found.field(field.name).type == field.type
        )
        """Columns that are not cast."""

    def keep_coded(self, names: Collection[str]) -> None:
        """Keep these text columns dictionary-encoded, as they are in the file."""
        import pyarrow as pa

        coded = pa.dictionary(pa.int32(), pa.string())
        fields = [
            field.with_type(coded) if field.name in names else field for field in self._schema
        ]
        self._schema = pa.schema(fields)

    def uncast(self, names: Collection[str]) -> list[str]:
        """Return those of some text columns that the plan also expects as text."""
        import pyarrow as pa

        return [name for name in names if pa.types.is_string(self._schema.field(name).type)]

    def cast(self, batch: Any) -> Any:
        """Return the batch with the plan's columns.

        Raises:
            BadInput: a value does not fit the type of its column.
        """
        import pyarrow as pa

        arrays = [
            self._column(batch.column(name), self._schema.field(name)) for name in self._names
        ]
        if not arrays:
            return batch.select([])
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _column(self, array: Any, field: Any) -> Any:
        import pyarrow as pa

        if array.type == field.type:
            return array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        try:
            return as_type(array, field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(
                self._what,
                reason=f"column {field.name!r} is {array.type}, not {field.type}: {error}",
            ) from error


def as_type(values: Any, kind: Any) -> Any:
    """Cast a file's Array with Arrow, except texts to decimals.

    Arrow checks neither all digits nor the exponent of a decimal.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: a value does not fit the type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not (texts and pa.types.is_decimal(kind)):
        return values.cast(kind)
    from emsqrt.expr.casts import cast_values  # most scans do not need it

    wanted = DataType.from_arrow(kind)
    made = cast_values(values.cast(pa.string()), DataType("Utf8"), wanted, None, strict=False)
    lost = values.filter(pc.and_not(pc.is_valid(values), pc.is_valid(made)))
    if len(lost):
        raise pa.ArrowInvalid(f"{lost[0].as_py()!r} is not a {wanted}")
    return made
