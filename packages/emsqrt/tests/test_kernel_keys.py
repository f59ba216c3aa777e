"""Keys compare by their bytes as their values should, and decode to their values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import KeySpec, RowStore, decode_keys
from emsqrt._kernel.testing import (
    BOOL,
    BYTES,
    F64,
    I64,
    KINDS,
    TEXT,
    U32,
    Part,
    columns,
    ordered,
    read_back,
    same,
    values_of,
)

FLAGS = st.tuples(st.booleans(), st.booleans())


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[tuple[Any, ...]], list[Part]]:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    row = st.tuples(*(values_of(kind) for kind in kinds))
    rows = draw(st.lists(row, min_size=1, max_size=30))
    flags = draw(st.tuples(*(FLAGS for _ in kinds)))
    order = draw(st.permutations(range(len(kinds))))
    return kinds, rows, [(index, *flags[index]) for index in order]


def batch_of(kinds: list[int], rows: list[tuple[Any, ...]]) -> Any:
    return columns(*((kind, [row[i] for row in rows]) for i, kind in enumerate(kinds)))


def positions(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(*row, position) for position, row in enumerate(rows)]


@pytest.mark.slow
@given(batches())
def test_keys_compare_as_their_values(table: Any) -> None:
    kinds, rows, parts = table
    spec, batch = KeySpec(parts), batch_of(kinds, rows)
    keys = [spec.encode(batch, row) for row in range(len(rows))]
    by_key = sorted(range(len(rows)), key=keys.__getitem__)
    assert by_key == [row[-1] for row in ordered(positions(rows), parts)]


@pytest.mark.slow
@given(batches())
def test_no_key_is_the_start_of_another(table: Any) -> None:
    kinds, rows, parts = table
    spec, batch = KeySpec(parts), batch_of(kinds, rows)
    keys = {spec.encode(batch, row) for row in range(len(rows))}
    assert not any(a != b and a.startswith(b) for a in keys for b in keys)


@pytest.mark.slow
@given(batches(), st.booleans())
def test_keys_decode_to_their_values(table: Any, numbered: bool) -> None:
    kinds, rows, parts = table
    spec = KeySpec(parts)
    store = RowStore(memoryview(bytearray(1 << 16)))
    sequence = 7 if numbered else None
    assert store.add(batch_of(kinds, rows), spec, None, sequence=sequence) == len(rows)
    store.sort()
    block, out = memoryview(bytearray(1 << 16)), memoryview(bytearray(1 << 16))
    filled, _ = store.drain(block, 0, store.rows)
    key_kinds = [kinds[index] for index, _, _ in parts]
    count, end, found = decode_keys(block[:filled], 0, len(rows), key_kinds, out, spec)
    assert (count, end) == (len(rows), filled)
    values = list(zip(*(read_back(out, one, count) for one in found), strict=True))
    wanted = [tuple(row[index] for index, _, _ in parts) for row in ordered(rows, parts)]
    assert all(same(*pair) for a, b in zip(values, wanted, strict=True) for pair in zip(a, b))  # noqa: B905 - one length


def test_keys_of_fixed_kinds_have_one_length() -> None:
    batch = columns((I64, [1, None]), (BOOL, [None, True]))
    spec = KeySpec([(0, False, False), (1, True, True)])
    assert [len(spec.encode(batch, row)) for row in range(2)] == [11, 11]


def test_text_is_escaped_and_ends() -> None:
    batch = columns((BYTES, [b"a\0b"]))
    assert KeySpec([(0, False, False)]).encode(batch, 0) == b"\x01a\x00\xffb\x00\x00"
    assert KeySpec([(0, True, False)]).encode(batch, 0) == b"\x01\x9e\xff\x00\x9d\xff\xff"


def test_nan_is_the_greatest_and_negative_zero_is_zero() -> None:
    batch = columns((F64, [float("nan"), float("inf"), -0.0, 0.0]))
    keys = [KeySpec([(0, False, False)]).encode(batch, row) for row in range(4)]
    assert keys[0] > keys[1]
    assert keys[2] == keys[3]


def test_a_damaged_key_is_refused() -> None:
    out = memoryview(bytearray(1 << 12))
    spec = KeySpec([(0, False, False)])
    for key in (b"", b"\x03", b"\x01abc", b"\x01abc\x00", b"\x01a\x00\x00more"):
        row = (8 + len(key)).to_bytes(4, "little") + len(key).to_bytes(4, "little") + key
        with pytest.raises(ValueError, match="does not have this form"):
            decode_keys(row, 0, 1, [TEXT], out, spec)


@given(st.binary(max_size=40), st.sampled_from(KINDS), st.booleans())
def test_any_bytes_decode_or_are_refused(key: bytes, kind: int, descending: bool) -> None:
    row = (8 + len(key)).to_bytes(4, "little") + len(key).to_bytes(4, "little") + key
    out = memoryview(bytearray(1 << 12))
    try:
        count, _, found = decode_keys(row, 0, 1, [kind], out, KeySpec([(0, descending, False)]))
    except ValueError:
        return
    assert count == len(found) == 1


def test_a_spec_must_fit_its_columns() -> None:
    batch = columns((U32, [1]))
    with pytest.raises(ValueError, match="column 1, but there are only 1"):
        KeySpec([(1, False, False)]).encode(batch, 0)
    with pytest.raises(ValueError, match="no row 1"):
        KeySpec([(0, False, False)]).encode(batch, 1)
