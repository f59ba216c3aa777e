from __future__ import annotations

import gzip
import io
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.io.cutting import Cutter, row_ends
from emsqrt.io.inference import infer_schema
from emsqrt.io.scan import open_scan
from emsqrt.io.sinks import open_sink
from emsqrt.memory import MemoryBudget
from emsqrt.plan import Files, FileTarget
from sennit_core.errors import (
    CapTooSmall,
    Conflict,
    UnknownColumn,
    Unsupported,
    UsageError,
)
from sennit_core.schema import Schema

MIB = 1 << 20
ROWS = 20_000
TABLE = pa.table(
    {
        "n": pa.array(range(ROWS), pa.int64()),
        "s": pa.array([None if n % 7 == 0 else f"text {n * n}" for n in range(ROWS)]),
        "d": pa.array([Decimal(n) / 100 for n in range(ROWS)], pa.decimal128(12, 2)),
        "b": pa.array([None if n % 5 == 0 else n % 2 == 0 for n in range(ROWS)]),
        "l": pa.array([None if n % 11 == 0 else [n] * (n % 3) for n in range(ROWS)]),
    }
)


def write(
    path: Path | str,
    batches: Sequence[pa.RecordBatch],
    format: str,  # noqa: A002
    budget_bytes: int = 64 * MIB,
    **options: Any,
) -> None:
    schema = Schema.from_arrow(batches[0].schema)
    with MemoryBudget(budget_bytes) as budget:
        sink = open_sink(FileTarget(str(path), format, options), schema, budget, bytes)
        with sink:
            for batch in batches:
                sink.write(batch)
        assert sink.rows == sum(batch.num_rows for batch in batches)


def read(path: Path | str, format: str, **options: Any) -> pa.Table:  # noqa: A002
    source = Files((str(path),), format, options)
    schema = infer_schema(source)
    with MemoryBudget(64 * MIB) as budget, open_scan(source, schema, budget) as scan:
        return pa.Table.from_batches(list(scan), schema.to_arrow())


def cut(table: pa.Table, cuts: Sequence[int]) -> list[pa.RecordBatch]:
    """The table in other batches."""
    whole = table.combine_chunks().to_batches()[0]
    edges = sorted({0, table.num_rows, *(each % (table.num_rows + 1) for each in cuts)})
    return [whole.slice(a, b - a) for a, b in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, ROWS), max_size=12)


@pytest.mark.slow
@settings(max_examples=8)
@given(CUTS, st.sampled_from([5 * MIB, 64 * MIB]))
@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_the_same_rows_are_the_same_bytes_in_any_batches_at_any_cap(
    tmp_path_factory: pytest.TempPathFactory,
    format: str,  # noqa: A002
    cuts: list[int],
    budget_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    options: dict[str, Any] = {"rowGroupBytes": "256KiB"} if format == "parquet" else {}
    write(folder / "whole", cut(TABLE, []), format, **options)
    write(folder / "parts", cut(TABLE, cuts), format, budget_bytes, **options)
    assert (folder / "whole").read_bytes() == (folder / "parts").read_bytes()
    assert read(folder / "parts", format).equals(TABLE)


def test_row_groups_are_cut_by_bytes_and_by_rows(tmp_path: Path) -> None:
    write(tmp_path / "a", cut(TABLE.select(["n"]), [77]), "parquet", rowGroupRows=8192)
    write(tmp_path / "b", cut(TABLE, [77]), "parquet", rowGroupBytes="64KiB")
    by_rows, by_bytes = pq.read_metadata(tmp_path / "a"), pq.read_metadata(tmp_path / "b")
    assert [by_rows.row_group(n).num_rows for n in range(2)] == [16384, 3616]
    assert by_bytes.num_row_groups > 1


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 4)
@given(CUTS, st.integers(50, 5000), st.integers(9, 3000))
def test_pieces_are_cut_by_content(cuts: list[int], bytes_max: int, rows_max: int) -> None:
    table = TABLE.slice(0, 3000)

    def pieces(batches: Sequence[pa.RecordBatch]) -> list[tuple[int, int]]:
        cutter = Cutter(bytes_max, rows_max)
        made = [piece for batch in batches for piece in cutter.add(batch)]
        return [(piece.num_rows, size) for piece, size in [*made, *cutter.finish()]]

    found = pieces(cut(table, cuts))
    assert found == pieces(cut(table, []))
    assert sum(rows for rows, _ in found) == 3000
    assert all(rows == rows_max or size >= bytes_max for rows, size in found[:-1])
    assert sum(size for _, size in found) == row_ends(cut(table, [])[0])[-1]


