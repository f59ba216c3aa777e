"""Layouts of datasets: partitions and sort order, and what each writer does with them."""

from __future__ import annotations

import datetime
import decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.transforms import BucketTransform, DayTransform, HourTransform, MonthTransform
from pyiceberg.transforms import YearTransform as Years
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    LongType,
    StringType,
    TimestampType,
)
from pyiceberg.utils.datetime import date_to_days, datetime_to_micros

from lake import Lake
from lake.catalog.file_schemas import file_schemas_of
from lake.catalog.layouts import partition_names
from lake.ingest.partitions import PARTITIONS_MAX, buckets, partition_runs, values
from sennit_core.errors import SennitError, SqlError, UnknownColumn, Unsupported, UsageError
from sennit_core.records import PartitionField, ShardInfo

from .conftest import put

EVENTS = (
    "SELECT i, 'u' || (i % 7) AS u, TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS ts, i / 2.0 AS f "
    "FROM range(2000) AS t(i)"
)


def shards_of(lake: Lake, name: str) -> tuple[ShardInfo, ...]:
    return lake.catalog.manifest(name).snapshot.shards


def rows_in(lake: Lake, shard: ShardInfo) -> pa.Table:
    return pq.read_table(lake.objects.place(shard.object))


def check_partitions(lake: Lake, name: str) -> None:
    """Each row is in a shard of its partition, by pyarrow's and pyiceberg's own computation."""
    snapshot = lake.catalog.manifest(name).snapshot
    files = file_schemas_of(snapshot)
    for shard in snapshot.shards:
        table = rows_in(lake, shard)
        if not table.num_rows:
            continue
        assert set(shard.partition) == {field.key for field in snapshot.partitioning}
        places = files[shard.file_schema].columns
        for field in snapshot.partitioning:
            column = table.column(places.index(field.column)).combine_chunks()
            found = set(values(column, field).to_pylist())
            assert found == {shard.partition[field.key]}


@pytest.fixture
def events(lake: Lake) -> Lake:
    lake.sql(f"CREATE TABLE t PARTITIONED BY (month(ts), bucket(2, u)) SORTED BY (i) AS {EVENTS}")
    return lake


def test_create_writes_a_shard_for_each_partition(events: Lake) -> None:
    shards = shards_of(events, "t")
    assert [dict(shard.partition) for shard in shards] == [
        {"bucket(2,2)": bucket, "month(3)": month} for month in (648, 649, 650) for bucket in (0, 1)
    ]
    check_partitions(events, "t")
    assert events.sql("SELECT sum(i) FROM t").value == 1999 * 1000


def test_every_statement_keeps_the_layout(events: Lake) -> None:
    events.sql("ALTER TABLE t SET SORTED BY (i DESC NULLS FIRST)")
    events.sql("INSERT INTO t VALUES (5000, 'x', '2024-02-02', 1), (NULL, 'x', '2024-02-03', 2)")
    events.sql("UPDATE t SET ts = ts + INTERVAL 31 DAY WHERE i < 10")
    events.sql("DELETE FROM t WHERE i % 3 = 1")
    events.sql(
        "MERGE INTO t USING (SELECT 3 AS i UNION ALL SELECT 7000) AS s ON t.i = s.i "
        "WHEN MATCHED THEN UPDATE SET u = 'merged' "
        "WHEN NOT MATCHED THEN INSERT (i, u, ts) VALUES (s.i, 'new', TIMESTAMP '2030-01-01')"
    )
    check_partitions(events, "t")
    new = [
        shard for shard in shards_of(events, "t") if rows_in(events, shard)["u"][0].as_py() == "x"
    ]
    for shard in new:
        assert [each.as_py() for each in rows_in(events, shard)["i"]] == [None, 5000]
    assert events.sql("SELECT count(*) FROM t").value == 2001 - 666 + 1


