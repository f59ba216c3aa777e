"""Texts that travel through a sort as places: the answer is that of plain texts, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt import scan

ROWS = 60_000


def table(colours: list[str | None], moods: list[str]) -> Any:
    numbers = [at * 7919 % ROWS for at in range(ROWS)]
    return pa.table(
        {
            "number": pa.array(numbers, pa.int64()),
            "colour": pa.array([colours[at % len(colours)] for at in numbers], pa.string()),
            "mood": pa.array([moods[at // 1000 % len(moods)] for at in range(ROWS)], pa.string()),
            "name": pa.array([f"name {at}" for at in numbers], pa.string()),
        }
    )


def with_nulls(rows: Any) -> Any:
    """Add columns whose values, or whose nulls, are bits: pieces of batches begin within a byte."""
    gaps = [at % 7 == 3 for at in range(ROWS)]
    whole = [at % 1000 for at in range(ROWS)]
    prices = pa.array(
        [None if gap else at for gap, at in zip(gaps, whole, strict=True)], pa.int32()
    )
    flags = pa.array([None if gap else at % 3 > 0 for gap, at in zip(gaps, whole, strict=True)])
    return rows.append_column("price", prices.cast(pa.decimal128(12, 2))).append_column("ok", flags)


MANY = [f"mood {at}" for at in range(50)]
TABLES = {
    "few": table(["red", "green", "blue", ""], MANY),
    "nulls": table(["red", None, "blue"], ["x", "y"]),
    "bits": with_nulls(table(["red", None, "blue"], MANY)),
    "only nulls": table([None], ["x", "y"]),
    "outgrown": table(["red", "blue"], [f"{at} {'long ' * 200}" for at in range(60)]),
}


def sorted_file(source: Path, *steps: str, cap: str = "96MiB") -> bytes:
    target = source.with_name("sorted.parquet")
    rows = scan(str(source))
    for step in steps:
        rows = rows.filter(step)
    rows.sort("number").sink(str(target)).run(cap)
    return target.read_bytes()


@pytest.mark.slow
def test_texts_of_few_values_are_held_in_dictionaries(tmp_path: Path) -> None:
    source, target = tmp_path / "coded.parquet", str(tmp_path / "sorted.parquet")
    parquet.write_table(TABLES["few"], source, row_group_size=7_000)
    manifest = scan(str(source)).sort("number").sink(target).run("96MiB")
    assert manifest.reserved_by_tag["dictionaries"] > 0


@pytest.mark.nightly
@pytest.mark.parametrize("name", TABLES)
def test_the_file_is_that_of_plain_texts(name: str, tmp_path: Path) -> None:
    coded, plain = tmp_path / "coded.parquet", tmp_path / "plain.parquet"
    parquet.write_table(TABLES[name], coded, row_group_size=7_000)
    parquet.write_table(TABLES[name], plain, row_group_size=7_000, use_dictionary=False)
    assert sorted_file(coded) == sorted_file(plain)
    found = parquet.read_table(tmp_path / "sorted.parquet")
    assert found.equals(TABLES[name].sort_by("number"))
    assert found.schema.equals(TABLES[name].schema)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["few", "bits"])
def test_caps_and_filters_change_no_byte(name: str, tmp_path: Path) -> None:
    source = tmp_path / "coded.parquet"
    parquet.write_table(TABLES[name], source, row_group_size=7_000)
    assert sorted_file(source) == sorted_file(source, cap="48MiB")
    assert sorted_file(source) == sorted_file(source, "number >= 0")


@pytest.mark.nightly
def test_other_sinks_and_operators_get_plain_texts(tmp_path: Path) -> None:
    source = tmp_path / "coded.parquet"
    parquet.write_table(TABLES["nulls"], source, row_group_size=7_000)
    rows = scan(str(source)).sort("number")
    rows.sink(str(tmp_path / "sorted.csv")).run("96MiB")
    rows.limit(3).with_column("bright", "upper(colour)").sink(str(tmp_path / "few.jsonl")).run(
        "96MiB"
    )
    first = TABLES["nulls"].sort_by("number").slice(0, 3).to_pylist()
    lines = [f"{row['number']},{row['colour'] or ''},{row['mood']},{row['name']}" for row in first]
    assert (tmp_path / "sorted.csv").read_text().splitlines()[1:4] == lines
    assert '"bright":"RED"' in (tmp_path / "few.jsonl").read_text().splitlines()[0]


@pytest.mark.slow
def test_texts_of_csv_stay_plain(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("number,colour\n2,red\n1,blue\n")
    target = tmp_path / "sorted.parquet"
    scan(str(tmp_path / "rows.csv")).sort("number").sink(str(target)).run("96MiB")
    assert parquet.read_table(target)["colour"].to_pylist() == ["blue", "red"]


@pytest.mark.slow
def test_files_of_several_dictionaries_share_one(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    halves = [TABLES["few"].slice(0, ROWS // 2), TABLES["nulls"].slice(ROWS // 2)]
    for at, half in enumerate(halves):
        parquet.write_table(half, tmp_path / "parts" / f"{at}.parquet", row_group_size=5_000)
    target = tmp_path / "sorted.parquet"
    scan(str(tmp_path / "parts" / "*.parquet")).sort("number").sink(str(target)).run("96MiB")
    assert parquet.read_table(target).equals(pa.concat_tables(halves).sort_by("number"))


@pytest.mark.slow
def test_a_key_of_text_sorts_by_its_text(tmp_path: Path) -> None:
    source, target = tmp_path / "coded.parquet", tmp_path / "sorted.parquet"
    parquet.write_table(TABLES["few"], source, row_group_size=7_000)
    scan(str(source)).sort("mood", "number").sink(str(target)).run("96MiB")
    wanted = TABLES["few"].sort_by([("mood", "ascending"), ("number", "ascending")])
    assert parquet.read_table(target).equals(wanted)
