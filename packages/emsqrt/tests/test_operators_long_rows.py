"""Rows of several MiB leave operators that hold rows, where the cap has room for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt import Engine, EngineConfig, scan
from sennit_core.errors import CapTooSmall
from sennit_core.units import MIB

TEXT_BYTES = 3 * MIB
IDS = (4, 1, 3, 0, 2)
VERBS: dict[str, Callable[[Any], Any]] = {
    "sort": lambda rows: rows.sort("id"),
    "top": lambda rows: rows.sort("id").limit(5),
    "text": lambda rows: rows.sort("t"),
    "distinct": lambda rows: rows.distinct("id"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "t.parquet"
    texts = [chr(97 + number) * (TEXT_BYTES + number if number % 2 else 10) for number in IDS]
    parquet.write_table(pa.table({"id": IDS, "t": texts}), path, row_group_size=2)
    return path


def run(source: Path, target: Path, verb: str, mem_cap: int) -> list[int]:
    engine = Engine(EngineConfig(spill_dir=target.parent / "spill"))
    VERBS[verb](scan(source)).sink(target).run(mem_cap, engine=engine, in_process=True)
    found = parquet.read_table(target).to_pylist()
    for row in found:
        assert row["t"][:1] == chr(97 + row["id"])
        assert len(row["t"]) == (TEXT_BYTES + row["id"] if row["id"] % 2 else 10)
    return [row["id"] for row in found]


@pytest.mark.parametrize("verb", VERBS)
def test_rows_of_some_mib_come_out(verb: str, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.parquet", verb, 448 * MIB) == [0, 1, 2, 3, 4]


def test_the_cap_that_a_refusal_names_is_enough(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CapTooSmall) as refusal:
        run(source, tmp_path / "out.parquet", "sort", 64 * MIB)
    mem_cap = refusal.value.needed_bytes
    assert run(source, tmp_path / "out.parquet", "sort", mem_cap) == [0, 1, 2, 3, 4]
