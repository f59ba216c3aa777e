"""Parse blocks of CSV records to Arrow batches with the kernel's parser, which both tiers share.

Each batch has memory of its own, which lives as long as its columns. A bad record is reported with
line and byte, or handled as `badRows` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from emsqrt._kernel import Columns, RecordFault
from emsqrt._kernel import CsvParser as Parser
from emsqrt.io.bad_rows import BadRows
from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.encodings import TranscodedSource
from emsqrt.io.records import RecordBlock, way_on
from emsqrt.io.sources import ByteSource, line_at
from sennit_core.errors import BadInput, UnknownColumn, Unsupported
from sennit_core.schema import Schema

MEMORY_PER_BYTE = 2
"""Columns need about as much memory as their text; a batch ends when its memory is full."""
_MEMORY_BYTES_MIN = 1 << 16
_POLICIES = {"fail": "fail", "null": "null", "reject": "skip"}
_SHOWN_LENGTH = 80


class CsvBatches:
    """Parses blocks of whole records to record batches.

    Args:
        names: the file's columns, in order.
        schema: the columns to read, in order, with their types.
        options: the format of the file, and the policy for bad records.
        source: the file, for errors.
        bad_rows: receives records that violate the schema.

    Raises:
        UnknownColumn: the file lacks a column to read.
        Unsupported: CSV cannot represent a column's type.
    """

    def __init__(
        self,
        names: Sequence[str],
        schema: Schema,
        options: CsvOptions,
        source: ByteSource,
        bad_rows: BadRows | None = None,
    ) -> None:
        for field in schema:
            if field.name not in names:
                raise UnknownColumn(name=field.name, known=tuple(names))
            if field.type.name in ("List", "Struct"):
                raise Unsupported(f"column {field.name!r} is {field.type}, not available in CSV")
        self._names, self._schema = list(names), schema
        self._options, self._source = options, source
        self._bad_rows = bad_rows or BadRows()
        self._arrow_schema = schema.to_arrow()
        self._columns = [(self._names.index(f.name), str(f.type)) for f in schema]
        self._counts_lines = options.bad_rows == "reject" or not source.can_reopen
        self._line = 1
        self._is_utf8 = not isinstance(source, TranscodedSource)

    def start_at(self, offset: int) -> None:
        """Set the offset of the first record, for counting lines."""
        if self._counts_lines:
            self._line = 1 + self._source.peek(offset).count(b"\n")

    def parse(self, block: RecordBlock) -> Iterator[Any]:
        """Yield the block's rows in one batch or a few.

        Raises:
            BadInput: a record has too many or few fields, or a value is not of its column's type.
        """
        data = bytes(block.data)  # the parser keeps it, while the splitter reuses its buffer
        start, memory_bytes = 0, MEMORY_PER_BYTE * len(data) + _MEMORY_BYTES_MIN
        while start < len(data):
            memory = pa.allocate_buffer(memory_bytes)
            parser = self._parser(memory)
            try:
                columns, end = parser.parse(data, start)
            except RecordFault as fault:
                if fault.reason == "room" and memory_bytes < 1 << 30:
                    memory_bytes *= 2
                    continue
                raise self._bad(fault, data, block.offset) from None
            batch = self._batch(columns, memory)
            self._settle(parser, data, block.offset)
            parser.release()
            start = end
            if batch.num_rows:
                yield batch
        if self._counts_lines:
            self._line += data.count(b"\n")

    def _parser(self, memory: Any) -> Parser:
        options = self._options
        return Parser(
            memory,
            field_count=len(self._names),
            columns=self._columns,
            delimiter=options.delimiter,
            quote=options.quote,
            null_values=options.null_values,
            on_error=_POLICIES[options.bad_rows],
        )

    def _batch(self, columns: Columns, memory: Any) -> Any:
        if not self._columns:
            return pa.RecordBatch.from_pylist([{}] * len(columns))
        return batch_over(columns, self._arrow_schema, memory)

    def _settle(self, parser: Parser, data: bytes, offset: int) -> None:
        """Count values set to NULL, and report rejected records."""
        self._bad_rows.nulled_values += parser.nulled
        for start, size, field, reason in parser.skipped_records:
            line = self._line + data.count(b"\n", 0, start) if self._counts_lines else None
            fault = self._words(reason, field, None)
            raw = data[start : start + size]
            place = offset + start if self._is_utf8 else None  # else finding the offset is slow
            self._bad_rows.reject(self._source.name, line, place, fault, raw)

    def _bad(self, fault: RecordFault, data: bytes, offset: int) -> BadInput:
        place = offset + fault.offset
        line = (
            self._line + data.count(b"\n", 0, fault.offset)
            if self._counts_lines
            else line_at(self._source, place)
        )
        return BadInput(
            self._source.name,
            line=line,
            byte_offset=self._source.stored_offset(place),
            reason=self._words(fault.reason, fault.field, fault.text),
            hint=way_on(fault.reason, self._names),
        )

    def _words(self, reason: str, field: int, text: str | None) -> str:
        if reason == "ragged":
            return f"{field} fields, expected {len(self._names)}"
        name = self._names[field]
        if reason == "encoding":
            return f"column {name!r} is not UTF-8"
        if reason == "room":
            return "the record is too long"
        kind = next(column.type for column in self._schema if column.name == name)
        shown = "a value" if text is None else repr(text[:_SHOWN_LENGTH])
        return f"column {name!r} is {kind}, and {shown} is not"


def batch_over(columns: Columns, schema: pa.Schema, memory: Any) -> Any:
    """Return the kernel's columns as a batch that shares their memory and keeps it alive.

    Args:
        columns: the output of a parser.
        schema: their names and Arrow types, in order.
        memory: the Arrow buffer that the parser works in.
    """
    rows = len(columns)
    arrays = [
        _array(columns.addresses(at), rows, field.type, memory) for at, field in enumerate(schema)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(addresses: tuple[int, int, int, int, int], rows: int, kind: Any, memory: Any) -> Any:
    """Return one of the kernel's columns as an Arrow array that shares its memory."""
    _, offset, validity, values, ends = addresses
    if not rows:
        return pa.array([], kind)
    end = offset + rows
    buffers = [_part(memory, validity, (end + 7) // 8) if validity else None]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        ends_buffer = _part(memory, ends, 4 * (end + 1))
        size = int.from_bytes(memoryview(ends_buffer)[4 * end :], "little")
        return pa.Array.from_buffers(
            kind, rows, [*buffers, ends_buffer, _part(memory, values, size)], offset=offset
        )
    size = (end + 7) // 8 if pa.types.is_boolean(kind) else kind.bit_width // 8 * end
    return pa.Array.from_buffers(kind, rows, [*buffers, _part(memory, values, size)], offset=offset)


def _part(memory: Any, address: int, size: int) -> Any:
    start = address - memory.address if size else 0
    assert 0 <= start <= memory.size - size, "the kernel's columns are inside their memory"
    return memory.slice(start, size)
