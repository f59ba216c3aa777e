from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.joining import MESSAGE_BYTES, Message, join_batches, layouts_of

SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "flag": pa.bool_(),
        "text": pa.string(),
        "long": pa.large_binary(),
        "money": pa.decimal128(9, 2),
        "day": pa.date32(),
        "key": pa.binary(3),
        "span": pa.month_day_nano_interval(),
    }
)
VALUES = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.booleans(),
    st.none() | st.text(max_size=6),
    st.none() | st.binary(max_size=6),
    st.none() | st.decimals(Decimal(-9999999), Decimal(9999999), places=2),
    st.none() | st.dates(datetime.date(1900, 1, 1)),
    st.none() | st.binary(min_size=3, max_size=3),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
)


@st.composite
def batches(draw: st.DrawFn) -> list[pa.RecordBatch]:
    """Batches of few rows, some of them slices, so that bits and texts begin anywhere."""
    made = []
    for rows in draw(st.lists(st.lists(VALUES, max_size=20), max_size=5)):
        columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
        arrays = [
            pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
        made.append(batch.slice(draw(st.integers(0, len(rows)))) if draw(st.booleans()) else batch)
    return made


def joined(
    batches: list[pa.RecordBatch], rows_max: int | None = None
) -> list[Message | pa.RecordBatch]:
    schema = batches[0].schema
    layouts = layouts_of(schema)
    assert layouts is not None
    reader = pa.RecordBatchReader.from_batches(schema, iter(batches))
    return [
        Message(piece.rows, memoryview(bytes(piece.data))) if isinstance(piece, Message) else piece
        for piece in join_batches(reader, layouts, rows_max)
    ]


def read(message: Message, schema: pa.Schema) -> pa.RecordBatch:
    batch = pa.ipc.read_record_batch(pa.py_buffer(message.data), schema)
    batch.validate(full=True)
    return batch


@given(batches())
def test_a_message_has_the_rows_of_all_batches(given: list[pa.RecordBatch]) -> None:
    expected = pa.Table.from_batches(given, SCHEMA)
    pieces = joined([*given, pa.RecordBatch.from_pylist([], SCHEMA)])
    found = [read(piece, SCHEMA) for piece in pieces if isinstance(piece, Message)]
    assert len(found) == len(pieces) == (1 if expected.num_rows else 0)
    assert pa.Table.from_batches(found, SCHEMA).equals(expected)


def test_slots_under_null_are_zero() -> None:
    words = np.arange(1, 5, dtype="int64")
    number = pa.Array.from_buffers(pa.int64(), 4, [pa.py_buffer(b"\x05"), pa.py_buffer(words)])
    flag = pa.Array.from_buffers(pa.bool_(), 4, [pa.py_buffer(b"\x05"), pa.py_buffer(b"\xff")])
    batch = pa.record_batch({"number": number, "flag": flag})

    (message,) = joined([batch])

    assert isinstance(message, Message)
    found = read(message, batch.schema)
    assert found.column(0).buffers()[1].to_pybytes()[:32] == words.tobytes()[:8] + bytes(8) + (
        words.tobytes()[16:24] + bytes(8)
    )
    assert found.column(1).buffers()[1].to_pybytes()[:1] == b"\x05"


def test_messages_have_their_size_and_a_wide_row_is_its_own_batch() -> None:
    wide = pa.record_batch({"text": ["y" * (2 * MESSAGE_BYTES)]})
    narrow = [pa.record_batch({"text": ["x" * 1000] * 100}) for _ in range(30)]

    pieces = joined([*narrow, wide, *narrow])

    sizes = [len(each.data) for each in pieces if isinstance(each, Message)]
    assert sorted(sizes)[-10] > MESSAGE_BYTES * 3 // 4
    assert max(sizes) <= MESSAGE_BYTES
    assert [each.num_rows for each in pieces if isinstance(each, pa.RecordBatch)][-1:] == [1]
    rows = [each.rows if isinstance(each, Message) else each.num_rows for each in pieces]
    assert sum(rows) == 6001


def test_the_batch_in_which_the_last_wanted_row_lies_is_not_joined() -> None:
    batch = pa.record_batch({"number": [1, 2, 3]})
    pieces = joined([batch] * 4, rows_max=7)
    assert isinstance(pieces[0], Message)
    assert pieces[0].rows == 6
    assert pieces[1] == batch


def test_an_error_of_the_reader_has_its_own_text() -> None:
    def fail() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"number": [1]})
        raise pa.ArrowInvalid("Conversion Error: no number")

    schema = pa.schema({"number": pa.int64()})
    reader = pa.RecordBatchReader.from_batches(schema, fail())
    with pytest.raises(OSError, match=r"^Conversion Error: no number"):
        list(join_batches(reader, ((0, 8),)))


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int8()),
        pa.struct({"a": pa.int8()}),
        pa.dictionary(pa.int8(), pa.string()),
        pa.string_view(),
        pa.null(),
    ],
)
def test_a_column_that_is_not_flat_has_no_layout(kind: pa.DataType) -> None:
    assert layouts_of(pa.schema({"flat": pa.int8(), "other": kind})) is None
