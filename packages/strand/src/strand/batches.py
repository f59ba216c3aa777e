"""Arrow batches as payloads of a block ring: encapsulated IPC messages, one to a record.

The first payload of a stream is the schema message, each later one a record batch message
(Arrow columnar format, "Serialization and interprocess communication").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sennit_core.errors import Corrupt, InternalError, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BatchEncoder", "decode_batch", "decode_schema", "encode_schema", "slice_batch"]


def encode_schema(schema: pa.Schema) -> pa.Buffer:
    """Return the schema message.

    Raises:
        Unsupported: a dictionary-encoded column, whose dictionaries are messages of their own.
    """
    for field in schema:
        if _has_dictionary(field.type):
            raise Unsupported(
                f"column {field.name!r} is dictionary-encoded",
                hint="cast it to its value type before writing it to a ring",
            )
    return schema.serialize()


def slice_batch(batch: pa.RecordBatch, target_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield slices and the sizes of their messages, at most `target_bytes` where rows allow it."""
    size = pa.ipc.get_record_batch_size(batch)
    if batch.num_rows < 2 or size <= target_bytes:
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from slice_batch(batch.slice(0, half), target_bytes)
    yield from slice_batch(batch.slice(half), target_bytes)


class BatchEncoder:
    """Writes record batch messages of one schema straight into memory, without one in between.

    Arrow writes messages to a stream only together with the schema, so one stream lives as long as
    the encoder; what it writes first, schema and an empty batch, goes nowhere.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        """Start for batches with the schema of this one."""
        self._sink = _Sink()
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), batch.schema)
        self._stream.write_batch(batch.slice(0, 0))

    def encode_into(self, target: memoryview, batch: pa.RecordBatch) -> None:
        """Fill `target`, which has exactly the size of the batch's message."""
        self._sink.start(target)
        self._stream.write_batch(batch)
        if self._sink.at != len(target):
            raise InternalError(f"an Arrow message of {len(target)} bytes took {self._sink.at}")


class _Sink:
    """The file that Arrow writes to: a piece of shared memory."""

    closed = False

    def __init__(self) -> None:
        self.at = 0
        self._target: memoryview | None = None

    def start(self, target: memoryview) -> None:
        self.at = 0
        self._target = target

    def write(self, data: Buffer) -> int:
        piece = memoryview(data).cast("B")
        if self._target is not None:
            self._target[self.at : self.at + len(piece)] = piece
        self.at += len(piece)
        return len(piece)

    def flush(self) -> None:
        """Nothing waits anywhere."""


def decode_schema(payload: Buffer) -> pa.Schema:
    """Read the schema message."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(bytes(payload)))
    except (pa.ArrowInvalid, OSError) as error:
        raise Corrupt("the stream's Arrow schema", found=str(error)) from error


def decode_batch(payload: Buffer, schema: pa.Schema, *, copy: bool) -> pa.RecordBatch:
    """Read a record batch message, over the payload itself or over a copy of it."""
    buffer = pa.py_buffer(payload)
    if copy:
        buffer = _copy(buffer)
    try:
        return pa.ipc.read_record_batch(buffer, schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise Corrupt("an Arrow batch in the ring", found=str(error)) from error


def _copy(buffer: pa.Buffer) -> pa.Buffer:
    """Copy into Arrow's pool, which has warm pages where a new `bytes` has to fault them in."""
    copied = pa.allocate_buffer(buffer.size)
    memoryview(copied)[:] = memoryview(buffer)
    return copied


def _has_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(at).type) for at in range(kind.num_fields))
