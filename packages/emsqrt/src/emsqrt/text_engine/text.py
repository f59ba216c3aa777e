"""Blocks of CSV text, which text operators exchange, and readers of their columns."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from emsqrt._kernel import Columns, CsvParser, RecordFault, csv_record_end
from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.encodings import ENCODINGS, UTF8
from emsqrt.io.records import CsvDialect, way_on
from emsqrt.io.sources import line_at
from sennit_core.errors import BadInput, SennitError, TooLarge, Unsupported
from sennit_core.schema import Field, Schema

STANDARD = CsvDialect()
"""The engine's own output dialect: commas, double quotes, LF."""


@dataclass(slots=True)
class Block:
    """Whole records; `data` is valid until the next block is requested.

    Args:
        data: the records' bytes; only the last record of a stream may lack its line end.
        offset: of the first byte in `source`, -1 for text that an operator wrote.
        source: the file's name, for errors.
        rows: the number of records; 0 while they are not counted.
        encoding: of the source's file; `data` and `offset` refer to its text as UTF-8.
        stays: whether `data` is valid until the block after the next one is requested.
    """

    data: memoryview
    offset: int = -1
    source: str = ""
    rows: int = 0
    stays: bool = False
    encoding: str = "utf-8"


class TextRows(Protocol):
    """An operator over text. `blocks` is called once; closing it releases all memory.

    Args:
        schema: the columns, in the order of the fields; types are checked by the operators that use
            them.
        dialect: the dialect of the records.
        rows: how many of them the consumer has parsed.
    """

    schema: Schema
    dialect: CsvDialect
    rows: int

    def blocks(self) -> Generator[Block]:
        """Yield the rows."""


class ColumnReader:
    """Parses some columns of a text stream, a few thousand rows at once.

    Args:
        rows: the stream.
        fields: the columns to parse, with their types.
        memory: holds the columns; its size determines the rows of a batch.
        null_values: unquoted fields that are NULL.
        front_bytes: how much of it to use unless a record needs more; all when None.
    """

    def __init__(
        self,
        rows: TextRows,
        fields: Sequence[Field],
        memory: memoryview,
        null_values: Sequence[str] = ("",),
        front_bytes: int | None = None,
    ) -> None:
        self.place: tuple[str, int] | None = None
        """Source and byte offset of the start of the last yielded batch, if it has one."""
        self._rows = rows
        self._memory_bytes = len(memory)
        positions = {name: at for at, name in enumerate(rows.schema.names)}
        parser = partial(
            CsvParser,
            field_count=len(positions),
            columns=[(positions[field.name], str(field.type)) for field in fields],
            delimiter=rows.dialect.delimiter,
            quote=rows.dialect.quote,
            null_values=null_values,
        )
        # Both parse into the same memory; the second one uses all of it, for one long record.
        self._parser = parser(memory[:front_bytes])
        self._parser_of_long = parser(memory)

    def batches(self, begun: Iterator[Block] | None = None) -> Generator[Columns]:
        """Yield the columns of the stream's rows; each batch is valid until the next one.

        Args:
            begun: the stream's blocks if they were already requested.

        Raises:
            BadInput: a record does not fit the schema; names file, offset, column and value.
            TooLarge: one record's values alone do not fit the memory.
        """
        with nullcontext(begun) if begun is not None else closing(self._rows.blocks()) as blocks:
            for block in blocks:
                yield from self._parse(block)

    def close(self) -> None:
        """Release the memory."""
        del self._parser, self._parser_of_long

    def _parse(self, block: Block) -> Generator[Columns]:
        start = 0
        try:
            while start < len(block.data):
                # Before parsing, as an operator that resumes needs the start of the batch.
                self.place = (block.source, block.offset + start) if block.offset >= 0 else None
                columns, start = self._parsed(block.data, start)
                self._rows.rows += len(columns)
                yield columns
        except RecordFault as fault:
            raise fault_error(
                fault,
                self._rows.schema,
                block.source,
                block.offset,
                self._memory_bytes,
                block.encoding,
            ) from None
        finally:
            self._parser.release()
            self._parser_of_long.release()

    def _parsed(self, data: memoryview, start: int) -> tuple[Columns, int]:
        """Return the next rows and their end; a single row when it needs all the memory."""
        try:
            return self._parser.parse(data, start)
        except RecordFault as fault:
            # The file is wrong: more memory would not help.
            if fault.reason != "room":
                raise
            # One record at a time: the batch after it uses the front again.
            end = record_end(data, start, self._rows.dialect)
            return self._parser_of_long.parse(data[:end], start)


def record_end(data: memoryview, start: int, dialect: CsvDialect) -> int:
    """Return the end of the record that begins at `start`, its line end included."""
    quote = -1 if dialect.quote is None else ord(dialect.quote)
    return csv_record_end(data, start, len(data), ord(dialect.delimiter), quote) or len(data)


def fault_error(
    fault: RecordFault,
    schema: Schema,
    source: str,
    offset: int = -1,
    memory_bytes: int = 0,
    encoding: str = "utf-8",
) -> SennitError:
    """Return the error of a record that cannot be parsed, for the author of the file.

    Args:
        fault: what the parser found.
        schema: the columns of the records.
        source: the file's name, empty for the rows of an operator.
        offset: of the parsed block in the file, -1 for text that an operator wrote.
        memory_bytes: the limit of a record's values.
        encoding: of the file.
    """
    where = source or "the rows of an operator"
    byte_offset = offset + fault.offset if offset >= 0 else None
    line = None
    if byte_offset is not None:
        # Offsets are of the text as UTF-8; the file may have another encoding.
        line, byte_offset = _place_of(source, byte_offset, encoding)
    if fault.reason == "room":
        return TooLarge(
            what=f"the record at byte {byte_offset or fault.offset} of {where}",
            limit_bytes=memory_bytes,
            actual_bytes=fault.size,
        )
    if fault.reason == "ragged":
        reason = f"{fault.field} fields, expected {len(schema)}"
    elif fault.reason == "encoding":
        reason = f"column {schema.names[fault.field]!r} is not UTF-8"
    else:
        field = schema.fields[fault.field]
        reason = f"column {field.name!r} is {field.type}, and {fault.text!r} is not"
    hint = way_on(fault.reason, schema.names)
    return BadInput(where, line=line, byte_offset=byte_offset, reason=reason, hint=hint)


def _place_of(source: str, offset: int, encoding: str) -> tuple[int | None, int | None]:
    """Return the line and the byte in a file of a byte of its text.

    The line is None when it is not a plain local file, the byte when it cannot be determined.
    """
    path = Path(source)
    if not path.is_file():
        return None, offset if ENCODINGS[encoding.lower()] == UTF8 else None
    text = CsvOptions(encoding=encoding).decoded(path)
    return line_at(text, offset), text.stored_offset(offset)


class TextUnsupported(Unsupported):
    """A plan that only the arrow tier can run; its message says why."""

    code = "text-unsupported"
