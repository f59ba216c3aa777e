"""Encode CSV text as typed shards, widening columns as needed.

One pass over the file writes every shard with the kinds known so far. When a value does not fit its
column's kind, the column is widened *from that block on* and the pass continues, so that it finds
all such values. Shards written before the last widening then have narrower types than the dataset;
they are always at the beginning of the file, and only that range is read and written again with the
final kinds. Memory is limited to one block and one row group, and a file is read a few times at
most (in theory four: null, integer, float, text), almost always once. See
`design/0051-widening.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import csv

from emsqrt.io.records import CsvDialect, record_ends
from lake.ingest.background_writer import Writer
from lake.ingest.column_match import ColumnMatch
from lake.ingest.columns import (
    KINDS,
    first_misfit,
    infer_kind,
    kind_of_type,
    misfits,
    mostly,
    read_column,
    wider_kind,
)
from lake.ingest.direct import DirectReader
from lake.ingest.rejects import Rejects
from lake.ingest.shards import Shard
from lake.ingest.source import TextBlock, TextSource
from sennit_core.errors import BadInput
from sennit_core.schema import DataType

__all__ = ["CsvEncoder", "Report"]

MENDED = "from here on, bytes that are not UTF-8 were read as cp1252"
_SHOWN_VALUE = 80
_SHOWN_ENTRIES = 100


@dataclass
class Report:
    """Findings and automatic changes of an ingest; shown with the dataset.

    Args:
        widened: Columns that were widened: `column line value from to`.
        renamed: Columns whose name was empty or a duplicate: `column from to`.
        notes: Other messages: `column` (or None), `line` (or None), `note`.
        columns: How sure the inferred types are: `column type sampled`, and for text that is mostly
            of another type `mostly fits`, the share of its values.
        rejected: Number of rows that were left out.
    """

    widened: list[dict[str, Any]] = field(default_factory=list)
    renamed: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    rejected: int = 0

    def note(self, text: str, *, column: str | None = None, line: int | None = None) -> None:
        """Add a message."""
        self.notes.append({"column": column, "line": line, "note": text})

    def note_missing(self, columns: Iterable[str], defaults: Container[str] = ()) -> None:
        """Add a message for each column of the dataset that an appended file does not have."""
        for column in columns:
            value = "its default" if column in defaults else "NULL"
            self.note(f"the file does not have it: {value}", column=column)

    def to_json(self) -> dict[str, Any]:
        """Return the report for the snapshot's manifest, of limited size.

        It has the first entries of each list; `omitted` has the number of further entries.
        """
        lists = {"widened": self.widened, "renamed": self.renamed, "notes": self.notes}
        if self.columns:
            lists["columns"] = self.columns
        shown: dict[str, Any] = {name: found[:_SHOWN_ENTRIES] for name, found in lists.items()}
        more = {name: len(found) - _SHOWN_ENTRIES for name, found in lists.items()}
        omitted = {name: count for name, count in more.items() if count > 0}
        shown |= {"rejected": self.rejected} if self.rejected else {}
        return shown | ({"omitted": omitted} if omitted else {})


class CsvEncoder:
    """Encodes one CSV file.

    Args:
        source: Where the text comes from.
        names: The column names.
        what: The file's name, for errors.
        strict: Refuse a value that does not fit its column's kind instead of widening the column.
        date_order: `dmy` or `mdy`, or None.
        report: Receives the findings.
        tick: Called after each block with its (source bytes, rows).
        types: Types of some columns, by name; their kinds are chosen for these, and not widened.
        rejects: Receives the rows that do not fit, which are left out; None refuses them.
    """

    def __init__(  # noqa: PLR0913 - created in one place
        self,
        source: TextSource,
        names: list[str],
        *,
        what: str,
        strict: bool = False,
        date_order: str | None = None,
        report: Report | None = None,
        tick: Callable[[int, int], None] = lambda _bytes, _rows: None,
        types: dict[str, pa.DataType] | None = None,
        rejects: Rejects | None = None,
    ) -> None:
        self.report = report or Report()
        # None until the first block is inferred; then one kind a column, which only ever becomes
        # wider (unless `_fixed`, when none may change).
        self.kinds: list[str] | None = None
        self._source = source
        self._names = names
        self._what = what
        self._strict = strict
        self._date_order = date_order
        self._tick = tick
        self._fixed = False
        self._match: ColumnMatch | None = None
        self._types = types or {}
        self._rejects = rejects
        # Whether the note about bytes that are not UTF-8 was added; once is enough.
        self._mended = False
        self._direct = DirectReader(names, source.dialect.delimiter)

    def append_to(self, match: ColumnMatch) -> None:
        """Encode as the columns of a dataset, whose types `types` has; refuse values that do not fit."""
        self._match = match
        self._fixed = True

    def encode(
        self, start: int, stop: int, line: int, new_writer: Callable[[], Writer]
    ) -> list[Shard]:
        """Encode the source range [start, stop), whose first record is on `line`.

        Args:
            start: Byte offset of the first record.
            stop: End of the range.
            line: Line number of the first record.
            new_writer: Opens a writer for one pass.

        Raises:
            BadInput: A record has too many or too few fields, or (strict) a value does not fit its
                column's type.
        """
        shards = self._one_pass(start, stop, line, new_writer())
        # Again if the repeated reading widened a column further: a wider kind may refuse an old
        # value, as a float cannot hold an integer of 17 digits. A column can only be widened a few
        # times, so this ends.
        while stale := self._stale(shards):
            first, last = shards[0], shards[stale - 1]
            for shard in shards[:stale]:
                shard.path.unlink()
            assert first.start is not None
            assert last.stop is not None
            redone = self._one_pass(first.start, last.stop, first.line, new_writer())
            shards = redone + shards[stale:]
        rows = 0
        for shard in shards:
            shard.first_row = rows
            rows += shard.rows
        return shards

    def encode_block(self, block: TextBlock) -> pa.RecordBatch:
        """Return a block's rows, without writing them; the first block's infer the kinds."""
        return self._batch(block)

    @property
    def schema(self) -> pa.Schema:
        """The columns with the current kinds; those of the dataset for an append."""
        if self._match is not None:
            return self._match.nullable_schema
        assert self.kinds is not None
        types = [KINDS[kind].type for kind in self.kinds]
        return pa.schema([pa.field(n, t) for n, t in zip(self._names, types, strict=True)])

    def _stale(self, shards: list[Shard]) -> int:
        """Return the number of shards up to and including the last one with narrower types."""
        # Up to the last narrow shard, even if one before it is not: a pass reads one contiguous
        # range.
        narrow = [i for i, shard in enumerate(shards) if not shard.schema.equals(self.schema)]
        return narrow[-1] + 1 if narrow else 0

    def _one_pass(self, start: int, stop: int, line: int, writer: Writer) -> list[Shard]:
        try:
            for block in self._source.blocks(start, stop, line):
                batch = self._batch(block)
                if batch.num_rows:
                    writer.write(batch, start=block.start, stop=block.stop, line=block.line)
                self._tick(block.stop - block.start, batch.num_rows)
            if self.kinds is None:
                self.kinds = ["text"] * len(self._names)
            if not writer.shards:
                self._write_nothing(writer, start, stop, line)
            writer.cut()
        finally:
            writer.discard()
        return writer.shards

    def _write_nothing(self, writer: Writer, start: int, stop: int, line: int) -> None:
        """Write an empty shard, so that readers of a dataset without rows find its columns."""
        empty = pa.RecordBatch.from_pylist([], schema=self.schema)
        writer.write(empty, start=start, stop=stop, line=line)

    def _batch(self, block: TextBlock) -> pa.RecordBatch:
        if block.mended and not self._mended:
            self._mended = True
            self.report.note(MENDED, line=block.line)
        # The fast parser first. It answers None for malformed records, for which Arrow's parser has
        # the better error, and text for a column with forms that it does not know.
        known = None if self.kinds is None else self._direct.read(block.data, self.kinds)
        ragged: list[int] = []
        read = self._texts(block, ragged) if known is None else known
        if self.kinds is None:
            self.kinds = self._infer(read)
        if self._rejects is not None:
            read = self._fitting(read, block, ragged, typed=known is not None)
        columns = [
            column
            if known is not None and self._direct.is_typed(index, self.kinds[index])
            else self._typed(index, column, block)
            for index, column in enumerate(read.columns)
        ]
        if self._match is not None:
            columns = self._match.arranged(columns, read.num_rows)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _infer(self, texts: pa.RecordBatch) -> list[str]:
        kinds = []
        for name, text in zip(self._names, texts.columns, strict=True):
            if name in self._types:
                kinds.append(self._declared(name, text))
                continue
            guess = infer_kind(text, date_order=self._date_order)
            kinds.append(guess.kind)
            self.report.columns.append(_confidence(name, guess.kind, text))
            if guess.note:
                self.report.note(f"kept as text: {guess.note}", column=name)
        return kinds

    def _declared(self, name: str, text: pa.StringArray) -> str:
        found = kind_of_type(self._types[name], text, date_order=self._date_order)
        if found.note is not None:
            value = text.drop_null()[0].as_py()
            raise BadInput(
                what=self._what,
                reason=f"column {name!r}: {found.note}, as {value[:_SHOWN_VALUE]!r}",
                hint="say which: --date-order dmy or mdy (dateOrder); or write numbers like 1234.5",
            )
        return found.kind

    def _typed(self, index: int, text: pa.StringArray, block: TextBlock) -> pa.Array:
        assert self.kinds is not None
        kind = self.kinds[index]
        values = read_column(kind, text)
        # Each step is to a wider kind, and text reads everything, so this ends.
        while values is None:
            wider = wider_kind(kind, text, date_order=self._date_order)
            self._widened(index, kind, wider, text, block)
            kind = self.kinds[index] = wider
            values = read_column(kind, text)
        return values

    def _widened(
        self, index: int, kind: str, wider: str, text: pa.StringArray, block: TextBlock
    ) -> None:
        row = first_misfit(kind, text)
        value = text[row].as_py()
        if kind == "null":
            return  # the first values of a column are not a widening
        line, offset = self._locate(block, row)
        name = self._names[index]
        old, new = (str(DataType.from_arrow(KINDS[each].type)) for each in (kind, wider))
        if self._is_exact(index):
            raise BadInput(
                what=self._what,
                line=line,
                byte_offset=offset,
                reason=f"column {name!r} is {old} so far, and {value[:_SHOWN_VALUE]!r} is not",
                hint="without strict, the column would be widened"
                if self._strict and not self._fixed
                else "onBadRow=skip leaves such rows out",
            )
        self.report.widened.append(
            {
                "column": name,
                "line": line,
                "value": value[:_SHOWN_VALUE],
                "from": old,
                "to": new,
            }
        )

    def _is_exact(self, index: int) -> bool:
        """Whether a column may not be widened."""
        return self._strict or self._fixed or self._names[index] in self._types

    def _fitting(
        self, read: pa.RecordBatch, block: TextBlock, ragged: list[int], *, typed: bool
    ) -> pa.RecordBatch:
        """Reject the rows of which a value does not fit a column that may not be widened."""
        assert self.kinds is not None
        assert self._rejects is not None
        bad: dict[int, str] = {}
        for index, (kind, text) in enumerate(zip(self.kinds, read.columns, strict=True)):
            if self._is_exact(index) and not (typed and self._direct.is_typed(index, kind)):
                name, kept = self._names[index], DataType.from_arrow(KINDS[kind].type)
                for row in misfits(kind, text):
                    value = str(text[row])[:_SHOWN_VALUE]
                    bad.setdefault(row, f"column {name!r} is {kept}, and {value!r} is not")
        if not bad:
            return read
        # `ragged` has rows of the block, `bad` rows of those that were read: without the ragged ones.
        skipped = set(ragged)
        present = [row for row in range(read.num_rows + len(ragged)) if row not in skipped]
        self._reject(block, {present[row]: reason for row, reason in bad.items()})
        return read.filter(pa.array([row not in bad for row in range(read.num_rows)]))

    def _reject(self, block: TextBlock, reasons: dict[int, str]) -> None:
        """Add records of a block, by their number in it, to the rejects."""
        assert self._rejects is not None
        line, start = block.line, block.start
        last = max(reasons)
        for row, record in enumerate(self._records(block)):
            before, text = record
            line += before.count(self._source.line_end)
            start += self._source.length(before)
            if row in reasons:
                self._rejects.add(line, start, text.decode().rstrip("\r\n"), reasons[row])
            if row == last:
                return
            line += text.count(self._source.line_end)
            start += self._source.length(text)

    def _records(self, block: TextBlock) -> Iterator[tuple[bytes, bytes]]:
        """Yield each record that the parser reads, and the blank lines before it."""
        blank = len(self._names) > 1
        data, start, begin = block.data, 0, 0
        for end in (*record_ends(data, len(data), self._source.dialect), len(data)):
            if end > start and (not blank or data[start:end].strip(b"\r\n")):
                yield data[begin:start], data[start:end]
                begin = end
            start = end

    def _texts(self, block: TextBlock, skipped: list[int]) -> pa.RecordBatch:
        """Return the block's columns as text; `skipped` receives the numbers of rejected records."""
        ragged: list[Any] = []

        # The handler receives the row's number and its field count, which the error has only as
        # text.
        def meet(row: Any) -> str:
            ragged.append(row)
            return "error" if self._rejects is None else "skip"

        try:
            table = _read_texts(block.data, self._names, self._source.dialect, meet)
        except pa.ArrowInvalid as error:
            if not ragged:
                raise BadInput(what=self._what, line=block.line, reason=str(error)) from error
            raise self._ragged(block, ragged[0]) from None
        if ragged:
            reasons = {row.number - 1: _raggedness(row) for row in ragged}
            skipped += sorted(reasons)
            self._reject(block, reasons)
        batches = table.combine_chunks().to_batches()
        if batches:
            return batches[0]
        return pa.RecordBatch.from_pylist([], schema=table.schema)

    def _ragged(self, block: TextBlock, row: Any) -> BadInput:
        line, offset = self._locate(block, row.number - 1)
        return BadInput(
            what=self._what,
            line=line,
            byte_offset=offset,
            reason=_raggedness(row),
            hint="quote fields that contain the delimiter, or set another delimiter",
        )

    def _locate(self, block: TextBlock, row: int) -> tuple[int, int]:
        """Return line and source offset of the block's record `row`; slow, only for reports."""
        blank = len(self._names) > 1  # the parser skips blank lines if there are several columns
        data = block.data
        start, seen = 0, 0
        for end in (*record_ends(data, len(data), self._source.dialect), len(data)):
            if not blank or data[start:end].strip(b"\r\n"):
                if seen == row:
                    break
                seen += 1
            start = end
        before = data[:start]
        line = block.line + before.count(self._source.line_end)
        return line, block.start + self._source.length(before)


