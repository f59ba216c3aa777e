from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emsqrt._kernel import csv_last_record_end, csv_record_end
from emsqrt.io.records import CsvDialect, record_ends

DIALECTS = st.sampled_from(
    [CsvDialect(), CsvDialect(";", "'"), CsvDialect("\t", None), CsvDialect("|", '"')]
)
MARKS = st.lists(
    st.sampled_from([b'"', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"ab", b"x" * 61]),
    max_size=80,
).map(b"".join)


def codes(dialect: CsvDialect) -> tuple[int, int]:
    return ord(dialect.delimiter), -1 if dialect.quote is None else ord(dialect.quote)


@given(MARKS | st.binary(max_size=300), DIALECTS, st.integers(0, 8))
@example(b'"' + b"x" * 62 + b'"\n"a\n', CsvDialect(), 0)
@example(b"x" * 62 + b"\r\n", CsvDialect(), 0)
@example(b'"' + b"x" * 61 + b"\r\r", CsvDialect(), 0)
@example(b'a"b\n' * 40 + b'"open\n', CsvDialect(), 0)
@example(b'a"b\n', CsvDialect(), 0)
@example(b'"a""\n"\n', CsvDialect(), 1)
def test_the_last_end_is_the_exact_scanners_last(
    data: bytes, dialect: CsvDialect, short: int
) -> None:
    size = max(0, len(data) - short)
    ends = list(record_ends(data, size, dialect))
    assert csv_last_record_end(data, size, *codes(dialect)) == (ends[-1] if ends else 0)


@given(MARKS | st.binary(max_size=300), DIALECTS)
def test_record_after_record_is_found_where_the_exact_scanner_finds_it(
    data: bytes, dialect: CsvDialect
) -> None:
    ends, start = [], 0
    while end := csv_record_end(data, start, len(data), *codes(dialect)):
        ends.append(end)
        start = end
    assert ends == list(record_ends(data, len(data), dialect))


@pytest.mark.parametrize(
    "arguments", [(b"ab", 3, 44, 34), (b"ab", -1, 44, 34), (b"ab", 2, 200, 34), (b"ab", 2, 44, 999)]
)
def test_offsets_outside_the_buffer_are_refused(arguments: tuple[bytes, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes|ASCII"):
        csv_last_record_end(*arguments)


def test_any_buffer_will_do() -> None:
    data = bytearray(b"a,b\n1,2")
    assert csv_last_record_end(memoryview(data)[:5], 5, 44, 34) == 4
    assert csv_record_end(data, 4, 7, 44, 34) == 0
