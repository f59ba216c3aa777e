"""The memory needed to read each row group of a Parquet file, from one walk over its page headers.

Nothing here depends on the budget: a plan is opened repeatedly until a cap for it is found, and the
file is walked only once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emsqrt.io.parquet_chunks import ChunkTable
from emsqrt.io.parquet_coded import COUNT_MAX, SMALL_BYTES, Dictionary, text_columns
from emsqrt.io.parquet_footer import Footer
from emsqrt.io.parquet_pages import ChunkPages, value_widths, walk_chunks
from emsqrt.io.parquet_rows import TextSizes, row_bytes
from emsqrt.io.sources import ByteSource
from sennit_core.errors import BadInput

_READ_BYTES = 1 << 16
_FAR_READ_BYTES = 1 << 19
_CODED_COPIES = 3
"""Copies of a text dictionary: two in the reader that collects it, one in a batch."""
_COLUMN_BYTES = 64 << 10
"""A column's decoder and the rounding of allocators: measured."""
_GROUP_BYTES = 1 << 9
"""Memory of each row group in addition to its column chunks."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group.

    Args:
        index: its number in the file.
        row_count: its rows.
        held_bytes: memory that a reader holds for all columns to read together.
        passing_bytes: memory that it needs in addition for one column at a time.
        row_bytes: the mean decoded bytes of a row.
        longest_bytes: a bound on the dictionary-encoded texts of one row.
        sure_text_bytes: some text has at least half of these bytes.
        chunks: its columns to read.
    """

    index: int
    row_count: int
    held_bytes: int
    passing_bytes: int
    row_bytes: int
    longest_bytes: int
    sure_text_bytes: int
    chunks: Sequence[ChunkPages]

    @property
    def sum_bytes(self) -> int:
        """The memory of a reader that reads all columns together."""
        return self.held_bytes + self.passing_bytes

    def coded(self, columns: Collection[str]) -> RowGroup:
        """Return the row group for a reader that keeps the dictionaries of these columns."""
        if not columns:
            return self
        sizes = (chunk.dictionary_bytes for chunk in self.chunks if chunk.column in columns)
        return replace(self, passing_bytes=self.passing_bytes + _CODED_COPIES * sum(sizes))

    def held_by_column(self, source: ByteSource) -> dict[str, int]:
        """Return the memory that a reader holds for each top-level column."""
        held: dict[str, int] = {}
        for chunk in self.chunks:
            name = chunk.column.partition(".")[0]
            held[name] = held.get(name, 0) + _held_bytes(chunk, source)
        return held


@dataclass(slots=True)
class FileChunks:
    """The facts from page headers of a file's columns to read.

    Args:
        table: every column chunk.
        groups: every row group.
        codable: text columns of which all pages are dictionary-encoded.
        plain: columns that have pages of plain values, or a dictionary of many values.
        large: columns with a dictionary that is not small.
        largest: the chunk with the page that decides how much memory the file needs.
    """

    table: ChunkTable = field(default_factory=ChunkTable)
    groups: list[RowGroup] = field(default_factory=list)
    codable: dict[str, Dictionary] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    large: set[str] = field(default_factory=set)
    largest: ChunkPages | None = None

    @property
    def size_bytes(self) -> int:
        """The memory of all these facts."""
        return self.bytes_of(len(self.groups), len(self.table))

    @staticmethod
    def bytes_of(groups: int, chunks: int) -> int:
        """Return the memory of the facts of `groups` row groups with `chunks` column chunks."""
        return ChunkTable.bytes_of(chunks) + _GROUP_BYTES * groups


def walk_file(
    source: ByteSource, footer: Footer, columns: frozenset[str], schema: Any
) -> FileChunks:
    """Return the facts from the headers of all pages.

    Args:
        source: the file.
        footer: its footer.
        columns: names of the top-level columns to read.
        schema: the file's Arrow schema.

    Raises:
        BadInput: a page header is damaged.
    """
    found = FileChunks()
    uncoded: set[str] = set()
    try:
        widths = value_widths(footer.metadata())
        for piece in footer.pieces:
            chunks: dict[int, list[ChunkPages]] = {}
            metadata = footer.metadata(piece)
            for chunk in walk_chunks(source, metadata, columns, piece.first, widths):
                chunks.setdefault(chunk.row_group, []).append(chunk)
            del metadata
            differing = any(chunk.has_prefixes for each in chunks.values() for chunk in each)
            sizes = footer.text_sizes(piece) if differing else {}
            for index in piece.groups:
                of_group = chunks.get(index, [])
                _add(found, uncoded, of_group)
                found.groups.append(
                    _row_group(index, footer.group_rows[index], of_group, source, sizes, found)
                )
    except UnicodeDecodeError as error:
        reason = f"a name in the footer is damaged: {error}"
        raise BadInput(source.name, reason=reason) from error
    except OverflowError as error:
        reason = "a page header is damaged: a number in it has more than 64 bits"
        raise BadInput(source.name, reason=reason) from error
    texts = text_columns(schema)
    found.codable = {
        name: known for name, known in found.codable.items() if name in texts - uncoded
    }
    return found


def _add(found: FileChunks, uncoded: set[str], chunks: Iterable[ChunkPages]) -> None:
    """Add the chunks of a row group."""
    for chunk in chunks:
        name = chunk.column
        found.table.append(chunk)
        if not chunk.is_coded:
            uncoded.add(name)
            found.plain.add(name)
        if chunk.dictionary_count > COUNT_MAX:
            found.plain.add(name)
        if chunk.dictionary_bytes > SMALL_BYTES:
            found.large.add(name)
        count, size_bytes = found.codable.get(name, (0, 0))
        found.codable[name] = Dictionary(
            count + chunk.dictionary_count, size_bytes + chunk.dictionary_bytes
        )
        if found.largest is None or chunk.largest_page > found.largest.largest_page:
            found.largest = chunk


def _row_group(
    index: int,
    row_count: int,
    chunks: Sequence[ChunkPages],
    source: ByteSource,
    sizes: TextSizes,
    found: FileChunks,
) -> RowGroup:
    """Return a row group whose chunks are the last ones in the table."""
    longest = (chunk.longest_text_bytes * chunk.values_per_row for chunk in chunks)
    return RowGroup(
        index,
        row_count,
        held_bytes=sum(_held_bytes(chunk, source) for chunk in chunks),
        passing_bytes=max((chunk.passing_bytes for chunk in chunks), default=0),
        row_bytes=row_bytes(chunks, row_count, sizes),
        longest_bytes=max(longest, default=0),
        sure_text_bytes=max((chunk.sure_text_bytes for chunk in chunks), default=0),
        chunks=found.table[len(found.table) - len(chunks) : len(found.table)],
    )


def read_bytes(source: ByteSource) -> int:
    """Return how many bytes are read from a source at a time, for each column."""
    return _READ_BYTES if source.path is not None else _FAR_READ_BYTES


def _held_bytes(chunk: ChunkPages, source: ByteSource) -> int:
    return chunk.held_bytes + read_bytes(source) + _COLUMN_BYTES
