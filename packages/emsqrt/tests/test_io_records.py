from __future__ import annotations

import csv
import io
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emsqrt.io.records import CsvDialect, is_closed, record_ends, split_fields, split_records
from sennit_core.errors import BadInput

TEXT = st.text(alphabet=st.sampled_from('ab1,"\r\n é'), max_size=60)
CELLS = st.lists(st.lists(TEXT, min_size=1, max_size=4), max_size=12)


def blocks(text: str, block_bytes: int, dialect: CsvDialect | None = None) -> list[str]:
    stream = io.BytesIO(text.encode())
    parts = split_records(
        stream, dialect or CsvDialect(), block_bytes=block_bytes, record_bytes_max=1 << 16
    )
    return [bytes(part.data).decode() for part in parts]


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.slow
@given(CELLS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.integers(1, 60))
def test_cutting_written_csv_changes_no_record(
    cells: list[list[str]], line_end: str, quote_all: bool, block_bytes: int
) -> None:
    out = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(out, lineterminator=line_end, quoting=quoting).writerows(cells)
    parts = blocks(out.getvalue(), block_bytes)
    assert "".join(parts) == out.getvalue()
    assert [row for part in parts for row in rows(part)] == rows(out.getvalue())


@given(TEXT, st.sampled_from(["", "\n", "\r", "\r\n"]))
@example('"a"b"c,"",""""', "\n")
def test_fields_are_those_that_csv_finds(text: str, line_end: str) -> None:
    ended = f"{text}{line_end}".encode()
    for dialect in (CsvDialect(), CsvDialect(";", None)):
        stops = [*record_ends(ended, len(ended), dialect)] or [len(ended)]
        record = ended[: stops[0]].decode()
        if dialect.quote and not is_closed(record.encode(), dialect):
            continue
        stream = io.StringIO(record, newline="")
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE
        found = csv.reader(stream, delimiter=dialect.delimiter, quoting=quoting)
        assert split_fields(record, dialect) == next(found, [])


@given(TEXT, st.integers(1, 60))
@example('a"b\nc"d\ne', 1)
@example('"a"b"\n"c\n"', 3)
@example('""""\n""', 2)
def test_cutting_any_text_changes_no_record(text: str, block_bytes: int) -> None:
    ended = f"{text}\n".encode()
    if [*record_ends(ended, len(ended), CsvDialect())][-1:] != [len(ended)]:
        with pytest.raises(BadInput, match="never closed"):
            blocks(text, block_bytes)
        return
    parts = blocks(text, block_bytes)
    assert "".join(parts) == text
    assert [row for part in parts for row in rows(part)] == rows(text)


@given(TEXT)
def test_the_exact_scanner_ends_where_the_reader_ends(text: str) -> None:
    data = text.encode()
    ends = list(record_ends(data, len(data), CsvDialect()))
    starts = [0, *ends]
    parts = [data[a:b].decode() for a, b in zip(starts, [*ends, len(data)], strict=True)]
    assert [row for part in parts for row in rows(part)] == rows(text)
    assert all(len(rows(part)) == 1 for part in parts[:-1])


def test_blocks_are_no_larger_than_requested_when_records_are_small() -> None:
    parts = blocks("a,b\n" * 1000, 64)
    assert {len(part) for part in parts[:-1]} == {64}


def test_a_stray_quote_costs_nothing_but_time() -> None:
    text = 'size,what\n5" pipe,"a\nb"\n6" pipe,c\n'
    assert blocks(text, 16) == ["size,what\n", '5" pipe,"a\nb"\n', '6" pipe,c\n']


def test_an_endless_record_is_refused_with_its_place() -> None:
    stream = io.BytesIO(b"a,b\n1,2\n" + b'"' + b"x" * 5000)
    parts = split_records(stream, CsvDialect(), block_bytes=16, record_bytes_max=1000, what="f.csv")
    with pytest.raises(BadInput, match=r"f\.csv \(byte 8\).*longer than 1000") as raised:
        list(parts)
    assert raised.value.byte_offset == 8


def test_offsets_count_from_where_the_stream_starts() -> None:
    stream = io.BytesIO(b"1,2\n3,4\n")
    parts = split_records(stream, CsvDialect(), block_bytes=4, record_bytes_max=99, offset=100)
    assert [part.offset for part in parts] == [100, 104]


def test_a_dialect_of_its_own_is_followed() -> None:
    dialect = CsvDialect(delimiter=";", quote="'")
    assert blocks("'a\n';b\nc;d\n", 1, dialect) == ["'a\n';b\n", "c;d\n"]
    assert blocks('"a\nb"\n', 1, CsvDialect(quote=None)) == ['"a\n', 'b"\n']


@pytest.mark.parametrize("mark", ["", "ab", "\n", "é"])
def test_an_impossible_delimiter_is_refused(mark: str) -> None:
    with pytest.raises(BadInput, match="delimiter"):
        CsvDialect(delimiter=mark)
