"""JSON Lines at both ends of text plans: parse objects to CSV records, write records as objects."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial

from emsqrt._kernel import Columns, CsvFormatter, JsonlFormatter, JsonlParser, RecordFault
from emsqrt.execution_context import ExecutionContext
from emsqrt.io.json_lines import JsonlOptions, split_lines
from emsqrt.io.records import RecordBlock, RecordTooLong
from emsqrt.io.sources import ByteSource
from emsqrt.long_row import LongRow
from emsqrt.text_engine.buffers import FRONT_BYTES, buffer_bytes, new_buffer, write_blocks
from emsqrt.text_engine.scan import BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, RECORD_COPIES
from emsqrt.text_engine.text import STANDARD, Block, ColumnReader, TextRows
from sennit_core.errors import BadInput, SennitError, TooLarge
from sennit_core.schema import Field, Schema
from sennit_core.units import format_bytes

_COLUMN_BYTES = 1 << 10
"""Memory of parser and formatter for each column."""


class ScanJsonl:
    """Files of JSON objects, one per line, as records of some of their members.

    Args:
        sources: the files.
        options: among them the limit of a line's length.
        schema: the members that become fields, with their types; a missing member is NULL.
        run: the budget and cancellation.
    """

    def __init__(
        self,
        sources: Sequence[ByteSource],
        options: JsonlOptions,
        schema: Schema,
        run: ExecutionContext,
    ) -> None:
        self.schema = schema
        self.dialect = STANDARD
        self.rows = 0
        self._sources = sources
        self._options = options
        self._run = run
        room = buffer_bytes(run)
        self._block_bytes = max(BLOCK_BYTES_MIN, min(run.budget.free_bytes // 32, BLOCK_BYTES_MAX))
        self._rooms = room, room
        self._guard = run.admit(
            self._block_bytes + sum(self._rooms) + _COLUMN_BYTES * len(schema),
            "scan",
            f"files are read in blocks of {format_bytes(self._block_bytes)}",
        )
        self.bytes_total = sum(source.stored_bytes or 0 for source in sources)
        self.bytes_done = 0
        run.add_source(self)
        run.expect_rows(RECORD_COPIES, "free")

    def blocks(self) -> Generator[Block]:
        """Yield the objects of every file as CSV records."""
        types = [str(field.type) for field in self.schema]
        formatter = CsvFormatter(types)
        names = list(zip(self.schema.names, types, strict=True))
        parse_bytes, out_bytes = self._rooms
        parsed = 0
        with self._guard, new_buffer(out_bytes) as out, new_buffer(parse_bytes) as parse:
            parser = JsonlParser(parse[:FRONT_BYTES], names)
            # Two parsers over one buffer: the second one uses all of it, for an object longer than
            # the front.
            parser_of_long = JsonlParser(parse, names)
            for source in self._sources:
                for columns in self._columns(parser, parser_of_long, source):
                    parsed += len(columns)
                    yield from _formatted(formatter, columns, out)
                    # An operator that parses the records counts them; a sink does not.
                    self.rows = max(self.rows, parsed)
            del parser, parser_of_long

    def _columns(
        self, parser: JsonlParser, parser_of_long: JsonlParser, source: ByteSource
    ) -> Iterator[Columns]:
        before = self.bytes_done
        with source.open() as stream:
            for block in self._blocks_of(stream, source):
                self._run.check()
                self.bytes_done = before + stream.stored_bytes
                start = 0
                try:
                    while start < len(block.data):
                        try:
                            columns, start = parser.parse(block.data, start)
                        except RecordFault as fault:
                            if fault.reason != "room":
                                raise
                            # Only up to the end of this line: the lines after it use the front
                            # again.
                            line = block.data[: fault.offset + fault.size + 1]
                            columns, start = parser_of_long.parse(line, start)
                        yield columns
                        del columns
                except RecordFault as fault:
                    raise self._error(fault, source.name, block.offset) from None
                finally:
                    # The parsers refer to the block, whose memory is filled again next.
                    parser.release()
                    parser_of_long.release()

    def _blocks_of(self, stream: object, source: ByteSource) -> Iterator[RecordBlock]:
        """Yield blocks; refuse with a larger cap a line that is too long for this cap alone."""
        longest = self._options.record_bytes_max
        try:
            yield from split_lines(
                stream,  # type: ignore[arg-type]
                block_bytes=self._block_bytes,
                record_bytes_max=longest or self._longest(),
                what=source.name,
            )
        except RecordTooLong as error:
            if longest is not None or error.byte_offset is None:
                raise
            because = f"the line at byte {error.byte_offset} of {source.name} is longer than "
            row_bytes = (error.record_bytes or 2 * self._longest()) + 1
            raise LongRow.met(row_bytes, because + format_bytes(self._longest()), "read") from None

    def _longest(self) -> int:
        return max(self._block_bytes, self._run.reader_bytes // RECORD_COPIES)

    def _error(self, fault: RecordFault, source: str, offset: int) -> SennitError:
        byte_offset = offset + fault.offset
        if fault.reason == "room":
            return TooLarge(
                what=f"the line at byte {byte_offset} of {source}",
                limit_bytes=self._rooms[0],
                actual_bytes=fault.size,
            )
        if fault.reason == "syntax":
            reason = "not a JSON object"
        elif fault.reason == "encoding":
            reason = "this is not UTF-8"
        else:
            field = self.schema.fields[fault.field]
            reason = f"column {field.name!r} is {field.type}, and {fault.text} is not"
        return BadInput(source, byte_offset=byte_offset, reason=reason)


class WriteJsonl:
    """Records as JSON objects, one per line, for a JSON Lines file.

    Args:
        rows: the records.
        run: provides the budget.
    """

    def __init__(self, rows: TextRows, run: ExecutionContext) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.rows = 0
        self._rows = rows
        self._run = run
        room = buffer_bytes(run)
        self._rooms = room, room
        self._guard = run.admit(sum(self._rooms), "jsonl", "objects are written in blocks")

    def blocks(self) -> Generator[Block]:
        """Yield lines."""
        fields: Sequence[Field] = self.schema.fields
        formatter = JsonlFormatter([(field.name, str(field.type)) for field in fields])
        parse_bytes, out_bytes = self._rooms
        with self._guard, new_buffer(out_bytes) as out:
            parse = new_buffer(parse_bytes)
            reader = ColumnReader(self._rows, fields, parse, front_bytes=FRONT_BYTES)
            with closing(reader.batches()) as batches:
                for columns in batches:
                    self._run.check()
                    yield from _formatted(formatter, columns, out)


def _formatted(
    formatter: CsvFormatter | JsonlFormatter, columns: Columns, out: memoryview
) -> Generator[Block]:
    for start, end, size in write_blocks(partial(formatter.format, columns), len(columns), out):
        yield Block(out[:size], rows=end - start)
