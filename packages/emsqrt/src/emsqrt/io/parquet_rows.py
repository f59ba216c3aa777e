"""How many rows of a Parquet file are decoded at a time: by what they become, not by what they take."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import pyarrow as pa

from emsqrt._kernel import longest_text as longest_of
from emsqrt.io.parquet_pages import ChunkPages, ReadAt

TextSizes: TypeAlias = Mapping[tuple[int, str], int]
"""Of all texts of a column in a row group."""
_ROWS_MAX = 12 << 10
_TEXT_COPIES = 2
"""Texts of a dictionary that are all the longest may make so many batches of one."""
_UNTOLD_BYTES = 1 << 10
"""A text is taken for so long where neither its page nor the footer tells it."""
_NEAR = 3, 4
"""Row groups are read in one go while the rows of each are so near the others'."""


def rows_at_once(row_bytes: int, batch_bytes: int) -> int:
    """Return how many rows of a row group become a batch, by what they have on average in a page.

    Args:
        row_bytes: of a row of all wanted columns.
        batch_bytes: of a batch.
    """
    return max(1, min(batch_bytes // max(row_bytes, 1), _ROWS_MAX))


def row_bytes(chunks: Sequence[ChunkPages], rows: int, sizes: TextSizes) -> int:
    """Return what a row of a row group becomes.

    Args:
        chunks: the pages of its wanted columns.
        rows: of the row group.
        sizes: of all texts, where pages do not tell it.
    """
    return sum(_row_bytes(chunk, max(rows, 1), sizes) for chunk in chunks)


def _row_bytes(chunk: ChunkPages, rows: int, sizes: TextSizes) -> int:
    if not chunk.has_prefixes:
        return chunk.row_bytes
    untold = _UNTOLD_BYTES * chunk.values_per_row * rows
    return max(chunk.row_bytes, sizes.get((chunk.row_group, chunk.column), untold) // rows)


def are_near(some: int, others: int) -> bool:
    """Whether row groups of so many rows at once may be read in one go."""
    small, large = sorted((some, others))
    return large * _NEAR[0] <= small * _NEAR[1]


def doubtful_texts(
    chunks: Sequence[ChunkPages], coded: Collection[str], rows: int, room_bytes: int
) -> list[ChunkPages]:
    """Return the columns of a row group whose dictionary may have texts too long for some rows.

    Args:
        chunks: the pages of its wanted columns.
        coded: columns that are not decoded.
        rows: how many are decoded at a time.
        room_bytes: what they may become.
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
    """Return how many rows make no more than they may, if every text is its dictionary's longest.

    Args:
        read_at: reads a part of the file.
        chunks: columns of one row group.
        rows: the most.
        batch_bytes: of a batch.
        sizes: of all their texts, where it is told: no batch has more.
    """
    room_bytes = _TEXT_COPIES * batch_bytes
    row_bytes = 0
    for chunk in chunks:
        if sizes.get((chunk.row_group, chunk.column), sys.maxsize) > room_bytes // len(chunks):
            row_bytes += longest_text(read_at, chunk) * chunk.values_per_row
    return max(1, min(rows, room_bytes // max(row_bytes, 1)))


def longest_text(read_at: ReadAt, chunk: ChunkPages) -> int:
    """Return the bytes of the longest text of a chunk's dictionary, or a bound of what is damaged."""
    at, size, codec = chunk.dictionary_page
    page = read_at(at, size)
    try:
        if codec != "UNCOMPRESSED":
            name = "lz4_raw" if codec == "LZ4" else codec.lower()
            page = pa.Codec(name).decompress(page, chunk.dictionary_bytes, asbytes=True)
        return longest_of(page, chunk.dictionary_count)
    except (OSError, ValueError, OverflowError):  # told by whoever reads it
        return chunk.longest_text_bytes
