from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from emsqrt import pipeline
from emsqrt.io.csv_options import CsvOptions, read_header
from emsqrt.io.csv_scan import CsvScan
from emsqrt.io.inference import infer_csv_schema, infer_schema
from emsqrt.io.scan import open_scan
from emsqrt.memory import MemoryBudget
from emsqrt.plan import Files
from sennit_core.errors import BadInput, CapTooSmall, UnknownColumn, Unsupported, UsageError
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


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("mark", ["", '"'])
def test_a_first_field_without_a_header_may_be_long(mark: str, tier: str, tmp_path: Path) -> None:
    long = "x" * (300 << 10)
    path = put(tmp_path, f"{mark}{long}{mark},1\n{mark}y{mark},2\n")
    rows = pipeline.scan(path, schema=Schema.of(column0="Utf8", column1="Int64"), header=False)
    rows = rows.filter("column1 > 0") if tier == "text" else rows.select("column1", "column0")
    manifest = rows.sink(tmp_path / "out.csv").run("96MiB", in_process=tier == "arrow")
    assert (manifest.tier, manifest.rows_out) == (tier, 2)
    assert long in (tmp_path / "out.csv").read_text()


def test_many_small_blocks_yield_every_row(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("0 1 -7", "Int64"),
        ("18446744073709551615 1", "UInt64"),
        ("18446744073709551615 -1", "Decimal(38,0)"),
        ("9" * 38, "Decimal(38,0)"),
        ("9" * 39, "Utf8"),
        ("18446744073709551616 1.5", "Float64"),
        ("+18446744073709551616", "Decimal(38,0)"),
        ("+5 1e20", "Float64"),
        ("0 0.5 -0.25", "Float64"),
        ("007", "Utf8"),
        ("0 1 -07", "Utf8"),
        ("10001 02134", "Utf8"),
        ("1.5 00.5", "Utf8"),
        (f"1 0{'9' * 38}", "Utf8"),
        ("9999-12-31T23:59:59.999 2024-01-01", "Timestamp(us)"),
        ("9999-12-31T23:59:59.999Z", "Timestamp(us,UTC)"),
        ("2024-01-31T10:00:00.5", "Timestamp(us)"),
        ("2024-01-31T10:00:00.123456789", "Timestamp(ns)"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "|"])
def test_no_value_of_the_sample_is_rounded(
    values: str, kind: str, delimiter: str, tmp_path: Path
) -> None:
    rows = [f"7{delimiter}{value}" for value in values.split()]
    path = put(tmp_path, "\n".join([f"a{delimiter}b", *rows]))
    assert str(infer_csv_schema(path, CsvOptions(delimiter=delimiter)).field("b").type) == kind


def test_a_number_longer_than_the_room_to_look_at_it_keeps_its_type(tmp_path: Path) -> None:
    path = put(tmp_path, f"a\n0.{'1' * (100 << 10)}\n2\n")
    assert infer_csv_schema(path, CsvOptions()) == Schema.of(a="Float64")


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
        ("a,b\n1,2\n\nx,4\n", 4, 9, "column 'a' is Int64, and 'x' is not"),
        ("a,b\n1,2\n99999999999999999999,4\n", 3, 8, "column 'a' is Int64"),
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


def test_a_record_longer_than_the_budget_allows_is_a_matter_of_the_cap(tmp_path: Path) -> None:
    path = put(tmp_path, 'a\nx\n"' + "y" * (2 * MIB) + '"\n')
    with pytest.raises(CapTooSmall, match=r"record at byte 4 of .* is longer than") as raised:
        read(path, Schema.of(a="Utf8"))
    assert raised.value.needed_bytes == 5 * (2 * MIB + 4)


def test_a_budget_without_room_for_a_block_refuses_before_reading(tmp_path: Path) -> None:
    path = put(tmp_path, "a\n1\n")
    files = Files((str(path),), "csv")
    with MemoryBudget(1000) as budget, pytest.raises(CapTooSmall, match="blocks of 64"):
        open_scan(files, Schema.of(a="Int64"), budget)


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="no option 'delimeter'") as raised:
        CsvOptions.from_json({"delimeter": ";"})
    assert raised.value.hint == 'did you mean "delimiter"?'


def scanned(
    path: Path,
    schema: Schema,
    format: str = "csv",  # noqa: A002
    **options: object,
) -> tuple[list[dict[str, object]], int, int]:
    """The rows, how many values became NULL, and how many records were left out."""
    source = Files((str(path),), format, options)
    with MemoryBudget(16 * MIB) as budget, open_scan(source, schema, budget) as scan:
        rows = [row for batch in scan for row in batch.to_pylist()]
        return rows, scan.nulled_values, scan.rejected_rows


BROKEN = 'a,b\n1,x\nno,y\n3\n4,"z\nz"\n5,u,v\n6,\xff\n7,w\n'.encode("latin-1")


def test_bad_values_become_null_on_request(tmp_path: Path) -> None:
    path = put(tmp_path, BROKEN.replace(b"5,u,v\n", b""))
    rows, nulled, rejected = scanned(path, Schema.of(a="Int64", b="Utf8"), badRows="null")
    assert [row["a"] for row in rows] == [1, None, 3, 4, 6, 7]
    assert [row["b"] for row in rows] == ["x", "y", None, "z\nz", None, "w"]
    assert (nulled > 0, rejected) == (True, 0)