def test_compaction_stays_in_a_partition(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (day DATE, n INTEGER) PARTITIONED BY (month(day)) SORTED BY (n)")
    for n in range(6):
        lake.sql(f"INSERT INTO t VALUES ('2024-01-0{n + 1}', {-n}), ('2024-02-01', {n})")
    assert len(shards_of(lake, "t")) == 13  # the first has the columns alone
    lake.compact("t")
    check_partitions(lake, "t")
    shards = [shard for shard in shards_of(lake, "t") if shard.rows]
    assert [shard.partition["month(1)"] for shard in shards] == [648, 649]
    assert rows_in(lake, shards[0])["n"].to_pylist() == [-5, -4, -3, -2, -1, 0]


def test_rows_of_before_the_layout_are_arranged_by_the_next_compaction(lake: Lake) -> None:
    for n in range(3):
        lake.sql(f"{'INSERT INTO t' if n else 'CREATE TABLE t AS'} SELECT {n} AS a, {n % 2} AS b")
    lake.sql("ALTER TABLE t SET PARTITIONED BY (b)")
    assert [dict(shard.partition) for shard in shards_of(lake, "t")] == [{}, {}, {}]
    lake.compact("t")
    assert [dict(shard.partition) for shard in shards_of(lake, "t")] == [
        {"identity(2)": 0},
        {"identity(2)": 1},
    ]


def test_ingests_obey_the_layout(lake: Lake) -> None:
    text = "day,n,u\n" + "".join(
        f"2024-0{n % 3 + 1}-0{n % 9 + 1},{n},u{n % 5}\n" for n in range(90)
    )
    options = {"partitionBy": ["month(day)", "bucket(4, u)"], "sortBy": ["n DESC"]}
    put(lake, "t.csv", text, options=options)
    check_partitions(lake, "t")
    put(lake, "t.csv", text, mode="append")
    check_partitions(lake, "t")
    assert lake.sql("SELECT count(*) FROM t").value == 180
    for shard in shards_of(lake, "t"):
        numbers = rows_in(lake, shard)["n"].to_pylist()
        assert numbers == sorted(numbers, reverse=True)


def test_the_python_api_partitions_arrow_data(lake: Lake) -> None:
    table = pa.table({"a": [3, 1, 2, 1], "s": ["x", "y", None, "y"]})
    lake.append("t", table, partition_by=["s"], sort_by=["a"])
    lake.append("t", table)
    check_partitions(lake, "t")
    assert {shard.partition["identity(2)"] for shard in shards_of(lake, "t")} == {"x", "y", None}
    with pytest.raises(UsageError, match="a layout of its own"):
        lake.append("t", table, partition_by=["a"])


def test_an_empty_file_has_a_layout_and_no_rows(lake: Lake) -> None:
    lake.append("t", pa.table({"a": pa.array([], pa.int64())}), partition_by=["bucket(4, a)"])
    lake.sql("INSERT INTO t VALUES (1)")
    check_partitions(lake, "t")
    assert lake.sql("SELECT count(*) FROM t").value == 1


def test_a_layout_survives_names_and_protects_its_columns(events: Lake) -> None:
    events.sql("ALTER TABLE t RENAME COLUMN ts TO time")
    events.sql("INSERT INTO t VALUES (1, 'x', '2024-09-01', 0)")
    check_partitions(events, "t")
    snapshot = events.catalog.manifest("t").snapshot
    assert partition_names(snapshot, snapshot.shards[-1]).keys() == {"month(time)", "bucket(2, u)"}
    for column, clause in (("time", "PARTITIONED BY"), ("i", "SORTED BY")):
        with pytest.raises(Unsupported) as caught:
            events.sql(f"ALTER TABLE t DROP COLUMN {column}")
        assert clause in str(caught.value.hint)
    events.sql("ALTER TABLE t RESET SORTED BY")
    events.sql("ALTER TABLE t DROP COLUMN i")


def test_a_partition_column_keeps_the_type_that_its_hash_is_of(lake: Lake) -> None:
    lake.sql("CREATE TABLE t PARTITIONED BY (bucket(4, a)) AS SELECT 1::INTEGER AS a")
    lake.sql("ALTER TABLE t ALTER a TYPE BIGINT")
    with pytest.raises(Unsupported, match="by which the dataset is partitioned"):
        lake.sql("ALTER TABLE t ALTER a TYPE DECIMAL(38, 2)")


def test_replacing_and_rolling_back_have_their_own_layouts(events: Lake) -> None:
    events.sql("CREATE OR REPLACE TABLE t AS SELECT 1 AS a")
    assert events.catalog.manifest("t").snapshot.partitioning == ()
    events.rollback("t", 1)
    assert len(events.catalog.manifest("t").snapshot.partitioning) == 2


@pytest.mark.parametrize(
    ("clause", "error"),
    [
        ("PARTITIONED BY (day(u))", Unsupported),
        ("PARTITIONED BY (f)", Unsupported),
        ("PARTITIONED BY (month(nothing))", UnknownColumn),
        ("PARTITIONED BY (years(ts))", UsageError),
        ("PARTITIONED BY (bucket(0, u))", UsageError),
        ("PARTITIONED BY (bucket(5000, u))", UsageError),
        ("PARTITIONED BY (i, I)", UsageError),
        ("PARTITIONED BY (i + 1)", UsageError),
        ("PARTITIONED BY ((SELECT 1))", UsageError),
        (f"PARTITIONED BY ({', '.join(f'bucket({n}, i)' for n in range(1, 10))})", UsageError),
        ("PARTITIONED BY ()", SqlError),
        ("PARTITIONED BY", SqlError),
        ("SORTED BY (i + 1)", UsageError),
        ("SORTED BY (i, i DESC)", UsageError),
        ("SORTED BY (nothing)", UnknownColumn),
    ],
)  # fmt: skip
def test_what_is_no_layout_is_refused(events: Lake, clause: str, error: type[SennitError]) -> None:
    with pytest.raises(error):
        events.sql(f"ALTER TABLE t SET {clause}")


def test_a_column_of_many_values_makes_no_million_files(lake: Lake) -> None:
    rows = f"SELECT i FROM range({PARTITIONS_MAX + 1}) AS t(i)"
    with pytest.raises(UsageError, match="more than 4,096 partitions"):
        lake.sql(f"CREATE TABLE t PARTITIONED BY (i) AS {rows}")
    assert lake.catalog.find("t") is None
    with pytest.raises(UsageError, match="more than 4,096 partitions"):
        put(lake, "t.csv", "i\n" + "\n".join(map(str, range(5000))), options={"partitionBy": ["i"]})
    lake.sql(f"CREATE TABLE t PARTITIONED BY (bucket(8, i)) AS {rows}")
    assert len(shards_of(lake, "t")) == 8


LONG = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes()


@given(st.lists(LONG), st.lists(st.text(max_size=40) | st.text("ab", min_size=1020, max_size=1030)))
def test_buckets_are_those_of_iceberg(numbers: list[int], texts: list[str]) -> None:
    texts = [text for text in texts if text.isprintable() or text.isascii()]
    for kind, arrow, found in (
        (LongType(), pa.int64(), numbers),
        (StringType(), pa.string(), texts),
        (BinaryType(), pa.binary(), [text.encode() for text in texts]),
    ):
        bucket: Any = BucketTransform(977).transform(kind)
        column = pa.array([None, *found, None], arrow)[1:]
        assert buckets(column, 977).to_pylist() == [*map(bucket, found), None]


@given(st.lists(TIMES), st.lists(st.decimals(-(10**15), 10**15, places=2, allow_nan=False)))
def test_times_and_decimals_are_those_of_iceberg(
    times: list[datetime.datetime], numbers: list[decimal.Decimal]
) -> None:
    dates = [time.date() for time in times]
    for name, transform in (
        ("year", Years()),
        ("month", MonthTransform()),
        ("day", DayTransform()),
        ("hour", HourTransform()),
    ):
        field = PartitionField(1, name)
        of: Any = transform.transform(TimestampType())
        column = pa.array(times, pa.timestamp("us"))
        assert values(column, field).to_pylist() == [of(datetime_to_micros(t)) for t in times]
        if name != "hour":
            of = transform.transform(DateType())
            column = pa.array(dates, pa.date32())
            assert values(column, field).to_pylist() == [of(date_to_days(day)) for day in dates]
    bucket: Any = BucketTransform(16).transform(DecimalType(20, 2))
    column = pa.array(numbers, pa.decimal128(20, 2))
    assert buckets(column, 16).to_pylist() == [*map(bucket, numbers)]


@given(st.lists(st.tuples(st.none() | st.integers(0, 2), st.none() | st.sampled_from("ab"))))
def test_runs_have_all_rows_in_order(rows: list[tuple[int | None, str | None]]) -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "a": pa.array([a for a, _ in rows], pa.int64()),
            "b": pa.array([b for _, b in rows], "string"),
        }
    )
    fields = [(PartitionField(1, "identity"), "a"), (PartitionField(2, "identity"), "b")]
    found = list(partition_runs(batch, fields))
    assert [key for key, start, stop in found for _ in range(start, stop)] == rows
    assert all(one != two for (one, *_), (two, *_) in pairwise(found))


