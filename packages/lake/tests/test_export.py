"""Exports: every format holds the values, and other programs and the ingest read them."""

# ruff: noqa: DTZ001 - Excel has no time zones

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import Lake
from lake.cli import main
from lake.statements.export import write_file
from sennit_core.errors import NotFound, SennitError, Unsupported, UsageError

from .served_lake import Client, make_app

TABLE = pa.table(
    {
        "b": [True, None],
        "i8": pa.array([-5, None], pa.int8()),
        "i": [2**53 + 1, None],
        "u": pa.array([2**64 - 1, None], pa.uint64()),
        "f": [0.1, None],
        "f4": pa.array([1.5, None], pa.float32()),
        "t": ['=1+1 "q", <&>\nü', ""],
        "d": [date(2024, 2, 29), None],
        "s": pa.array([datetime(2024, 2, 29, 1, 2, 3, 4), None], pa.timestamp("us")),
        "z": pa.array([datetime(2024, 2, 29, 1, 2, 3, 4, UTC), None], pa.timestamp("us", "UTC")),
        "c": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
        "m": pa.array([time(1, 2, 3), None], pa.time64("us")),
        "l": [[1, None], None],
        "r": [{"x": 1, "y": "a"}, None],
        "n": pa.array([b"\x00\xff", None], pa.binary()),
    }
)
FORMATS = ("csv", "parquet", "jsonl", "arrow", "xlsx")


@pytest.fixture
def typed(lake: Lake) -> Lake:
    lake.append("t", TABLE)
    return lake


def exported(lake: Lake, form: str, query: str = "FROM t") -> bytes:
    with lake.run(query, format=form) as execution:
        return b"".join(bytes(piece) for piece in execution.payloads())


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_typed_formats_hold_every_value_and_are_ingested_again(
    form: str, typed: Lake, tmp_path: Path
) -> None:
    path = tmp_path / f"u.{form}"
    path.write_bytes(exported(typed, form))
    typed.append("u", path)

    assert typed.sql("FROM u").to_arrow().equals(typed.sql("FROM t").to_arrow())
    read = pl.read_parquet(path) if form == "parquet" else pl.read_ipc_stream(path)
    assert read["t"].to_list() == ['=1+1 "q", <&>\nü', ""]
    assert read["c"].to_list() == [Decimal("1.10"), None]


SIMPLE = "SELECT b, i, f, t, d, s, z FROM t"


@pytest.mark.parametrize("form", ["csv", "jsonl", "xlsx"])
def test_text_formats_are_ingested_again_as_the_same_values(
    form: str, typed: Lake, tmp_path: Path
) -> None:
    # Integers beyond 2^53 and µs are text in Excel, which the ingest reads as what they are.
    path = tmp_path / f"u.{form}"
    path.write_bytes(exported(typed, form, SIMPLE))
    typed.append("u", path)

    again, before = typed.sql("FROM u").to_arrow(), typed.sql(SIMPLE).to_arrow()
    expected = before.to_pylist()
    if form == "xlsx":
        del expected[1]  # empty cells have no other meaning than an empty row
    if form == "jsonl":  # text in JSON stays text, unless it looks like a time
        assert [row["t"] for row in again.to_pylist()] == [row["t"] for row in expected]
        assert again.column("f").equals(before.column("f"))
    else:
        assert again.to_pylist() == expected


def test_other_programs_read_text_formats(typed: Lake) -> None:
    csv = pd.read_csv(io.BytesIO(exported(typed, "csv")), keep_default_na=False)
    assert csv["t"].tolist() == ['=1+1 "q", <&>\nü', ""]
    rows = [json.loads(line) for line in exported(typed, "jsonl").splitlines()]
    assert rows[0]["u"] == 2**64 - 1
    assert rows[0]["l"] == [1, None]
    assert rows[1] == dict.fromkeys(TABLE.column_names) | {"t": ""}
    assert len(pl.read_ndjson(io.BytesIO(exported(typed, "jsonl", SIMPLE)))) == 2


def cells(data: bytes) -> list[tuple[Any, ...]]:
    book = openpyxl.load_workbook(io.BytesIO(data))
    return list(book.active.iter_rows(values_only=True))


def test_a_workbook_has_typed_cells_and_no_formula(typed: Lake) -> None:
    data = exported(typed, "xlsx")
    names, first, second = cells(data)

    assert list(names) == TABLE.column_names
    row = dict(zip(names, first, strict=True))
    assert row["b"] is True
    assert (row["i8"], row["f"], row["f4"]) == (-5, 0.1, 1.5)
    assert (row["i"], row["u"], row["c"]) == (str(2**53 + 1), str(2**64 - 1), "1.10")
    assert row["d"] == datetime(2024, 2, 29)
    assert row["s"] == "2024-02-29 01:02:03.000004"
    assert row["l"] == "[1, null]"
    cell = openpyxl.load_workbook(io.BytesIO(data)).active["G2"]
    assert (cell.value, cell.data_type) == ('=1+1 "q", <&>\nü', "s")
    assert second[:6] == (None,) * 6
    frame = pd.read_excel(io.BytesIO(data))
    assert frame["f"].tolist()[0] == 0.1


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("SELECT 'a' || chr(7) || 'b'", "a_x0007_b"),
        ("SELECT '_x0041_'", "_x005F_x0041_"),
        ("SELECT TIMESTAMP '2024-01-02 03:04:05.678'", datetime(2024, 1, 2, 3, 4, 5, 678000)),
        ("SELECT DATE '1899-01-01'", "1899-01-01"),
        ("SELECT 'nan'::DOUBLE", "nan"),
        ("SELECT 1e300", 1e300),
        ("SELECT NULL", None),
        ("SELECT repeat('x', 32767)", "x" * 32767),
    ],
)
def test_odd_values_in_a_workbook(query: str, value: Any, lake: Lake) -> None:
    assert cells(exported(lake, "xlsx", query))[1][0] == value


