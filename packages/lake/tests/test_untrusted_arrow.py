"""Arrow uploads that contradict themselves are refused before anything reads their values."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lake import Lake
from sennit_core.errors import BadInput, SennitError

from .conftest import Encode, put

SECRET = "secret-of-another-user"


def stream(table: pa.Table, make: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    sink = pa.BufferOutputStream()
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def binary_with_offsets(*offsets: int) -> pa.Table:
    """Rows of a binary column, the second NULL, over the five bytes `hello`."""
    buffers = [
        pa.py_buffer(b"\x01"),
        pa.py_buffer(np.array(offsets, np.int32)),
        pa.py_buffer(b"hello"),
    ]
    return pa.table({"s": pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)})


@pytest.mark.parametrize("make", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("offset", [1_000_000, 2_000_000_000, -1_000_000])
def test_an_offset_under_a_null_does_not_reach_into_the_executors_memory(
    lake: Lake, offset: int, make: Callable[..., Any]
) -> None:
    for _ in range(4):
        lake.sql(f"select repeat('{SECRET}', 10000)", engine="duckdb")
    executors = lake.pool.stats().pids

    with pytest.raises(BadInput, match="Offset"):
        put(lake, "x.arrow", stream(binary_with_offsets(0, offset, 5), make))

    assert set(executors) <= set(lake.pool.stats().pids)
    assert not lake.catalog.list()


def test_values_that_are_not_utf8_are_refused(encode: Encode) -> None:
    text = pa.array([b"ab", b"\xff\xfe"]).view(pa.string())

    with pytest.raises(BadInput, match="UTF8"):
        encode(stream(pa.table({"t": text})), "f.arrow")


def test_rows_without_bytes_are_refused(encode: Encode) -> None:
    """A null column of 2^40 rows is 300 bytes long; as text it would be terabytes."""
    data = bytearray(stream(pa.table({"n": pa.nulls(77_777)})))
    for at in range(len(data) - 8):
        if data[at : at + 8] == struct.pack("<q", 77_777):
            data[at : at + 8] = struct.pack("<q", 1 << 40)
        elif data[at : at + 16] == struct.pack("<qq", 1 << 40, 77_777):
            data[at + 8 : at + 16] = struct.pack("<q", 1 << 40)

    with pytest.raises(BadInput, match="1099511627776 rows"):
        encode(bytes(data), "f.arrow")


@pytest.mark.parametrize("claimed", [1 << 42, 1 << 62, -5])
def test_a_buffer_that_claims_to_decompress_to_much_is_refused(
    encode: Encode, claimed: int
) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"n": pa.array([0] * 99_999, pa.int64())})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    assert data.count(struct.pack("<q", 8 * 99_999)) == 1
    bomb = data.replace(struct.pack("<q", 8 * 99_999), struct.pack("<q", claimed))

    with pytest.raises(SennitError, match=r"limit|compressed buffer"):
        encode(bomb, "f.arrow")


def test_a_footer_cannot_count_one_batch_many_times(encode: Encode) -> None:
    table = pa.table({"n": list(range(1000))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    data = sink.getvalue().to_pybytes()
    blocks = [pa.ipc.open_file(data).get_batch(i).num_rows for i in range(2)]
    assert blocks == [500, 500]
    first, second = _blocks(data)

    with pytest.raises(BadInput, match="overlaps"):
        encode(data.replace(second, first), "f.arrow")


def _blocks(data: bytes) -> list[bytes]:
    """The footer's entries of the two batches: offset, metadata bytes, body bytes."""
    footer_bytes = struct.unpack("<i", data[-10:-6])[0]
    footer = data[-10 - footer_bytes : -10]
    found = []
    for at in range(0, len(footer) - 23, 4):
        offset, metadata, body = struct.unpack_from("<qi4xq", footer, at)
        if body in (4000, 4032) and 0 < metadata < 1000 and 0 < offset < len(data):
            found.append(footer[at : at + 24])
    assert len(found) == 2
    return found


def test_maps_with_null_keys_are_refused_without_ending_the_process(encode: Encode) -> None:
    keys = pa.array(["a", None, "c"])
    entries = pa.StructArray.from_arrays(
        [keys, pa.array([1, 2, 3])],
        fields=[pa.field("key", pa.string()), pa.field("value", pa.int64())],
    )
    lists = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), entries)
    as_list = pa.table({"m": lists})
    data = stream(as_list)
    schema = pa.schema([("m", pa.map_(pa.string(), pa.int64()))])
    rest = data[len(as_list.schema.serialize()) :]

    with pytest.raises(BadInput, match="cannot have 1 nulls"):
        encode(schema.serialize().to_pybytes() + rest, "f.arrow")
