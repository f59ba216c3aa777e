"""Arrow batches of every type through block rings."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import random
import struct
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strand
from sennit_core.errors import Corrupt
from strand import layout
from strand.batches import BatchEncoder, decode_batch, encode_schema, has_dictionaries

DAY = dt.date(2000, 2, 29)
MOMENT = dt.datetime(1969, 12, 31, 23, 59, 59, 123456)  # noqa: DTZ001 - Arrow adds the zone
LEAVES: tuple[tuple[pa.DataType, Callable[[int], Any]], ...] = (
    (pa.null(), lambda _: None),
    (pa.bool_(), lambda n: n % 2 == 0),
    (pa.int8(), lambda n: n % 100),
    (pa.uint64(), lambda n: n % 2**64),
    (pa.float64(), lambda n: n / 7),
    (pa.string(), lambda n: "é\0x" * (n % 9)),
    (pa.large_string(), lambda n: "long " * (n % 40)),
    (pa.string_view(), lambda n: "a view " * (n % 5)),
    (pa.binary(), lambda n: bytes(n % 11)),
    (pa.binary_view(), lambda n: bytes(n % 30)),
    (pa.binary(3), lambda n: bytes([n % 256] * 3)),
    (pa.decimal128(9, 2), lambda n: Decimal(n % 10**7).scaleb(-2)),
    (pa.decimal256(60, 5), lambda n: Decimal(n).scaleb(-5)),
    (pa.date32(), lambda n: DAY + dt.timedelta(n % 9999)),
    (pa.date64(), lambda n: DAY - dt.timedelta(n % 9999)),
    (pa.time64("us"), lambda n: dt.time(n % 24, 1, 2, 3)),
    (pa.timestamp("us"), lambda n: MOMENT + dt.timedelta(n % 9999)),
    (pa.timestamp("ns", "Asia/Kathmandu"), lambda n: MOMENT + dt.timedelta(n % 9999)),
    (pa.duration("ms"), lambda n: dt.timedelta(milliseconds=n % 10**9)),
    (pa.month_day_nano_interval(), lambda n: (n % 12, n % 31, n % 10**9)),
)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def leaves(draw: st.DrawFn, size: int, *, nulls: bool = True) -> pa.Array:
    kind, make = draw(st.sampled_from(LEAVES if nulls else LEAVES[1:]))
    number = NUMBERS | st.none() if nulls else NUMBERS
    numbers = draw(st.lists(number, min_size=size, max_size=size))
    return pa.array([None if n is None else make(n) for n in numbers], kind)


def offsets(draw: st.DrawFn, size: int) -> list[int]:
    lengths = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    return [sum(lengths[:at]) for at in range(size + 1)]


def list_of(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    ends = offsets(draw, size)
    child = draw(arrays(ends[-1], depth - 1))
    form = draw(st.sampled_from([pa.ListArray, pa.LargeListArray, pa.ListViewArray]))
    if form is pa.ListViewArray:
        sizes = [end - start for start, end in itertools.pairwise(ends)]
        return form.from_arrays(pa.array(ends[:-1], pa.int32()), pa.array(sizes, pa.int32()), child)
    mask = pa.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), pa.bool_())
    kind = pa.int64() if form is pa.LargeListArray else pa.int32()
    return form.from_arrays(pa.array(ends, kind), child, mask=mask)


def struct_of(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    children = [draw(arrays(size, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
    mask = pa.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), pa.bool_())
    return pa.StructArray.from_arrays(children, [f"f{i}" for i in range(len(children))], mask=mask)


def map_of(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    ends = offsets(draw, size)
    keys = pa.array([f"key {at}" for at in range(ends[-1])], pa.string())
    return pa.MapArray.from_arrays(ends, keys, draw(arrays(ends[-1], depth - 1)))


def dictionary_of(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    del depth
    values = draw(leaves(draw(st.integers(1, 5)), nulls=False))
    number = st.integers(0, len(values) - 1) | st.none()
    indices = draw(st.lists(number, min_size=size, max_size=size))
    kind = draw(st.sampled_from([pa.int8(), pa.int32(), pa.uint16()]))
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, kind), values, ordered=draw(st.booleans())
    )


def runs_of(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    if size == 0:
        return draw(leaves(0))
    del depth
    inner = draw(st.sets(st.integers(1, size), max_size=4))
    ends = sorted(inner | {size})
    return pa.RunEndEncodedArray.from_arrays(
        pa.array(ends, pa.int32()), draw(leaves(len(ends), nulls=False))
    )


@st.composite
def arrays(draw: st.DrawFn, size: int, depth: int = 2) -> pa.Array:
    if depth == 0 or draw(st.booleans()):
        return draw(leaves(size))
    forms = [list_of, struct_of, map_of, dictionary_of, runs_of]
    return draw(st.sampled_from(forms))(draw, size, depth)


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """Batches of any columns, or none, with as many rows, or none, sometimes cut from larger."""
    size = draw(st.integers(0, 12))
    columns = [draw(arrays(size)) for _ in range(draw(st.integers(0, 4)))]
    fields = [pa.field(f"c{i}", column.type) for i, column in enumerate(columns)]
    whole = pa.RecordBatch.from_arrays(
        [*columns, pa.nulls(size)],
        schema=pa.schema([*fields, pa.field("last", pa.null())], metadata={"who": "tests"}),
    )
    batch = whole.select(whole.schema.names[:-1])
    start = draw(st.integers(0, size))
    return batch.slice(start, draw(st.integers(0, size - start)))


def received(written: list[pa.RecordBatch], heap: str, *, copy: bool) -> list[pa.RecordBatch]:
    """Send batches through a ring; return copies of what arrives."""
    with strand.open_ring(strand.BLOCKS, 64, heap) as ring, ring.consumer() as view:

        def write() -> None:
            with ring.producer() as writer:
                for batch in written:
                    writer.write_arrow(batch)

        producer = threading.Thread(target=write)
        producer.start()
        arrived = []
        for batch in view.batches(copy=copy):
            batch.validate(full=True)
            arrived.append(pa.ipc.open_stream(stream_of(batch)).read_next_batch())
            del batch
        producer.join()
        return arrived


def stream_of(batch: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


@pytest.mark.nightly
@given(batches(), st.booleans())
@settings(max_examples=300)
def test_any_batch_travels_unchanged(batch: pa.RecordBatch, copy: bool) -> None:
    arrived = received([batch, batch.slice(batch.num_rows // 2)], "64KiB", copy=copy)
    assert arrived == [batch, batch.slice(batch.num_rows // 2)]
    assert arrived[0].schema.equals(batch.schema, check_metadata=True)
    assert [b.num_rows for b in arrived] == [batch.num_rows, -(-batch.num_rows // 2)]


def long_batch(rows: int) -> pa.RecordBatch:
    """A column of each kind, a dictionary and a list, with nulls."""
    columns = {
        str(kind): pa.array([make(n * 7919) if n % 5 else None for n in range(rows)], kind)
        for kind, make in LEAVES
    }
    columns["dictionary"] = columns["string"].dictionary_encode()
    columns["list"] = pa.array([[n] * (n % 4) for n in range(rows)])
    return pa.record_batch(columns)


@pytest.mark.parametrize("dropped", [[], ["dictionary", "string_view", "binary_view"]])
@pytest.mark.parametrize("copy", [True, False])
def test_a_batch_longer_than_the_ring_arrives_in_slices(dropped: list[str], copy: bool) -> None:
    batch = long_batch(3000).drop_columns(dropped)
    arrived = received([batch], "256KiB", copy=copy)
    assert len(arrived) > 4
    assert pa.Table.from_batches(arrived) == pa.Table.from_batches([batch])


def test_slices_are_as_few_as_their_target_allows() -> None:
    batch = pa.record_batch({"n": range(64_000), "s": [f"label {n:05}" for n in range(64_000)]})
    encoder = BatchEncoder(batch)
    pieces = list(encoder.slices(batch, 256 << 10))
    assert len(pieces) == 6  # of 1.4 MiB
    assert all(size <= 256 << 10 for _, size in pieces)
    assert [encoder.encode(piece).size for piece, _ in pieces] == [size for _, size in pieces]


def shared_dictionary(dictionary_bytes: int) -> pa.RecordBatch:
    values = pa.array(["v" * 1000 + str(n) for n in range(dictionary_bytes // 1000)])
    indices = pa.array([n % len(values) for n in range(20_000)], pa.int32())
    return pa.record_batch({"d": pa.DictionaryArray.from_arrays(indices, values)})


def test_a_dictionary_over_a_quarter_of_the_heap_goes_with_every_slice() -> None:
    batch = shared_dictionary(90_000)
    arrived = received([batch], "256KiB", copy=False)
    assert 1 < len(arrived) < 9
    assert pa.Table.from_batches(arrived) == pa.Table.from_batches([batch])


def test_a_dictionary_over_half_of_the_heap_is_refused_and_leaves_the_stream_whole() -> None:
    small = shared_dictionary(1000)
    with strand.open_ring(strand.BLOCKS, 64, "256KiB") as ring, ring.consumer() as view:
        with ring.producer() as writer:
            with pytest.raises(strand.PayloadTooLarge) as refused:
                writer.write_arrow(shared_dictionary(140_000))
            writer.write_arrow(small)
        assert refused.value.limit_bytes == 128 << 10
        assert pa.Table.from_batches(view.batches()) == pa.Table.from_batches([small])


def test_dictionaries_are_looked_at_in_the_ring() -> None:
    with strand.open_ring(strand.BLOCKS, 64, "256KiB") as ring, ring.consumer() as view:
        with ring.producer() as writer:
            writer.write_arrow(shared_dictionary(20_000).slice(0, 100))
        start = pa.py_buffer(ring.memory).address
        batch = next(view.batches(copy=False))
        values = batch.column("d").dictionary.buffers()[2]
        assert start < values.address < start + len(ring.memory)
        del batch, values


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (pa.list_(pa.struct([("x", pa.dictionary(pa.int8(), pa.string()))])), True),
        (pa.map_(pa.string(), pa.dictionary(pa.int8(), pa.string())), True),
        (pa.run_end_encoded(pa.int32(), pa.string()), False),
        (pa.map_(pa.string(), pa.list_(pa.int8())), False),
    ],
)
def test_dictionaries_are_found_however_deep(kind: pa.DataType, found: bool) -> None:
    assert has_dictionaries(pa.schema([("c", kind)])) is found


@pytest.mark.slow
@given(st.data(), st.booleans())
def test_payloads_that_are_no_batches_are_corrupt(data: st.DataObject, dictionary: bool) -> None:
    """Any bytes of an encoding's first part are changed or cut off: an error or a batch."""
    batch = shared_dictionary(2000).slice(0, 3) if dictionary else pa.record_batch({"d": [1, 2]})
    payload = bytearray(BatchEncoder(batch).encode(batch))
    cut = data.draw(st.integers(0, len(payload)))
    at = data.draw(st.integers(0, min(300, len(payload) - 1)))
    payload[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Corrupt):
        decode_batch(payload[:cut], batch.schema, copy=True)


