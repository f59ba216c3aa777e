"""Long texts that a Parquet file holds once in a dictionary are decoded some rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt import Engine, EngineConfig, scan
from emsqrt.io.parquet_coded import decoded, refuse_grown
from emsqrt.io.parquet_scan import ParquetScan, infer_parquet_schema
from emsqrt.memory import MemoryBudget
from sennit_core.errors import BadInput
from sennit_core.units import MIB

ROWS = 60_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a MiB that is three GiB of text."""
    path = tmp_path_factory.mktemp("coded") / "t.parquet"
    texts = pa.array([chr(97 + number) * (64 << 10) for number in range(7)])
    order = np.arange(ROWS, dtype=np.int32) % 8
    places = pa.array(order, mask=order == 7)
    column = pa.DictionaryArray.from_arrays(places, texts)
    table = pa.table({"id": np.arange(ROWS), "t": column})
    parquet.write_table(
        table, path, row_group_size=30_000, dictionary_pagesize_limit=1 << 20, store_schema=False
    )
    assert path.stat().st_size < MIB
    return path


@pytest.mark.nightly
def test_a_small_cap_reads_them(source: Path, tmp_path: Path) -> None:
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    target = tmp_path / "out.parquet"
    manifest = scan(source).filter("id % 1000 < 2").sink(target).run(64 * MIB, engine=engine)
    assert manifest.peak_bytes <= 64 * MIB
    found = parquet.read_table(target)
    assert found["id"].to_pylist() == [at for at in range(ROWS) if at % 1000 < 2]
    firsts = [None if text is None else (text[0], len(text)) for text in found["t"].to_pylist()]
    assert firsts == [
        None if at % 8 == 7 else (chr(97 + at % 8), 64 << 10) for at in range(ROWS) if at % 1000 < 2
    ]


def test_rows_are_cut_by_what_they_become() -> None:
    def coded(values: list[str | None]) -> Any:
        return pa.array(values).dictionary_encode()

    values = ["aaaa", None, "bb", "aaaa", "aaaa", "bb", "", None]
    batch = pa.record_batch({"id": list(range(8)), "t": coded(values)})
    pieces = list(decoded(batch, 6))
    assert [piece.num_rows for piece in pieces] == [3, 1, 4]
    assert pa.Table.from_batches(pieces)["t"].to_pylist() == values
    assert list(decoded(batch.slice(0, 0), 6)) == []


def test_a_dictionary_of_more_texts_than_its_page_header_claims_is_refused() -> None:
    batch = pa.record_batch({"t": pa.array([f"text {at}" for at in range(9)]).dictionary_encode()})
    refuse_grown(batch, {"t": 9}, "t.parquet", 0)
    with pytest.raises(BadInput, match=r"t\.parquet.*row group 0, column t: .* 9 values.* says 5"):
        refuse_grown(batch, {"t": 5}, "t.parquet", 0)


def test_a_file_that_is_rewritten_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def write(count: int, padding: int) -> int:
        texts = pa.table({"t": [f"text {at % count}" for at in range(6000)]})
        with parquet.ParquetWriter(path, texts.schema) as writer:
            writer.write_table(texts, row_group_size=2000)
            writer.add_key_value_metadata({"padding": "x" * padding})
        return path.stat().st_size

    more = write(9, 1000) - write(5, 1000)
    size = write(5, 1000 + more)
    budget = MemoryBudget(8 * MIB)
    parts = ParquetScan(path, infer_parquet_schema(path), budget)
    parts.keep_coded(parts.codable())
    assert write(9, 1000) == size
    with (
        budget.admit(parts.need_bytes, "scan", "a test") as guard,
        pytest.raises(BadInput, match=r"t\.parquet: a row group cannot be read"),
    ):
        list(parts.batches(guard))


def test_small_dictionaries_decode_to_their_texts(tmp_path: Path) -> None:
    """Of one byte, of some, of many, of none; NULLs in a row group, and another dictionary in each."""
    count = 50_000
    flags = ["A", "N", "R"]
    words = ["", "ä", "by", "sixteen letters.", "some more than sixteen of them", "x" * 70]
    made: dict[str, Any] = {
        "flag": [flags[at % 3] for at in range(count)],
        "word": [words[at * 7 % 6] for at in range(count)],
        "null": [None if at % 1000 == 30 else flags[at % 3] for at in range(count)],
        "first": [f"{at // 20_000} {at % 5}" for at in range(count)],
        "none": [None if at < 30_000 else "" for at in range(count)],
        "id": list(range(count)),
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table(made), path, row_group_size=20_000)
    budget = MemoryBudget(64 * MIB)
    reader = ParquetScan(path, infer_parquet_schema(path), budget)
    with budget.admit(reader.need_bytes, "scan", "a test") as guard:
        batches = list(reader.batches(guard))
    assert sum(batch.num_rows for batch in batches[:2]) == 20_000, "cut as dictionaries are"
    for batch in batches:
        batch.validate(full=True)
    assert pa.Table.from_batches(batches).to_pydict() == made


def test_row_groups_of_few_rows_are_read_together(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"flag": ["A", "N", "R"] * 1000})
    parquet.write_table(table, path, row_group_size=100)
    budget = MemoryBudget(64 * MIB)
    reader = ParquetScan(path, infer_parquet_schema(path), budget)
    with budget.admit(reader.need_bytes, "scan", "a test") as guard:
        (batch,) = reader.batches(guard)
    assert pa.Table.from_batches([batch]) == table
