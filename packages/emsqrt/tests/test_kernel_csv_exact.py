"""Exact numbers: only a text that is the number alone is one."""

from __future__ import annotations

import pytest

from emsqrt._kernel import CsvParser, RecordFault

MEMORY = 1 << 16


def is_read(kind: str, text: str) -> bool:
    parser = CsvParser(
        bytearray(MEMORY),
        field_count=2,
        columns=[(0, kind)],
        null_values=("", "NA"),
        exact=True,
    )
    try:
        columns, _ = parser.parse(f"{text},x\n".encode())
    except RecordFault:
        return False
    return len(columns) == 1


@pytest.mark.parametrize("text", ["0", "1", "-5", " 7 ", "NA", "", "9223372036854775807"])
def test_an_integer_as_it_is_printed_is_one(text: str) -> None:
    assert is_read("Int64", text)


@pytest.mark.parametrize(
    "text", ["-0", "007", "+1", "0x1F", "1.0", "-", "9223372036854775808", "1 2"]
)
def test_other_texts_are_no_integers(text: str) -> None:
    assert not is_read("Int64", text)


@pytest.mark.parametrize("text", ["0", "-0", "1.5", "-0.25", "1e5", "2E-7", "1.5e+3", "NA"])
def test_digits_with_a_fraction_and_an_exponent_are_floats(text: str) -> None:
    assert is_read("Float64", text)


@pytest.mark.parametrize(
    "text", ["00.5", "1.", ".5", "1e", "1e+", "nan", "inf", "0x1p3", "1e400", "12345678901234567", "-"]
)  # fmt: skip
def test_other_texts_are_no_floats(text: str) -> None:
    assert not is_read("Float64", text)


@pytest.mark.parametrize(("text", "nulls"), [("NA", 0), ("", 1), ('""', 0)])
def test_words_for_null_are_words_in_text(text: str, nulls: int) -> None:
    parser = CsvParser(
        bytearray(MEMORY),
        field_count=2,
        columns=[(0, "Utf8")],
        null_values=("", "NA"),
        exact=True,
    )
    columns, _ = parser.parse(f"{text},x\n".encode())
    assert (columns.addresses(0)[2] != 0) == bool(nulls)
