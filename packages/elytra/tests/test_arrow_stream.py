"""A server's answer is validated before the client computes with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from elytra.client.arrow_stream import open_batches, read_table
from sennit_core.errors import BadInput


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 77] for at in range(0, len(data), 77))


def test_a_stream_is_read_from_pieces_of_any_length() -> None:
    table = pa.table({"n": range(1000), "t": pa.array(["a", "b"] * 500).dictionary_encode()})

    assert read_table(pieces(stream(table))).equals(table)
    assert [batch.num_rows for batch in open_batches(pieces(stream(table)))] == [100] * 10


def test_offsets_beyond_their_buffer_are_refused() -> None:
    offsets = pa.py_buffer(np.array([0, 1_000_000, 5], np.int32))
    buffers = [pa.py_buffer(b"\x01"), offsets, pa.py_buffer(b"hello")]
    table = pa.table({"s": pa.Array.from_buffers(pa.binary(), 2, buffers)})

    with pytest.raises(BadInput, match=r"the server's response: .*Offset"):
        read_table(pieces(stream(table)))


def test_a_stream_that_is_cut_off_in_a_batch_is_refused() -> None:
    data = stream(pa.table({"n": range(1000)}))

    with pytest.raises(BadInput, match="of a body"):
        read_table(pieces(data[: len(data) // 2]))