def test_what_excel_cannot_hold_is_refused(lake: Lake) -> None:
    with pytest.raises(Unsupported, match="1,048,576 rows"):
        exported(lake, "xlsx", "SELECT 1 FROM range(1048576)")
    with pytest.raises(Unsupported, match="32,768 characters"):
        exported(lake, "xlsx", "SELECT repeat('x', 32768)")
    with pytest.raises(SennitError):
        exported(lake, "parquet", "SELECT INTERVAL 1 DAY")


@pytest.mark.parametrize("form", FORMATS)
def test_a_result_without_rows_is_a_whole_file(form: str, lake: Lake, tmp_path: Path) -> None:
    data = exported(lake, form, "SELECT 1 AS a, 'x' AS b WHERE false")

    if form == "parquet":
        assert pq.read_table(io.BytesIO(data)).column_names == ["a", "b"]
    if form == "xlsx":
        assert cells(data) == [("a", "b")]


MEDIA = {
    "application/x-ndjson": b'{"a":1}\n',
    "application/vnd.apache.parquet": b"PAR1",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": b"PK\x03\x04",
}


@pytest.mark.parametrize("media", MEDIA)
def test_the_format_is_chosen_by_accept(media: str, lake: Lake) -> None:
    body = {"sql": "SELECT 1 AS a"}
    answer = Client(make_app(lake)).post("/api/query", json=body, headers={"Accept": media})

    assert answer.headers["content-type"] == media
    assert answer.content.startswith(MEDIA[media])


@pytest.mark.parametrize("form", ["parquet", pytest.param("xlsx", marks=pytest.mark.nightly)])
def test_an_aborted_export_is_no_file(form: str, lake: Lake) -> None:
    query = "SELECT repeat('x', 30000) || i, if(i = 30000, error('stop'), 1) FROM range(30001) t(i)"
    data = bytearray()

    def receive() -> None:
        with lake.run(query, format=form) as execution:
            for piece in execution.payloads():
                data.extend(piece)

    with pytest.raises(SennitError, match="stop"):
        receive()
    read = cells if form == "xlsx" else lambda data: pq.read_table(io.BytesIO(data))
    with pytest.raises((pa.ArrowInvalid, zipfile.BadZipFile)):
        read(bytes(data))


@pytest.mark.parametrize("engine", ["duckdb", "emsqrt"])
def test_both_engines_export(engine: str, numbers: Lake) -> None:
    with numbers.run("SELECT a FROM t", format="parquet", engine=engine) as execution:
        data = b"".join(bytes(piece) for piece in execution.payloads())

    assert pq.read_table(io.BytesIO(data)).column("a").to_pylist() == list(range(30))


def test_the_command_exports_by_the_ending(tmp_path: Path, capsys: Any) -> None:
    data, source = str(tmp_path / "data"), tmp_path / "t.csv"
    source.write_text("a,b\n1,x\n2,y\n")
    assert main(["put", str(source), "--data", data]) == 0

    for form in FORMATS:
        assert main(["export", "t", str(tmp_path / f"out.{form}"), "--data", data]) == 0
    assert (tmp_path / "out.csv").read_text() == "a,b\n1,x\n2,y\n"
    assert main(["export", "SELECT a FROM t", str(tmp_path / "q.jsonl"), "--data", data]) == 0
    assert (tmp_path / "q.jsonl").read_text() == '{"a":1}\n{"a":2}\n'
    assert main(["export", "u", str(tmp_path / "u.csv"), "--data", data]) == 1
    assert main(["export", "t", str(tmp_path / "u.doc"), "--data", data]) == 2
    assert main(["export", "DROP TABLE t", str(tmp_path / "u.csv"), "--data", data]) != 0
    assert not list(tmp_path.glob("u.*"))
    assert not list(tmp_path.glob(".*"))


def test_a_failed_export_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")

    def fail() -> Any:
        yield b"new"
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        write_file(path, fail())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lake_exports_to_a_file_by_its_ending(typed: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    assert typed.export("t", path) == TABLE.num_rows
    assert path.read_bytes() == exported(typed, "csv")
    assert typed.export("SELECT count(*) AS n FROM t", tmp_path / "n", format="jsonl") == 1
    assert json.loads((tmp_path / "n").read_text()) == {"n": TABLE.num_rows}
    with pytest.raises(UsageError, match=r"names no format.*"):
        typed.export("t", tmp_path / "t.txt")
    with pytest.raises(NotFound, match="dataset"):
        typed.export("missing", path)
    with pytest.raises(SennitError, match="changing a dataset"):
        typed.export("DELETE FROM t", path)
    assert path.read_bytes() == exported(typed, "csv")
