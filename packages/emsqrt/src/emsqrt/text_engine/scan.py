"""CSV files as blocks of whole records."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from emsqrt._kernel import RecordFault
from emsqrt.execution_context import ExecutionContext
from emsqrt.io.csv_inference import infer_columns
from emsqrt.io.csv_options import CsvOptions, first_record, parse_fields
from emsqrt.io.records import RecordBlock, RecordTooLong, last_record_end, split_records
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.long_row import LongRow
from emsqrt.memory import BudgetGuard
from emsqrt.text_engine.text import Block, TextUnsupported, fault_error
from sennit_core.errors import UsageError
from sennit_core.schema import DataType, Field, Schema
from sennit_core.units import format_bytes

BLOCK_BYTES_MAX = 1 << 20
BLOCK_BYTES_MIN = 1 << 16
RECORD_COPIES = 3
"""While a buffer grows, a record longer than a block exists twice, the second copy larger."""
_SAMPLE_BYTES = 1 << 20
_TRANSCODING_BYTES = 256 << 10
"""Memory for reading another encoding than UTF-8: a chunk before and after conversion."""
# The byte order mark of UTF-8.
_MARK = b"\xef\xbb\xbf"


class CsvHead:
    """The first bytes of a CSV file: its columns' names, and the start of its records.

    Args:
        source: the file.
        options: the format options.
        sample_bytes: how much of it to read.
    """

    def __init__(
        self, source: ByteSource, options: CsvOptions, sample_bytes: int = 1 << 16
    ) -> None:
        source = options.decoded(source)
        start = source.peek(sample_bytes)
        # A header longer than the first look.
        if len(start) == sample_bytes < _SAMPLE_BYTES and not _ends(start, options):
            start = source.peek(_SAMPLE_BYTES)
        self.start = len(_MARK) if start.startswith(_MARK) else 0
        body = start[self.start :]
        record = first_record(body, options)
        fields = parse_fields(record, options, source.name, self.start)
        self._start_bytes = start
        if options.header:
            self.start += len(record)
            self.names = tuple(fields)
        else:
            self.names = tuple(f"column{index}" for index in range(len(fields)))
        if len(set(self.names)) < len(self.names) or not fields:
            raise TextUnsupported("its header is not supported")

    def whole_records(self) -> memoryview:
        """Return the whole records within the sample, or all of the sample if there is none."""
        stop = self._start_bytes.rfind(b"\n") + 1
        records = memoryview(self._start_bytes)
        return records[self.start : stop] if stop > self.start else records[self.start :]


def infer_text_schema(source: ByteSource, options: CsvOptions) -> Schema:
    """Return the columns of a CSV file with types inferred from its first megabyte."""
    head = CsvHead(source, options, _SAMPLE_BYTES)
    try:
        return infer_columns(head.names, head.whole_records(), options)
    except RecordFault as fault:
        names = Schema(tuple(Field(name, DataType("Utf8")) for name in head.names))
        raise fault_error(
            fault, names, source.name, head.start, encoding=options.encoding
        ) from None


def _ends(start: bytes, options: CsvOptions) -> bool:
    """Return whether the first record ends within the first bytes of a file."""
    return last_record_end(start, len(start), options.dialect) > 0


class ScanText:
    """Files of one dialect and one header, one after the other.

    Args:
        sources: the files.
        options: the format options.
        schema: the columns of every file, in the order of its fields.
        run: the budget and cancellation.
    """

    def __init__(
        self,
        sources: Sequence[ByteSource],
        options: CsvOptions,
        schema: Schema,
        run: ExecutionContext,
    ) -> None:
        self.schema = schema
        self.dialect = options.dialect
        self._sources = [options.decoded(source) for source in sources]
        self._options = options
        self._run = run
        # One 32nd of what is free, from 64 KiB to 1 MiB.
        room_bytes = run.budget.free_bytes // 32
        block_bytes = max(BLOCK_BYTES_MIN, min(room_bytes, BLOCK_BYTES_MAX))
        self._block_bytes = block_bytes
        self._guard: BudgetGuard = run.admit(
            block_bytes + _TRANSCODING_BYTES * (self._sources != list(sources)),
            "scan",
            f"files are read in blocks of {format_bytes(block_bytes)}",
        )
        self.bytes_total = sum(source.stored_bytes or 0 for source in sources)
        self.bytes_done = 0
        self.bytes_skipped = 0
        """Bytes among those that an earlier run read."""
        self._begin = 0, 0
        self.position = "", 0
        """(file, byte offset) of the last yielded block."""
        self.rows = 0
        run.add_source(self)
        run.expect_rows(RECORD_COPIES, "free")

    def start_at(self, name: str, offset: int) -> bool:
        """Begin at a record of one of the files; return False when the file's name is ambiguous."""
        names = [source.name for source in self._sources]
        # The same file may be scanned twice; its name does not say which time is meant.
        if names.count(name) != 1:
            return False
        self._begin = names.index(name), offset
        return True

    def blocks(self) -> Generator[Block]:
        """Yield the records of every file, without headers."""
        longest = self._options.record_bytes_max or self._longest()
        # Only the first file begins in the middle.
        first, offset = self._begin
        try:
            for source in self._sources[first:]:
                yield from self._blocks_of(source, longest, offset)
                offset = 0
        finally:
            self._guard.release()

    def _blocks_of(self, source: ByteSource, longest: int, offset: int) -> Generator[Block]:
        encoding = self._options.encoding
        # Without a head: a record that a run resumes at is after it.
        start = offset or CsvHead(source, self._options).start
        before = self.bytes_done
        with source.open() as stream:
            stream.skip(start)
            if offset and source.path is not None and not source.need_bytes:
                self.bytes_skipped += offset  # a seek; a compressed file is read all the same
            blocks = split_records(
                stream,
                self.dialect,
                block_bytes=self._block_bytes,
                record_bytes_max=longest,
                offset=start,
                what=source.name,
            )
            for block in self._refusing(blocks, source):
                self._run.check()
                self.bytes_done = before + stream.stored_bytes
                self.position = source.name, block.offset
                yield Block(block.data, block.offset, source.name, encoding=encoding)

    def _refusing(self, blocks: Iterator[RecordBlock], source: ByteSource) -> Iterator[RecordBlock]:
        """Yield blocks; refuse with a larger cap a record that is too long for this cap alone."""
        try:
            yield from blocks
        except RecordTooLong as error:
            if self._options.record_bytes_max is not None or error.byte_offset is None:
                raise
            because = f"the record at byte {error.byte_offset} of {source.name} is longer than "
            because += f"{format_bytes(self._longest())}, or a quote in it is never closed"
            row_bytes = (error.record_bytes or 2 * self._longest()) + 1
            raise LongRow.met(row_bytes, because, "read") from None

    def _longest(self) -> int:
        """Return the length of the longest record that fits."""
        return max(self._block_bytes, self._run.reader_bytes // RECORD_COPIES)


def open_sources(paths: Sequence[str], folder: Path) -> list[ByteSource]:
    """Open the files of a plan's scan: paths, globs, `-`."""
    from emsqrt.io.locations import expand_locations

    places = expand_locations(paths, folder)
    if not places:
        raise UsageError("the scan has no file")
    return [open_source(place) for place in places]
