from __future__ import annotations

import io
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.emitter import PIECE_BYTES, BufferedEmitter
from emsqrt.io.formats import open_format
from emsqrt.io.messages import MessageStream

HALF = PIECE_BYTES // 2
SIZES = st.sampled_from([0, 1, 100, HALF - 1, HALF, HALF + 1, PIECE_BYTES, PIECE_BYTES + 1])


@pytest.mark.slow
@given(st.lists(SIZES, max_size=12))
def test_pieces_are_the_bytes_put_in_order_and_never_tiny_ones_in_a_row(sizes: list[int]) -> None:
    emitted: list[bytes] = []
    pieces = BufferedEmitter(lambda piece: emitted.append(bytes(piece)))
    data = [bytes([at]) * size for at, size in enumerate(sizes)]
    assert [pieces.put(each) for each in data] == sizes
    pieces.flush()
    assert b"".join(emitted) == b"".join(data)
    assert pieces.bytes == sum(sizes)
    assert all(len(a) + len(b) > HALF for a, b in pairwise(emitted))


def test_a_large_buffer_goes_out_as_it_is() -> None:
    emitted: list[memoryview] = []
    large = bytes(HALF + 1)
    BufferedEmitter(emitted.append).put(large)
    assert emitted[0].obj is large


def read(*batches: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Write batches as a stream and read it."""
    file = io.BytesIO()
    stream = MessageStream(batches[0].schema, file.write)
    for batch in batches:
        stream.write(batch)
    stream.close()
    with pa.ipc.open_stream(file.getvalue()) as reader:
        return list(reader)


@pytest.mark.parametrize("rows", [0, 1, 1000, 20_000])
def test_batches_small_and_large_make_one_stream(rows: int) -> None:
    batch = pa.record_batch({"n": range(rows), "s": [f"row {n}" for n in range(rows)]})
    small = batch.slice(0, 1)
    assert read(batch, small, batch, small) == [batch, small, batch, small]


@pytest.mark.slow
def test_a_batch_over_four_mebibytes_is_sliced() -> None:
    batch = pa.record_batch({"n": range(1_400_000)})
    found = read(batch)
    assert [part.num_rows for part in found] == [466_667, 466_667, 466_666]
    assert pa.Table.from_batches(found) == pa.Table.from_batches([batch])


def dictionary(*values: str) -> pa.RecordBatch:
    column = pa.array(values).dictionary_encode()
    nested = pa.array([{"d": value} for value in values], pa.struct([("d", column.type)]))
    return pa.record_batch({"top": column, "nested": nested})


def test_dictionaries_travel_and_may_change() -> None:
    batches = dictionary("a", "b", "a"), dictionary("c"), dictionary("c").slice(0, 0)
    assert read(*batches) == list(batches)


def test_a_stream_without_batches_still_says_its_schema() -> None:
    for schema in (dictionary("a").schema, pa.schema([("n", pa.int64())]), pa.schema([])):
        file = io.BytesIO()
        MessageStream(schema, file.write).close()
        with pa.ipc.open_stream(file.getvalue()) as reader:
            assert (reader.schema, list(reader)) == (schema, [])


def test_an_arrow_answer_has_nested_dictionaries_whole() -> None:
    batch = dictionary("a", "b", "a")
    file = io.BytesIO()
    with open_format("arrow", batch.schema, file.write) as writer:
        writer.write(batch)
    with pa.ipc.open_stream(file.getvalue()) as reader:
        assert reader.read_all().to_pylist() == batch.to_pylist()
