"""Memory under NULL never reaches a stream."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from emsqrt.io.formats import open_format
from emsqrt.io.null_slots import clear_null_slots

ROWS = 1000
MARK = b"OTHERROW"
VALID = pa.array([row % 3 == 0 for row in range(ROWS)])
BITMAP = pa.py_buffer(np.packbits(VALID.to_numpy(zero_copy_only=False), bitorder="little"))


def marked(kind: pa.DataType) -> pa.Array:
    """A column whose slots under NULL hold the mark, and the others zeros."""
    width = kind.byte_width
    dirty = (MARK * width)[:width]
    data = b"".join(bytes(width) if valid.as_py() else dirty for valid in VALID)
    return pa.Array.from_buffers(kind, ROWS, [BITMAP, pa.py_buffer(data)])


def nested(kind: pa.DataType) -> pa.Array:
    """Rows of one marked number each; where the row is NULL its number is not."""
    numbers = marked(pa.int64())
    bare = pa.Array.from_buffers(pa.int64(), ROWS, [None, numbers.buffers()[1]])
    if pa.types.is_struct(kind):
        return pa.Array.from_buffers(kind, ROWS, [BITMAP], children=[bare])
    if pa.types.is_fixed_size_list(kind):
        return pa.Array.from_buffers(kind, ROWS, [BITMAP], children=[bare])
    offsets = pa.py_buffer(np.arange(ROWS + 1, dtype=np.int32))
    return pa.Array.from_buffers(kind, ROWS, [None, offsets], children=[numbers])


COLUMNS = [
    *map(marked, [pa.int64(), pa.float64(), pa.decimal128(38, 2), pa.timestamp("us"), pa.int32()]),
    marked(pa.binary(24)),
    *map(nested, [pa.struct([("a", pa.int64())]), pa.list_(pa.int64(), 1), pa.list_(pa.int64())]),
]


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("rows", [200, ROWS - 5])
@pytest.mark.parametrize("column", COLUMNS, ids=[str(column.type) for column in COLUMNS])
def test_slots_under_null_are_zeros(column: pa.Array, rows: int, start: int) -> None:
    batch = pa.record_batch({"x": column}).slice(start, rows)
    written = bytearray()

    with open_format("arrow", batch.schema, written.extend) as writer:
        writer.write(batch)

    assert MARK[:4] not in written
    assert pa.ipc.open_stream(bytes(written)).read_all().to_batches()[0].equals(batch)


def dirty_values(kind: pa.DataType) -> list[object]:
    """Values for columns whose memory is set by Arrow itself, with NULLs among them."""
    return [
        None if row % 3 else pa.scalar(row % 2, pa.int8()).cast(kind).as_py() for row in range(99)
    ]


PLAIN: list[pa.Array] = [
    *(pa.array(dirty_values(kind), kind) for kind in (pa.bool_(), pa.int8(), pa.float64())),
    pa.array(
        [None if row % 3 else [("k", None if row % 2 else row)] for row in range(99)],
        pa.map_(pa.utf8(), pa.int64()),
    ),
    pa.array([None if row % 3 else [None, row] for row in range(99)], pa.list_(pa.int64())),
    pa.array([None if row % 3 else "ab"[row % 2] for row in range(99)]).dictionary_encode(),
    pa.array([None if row % 3 else b"" for row in range(99)], pa.binary(0)),
    pa.nulls(99),
    pa.nulls(99, pa.int64()),
    pa.array([None if row % 3 else (1, row, 5) for row in range(99)], pa.month_day_nano_interval()),
    pa.array([None if row % 3 else {"a": row, "b": None} for row in range(99)]),
    pa.array([None if row % 3 else "text" for row in range(99)]),
]


@pytest.mark.parametrize("start", [0, 1, 7])
@pytest.mark.parametrize("column", PLAIN, ids=[str(column.type) for column in PLAIN])
def test_values_stay_as_they_are(column: pa.Array, start: int) -> None:
    batch = pa.record_batch({"x": column}).slice(start, 60)

    cleared = clear_null_slots(batch)

    cleared.validate(full=True)
    assert cleared.equals(batch)
    assert cleared.schema.equals(batch.schema)
