"""CSV files as blocks of whole records."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from emsqrt.io.csv_inference import infer_columns
from emsqrt.io.csv_options import CsvOptions, first_record, parse_fields
from emsqrt.io.records import split_records
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard
from emsqrt.run import Run
from emsqrt.thin.text import Block, NotThin
from sennit_core.errors import UsageError
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

BLOCK_BYTES_MAX = 1 << 20
BLOCK_BYTES_MIN = 1 << 16
_SAMPLE_BYTES = 1 << 20
_MARK = b"\xef\xbb\xbf"


class CsvHead:
    """The first bytes of a CSV file: its columns' names, and where its records begin.

    Args:
        source: the file.
        options: how it is written.
        sample_bytes: how much of it to look at.
    """

    def __init__(
        self, source: ByteSource, options: CsvOptions, sample_bytes: int = 1 << 16
    ) -> None:
        start = source.peek(sample_bytes)
        self.start = len(_MARK) if start.startswith(_MARK) else 0
        body = start[self.start :]
        record = first_record(body, options)
        fields = parse_fields(record, options, source.name, self.start)
        self.sample = body
        if options.header:
            self.start += len(record)
            self.sample = body[len(record) :]
            self.names = tuple(fields)
        else:
            self.names = tuple(f"column{index}" for index in range(len(fields)))
        if len(set(self.names)) < len(self.names) or not fields:
            raise NotThin("its header is odd")


def infer_text_schema(source: ByteSource, options: CsvOptions) -> Schema:
    """Return the columns of a CSV file with the types that its first megabyte suggests."""
    head = CsvHead(source, options, _SAMPLE_BYTES)
    whole = head.sample[: head.sample.rfind(b"\n") + 1] or head.sample
    return infer_columns(head.names, whole, options)


class ScanText:
    """Files of one dialect and one header, one after the other.

    Args:
        sources: the files.
        options: how they are written.
        schema: the columns of every file, in the order of its fields.
        run: the budget, and whether to go on.
        block_bytes: how much is read at once; a longer record makes it grow.
    """

    def __init__(
        self,
        sources: Sequence[ByteSource],
        options: CsvOptions,
        schema: Schema,
        run: Run,
        block_bytes: int = BLOCK_BYTES_MAX,
    ) -> None:
        self.schema = schema
        self.dialect = options.dialect
        self._sources = sources
        self._options = options
        self._run = run
        self._block_bytes = block_bytes
        self._guard: BudgetGuard = run.budget.admit(
            block_bytes, "scan", f"files are read in blocks of {format_bytes(block_bytes)}"
        )
        self.bytes_total = sum(source.stored_bytes or 0 for source in sources)
        self.bytes_done = 0
        self.rows = 0
        run.reads(self)

    def blocks(self) -> Generator[Block]:
        """Yield the records of every file, headers left out."""
        longest = self._options.record_bytes_max or self._longest()
        try:
            for source in self._sources:
                yield from self._blocks_of(source, longest)
        finally:
            self._guard.release()

    def _blocks_of(self, source: ByteSource, longest: int) -> Generator[Block]:
        head = CsvHead(source, self._options)
        before = self.bytes_done
        with source.open() as stream:
            stream.skip(head.start)
            for block in split_records(
                stream,
                self.dialect,
                block_bytes=self._block_bytes,
                record_bytes_max=longest,
                offset=head.start,
                what=source.name,
            ):
                self._run.check()
                self.bytes_done = before + stream.stored_bytes
                yield Block(block.data, block.offset, source.name)

    def _longest(self) -> int:
        """Return the longest record that what is free now can hold beside what works on it."""
        return max(self._block_bytes, self._run.budget.free_bytes // 4)


def open_sources(paths: Sequence[str], folder: Path) -> list[ByteSource]:
    """Open what a plan's scan names: files, globs, `-`."""
    from emsqrt.io.places import expand_places

    places = expand_places(paths, folder)
    if not places:
        raise UsageError("the scan names no file")
    return [open_source(place) for place in places]
