"""Arrow batches as payloads of a block ring.

The first payload of a stream is the schema message. Each later one is a record batch message
(Arrow columnar format, "Serialization and interprocess communication"). If the schema has
dictionaries, whose values are separate messages, it is a whole IPC stream of one batch instead:
schema, dictionaries, batch. The kind of the first message distinguishes the two.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sennit_core.arrow_ipc import DAMAGE, check_head, check_schema, open_arrow, validate_batch
from sennit_core.arrow_messages import (
    ROWS_WITHOUT_BYTES,
    Kind,
    MessageHead,
    plain_bytes,
    read_head,
)
from sennit_core.errors import BadInput, Corrupt, InternalError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "BatchEncoder",
    "decode_batch",
    "decode_schema",
    "encode_schema",
    "has_dictionaries",
]


# MemoryError: a damaged length may request more memory than is available.
_DAMAGE: tuple[type[Exception], ...] = (
    *DAMAGE,
    ValueError,
    struct.error,
    StopIteration,
    MemoryError,
)


def encode_schema(schema: pa.Schema) -> pa.Buffer:
    """Return the schema message."""
    return schema.serialize()


class BatchEncoder:
    """Writes payloads of one schema directly into shared memory, without an intermediate copy.

    Arrow's stream writer begins with the schema. So one stream is kept for the lifetime of the
    encoder, and its first output (the schema and an empty batch) is discarded.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        """Start for batches with the schema of this one."""
        self._whole_streams = has_dictionaries(batch.schema)
        if self._whole_streams:
            return
        self._sink = _Sink()
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), batch.schema)
        self._stream.write_batch(batch.slice(0, 0))

    def slices(
        self, batch: pa.RecordBatch, target_bytes: int
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield slices and their payloads' sizes, at most `target_bytes` where rows allow it.

        Data that every slice repeats, such as dictionaries, may need as many bytes again.

        Args:
            batch: a batch of the encoder's schema.
            target_bytes: half of the largest payload of the ring.
        """
        size = self._payload_bytes(batch)
        if size > target_bytes:
            ends = batch.slice(0, 1), batch.slice(batch.num_rows - 1)
            if min(map(self._payload_bytes, ends)) > target_bytes // 2:
                target_bytes *= 2
        return self._cut(batch, size, target_bytes)

    def encode(self, batch: pa.RecordBatch) -> pa.Buffer:
        """Return the batch's payload: for small batches, which are faster to copy."""
        if not self._whole_streams:
            return batch.serialize()
        sink = pa.BufferOutputStream()
        _write_stream(sink, batch)
        return sink.getvalue()

    def encode_into(self, target: memoryview, batch: pa.RecordBatch) -> None:
        """Fill `target`, which has exactly the size of the batch's payload."""
        if self._whole_streams:
            with pa.FixedSizeBufferWriter(pa.py_buffer(target)) as sink:
                _write_stream(sink, batch)
                written = sink.tell()
        else:
            self._sink.start(target)
            self._stream.write_batch(batch)
            written = self._sink.finish()
        if written != len(target):
            raise InternalError(f"an Arrow payload of {len(target)} bytes has {written}")

    def _cut(
        self, batch: pa.RecordBatch, size: int, target_bytes: int
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        if batch.num_rows < 2 or size <= target_bytes:
            yield batch, size
            return
        pieces = max(2, size // (target_bytes - target_bytes // 16) + 1)  # rows differ in size
        rows = -(-batch.num_rows // pieces)
        for start in range(0, batch.num_rows, rows):
            piece = batch.slice(start, rows)
            yield from self._cut(piece, self._payload_bytes(piece), target_bytes)

    def _payload_bytes(self, batch: pa.RecordBatch) -> int:
        if not self._whole_streams:
            return int(pa.ipc.get_record_batch_size(batch))
        sink = pa.MockOutputStream()
        _write_stream(sink, batch)
        return int(sink.size())


class _Sink:
    """The file that Arrow writes to: a memoryview of claimed heap bytes."""

    closed = False

    def __init__(self) -> None:
        self._at = 0
        self._target: memoryview | None = None

    def start(self, target: memoryview) -> None:
        self._at = 0
        self._target = target

    def finish(self) -> int:
        """Release the target; return how many bytes were written."""
        self._target = None
        return self._at

    def write(self, data: Buffer) -> int:
        piece = memoryview(data).cast("B")
        count = len(piece)
        if self._target is not None:
            self._target[self._at : self._at + count] = piece
        self._at += count
        return count

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""


def decode_schema(payload: Buffer) -> pa.Schema:
    """Read the schema message.

    Raises:
        Corrupt: The payload is not a schema message, or its columns cannot be read safely.
    """
    what = "the stream's Arrow schema"
    message = pa.py_buffer(bytes(payload))
    try:
        with pa.BufferReader(message) as file:
            head = read_head(file.read)
        if head is None or head.kind != Kind.SCHEMA:
            raise Corrupt(what, "a schema message", "another message")
        return check_schema(pa.ipc.read_schema(message), what)
    except BadInput as error:
        raise Corrupt(what, found=error.reason) from error
    except _DAMAGE as error:
        raise Corrupt(what, found=str(error)) from error


def decode_batch(payload: Buffer, schema: pa.Schema, *, copy: bool) -> pa.RecordBatch:
    """Decode a batch's payload, in place or from a copy of it.

    The producer may be an untrusted process, so the batch is validated in full. Without a copy the
    result stays valid only if the producer does not change committed records, as no producer of
    this package does.

    Raises:
        Corrupt: the payload is neither a record batch message nor a stream of one batch of this
            schema, or its offsets or values are invalid.
    """
    buffer = pa.py_buffer(payload)
    if copy:
        buffer = _copy(buffer)
    what = "an Arrow batch in the ring"
    with pa.BufferReader(buffer) as file:
        try:
            head = read_head(file.read)
            if head is not None and head.kind == Kind.BATCH:
                _check_sizes(head, buffer)
                check_head(head, schema)
                batch = pa.ipc.read_record_batch(buffer, schema)
                return validate_batch(batch, what)
            file.seek(0)
            with open_arrow(file, what) as stream:
                if not stream.schema.equals(schema):
                    raise Corrupt(what, str(schema), str(stream.schema))
                return next(iter(stream))
        except BadInput as error:
            raise Corrupt(what, found=error.reason) from error
        except _DAMAGE as error:
            raise Corrupt(what, found=str(error)) from error


def _check_sizes(head: MessageHead, payload: pa.Buffer) -> None:
    """Refuse a body longer than its payload, and row counts that its bytes cannot hold."""
    at = payload.size - head.body_bytes
    if at < 0:
        raise ValueError(f"a body of {head.body_bytes} bytes in a payload of {payload.size}")
    plain = plain_bytes(head, lambda start, size: payload.slice(at + start, size).to_pybytes())
    longest = max([head.rows, *(length for length, _ in head.nodes)])
    if longest > ROWS_WITHOUT_BYTES + 8 * plain:
        raise ValueError(f"{longest} rows in a body of {plain} bytes")


def _copy(buffer: pa.Buffer) -> pa.Buffer:
    """Copy into Arrow's pool, whose pages are already mapped; a new `bytes` would fault them in."""
    copied = pa.allocate_buffer(buffer.size)
    memoryview(copied)[:] = memoryview(buffer)
    return copied


def _write_stream(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)


def has_dictionaries(schema: pa.Schema) -> bool:
    """Whether a column, or a type nested in one, is dictionary-encoded."""
    return any(_has_dictionary(field.type) for field in schema)


def _has_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type)
    return any(_has_dictionary(kind.field(at).type) for at in range(kind.num_fields))
