"""The longest row of a file is found without reading the file as rows."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from emsqrt.io import longest
from emsqrt.io.locations import expand_locations
from emsqrt.io.longest import longest_record, longest_row
from emsqrt.io.records import CsvDialect, RecordEnd, last_record_end, record_ends
from sennit_core.units import KIB, MIB

PIECE = 16
DIALECT = CsvDialect()
SHORT = ["short", None, "", "words"]


def of_records(data: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """What is found in CSV through pieces of a few bytes."""
    monkeypatch.setattr(longest, "PIECE_BYTES", PIECE)
    return longest_record(
        io.BytesIO(data),
        lambda piece, size: last_record_end(piece, size, DIALECT),
        lambda: RecordEnd(DIALECT).find,
        1 << 20,
    )[0]


fields = st.text(alphabet='ab",\n\r', max_size=40)


@pytest.mark.slow
@given(st.lists(st.lists(fields, min_size=1, max_size=3), max_size=12))
def test_the_longest_record_is_found_in_pieces(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    data = out.getvalue().encode()
    ends = [0, *record_ends(data, len(data), DIALECT)]
    longest_bytes = max((end - start for start, end in itertools.pairwise(ends)), default=0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = of_records(data, monkeypatch)
    assert found == (longest_bytes if longest_bytes > PIECE else found)
    assert found <= longest_bytes


def test_a_quote_that_is_never_closed_makes_one_record_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert of_records(b'a,b\n1,"' + b"x\n" * 500, monkeypatch) == 1003


def test_no_more_is_read_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longest, "_LOOKED_BYTES", 64 * KIB)
    path = tmp_path / "long_row_last.jsonl"
    lines = ['{"t": "short"}'] * 9000 + [json.dumps({"t": "x" * 20 * KIB})]
    path.write_text("\n".join(lines))
    assert longest_row("jsonl", {}, expand_locations([str(path)], None), MIB) is None


def found_in(
    path: Path, kind: str, options: dict[str, Any] | None = None, room_bytes: int = MIB
) -> int:
    row = longest_row(
        kind, options or {}, expand_locations([str(path)], None), room_bytes, ["t", "s"]
    )
    return 0 if row is None else row.row_bytes


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_lines_are_measured_as_they_are_unpacked(suffix: str, tmp_path: Path) -> None:
    lines = [json.dumps({"t": "x" * size}) for size in (9, 30 * KIB, 50, 40 * KIB, 3)]
    data = "\n".join(lines).encode()
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert found_in(path, "jsonl") == len(lines[3]) + 1


def test_records_of_another_encoding_count_as_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t\nshort\n" + "\u00e9" * 20 * KIB + "\n", encoding="latin-1")
    assert found_in(path, "csv", {"encoding": "latin-1"}) == 40 * KIB + 1


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "lz4", "gzip", "brotli"])
@pytest.mark.parametrize("coded", [False, True])
def test_texts_of_parquet_are_measured_in_their_pages(
    coded: bool, codec: str, version: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    texts = [*SHORT * 100, "x" * 30 * KIB, *SHORT * 50, "y" * 50 * KIB, *SHORT]
    table = pa.table({"n": range(len(texts)), "t": texts})
    parquet.write_table(
        table,
        path,
        compression=codec,
        use_dictionary=coded,
        data_page_version=version,
        data_page_size=20 * KIB,
    )
    assert found_in(path, "parquet") == 50 * KIB


def test_texts_of_one_row_add_up_and_members_and_lists_are_known(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "t": pa.array(["x" * 20 * KIB, None]),
            "s": pa.array([{"a": "y" * 10 * KIB}, None]),
            "unread": pa.array(["z" * 90 * KIB, None]),
        }
    )
    parquet.write_table(table, path, use_dictionary=False)
    assert found_in(path, "parquet") == 30 * KIB


def test_pages_that_there_is_no_memory_for_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    texts = ["x" * 20 * KIB, "short", "y" * 90 * KIB]
    parquet.write_table(pa.table({"t": texts}), path, row_group_size=1, use_dictionary=False)
    assert found_in(path, "parquet", room_bytes=50 * KIB) == 20 * KIB


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_packed_lengths_are_not_looked_at(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"t": ["x" * 20 * KIB, "short"]})
    parquet.write_table(table, path, use_dictionary=False, column_encoding={"t": encoding})
    assert found_in(path, "parquet") == 0


@pytest.mark.parametrize("codec", [None, "zstd"])
@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.string_view(),
        pa.dictionary("int32", "string"),
    ],
)
def test_texts_of_arrow_are_measured(kind: pa.DataType, codec: str | None, tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    texts = [*SHORT * 100, "x" * 30 * KIB, *SHORT * 50, "y" * 50 * KIB, *SHORT]
    strings = pa.array(texts, pa.string())
    table = pa.table({"n": range(len(texts)), "t": strings.cast(kind)})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=300)
    assert found_in(path, "arrow") == 50 * KIB
    assert found_in(path, "arrow", room_bytes=40 * KIB) == 0


def test_files_without_rows_have_no_longest_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"t": pa.array([], pa.string())})
    with parquet.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.write_table(table)
    assert found_in(path, "parquet") == 0
    for kind in ("csv", "jsonl"):
        (tmp_path / "t").write_text("")
        assert found_in(tmp_path / "t", kind) == 0


def test_damaged_pages_are_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"t": ["x" * 20 * KIB]}), path, use_dictionary=False)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0xFF
        path.write_bytes(data)
        assert found_in(path, "parquet") >= 0
