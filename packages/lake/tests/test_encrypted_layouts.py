"""Encrypted datasets with partitions and a sort order: the manifest shows which shards belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.encryption.plain_cache import SealedShard
from sennit_core.errors import StorageFull
from sennit_core.records import ShardInfo

from .conftest import put, upload_file
from .served_lake import Client, make_app
from .test_encrypted_uploads import watched
from .test_encryption import CANARY, clear_files, opened

CITIES = [f"{CANARY}-{city}" for city in ("Basel", "Bern", "Chur")]
TEXT = "n,city,day\n" + "".join(
    f"{n},{CITIES[n % 3]},2024-0{n % 2 + 1}-01\n" for n in range(300)
)  # fmt: skip
LAYOUT: dict[str, Any] = {"encrypt": True, "partitionBy": ["city"], "sortBy": ["n DESC"]}


@pytest.fixture
def lake(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    with opened(tmp_path / "data", pool) as lake:
        yield lake


def shards_of(lake: Lake) -> tuple[ShardInfo, ...]:
    return lake.catalog.manifest("t").snapshot.shards


def rows_of(lake: Lake) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each shard the hidden value of its partition, and its rows."""
    info = lake.catalog.get("t")
    sealed = [
        SealedShard(each.object, info.id, "t", index) for index, each in enumerate(shards_of(lake))
    ]
    paths = lake.vault.cache.acquire(sealed, {info.id: lake.vault.keys.key(info.id)})
    try:
        rows = [pq.read_table(path).to_pylist() for path in paths]
    finally:
        lake.vault.cache.release([each.object for each in sealed])
    return [
        ("".join(shard.partition.values()), each)
        for shard, each in zip(shards_of(lake), rows, strict=True)
        if each
    ]


def check_layout(lake: Lake) -> None:
    """Each shard has rows of one city in their order, and each city one hash, without its name."""
    found: dict[str, set[str]] = defaultdict(set)
    for hidden, rows in rows_of(lake):
        assert len({row["city"] for row in rows}) == 1
        numbers = [row["n"] for row in rows]
        assert numbers == sorted(numbers, reverse=True)
        found[rows[0]["city"]].add(hidden)
        assert len(hidden) == 64
        assert CANARY not in hidden
    assert [len(each) for each in found.values()] == [1] * len(found)
    assert clear_files(lake.folder) == []


@pytest.mark.slow
def test_ingests_and_statements_obey_the_layout_and_nothing_is_in_the_clear(lake: Lake) -> None:
    with watched(lake.folder) as seen:
        put(lake, "t.csv", TEXT, options=LAYOUT)
        put(lake, "t.csv", TEXT, mode="append")
        lake.sql("INSERT INTO t SELECT n + 1000, city, day FROM t WHERE n < 9")
        lake.sql("UPDATE t SET n = n + 1 WHERE n % 2 = 0")
        lake.sql("DELETE FROM t WHERE n = 7")
        rows = pa.table({"n": [1000], "city": [CITIES[2]], "day": [None]})
        lake.upsert("t", rows.cast(lake.catalog.get("t").schema.to_arrow()), key=["n"])
        check_layout(lake)
        before = len(shards_of(lake))
        lake.compact("t")
        assert len(shards_of(lake)) < before
        check_layout(lake)
    assert seen == []
    assert lake.verify().findings == ()
    assert list(lake.staging.iterdir()) == []
    left = [path.name for path in lake.vault.cache.folder.iterdir()]
    assert [name for name in left if name.startswith("run-")] == []


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t PARTITIONED BY (city) SORTED BY (n DESC) WITH (encrypt = true) AS {rows}",
        (
            "CREATE TABLE t WITH (encrypt = true) AS {rows} WHERE false; "
            "ALTER TABLE t SET PARTITIONED BY (city); ALTER TABLE t SET SORTED BY (n DESC); "
            "INSERT INTO t {rows}"
        ),
    ],
)
def test_statements_create_it(lake: Lake, sql: str) -> None:
    rows = f"SELECT range AS n, '{CANARY}-' || (range % 3) AS city FROM range(100)"
    for statement in sql.format(rows=rows).split(";"):
        lake.sql(statement)
    assert lake.sql("SELECT sum(n) FROM t").value == 4950
    assert len(rows_of(lake)) == 3
    check_layout(lake)


def test_conditions_over_partitions_find_their_rows(lake: Lake) -> None:
    """Eight shards and more are pruned by bounds and buckets, of which none is known here."""
    lake.sql(
        "CREATE TABLE t PARTITIONED BY (bucket(16, n)) WITH (encrypt = true) AS "
        "SELECT range AS n, range % 3 AS v FROM range(100)"
    )
    assert len(shards_of(lake)) >= 8
    for engine in ("duckdb", "emsqrt"):
        assert lake.sql("SELECT v FROM t WHERE n = 50", engine=engine).value == 2
        assert lake.sql("SELECT count(*) FROM t WHERE n IN (1, 99)", engine=engine).value == 2
        assert lake.sql("SELECT count(*) FROM t WHERE n IS NULL", engine=engine).value == 0


def test_a_layout_comes_by_upload_and_by_the_python_api(lake: Lake) -> None:
    document = {"name": "t.csv", "size": 10, "options": LAYOUT}
    assert Client(make_app(lake)).post("/api/start-upload", json=document).status_code == 200
    rows = pa.table({"n": [1, 2, 3, 4], "city": [*CITIES, CITIES[0]]})
    lake.append("t", rows, encrypt=True, partition_by=["city"], sort_by=["n DESC"])
    assert lake.catalog.get("t").encrypted
    check_layout(lake)


def test_equal_values_of_two_datasets_have_different_hashes(lake: Lake) -> None:
    hidden = set()
    for name in ("a", "b"):
        lake.append(name, pa.table({"c": ["x"]}), encrypt=True, partition_by=["c"])
        (shard,) = lake.catalog.manifest(name).snapshot.shards
        hidden |= set(shard.partition.values())
    assert len(hidden) == 2


def test_rows_that_memory_does_not_hold_are_refused_with_the_size(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "small", pool, plain_bytes=1000) as lake:
        upload = upload_file(lake, "t.csv", TEXT, options=LAYOUT)
        with pytest.raises(StorageFull, match="sorting the rows by the layout needs"):
            lake.ingest(upload.id)
        assert lake.catalog.find("t") is None
        assert clear_files(lake.folder) == []