def test_values_under_a_null_are_ignored() -> None:
    text = pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\0\0\0\0\5\0\0\0\7\0\0\0"), pa.py_buffer(b"abcdefg"), pa.py_buffer(b"\2")
    )
    assert row_ends(pa.record_batch({"t": text})).tolist() == [4, 10]


@pytest.mark.slow
def test_a_row_group_larger_than_the_budget_waits_on_disk(tmp_path: Path) -> None:
    big = pa.table({"s": ["x" * 1000 + str(n) for n in range(30_000)]})
    with pytest.raises(CapTooSmall, match="row groups of 8"):
        write(tmp_path / "no", cut(big, [9]), "parquet", budget_bytes=MIB)
    write(tmp_path / "out", cut(big, range(0, 30_000, 1000)), "parquet", budget_bytes=10 * MIB)
    assert read(tmp_path / "out", "parquet").equals(big)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


FLAT = TABLE.drop_columns(["l"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "tool"),
    [
        ("a.csv.gz", "csv", ["gzip", "-dc"]),
        ("a.csv.zst", "csv", ["zstd", "-dqc"]),
        ("a.jsonl.gz", "jsonl", ["gzip", "-dc"]),
    ],
)
def test_text_is_compressed_by_its_name_and_read_back(
    tmp_path: Path,
    name: str,
    format: str,  # noqa: A002
    tool: list[str],
) -> None:
    write(tmp_path / name, cut(FLAT, [100]), format)
    write(tmp_path / "plain", cut(FLAT, [5, 999]), format)
    packed, plain = (tmp_path / name).read_bytes(), (tmp_path / "plain").read_bytes()
    unpacked = subprocess.run(tool, input=packed, capture_output=True, check=True).stdout
    assert unpacked == plain
    assert len(packed) < len(plain) / 2
    found = read(tmp_path / name, format)
    assert found["n"].equals(FLAT["n"])
    assert found["s"].to_pylist() == FLAT["s"].to_pylist()


def test_json_lines_hold_every_value_once_more(tmp_path: Path) -> None:
    batch = pa.record_batch(
        {
            "big": pa.array([2**63 - 1, None], pa.int64()),
            "f": [float("nan"), 0.1],
            "t": ['q"\n\\', None],
            "d": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "when": pa.array([0, None], pa.timestamp("us", "UTC")),
            "raw": pa.array([b"\xff\0", None], pa.binary()),
            "many": pa.array([[1, None], None], pa.list_(pa.int64())),
        }
    )
    write(tmp_path / "a.jsonl", [batch], "jsonl")
    first, second = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(first) == {
        "big": 2**63 - 1,
        "f": "NaN",
        "t": 'q"\n\\',
        "d": "1.50",
        "when": "1970-01-01T00:00:00Z",
        "raw": "/wA=",
        "many": [1, None],
    }
    assert json.loads(second)["big"] is None
    schema = Schema.from_arrow(batch.schema)
    source = Files((str(tmp_path / "a.jsonl"),), "jsonl")
    with MemoryBudget(64 * MIB) as budget, open_scan(source, schema, budget) as scan:
        (found,) = scan
    assert found.drop_columns(["f"]).equals(batch.drop_columns(["f"]))
    assert str(found["f"].to_pylist()) == "[nan, 0.1]"


def test_csv_is_written_with_another_delimiter_and_without_a_header(tmp_path: Path) -> None:
    batch = pa.record_batch({"a": ["x;y", None], "b": [1.5, -2.0]})
    write(tmp_path / "a", [batch], "csv", delimiter=";", header=False)
    assert (tmp_path / "a").read_text() == '"x;y";1.5\n;-2\n'