def test_a_stream_of_another_schema_is_corrupt() -> None:
    batch = shared_dictionary(1000)
    other = pa.schema([("d", pa.dictionary(pa.int8(), pa.string()))])
    with pytest.raises(Corrupt, match="int8"):
        decode_batch(BatchEncoder(batch).encode(batch), other, copy=False)
    with pytest.raises(Corrupt):
        decode_batch(encode_schema(batch.schema), batch.schema, copy=False)


def binary_with_offsets(*offsets: int) -> pa.RecordBatch:
    """Rows of a binary column, the second null, over five bytes."""
    ends = pa.py_buffer(np.array(offsets, np.int32))
    buffers = [pa.py_buffer(b"\x01"), ends, pa.py_buffer(b"hello")]
    column = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)
    return pa.record_batch({"s": column})


@pytest.mark.parametrize("offset", [1_000_000, -1_000_000])
@pytest.mark.parametrize("copy", [True, False])
def test_offsets_beyond_their_buffer_are_corrupt(offset: int, copy: bool) -> None:
    """The producer may be another process: what it writes must not lead into this one's memory."""
    batch = binary_with_offsets(0, offset, 5)
    with pytest.raises(Corrupt, match="Offset"):
        decode_batch(batch.serialize(), batch.schema, copy=copy)


