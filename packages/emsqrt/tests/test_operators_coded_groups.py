"""Groups of files by dictionary codes: the answer is that of plain texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt import scan
from emsqrt.expr import col, count


def grouped(source: Path, *steps: str, cap: str) -> Any:
    rows = scan(str(source))
    for step in steps:
        rows = rows.filter(step)
    target = source.with_suffix(".out.parquet")
    groups = rows.group_by("place").agg(n=count(), miles=col("n").sum(), mean=col("x").avg())
    groups.sink(str(target)).run(cap)
    return parquet.read_table(target)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(), ("n > 100",), ("place <> 'p7'", "n % 3 = 0")])
@pytest.mark.parametrize("nulls", [False, True])
def test_a_coded_file_has_the_groups_of_a_plain_one(
    steps: tuple[str, ...], nulls: bool, tmp_path: Path
) -> None:
    places = [None if nulls and at % 11 == 0 else f"p{at % 700}" for at in range(40_000)]
    rows = pa.table({"place": places, "n": range(40_000), "x": [at * 0.1 for at in range(40_000)]})
    coded, plain = tmp_path / "coded.parquet", tmp_path / "plain.parquet"
    parquet.write_table(rows, coded, row_group_size=9_000)
    parquet.write_table(rows, plain, row_group_size=9_000, use_dictionary=False)

    expected = grouped(plain, *steps, cap="64MiB")

    assert grouped(coded, *steps, cap="64MiB").equals(expected)
    assert expected.num_rows >= 699


@pytest.mark.slow
def test_a_key_that_is_read_twice_stays_text(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(pa.table({"place": ["b", "a", None, "a"]}), source)
    groups = scan(str(source)).group_by("place").agg(n=col("place").count(), top=col("place").max())
    groups.sink(str(target)).run("64MiB")
    assert parquet.read_table(target).to_pylist() == [
        {"place": "a", "n": 2, "top": "a"},
        {"place": "b", "n": 1, "top": "b"},
        {"place": None, "n": 0, "top": None},
    ]