def _raggedness(row: Any) -> str:
    return f"this record has {row.actual_columns} fields, the header {row.expected_columns}"


def _confidence(name: str, kind: str, text: pa.StringArray) -> dict[str, Any]:
    """Return how many values a column's type was inferred from, and whether text is mostly typed."""
    sampled = len(text) - text.null_count
    shown: dict[str, Any] = {"column": name, "sampled": sampled}
    shown["type"] = str(DataType.from_arrow(KINDS[kind].type))
    if kind == "text" and (found := mostly(text)):
        shown |= {"mostly": str(DataType.from_arrow(KINDS[found[0]].type)), "fits": found[1]}
    return shown


def _read_texts(
    data: bytes, names: list[str], dialect: CsvDialect, meet: Callable[[Any], str]
) -> pa.Table:
    with pa.BufferReader(data) as source:
        return csv.read_csv(
            source,
            # One thread: the rows that `meet` receives have no numbers if blocks are parsed in
            # parallel.
            read_options=csv.ReadOptions(
                use_threads=False, block_size=len(data) + 1, column_names=names
            ),
            parse_options=csv.ParseOptions(
                delimiter=dialect.delimiter,
                newlines_in_values=True,
                # In a table of one column, an empty line is a record: its value is NULL.
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=meet,
            ),
            convert_options=csv.ConvertOptions(
                column_types=pa.schema([pa.field(name, pa.string()) for name in names]),
                # Only an empty field is NULL here; the words for NULL are left to the columns'
                # kinds, because in a text column they may be values. "" in quotes is empty text.
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                # The block was checked, and mended where necessary, when it was read.
                check_utf8=False,
            ),
        )