def test_dictionary_indices_beyond_the_dictionary_are_corrupt() -> None:
    indices = pa.array([0, 99], pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["a"]), safe=False)
    batch = pa.record_batch({"d": column})
    with pytest.raises(Corrupt, match="out of bounds"):
        decode_batch(BatchEncoder(batch).encode(batch), batch.schema, copy=True)


# ---- damage --------------------------------------------------------------------------------------


def damaged_payloads(ring: strand.Ring, dice: random.Random) -> None:
    """Overwrite bytes of the heap, of block pointers, or of the header's Arrow schema."""
    memory = ring.memory
    heap_bytes = struct.unpack_from("<Q", memory, layout.PRODUCER_AT + 24)[0]
    for _ in range(dice.choice([1, 1, 2, 5])):
        where = dice.random()
        at = ring.map.heap_start + dice.randrange(heap_bytes - 8)
        if where < 0.15:
            at = layout.HEADER_BYTES + dice.randrange(3 * ring.map.stride - 8)
        elif where < 0.2:
            at = dice.randrange(layout.SCHEMA_AT + 20, layout.METADATA_END - 8)
        size = dice.randint(1, 8)
        memory[at : at + size] = dice.choice([dice.randbytes(size), b"\xff" * size, bytes(size)])


@pytest.mark.slow
@pytest.mark.parametrize("copy", [True, False])
def test_damaged_batches_are_read_or_refused_and_never_crash(copy: bool) -> None:
    dice = random.Random(17)
    plain = pa.record_batch(
        {
            "text": ["x" * n for n in range(50)],
            "list": [[n] * (n % 5) for n in range(50)],
            "view": pa.array([f"a longer string {n}" for n in range(50)], pa.string_view()),
            "maybe": [None if n % 3 else n / 2 for n in range(50)],
        }
    )
    packed = pa.record_batch({"word": pa.array(["a", "b"] * 20).dictionary_encode()})
    refused = 0
    for _ in range(300):
        with strand.open_ring(strand.BLOCKS, 8, "64KiB") as ring, ring.consumer() as view:
            with ring.producer() as writer:
                writer.write_arrow(dice.choice([plain, packed]))
            damaged_payloads(ring, dice)
            try:
                for batch in view.batches(copy=copy):
                    batch.validate(full=True)
                    batch.to_pylist()
                    del batch
            except Corrupt:
                refused += 1
    assert refused > 100


