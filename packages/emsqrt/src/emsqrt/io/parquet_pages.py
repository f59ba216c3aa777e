"""How large a Parquet file's pages are, read from their headers alone.

A reader holds one page of each column, decompressed, whatever batch size it is asked for, so the
largest pages decide how much memory a row group takes. The footer does not tell page sizes; each
page's header does (parquet.thrift `PageHeader`, Thrift's compact protocol), and headers can be
walked by seeking from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emsqrt.io.sources import ByteSource, open_source
from emsqrt.io.thrift import CompactReader
from sennit_core.errors import BadInput

ReadAt = Callable[[int, int], bytes]

_HEADER_BYTES = 512
_HEADER_BYTES_MAX = 1 << 24
_DICTIONARY_PAGE = 2
_DICTIONARY_HEADER = 7
_DATA_ENCODINGS = ((5, 2), (8, 4))
"""Where a data page says how its values are encoded: fields of its header, of both versions."""
_BY_DICTIONARY = (2, 8)
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class ChunkPages:
    """The largest pages of one column in one row group, in bytes."""

    row_group: int
    column: str
    plain_bytes: int
    stored_bytes: int
    dictionary_bytes: int
    dictionary_count: int = 0
    is_coded: bool = False
    """Whether every page holds places in the dictionary, and none plain values."""

    @property
    def held_bytes(self) -> int:
        """What a reader holds for this column: a page, and the dictionary as stored and decoded."""
        return self.plain_bytes + 2 * self.dictionary_bytes

    @property
    def mean_text_bytes(self) -> int:
        """What a text of the dictionary has on average, with its length; 0 without one."""
        return self.dictionary_bytes // max(self.dictionary_count, 1)

    @property
    def longest_text_bytes(self) -> int:
        """A bound on what a text of the dictionary has."""
        return max(self.dictionary_bytes - _LENGTH_BYTES * self.dictionary_count, 0)

    @property
    def largest_page(self) -> int:
        """The page that cannot be divided."""
        return max(self.plain_bytes, self.dictionary_bytes)


def walk_chunks(
    source: ByteSource | Path, metadata: Any, columns: frozenset[str]
) -> Iterator[ChunkPages]:
    """Yield the page sizes of each wanted column in each row group.

    Args:
        source: the file.
        metadata: its `pyarrow.parquet.FileMetaData`.
        columns: names of top-level columns.

    Raises:
        BadInput: a page header is damaged.
    """
    source = open_source(source) if isinstance(source, Path) else source
    with source.open_ranges() as read_at:
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for index in range(row_group.num_columns):
                chunk = row_group.column(index)
                name = chunk.path_in_schema
                if name.partition(".")[0] not in columns:
                    continue
                if row_group.num_rows:
                    yield _walk_pages(read_at, source.name, group, chunk)
                else:  # it may have no page, or a dictionary alone, and offsets that mean nothing
                    yield ChunkPages(group, name, chunk.total_uncompressed_size, 0, 0)


def dictionary_values(read_at: ReadAt, chunk: Any) -> tuple[int, int] | None:
    """Return how many values a column chunk's dictionary has and their bytes; None without one.

    Args:
        read_at: reads a part of the file.
        chunk: its entry in the footer, a `pyarrow.parquet.ColumnChunkMetaData`.
    """
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
    if start is None:
        return None
    try:
        fields = CompactReader(read_at(start, _HEADER_BYTES)).read_struct()
        count = fields.get(_DICTIONARY_HEADER, {}).get(1)
    except (AttributeError, IndexError, ValueError):
        return None
    plain = fields.get(2)
    if (
        fields.get(1) != _DICTIONARY_PAGE
        or not isinstance(count, int)
        or not isinstance(plain, int)
    ):
        return None
    return (count, plain) if count >= 0 and plain >= 0 else None


def _walk_pages(read_at: ReadAt, name: str, group: int, chunk: Any) -> ChunkPages:
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        position = min(position, chunk.dictionary_page_offset)
    end = position + chunk.total_compressed_size
    plain = stored = dictionary = count = values = 0
    coded = True
    while position < end:
        try:
            head = _read_header(read_at, position)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                name,
                byte_offset=position,
                reason=f"row group {group}, column {chunk.path_in_schema}: bad page header",
            ) from error
        if head.kind == _DICTIONARY_PAGE:
            dictionary, count = head.plain_bytes, head.dictionary_count
        else:
            plain = max(plain, head.plain_bytes)
            coded = coded and head.encoding in _BY_DICTIONARY
            values += head.value_count
        stored = max(stored, head.stored_bytes)
        position += head.own_bytes + head.stored_bytes
    if values != chunk.num_values:
        where = f"row group {group}, column {chunk.path_in_schema}"
        raise BadInput(name, reason=f"{where}: {values} values in its pages of {chunk.num_values}")
    return ChunkPages(group, chunk.path_in_schema, plain, stored, dictionary, count, coded)


class _PageHead(NamedTuple):
    """What a page's header says, and how long it is itself."""

    kind: int
    plain_bytes: int
    stored_bytes: int
    own_bytes: int
    dictionary_count: int
    encoding: int
    value_count: int


def _read_header(read_at: ReadAt, position: int) -> _PageHead:
    size = _HEADER_BYTES
    while True:
        data = read_at(position, size)
        reader = CompactReader(data)
        try:
            fields = reader.read_struct()
        except IndexError:
            if len(data) < size or size >= _HEADER_BYTES_MAX:
                raise
            size *= 8
            continue
        kind, plain, stored = fields[1], fields[2], fields[3]
        if plain < 0 or stored < 0:
            raise ValueError(f"page of {plain} and {stored} bytes")
        count = fields.get(_DICTIONARY_HEADER, {}).get(1, 0)
        encodings = (fields.get(at, {}).get(field, -1) for at, field in _DATA_ENCODINGS)
        values = sum(fields.get(at, {}).get(1, 0) for at, _ in _DATA_ENCODINGS)
        if not isinstance(count, int):
            raise TypeError("a count that is no number")
        return _PageHead(kind, plain, stored, reader.position, count, max(encodings), values)
