"""How large an Arrow IPC file's record batches are, read from their messages' heads alone.

A reader holds a whole batch, decompressed, however little of it is wanted, so the largest one
decides how much memory a file takes. Messages are as the Arrow format has them: four bytes FF, the
length of a head (a flatbuffer `Message`: Message.fbs), the head, and a body whose length it tells.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from emsqrt.io.sources import ByteSource
from sennit_core.errors import BadInput

_MAGIC = b"ARROW1"
_MARK = 0xFFFFFFFF
_HEAD_BYTES_MAX = 1 << 26
_DICTIONARY, _BATCH = 2, 3
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_BUFFERS, _COMPRESSION = 2, 3
_DICTIONARY_DATA = 1


def largest_batch(source: ByteSource) -> tuple[int, int]:
    """Return the bytes of the largest batch, decompressed, and its number from 0.

    Raises:
        BadInput: a message's head is damaged.
    """
    largest = number = found = 0
    end = source.stored_bytes or 0
    with source.open_ranges() as read_at:
        position = 8 if read_at(0, len(_MAGIC)) == _MAGIC else 0
        try:
            while (message := _read_head(read_at, position, end)) is not None:
                head, body = message
                kind, length, plain = _measure(read_at, head, body)
                if body + length > end:
                    raise ValueError(f"a body of {length} bytes")
                if kind in (_BATCH, _DICTIONARY) and plain > largest:
                    largest, number = plain, found
                found += kind == _BATCH
                position = body + length
        except (struct.error, ValueError) as error:
            what = "an Arrow message is damaged or cut off" if position else "this is not Arrow IPC"
            raise BadInput(source.name, byte_offset=position, reason=what) from error
    return largest, number


def _read_head(
    read_at: Callable[[int, int], bytes], position: int, end: int
) -> tuple[bytes, int] | None:
    """Return a message's head and where its body begins; None at the end."""
    start = read_at(position, 8)
    if not start.rstrip(b"\0"):
        return None
    if len(start) < 8:
        raise ValueError(f"{len(start)} bytes are left")
    mark, size = struct.unpack("<Ii", start)
    position += 8
    if mark != _MARK:  # files older than Arrow 0.15 have no mark
        size, position = mark, position - 4
    if not size:
        return None
    if not 0 < size <= min(_HEAD_BYTES_MAX, end - position):
        raise ValueError(f"a head of {size} bytes")
    return read_at(position, size), position + size


def _measure(read_at: Callable[[int, int], bytes], head: bytes, body: int) -> tuple[int, int, int]:
    """Return a message's kind, its body's bytes as stored, and decompressed."""
    message = _Table(head, struct.unpack_from("<I", head)[0])
    kind = message.number(_HEADER_TYPE, "<B")
    length = message.number(_BODY_LENGTH, "<q")
    if length < 0:
        raise ValueError(f"a body of {length} bytes")
    batch = message.table(_HEADER) if kind in (_BATCH, _DICTIONARY) else None
    if batch is not None and kind == _DICTIONARY:
        batch = batch.table(_DICTIONARY_DATA)
    if batch is None or not batch.place(_COMPRESSION):
        return kind, length, length
    plain = 0
    for offset, size in batch.pairs(_BUFFERS):
        if size >= 8:
            if not 0 <= offset <= length - size:
                raise ValueError(f"a buffer at {offset}")
            (told,) = struct.unpack("<q", read_at(body + offset, 8))
            plain += size - 8 if told < 0 else told
    return kind, length, length + plain


class _Table:
    """A flatbuffer table: its fields by number."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._fields = position - struct.unpack_from("<i", data, position)[0]

    def place(self, field: int) -> int:
        """Return where a field lies; 0 when it has its default."""
        at = 4 + 2 * field
        if at >= struct.unpack_from("<H", self._data, self._fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + at)[0]
        return offset and self._position + offset

    def number(self, field: int, form: str) -> int:
        """Return a number; 0 is the default of all that are read here."""
        place = self.place(field)
        return int(struct.unpack_from(form, self._data, place)[0]) if place else 0

    def table(self, field: int) -> _Table | None:
        """Return the table that a field points to."""
        place = self.place(field)
        if not place:
            return None
        return _Table(self._data, place + struct.unpack_from("<I", self._data, place)[0])

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return a vector of structs of two 64-bit numbers."""
        place = self.place(field)
        if not place:
            return []
        start = place + struct.unpack_from("<I", self._data, place)[0]
        (count,) = struct.unpack_from("<I", self._data, start)
        end = start + 4 + 16 * count
        return [(a, b) for a, b in struct.iter_unpack("<qq", self._data[start + 4 : end])]
