"""Find the longest texts of a Parquet file by reading pages without decoding values.

A page's header has its size and its number of values, so one long text among short ones is only
found inside the page. Plain pages and dictionaries are read, the default of most writers.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from emsqrt._kernel import longest_text
from emsqrt.io.parquet_footer import Piece, read_footer
from emsqrt.io.parquet_pages import BadPage, PageHead, ReadAt, page_heads
from emsqrt.io.sources import ByteSource

_PAGE_BYTES_MIN = 8 << 10
"""Smaller pages are skipped: their texts always fit."""
_HEADER_COST = 4 << 10
"""Bytes that a header counts of the bytes to read."""
_TEXT, _PLAIN, _DICTIONARY_PAGE = "BYTE_ARRAY", 0, 2
_LENGTH_BYTES = 4


def longest_texts(
    source: ByteSource, columns: frozenset[str], room_bytes: int, looked_max: int
) -> tuple[int, int]:
    """Return the sum of the longest texts of all columns, and the number of bytes read.

    Args:
        source: the file.
        columns: names of top-level columns to read; those with lists are left out.
        room_bytes: memory for a page, stored and decompressed.
        looked_max: read about this many bytes.

    Raises:
        BadInput: the file is damaged.
    """
    footer = read_footer(source)
    schema = footer.metadata().schema
    texts = {
        at: schema.column(at)
        for at in range(len(schema))
        if schema.column(at).physical_type == _TEXT
        and schema.column(at).max_repetition_level == 0
        and schema.column(at).path.partition(".")[0] in columns
    }
    looking = _Looking(dict.fromkeys(texts, 0), room_bytes, looked_max)
    with source.open_ranges() as read_at:
        for piece in footer.pieces if texts else ():
            looking.see_groups(read_at, footer.metadata(piece), piece, texts)
    return sum(looking.longest.values()), looked_max - looking.left_bytes


class _Looking:
    """The state of a search.

    Args:
        longest: bytes of the longest text of each column, by its number.
        room_bytes: memory for a page, stored and decompressed.
        left_bytes: how many bytes may still be read.
    """

    def __init__(self, longest: dict[int, int], room_bytes: int, left_bytes: int) -> None:
        self.longest = longest
        self._room_bytes = room_bytes
        self.left_bytes = left_bytes

    def see_groups(
        self, read_at: ReadAt, metadata: Any, piece: Piece, texts: dict[int, Any]
    ) -> None:
        """Search the columns of some row groups."""
        for group in range(piece.group_count):
            row_group = metadata.row_group(group)
            for at, column in texts.items() if row_group.num_rows else ():
                if self.left_bytes <= 0:
                    return
                with suppress(BadPage):  # the scan reports it, with its place
                    self._see_chunk(read_at, at, row_group.column(at), column)

    def _see_chunk(self, read_at: ReadAt, at: int, chunk: Any, column: Any) -> None:
        for position, head in page_heads(read_at, chunk):
            self.left_bytes -= _HEADER_COST
            self._see_page(read_at, at, position, head, (chunk, column))

    def _see_page(
        self, read_at: ReadAt, at: int, position: int, head: PageHead, of: tuple[Any, Any]
    ) -> None:
        chunk, column = of
        is_dictionary = head.kind == _DICTIONARY_PAGE
        if not is_dictionary and head.encoding != _PLAIN:
            return
        if head.plain_bytes <= max(_PAGE_BYTES_MIN, self.longest[at]):
            return  # no text in the page can be longer
        if head.plain_bytes + head.stored_bytes > self._room_bytes:
            return
        self.left_bytes -= head.plain_bytes
        stored = read_at(position + head.own_bytes, head.stored_bytes)
        try:
            values = _values(stored, head, chunk.compression, column)
            found = longest_text(values, head.dictionary_count if is_dictionary else -1)
        except (OSError, ValueError, OverflowError):  # the reader reports it
            return
        self.longest[at] = max(self.longest[at], found)


def _values(stored: bytes, head: PageHead, codec: str, column: Any) -> memoryview:
    """Return the values of a page, without the levels before them (Encodings.md, Data Pages)."""
    import pyarrow as pa

    before = stored[: head.level_bytes]
    values = memoryview(stored)[head.level_bytes :]
    if codec != "UNCOMPRESSED" and head.is_compressed:
        name = "lz4_raw" if codec == "LZ4" else codec.lower()
        size = head.plain_bytes - len(before)
        values = memoryview(pa.Codec(name).decompress(values, size, asbytes=True))
    if head.has_levels_inside and column.max_definition_level > 0:
        values = values[_LENGTH_BYTES + int.from_bytes(values[:_LENGTH_BYTES], "little") :]
    return values
