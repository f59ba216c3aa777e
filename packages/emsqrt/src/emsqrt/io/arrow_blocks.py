"""The sizes of an Arrow IPC file's record batches, read from their messages' metadata alone.

A reader holds a whole batch, decompressed, even if few of its columns are needed. So the largest
batch decides how much memory a file needs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from emsqrt.io.sources import ByteSource
from sennit_core.arrow_messages import (
    FILE_MAGIC,
    Kind,
    MessageHead,
    footer_blocks,
    plain_bytes,
    read_head,
)
from sennit_core.errors import BadInput

__all__ = ["largest_batch"]

ReadAt = Callable[[int, int], bytes]


def largest_batch(source: ByteSource) -> tuple[int, int]:
    """Return the bytes of the largest batch, decompressed, and its number from 0.

    Raises:
        BadInput: a message's metadata is damaged.
    """
    largest = number = found = position = 0
    end = source.stored_bytes or 0
    with source.open_ranges() as read_at:
        try:
            for at, head, body in _messages(read_at, end):
                position = at
                plain = _measure(read_at, head, body)
                if head.kind != Kind.SCHEMA and plain > largest:
                    largest, number = plain, found
                found += head.kind == Kind.BATCH
        except (struct.error, ValueError) as error:
            what = "an Arrow message is damaged or cut off" if position else "this is not Arrow IPC"
            raise BadInput(source.name, byte_offset=position, reason=f"{what}: {error}") from error
    return largest, number


def _messages(read_at: ReadAt, end: int) -> Iterator[tuple[int, MessageHead, int]]:
    """Yield the position of each message, its metadata, and the position of its body."""
    is_file = read_at(0, len(FILE_MAGIC)) == FILE_MAGIC
    # For a file, follow the footer as Arrow's reader does: it may omit messages or list others.
    starts = iter(footer_blocks(read_at, end)) if is_file else None
    position = 8 if is_file else 0
    while True:
        cursor = _Cursor(read_at, position)
        head = read_head(cursor.read)
        if head is None:
            if not position:
                raise ValueError("there is no message")
            return
        if cursor.position + head.body_bytes > end:
            raise ValueError(f"a body of {head.body_bytes} bytes ends behind the file's end")
        yield position, head, cursor.position
        if starts is None:
            position = cursor.position + head.body_bytes
            continue
        block = next(starts, None)
        if block is None:
            return
        position = block[0]


def _measure(read_at: ReadAt, head: MessageHead, body: int) -> int:
    """Return the memory of a message: its bytes as stored, plus the decompressed buffers."""
    plain = plain_bytes(head, lambda offset, size: read_at(body + offset, size))
    return head.body_bytes + plain if head.compressed else plain


class _Cursor:
    """Reads a source from a position on."""

    def __init__(self, read_at: ReadAt, position: int) -> None:
        self._read_at = read_at
        self.position = position

    def read(self, size: int) -> bytes:
        data = self._read_at(self.position, size)
        self.position += len(data)
        return data
