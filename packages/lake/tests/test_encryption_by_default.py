"""A lake that encrypts new datasets, however they are created, unless their creator says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from sennit_core.errors import Denied

from .conftest import put
from .test_encryption import CANARY, clear_files, csv_text, opened


@pytest.fixture
def lake(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    with opened(tmp_path / "data", pool, encrypt=True) as lake:
        yield lake


@pytest.mark.slow
def test_every_way_to_create_a_dataset_encrypts_it(lake: Lake, tmp_path: Path) -> None:
    put(lake, "uploaded.csv", csv_text())
    lake.append("arrow", pa.table({"a": [CANARY] * 9}))
    lake.sql("CREATE TABLE typed (a VARCHAR)")
    lake.sql(f"INSERT INTO typed VALUES ('{CANARY}')")
    lake.sql(f"CREATE TABLE computed AS SELECT '{CANARY}' AS a")
    lake.sql("CREATE TABLE copied AS SELECT * FROM computed")
    lake.sql("BEGIN; CREATE TABLE committed AS FROM typed; COMMIT")

    for info in lake.catalog.list():
        assert info.encrypted, info.name
        assert CANARY in str(lake.sql(f"SELECT * FROM {info.name} LIMIT 1").rows)
    assert len(lake.catalog.list()) == 6
    assert clear_files(tmp_path / "data") == []


@pytest.mark.slow
def test_a_creator_may_say_that_it_is_not_encrypted(lake: Lake) -> None:
    put(lake, "uploaded.csv", csv_text(), options={"encrypt": False})
    lake.append("arrow", pa.table({"a": [1]}), encrypt=False)
    lake.sql("CREATE TABLE computed WITH (encrypt = false) AS SELECT 1 AS a")
    assert not any(info.encrypted for info in lake.catalog.list())
    # What exists stays as it was created.
    lake.append("arrow", pa.table({"a": [2]}))
    lake.sql("INSERT INTO computed VALUES (2)")
    lake.sql("CREATE OR REPLACE TABLE computed AS SELECT 3 AS a")
    assert not any(info.encrypted for info in lake.catalog.list())
    assert lake.vault.keys.entries() == []


@pytest.mark.slow
def test_without_the_key_nothing_is_created_in_the_clear(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "data", pool, encrypt=True, passphrase=None) as lake:
        for create in (
            lambda: put(lake, "t.csv", "a\n1\n"),
            lambda: lake.append("t", pa.table({"a": [1]})),
            lambda: lake.sql("CREATE TABLE t AS SELECT 1 AS a"),
        ):
            with pytest.raises(Denied, match="key"):
                create()
        assert lake.catalog.list() == []
        lake.sql("CREATE TABLE t WITH (encrypt = false) AS SELECT 1 AS a")
