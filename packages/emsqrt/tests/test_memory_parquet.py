"""The memory estimate of a Parquet reader holds for any layout of the file."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pytest
from parquet_shapes import (
    NASTY,
    SHAPES,
    Shape,
    behind,
    every_shape,
    lists,
    ordinary,
    trouble,
    write,
)

from emsqrt.io.cutting import Cutter
from emsqrt.io.parquet_scan import ParquetScan, infer_parquet_schema
from emsqrt.memory import MemoryBudget, UsageReader
from sennit_core.units import MIB

SMALL = 4
"""So many times fewer rows in the normal run."""


def held_now() -> int:
    with UsageReader() as reader:
        return reader.read().charged_bytes


def held_and_needed(path: Path, budget_bytes: int) -> tuple[int, int]:
    """Read a file; return Arrow's peak memory, and the reader's estimate."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(pa.system_memory_pool())
    with MemoryBudget(budget_bytes) as budget:
        rows = ParquetScan(path, infer_parquet_schema(path), budget)
        pa.set_memory_pool(pool)
        try:
            with budget.admit(rows.need_bytes, "scan", "a test") as guard:
                count = 0
                for batch in rows.batches(guard):
                    count += batch.num_rows
                    del batch
        finally:
            pa.set_memory_pool(before)
    assert count == pa.parquet.read_metadata(path).num_rows
    return pool.max_memory(), rows.need_bytes


@pytest.mark.slow
@pytest.mark.sample(6)
@pytest.mark.parametrize("name", NASTY)
def test_no_layout_needs_more_than_the_reader_estimates(name: str, tmp_path: Path) -> None:
    make, shape = NASTY[name]
    path = write(tmp_path / "t.parquet", make(shape.rows // SMALL), shape)
    held, needed = held_and_needed(path, 24 * MIB)
    assert held <= needed


def test_a_dictionary_does_not_gather_the_plain_texts_behind_it(tmp_path: Path) -> None:
    shape = Shape(dictionary_bytes=100_000)
    path = write(tmp_path / "t.parquet", behind(40_000), shape)
    held, _ = held_and_needed(path, 64 * MIB)
    assert held < 3 * MIB


@pytest.mark.nightly
def test_lists_of_values_of_a_bit_are_written_within_the_smallest_cap(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", lists(40_000), Shape(group_rows=20_000))
    assert trouble(path, "filter", tmp_path, (1.0,)) == []


@pytest.mark.slow
def test_batches_of_single_rows_wait_for_a_piece_in_little_memory() -> None:
    rows = 4000
    batch = pa.record_batch({f"c{at}": [at] for at in range(16)} | {"t": ["text"]})
    gathered = Cutter(bytes_max=MIB)
    before = held_now()
    for _ in range(rows):
        assert list(gathered.add(batch.filter(pa.array([True])))) == []
    assert held_now() - before < 8 * MIB
    ((piece, _),) = gathered.finish()
    assert piece.num_rows == rows


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("verb", ["sort", "agg", "filter", "join"])
@pytest.mark.parametrize("name", NASTY)
def test_no_layout_pushes_a_run_over_its_cap(name: str, verb: str, tmp_path: Path) -> None:
    make, shape = NASTY[name]
    path = write(tmp_path / "t.parquet", make(shape.rows), shape)
    assert trouble(path, verb, tmp_path) == []


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(SHAPES))
def test_no_shape_pushes_a_run_over_its_cap(number: int, tmp_path: Path) -> None:
    ((texts, shape),) = itertools.islice(every_shape(), number, number + 1)
    path = write(tmp_path / "t.parquet", ordinary(shape.rows, texts), shape)
    for budget_mib in (48, 64):
        held, needed = held_and_needed(path, budget_mib * MIB)
        assert held <= needed
    for verb in ("sort", "agg", "filter", "join"):
        assert trouble(path, verb, tmp_path) == [], (verb, shape)