def test_bad_records_are_left_out_and_kept_with_their_place(tmp_path: Path) -> None:
    path = put(tmp_path, BROKEN)
    reject = tmp_path / "rejected.csv"
    rows, nulled, rejected = scanned(
        path, Schema.of(a="Int64", b="Utf8"), badRows="reject", rejectFile=str(reject)
    )
    assert [row["a"] for row in rows] == [1, 4, 7]
    assert (nulled, rejected) == (0, 4)
    lines = reject.read_bytes().decode("latin-1").splitlines()
    assert lines[0] == "file,line,byte,reason,record"
    assert lines[1] == f'{path},3,8,"column \'a\' is Int64, and a value is not","no,y"'
    assert lines[2] == f'{path},4,13,"1 fields, expected 2",3'
    assert lines[3].endswith(',7,23,"3 fields, expected 2","5,u,v"')
    assert lines[4].endswith('is not UTF-8,"6,\xff"')


def test_a_reject_file_does_not_appear_when_the_run_fails(tmp_path: Path) -> None:
    reject = tmp_path / "rejected.csv"
    source = Files(
        (str(put(tmp_path, BROKEN)),), "csv", {"badRows": "reject", "rejectFile": str(reject)}
    )
    with MemoryBudget(16 * MIB) as budget:
        scan = open_scan(source, Schema.of(a="Int64"), budget)
        assert [batch.num_rows for batch in scan.__enter__()] == [4]
        scan.__exit__(RuntimeError, RuntimeError("elsewhere"), None)
    assert not reject.exists()


def test_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    text = "report of today\n# made by hand\nunits,none\n# more\na,b\n1,2\n"
    path = put(tmp_path, b"\xef\xbb\xbf" + text.encode())
    rows, _, _ = scanned(path, Schema.of(a="Int64", b="Int64"), skipRows=1, comment="#", header=2)
    assert rows == [{"a": 1, "b": 2}]


def test_decimals_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "d\n9999\n")
    with pytest.raises(BadInput, match=r"Decimal\(5,2\)"):
        read(path, Schema.of(d="Decimal(5,2)"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"encoding": "utf-16"}, Unsupported, "utf-16 is not read"),
        ({"badRows": "skip"}, UsageError, "fail, null, reject"),
        ({"rejectFile": "x"}, UsageError, "needs badRows"),
        ({"comment": "//"}, UsageError, "one ASCII character"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CsvOptions.from_json(options)


def test_compressed_files_and_globs_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"))
    (tmp_path / "b.csv").write_text("a\n3\n")
    source = Files(("*.csv*",), "csv")
    assert infer_schema(source, tmp_path) == Schema.of(a="Int64")
    with (
        MemoryBudget(16 * MIB) as budget,
        open_scan(source, Schema.of(a="Int64"), budget, folder=tmp_path) as scan,
    ):
        assert [row["a"] for batch in scan for row in batch.to_pylist()] == [1, 2, 3]
        assert scan.bytes_done == scan.bytes_total > 0


LINES = (
    '{"n": 1, "f": 1, "t": "x", "d": "2020-01-31", "l": [1], "o": {"k": "v"}, "w": "2020-01-31T05:00:00Z"}\n'
    '{"n": 2, "f": 0.5, "t": 7, "d": null, "l": [], "w": null, "new": true}\n\n'
)


def test_json_lines_are_inferred_and_widened(tmp_path: Path) -> None:
    path = put(tmp_path, LINES)
    schema = infer_schema(Files((str(path),), "jsonl"))
    assert str(schema).split("\n") == [
        "n: Int64",
        "f: Float64",
        "t: Utf8",
        "d: Date",
        "l: List(Int64)",
        "o: Struct(k: Utf8)",
        "w: Timestamp(us,UTC)",
        "new: Bool",
    ]
    rows, _, _ = scanned(path, schema, "jsonl")
    assert [
        (row["n"], row["f"], row["t"], str(row["d"]), row["l"], row["o"], row["new"])
        for row in rows
    ] == [
        (1, 1.0, "x", "2020-01-31", [1], {"k": "v"}, None),
        (2, 0.5, "7", "None", [], None, True),
    ]


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ("18446744073709551615 0", "UInt64"),
        ("-1 18446744073709551615", "Decimal(38,0)"),
        ("1 18446744073709551616 null", "Decimal(38,0)"),
        ("1 18446744073709551616 1.5", "Float64"),
        ("9" * 39, "Float64"),
    ],
)
def test_whole_numbers_of_json_are_not_rounded(numbers: str, kind: str, tmp_path: Path) -> None:
    path = put(tmp_path, "".join(f'{{"n": {number}}}\n' for number in numbers.split()))
    assert str(infer_schema(Files((str(path),), "jsonl"))) == f"n: {kind}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"n": "x"}', "column 'n' is Int64"),
        ('{"n": 1.5}', "column 'n' is Int64"),
        ('{"n": 1', "not JSON"),
        ("[1]", "not an object"),
        ('{"n": 99999999999999999999}', "column 'n' is Int64"),
    ],
)
def test_a_broken_line_is_named_or_rejected(tmp_path: Path, line: str, reason: str) -> None:
    path = put(tmp_path, f'{{"n": 1}}\n{line}\n{{"n": 3}}\n')
    schema = Schema.of(n="Int64")
    with pytest.raises(BadInput, match=reason) as raised:
        scanned(path, schema, "jsonl")
    assert (raised.value.line, raised.value.byte_offset) == (2, 9)
    reject = tmp_path / "rejected.csv"
    rows, _, rejected = scanned(path, schema, "jsonl", badRows="reject", rejectFile=str(reject))
    assert ([row["n"] for row in rows], rejected) == ([1, 3], 1)
    assert reject.read_text().splitlines()[1].startswith(f"{path},2,9,")


def test_a_value_of_another_type_in_json_lines_may_become_null(tmp_path: Path) -> None:
    path = put(tmp_path, '{"n": 1}\n{"n": "x"}\n')
    rows, nulled, _ = scanned(path, Schema.of(n="Int64"), "jsonl", badRows="null")
    assert ([row["n"] for row in rows], nulled) == ([1, None], 1)
