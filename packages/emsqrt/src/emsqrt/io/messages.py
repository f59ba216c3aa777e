"""Write Arrow batches as one IPC stream, copying their bytes once on the way to the receiver.

Serializing a whole batch first would cost more than the copy: an executor's allocator gets each
large block from the kernel and returns it, so all its pages are new. So Arrow writes buffer by
buffer, except for small batches, for which many writes would cost more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emsqrt.io.null_slots import clear_null_slots
from strand.batches import has_dictionaries

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MessageStream"]

_SERIALIZED_BYTES_MAX = 64 << 10
_MESSAGE_BYTES_MAX = 4 << 20


class MessageStream:
    """Writes batches of any one Arrow schema; a dictionary is written again when it changes.

    Batches over 4 MiB are sliced by rows, so that no reader needs much memory at once.

    Args:
        schema: the schema of every batch.
        put: receives the bytes, in order, and returns their length.
    """

    def __init__(self, schema: pa.Schema, put: Callable[[Any], int]) -> None:
        self._put = put
        self._serializes = not has_dictionaries(schema)
        self._file = _File(_drop if self._serializes else put)
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._file, mode="w"), schema)
        if self._serializes:
            # Arrow writes the schema with its first batch; ours may go past its stream
            self._stream.write_batch(pa.RecordBatch.from_pylist([], schema))
            self._file.write = put
            put(schema.serialize())

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch, with zeros in the slots under NULL."""
        size = pa.ipc.get_record_batch_size(batch)
        if size <= _SERIALIZED_BYTES_MAX and self._serializes:
            self._put(clear_null_slots(batch).serialize())
            return
        slices = min(size // _MESSAGE_BYTES_MAX + 1, max(batch.num_rows, 1))
        rows = -(-batch.num_rows // slices)
        for at in range(slices):
            self._stream.write_batch(clear_null_slots(batch.slice(at * rows, rows)))

    def write_message(self, message: Buffer) -> None:
        """Write a message of a batch, with zeros in the slots under NULL.

        The schema has no dictionaries.
        """
        assert self._serializes, "Arrow's stream numbers the dictionaries"
        self._put(message)

    def close(self) -> None:
        """Write the end of the stream."""
        self._stream.close()


class _File:
    """The file that Arrow writes to."""

    closed = False

    def __init__(self, write: Callable[[Any], int]) -> None:
        self.write = write

    def flush(self) -> None:
        """Do nothing: the emitter decides when to flush."""


def _drop(data: Buffer) -> int:
    return memoryview(data).nbytes
