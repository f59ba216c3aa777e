from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from emsqrt._kernel import CsvParser, RecordFault, copy_column, copy_lines
from emsqrt.io.testing import (
    BAD,
    ROOM,
    arrow_of,
    arrow_reads,
    columns_or_fault,
    parse,
    to_list,
    value,
)

TEXT = st.text(alphabet=st.sampled_from('ab,"\r\n é\t'), max_size=12)
RECORDS = st.lists(
    st.tuples(TEXT, st.sampled_from(["", '""', "x"])).map(lambda pair: pair[0] + pair[1]),
    max_size=30,
).map("".join)


@pytest.mark.slow
@given(RECORDS, st.integers(1, 3), st.integers(600, 4000))
@example('"a""b"c"d",x\n' * 3, 2, 600)
@example("a\r\r\nb\n\rc", 1, 600)
@example('a"\nb"\n', 1, 600)
@example('"' + "x" * 70 + '\n"\r\n"y"\n', 1, 600)
@example("x" * 5000 + ',"' + "y" * 5000 + '"\nz,w\n', 2, 4000)
def test_any_text_is_cut_into_the_fields_that_arrow_finds(text: str, count: int, room: int) -> None:
    data, kinds = text.encode(), ["Utf8"] * count
    assume(data)
    wanted = arrow_reads(data, kinds)
    found = columns_or_fault(data, kinds, room=room + 2 * len(data))
    if wanted is BAD:
        assert found == "ragged"
    else:
        assert [to_list(column) for column in found] == [to_list(column) for column in wanted]


@given(st.binary(max_size=40))
def test_text_is_utf8_just_when_python_says_so(octets: bytes) -> None:
    data = b'"' + octets.replace(b'"', b"") + b'"\n'
    (column,) = parse(data, ["Binary"])
    assert column.to_pylist() == [data[1:-2]]
    try:
        text = data[1:-2].decode()
    except UnicodeDecodeError:
        assert columns_or_fault(data, ["Utf8"]) == "encoding"
    else:
        assert to_list(columns_or_fault(data, ["Utf8"])[0]) == [text]


def test_null_empty_and_quoted_are_the_same_as_in_arrow() -> None:
    data = b'NA,NA,1\n"NA",1,2\n,2,3\n"",3,4\nx,NA,NA\n'
    kinds = ["Utf8", "Int64", "Float64"]
    wanted = arrow_reads(data, kinds, ("NA", ""))
    found = parse(data, kinds, null_values=("NA", ""))
    assert [c.to_pylist() for c in found] == [c.to_pylist() for c in wanted]
    assert found[0].to_pylist() == [None, "NA", None, "", "x"]


def test_a_quoted_empty_number_is_null() -> None:
    assert value('""', "Int64") == value('""', "Date") == value("", "Bool") == "None"


def test_wanted_fields_come_in_the_requested_order_with_their_records() -> None:
    data = b'1,a,"x\ny"\r\n2,b,"z"\n\n3,c,'
    parser = CsvParser(bytearray(ROOM), field_count=3, columns=[(2, "Utf8"), (0, "Int64")])
    columns, after = parser.parse(data)
    assert after == len(data)
    assert arrow_of(columns, 0, "Utf8").to_pylist() == ["x\ny", "z", None]
    assert arrow_of(columns, 1, "Int64").to_pylist() == [1, 2, 3]
    assert copy_lines(columns) == [b'1,a,"x\ny"', b'2,b,"z"', b"3,c,"]
    assert parser.records == 3


def test_columns_are_empty_once_their_memory_is_used_again() -> None:
    parser = CsvParser(bytearray(ROOM), field_count=1, columns=[(0, "Int64")])
    block = bytearray(b"1\n2\n")
    first, _ = parser.parse(block)
    assert len(first) == 2
    with pytest.raises(BufferError):
        block.append(1)
    second, _ = parser.parse(b"3\n")
    assert (len(first), len(second)) == (0, 1)
    block.append(1)
    parser.release()
    assert len(second) == 0
    del parser
    assert copy_column(second, 0) == (4, None, b"", None)


@pytest.mark.parametrize("room", [400, 1000, 5000])
def test_little_memory_makes_many_batches_of_the_same_rows(room: int) -> None:
    data = b"".join(b"%d,%s,%d\n" % (n, b"t" * (n % 60), n % 2) for n in range(500))
    kinds = ["Int64", "Utf8", "Bool"]
    assert parse(data, kinds, room=room) == parse(data, kinds, room=1 << 20)


