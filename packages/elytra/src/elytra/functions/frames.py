"""Frames between an executor and the process of a function: a kind, a length, and that many bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from sennit_core.errors import SennitError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FRAME_BYTES_MAX",
    "KINDS",
    "BadFrame",
    "read_frame",
    "rows_bytes",
    "rows_of_bytes",
    "write_frame",
]

FRAME_BYTES_MAX = 4 << 20
"""Also the largest row that a function receives or returns; both ends hold a frame or two."""

KINDS = {
    "start": b"S",  # to the process: the step and its program, as JSON
    "ready": b"G",  # from the process: it is confined, and compiles the program now
    "rows": b"R",  # either way: a batch as an Arrow IPC stream
    "more": b"M",  # from the process: it waits for rows
    "end": b"E",  # either way: no rows follow
    "failed": b"F",  # from the process: an error as JSON; it ends
}
_HEAD = struct.Struct("=cI")


class BadFrame(ValueError):
    """The other process sent what is no frame, or no rows."""


def write_frame(
    file: int,
    kind: str,
    payload: bytes | memoryview = b"",
    wait: Callable[[], None] | None = None,
) -> None:
    """Write a frame to a descriptor; BrokenPipeError if the other process has ended.

    Args:
        file: The descriptor.
        kind: One of `KINDS`.
        payload: At most `FRAME_BYTES_MAX` bytes.
        wait: Waits until the descriptor accepts bytes, if it does not block.
    """
    assert len(payload) <= FRAME_BYTES_MAX, "the caller cuts rows"
    for part in (_HEAD.pack(KINDS[kind], len(payload)), payload):
        view = memoryview(part)
        while view:
            if wait is not None:
                wait()
            view = view[os.write(file, view) :]


def read_frame(read: Callable[[int], bytes]) -> tuple[str, bytes]:
    """Read a frame.

    Args:
        read: Returns that many bytes; raises EOFError if there are no more.

    Raises:
        BadFrame: The bytes are no frame.
    """
    mark, size = _HEAD.unpack(read(_HEAD.size))
    kind = next((name for name, each in KINDS.items() if each == mark), None)
    if kind is None or size > FRAME_BYTES_MAX:
        raise BadFrame("it sent bytes that are no frame")
    return kind, read(size)


def rows_bytes(batch: pa.RecordBatch) -> memoryview:
    """Return a batch as an Arrow IPC stream; its size is what `FRAME_BYTES_MAX` limits."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def rows_of_bytes(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch of `rows_bytes`, checked in full: the process may have sent anything.

    Raises:
        BadFrame: It is not one batch of these columns.
    """
    import pyarrow as pa

    from sennit_core.arrow_ipc import open_arrow

    source = pa.BufferReader(data)
    try:
        # A compressed batch may be larger than its frame; it may not be larger than two.
        with open_arrow(
            source, "the rows of a function", batch_bytes_max=2 * FRAME_BYTES_MAX
        ) as reader:
            if not reader.schema.equals(schema):
                raise BadFrame("its rows have other columns")
            batches = list(islice(reader, 2))
    except SennitError as problem:
        raise BadFrame(f"its rows are no Arrow data: {problem}") from None
    if len(batches) != 1:
        raise BadFrame("a frame of rows has not exactly one batch")
    return batches[0]
