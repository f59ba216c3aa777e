"""Between Arrow IPC streams and the messages of Flight that carry their parts.

The bytes are moved, and not decoded: results come from an executor, which wrote them, and what a
client sends is read by an executor, which may check it under a memory cap of its own.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from lake.flight.messages import FlightData
from lake.flight.protobuf import varint
from sennit_core.arrow_messages import Kind, MessageHead, read_head
from sennit_core.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["IpcWriter", "encapsulated", "flight_messages", "messages_of_table"]

_HEADER_TAG = varint(2 << 3 | 2)
_BODY_TAG = varint(1000 << 3 | 2)
_MARK = 0xFFFFFFFF
_END_OF_STREAM = struct.pack("<II", _MARK, 0)
_ALIGNMENT = 8


def flight_messages(payloads: Iterable[memoryview]) -> Iterator[bytes]:
    """Yield each message of an IPC stream as an encoded FlightData.

    Args:
        payloads: The stream in pieces, cut anywhere; each is valid until the next is requested.
    """
    pieces = _Pieces(payloads)
    while (head := read_head(pieces.read)) is not None:
        # One copy of the body: `getvalue` does not copy, which `b"".join` of pieces would.
        out = io.BytesIO()
        out.write(_HEADER_TAG + varint(len(head.metadata)) + head.metadata)
        if head.body_bytes:
            out.write(_BODY_TAG + varint(head.body_bytes))
            pieces.copy(head.body_bytes, out.write)
        yield out.getvalue()


def messages_of_table(table: pa.Table) -> Iterator[bytes]:
    """Yield a table in memory as encoded FlightData."""
    parts = (table.schema, *table.to_batches())
    return flight_messages(memoryview(part.serialize()) for part in parts)


def encapsulated(payloads: Iterable[memoryview]) -> bytes:
    """Return the schema at the beginning of an IPC stream, as the message that Flight expects."""
    head = read_head(_Pieces(payloads).read)
    if head is None or head.kind != Kind.SCHEMA:
        raise BadInput("the result", reason="it does not begin with a schema")
    return _prefixed(head)


class IpcWriter:
    """Writes FlightData of a client as an IPC stream, which is not checked beyond its framing.

    Args:
        write: Receives the bytes.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.rows = 0
        """Rows of all batches, as they announce them."""
        self._messages = 0

    def put(self, data: FlightData) -> None:
        """Append a message; one without a header has nothing for the stream.

        Raises:
            BadInput: Its header is damaged, or does not fit its body.
        """
        if not data.data_header:
            return
        header, body = data.data_header, data.data_body or b""
        try:
            head = read_head(io.BytesIO(struct.pack("<II", _MARK, len(header)) + header).read)
        except (ValueError, struct.error) as error:
            raise self._bad(str(error)) from None
        if head is None or (head.kind == Kind.SCHEMA) != (self._messages == 0):
            raise self._bad("a stream is one schema, then batches")
        if head.body_bytes != len(body):
            raise self._bad(f"a body of {len(body)} bytes, announced as {head.body_bytes}")
        self.rows += head.rows if head.kind == Kind.BATCH else 0
        self._messages += 1
        self._write(_prefixed(head))
        if body:
            self._write(body)

    def close(self) -> None:
        """Write the end of the stream.

        Raises:
            BadInput: There was no schema.
        """
        if not self._messages:
            raise self._bad("no schema")
        self._write(_END_OF_STREAM)

    def _bad(self, reason: str) -> BadInput:
        return BadInput(f"message {self._messages} of the Arrow data", reason=reason)


def _prefixed(head: MessageHead) -> bytes:
    """Return a message's metadata with its length before it, padded so that the body is aligned."""
    padding = -len(head.metadata) % _ALIGNMENT
    prefix = struct.pack("<II", _MARK, len(head.metadata) + padding)
    return prefix + head.metadata + bytes(padding)


class _Pieces:
    """Reads a stream that arrives in pieces; keeps no reference to a piece that is used up."""

    def __init__(self, payloads: Iterable[memoryview]) -> None:
        self._rest = iter(payloads)
        self._piece = memoryview(b"")
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        end = self._at + size
        if end <= len(self._piece):
            whole = bytes(self._piece[self._at : end])
            self._at = end
            return whole
        parts: list[bytes] = []
        self.copy(size, lambda part: parts.append(bytes(part)))
        return b"".join(parts)

    def copy(self, size: int, write: Callable[[memoryview], object]) -> None:
        """Write the next `size` bytes, fewer at the end."""
        while size:
            if self._at == len(self._piece):
                self._piece, self._at = memoryview(b""), 0  # its owner may reuse the memory
                following = next(self._rest, None)
                if following is None:
                    return
                self._piece = following
                del following
            end = min(self._at + size, len(self._piece))
            write(self._piece[self._at : end])
            size -= end - self._at
            self._at = end
