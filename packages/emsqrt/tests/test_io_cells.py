from __future__ import annotations

import datetime
import json
import math
import re
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.cells import json_cells, text_cells


def json_of(values: list[Any], kind: pa.DataType) -> list[Any]:
    texts = json_cells(pa.array(values, kind)).to_pylist()
    return [None if text is None else json.loads(text) for text in texts]


@pytest.mark.slow
@given(st.lists(st.none() | st.text(max_size=20), max_size=20))
def test_any_string_survives_json(values: list[str | None]) -> None:
    assert json_of(values, pa.string()) == values


@pytest.mark.slow
@given(st.lists(st.none() | st.floats(), max_size=20))
def test_any_float_survives_json_or_is_named(values: list[float | None]) -> None:
    for value, read in zip(values, json_of(values, pa.float64()), strict=True):
        if value is None or math.isfinite(value):
            assert read == value
        else:
            assert float(read) == value or (read == "NaN" and math.isnan(value))


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integers_that_javascript_would_round_are_strings(values: list[int | None]) -> None:
    for value, read in zip(values, json_of(values, pa.int64()), strict=True):
        exact = value is None or abs(value) < 2**53
        assert read == (value if exact else str(value))


def test_unsigned_integers_beyond_63_bits_are_strings() -> None:
    assert json_of([2**64 - 1, 7, None], pa.uint64()) == ["18446744073709551615", 7, None]


@given(
    st.lists(
        st.decimals(
            allow_nan=False, allow_infinity=False, places=9, min_value=-(10**9), max_value=10**9
        )
    )
)
def test_decimals_are_strings_in_plain_notation(values: list[Decimal]) -> None:
    read = json_of(values, pa.decimal128(38, 9))
    assert [Decimal(text) for text in read] == values
    assert not any("E" in text for text in read)


def test_instants_are_iso_8601_in_utc_and_wall_clock_times_have_no_zone() -> None:
    new_year = datetime.datetime(2013, 1, 1, 5)  # noqa: DTZ001 - wall-clock time on purpose
    half = new_year.replace(microsecond=500_000)
    assert json_of([new_year, half], pa.timestamp("us")) == [
        "2013-01-01T05:00:00",
        "2013-01-01T05:00:00.500000",
    ]
    assert json_of([new_year], pa.timestamp("ms", "America/New_York")) == ["2013-01-01T05:00:00Z"]
    assert text_cells(pa.array([new_year], pa.timestamp("ns"))).to_pylist() == [
        "2013-01-01 05:00:00"
    ]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([True, None], pa.bool_(), [True, None]),
        ([datetime.date(2013, 1, 1)], pa.date32(), ["2013-01-01"]),
        ([b"ab\xff", None], pa.binary(), ["YWL/", None]),
        ([[1, 2**60], None], pa.list_(pa.int64()), [[1, str(2**60)], None]),
        ([{"a": math.nan}], pa.struct({"a": pa.float64()}), [{"a": "NaN"}]),
        ([datetime.timedelta(seconds=1)], pa.duration("us"), [1_000_000]),
        (["a", None], pa.large_string(), ["a", None]),
        ([None], pa.null(), [None]),
    ],
)
def test_every_type_has_a_json_form(values: list[Any], kind: Any, expected: list[Any]) -> None:
    assert json_of(values, kind) == expected


def test_slices_of_a_column_are_read_from_where_they_start() -> None:
    column = pa.array(['"', "b", 'c"d', None, "e"])
    assert json_cells(column.slice(1, 3)).to_pylist() == ['"b"', '"c\\"d"', None]
    assert json_cells(column.slice(4)).to_pylist() == ['"e"']


@pytest.mark.slow
@given(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)))
def test_dates_of_any_year_are_formatted(days: list[int | None]) -> None:
    texts = text_cells(pa.array(days, pa.int32()).cast(pa.date32())).to_pylist()
    for day, text in zip(days, texts, strict=True):
        assert (text is None) == (day is None)
        if text is not None and day is not None:
            assert days_of(text) == day


@pytest.mark.parametrize(("unit", "steps"), [("s", 1), ("ms", 10**3), ("us", 10**6)])
def test_instants_of_any_year_are_formatted(unit: str, steps: int) -> None:
    day = days_of("42054-01-08")
    ticks = [day * 86_400 * steps, (day * 86_400 - 1) * steps, -day * 86_400 * steps, 0, None]
    column = pa.array(ticks, pa.int64()).cast(pa.timestamp(unit, "UTC"))
    texts = [
        text and text.replace(".000000", "").replace(".000", "")
        for text in text_cells(column).to_pylist()
    ]
    assert texts[:2] == ["42054-01-08 00:00:00Z", "42054-01-07 23:59:59Z"]
    assert texts[3:] == ["1970-01-01 00:00:00Z", None]
    assert days_of(str(texts[2]).split(" ", 1)[0]) == -day


def test_the_first_instant_of_all_is_formatted() -> None:
    column = pa.array([-(2**63)], pa.int64()).cast(pa.timestamp("us"))
    assert text_cells(column).to_pylist() == ["-290308-12-21 19:59:05.224192"]


def days_of(text: str) -> int:
    """Count days since 1970-01-01 by the calendar's cycle of 400 years."""
    found = re.fullmatch(r"(-?\d{4,})-(\d\d)-(\d\d)", text)
    assert found is not None, text
    year, month, day = (int(part) for part in found.groups())
    cycles, of_cycle = divmod(year - 2000, 400)
    epoch = datetime.date(1970, 1, 1).toordinal()
    return cycles * 146_097 + datetime.date(2000 + of_cycle, month, day).toordinal() - epoch
