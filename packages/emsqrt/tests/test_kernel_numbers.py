from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from emsqrt.io.testing import BAD, expected, value
from sennit_core.schema import DataType

INTEGERS = (
    *(
        "0",
        "7",
        "-7",
        "+7",
        "--7",
        " 7",
        "7 ",
        "\t7",
        "\v7",
        "007",
        "-007",
        "-0",
        "-",
        "1.0",
        "1e3",
    ),
    *("0x10", "0X1f", "-0x10", "0x", "0xff", "0xffff", "0xffffffffffffffff", "0x00000000000000001"),
    *("127", "128", "-128", "-129", "255", "256", "32767", "32768", "65535", "65536", "4294967295"),
    *("4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775808"),
    *("-9223372036854775809", "18446744073709551615", "18446744073709551616", "9" * 21),
    *("0" * 40 + "1", "١", "1_0", '"1"', '" 1"', '"1"2', "", " "),
)
KINDS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_read_as_arrow_reads_them(kind: str) -> None:
    for text in INTEGERS:
        assert value(text, kind) == expected(text, kind), text


@given(st.text(alphabet="0123456789-+xXaF \t.", max_size=22), st.sampled_from(KINDS))
def test_any_text_is_an_integer_just_when_arrow_says_so(text: str, kind: str) -> None:
    assert value(text, kind) == expected(text, kind)


