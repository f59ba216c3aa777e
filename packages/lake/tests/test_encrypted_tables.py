"""Statements that create encrypted datasets, and those that copy one into the clear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from sennit_core.errors import Conflict, Denied, SennitError, Unsupported

from .conftest import put
from .test_crash import CHILD, die
from .test_encryption import CANARY, ROWS, clear_files, csv_text, opened


@pytest.fixture
def secret(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    """A lake with an encrypted dataset `t`."""
    with opened(tmp_path / "data", pool) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
        yield lake


@pytest.fixture
def clear(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    """A lake with a key, and a dataset `open` that is not encrypted."""
    with opened(tmp_path / "data", pool) as lake:
        put(lake, "open.csv", "id,secret\n1,x\n")
        yield lake


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE TABLE n WITH (encrypt = true) AS SELECT '{CANARY}' || range AS a FROM range(100)",
        f"create or replace table n with ( ENCRYPT ) as select '{CANARY}' || range as a from range(100)",
        f"CREATE TABLE n (a TEXT) WITH (encrypt = 'true'); "  # noqa: ISC004 - one text
        f"INSERT INTO n SELECT '{CANARY}' || range FROM range(100)",
    ],
)
def test_a_statement_creates_an_encrypted_dataset(clear: Lake, sql: str) -> None:
    before = set(clear_files(clear.folder))
    for statement in sql.split(";"):
        clear.sql(statement)
    info = clear.catalog.get("n")
    assert (info.encrypted, info.rows) == (True, 100)
    assert set(clear_files(clear.folder)) == before
    assert clear.catalog.manifest("n").snapshot.query in ("CREATE", "INSERT")
    assert clear.vault.keys.datasets() == [info.id]
    assert clear.sql(f"SELECT count(*) FROM n WHERE a LIKE '{CANARY}%'").value == 100
    clear.sql("CREATE TABLE more WITH (encrypt = true) AS SELECT * FROM n")
    assert clear.catalog.get("more").encrypted


def test_rows_leave_for_a_dataset_in_the_clear_only_when_the_statement_says_so(
    secret: Lake,
) -> None:
    with pytest.raises(Unsupported, match="which is encrypted") as caught:
        secret.sql("CREATE TABLE copy AS SELECT * FROM t")
    assert "WITH (encrypt = false)" in (caught.value.hint or "")
    secret.sql("CREATE TABLE copy WITH (encrypt = false) AS SELECT * FROM t")
    assert not secret.catalog.get("copy").encrypted
    assert secret.sql("SELECT count(*) FROM copy").value == ROWS
    with pytest.raises(Unsupported):
        secret.sql("INSERT INTO copy SELECT * FROM t")


def test_a_dataset_stays_as_it_was_created(secret: Lake) -> None:
    put(secret, "open.csv", "id,secret\n1,x\n")
    for sql in (
        "CREATE OR REPLACE TABLE t WITH (encrypt = false) AS SELECT * FROM t",
        "CREATE OR REPLACE TABLE open WITH (encrypt = true) AS SELECT * FROM open",
    ):
        with pytest.raises(Conflict, match="cannot be changed"):
            secret.sql(sql)
    secret.sql("CREATE OR REPLACE TABLE t WITH (encrypt = true) AS SELECT 1 AS a")
    assert secret.catalog.get("t").encrypted
    assert len(secret.vault.keys.datasets()) == 1


def test_a_create_that_fails_leaves_no_key(clear: Lake) -> None:
    for sql in (
        "CREATE TABLE n WITH (encrypt = true) AS SELECT CAST('x' AS INT) AS a",
        "CREATE TABLE n WITH (encrypt = maybe) AS SELECT 1 AS a",
        "CREATE TABLE n WITH (encrypt = true, encrypt = true) AS SELECT 1 AS a",
        "CREATE TABLE n WITH (encrypted = true) AS SELECT 1 AS a",
        "CREATE TABLE open WITH (encrypt = true) AS SELECT 1 AS a",
        "CREATE TABLE n WITH () AS SELECT 1 AS a",
        "CREATE TABLE n WITH (encrypt AS SELECT 1 AS a",
    ):
        with pytest.raises(SennitError):
            clear.sql(sql)
        assert clear.vault.keys.entries() == []
    clear.sql("CREATE TABLE n AS WITH q AS (SELECT 'encrypt' AS a) SELECT * FROM q")
    assert not clear.catalog.get("n").encrypted
    assert clear.vault.keys.entries() == []


def test_a_locked_lake_creates_no_encrypted_dataset(tmp_path: Path, pool: ExecutorPool) -> None:
    with opened(tmp_path / "data", pool, passphrase=None) as lake:
        with pytest.raises(Denied, match="encrypt a dataset"):
            lake.sql("CREATE TABLE n WITH (encrypt = true) AS SELECT 1 AS a")
        lake.sql("CREATE TABLE n WITH (encrypt = false) AS SELECT 1 AS a")


@pytest.mark.crash
@pytest.mark.parametrize("point", ["write-encoded", "write-manifest", "write-committed"])
def test_a_create_that_is_killed_leaves_a_key_only_with_its_dataset(
    tmp_path: Path, pool: ExecutorPool, point: str
) -> None:
    data, key = tmp_path / "data", tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    child = CHILD.replace('memory_bytes="512MiB"', f'memory_bytes="512MiB", key_file="{key}"')
    sql = f"CREATE TABLE n WITH (encrypt = true) AS SELECT '{CANARY}' AS a"
    die(data, point, "sql", sql, child)
    assert clear_files(data) == []
    with opened(data, pool, passphrase=None, key_file=key) as lake:
        found = [info.id for info in lake.catalog.list()]
        assert len(found) == (point == "write-committed")
        assert lake.vault.keys.entries() == found
        if found:
            assert lake.sql("SELECT a FROM n").value == CANARY


def test_a_view_over_an_encrypted_dataset_has_its_text_alone_in_the_clear(secret: Lake) -> None:
    before = set(clear_files(secret.folder))
    secret.sql("CREATE VIEW w AS SELECT upper(secret) AS s FROM t WHERE id < 10")
    assert secret.sql("SELECT count(*) FROM w").value == 10
    assert set(clear_files(secret.folder)) == before
    with pytest.raises(Unsupported, match="which is encrypted"):
        secret.sql("CREATE TABLE copy AS FROM w")
