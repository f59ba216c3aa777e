from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from emsqrt.io.csv_options import CsvOptions, read_header
from emsqrt.io.csv_scan import CsvScan, infer_csv_schema
from emsqrt.io.scan import open_scan
from emsqrt.memory import MemoryBudget
from emsqrt.plan import Files
from sennit_core.errors import BadInput, CapTooSmall, UnknownColumn, UsageError
from sennit_core.schema import Schema

MIB = 1 << 20


def read(
    path: Path, schema: Schema, block_bytes: int = 64, **options: object
) -> list[dict[str, object]]:
    with MemoryBudget(4 * MIB) as budget:
        scan = CsvScan(path, schema, CsvOptions(**options), budget, block_bytes)  # type: ignore[arg-type]
        with budget.acquire(scan.need_bytes, "scan") as guard:
            batches = list(scan.batches(guard))
        assert scan.bytes_done == path.stat().st_size
    rows: list[dict[str, object]] = pa.Table.from_batches(batches, schema.to_arrow()).to_pylist()
    return rows


def put(folder: Path, text: str | bytes) -> Path:
    path = folder / "in.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_values_come_out_typed_and_null_differs_from_empty(tmp_path: Path) -> None:
    path = put(tmp_path, 'id,name,price\n1,"",1.5\n2,,\n3,"a\nb",2\n')
    rows = read(path, Schema.of(id="Int64", name="Utf8", price="Decimal(9,2)"))
    assert [(row["id"], row["name"], str(row["price"])) for row in rows] == [
        (1, "", "1.50"),
        (2, None, "None"),
        (3, "a\nb", "2.00"),
    ]


def test_only_the_wanted_columns_are_read_in_the_wanted_order(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b,c\n1,x,2\n3,y,4\n")
    assert read(path, Schema.of(c="Int64", a="Int64")) == [{"c": 2, "a": 1}, {"c": 4, "a": 3}]


def test_many_small_blocks_give_every_row(tmp_path: Path) -> None:
    path = put(tmp_path, "n,text\r\n" + "".join(f'{n},"line\r\n{n}"\r\n' for n in range(500)))
    rows = read(path, Schema.of(n="Int64", text="Utf8"), block_bytes=50)
    assert rows == [{"n": n, "text": f"line\r\n{n}"} for n in range(500)]


def test_types_are_inferred_from_the_beginning(tmp_path: Path) -> None:
    path = put(tmp_path, "i,f,d,t,b,s,none\n1,1.5,2013-01-01,2013-01-01 05:00:00,true,x,\n")
    assert str(infer_csv_schema(path, CsvOptions())).split("\n") == [
        "i: Int64",
        "f: Float64",
        "d: Date",
        "t: Timestamp(s)",
        "b: Bool",
        "s: Utf8",
        "none: Utf8",
    ]


def test_a_header_alone_is_an_empty_table(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b")
    assert infer_csv_schema(path, CsvOptions()) == Schema.of(a="Utf8", b="Utf8")
    assert read(path, Schema.of(a="Utf8")) == []


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    path = put(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n")
    assert read_header(path, CsvOptions()) == (("a", "b"), 7)
    assert read(path, Schema.of(a="Int64")) == [{"a": 1}]


def test_files_without_a_header_name_their_columns_by_position(tmp_path: Path) -> None:
    path = put(tmp_path, "1;'x;y'\n")
    rows = read(path, Schema.of(column1="Utf8"), header=False, delimiter=";", quote="'")
    assert rows == [{"column1": "x;y"}]


def test_words_for_null_are_nulls_unless_quoted(tmp_path: Path) -> None:
    path = put(tmp_path, 'a\nNA\n"NA"\n')
    rows = read(path, Schema.of(a="Utf8"), null_values=("NA",))
    assert rows == [{"a": None}, {"a": "NA"}]


@pytest.mark.parametrize(
    ("text", "line", "byte_offset", "reason"),
    [
        ("a,b\n1,2\n3\n", 3, 8, "1 fields, expected 2"),
        ('a,b\n1,"x\ny"\n3,4,5\n', 4, 12, "3 fields, expected 2"),
        ("a,b\n1,2\n\nx,4\n", 4, 9, "column 'a' is int64, and 'x' is not"),
        ("a,b\n1,2\n99999999999999999999,4\n", 3, 8, "column 'a' is int64"),
    ],
)
def test_a_broken_record_is_named_by_line_and_byte(
    tmp_path: Path, text: str, line: int, byte_offset: int, reason: str
) -> None:
    path = put(tmp_path, text)
    with pytest.raises(BadInput, match=reason) as raised:
        read(path, Schema.of(a="Int64", b="Utf8"), block_bytes=1024)
    assert (raised.value.line, raised.value.byte_offset) == (line, byte_offset)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"a,b,a\n", "columns 1 and 3 are both named 'a'"),
        (b"\xff\xfea\0,\0", "UTF-16"),
        (b"caf\xe9,b\n1,2\n", "not UTF-8"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        infer_csv_schema(put(tmp_path, data), CsvOptions())


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = put(tmp_path, "carrier,distance\nUA,1\n")
    with pytest.raises(UnknownColumn, match='no column "carier"') as raised:
        read(path, Schema.of(carier="Utf8"))
    assert raised.value.suggestion == "carrier"


def test_a_record_longer_than_the_budget_allows_is_refused_with_its_offset(tmp_path: Path) -> None:
    path = put(tmp_path, 'a\nx\n"' + "y" * (2 * MIB) + '"\n')
    with pytest.raises(BadInput, match="longer than") as raised:
        read(path, Schema.of(a="Utf8"))
    assert raised.value.byte_offset == 4


def test_a_budget_without_room_for_a_block_refuses_before_reading(tmp_path: Path) -> None:
    path = put(tmp_path, "a\n1\n")
    files = Files((str(path),), "csv")
    with MemoryBudget(1000) as budget, pytest.raises(CapTooSmall, match="blocks of 64"):
        open_scan(files, Schema.of(a="Int64"), budget)


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="no option 'delimeter'") as raised:
        CsvOptions.from_json({"delimeter": ";"})
    assert raised.value.hint == 'did you mean "delimiter"?'
