"""What reading each row group of a Parquet file takes, found in one walk over its page headers.

Nothing here depends on the budget: a plan is opened again and again until a cap for it is found, and
the file is walked once for all of that.
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
"""Of a dictionary that texts come with: in what gathers it, twice, and in a batch."""
_COLUMN_BYTES = 64 << 10
"""A column's decoder and what allocators round up: measured."""
_GROUP_BYTES = 1 << 9
"""What is kept of each row group in addition to its column chunks."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group.

    Args:
        index: its number in the file.
        row_count: its rows.
        held_bytes: what a reader holds of all wanted columns together.
        passing_bytes: what it takes in addition for one column at a time.
        row_bytes: what a row becomes.
        longest_bytes: a bound on what the texts of one row have that come from a dictionary.
        sure_text_bytes: some text is so long, or half of it at least.
        chunks: its wanted columns.
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
        """What a reader holds that reads all columns together."""
        return self.held_bytes + self.passing_bytes

    def coded(self, columns: Collection[str]) -> RowGroup:
        """Return the same, when texts of some columns come with their dictionaries."""
        if not columns:
            return self
        sizes = (chunk.dictionary_bytes for chunk in self.chunks if chunk.column in columns)
        return replace(self, passing_bytes=self.passing_bytes + _CODED_COPIES * sum(sizes))

    def held_by_column(self, source: ByteSource) -> dict[str, int]:
        """Return what a reader holds for each column at the top."""
        held: dict[str, int] = {}
        for chunk in self.chunks:
            name = chunk.column.partition(".")[0]
            held[name] = held.get(name, 0) + _held_bytes(chunk, source)
        return held


@dataclass(slots=True)
class FileChunks:
    """What page headers say of a file's wanted columns.

    Args:
        table: of every column chunk.
        groups: every row group.
        codable: columns of text all of whose pages hold places in dictionaries, and nothing else.
        plain: columns that have pages of plain values, or a dictionary of many.
        large: columns with a dictionary that is not small.
        largest: the chunk with the page that decides what the file takes.
    """

    table: ChunkTable = field(default_factory=ChunkTable)
    groups: list[RowGroup] = field(default_factory=list)
    codable: dict[str, Dictionary] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    large: set[str] = field(default_factory=set)
    largest: ChunkPages | None = None

    @property
    def size_bytes(self) -> int:
        """What all of it takes in memory."""
        return self.bytes_of(len(self.groups), len(self.table))

    @staticmethod
    def bytes_of(groups: int, chunks: int) -> int:
        """Return what it takes of so many row groups with so many wanted column chunks together."""
        return ChunkTable.bytes_of(chunks) + _GROUP_BYTES * groups


def walk_file(
    source: ByteSource, footer: Footer, columns: frozenset[str], schema: Any
) -> FileChunks:
    """Return what the headers of all pages say.

    Args:
        source: the file.
        footer: its footer.
        columns: names of the wanted columns at the top.
        schema: the file's, as Arrow has it.

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
    """Take the chunks of one more row group into account."""
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
    """Return how much is asked of a source at a time, for each column."""
    return _READ_BYTES if source.path is not None else _FAR_READ_BYTES


def _held_bytes(chunk: ChunkPages, source: ByteSource) -> int:
    return chunk.held_bytes + read_bytes(source) + _COLUMN_BYTES
