"""Which types the values of a CSV get, and what happens when a value breaks one."""

from __future__ import annotations

import datetime

import pytest

from sennit_core.errors import BadInput, UsageError

from .conftest import Encode

LONG = 300_000  # rows enough that the last one is blocks after the sample


def column(*values: str) -> str:
    return "c\n" + "".join(f"{value}\n" for value in values)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "-2", "9223372036854775807"), "Int64"),
        (("1", "2.5"), "Float64"),
        (("1e3", ".5"), "Float64"),
        (("true", "FALSE"), "Bool"),
        (("2013-01-01", "2013-12-31"), "Date"),
        (("2013-01-01 10:00:00", "2013-01-01"), "Timestamp(us)"),
        (("2013-01-01T10:00:00Z", "2013-01-01T10:00:00+02:00"), "Timestamp(us,UTC)"),
        (("a", "1"), "Utf8"),
        (("007", "1"), "Utf8"),
        (("0x1F", "1"), "Utf8"),
        (("12345678901234567890", "1"), "Utf8"),
        (("1", "NA", "3"), "Int64"),
        (("NA", "NULL"), "Utf8"),
        (("31/12/2013", "01/02/2013"), "Date"),
        (("12/31/2013", "01/02/2013"), "Date"),
        (("31/12/2013 10:00", "1/2/2013 09:30:15"), "Timestamp(us)"),
        (("3.4.2024", "1.2.2024"), "Date"),
        (("2013/12/31", "2013/1/2"), "Date"),
        (("01/02/2013", "03/04/2013"), "Utf8"),
        (("2013-02-30", "2013-02-28"), "Utf8"),
        (("31/02/2013", "30/01/2013"), "Utf8"),
    ],
)
def test_values_get_the_narrowest_type_that_keeps_them(
    encode: Encode, values: tuple[str, ...], kind: str
) -> None:
    assert encode(column(*values)).types == {"c": kind}


def test_days_first_and_months_first_are_read_as_they_were_meant(encode: Encode) -> None:
    text = "d;m\n31/12/2013;12/31/2013\n01/02/2013;02/01/2013\n"

    rows = encode(text).table.to_pylist()

    assert rows[0] == {"d": datetime.date(2013, 12, 31), "m": datetime.date(2013, 12, 31)}
    assert rows[1] == {"d": datetime.date(2013, 2, 1), "m": datetime.date(2013, 2, 1)}


def test_dates_that_could_be_either_way_stay_text_and_are_reported(encode: Encode) -> None:
    done = encode(column("01/02/2013", "03/04/2013"))

    assert done.report["notes"][0]["column"] == "c"
    assert "day first or month first" in done.report["notes"][0]["note"]
    assert encode(column("01/02/2013"), dateOrder="mdy").types == {"c": "Date"}


def test_a_decimal_comma_is_read_where_it_can_be_nothing_else(encode: Encode) -> None:
    done = encode("a;b\n1,5;1.234,25\n-2,75;3,5\n")

    assert done.types == {"a": "Float64", "b": "Float64"}
    assert done.table.to_pydict() == {"a": [1.5, -2.75], "b": [1234.25, 3.5]}


def test_a_comma_that_could_divide_thousands_stays_text_and_is_reported(encode: Encode) -> None:
    done = encode("a;b\n1,234;x\n2,500;y\n")

    assert done.types["a"] == "Utf8"
    assert "thousands" in done.report["notes"][0]["note"]


def test_empty_is_null_and_quoted_empty_is_empty_text(encode: Encode) -> None:
    assert encode('a,b\nx,\ny,""\n').table["b"].to_pylist() == [None, ""]
    assert encode("a,b\nx,NA\ny,\n").table["b"].to_pylist() == ["NA", None]
    assert encode('a,b\nx,1\ny,""\n').table["b"].to_pylist() == [1, None]