def test_a_record_that_needs_more_than_the_memory_is_named() -> None:
    data = b"1,a\n2," + b"x" * 5000 + b"\n"
    with pytest.raises(RecordFault, match="room") as raised:
        parse(data, ["Int64", "Utf8"], room=2000)
    assert (raised.value.offset, raised.value.size, raised.value.row) == (4, 5002, 1)
    assert parse(data, ["Int64", "Utf8"], room=5200)[0].to_pylist() == [1, 2]
    assert parse(data, ["Int64"], room=2000, field_count=2)[0].to_pylist() == [1, 2]


BROKEN = b"1,a\n2\nx,b\n3,c,d\n4,\xff\n5,e\n"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (BROKEN, (4, 1, 1, 1, "ragged", "2")),
        (BROKEN.replace(b"2\n", b""), (4, 3, 1, 0, "value", "x")),
        (BROKEN.replace(b"2\nx,b\n", b""), (4, 5, 1, 3, "ragged", "3,c,d")),
        (b"1,a\n4,\xff\n", (4, 3, 1, 1, "encoding", "�")),
        (b'"1,a\n', (0, 5, 0, 1, "ragged", '"1,a\n')),
        (b"1," + b"\xff" * 900, (0, 902, 0, 1, "encoding", "�" * 80)),
    ],
)
def test_a_broken_record_is_described(data: bytes, fault: tuple[object, ...]) -> None:
    with pytest.raises(RecordFault) as raised:
        parse(data, ["Int64", "Utf8"])
    found = raised.value
    assert (found.offset, found.size, found.row, found.field, found.reason, found.text) == fault


def test_rows_before_a_broken_record_are_there() -> None:
    parser = CsvParser(bytearray(ROOM), field_count=2, columns=[(0, "Int64")])
    columns, after = parser.parse(BROKEN)
    assert (len(columns), after) == (1, 4)
    with pytest.raises(RecordFault):
        parser.parse(BROKEN, after)


def test_broken_records_are_left_out_and_listed() -> None:
    parser = CsvParser(
        bytearray(ROOM), field_count=2, columns=[(0, "Int64"), (1, "Utf8")], on_error="skip"
    )
    columns, after = parser.parse(BROKEN)
    assert after == len(BROKEN)
    assert arrow_of(columns, 0, "Int64").to_pylist() == [1, 5]
    assert parser.skipped_records == [
        (4, 1, 1, "ragged"),
        (6, 3, 0, "value"),
        (10, 5, 3, "ragged"),
        (16, 3, 1, "encoding"),
    ]
    assert (parser.skipped, parser.records) == (4, 6)


def test_many_broken_records_are_listed_call_by_call() -> None:
    parser = CsvParser(bytearray(ROOM), field_count=1, columns=[(0, "Int64")], on_error="skip")
    data, start, listed, rows = b"x\n1\ny\n" * 100 + b"z\n" * 150, 0, 0, 0
    while start < len(data):
        columns, start = parser.parse(data, start)
        listed += len(parser.skipped_records)
        rows += len(columns)
    assert (listed, parser.skipped, rows) == (350, 350, 100)


def test_values_that_do_not_fit_become_null_but_surplus_fields_are_an_error() -> None:
    data = BROKEN.replace(b"3,c,d\n", b"")
    found = parse(data, ["Int64", "Utf8"], on_error="null")
    assert [c.to_pylist() for c in found] == [[1, 2, None, 4, 5], ["a", None, "b", None, "e"]]
    with pytest.raises(RecordFault, match="ragged"):
        parse(BROKEN, ["Int64", "Utf8"], on_error="null")


def test_fields_are_not_counted_unless_requested() -> None:
    found = parse(b"1\n2,x,y\n", ["Int64"], field_count=2, check_fields=False)
    assert found[0].to_pylist() == [1, 2]
    with pytest.raises(RecordFault, match="ragged"):
        parse(b"1\n", ["Utf8"], fields=[1], field_count=2, check_fields=False)


@pytest.mark.parametrize(
    "options",
    [
        {"field_count": 0, "columns": []},
        {"field_count": 1, "columns": [(1, "Int64")]},
        {"field_count": 1, "columns": [(0, "Int65")]},
        {"field_count": 1, "columns": [(0, "Decimal(39,2)")]},
        {"field_count": 1, "columns": [(0, "Timestamp(h)")]},
        {"field_count": 1, "columns": [], "delimiter": ",,"},
        {"field_count": 1, "columns": [], "quote": ","},
        {"field_count": 1, "columns": [], "on_error": "ignore"},
        {"field_count": 1, "columns": [], "null_values": ["x" * 256]},
    ],
)
def test_a_parser_of_nothing_sensible_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        CsvParser(bytearray(100), **options)


def test_memory_must_be_writable() -> None:
    with pytest.raises(BufferError):
        CsvParser(b"x" * 100, field_count=1, columns=[])
