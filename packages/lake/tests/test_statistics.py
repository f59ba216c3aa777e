"""Statistics of shards: complete when they are written, and completed by maintenance if they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.statements.shard_statistics import unmeasured_shards

from .test_provenance import replace_manifest, stored_manifest
from .test_pruning import explained

TYPES = """
    true AS b, 1::TINYINT AS i8, 1::SMALLINT AS i16, 1::INT AS i32, 1::BIGINT AS i64,
    1::UTINYINT AS u8, 1::USMALLINT AS u16, 1::UINTEGER AS u32, 1::UBIGINT AS u64,
    1::FLOAT AS f32, 'nan'::DOUBLE AS f64, 1::DECIMAL(38, 3) AS d, repeat('x', 500) AS s,
    'a'::BLOB AS bin, DATE '2026-01-01' AS day, TIME '12:00:00' AS clock,
    TIMESTAMP '2026-01-01 00:00:00' AS ts, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS tz,
    TIMESTAMP_NS '2026-01-01 00:00:00' AS ns, [1] AS list, {'a': 1} AS struct, NULL::INT AS none
"""


@pytest.mark.slow
@pytest.mark.parametrize("encrypt", [False, True])
def test_a_new_shard_has_all_statistics(tmp_path: Path, pool: ExecutorPool, encrypt: bool) -> None:
    file = tmp_path / "u.csv"
    file.write_text("a,b,c\n1,x,\n2.5,,\n")
    with Lake(tmp_path / "data", pool=pool, passphrase="correct horse" * 2) as lake:
        made = f"CREATE TABLE t WITH (encrypt = {str(encrypt).lower()}) AS SELECT {TYPES}"
        lake.sql(made)
        lake.sql("UPDATE t SET i8 = 2")
        lake.sql("INSERT INTO t SELECT * FROM t")
        lake.sql("CREATE TABLE nothing (a INT, b DOUBLE)")
        lake.append("u", file, encrypt=encrypt)
        for name in ("t", "nothing", "u"):
            found = unmeasured_shards(lake.catalog.manifest(name).snapshot)
            # Bounds are values, which an encrypted dataset shows nobody.
            assert found == [] or (encrypt and name != "nothing"), name
        assert lake.maintenance.run("statistics").changed == 0


@pytest.mark.slow
def test_maintenance_completes_what_an_earlier_version_left_out(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 0 AS a, 0.5::DOUBLE AS b")
    for number in range(1, 9):
        lake.sql(f"INSERT INTO t VALUES ({number}, {number})")
    document = stored_manifest(lake)
    shards = document["snapshot"]["shards"]
    assert len(shards) == 9
    del shards[3]["stats"]["a"]
    del shards[5]["stats"]["b"]["nans"]
    del document["snapshot"]["signature"]
    replace_manifest(lake, document)
    assert "shards: 2 of 9" in explained(lake, "SELECT * FROM t WHERE a = 5")
    assert "shards: 2 of 9" in explained(lake, "SELECT * FROM t WHERE b > 7")

    assert lake.maintenance.run("statistics").changed == 2

    assert "shards: 1 of 9" in explained(lake, "SELECT * FROM t WHERE a = 5")
    assert "shards: 1 of 9" in explained(lake, "SELECT * FROM t WHERE b > 7")
    assert lake.sql("SELECT a FROM t").rows == [(number,) for number in range(9)]
    newest = lake.catalog.manifest("t").snapshot
    assert (newest.query, newest.version) == ("statistics", 11)
    assert lake.maintenance.run("statistics").changed == 0


@pytest.mark.slow
def test_a_column_that_became_one_of_floats_still_prunes(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 0::INT AS a")
    for number in range(1, 9):
        lake.sql(f"INSERT INTO t VALUES ({number})")
    lake.sql("ALTER TABLE t ALTER a TYPE DOUBLE")
    lake.sql("INSERT INTO t VALUES ('nan'), (2.5)")

    assert "shards: 2 of 10" in explained(lake, "SELECT * FROM t WHERE a > 7")
    assert lake.sql("SELECT count(*) FROM t WHERE a > 7").value == 2  # NaN is the greatest
