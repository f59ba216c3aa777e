from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt._kernel import (
    Columns,
    FrameMinMax,
    FrameSum,
    KeySpec,
    RangeBound,
    RowStore,
    row_changes,
)
from emsqrt.external.layout import KINDS
from emsqrt.floats.exact import FloatSum
from emsqrt.operators.columns import to_columns
from sennit_core.schema import DataType, Field

FLOAT64, INT64, TEXT = map(DataType, ("Float64", "Int64", "Utf8"))
COUNT, SUM, MEAN = range(3)
DONE, HIGH, LOW, FULL = range(4)


def chunks(values: Sequence[Any], of: DataType, rows: int) -> Callable[[int], tuple[Columns, int]]:
    """Return a function from a row to the chunk that holds it and the chunk's first row."""
    whole = pa.array(values, of.to_arrow())

    def chunk(row: int) -> tuple[Columns, int]:
        first = row // rows * rows
        some = whole.slice(first, rows)
        return to_columns([some], [Field("value", of)], len(some)), first

    return chunk


@st.composite
def frames(draw: st.DrawFn, rows: int) -> tuple[array[int], array[int]]:
    """Bounds that never fall."""
    spots = st.lists(st.integers(0, rows), min_size=rows, max_size=rows)
    low, high = sorted(draw(spots)), sorted(draw(spots))
    high = [max(pair) for pair in zip(low, high, strict=True)]
    return array("q", low), array("q", high)


def summed(
    op: int, of: DataType, values: Sequence[Any], low: array[int], high: array[int], rows: int
) -> list[float | int | None]:
    total = FrameSum(op, KINDS[of.name], 0)
    chunk = chunks(values, of, rows)
    out, bits = bytearray(8 * len(low)), bytearray(len(low) // 8 + 1)
    row, why, ahead, behind = 0, DONE, (None, 0), (None, 0)
    side_chunks: dict[str, tuple[Columns | None, int]] = {"high": ahead, "low": behind}
    while True:
        row, why = total.run(low, high, row, *side_chunks["high"], *side_chunks["low"], out, bits)
        if why == DONE:
            break
        assert why in (HIGH, LOW)
        side = "high" if why == HIGH else "low"
        side_chunks[side] = chunk(total.high if why == HIGH else total.low)
    found: list[Any] = list(array("d" if of == FLOAT64 and op == SUM else "q", bytes(out)))
    validity = [op == COUNT or bits[at >> 3] >> (at & 7) & 1 for at in range(len(low))]
    return [value if is_valid else None for value, is_valid in zip(found, validity, strict=True)]


floats = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([1e300, -1e300, 2.0**-1074, 1.0, -1.0, 0.0, math.inf, math.nan]),
)


@settings(max_examples=40)
@given(st.data())
def test_a_framed_float_sum_is_that_of_its_rows_alone(data: st.DataObject) -> None:
    values = data.draw(st.lists(floats, min_size=1, max_size=25))
    low, high = data.draw(frames(len(values)))

    found = summed(SUM, FLOAT64, values, low, high, data.draw(st.integers(1, 9)))

    for at, (start, stop) in enumerate(zip(low, high, strict=True)):
        in_frame = [value for value in values[start:stop] if value is not None]
        assert repr(found[at]) == repr(FloatSum.of(in_frame).value() if in_frame else None)


@settings(max_examples=30)
@given(st.data())
def test_framed_integers_are_added_and_counted_exactly(data: st.DataObject) -> None:
    numbers = st.one_of(st.none(), st.integers(-(2**58), 2**58))
    values = data.draw(st.lists(numbers, min_size=1, max_size=25))
    low, high = data.draw(frames(len(values)))
    rows = data.draw(st.integers(1, 9))

    sums = summed(SUM, INT64, values, low, high, rows)
    counts = summed(COUNT, INT64, values, low, high, rows)

    for at, (start, stop) in enumerate(zip(low, high, strict=True)):
        in_frame = [value for value in values[start:stop] if value is not None]
        assert counts[at] == len(in_frame)
        assert sums[at] == (sum(in_frame) if in_frame else None)


@settings(max_examples=40)
@given(st.data())
def test_the_best_row_of_a_frame_is_the_first_of_the_best(data: st.DataObject) -> None:
    of = data.draw(st.sampled_from([FLOAT64, INT64, TEXT]))
    one = {
        FLOAT64: floats,
        INT64: st.one_of(st.none(), st.integers(-3, 3)),
        TEXT: st.one_of(st.none(), st.text("ab", max_size=3)),
    }[of]
    values = data.draw(st.lists(one, min_size=1, max_size=25))
    low, high = data.draw(frames(len(values)))
    greatest, rows = data.draw(st.booleans()), data.draw(st.integers(1, 9))
    best = FrameMinMax(memoryview(bytearray(2048)), KINDS[of.name], greatest, True)
    chunk, out = chunks(values, of, rows), array("q", bytes(8 * len(low)))
    row, why, no_chunk = 0, HIGH, (None, 0)
    ahead: tuple[Columns | None, int] = no_chunk
    while why != DONE:
        row, why = best.run(low, high, row, *ahead, out)
        assert why in (DONE, HIGH)
        if why == HIGH:
            ahead = chunk(best.high)

    def order(at: int) -> Any:
        value: Any = values[at]
        return (math.isnan(value), 0 if math.isnan(value) else value) if of == FLOAT64 else value

    for at, (start, stop) in enumerate(zip(low, high, strict=True)):
        rows_in = [each for each in range(start, stop) if values[each] is not None]
        pick = max if greatest else min
        assert out[at] == (pick(rows_in, key=order) if rows_in else -1)