PARTED = pa.table(
    {
        "country": pa.array([["DE", "a/b", None, ""][n % 4] for n in range(4000)]),
        "year": pa.array([2000 + n % 3 for n in range(4000)], pa.int64()),
        "n": pa.array(range(4000), pa.int64()),
    }
)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("budget_bytes", [6 * MIB, 64 * MIB])
def test_partitions_are_folders_that_are_read_back(tmp_path: Path, budget_bytes: int) -> None:
    names = ["country", "year"]
    options: dict[str, Any] = {"partitionBy": names, "rowGroupBytes": "64KiB"}
    write(tmp_path / "out", cut(PARTED, [1234]), "parquet", budget_bytes, **options)
    found = read(tmp_path / "out", "parquet")
    assert found.column_names == ["n", "country", "year"]
    assert found.sort_by("n").select(PARTED.column_names).equals(PARTED)
    assert "country=a%2Fb/year=2001/part-0.parquet" in tree(tmp_path / "out")
    assert "country=__HIVE_DEFAULT_PARTITION__/year=2000/part-0.parquet" in tree(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_partitions_are_the_same_bytes_however_they_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"partitionBy": ["year"], "rowGroupBytes": "64KiB"}
    write(tmp_path / "a", cut(PARTED, []), "parquet", **options)
    monkeypatch.setattr("emsqrt.io.partition_sink._HELD_BYTES_MAX", 4 << 10)
    monkeypatch.setattr("emsqrt.io.partition_sink._HELD_BYTES_MIN", 4 << 10)
    write(tmp_path / "b", cut(PARTED, range(0, 4000, 100)), "parquet", **options)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_an_earlier_partitioned_output_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    write(tmp_path / "out", cut(PARTED, []), "parquet", partitionBy=["country"])
    write(tmp_path / "out", cut(PARTED, []), "parquet", partitionBy=["year"])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["year=2000", "year=2001", "year=2002"]
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(Conflict, match="not a partitioned output"):
        write(tmp_path / "out", cut(PARTED, []), "parquet", partitionBy=["year"])
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_only_the_partitions_that_may_match_are_opened(tmp_path: Path) -> None:
    from emsqrt.expr import parse_expr

    write(tmp_path / "out", cut(PARTED, []), "parquet", partitionBy=["year"])
    for bad in ("year=2000", "year=2002"):
        (tmp_path / "out" / bad / "part-0.parquet").write_bytes(b"damaged")
    source = Files((str(tmp_path / "out"),), "parquet")
    schema = Schema.of(n="Int64", year="Int64")
    predicate = parse_expr("year = 2001 and n > 5")
    with (
        MemoryBudget(32 * MIB) as budget,
        open_scan(source, schema, budget, predicate=predicate) as scan,
    ):
        assert pa.Table.from_batches(list(scan))["year"].unique().to_pylist() == [2001]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"partitionBy": ["nope"]}, UnknownColumn, "nope"),
        ({"partitionBy": ["l"]}, Unsupported, "names no folders"),
        ({"partitionBy": []}, UsageError, "no column"),
        ({"rowGroupByte": 1}, UsageError, "no option 'rowGroupByte'"),
        ({"rowGroupBytes": 1}, UsageError, "at least 64"),
        ({"compression": "rar"}, Unsupported, "rar"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        write(tmp_path / "out", cut(TABLE, []), "parquet", **options)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, pyarrow as pa
from emsqrt.io.sinks import open_sink
from emsqrt.memory import MemoryBudget
from emsqrt.plan import FileTarget
from sennit_core.errors import SennitError
from sennit_core.schema import Schema
path, format, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
batch = pa.record_batch({"n": pa.array(range(1000), pa.int64()), "year": pa.array([n % 5 for n in range(1000)], pa.int64())})
options = {"partitionBy": ["year"]} if format == "folder" else {}
target = FileTarget(path, "parquet" if format == "folder" else format, options)
with MemoryBudget(64 << 20) as budget:
    try:
        with open_sink(target, Schema.from_arrow(batch.schema), budget, bytes) as sink:
            for n in range(rows // 1000):
                sink.write(batch)
                if n == 20: print("writing", file=sys.stderr, flush=True)
    except SennitError as error:
        print(error.code, file=sys.stderr)
        sys.exit(141)
"""


def writer(path: Path | str, format: str, rows: int) -> subprocess.Popen[bytes]:  # noqa: A002
    command = [sys.executable, "-c", WRITER, str(path), format, str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow"])
def test_standard_output_is_a_whole_stream(format: str) -> None:  # noqa: A002
    out, _ = writer("-", format, 30_000).communicate()
    if format == "parquet":
        assert pq.read_table(io.BytesIO(out)).num_rows == 30_000
    elif format == "arrow":
        assert pa.ipc.open_stream(out).read_all().num_rows == 30_000
    else:
        assert out.count(b"\n") == 30_000 + (format == "csv")


@pytest.mark.nightly
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_reader_that_goes_away_ends_the_run_quietly(format: str) -> None:  # noqa: A002
    with writer("-", format, 50_000_000) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read().split() == [b"writing", b"reader-gone"]


@pytest.mark.nightly
@pytest.mark.crash
@pytest.mark.parametrize("format", ["csv", "parquet", "arrow", "folder"])
def test_a_killed_writer_leaves_nothing_under_the_name(tmp_path: Path, format: str) -> None:  # noqa: A002
    path = tmp_path / "out"
    with writer(path, format, 500_000_000) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"writing\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    assert not path.exists()
    assert all(left.name.startswith(".out.") for left in tmp_path.iterdir())


def test_gzip_written_here_has_no_time_in_it(tmp_path: Path) -> None:
    write(tmp_path / "a.csv.gz", cut(FLAT, []), "csv")
    data = (tmp_path / "a.csv.gz").read_bytes()
    assert data[4:8] == bytes(4)
    assert gzip.decompress(data).count(b"\n") == ROWS + 1