def test_a_schema_message_that_needs_more_memory_than_available_is_refused() -> None:
    with strand.open_ring(strand.BLOCKS, 8, "64KiB") as ring, ring.consumer() as view:
        with ring.producer() as writer:
            writer.write_arrow(pa.record_batch({"w": pa.array(["a"]).dictionary_encode()}))
        lease = bytes(view._read_block(1))
        body = struct.pack("<q", 1 << 45)
        schema_bytes = struct.unpack_from("<I", lease, 4)[0]
        head = lease[8 : 8 + schema_bytes]
        at = ring.map.heap_start + struct.unpack_from("<Q", ring.memory, 4096 + ring.map.stride)[0]
        for place in range(0, len(head) - 8, 8):
            ring.memory[at + 8 + place : at + 16 + place] = body
            with contextlib.suppress(Corrupt):
                decode_batch(view._read_block(1), pa.schema([]), copy=True)
            ring.memory[at + 8 + place : at + 16 + place] = head[place : place + 8]


def test_batches_are_copied_out_of_memory_that_another_user_owns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with strand.open_ring(strand.BLOCKS, 8, "64KiB") as ring, ring.consumer() as view:
        with ring.producer() as writer:
            for n in range(2):
                writer.write_arrow(pa.record_batch({"n": [n]}))
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        assert view.is_of_another_user
        kept = list(view.batches(copy=False))
        assert view.acknowledged_count == 3
        assert [batch.column(0).to_pylist() for batch in kept] == [[0], [1]]