def test_a_time_that_iceberg_cannot_number_is_refused(lake: Lake) -> None:
    with pytest.raises(Unsupported, match="by hour"):
        lake.sql("CREATE TABLE t PARTITIONED BY (hour(a)) AS SELECT TIMESTAMP 'infinity' AS a")
    days = np.array([np.iinfo(np.int32).max], "int32")
    column = pa.array(days).cast(pa.date32())
    assert values(column, PartitionField(1, "day")).to_pylist() == [2**31 - 1]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE d (a INTEGER, b VARCHAR) SORTED BY (a DESC NULLS FIRST, b asc)",
        "CREATE TABLE d SORTED  BY (a desc nulls first, b) AS SELECT 1 AS a, 'sorted by (x desc)' AS b",
    ],
)
def test_a_dataset_is_created_in_descending_order(lake: Lake, statement: str) -> None:
    lake.sql(statement)
    first, second = lake.catalog.manifest("d").snapshot.sort_order
    assert (first.descending, first.nulls_first) == (True, True)
    assert (second.descending, second.nulls_first) == (False, False)
    lake.sql("INSERT INTO d VALUES (2, 'x'), (NULL, 'y'), (3, 'z')")
    rows = lake.sql("SELECT a FROM d").rows
    assert rows[-3:] == [(None,), (3,), (2,)]
