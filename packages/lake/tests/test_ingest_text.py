"""Delimiters, headers, encodings, quotes, and text that is wrong."""

from __future__ import annotations

import pytest

from sennit_core.errors import BadInput

from .conftest import Encode

MIB = 1 << 20


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(encode: Encode, delimiter: str) -> None:
    text = "\n".join(delimiter.join(row) for row in [["a", "b"], ["1", "x, y"], ["2", "z"]])
    quoted = text.replace("x, y", '"x, y"')

    done = encode(quoted)

    assert done.source["delimiter"] == delimiter
    assert done.table.to_pydict() == {"a": [1, 2], "b": ["x, y", "z"]}


@pytest.mark.parametrize(
    ("codec", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16-le"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("cp1252", "cp1252"),
    ],
)
def test_the_encoding_is_found_and_shown(encode: Encode, codec: str, found: str) -> None:
    text = "name,n\nJosé – €5,1\nZoë,2\n"

    done = encode(text.encode(codec), part_bytes=7)

    assert done.source["encoding"] == found
    assert done.table.to_pydict() == {"name": ["José – €5", "Zoë"], "n": [1, 2]}


def test_a_later_byte_that_is_not_utf8_is_replaced_and_reported(encode: Encode) -> None:
    raw = "näme\n".encode() + b"abc\n" * 400_000 + b"caf\xe9\n"

    done = encode(raw)

    assert done.table["näme"].to_pylist()[-1] == "café"
    assert "cp1252" in done.report["notes"][0]["note"]


def test_offsets_are_those_of_the_file_in_any_encoding(encode: Encode) -> None:
    good = "näme,n\n" + "é,1\n" * 200_000
    raw = (good + "é,1,2\n").encode("utf-16-le")

    with pytest.raises(BadInput) as caught:
        encode(raw)

    assert caught.value.line == 200_002
    assert caught.value.byte_offset == len(good.encode("utf-16-le"))


def test_a_first_record_of_values_is_no_header(encode: Encode) -> None:
    done = encode("1,x\n2,y\n")

    assert done.source["header"] is False
    assert done.table.to_pydict() == {"column_1": [1, 2], "column_2": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id,name,2020\n1,x,5\n2,y,6\n", ["id", "name", "2020"]),
        ("name,city\nx,y\n", ["name", "city"]),
        ("x,1\ny,2\n", ["column_1", "column_2"]),
        ("1\n2\n", ["column_1"]),
        ("a\n", ["a"]),
        ("day,n\n2020-01-01,1\n", ["day", "n"]),
        (",n\nx,1\n", ["column_1", "n"]),
    ],
)
def test_a_header_is_distinguished_from_values(encode: Encode, text: str, names: list[str]) -> None:
    assert encode(text).table.column_names == names


def test_header_and_delimiter_can_be_set(encode: Encode) -> None:
    done = encode("a;b\nc;d\n", header=False, delimiter=";")

    assert done.table.to_pydict() == {"column_1": ["a", "c"], "column_2": ["b", "d"]}


@pytest.mark.slow
def test_quoted_newlines_and_delimiters_stay_inside_their_field(encode: Encode) -> None:
    record = '"line one\nline, two","he said ""no""\r\n"\n'

    done = encode("a,b\n" + record * 50_000, part_bytes=1000)

    assert done.answer["rows"] == 50_000
    assert done.table.slice(49_999).to_pylist() == [
        {"a": "line one\nline, two", "b": 'he said "no"\r\n'}
    ]


def test_a_bare_quote_inside_a_field_swallows_nothing(encode: Encode) -> None:
    done = encode('a,b\n5" pipe,1\n6" pipe,2\nx,3\n')

    assert done.table["a"].to_pylist() == ['5" pipe', '6" pipe', "x"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_line_end_will_do_and_the_last_may_miss(encode: Encode, end: str, last: bool) -> None:
    text = end.join(["a,b", "1,2", "3,4"]) + (end if last else "")

    assert encode(text).table.to_pydict() == {"a": [1, 3], "b": [2, 4]}


def test_blank_lines_are_passed_over(encode: Encode) -> None:
    assert encode("\n\na,b\n\n1,2\n\n").table.to_pydict() == {"a": [1], "b": [2]}


@pytest.mark.parametrize("data", ["", "\n\n", "\ufeff"])
def test_a_file_without_records_is_refused(encode: Encode, data: str) -> None:
    with pytest.raises(BadInput, match=r"empty|no records"):
        encode(data)


@pytest.mark.parametrize("data", ["a,b\n", "a,b"])
def test_a_header_alone_is_a_dataset_of_no_rows(encode: Encode, data: str) -> None:
    done = encode(data)

    assert done.answer["rows"] == 0
    assert done.types == {"a": "Utf8", "b": "Utf8"}
    assert len(done.answer["shards"]) == 1


@pytest.mark.parametrize("record", ["1,2,3", "1"])
def test_a_ragged_record_is_refused_with_its_line_and_offset(encode: Encode, record: str) -> None:
    good = 'a,b\n"x\ny",2\n' + "3,4\n" * 300_000

    with pytest.raises(BadInput) as caught:
        encode(good + record + "\n5,6\n")

    assert caught.value.line == 300_004
    assert caught.value.byte_offset == len(good)
    assert f"{record.count(',') + 1} fields" in str(caught.value)


def test_an_unclosed_quote_is_reported_where_it_opens(encode: Encode) -> None:
    with pytest.raises(BadInput, match="never closed") as caught:
        encode('a,b\n1,2\n3,"open\n5,6\n')

    assert (caught.value.line, caught.value.byte_offset) == (3, 8)


@pytest.mark.slow
def test_an_endless_line_is_refused_with_its_offset(encode: Encode) -> None:
    with pytest.raises(BadInput, match="longer than") as caught:
        encode(b"a\n1\n" + b"x" * (65 * MIB))

    assert (caught.value.line, caught.value.byte_offset) == (3, 4)


def test_columns_of_one_name_in_any_case_are_distinguished(encode: Encode) -> None:
    done = encode("a,A,,a_2\n1,2,3,4\n")

    assert done.table.column_names == ["a", "A_3", "column_3", "a_2"]
    assert done.report["renamed"] == [
        {"column": 1, "from": "A", "to": "A_3"},
        {"column": 2, "from": "", "to": "column_3"},
    ]
    with pytest.raises(BadInput, match="duplicate"):
        encode("a,a\n1,2\n", strict=True)


def test_nul_bytes_are_text(encode: Encode) -> None:
    assert encode(b"a,b\nx\x00y,1\n").table["a"].to_pylist() == ["x\x00y"]


@pytest.mark.parametrize(
    ("magic", "word"), [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "ZIP"), (b"%PDF-1.4", "PDF")]
)
def test_packed_and_foreign_files_are_refused_by_name(
    encode: Encode, magic: bytes, word: str
) -> None:
    with pytest.raises(BadInput, match=word):
        encode(magic + b"rest")
