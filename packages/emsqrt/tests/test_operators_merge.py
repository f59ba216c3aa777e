"""Merges of sorted files: the rows of a sort of all files, bit by bit, in any amount of memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt.expr import SortKey, col
from emsqrt.in_process import run_here
from emsqrt.manifest import Manifest
from emsqrt.plan import (
    Files,
    FileTarget,
    Limit,
    Plan,
    Scan,
    Sink,
    Sort,
    plan_from_json,
    plan_to_json,
)
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

MIB = 1 << 20
SCHEMA = Schema.of(k="Utf8", i="Int64", f="Float64", d="Decimal(18,2)", row="Int64")
KEYS = {
    "texts": (SortKey(col("k")),),
    "numbers": (SortKey(col("i"), descending=True), SortKey(col("f"), nulls_first=True)),
    "computed": (SortKey(col("i") % 7), SortKey(col("k"), descending=True, nulls_first=True)),
    "one key": (SortKey(col("i") * 0),),
}


def some_rows(dice: random.Random, count: int, text: str = "") -> list[dict[str, Any]]:
    return [
        {
            "k": dice.choice((None, "", "a\0b", "ä", f"{text}{dice.randint(0, 99)}")),
            "i": dice.choice((None, dice.randint(-50, 50))),
            "f": dice.choice((None, 0.0, -0.0, float("nan"), dice.uniform(-9, 9))),
            "d": None,
            "row": row,
        }
        for row in range(count)
    ]


def write_stream(path: Path, table: pa.Table, batch_rows: int) -> str:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return str(path)


def run(plan: Plan, target: Path, memory_bytes: int = 32 * MIB) -> Manifest:
    return run_here(Sink(plan, FileTarget(str(target), "parquet")), memory_bytes, target.parent)


def sorted_files(
    folder: Path, rows: Sequence[dict[str, Any]], keys: tuple[SortKey, ...], sizes: Sequence[int]
) -> Scan:
    """Write the rows cut into files of these sizes, each sorted by EM-√."""
    parts = [part for part, size in enumerate(sizes) for _ in range(size)]
    whole = pa.Table.from_pylist(list(rows), SCHEMA.to_arrow())
    numbered = whole.append_column("part", pa.array(parts, pa.int64()))
    path = write_stream(folder / "numbered", numbered, 1000)
    scan = Scan(Files((path,), "arrow"), Schema.from_arrow(numbered.schema))
    run(Sort(scan, (SortKey(col("part")), *keys)), folder / "sorted.parquet", 64 * MIB)
    table = pq.read_table(folder / "sorted.parquet").select(SCHEMA.names).cast(SCHEMA.to_arrow())
    dice, start, paths = random.Random(7), 0, []
    for number, size in enumerate(sizes):
        sorted_path = folder / f"sorted-{number}"
        paths.append(write_stream(sorted_path, table.slice(start, size), dice.randint(1, 40)))
        start += size
    return Scan(Files(tuple(paths), "arrow"), SCHEMA)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("files", [1, 2, 40])
def test_a_merge_has_the_rows_of_a_sort(tmp_path: Path, name: str, files: int) -> None:
    rows = some_rows(random.Random(files), 280)
    scan = sorted_files(tmp_path, rows, KEYS[name], [280 // files] * files)

    merged = run(Sort(scan, KEYS[name], merge=True), tmp_path / "merged.parquet")
    run(Sort(scan, KEYS[name]), tmp_path / "whole.parquet")

    assert read_bits(tmp_path / "merged.parquet") == read_bits(tmp_path / "whole.parquet")
    assert merged.spilled_bytes == 0
    assert merged.rows_in == merged.rows_out == 280


def read_bits(path: Path) -> list[str]:
    return [repr(row) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("files", [3, 24])
def test_more_files_than_memory_has_room_for_are_merged_in_passes(
    tmp_path: Path, files: int
) -> None:
    dice = random.Random(1)
    # Batches of up to 80 KB: 24 of them do not fit at the same time.
    rows = some_rows(dice, 100 * files, "x" * 2000)
    keys = KEYS["numbers"]
    scan = sorted_files(tmp_path, rows, keys, [100] * files)

    merged = run(Sort(scan, keys, merge=True), tmp_path / "merged.parquet", 8 * MIB)

    run(Sort(scan, keys), tmp_path / "whole.parquet")
    assert read_bits(tmp_path / "merged.parquet") == read_bits(tmp_path / "whole.parquet")
    assert merged.reserved_bytes <= 8 * MIB
    assert (merged.spilled_bytes > 0) == (files > 3)


@pytest.mark.parametrize("long_bytes", [300_000, 1_200_000])
def test_a_row_longer_than_its_files_share_of_memory_is_merged(
    tmp_path: Path, long_bytes: int
) -> None:
    rows = some_rows(random.Random(3), 120)
    rows[50]["k"] = "y" * long_bytes
    keys = KEYS["texts"]
    scan = sorted_files(tmp_path, rows, keys, [3] * 40)

    run(Sort(scan, keys, merge=True), tmp_path / "merged.parquet", 64 * MIB)

    run(Sort(scan, keys), tmp_path / "whole.parquet", 64 * MIB)
    assert read_bits(tmp_path / "merged.parquet") == read_bits(tmp_path / "whole.parquet")


@pytest.mark.parametrize("batch_rows", [1, 50])
def test_a_file_that_is_not_sorted_fails_the_merge_by_name(tmp_path: Path, batch_rows: int) -> None:
    keys = KEYS["numbers"]
    scan = sorted_files(tmp_path, some_rows(random.Random(5), 100), keys, [50, 50])
    assert isinstance(scan.source, Files)
    table = pa.ipc.open_stream(scan.source.paths[1]).read_all()
    write_stream(Path(scan.source.paths[1]), table.take(list(range(49, -1, -1))), batch_rows)

    with pytest.raises(BadInput, match=r"sorted-1.*not in the order of the merge"):
        run(Sort(scan, keys, merge=True), tmp_path / "merged.parquet")
    assert not (tmp_path / "merged.parquet").exists()


def test_empty_files_and_none_with_rows(tmp_path: Path) -> None:
    keys = KEYS["texts"]
    scan = sorted_files(tmp_path, some_rows(random.Random(5), 2), keys, [0, 2, 0, 0])
    run(Sort(scan, keys, merge=True), tmp_path / "some.parquet")
    assert pq.read_metadata(tmp_path / "some.parquet").num_rows == 2
    none = sorted_files(tmp_path, [], keys, [0, 0])
    run(Sort(none, keys, merge=True), tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_a_merge_that_cannot_be_one_sorts(tmp_path: Path) -> None:
    """Above other operators, and over other formats, it is a sort: the rows are the same."""
    rows = some_rows(random.Random(5), 100)
    table = pa.Table.from_pylist(rows, SCHEMA.to_arrow())
    pq.write_table(table, tmp_path / "in.parquet")
    scan = Scan(Files((str(tmp_path / "in.parquet"),), "parquet"), SCHEMA)
    keys = KEYS["numbers"]
    for above in (scan, Limit(scan, 60)):
        run(Sort(above, keys, merge=True), tmp_path / "merged.parquet")
        run(Sort(above, keys), tmp_path / "whole.parquet")
        assert read_bits(tmp_path / "merged.parquet") == read_bits(tmp_path / "whole.parquet")


def test_a_merge_survives_json() -> None:
    plan = Sort(Scan(Files(("a",), "arrow"), SCHEMA), KEYS["texts"], merge=True)
    assert plan_from_json(plan_to_json(plan)) == plan
    assert plan_from_json(plan_to_json(replace(plan, merge=False))) != plan
