"""Iceberg metadata of partitioned and sorted datasets, which pyiceberg uses for its own pruning."""

from __future__ import annotations

from pyiceberg.table import StaticTable

from lake import Lake
from lake.interop.iceberg import publish_iceberg

from .served_lake import Client, make_app

EVENTS = (
    "SELECT i, 'u' || (i % 7) AS u, TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS ts, "
    "DATE '2024-01-01' + (i // 24)::INTEGER AS day, i % 2 = 0 AS even FROM range(2000) AS t(i)"
)


def opened(lake: Lake) -> StaticTable:
    return StaticTable.from_metadata(str(publish_iceberg(lake, "t")))


def files(table: StaticTable, condition: str) -> int:
    return len(list(table.scan(row_filter=condition).plan_files()))


def test_pyiceberg_prunes_by_partition(lake: Lake) -> None:
    lake.sql(
        f"CREATE TABLE t PARTITIONED BY (month(ts), bucket(4, u)) SORTED BY (i, u) AS {EVENTS}"
    )
    table = opened(lake)
    assert str(table.spec()).count("ts_month: month(3)") == 1
    assert "bucket[4](2)" in str(table.spec())
    assert [field.source_id for field in table.sort_order().fields] == [1, 2]
    assert files(table, "ts < '2024-02-01T00:00:00' and u = 'u3'") == 1
    assert files(table, "u = 'u3'") == 3
    assert table.scan(row_filter="u = 'u3'").to_arrow().num_rows == 286
    assert table.scan().to_arrow().num_rows == 2000


def test_a_table_has_a_spec_for_each_layout_of_its_files(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t AS {EVENTS}")
    lake.sql("ALTER TABLE t SET PARTITIONED BY (day(ts), even)")
    lake.sql("INSERT INTO t SELECT * FROM t WHERE i < 48")
    lake.sql("ALTER TABLE t SET PARTITIONED BY (hour(ts), year(day), day)")
    lake.sql("INSERT INTO t SELECT * FROM t WHERE i = 30")
    lake.sql("INSERT INTO t (i) VALUES (NULL)")
    lake.sql("ALTER TABLE t RENAME COLUMN ts TO time")
    lake.sql("ALTER TABLE t SET SORTED BY (i DESC NULLS FIRST)")
    table = opened(lake)
    assert len(table.specs()) == 3
    assert "time_hour: hour(3)" in str(table.spec())
    assert str(table.sort_order()).count("DESC NULLS FIRST") == 1
    # The file without partitions, those of the day, and that of the hour.
    assert files(table, "time = '2024-01-02T06:00:00'") == 4
    found = table.scan(row_filter="time = '2024-01-02T06:00:00'").to_arrow()
    assert found["i"].to_pylist() == [30] * 4
    assert files(table, "time is null") == 1


def test_a_dropped_column_leaves_its_files_readable(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t PARTITIONED BY (u) AS {EVENTS}")
    lake.sql("ALTER TABLE t RESET PARTITIONED BY")
    lake.sql("ALTER TABLE t DROP COLUMN u")
    assert opened(lake).scan().to_arrow().num_rows == 2000


def test_lists_of_files_have_partition_values(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t PARTITIONED BY (month(ts), even) AS {EVENTS}")
    lake.sql("ALTER TABLE t RENAME COLUMN ts TO time")
    dataset = lake.catalog.get("t").id
    answer = Client(make_app(lake)).get(f"/files/{dataset}/head").json()
    assert [each["partition"] for each in answer["files"]] == [
        {"month(time)": month, "even": even} for month in (648, 649, 650) for even in (False, True)
    ]