def test_words_for_null_are_null_in_numbers_and_text_in_text(encode: Encode) -> None:
    done = encode("n,t\nNA,NA\n5,Namibia\n")

    assert done.table.to_pydict() == {"n": [None, 5], "t": ["NA", "Namibia"]}


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("usual", "breaking", "wide", "shown"),
    [
        ("5", "5.5", "Float64", ("Int64", "Float64")),
        ("5", "unknown", "Utf8", ("Int64", "Utf8")),
        ("2.5", "n.a.", "Utf8", ("Float64", "Utf8")),
        ("2013-01-01", "2013-01-01 10:00:00", "Timestamp(us)", ("Date", "Timestamp(us)")),
        ("2013-01-01", "soon", "Utf8", ("Date", "Utf8")),
        ("true", "maybe", "Utf8", ("Bool", "Utf8")),
    ],
)
def test_a_later_value_widens_its_column_and_is_reported(
    encode: Encode, usual: str, breaking: str, wide: str, shown: tuple[str, str]
) -> None:
    text = "a,c\n" + f"1,{usual}\n" * LONG + f"2,{breaking}\n" + f"3,{usual}\n"

    done = encode(text)

    assert done.types == {"a": "Int64", "c": wide}
    assert done.answer["rows"] == LONG + 2
    line = LONG + 2
    assert done.report["widened"] == [
        {"column": "c", "line": line, "value": breaking, "from": shown[0], "to": shown[1]}
    ]
    if wide == "Utf8":
        assert done.table["c"].to_pylist()[-2:] == [breaking, usual]
        assert done.table["c"][0].as_py() == usual


def test_widening_twice_ends_with_text_that_lost_nothing(encode: Encode) -> None:
    text = column("12345678901234567", *["1"] * LONG, "2.5", *["1"] * LONG)

    done = encode(text)

    assert done.types == {"c": "Utf8"}
    values = done.table["c"].to_pylist()
    assert (values[0], values[1], values[LONG + 1]) == ("12345678901234567", "1", "2.5")


@pytest.mark.nightly
def test_shards_of_a_widened_file_are_in_order_and_cover_the_source(encode: Encode) -> None:
    rows = [*map(str, range(LONG)), "x", *map(str, range(LONG))]

    done = encode(column(*rows), limits={"source_bytes": 1 << 20})

    shards = done.answer["shards"]
    assert done.table["c"].to_pylist() == rows
    assert len(shards) >= 3
    assert shards[0]["byteStart"] == 2
    assert [s["byteEnd"] for s in shards[:-1]] == [s["byteStart"] for s in shards[1:]]
    assert shards[-1]["byteEnd"] == done.source["bytes"]
    sums = [sum(s["rows"] for s in shards[:i]) for i in range(len(shards))]
    assert [s["firstRow"] for s in shards] == sums


def test_a_column_that_begins_later_gets_its_type_then(encode: Encode) -> None:
    text = "a,c\n" + "1,\n" * LONG + "2,7\n"

    done = encode(text)

    assert done.types["c"] == "Int64"
    assert done.table["c"].to_pylist()[-2:] == [None, 7]
    assert done.report["widened"] == []


def test_strict_refuses_a_later_value_with_its_line_and_offset(encode: Encode) -> None:
    text = "a,c\n" + "1,5\n" * LONG + "2,oops\n"

    with pytest.raises(BadInput) as caught:
        encode(text, strict=True)

    assert caught.value.line == LONG + 2
    assert caught.value.byte_offset == 4 + 4 * LONG
    assert "'oops'" in str(caught.value)


def test_statistics_report_nulls_minimum_and_maximum(encode: Encode) -> None:
    done = encode("n,t,d\n5,b,2013-01-02\n,a,2013-01-01\n7,,\n")

    assert done.answer["shards"][0]["stats"] == {
        "n": {"nulls": 1, "min": 5, "max": 7},
        "t": {"nulls": 1, "min": "a", "max": "b"},
        "d": {"nulls": 1, "min": "2013-01-01", "max": "2013-01-02"},
    }


def test_an_unknown_option_is_refused_with_the_nearest(encode: Encode) -> None:
    with pytest.raises(UsageError) as caught:
        encode("a\n1\n", delimitr=",")
    assert "delimiter" in str(caught.value.hint)
