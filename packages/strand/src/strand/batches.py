"""Arrow batches as payloads of a block ring: encapsulated IPC messages, one to a record.

The first payload of a stream is the schema message, each later one a record batch message
(Arrow columnar format, "Serialization and interprocess communication").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sennit_core.errors import Corrupt, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["decode_batch", "decode_schema", "encode_batch", "encode_schema"]


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


def encode_batch(batch: pa.RecordBatch, target_bytes: int) -> Iterator[pa.Buffer]:
    """Yield record batch messages of at most `target_bytes` where slicing by rows can do that."""
    if batch.num_rows > 1 and pa.ipc.get_record_batch_size(batch) > target_bytes:
        half = batch.num_rows // 2
        yield from encode_batch(batch.slice(0, half), target_bytes)
        yield from encode_batch(batch.slice(half), target_bytes)
    else:
        yield batch.serialize()


def decode_schema(payload: Buffer) -> pa.Schema:
    """Read the schema message."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(bytes(payload)))
    except (pa.ArrowInvalid, OSError) as error:
        raise Corrupt("the stream's Arrow schema", found=str(error)) from error


def decode_batch(payload: Buffer, schema: pa.Schema, *, copy: bool) -> pa.RecordBatch:
    """Read a record batch message, over the payload itself or over a copy of it."""
    buffer = pa.py_buffer(bytes(payload) if copy else payload)
    try:
        return pa.ipc.read_record_batch(buffer, schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise Corrupt("an Arrow batch in the ring", found=str(error)) from error


def _has_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(at).type) for at in range(kind.num_fields))
