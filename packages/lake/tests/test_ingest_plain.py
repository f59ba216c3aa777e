"""Every Arrow type of a Parquet or Arrow file: answered by both engines, or refused by column."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import Lake
from sennit_core.errors import SennitError

ONE, OTHER = uuid.UUID(int=5), uuid.UUID(int=2**127)
SECOND = datetime.timedelta(seconds=1)

# A column of each type, the type it is stored as, and what both engines must answer.
READ: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "null": (pa.nulls(3), "Utf8", [None, None, None]),
    "float16": (pa.array([1.5, None, -2], pa.float16()), "Float32", [1.5, None, -2.0]),
    "uint64": (pa.array([2**64 - 1, None, 1], pa.uint64()), "UInt64", [2**64 - 1, None, 1]),
    "map": (
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "List(Struct(key: Utf8 not null, value: Int32))",
        [[{"key": "k", "value": 1}], None, []],
    ),
    "map of maps": (
        pa.array(
            [[("k", [("z", 1.5)])], None, []],
            pa.map_(pa.string(), pa.map_(pa.string(), pa.float64())),
        ),
        "List(Struct(key: Utf8 not null, value: List(Struct(key: Utf8 not null, value: Float64))))",
        [[{"key": "k", "value": [{"key": "z", "value": 1.5}]}], None, []],
    ),
    **{
        f"time {unit}": (
            pa.array([per_second, None, 2 * per_second], arrow_type),
            "Time",
            [datetime.time(0, 0, 1), None, datetime.time(0, 0, 2)],
        )
        for unit, per_second, arrow_type in (
            ("s", 1, pa.time32("s")),
            ("ms", 1000, pa.time32("ms")),
            ("us", 10**6, pa.time64("us")),
            ("ns", 10**9, pa.time64("ns")),
        )
    },
    **{
        f"duration {unit}": (
            pa.array([per_second, None, 2 * per_second], pa.duration(unit)),
            "Duration",
            [SECOND, None, 2 * SECOND],
        )
        for unit, per_second in (("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9))
    },
    "decimal256": (
        pa.array([Decimal("1.50"), None, Decimal(2)], pa.decimal256(30, 2)),
        "Decimal(30,2)",
        [Decimal("1.50"), None, Decimal("2.00")],
    ),
    "decimal32": (
        pa.array([Decimal("1.5"), None, Decimal(2)], pa.decimal32(5, 1)),
        "Decimal(5,1)",
        [Decimal("1.5"), None, Decimal("2.0")],
    ),
    "dictionary": (pa.array(["x", None, "y"]).dictionary_encode(), "Utf8", ["x", None, "y"]),
    "dictionary of integers": (pa.array([5, None, 5]).dictionary_encode(), "Int64", [5, None, 5]),
    "large string": (pa.array(["x", None, ""], pa.large_string()), "Utf8", ["x", None, ""]),
    "string view": (pa.array(["x", None, ""], pa.string_view()), "Utf8", ["x", None, ""]),
    "large binary": (pa.array([b"x", None, b"\xff"], pa.large_binary()), "Binary",
                     [b"x", None, b"\xff"]),
    "fixed-size binary": (pa.array([b"abc", None, b"def"], pa.binary(3)), "Binary",
                          [b"abc", None, b"def"]),
    "uuid": (
        pa.array([ONE.bytes, None, OTHER.bytes], pa.uuid()), "Utf8", [str(ONE), None, str(OTHER)],
    ),
    "struct of uuid": (
        pa.StructArray.from_arrays([pa.array([ONE.bytes, None, OTHER.bytes], pa.uuid())], ["u"]),
        "Struct(u: Utf8)",
        [{"u": str(ONE)}, {"u": None}, {"u": str(OTHER)}],
    ),
    "json": (pa.array(['{"a":1}', None, "2"], pa.json_()), "Utf8", ['{"a":1}', None, "2"]),
    "date64": (
        pa.array([0, None, 86_400_000], pa.date64()),
        "Date",
        [datetime.date(1970, 1, 1), None, datetime.date(1970, 1, 2)],
    ),
    "list of times": (
        pa.array([[1], None, []], pa.list_(pa.time32("s"))),
        "List(Time)",
        [[datetime.time(0, 0, 1)], None, []],
    ),
    "list of nulls": (pa.array([[None], None, []]), "List(Utf8)", [[None], None, []]),
    "list of dictionaries": (
        pa.array([["x"], None, ["y", "y"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "List(Utf8)",
        [["x"], None, ["y", "y"]],
    ),
    "fixed-size list": (
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2)),
        "List(Float32)",
        [[1.0, 2.0], None, [3.0, 4.0]],
    ),
    "large list": (pa.array([[1], None, []], pa.large_list(pa.int8())), "List(Int8)",
                   [[1], None, []]),
    "list view": (pa.array([[1], None, [2]], pa.list_view(pa.int32())), "List(Int32)",
                  [[1], None, [2]]),
    "struct of several": (
        pa.array(
            [{"a": 1, "b": None}, None, {"a": 2, "b": "x"}],
            pa.struct([("a", pa.uint64()), ("b", pa.large_string())]),
        ),
        "Struct(a: UInt64, b: Utf8)",
        [{"a": 1, "b": None}, None, {"a": 2, "b": "x"}],
    ),
}  # fmt: skip
ARROW_ONLY: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "run-end encoded": (
        pa.RunEndEncodedArray.from_arrays([1, 3], pa.array(["a", "b"])), "Utf8", ["a", "b", "b"],
    ),
    "decimal of negative scale": (
        pa.array([Decimal(1500), None, Decimal(100)], pa.decimal128(5, -2)),
        "Decimal(7,0)",
        [Decimal(1500), None, Decimal(100)],
    ),
}  # fmt: skip
REFUSED: dict[str, pa.Array] = {
    "time of nanoseconds": pa.array([1, None, 2], pa.time64("ns")),
    "duration of nanoseconds": pa.array([1, None, 2], pa.duration("ns")),
    "decimal of 60 digits": pa.array([Decimal(1), None, Decimal(2)], pa.decimal256(60, 2)),
    "interval": pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()),
    "struct without fields": pa.array([{}, None, {}], pa.struct([])),
    "struct with one name twice": pa.StructArray.from_arrays(
        [pa.array([1, 2, 3]), pa.array([1, 2, 3])], ["a", "A"]
    ),
    "struct field without a name": pa.StructArray.from_arrays([pa.array([1, 2, 3])], [""]),
}


def write(column: pa.Array, path: Path) -> Path:
    table = pa.table({"v": column, "n": [1, 2, 3]})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


def check(lake: Lake, path: Path, stored: str, values: list[Any]) -> None:
    info = lake.append("t", path)

    assert str(info.schema.field("v").type) == stored
    for engine in ("duckdb", "emsqrt"):
        answered = lake.sql("select v from t order by n", engine=engine).to_arrow()["v"].to_pylist()
        if stored == "Duration" and engine == "duckdb":  # Parquet has none: microseconds
            answered = [v if v is None else datetime.timedelta(microseconds=v) for v in answered]
        assert answered == values, engine


@pytest.mark.slow
@pytest.mark.sample(5)
@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("name", READ)
def test_a_type_is_answered_by_both_engines(
    lake: Lake, tmp_path: Path, name: str, ending: str
) -> None:
    column, stored, values = READ[name]

    check(lake, write(column, tmp_path / f"t{ending}"), stored, values)


@pytest.mark.parametrize("name", ARROW_ONLY)
def test_a_type_that_only_arrow_has_is_answered(lake: Lake, tmp_path: Path, name: str) -> None:
    column, stored, values = ARROW_ONLY[name]

    check(lake, write(column, tmp_path / "t.arrow"), stored, values)


@pytest.mark.parametrize("name", REFUSED)
def test_a_type_that_is_refused_names_its_column(lake: Lake, tmp_path: Path, name: str) -> None:
    path = write(REFUSED[name], tmp_path / "t.arrow")

    with pytest.raises(SennitError, match=r"""column ["']v["']"""):
        lake.append("t", path)

    assert lake.catalog.list() == []


def test_old_timestamps_of_96_bits_are_nanoseconds(lake: Lake, tmp_path: Path) -> None:
    table = pa.table({"v": pa.array([1_000, None], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)

    assert str(lake.append("t", tmp_path / "t.parquet").schema.field("v").type) == "Timestamp(ns)"
    for engine in ("duckdb", "emsqrt"):
        assert lake.sql("select v from t", engine=engine).to_arrow()["v"].to_pylist() == [
            table["v"][0].as_py(), None,
        ]  # fmt: skip


def test_a_file_without_columns_is_refused_and_harms_nothing(lake: Lake, tmp_path: Path) -> None:
    pq.write_table(pa.table({}), tmp_path / "none.parquet")

    for data in (tmp_path / "none.parquet", pa.table({})):
        with pytest.raises(SennitError, match="no columns"):
            lake.append("none", data)

    assert lake.catalog.list() == []


def test_a_file_without_rows_and_names_that_are_none_or_twice(lake: Lake, tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64()), ("a", pa.int64()), ("", pa.float16())])
    pq.write_table(schema.empty_table(), tmp_path / "t.parquet")

    info = lake.append("t", tmp_path / "t.parquet")

    assert (info.schema.names, info.rows) == (("a", "a_2", "column_3"), 0)
    for engine in ("duckdb", "emsqrt"):
        assert lake.sql("select * from t", engine=engine).to_arrow().num_rows == 0
