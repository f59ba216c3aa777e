"""The sizes of a Parquet file's pages, read from their headers alone.

A reader holds one page of each column, decompressed, for any batch size, so the largest pages
decide how much memory a row group needs. The footer does not contain page sizes, but each page's
header does (parquet.thrift `PageHeader`, Thrift's compact protocol), and headers can be read by
seeking from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
_FIRST_HEADER, _SECOND_HEADER = 5, 8
_DATA_ENCODINGS = ((_FIRST_HEADER, 2), (_SECOND_HEADER, 4))
"""Field numbers of the encoding in a data page's header, for both versions."""
_BY_DICTIONARY = (2, 8)
_BY_LENGTHS = (6, 7)
"""Texts whose lengths are decoded for a whole page, one or two integers each."""
_BY_PREFIXES = 7
_TEXT, _FIXED = "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, _TEXT: 4}
_DECIMAL_BYTES = 16
_VIEW_BYTES = 16
"""A decoder's entry for each text of a dictionary."""
_LENGTH_BYTES = 4
_FEW = 2
_USUAL_BYTES = 512 << 10
"""Usual size of a page; a text of up to this length fits a batch."""


class ChunkPages(NamedTuple):
    """The largest pages of one column in one row group, in bytes."""

    row_group: int
    column: str
    plain_bytes: int
    stored_bytes: int
    dictionary_bytes: int
    dictionary_count: int = 0
    is_coded: bool = False
    """Whether every page is dictionary-encoded."""
    is_text: bool = False
    row_bytes: int = 0
    """Decoded bytes of a row: the mean of the page with the largest mean."""
    values_per_row: int = 1
    """Lists have more than one value per row."""
    sure_text_bytes: int = 0
    """Some text has at least half of these bytes."""
    lengths_bytes: int = 0
    """Bytes of lengths that are decoded before a page's texts."""
    has_prefixes: bool = False
    """Whether texts are delta-encoded, so that a page may have any part of their decoded bytes."""
    dictionary_page: tuple[int, int, str] = (0, 0, "")
    """Offset of its values, their bytes, and their compression."""

    @property
    def held_bytes(self) -> int:
        """Memory of a reader for this column: a page, and the dictionary as stored and decoded."""
        views = _VIEW_BYTES * max(self.dictionary_count, 0) if self.is_text else 0
        return self.plain_bytes + self.lengths_bytes + 2 * self.dictionary_bytes + views

    @property
    def passing_bytes(self) -> int:
        """Additional memory while the column is read: pages as stored, or a buffer for texts.

        That buffer is allocated again when a long text does not fit it, as large as the texts;
        delta-encoded texts are assembled first.
        """
        texts = 0
        if self.is_text and not self.is_coded:
            texts = self.plain_bytes + max(self.plain_bytes - _USUAL_BYTES, 0)
            texts += 2 * self.plain_bytes * self.has_prefixes
        return max(self.stored_bytes + self.dictionary_bytes, texts)

    @property
    def longest_text_bytes(self) -> int:
        """A bound on the bytes of a text of the dictionary."""
        return max(self.dictionary_bytes - _LENGTH_BYTES * self.dictionary_count, 0)

    @property
    def largest_page(self) -> int:
        """The largest page, which cannot be divided."""
        return max(self.plain_bytes, self.dictionary_bytes)


def walk_chunks(
    source: ByteSource | Path,
    metadata: Any,
    columns: frozenset[str],
    first: int = 0,
    widths: Sequence[int] = (),
) -> Iterator[ChunkPages]:
    """Yield the page sizes of each column to read in each row group.

    Args:
        source: the file.
        metadata: its `pyarrow.parquet.FileMetaData`, or that of some of its row groups.
        columns: names of top-level columns.
        first: the number of the first row group in the metadata.
        widths: the result of `value_widths`; read from the schema when empty.

    Raises:
        BadInput: a page header is damaged.
    """
    source = open_source(source) if isinstance(source, Path) else source
    widths = widths or value_widths(metadata)
    with source.open_ranges() as read_at:
        for group in range(first, first + metadata.num_row_groups):
            row_group = metadata.row_group(group - first)
            for index in range(row_group.num_columns):
                chunk = row_group.column(index)
                name = chunk.path_in_schema
                if name.partition(".")[0] not in columns:
                    continue
                if row_group.num_rows:
                    pages = _Pages(group, chunk, widths[index])
                    yield pages.walk(read_at, source.name, row_group.num_rows)
                else:  # it may have no page, or only a dictionary, and meaningless offsets
                    yield ChunkPages(group, name, chunk.total_uncompressed_size, 0, 0)


