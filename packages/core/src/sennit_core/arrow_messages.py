"""Read and check the metadata of Arrow IPC messages before Arrow sees a message.

Arrow verifies that a message's flatbuffer is well formed and, when asked, that the values of a
batch are valid. It does not limit how much memory a message may request, and its array classes
abort the process on a few contradictions (a map whose keys have nulls, for example). The functions
here detect both from the metadata alone.

Format: Arrow columnar format 1.5, "Serialization and Interprocess Communication"; Message.fbs and
File.fbs. This module does not import Arrow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from sennit_core._flatbuffer import root_table

__all__ = [
    "FILE_MAGIC",
    "HEAD_BYTES_MAX",
    "ROWS_WITHOUT_BYTES",
    "Block",
    "Kind",
    "MessageHead",
    "footer_blocks",
    "plain_bytes",
    "read_head",
]

FILE_MAGIC = b"ARROW1"
HEAD_BYTES_MAX = 1 << 26
"""Largest metadata of a message; 100,000 columns need about 10 MB."""

ROWS_WITHOUT_BYTES = 1 << 16
"""Rows that a batch may have beyond one for each bit of its body.

Columns of type null, structs without fields and lists of length 0 use no space in a file, so a
message of 200 bytes could announce 2^40 rows, which need terabytes once they are cast to another
type. All other columns have at least one bit per row.
"""

_VERSION_4 = 3
_BUFFER_BYTES_MAX = 1 << 47  # user address space; sums of these stay below 64 bits
_CONTINUATION = 0xFFFFFFFF


class Kind:
    """`MessageHeader` of Message.fbs."""

    SCHEMA, DICTIONARY, BATCH = 1, 2, 3


@dataclass(frozen=True)
class MessageHead:
    """One message's metadata.

    Args:
        kind: One of `Kind`.
        metadata: The flatbuffer.
        body_bytes: Length of the body as stored.
        rows: Rows of a batch or values of a dictionary.
        nodes: (length, null count) of each array, in depth-first order.
        buffers: (offset, length) of each buffer within the body.
        compressed: Whether each buffer starts with its length before compression.
    """

    kind: int
    metadata: bytes
    body_bytes: int
    rows: int = 0
    nodes: tuple[tuple[int, int], ...] = ()
    buffers: tuple[tuple[int, int], ...] = ()
    compressed: bool = False


Block = tuple[int, int, int]
"""Offset in the file, bytes of metadata with its length prefix, bytes of the body."""


def read_head(read: Callable[[int], bytes]) -> MessageHead | None:
    """Read the next message's metadata; None at the end of the stream.

    Args:
        read: Returns the next bytes, fewer at the end.

    Raises:
        ValueError, struct.error: The metadata is damaged or cut off.
    """
    start = read(4)
    if not start:
        return None
    (size,) = struct.unpack("<I", start)
    if size == _CONTINUATION:  # streams older than Arrow 0.15 have none
        (size,) = struct.unpack("<I", read(4))
    if not size:
        return None
    if size > HEAD_BYTES_MAX:
        raise ValueError(f"a message announces {size} bytes of metadata")
    metadata = read(size)
    if len(metadata) < size:
        raise ValueError(f"a message's metadata is cut off after {len(metadata)} of {size} bytes")
    return _parse_head(metadata)


def _parse_head(metadata: bytes) -> MessageHead:
    message = root_table(metadata)
    if message.number(0, "<h") < _VERSION_4:
        raise ValueError("Arrow IPC before version 4 (Arrow 0.8) is not supported")
    kind = message.number(1, "<B")
    body_bytes = message.number(3, "<q")
    if body_bytes < 0:
        raise ValueError(f"a body of {body_bytes} bytes")
    if kind == Kind.SCHEMA:
        return MessageHead(kind, metadata, body_bytes)
    if kind not in (Kind.DICTIONARY, Kind.BATCH):
        raise ValueError(f"a message of type {kind} instead of a record batch")
    batch = message.table(2)
    if batch is not None and kind == Kind.DICTIONARY:
        batch = batch.table(1)
    if batch is None:
        raise ValueError("a message without content")
    head = MessageHead(
        kind,
        metadata,
        body_bytes,
        batch.number(0, "<q"),
        tuple(batch.structs(1, "<qq")),
        tuple(batch.structs(2, "<qq")),
        batch.has(3),
    )
    _check_buffers(head)
    return head


def _check_buffers(head: MessageHead) -> None:
    for offset, size in head.buffers:
        if offset < 0 or size < 0 or offset + size > head.body_bytes:
            raise ValueError(
                f"a buffer at {offset} of {size} bytes, in a body of {head.body_bytes}"
            )


def plain_bytes(head: MessageHead, read_body: Callable[[int, int], bytes]) -> int:
    """Return the size in bytes of a message's body after decompression.

    Args:
        head: The message.
        read_body: Returns the bytes of the body from an offset, of a length.

    Raises:
        ValueError, struct.error: A buffer's length before compression is impossible.
    """
    if not head.compressed:
        return head.body_bytes
    total = 0
    for offset, size in head.buffers:
        if not size:
            continue
        (length,) = struct.unpack("<q", read_body(offset, 8)[:8])
        if not -1 <= length < _BUFFER_BYTES_MAX or size < 8:
            raise ValueError(f"a compressed buffer of {length} bytes")
        total += size - 8 if length == -1 else length  # -1: stored as it is
    return total


def footer_blocks(read_at: Callable[[int, int], bytes], size: int) -> list[Block]:
    """Return the blocks of an IPC file in reading order: dictionaries, then record batches.

    Args:
        read_at: Returns the bytes of the file from an offset, of a length.
        size: Length of the file.

    Raises:
        ValueError, struct.error: The footer is damaged or cut off.
    """
    tail = len(FILE_MAGIC) + 4
    end = read_at(size - tail, tail) if size >= 2 * tail else b""
    if end[4:] != FILE_MAGIC:
        raise ValueError("the file is cut off: it does not end in ARROW1")
    (length,) = struct.unpack_from("<i", end)
    if not 0 < length <= min(size - tail - 8, 4 * HEAD_BYTES_MAX):
        raise ValueError(f"a footer of {length} bytes")
    footer = root_table(read_at(size - tail - length, length))
    blocks = [
        (offset, metadata, body)
        for field in (2, 3)
        for offset, metadata, body in footer.structs(field, "<qi4xq")
    ]
    # Blocks that share bytes would let a small file expand to any number of rows.
    end_of_last = len(FILE_MAGIC)
    for offset, metadata, body in sorted(blocks):
        if offset < end_of_last or metadata <= 0 or body < 0:
            raise ValueError(f"the footer's block at {offset} overlaps another")
        end_of_last = offset + metadata + body
    if end_of_last > size - tail - length:
        raise ValueError(f"a block ends at {end_of_last}, beyond the file's data")
    return blocks
