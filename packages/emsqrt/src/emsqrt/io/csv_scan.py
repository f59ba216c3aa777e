"""CSV to Arrow, one bounded block at a time.

`pyarrow.csv.open_csv` reads ahead without a bound, so blocks are cut here (`emsqrt.io.records`)
and each goes through `pyarrow.csv.read_csv` with explicit column types. A value that does not fit
its type is found again with the standard library's reader, for its line and byte offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.io.bad_rows import BadRows
from emsqrt.io.csv_options import (
    CsvOptions,
    first_block,
    first_record,
    parse_fields,
    read_header,
)
from emsqrt.io.records import RecordBlock, record_ends, split_records
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput, UnknownColumn
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES_MAX = 1 << 20
BLOCK_BYTES_MIN = 1 << 16
_BLOCK_COPIES = 5
"""Raw block, the parser's copy, built columns and slack: measured as a multiple of the block."""
_RECORD_BYTES_MAX = 64 << 20
_SAMPLE_BYTES = 1 << 20
_LINES_BYTES = 1 << 18
_INVALID_VALUE = re.compile(r"In CSV column #(\d+): .*invalid value '(.*)'", re.DOTALL)


class CsvParser:
    """Turns blocks of whole records into record batches.

    Args:
        names: the file's columns, in order.
        schema: the wanted columns, in order, with their types.
        options: how the file is written.
        source: the file, for errors.
    """

    def __init__(
        self, names: Sequence[str], schema: Schema, options: CsvOptions, source: ByteSource
    ) -> None:
        for name in schema.names:
            if name not in names:
                raise UnknownColumn(name=name, known=tuple(names))
        self._names = list(names)
        self._options = options
        self._source = source
        self.arrow_schema: pa.Schema = schema.to_arrow()
        self._wanted = {"column_types": self.arrow_schema, "include_columns": list(schema.names)}

    def parse(self, block: RecordBlock) -> pa.RecordBatch:
        """Return the block's rows as one batch.

        Raises:
            BadInput: a record is ragged, or a value is not of its column's type; says where.
        """
        import pyarrow as pa

        try:
            table = _read_table(block.data, self._names, self._options, self._wanted)
        except pa.ArrowInvalid as error:
            complaint = str(error)
        else:
            return _one_batch(table, self.arrow_schema)
        raise self._locate(bytes(block.data), block.offset, complaint)

    def _locate(self, data: bytes, offset: int, complaint: str) -> BadInput:
        """Find the record that pyarrow complained about; slow, and only on the way to an error."""
        invalid = _INVALID_VALUE.search(complaint)
        start = 0
        for end in (*record_ends(data, len(data), self._options.dialect), len(data)):
            if start == end:
                continue
            place = offset + start
            fields = parse_fields(data[start:end], self._options, self._source.name, place)
            reason = self._fault(fields, invalid)
            if reason is not None:
                return self._bad(place, reason)
            start = end
        return self._bad(offset, complaint)

    def _fault(self, fields: list[str], invalid: re.Match[str] | None) -> str | None:
        if fields and len(fields) != len(self._names):
            return f"{len(fields)} fields, expected {len(self._names)}"
        if invalid is None or int(invalid[1]) >= len(fields):
            return None
        index, value = int(invalid[1]), invalid[2]
        if fields[index].strip() != value.strip():
            return None
        kind = self.arrow_schema.field(self._names[index]).type
        return f"column {self._names[index]!r} is {kind}, and {value[:80]!r} is not"

    def _bad(self, byte_offset: int, reason: str) -> BadInput:
        return BadInput(
            self._source.name,
            line=line_at(self._source, byte_offset),
            byte_offset=byte_offset,
            reason=reason,
        )