def dictionary_values(read_at: ReadAt, chunk: Any) -> tuple[int, int] | None:
    """Return the number and the bytes of the values of a chunk's dictionary; None without one.

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


def value_widths(metadata: Any) -> list[int]:
    """Return the bytes of a value of each column in an array, without its text.

    Args:
        metadata: a `pyarrow.parquet.FileMetaData`, preferably without row groups: after this call
            it and its schema refer to each other, so it stays until the next garbage collection.
    """
    schema = metadata.schema
    return [_value_bytes(schema.column(index)) for index in range(len(schema))]


def _value_bytes(column: Any) -> int:
    """Return the bytes of a value in an array, without its text."""
    if column.converted_type == "DECIMAL":
        return _DECIMAL_BYTES
    return int(column.length if column.physical_type == _FIXED else _WIDTHS[column.physical_type])


class _Pages:
    """The pages of a column chunk, one after the other.

    Args:
        group: the number of the row group.
        chunk: a `pyarrow.parquet.ColumnChunkMetaData`.
        value_bytes: the bytes of a value in an array, without its text.
    """

    def __init__(self, group: int, chunk: Any, value_bytes: int) -> None:
        self._group, self._chunk = group, chunk
        self._value_bytes = value_bytes
        self._is_text = chunk.physical_type == _TEXT
        self._coded = True
        self._plain = self._stored = self._dictionary = self._count = 0
        self._values = self._lengths = 0
        self._mean_bytes = value_bytes
        self._sure_bytes = 0
        self._page = 0, 0, ""
        self._has_prefixes = False

    def walk(self, read_at: ReadAt, name: str, rows: int) -> ChunkPages:
        """Return the facts from the page headers of a chunk of `rows` rows."""
        chunk = self._chunk
        where = f"row group {self._group}, column {chunk.path_in_schema}"
        try:
            for position, head in page_heads(read_at, chunk):
                self._see(head, position)
        except BadPage as error:
            reason = f"{where}: {error}"
            raise BadInput(name, byte_offset=error.position, reason=reason) from error
        if self._values != chunk.num_values:
            reason = f"{where}: {self._values} values in its pages of {chunk.num_values}"
            raise BadInput(name, reason=reason)
        return self._found(rows)

    def _see(self, head: PageHead, position: int) -> None:
        self._stored = max(self._stored, head.stored_bytes)
        if head.kind == _DICTIONARY_PAGE:
            self._dictionary, self._count = head.plain_bytes, head.dictionary_count
            self._page = position + head.own_bytes, head.stored_bytes, self._chunk.compression
            return
        count = max(head.value_count, 1)
        self._plain = max(self._plain, head.plain_bytes)
        self._values += head.value_count
        size = head.plain_bytes
        if head.encoding in _BY_DICTIONARY:
            size, count = self._dictionary * self._is_text, max(self._count, 1)
        else:
            self._coded = False
        mean = -(-size // count)
        self._has_prefixes |= head.encoding == _BY_PREFIXES
        if head.encoding in _BY_LENGTHS:
            self._lengths = max(self._lengths, 2 * _LENGTH_BYTES * count)
        if self._is_text:
            self._mean_bytes = max(self._mean_bytes, mean)
            self._sure_bytes = max(self._sure_bytes, size if count <= _FEW else mean)

    def _found(self, rows: int) -> ChunkPages:
        each = -(-self._chunk.num_values // rows)
        return ChunkPages(
            row_group=self._group,
            column=self._chunk.path_in_schema,
            plain_bytes=self._plain,
            stored_bytes=self._stored,
            dictionary_bytes=self._dictionary,
            dictionary_count=self._count,
            is_coded=self._coded,
            is_text=self._is_text,
            row_bytes=self._mean_bytes * self._chunk.num_values // rows,
            values_per_row=max(each, 1),
            sure_text_bytes=self._sure_bytes,
            lengths_bytes=self._lengths,
            has_prefixes=self._has_prefixes,
            dictionary_page=self._page,
        )


class PageHead(NamedTuple):
    """The contents of a page's header, and its length."""

    kind: int
    plain_bytes: int
    stored_bytes: int
    own_bytes: int
    dictionary_count: int
    encoding: int
    value_count: int
    has_levels_inside: bool = False
    """Whether levels are compressed together with the values, as in data pages of version 1."""
    level_bytes: int = 0
    """Bytes of uncompressed levels before the values, as in data pages of version 2."""
    is_compressed: bool = True


class BadPage(Exception):
    """A page header is damaged; it begins at `position`."""

    def __init__(self, position: int) -> None:
        super().__init__("bad page header")
        self.position = position


def page_heads(read_at: ReadAt, chunk: Any) -> Iterator[tuple[int, PageHead]]:
    """Yield the position of each page of a column chunk, and its header.

    Args:
        read_at: reads a part of the file.
        chunk: a `pyarrow.parquet.ColumnChunkMetaData`.

    Raises:
        BadPage: a header is damaged.
    """
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        position = min(position, chunk.dictionary_page_offset)
    end = position + chunk.total_compressed_size
    while position < end:
        try:
            head = _read_header(read_at, position)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadPage(position) from error
        yield position, head
        position += head.own_bytes + head.stored_bytes


def _read_header(read_at: ReadAt, position: int) -> PageHead:
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
            raise TypeError("a count that is not a number")
        second = fields.get(_SECOND_HEADER, {})
        levels = second.get(5, 0) + second.get(6, 0)
        if not isinstance(levels, int) or not 0 <= levels <= stored:
            raise ValueError("levels that are longer than their page")
        return PageHead(
            kind,
            plain,
            stored,
            reader.position,
            count,
            max(encodings),
            values,
            has_levels_inside=_FIRST_HEADER in fields,
            level_bytes=levels,
            is_compressed=second.get(7, True),
        )
