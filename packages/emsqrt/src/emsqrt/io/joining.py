"""Join the small batches of a reader to messages of an Arrow IPC stream.

The rows of a query are read a few at a time, because a row may be wide; a client receives messages
of 512 KiB. The kernel copies the buffers of the batches once, to their places in the message, where
Arrow would copy them to a joined batch in fresh pages, and from there to the stream.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as kinds

from emsqrt._kernel import BatchJoiner

__all__ = ["Layouts", "Message", "join_batches", "layouts_of"]

MESSAGE_BYTES = 512 << 10
"""Messages of 1 MiB cost the same CPU here and more in the processes that forward and receive them,
whose allocators return blocks of that size to the kernel; each message also costs switches of
threads there, so that shorter ones cost more again."""
_FIRST_BYTES = 64 << 10
"""Memory of the first message: most results are no longer, and fresh pages cost time."""
_FIXED, _BITS, _TEXT, _LARGE_TEXT = range(4)
_STATUS = re.compile(
    r"(?:Invalid|IOError|Out of memory|Not ?[Ii]mplemented|Cancelled|Unknown error): "
)

Layouts = tuple[tuple[int, int], ...]
"""How the kernel finds the values of each column: a form, and the bytes of a value."""


class Message(NamedTuple):
    """A message of an IPC stream.

    Args:
        rows: Its rows.
        data: Its metadata and body; valid until the next message is requested.
    """

    rows: int
    data: memoryview


def layouts_of(schema: pa.Schema) -> Layouts | None:
    """Return the layouts of the columns; None if one has children, a dictionary or views."""
    layouts = []
    for kind in schema.types:
        if kinds.is_boolean(kind):
            layouts.append((_BITS, 0))
        elif kinds.is_string(kind) or kinds.is_binary(kind):
            layouts.append((_TEXT, 0))
        elif kinds.is_large_string(kind) or kinds.is_large_binary(kind):
            layouts.append((_LARGE_TEXT, 0))
        elif kinds.is_fixed_size_binary(kind) or kinds.is_decimal(kind) or kinds.is_primitive(kind):
            layouts.append((_FIXED, kind.byte_width))
        else:
            return None
    return tuple(layouts)


def join_batches(
    reader: pa.RecordBatchReader, layouts: Layouts, rows_max: int | None = None
) -> Iterator[Message | pa.RecordBatch]:
    """Yield the rows as messages of up to `MESSAGE_BYTES`; a batch that is larger as it is.

    Args:
        reader: the batches.
        layouts: of the reader's schema.
        rows_max: a batch that begins before this row and ends after it is yielded as it is, too.

    Raises:
        OSError, MemoryError: the reader has failed.
    """
    left = sys.maxsize if rows_max is None else rows_max
    # Alignment: CPython allocates at multiples of 16, and the data of a bytearray has no header.
    memory = memoryview(bytearray(_FIRST_BYTES))
    with closing(BatchJoiner(reader.__arrow_c_stream__(), layouts)) as joiner:
        while True:
            rows, size = _read(joiner, memory, left)
            if rows:
                yield Message(rows, memory[:size])
            elif (taken := joiner.take()) is None:
                return
            else:
                batch = pa.record_batch(_Exported(reader.schema, taken))
                rows = batch.num_rows
                yield batch
                del batch, taken  # otherwise they would stay in memory while the next one is made
            left = max(0, left - rows)
            if len(memory) == _FIRST_BYTES:
                with suppress(MemoryError):  # small messages cost only time
                    memory = memoryview(bytearray(MESSAGE_BYTES))


class _Exported:
    """A batch that Arrow imports, which is the public way for a capsule."""

    def __init__(self, schema: pa.Schema, array: object) -> None:
        self._schema = schema
        self._array = array

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._schema.__arrow_c_schema__(), self._array


def _read(joiner: BatchJoiner, memory: memoryview, rows_max: int) -> tuple[int, int]:
    try:
        return joiner.read_into(memory, rows_max)
    except OSError as error:
        # Arrow's reader would raise the text without the name of its status.
        raise OSError(_STATUS.sub("", str(error), count=1)) from None