class CsvScan:
    """Reads one CSV file; `bytes_done` moves while it is iterated.

    Args:
        source: the file.
        schema: the wanted columns, in order, with their types.
        options: how the file is written.
        budget: asked for the block and what is made of it.
        block_bytes: read this much at a time; None takes what suits the budget.
        bad_rows: takes what breaks the schema.
    """

    def __init__(
        self,
        source: ByteSource | Path,
        schema: Schema,
        options: CsvOptions,
        budget: MemoryBudget,
        block_bytes: int | None = None,
        *,
        bad_rows: BadRows | None = None,
    ) -> None:
        source = open_source(source) if isinstance(source, Path) else source
        self._source, self._options, self._budget = source, options, budget
        self._bad_rows = bad_rows or BadRows()
        self._block_bytes = block_bytes or block_bytes_for(budget)
        names, self._start = read_header(source, options)
        self._parser = CsvParser(names, schema, options, source)
        self.need_bytes = self._block_bytes * _BLOCK_COPIES + source.need_bytes
        self.need_because = need_because(source, self._block_bytes)
        self.bytes_done = 0

    def batches(self, guard: BudgetGuard) -> Iterator[pa.RecordBatch]:
        """Yield a batch for each block; `guard` holds `need_bytes` and grows for a long record."""
        longest = self._options.record_bytes_max or min(
            _RECORD_BYTES_MAX, max(self._block_bytes, self._budget.free_bytes // _BLOCK_COPIES)
        )
        with self._source.open() as stream:
            stream.skip(self._start)
            self.bytes_done = stream.stored_bytes
            blocks = split_records(
                stream,
                self._options.dialect,
                block_bytes=self._block_bytes,
                record_bytes_max=longest,
                offset=self._start,
                what=self._source.name,
            )
            for block in blocks:
                guard.resize(max(self.need_bytes, len(block.data) * _BLOCK_COPIES))
                batch = self._parser.parse(block)
                self.bytes_done = stream.stored_bytes
                del block
                yield batch


def block_bytes_for(budget: MemoryBudget) -> int:
    """Return the block size that uses about a quarter of what the budget has free."""
    wanted = budget.free_bytes // (4 * _BLOCK_COPIES)
    return max(BLOCK_BYTES_MIN, min(wanted, BLOCK_BYTES_MAX))


def need_because(source: ByteSource, block_bytes: int) -> str:
    """Say in words what reading a text file needs memory for."""
    packed = f" of {source.codec}, whose window is its own," if source.codec else ""
    return f"{source.name}{packed} is read in blocks of {format_bytes(block_bytes)}"


def infer_csv_schema(source: ByteSource | Path, options: CsvOptions) -> Schema:
    """Return the columns with the types that the first megabyte suggests; all may be NULL.

    A column without any value there is Utf8. Later rows that break a type are `BadInput`; give
    the schema to say better.
    """
    import pyarrow as pa

    source = open_source(source) if isinstance(source, Path) else source
    names, start = read_header(source, options)
    data, _ = first_block(source, options, _SAMPLE_BYTES)
    if options.header:
        data = data[len(first_record(data, options)) :]
    text = pa.schema([pa.field(name, pa.string()) for name in names])
    if not data.strip():
        return Schema.from_arrow(text)
    try:
        table = _read_table(memoryview(data), list(names), options, {})
    except pa.ArrowInvalid:
        CsvParser(names, Schema.from_arrow(text), options, source).parse(
            RecordBlock(start, memoryview(data))
        )
        raise
    return Schema.from_arrow(pa.schema([_inferred(field) for field in table.schema]))


def _inferred(field: Any) -> Any:
    import pyarrow as pa

    return field.with_type(pa.string()) if pa.types.is_null(field.type) else field


def _read_table(
    data: memoryview, names: list[str], options: CsvOptions, wanted: dict[str, Any]
) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    with pa.BufferReader(pa.py_buffer(data)) as source:
        return csv.read_csv(
            source,
            read_options=csv.ReadOptions(
                use_threads=False, block_size=len(data) + 1, column_names=names
            ),
            parse_options=csv.ParseOptions(
                delimiter=options.delimiter,
                quote_char=options.quote or False,
                double_quote=options.quote is not None,
                newlines_in_values=options.quote is not None,
                ignore_empty_lines=len(names) > 1,
            ),
            convert_options=csv.ConvertOptions(
                null_values=list(options.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                **wanted,
            ),
        )


def _one_batch(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)


def line_at(source: ByteSource, end: int) -> int | None:
    """Return the line that a byte offset is in, counted from 1; None when nobody can look again."""
    if not source.can_reopen:
        return None
    line, buffer = 1, bytearray(_LINES_BYTES)
    with source.open() as stream, memoryview(buffer) as view:
        while end > 0 and (count := stream.readinto(view[: min(end, _LINES_BYTES)])):
            line += buffer.count(b"\n", 0, count)
            end -= count
    return line