@settings(max_examples=30)
@given(st.data())
def test_bounds_by_value_are_where_the_order_has_them(data: st.DataObject) -> None:
    descending, nulls_first = data.draw(st.booleans()), data.draw(st.booleans())
    numbers = data.draw(st.lists(st.integers(-9, 9), min_size=1, max_size=20))
    nulls = [None] * data.draw(st.integers(0, 3))
    inner = sorted(numbers, reverse=descending)
    keys: list[int | None] = [*nulls, *inner] if nulls_first else [*inner, *nulls]
    offset, is_end = data.draw(st.integers(-4, 4)), data.draw(st.booleans())
    bound = RangeBound(offset, is_end, descending, nulls_first)
    now, _ = chunks(keys, INT64, len(keys))(0)
    out, begin = array("q", bytes(8 * len(keys))), array("q", bytes(8 * len(keys)))
    size = data.draw(st.integers(1, 7))
    ahead: tuple[Columns | None, bytes, int, bool] = (None, b"", 0, False)
    row, why, chunk = 0, HIGH, chunks(keys, INT64, size)
    while why != DONE:
        row, why = bound.run(now, begin, row, *ahead, out)
        if why == HIGH:
            at = bound.at
            ahead = (
                *((None, b"", at) if at >= len(keys) else flagged(*chunk(at))),
                at >= len(keys),
            )

    sign = -1 if descending else 1
    for at, key in enumerate(keys):
        if key is None:
            assert out[at] == -1
            continue
        target = key * sign + offset

        def passed(other: int | None, target: int = target) -> bool:
            if other is None:
                return nulls_first
            return other * sign <= target if is_end else other * sign < target

        assert out[at] == sum(map(passed, keys))


def flagged(columns: Columns, first: int) -> tuple[Columns, bytes, int]:
    return columns, bytes(len(columns)), first


def packed(rows: Sequence[tuple[str | None, int]]) -> tuple[bytes, int]:
    """Sorted rows whose key is a text and a number."""
    arrays = [pa.array([row[0] for row in rows], pa.string()), pa.array([row[1] for row in rows])]
    columns = to_columns(arrays, [Field("p", TEXT), Field("o", INT64)], len(rows))
    store = RowStore(memoryview(bytearray(1 << 16)))
    assert store.add(columns, KeySpec([(0, False, False), (1, True, True)]), None) == len(rows)
    store.sort()
    out = memoryview(bytearray(1 << 14))
    filled, count = store.drain(out, 0, len(rows))
    return bytes(out[:filled]), count


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.text("a\0", max_size=2)), st.integers(0, 2)),
        min_size=1,
        max_size=20,
    )
)
def test_changes_of_rows_are_changes_of_their_keys(rows: list[tuple[str | None, int]]) -> None:
    block, count = packed(rows)
    flags = bytearray(count)
    row_changes(block, 0, bytes([KINDS["Utf8"]]), b"", flags)

    ordered = sorted(rows, key=lambda row: (row[0] is None, (row[0] or "").encode(), -row[1]))
    before: list[Any] = [None, *ordered[:-1]]
    assert list(flags) == [
        3 if one is None or one[0] != two[0] else 1 if one != two else 0
        for one, two in zip(before, ordered, strict=True)
    ]


@settings(max_examples=50)
@given(st.binary(max_size=60), st.binary(max_size=20), st.integers(0, 3))
def test_damaged_rows_are_reported(block: bytes, previous: bytes, rows: int) -> None:
    with suppress(ValueError):
        row_changes(block, 0, bytes([KINDS["Utf8"]]), previous, bytearray(rows))
    with pytest.raises(ValueError, match="whole rows"):
        row_changes(block, len(block) + 1, b"", previous, bytearray(rows))


def test_values_that_do_not_fit_are_refused() -> None:
    two = array("q", [0, 0])
    chunk, first = chunks([1, 2], INT64, 2)(0)
    total = FrameSum(SUM, KINDS["Int64"], 0)
    with pytest.raises(ValueError, match="bytes for results"):
        total.run(two, array("q", [1, 2]), 0, chunk, first, None, 0, bytearray(8), bytearray(1))
    with pytest.raises(ValueError, match="two bounds"):
        total.run(two, array("q", [1]), 0, chunk, first, None, 0, bytearray(16), bytearray(1))
    with pytest.raises(ValueError, match="kind"):
        FrameSum(SUM, KINDS["Float64"], 0).run(
            two, array("q", [1, 2]), 0, chunk, first, None, 0, bytearray(16), bytearray(1)
        )
    with pytest.raises(ValueError, match="numbers"):
        FrameSum(SUM, KINDS["Utf8"], 0)
    with pytest.raises(ValueError, match="queue"):
        FrameMinMax(bytearray(8), KINDS["Int64"], True, True)
    with pytest.raises(TypeError):
        total.run(two, two, 0, "chunk", 0, None, 0, bytearray(16), bytearray(1))  # type: ignore[arg-type]


def test_a_sum_beyond_its_type_stops() -> None:
    low, high = array("q", [0, 0]), array("q", [1, 2])
    total = FrameSum(SUM, KINDS["Int64"], 0)
    chunk, first = chunks([2**63 - 1, 1], INT64, 2)(0)
    assert total.run(low, high, 0, chunk, first, None, 0, bytearray(16), bytearray(1)) == (1, FULL)
