"""Rows are packed, sorted, emitted, merged and read back, all in the caller's memory."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import (
    Columns,
    KeySpec,
    Merger,
    RowStore,
    merger_bytes,
    unpack_rows,
    write_lines,
)
from emsqrt._kernel.testing import (
    BYTES,
    I64,
    KINDS,
    TEXT,
    U8,
    U64,
    columns,
    read_back,
    same,
    values_of,
)

ASCENDING = KeySpec([(0, False, False)])


def memory(size: int) -> memoryview:
    return memoryview(bytearray(size))


def row_of(key: bytes, payload: bytes) -> bytes:
    return struct.pack("<II", 8 + len(key) + len(payload), len(key)) + key + payload


def rows_in(block: bytes | memoryview) -> list[tuple[bytes, bytes]]:
    found, at, data = [], 0, bytes(block)
    while at < len(data):
        size, key = struct.unpack_from("<II", data, at)
        found.append((data[at + 8 : at + 8 + key], data[at + 8 + key : at + size]))
        at += size
    return found


def drained(store: RowStore, ending: bytes | None = None, block: int = 1 << 16) -> bytes:
    out, position, found = memory(block), 0, b""
    while position < store.rows:
        filled, rows = store.drain(out, position, store.rows, ending)
        assert rows > 0, "a row does not fit"
        found += bytes(out[:filled])
        position += rows
    return found


@st.composite
def packed(draw: st.DrawFn) -> tuple[list[int], list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12))
    row = st.tuples(*(values_of(kind) for kind in kinds))
    return kinds, draw(st.lists(row, min_size=1, max_size=20))


@pytest.mark.slow
@given(packed(), st.integers(1, 20))
def test_packed_columns_round_trip(table: Any, rows_max: int) -> None:
    kinds, rows = table
    batch = columns(*((kind, [row[i] for row in rows]) for i, kind in enumerate(kinds)))
    store = RowStore(memory(1 << 16))
    assert store.add(batch, KeySpec([]), tuple(range(len(kinds)))) == len(rows)
    store.sort()
    block, out = drained(store), memory(1 << 15)
    at, found = 0, list[tuple[Any, ...]]()
    while at < len(block):
        count, at, filled = unpack_rows(block, at, rows_max, kinds, out)
        found += zip(*(read_back(out, one, count) for one in filled), strict=True)
    assert len(found) == len(rows)
    for got, wanted in zip(found, rows, strict=True):
        assert all(same(*pair) for pair in zip(got, wanted, strict=True)) or got == wanted


@given(st.binary(max_size=60), st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
def test_any_payload_unpacks_or_is_refused(payload: bytes, kinds: list[int]) -> None:
    try:
        count, _, found = unpack_rows(row_of(b"", payload), 0, 9, kinds, memory(1 << 12))
    except ValueError:
        return
    assert (count, len(found)) == (1, len(kinds))


@given(st.binary(max_size=64))
def test_any_block_is_accepted_or_refused(block: bytes) -> None:
    store = RowStore(memory(1 << 12))
    try:
        added = store.add_rows(block)
    except ValueError:
        return
    store.sort()
    assert added == len(block)
    assert sorted(rows_in(block), key=lambda row: row[0]) == rows_in(drained(store))


KEYS = st.one_of(
    st.binary(max_size=4),
    st.builds(lambda head, tail: head * 30 + tail, st.binary(max_size=3), st.binary(max_size=2)),
    st.builds(lambda middle: bytes(70) + middle + bytes(70), st.binary(max_size=20)),
)


@given(st.lists(KEYS, max_size=60))
def test_sorting_is_stable_by_the_bytes_of_keys(keys: list[bytes]) -> None:
    store = RowStore(memory(1 << 16))
    rows = [(key, b"%d" % number) for number, key in enumerate(keys)]
    assert store.add_rows(b"".join(row_of(*row) for row in rows)) > 0 or not rows
    store.sort()
    assert rows_in(drained(store)) == sorted(rows, key=lambda row: row[0])


@pytest.mark.slow
@given(
    st.integers(0, 2**32),
    st.integers(400, 3000),
    st.integers(1, 3),
    st.sampled_from([0, 5, 60, 100]),
)
def test_long_common_prefixes_are_sorted_by_the_following_bytes(
    seed: int, count: int, letters: int, common: int
) -> None:
    import random

    chance = random.Random(seed)
    keys = [
        b"x" * common + bytes(chance.choices(range(1, 1 + letters), (9, 1, 1)[:letters], k=length))
        for length in chance.choices((30, 40, 0, 7), (90, 4, 1, 1), k=count)
    ]
    store = RowStore(memory(1 << 20))
    rows = [(key, struct.pack("<I", number)) for number, key in enumerate(keys)]
    store.add_rows(b"".join(row_of(*row) for row in rows))
    store.sort()
    assert rows_in(drained(store)) == sorted(rows, key=lambda row: row[0])


def test_a_full_store_adds_what_fits_and_returns_how_much() -> None:
    store = RowStore(memory(1000))
    batch = columns((I64, list(range(100))))
    added = store.add(batch, ASCENDING, None)
    assert added == store.rows == (1000 - 16) // (8 + 9 + 32)
    assert store.add(batch, ASCENDING, None, added) == 0
    store.reset()
    assert store.add(batch, ASCENDING, None, added) == added


def test_a_row_that_never_fits_is_not_added() -> None:
    batch = columns((TEXT, ["x" * 1000]))
    store = RowStore(memory(1000))
    assert store.add(batch, ASCENDING, (0,)) == 0
    assert store.row_bytes(batch, ASCENDING, (0,), 0) == 8 + 1 + 1002 + 1 + 4 + 1000


def test_numbers_at_the_end_of_keys_count_on() -> None:
    store = RowStore(memory(1000))
    store.add(columns((U8, [5, 5])), ASCENDING, None, sequence=258)
    store.sort()
    ends = [key[-8:] for key, _ in rows_in(drained(store))]
    assert ends == [(258).to_bytes(8, "big"), (259).to_bytes(8, "big")]


def test_a_store_refuses_calls_out_of_order() -> None:
    store, batch = RowStore(memory(1000)), columns((U8, [1]))
    with pytest.raises(RuntimeError, match="sort the store first"):
        store.drain(memory(9), 0, 0)
    store.sort()
    with pytest.raises(RuntimeError, match="reset it"):
        store.add(batch, ASCENDING, None)
    store.reset()
    with pytest.raises(ValueError, match="payload"):
        store.add(batch, ASCENDING, "line")
    with pytest.raises(ValueError, match="does not exist"):
        store.add(batch, ASCENDING, (1,))


@given(st.lists(st.integers(0, 9), max_size=50), st.integers(0, 60), st.data())
def test_the_first_rows_are_kept_and_bound_later_ones(
    keys: list[int], count: int, data: st.DataObject
) -> None:
    store = RowStore(memory(1 << 14))
    rows = [(b"%d" % key, b"%d" % number) for number, key in enumerate(keys)]
    cut = data.draw(st.integers(0, len(rows)))
    for part in (rows[:cut], rows[cut:]):
        store.add_rows(b"".join(row_of(*row) for row in part))
        store.sort()
        store.keep(count, bounding=True)
        assert store.rows <= count
    store.sort()
    assert rows_in(drained(store)) == sorted(rows, key=lambda row: row[0])[:count]


def test_payloads_leave_as_lines() -> None:
    store = RowStore(memory(1000))
    store.add_rows(row_of(b"b", b"two") + row_of(b"a", b"") + row_of(b"c", b"3"))
    store.sort()
    assert drained(store, b"\r\n", 6) == b"\r\ntwo\r\n3\r\n"
    out, block = memory(6), drained(store)
    assert write_lines(block, 0, out, b"\n") == (5, 2, 8 + 1 + 8 + 1 + 3)
    assert bytes(out[:5]) == b"\ntwo\n"


def merged(
    sources: list[list[tuple[bytes, bytes]]], positions: bytes | None, cut: int, out_bytes: int
) -> list[tuple[bytes, bytes]]:
    sizes = [4096] * len(sources)
    room = memory(merger_bytes(len(sources)) + sum(sizes))
    merger = Merger(room, sizes, positions)
    left = [list(rows) for rows in sources]
    out, found = memory(out_bytes), b""

    def refill(source: int) -> None:
        rows, left[source] = left[source][:cut], left[source][cut:]
        block = b"".join(row_of(*row) for row in rows)
        start, _ = merger.span(source)
        room[start : start + len(block)] = block
        merger.refill(source, len(block))

    while True:
        filled, rows, why = merger.run(out)
        found += bytes(out[:filled])
        if why == -2:
            return rows_in(found)
        if why >= 0:
            refill(why)
        else:
            assert rows > 0


@pytest.mark.slow
@given(st.lists(st.lists(KEYS, max_size=12), max_size=9), st.integers(1, 5), st.booleans())
def test_merging_is_stable_by_source(keys: list[list[bytes]], cut: int, known: bool) -> None:
    store = RowStore(memory(1 << 17))
    rows = [
        sorted(((key, b"%d.%d" % (s, n)) for n, key in enumerate(part)), key=lambda row: row[0])
        for s, part in enumerate(keys)
    ]
    flat = [row for part in rows for row in part]
    store.add_rows(b"".join(row_of(*row) for row in flat))
    found = merged(rows, store.positions if known else None, cut, 400)
    assert found == sorted(flat, key=lambda row: row[0])


def test_a_merger_refuses_malformed_rows() -> None:
    room = memory(merger_bytes(1) + 64)
    merger = Merger(room, [64])
    start, stop = merger.span(0)
    with pytest.raises(ValueError, match="no room for 65"):
        merger.refill(0, 65)
    with pytest.raises(ValueError, match="whole rows"):
        merger.refill(0, 64)
    room[start:stop] = row_of(b"a", b"") + b"\xff" * 55
    merger.refill(0, 64)
    for _ in range(2):
        with pytest.raises(ValueError, match="whole rows"):
            merger.run(memory(100))
    with pytest.raises(ValueError, match="need"):
        Merger(memory(100), [64])


def test_rows_longer_than_the_output_are_passed_by_hand() -> None:
    room = memory(merger_bytes(1) + 128)
    merger = Merger(room, [128])
    start, _ = merger.span(0)
    long = row_of(b"a", b"x" * 50)
    room[start : start + len(long)] = long
    merger.refill(0, len(long))
    assert merger.run(memory(20)) == (0, 0, -1)
    head = merger.head()
    assert head is not None
    assert bytes(room[slice(*head)]) == long
    assert merger.skip() == 0
    merger.refill(0, 0)
    assert merger.run(memory(20)) == (0, 0, -2)


def test_offsets_of_arrow_buffers_are_honoured() -> None:
    ends = array("i", [0, 1, 3, 6])
    batch = Columns(
        2, [(BYTES, 1, None, b"abbccc", ends), (U64, 1, None, array("Q", [7, 8, 9]), None)]
    )
    store = RowStore(memory(1 << 10))
    store.add(batch, KeySpec([(0, True, False)]), (1, 0))
    store.sort()
    out = memory(1 << 10)
    _, _, found = unpack_rows(drained(store), 0, 9, [U64, BYTES], out)
    assert [read_back(out, one, 2) for one in found] == [[9, 8], [b"ccc", b"bb"]]


def test_few_wide_rows_unpack_into_little_more_than_their_bytes() -> None:
    store = RowStore(memory(1 << 14))
    store.add(columns(*[(U64, [7] * 5)] * 20), KeySpec([]), tuple(range(20)))
    store.sort()
    out = memory(20 * (3 * 64 + 4) + 64 + 1 + 5 * (20 * 8 + 3))
    assert unpack_rows(drained(store), 0, 9, [U64] * 20, out)[0] == 5
