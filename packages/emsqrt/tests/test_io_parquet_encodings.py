"""How columns are encoded: by their values, not by their type."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt import Engine, EngineConfig, scan
from emsqrt.io.parquet_encodings import Encodings, choose_encodings
from emsqrt.io.sinks import open_sink
from emsqrt.memory import MemoryBudget
from emsqrt.plan import FileTarget
from sennit_core.schema import Schema
from sennit_core.units import MIB

LIMIT_BYTES = 1 << 16
ROWS = 20_000


def table(**columns: Any) -> Any:
    return pa.table(columns)


def shuffled(most: int) -> list[int]:
    """Return numbers that do not predict the next one."""
    found: list[int] = np.random.default_rng(most).integers(0, most, ROWS).tolist()
    return found


def test_values_that_repeat_get_a_dictionary_and_near_or_narrow_ones_differences() -> None:
    made = table(
        few=pa.array(shuffled(50), pa.int64()),
        unique=pa.array(range(ROWS), pa.int64()),
        narrow=pa.array(shuffled(1 << 30), pa.int64()),
        wide=pa.array([number << 32 | number for number in shuffled(1 << 31)], pa.int64()),
        price=pa.array(
            [Decimal(number) / 100 for number in shuffled(1 << 30)], pa.decimal128(15, 2)
        ),
        words=pa.array([f"word {number}" for number in shuffled(9)]),
        texts=pa.array([f"text {row}" for row in range(ROWS)]),
        flag=pa.array([row % 2 == 0 for row in range(ROWS)]),
    )
    chosen = choose_encodings(made, LIMIT_BYTES, "zstd")
    assert chosen.dictionary == ["few", "words"]
    assert chosen.others == {
        "unique": "DELTA_BINARY_PACKED",
        "narrow": "DELTA_BINARY_PACKED",
        "price": "DELTA_BINARY_PACKED",
        "texts": "DELTA_LENGTH_BYTE_ARRAY",
    }


def test_data_that_compression_does_not_shrink_is_not_compressed(tmp_path: Path) -> None:
    numbers = shuffled(1 << 30)
    made = table(
        noise=pa.array(numbers, pa.int64()),
        wave=pa.array([row % 100 * 1000 for row in range(ROWS)], pa.int64()),
        few=pa.array([number % 64 for number in numbers]),
        text=pa.array([f"text {row}" for row in range(ROWS)]),
    )
    codecs = {"noise": "none", "wave": "snappy", "few": "none", "text": "snappy"}
    assert choose_encodings(made, LIMIT_BYTES, "snappy").compression == codecs
    without = choose_encodings(made, LIMIT_BYTES, "none")
    assert without.compression == dict.fromkeys(codecs, "none")
    written_by_sink(made, tmp_path / "a.parquet", compression="snappy")
    group = parquet.read_metadata(tmp_path / "a.parquet").row_group(0)
    found = [group.column(at).compression for at in range(4)]
    assert found == ["UNCOMPRESSED", "SNAPPY", "UNCOMPRESSED", "SNAPPY"]


def test_a_dictionary_that_would_outgrow_its_page_is_not_begun() -> None:
    repeated = [f"{'long ' * 20}{row % 1000}" for row in range(ROWS)]
    assert choose_encodings(table(c=repeated), LIMIT_BYTES, "zstd").dictionary == []
    assert choose_encodings(table(c=repeated), 1 << 20, "zstd").dictionary == ["c"]


def test_a_dictionary_that_grows_after_the_first_rows_is_detected_by_its_growth() -> None:
    """Each value comes four times, and never again; a sample holds a quarter of them."""
    rows = 4 * ROWS
    made = table(c=[f"value {row // 4:08}" for row in range(rows)])
    least = 18 * rows // 4
    assert choose_encodings(made, least - least // 50, "zstd").dictionary == []
    assert choose_encodings(made, least + least // 50, "zstd").dictionary == ["c"]


def written_by_sink(rows: Any, path: Path, **options: Any) -> None:
    schema = Schema.from_arrow(rows.schema)
    target = FileTarget(str(path), "parquet", options)
    with open_sink(target, schema, MemoryBudget(64 << 20), lambda _: None) as sink:
        for batch in rows.to_batches():
            sink.write(batch)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([Decimal("1.50")] * 99, pa.decimal128(15, 2)),
        pa.array([Decimal("1.50")] * 99, pa.decimal128(38, 2)),
        pa.array([datetime.timedelta(seconds=1)] * 99, pa.duration("us")),
        pa.array([datetime.time(1, 2)] * 99, pa.time64("us")),
        pa.array([0] * 99, pa.timestamp("us")),
        pa.array([datetime.date(2020, 1, 1)] * 99),
        pa.array([b"x"] * 99, pa.binary()),
        pa.array([None] * 99, pa.int64()),
        pa.array([None] * 99, pa.string()),
        pa.array([1.5, float("nan"), None] * 33),
        pa.array([1], pa.uint8()),
    ],
)
def test_every_type_gets_an_encoding_and_round_trips(values: Any, tmp_path: Path) -> None:
    made = table(c=values)
    schema = Schema.from_arrow(made.schema)
    made = made.cast(schema.to_arrow())
    choose_encodings(made, LIMIT_BYTES, "zstd")
    written_by_sink(made, tmp_path / "a.parquet")
    found = parquet.read_table(tmp_path / "a.parquet")
    assert found.schema == made.schema
    assert [repr(value) for value in found["c"].to_pylist()] == [
        repr(value) for value in made["c"].to_pylist()
    ]


def test_nested_columns_keep_theirs() -> None:
    chosen = choose_encodings(table(c=[[1, 2], [3]]), LIMIT_BYTES, "zstd")
    assert chosen == Encodings(dictionary=True, others={}, compression="zstd")


@pytest.mark.nightly
def test_places_in_a_dictionary_that_grows_are_as_wide_at_any_cap(tmp_path: Path) -> None:
    """Two texts in the first rows of a row group, a third one behind tens of thousands of them."""
    count = 60_000
    flags = ["AR"[at % 2] if at < 50_000 else "N" for at in range(count)]
    order = np.random.default_rng(7).permutation(count)
    source = tmp_path / "in.parquet"
    wide = {f"x{at}": order * 0.5 for at in range(8)}  # so that few rows fill a row group
    parquet.write_table(
        pa.table({"id": order, "flag": [flags[at] for at in order], **wide}), source
    )
    made = []
    for cap in (72 * MIB, 256 * MIB):
        target = tmp_path / f"{cap}.parquet"
        engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
        scan(source).sort("id").sink(target).run(cap, engine=engine)
        made.append(target.read_bytes())
    assert parquet.read_table(target)["flag"].to_pylist() == flags
    assert made[0] == made[1]
