"""Uploads that carry types: Parquet, Arrow, JSON lines."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import Lake
from sennit_core.errors import BadInput, SennitError

from .conftest import Encode

TABLE = pa.table(
    {
        "n": pa.array([1, None, 3], pa.int32()),
        "t": pa.array(["x", "y", None]).dictionary_encode(),
        "l": pa.array([[1.5], [], None], pa.list_(pa.float64())),
    }
)


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_parquet_in_parts_is_read_and_written_again(encode: Encode) -> None:
    done = encode(parquet(TABLE), "f.parquet", part_bytes=100)

    assert done.types == {"n": "Int32", "t": "Utf8", "l": "List(Float64)"}
    assert done.table.to_pydict() == TABLE.to_pydict()


def test_parquet_that_is_cut_short_is_refused(encode: Encode) -> None:
    with pytest.raises(BadInput, match="Parquet"):
        encode(parquet(TABLE)[:-20], "f.parquet")


def test_large_parquet_becomes_several_shards(encode: Encode) -> None:
    dice = random.Random(7)
    table = pa.table({"n": [dice.getrandbits(60) for _ in range(200_000)]})

    done = encode(
        parquet(table), "f.parquet", limits={"shard_bytes": 400_000, "group_rows": 20_000}
    )

    assert len(done.answer["shards"]) > 2
    assert done.table.equals(table)
    assert done.answer["shards"][1]["firstRow"] == done.answer["shards"][0]["rows"]


@pytest.mark.parametrize("opened", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams_are_read(encode: Encode, opened: object) -> None:
    sink = pa.BufferOutputStream()
    with opened(sink, TABLE.schema) as writer:  # type: ignore[operator]
        writer.write_table(TABLE)

    done = encode(sink.getvalue().to_pybytes(), "f.arrow", part_bytes=64)

    assert done.table.to_pydict() == TABLE.to_pydict()


def test_json_lines_get_the_columns_of_all_lines(encode: Encode) -> None:
    lines = (
        '{"a": 1, "t": "2013-01-01T10:00:00Z"}\n'
        + '{"a": 2}\n' * 100_000
        + '{"a": 2.5, "b": "x"}\n'
    )

    done = encode(lines, "f.jsonl")

    assert done.types["a"] == "Float64"
    assert done.table.num_rows == 100_002
    assert done.table.slice(100_001).to_pylist()[0] | {"t": None} == {"a": 2.5, "b": "x", "t": None}


def test_broken_json_is_refused(encode: Encode) -> None:
    with pytest.raises(BadInput):
        encode('{"a": 1}\n{"a": \n', "f.jsonl")


def test_a_type_that_no_engine_answers_for_is_refused_by_name(encode: Encode) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"i": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(SennitError, match="interval"):
        encode(sink.getvalue().to_pybytes(), "f.arrow")


def test_times_that_python_cannot_hold_are_kept(encode: Encode) -> None:
    """Nanoseconds, which pandas writes, and years after 9999."""
    table = pa.table(
        {
            "ns": pa.array([1, None, -1], pa.timestamp("ns")),
            "far": pa.array([0, 1 << 61, None], pa.timestamp("us")),
            "day": pa.array([0, 2**31 - 1, None], pa.date32()),
        }
    )

    done = encode(parquet(table), "f.parquet")

    assert done.table.equals(table)
    stats = done.answer["shards"][0]["stats"]
    assert [stats[name]["nulls"] for name in table.column_names] == [1, 1, 1]
    assert "max" not in stats["far"]


@pytest.mark.nightly
def test_rows_of_many_bytes_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    rows = 16_000
    texts = pa.array((f"{number:05d}" * 2_400 for number in range(rows)), pa.string())
    pq.write_table(
        pa.table({"s": texts}), tmp_path / "wide.parquet", compression="zstd", use_dictionary=False
    )

    with Lake(tmp_path / "lake", memory_bytes="320MiB") as lake:
        lake.append("wide", tmp_path / "wide.parquet")
        found = lake.sql("SELECT count(*), min(length(s)), max(s[-5:]) FROM wide")

    assert found.rows == [(rows, 12_000, f"{rows - 1:05d}")]
