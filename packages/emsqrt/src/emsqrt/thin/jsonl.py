"""JSON Lines at both ends of text plans: members to CSV records when read, objects when written."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from emsqrt._kernel import Columns, CsvFormatter, JsonlFormatter, JsonlParser, RecordFault
from emsqrt.io.json_lines import JsonlOptions, split_lines
from emsqrt.io.records import RecordBlock
from emsqrt.io.sources import ByteSource
from emsqrt.run import Run
from emsqrt.thin.scan import BLOCK_BYTES_MAX, BLOCK_BYTES_MIN
from emsqrt.thin.text import STANDARD, Block, ColumnReader, TextRows
from sennit_core.errors import BadInput, SennitError, TooLarge
from sennit_core.schema import Field, Schema
from sennit_core.units import format_bytes

PARSE_BYTES = 1 << 18
OUT_BYTES = 1 << 18
_COLUMN_BYTES = 1 << 10
"""What parser and formatter remember of a column."""


class ScanJsonl:
    """Files of JSON objects, one a line, as records of some of their members.

    Args:
        sources: the files.
        options: how long a line may be.
        schema: the members that become fields, with their types; one that a line lacks is NULL.
        run: the budget, and whether to go on.
    """

    def __init__(
        self, sources: Sequence[ByteSource], options: JsonlOptions, schema: Schema, run: Run
    ) -> None:
        self.schema = schema
        self.dialect = STANDARD
        self.rows = 0
        self._sources = sources
        self._options = options
        self._run = run
        room_bytes = run.budget.free_bytes // 32
        self._block_bytes = max(BLOCK_BYTES_MIN, min(room_bytes, BLOCK_BYTES_MAX))
        self._guard = run.admit(
            self._block_bytes + PARSE_BYTES + OUT_BYTES + _COLUMN_BYTES * len(schema),
            "scan",
            f"files are read in blocks of {format_bytes(self._block_bytes)}",
        )
        self.bytes_total = sum(source.stored_bytes or 0 for source in sources)
        self.bytes_done = 0
        run.reads(self)

    def blocks(self) -> Generator[Block]:
        """Yield the objects of every file as CSV records."""
        types = [str(field.type) for field in self.schema]
        formatter = CsvFormatter(types)
        names = list(zip(self.schema.names, types, strict=True))
        with self._guard, memoryview(bytearray(OUT_BYTES)) as out:
            parser = JsonlParser(memoryview(bytearray(PARSE_BYTES)), names)
            for source in self._sources:
                for columns in self._columns(parser, source):
                    yield from _written(formatter, columns, out)

    def _columns(self, parser: JsonlParser, source: ByteSource) -> Iterator[Columns]:
        before = self.bytes_done
        with source.open() as stream:
            for block in self._blocks_of(stream, source):
                self._run.check()
                self.bytes_done = before + stream.stored_bytes
                start = 0
                try:
                    while start < len(block.data):
                        columns, start = parser.parse(block.data, start)
                        yield columns
                        del columns
                except RecordFault as fault:
                    raise self._error(fault, source.name, block.offset) from None
                finally:
                    parser.release()

    def _blocks_of(self, stream: object, source: ByteSource) -> Iterator[RecordBlock]:
        """Yield blocks; a line that is too long for the cap alone is a matter of the cap."""
        longest = self._options.record_bytes_max
        try:
            yield from split_lines(
                stream,  # type: ignore[arg-type]
                block_bytes=self._block_bytes,
                record_bytes_max=longest or self._longest(),
                what=source.name,
            )
        except BadInput as error:
            if longest is not None or error.byte_offset is None:
                raise
            because = f"the line at byte {error.byte_offset} of {source.name} is longer than "
            raise self._run.too_small(
                self._run.budget.whole_bytes, because + format_bytes(self._longest())
            ) from None

    def _longest(self) -> int:
        return max(self._block_bytes, self._run.reader_bytes // 3)

    def _error(self, fault: RecordFault, source: str, offset: int) -> SennitError:
        byte_offset = offset + fault.offset
        if fault.reason == "room":
            return TooLarge(
                what=f"the line at byte {byte_offset} of {source}",
                limit_bytes=PARSE_BYTES,
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
    """Records as JSON objects, one a line: what a JSON Lines file is made of.

    Args:
        rows: the records.
        run: the budget.
    """

    def __init__(self, rows: TextRows, run: Run) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.rows = 0
        self._rows = rows
        self._run = run
        self._guard = run.admit(PARSE_BYTES + OUT_BYTES, "jsonl", "objects are written in blocks")

    def blocks(self) -> Generator[Block]:
        """Yield lines."""
        fields: Sequence[Field] = self.schema.fields
        formatter = JsonlFormatter([(field.name, str(field.type)) for field in fields])
        with self._guard, memoryview(bytearray(OUT_BYTES)) as out:
            reader = ColumnReader(self._rows, fields, memoryview(bytearray(PARSE_BYTES)))
            with closing(reader.batches()) as batches:
                for columns in batches:
                    self._run.check()
                    yield from _written(formatter, columns, out)


def _written(
    formatter: CsvFormatter | JsonlFormatter, columns: Columns, out: memoryview
) -> Generator[Block]:
    start = 0
    while start < len(columns):
        end, size = formatter.format(columns, start, out)
        if end == start:
            raise TooLarge(what="a row", limit_bytes=len(out), actual_bytes=2 * len(out))
        yield Block(out[:size], rows=end - start)
        start = end
