"""How shards are encoded: not larger than DuckDB's files, and the same values in any encoding."""

from __future__ import annotations

import datetime
import random
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.ingest.shards import Limits, ShardWriter

from .conftest import Encode

WORDS = [
    "carefully",
    "final",
    "deposits",
    "sleep",
    "quickly",
    "ironic",
    "requests",
    "haggle",
    "blithely",
    "even",
    "packages",
]
DAY = datetime.date(1992, 1, 1)
COLUMNS = {
    pa.int8(): st.integers(-128, 127),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=20),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(datetime.timedelta(-(10**6)), datetime.timedelta(10**6)),
    pa.decimal128(7, 2): st.integers(-(10**7) + 1, 10**7 - 1).map(lambda n: Decimal(n) / 100),
    pa.decimal128(38, 0): st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
    pa.list_(pa.int64()): st.lists(st.integers(-5, 5), max_size=3),
}


def orders(rows: int) -> str:
    """Sales as CSV: ordered keys, scattered keys, prices, days, and texts that never repeat."""
    dice = random.Random(7)
    lines = ["key,part,price,discount,day,mode,comment"]
    for row in range(rows):
        comment = " ".join(dice.choices(WORDS, k=dice.randint(3, 7)))
        lines.append(
            f"{row // 4},{dice.randrange(400_000)},{dice.randrange(90_000, 10_000_000) / 100},"
            f"{dice.randrange(11) / 100},{DAY + datetime.timedelta(dice.randrange(2_500))},"
            f"{dice.choice(('RAIL', 'AIR', 'TRUCK'))},{comment}"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.nightly
def test_a_dataset_is_no_larger_than_the_file_that_duckdb_writes(
    encode: Encode, tmp_path: Path
) -> None:
    text = orders(60_000)
    source, target = tmp_path / "orders.csv", tmp_path / "orders.parquet"
    source.write_text(text)
    with duckdb.connect() as connection:
        connection.execute(
            f"copy (from '{source}') to '{target}' (format parquet, compression zstd)"
        )

    done = encode(text, "orders.csv", limits={"source_bytes": 1 << 30})

    stored = sum(shard["bytes"] for shard in done.answer["shards"])
    assert stored <= 1.03 * target.stat().st_size


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_values_and_statistics_do_not_depend_on_the_encodings(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = data.draw(st.integers(0, 25))
    kinds = data.draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=4, unique=True))
    table = pa.table(
        {
            str(kind): pa.array(
                data.draw(st.lists(st.none() | COLUMNS[kind], min_size=rows, max_size=rows)), kind
            )
            for kind in kinds
        }
    )
    writer = ShardWriter(tmp_path_factory.mktemp("shards"), Limits(group_rows=7), "x")

    for batch in table.to_batches(max_chunksize=5) or [
        pa.RecordBatch.from_pylist([], table.schema)
    ]:
        writer.write(batch, start=None, stop=None)
    writer.cut()

    (shard,) = writer.shards
    assert pq.read_table(shard.path).equals(table)
    for name, known in shard.stats.items():
        assert known.get("nulls", 0) == table.column(name).null_count


def test_a_column_whose_later_values_differ_is_written_all_the_same(tmp_path: Path) -> None:
    first = pa.record_batch({"t": ["a", "b"] * 500, "n": [1] * 1000})
    later = pa.record_batch(
        {"t": [f"{n:040}" for n in range(50_000)], "n": [n * 7919 for n in range(50_000)]}
    )
    writer = ShardWriter(tmp_path, Limits(group_rows=1000), "x")

    for batch in (first, later, first):
        writer.write(batch, start=None, stop=None)
    writer.cut()

    (shard,) = writer.shards
    assert pq.read_table(shard.path).equals(pa.Table.from_batches([first, later, first]))