FLOATS = (
    *("1", "+1", "-1.5", ".5", "5.", "-.5", "-.", ".", "1e3", "1E+3", "1e-3", "1e", "1e+", "e5"),
    *("inf", "Inf", "-INF", "+inf", "infinity", "infinit", "nan", "-NaN", "nan(1)", "nan(a_9)"),
    *("nan(", "nan)", "nan()", "nan(-)", "1_0", "0x1p3", " 1.5 ", "\t1", "1e400", "-1e400", "1,5"),
    *("1e-400", "00.5", "1e0000000000000000001", "1f", "1e99999999999999999999", "-0", "0e999"),
    *("4.9e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "9007199254740993"),
    *("1.7976931348623158e308", "1.7976931348623159e308", "8.5", "0.1", "123456789012345678901"),
    *("16777217", "0.0000001", "3.4028235677973366e38", "1e39", "7.0064923216240854e-46", "."),
)


@pytest.mark.parametrize("kind", ["Float32", "Float64"])
def test_floats_are_read_as_arrow_reads_them(kind: str) -> None:
    for text in FLOATS:
        assert value(f'"{text}"', kind) == expected(f'"{text}"', kind), text


@given(st.floats(allow_nan=False) | st.floats(allow_nan=False, width=32))
def test_every_double_round_trips(number: float) -> None:
    assert value(repr(number), "Float64") == repr(number)


@pytest.mark.slow
@given(st.from_regex(r"-?[0-9]{0,40}\.?[0-9]{0,40}([eE][+-]?[0-9]{1,3})?", fullmatch=True))
@example("1" * 900 + "e-880")
@example("9007199254740992." + "0" * 900 + "1")
@example("0." + "0" * 400 + "123e390")
def test_any_decimal_text_is_rounded_once(text: str) -> None:
    digits = [digit for digit in text.lower().split("e")[0] if digit.isdigit()]
    assume(digits)
    assert value(text, "Float64") == repr(float(text))
    assert value(text, "Float32") == expected(text, "Float32")


DECIMALS = (
    *("1", "+1", "-1.5", ".5", "5.", "1.50", "1.500", "1.505", "123.45", "999.99", "-999.99"),
    *("0001.5", "00001.50", "1e2", "1e-2", "1E2", "1e-3", "10e-3", " 1.5 ", "1.5e1", "-", "."),
    *("1..2", "nan", "0", "0.000", "0.0000", "0.000000", "1.50000", "1e", "1e+", "1e+1"),
    *("100000e-5", "12345e-2", "12345e-3", "0.001e3", "1e1000", "123456", "0" * 50 + "1"),
    *("9" * 38, "-" + "9" * 38, "9" * 39, "0." + "9" * 38, "1e37", "1e38", "1e-38", "x"),
)


@pytest.mark.parametrize("kind", ["Decimal(5,2)", "Decimal(38,0)", "Decimal(38,38)"])
def test_decimals_are_read_as_arrow_reads_them(kind: str) -> None:
    for text in DECIMALS:
        assert value(text, kind) == within_precision(text, kind), text


def within_precision(text: str, kind: str) -> str:
    """What Arrow reads, but BAD where it shifts a value past its precision (and then overflows)."""
    arrows, parsed = expected(text, kind), DataType.parse(kind)
    if arrows in (BAD, "None"):
        return str(arrows)
    whole_digits = (parsed.precision or 0) - (parsed.scale or 0)
    return arrows if Decimal(text.strip()).copy_abs() < 10**whole_digits else BAD


@given(st.from_regex(r"[-+]?[0-9]{0,9}\.?[0-9]{0,9}([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_a_decimal_that_does_not_fit_is_refused_and_any_other_exact(text: str) -> None:
    found, arrows = value(text, "Decimal(9,4)"), within_precision(text, "Decimal(9,4)")
    if found != BAD:
        assert found == arrows == "None" or Decimal(text) == Decimal(found) == Decimal(arrows)
    elif arrows != BAD:  # Arrow shifts by more digits than it has
        assert Decimal(text).as_tuple().exponent < -38  # type: ignore[operator]


WORDS = ("true", "True", "TRUE", "tRue", "1", "0", "false", "FALSE", "False", "t", " true", '"1"')


def test_bools_are_read_as_arrow_reads_them() -> None:
    for text in WORDS:
        assert value(text, "Bool") == expected(text, "Bool"), text


DAYS = (
    *("2013-01-05", "2013-1-5", "0001-01-01", "9999-12-31", "0000-01-01", "2013-02-29"),
    *("2012-02-29", "1900-02-29", "2000-02-29", " 2013-01-05 ", "20130105", "2013/01/05"),
    *("-001-01-01", "2013-01-32", "2013-00-01", "2013-13-01", "2013-01-00", "2013-01-05x", ""),
)
CLOCKS = (
    *("05", "05:06", "05:06:07", "05:06:07.5", "05:06:07.123", "05:06:07.1234", "05:06:07."),
    *("05:06:07.123456", "05:06:07.1234567", "05:06:07.123456789", "24:00:00", "23:59:60"),
    *("23:59:59", "5:06:07", "0506", "050607", "05:06.5", "05:60:00", "05:06:0", "05:06:"),
)
ZONES = ("", "Z", "z", " Z", "+01", "+0100", "+01:00", "-01:30", "+24:00", "+23:59", "+1", "+0160")
STAMPS = ("Timestamp(s)", "Timestamp(ms)", "Timestamp(us)", "Timestamp(ns)", "Timestamp(us,UTC)")


def test_days_and_times_are_read_as_arrow_reads_them() -> None:
    for text in DAYS:
        assert value(text, "Date") == expected(text, "Date"), text
    for text in CLOCKS:
        assert value(text, "Time") == expected(text, "Time"), text


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", [*STAMPS, "Timestamp(ms,+05:00)"])
def test_instants_are_read_as_arrow_reads_them(kind: str) -> None:
    texts = [*DAYS, *(f"2013-01-05{mark}{clock}" for mark in " Tt" for clock in CLOCKS)]
    texts += [f"2013-01-05 {clock}{zone}" for clock in CLOCKS for zone in ZONES]
    texts += [f"2013-01-05{zone}" for zone in ZONES]
    texts += ["1677-09-21 00:12:44.000000000", "1677-09-21 00:12:43.145224191"]
    texts += ["2262-04-11 23:47:16.854775807", "2262-04-11 23:47:16.854775808"]
    everything = pa.array(texts)
    for text in everything.to_pylist():
        assert value(text, kind) == expected(text, kind), text


def test_the_least_instants_of_64_bits_are_read() -> None:
    for fraction in (145_224_192, 145_224_193, 999_999_999):
        text = f"1677-09-21 00:12:43.{fraction:09}"
        assert value(text, "Timestamp(ns)") == str(-9_223_372_037 * 10**9 + fraction)
    assert value("1969-12-31 23:59:59.999999999", "Timestamp(ns)") == "-1"
