"""Choose how many rows of a Parquet file are decoded at a time, by their decoded size."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import pyarrow as pa

from emsqrt._kernel import longest_text as longest_of
from emsqrt.io.parquet_pages import ChunkPages, ReadAt

TextSizes: TypeAlias = Mapping[tuple[int, str], int]
"""The bytes of all texts of a column in a row group, by row group and column path."""
_ROWS_MAX = 12 << 10
_TEXT_COPIES = 2
"""If all texts were the longest of the dictionary, a batch may have this many times its size."""
_UNKNOWN_BYTES = 1 << 10
"""The assumed length of a text if neither its page nor the footer has it."""
_NEAR = 3, 4
"""Row groups are read together while the fewest rows per batch are at least 3 / 4 of the most."""


def rows_at_once(row_bytes: int, batch_bytes: int) -> int:
    """Return the number of rows of a batch, from their mean decoded size.

    Args:
        row_bytes: the bytes of a row of all columns to read.
        batch_bytes: the bytes of a batch.
    """
    return max(1, min(batch_bytes // max(row_bytes, 1), _ROWS_MAX))


def row_bytes(chunks: Sequence[ChunkPages], rows: int, sizes: TextSizes) -> int:
    """Return the mean decoded bytes of a row of a row group.

    Args:
        chunks: the pages of its columns to read.
        rows: the rows of the row group.
        sizes: the bytes of all texts, for pages that do not contain them.
    """
    return sum(_row_bytes(chunk, max(rows, 1), sizes) for chunk in chunks)


def _row_bytes(chunk: ChunkPages, rows: int, sizes: TextSizes) -> int:
    if not chunk.has_prefixes:
        return chunk.row_bytes
    unknown = _UNKNOWN_BYTES * chunk.values_per_row * rows
    return max(chunk.row_bytes, sizes.get((chunk.row_group, chunk.column), unknown) // rows)


def are_near(some: int, others: int) -> bool:
    """Return whether row groups with these rows per batch may be read together."""
    small, large = sorted((some, others))
    return large * _NEAR[0] <= small * _NEAR[1]


def doubtful_texts(
    chunks: Sequence[ChunkPages], coded: Collection[str], rows: int, room_bytes: int
) -> list[ChunkPages]:
    """Return the columns of a row group whose dictionary may make some batches too large.

    Args:
        chunks: the pages of its columns to read.
        coded: columns that are not decoded.
        rows: the number of rows decoded at a time.
        room_bytes: the most decoded bytes.
    """
    return [
        chunk
        for chunk in chunks
        if chunk.is_text
        and chunk.column not in coded
        and chunk.longest_text_bytes * chunk.values_per_row * rows > room_bytes
    ]


def rows_of_longest(
    read_at: ReadAt,
    chunks: Sequence[ChunkPages],
    rows: int,
    batch_bytes: int,
    sizes: TextSizes,
) -> int:
    """Return how many rows fit a batch if every text is the longest of its dictionary.

    Args:
        read_at: reads a part of the file.
        chunks: columns of one row group.
        rows: the most rows.
        batch_bytes: the bytes of a batch.
        sizes: the bytes of all their texts, if known: no batch has more.
    """
    room_bytes = _TEXT_COPIES * batch_bytes
    row_bytes = 0
    for chunk in chunks:
        if sizes.get((chunk.row_group, chunk.column), sys.maxsize) > room_bytes // len(chunks):
            row_bytes += longest_text(read_at, chunk) * chunk.values_per_row
    return max(1, min(rows, room_bytes // max(row_bytes, 1)))


def longest_text(read_at: ReadAt, chunk: ChunkPages) -> int:
    """Return the bytes of the longest text of a dictionary; a bound if it is damaged."""
    at, size, codec = chunk.dictionary_page
    page = read_at(at, size)
    try:
        if codec != "UNCOMPRESSED":
            name = "lz4_raw" if codec == "LZ4" else codec.lower()
            page = pa.Codec(name).decompress(page, chunk.dictionary_bytes, asbytes=True)
        return longest_of(page, chunk.dictionary_count)
    except (OSError, ValueError, OverflowError):  # the reader reports it
        return chunk.longest_text_bytes
