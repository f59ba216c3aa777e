"""Rows packed and read column by column, in batches: every kind, nulls, slices, any number of rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import KeySpec, RowStore, unpack_rows
from emsqrt.operators.columns import row_kinds, to_columns, unpack_batch
from sennit_core.schema import Schema

STRIPE_ROWS = 256
SCHEMA = Schema.of(
    flag="Bool",
    tiny="Int8",
    small="UInt16",
    day="Date",
    place="Int64",
    ratio="Float64",
    price="Decimal(30,4)",
    name="Utf8",
    raw="Binary",
    note="Utf8",
)


def make(rows: int, null_every: int, text_bytes: int, skip: int) -> Any:
    """Return a batch that begins in the middle of its arrays."""
    total = rows + skip

    def values(make_one: Any) -> list[Any]:
        return [
            None if null_every and row % null_every == 0 else make_one(row) for row in range(total)
        ]

    made = [
        values(lambda row: row % 3 == 0),
        values(lambda row: row % 256 - 128),
        values(lambda row: row * 7 % 65536),
        values(lambda row: row - 5),
        list(range(total)),
        values(lambda row: row / 7),
        values(lambda row: row * 10**20),
        values(lambda row: "é" * (row % (text_bytes + 1))),
        values(lambda row: bytes([row % 256]) * (row % 5)),
        values(lambda row: "x" * (row * row % (text_bytes + 1))),
    ]
    arrow = SCHEMA.to_arrow()
    arrays = [pa.array(column, kind) for column, kind in zip(made, arrow.types, strict=True)]
    return pa.record_batch(arrays, schema=arrow).slice(skip)


def round_trip(batch: Any, memory_bytes: int) -> Any:
    columns = to_columns(batch.columns, list(SCHEMA), batch.num_rows)
    spec, payload = KeySpec([(4, False, False)]), tuple(range(len(SCHEMA)))
    store = RowStore(memoryview(bytearray(memory_bytes)))
    out = memoryview(bytearray(memory_bytes))
    found, start = [], 0
    while start < batch.num_rows:
        added = store.add(columns, spec, payload, start)
        assert added > 0, "memory holds some rows"
        start += added
        store.sort()
        size, rows = store.drain(out, 0, store.rows)
        assert rows == added
        found.append(unpack_batch(out[:size], rows, SCHEMA, SCHEMA.to_arrow()))
        store.reset()
    return pa.Table.from_batches(found, SCHEMA.to_arrow()).combine_chunks()


@pytest.mark.parametrize("rows", [1, 7, 8, 255, 256, 257, 600])
@pytest.mark.parametrize("null_every", [0, 1, 3])
def test_rows_round_trip(rows: int, null_every: int) -> None:
    batch = make(rows, null_every, 40, skip=3)
    assert round_trip(batch, 1 << 20).equals(pa.Table.from_batches([batch]))


@pytest.mark.slow
@given(
    rows=st.integers(1, 700),
    null_every=st.integers(0, 5),
    text_bytes=st.integers(0, 60),
    skip=st.integers(0, 9),
    memory_bytes=st.integers(2_000, 100_000),
)
def test_rows_round_trip_in_any_memory(
    rows: int, null_every: int, text_bytes: int, skip: int, memory_bytes: int
) -> None:
    batch = make(rows, null_every, text_bytes, skip)
    assert round_trip(batch, memory_bytes).equals(pa.Table.from_batches([batch]))


def test_rows_that_do_not_all_fit_are_read_in_parts() -> None:
    batch = make(600, 3, 20, skip=0)
    columns = to_columns(batch.columns, list(SCHEMA), batch.num_rows)
    store = RowStore(memoryview(bytearray(1 << 20)))
    store.add(columns, KeySpec([(4, False, False)]), tuple(range(len(SCHEMA))))
    store.sort()
    block = bytearray(1 << 20)
    size, rows = store.drain(block, 0, store.rows)
    packed, done, start = memoryview(block)[:size], 0, 0
    while done < rows:
        out = bytearray(1 << 14)
        got, start, parts = unpack_rows(packed, start, rows, row_kinds(SCHEMA, "reading"), out)
        assert 0 < got < rows
        place = parts[4]
        first, end = place[3]
        assert memoryview(out)[first:end].cast("q").tolist() == list(range(done, done + got))
        done += got
    assert start == size
