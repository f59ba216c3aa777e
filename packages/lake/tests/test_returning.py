"""RETURNING: the changed rows as DuckDB returns them, sent after the commit and as policies show them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from lake.writes.write_execution import WriteExecution
from sennit_core.errors import Denied, SennitError, SqlError, StorageFull

from .conftest import MIB, put
from .test_encryption import CANARY, clear_files, csv_text, opened
from .test_policies import ask

ROWS = pa.table({"a": list(range(10)), "b": [f"x{i}" for i in range(10)]})


@pytest.fixture
def shards(lake: Lake) -> Lake:
    """`t` in three shards."""
    for start in (0, 4, 8):
        lake.append("t", ROWS.slice(start, 4))
    return lake


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (100, 'new'), (?, NULL) RETURNING *",
        "INSERT INTO t (b) SELECT b || ? FROM t WHERE a < 3 RETURNING t.b AS c, a IS NULL",
        "INSERT INTO t DEFAULT VALUES RETURNING t",
        "WITH w AS (SELECT ? AS v) INSERT INTO t (a) SELECT v FROM w RETURNING a, a",
        'UPDATE t SET a = a + ? WHERE a % 4 = 0 RETURNING a, upper(b) AS "B b"',
        "UPDATE t AS x SET b = s.v FROM (VALUES (3, 'v'), (8, 'w')) s(k, v) WHERE a = k RETURNING x.*",
        "UPDATE t SET a = 1 WHERE false RETURNING a + 0.5",
        "DELETE FROM t WHERE a > ? RETURNING b",
        "DELETE FROM t RETURNING * EXCLUDE (b)",
        "DELETE FROM t AS x USING (VALUES (3)) s(k) WHERE x.a = s.k RETURNING COLUMNS('a|b')",
    ],
)
def test_a_statement_returns_what_duckdb_returns(shards: Lake, sql: str) -> None:
    params = [5] if "?" in sql else None
    with duckdb.connect() as peer:
        peer.register("rows", ROWS)
        peer.execute("CREATE TABLE t AS FROM rows")
        expected = peer.execute(sql, params).fetchall()
        names = [column[0] for column in peer.description or ()]
        rows = peer.execute("FROM t ORDER BY ALL").fetchall()

    found = shards.sql(sql, params)

    assert (found.columns, found.rows) == (names, expected)
    assert found.manifest["count"] == len(expected)
    assert shards.sql("FROM t ORDER BY ALL").rows == rows


def test_a_merge_returns_what_it_did(shards: Lake) -> None:
    found = shards.sql(
        "MERGE INTO t AS x USING (VALUES (2, 'm'), (5, 'd'), (50, 'n')) s(a, b) ON x.a = s.a "
        "WHEN MATCHED AND s.b = 'd' THEN DELETE WHEN MATCHED THEN UPDATE "
        "WHEN NOT MATCHED THEN INSERT RETURNING merge_action, x.a, b"
    )
    assert sorted(found.rows) == [("DELETE", 5, "x5"), ("INSERT", 50, "n"), ("UPDATE", 2, "m")]


def test_the_rows_are_sent_after_the_commit_in_every_format(shards: Lake) -> None:
    sql = "DELETE FROM t WHERE a < 2 RETURNING a, b"
    with shards.run(sql, format="json", max_rows=1) as execution:
        assert isinstance(execution.execution, WriteExecution)
        for piece in execution.payloads():
            assert shards.sql("SELECT count(*) FROM t").value == 8
            assert json.loads(bytes(piece))["rows"] == [[0, "x0"]]
        report = execution.result()
    assert (report["rows"], report["count"], report["truncated"]) == (1, 2, True)
    with shards.run("INSERT INTO t VALUES (7, '') RETURNING *", format="csv") as execution:
        assert b"".join(map(bytes, execution.payloads())) == b'a,b\n7,""\n'
    assert list((shards.folder / "lake" / "staging").iterdir()) == []


def test_a_statement_that_runs_again_returns_the_rows_of_its_last_run(shards: Lake) -> None:
    with shards.run("UPDATE t SET b = b || '!' WHERE a = 1 RETURNING b") as execution:
        assert isinstance(execution.execution, WriteExecution)
        execution.execution._execution.wait()
        shards.sql("UPDATE t SET b = 'other' WHERE a = 1")
        (batch,) = execution.batches()
    assert batch.to_pylist() == [{"b": "other!"}]


def test_an_error_in_the_clause_has_its_place_and_changes_nothing(shards: Lake) -> None:
    head = shards.catalog.get("t").head
    for clause in ("nofunction(a)", "row_number() OVER ()", "unnest([1])", "1 + (SELECT 1)"):
        with pytest.raises(SqlError) as refused:
            shards.sql(f"UPDATE t\nSET a = 1 WHERE a = 2\n RETURNING b, {clause}")
        assert (refused.value.line, refused.value.column) == (3, 15 if clause[0] != "1" else 19)
    with pytest.raises(SqlError, match="Could not convert"):
        shards.sql("DELETE FROM t RETURNING CAST(b AS INT)")
    assert shards.catalog.get("t").head == head


def test_a_large_result_is_not_held_in_memory(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT range AS a, repeat('x', 100) AS b FROM range(30_000)")
    with lake.run("DELETE FROM t RETURNING *") as execution:
        sizes = [piece.nbytes for piece in execution.payloads()]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) > 3_000_000
    assert lake.sql("BEGIN; INSERT INTO t VALUES (1, 'y') RETURNING *; COMMIT").value == 1


HIDDEN = pa.table(
    {
        "id": list(range(6)),
        "owner": ["alice", "bob"] * 3,
        "code": [f"SECRET{i}" for i in range(6)],
        "pay": [10 * i for i in range(6)],
    }
)


@pytest.fixture
def policed(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Iterator[Lake]:
    """`t`, of which alice sees every second row, no codes, and pay in steps of 20."""
    rule = PolicyRule(
        "alice",
        write=True,
        rows="owner = current_user",
        columns=(ColumnRule("code"), ColumnRule("pay", "pay // 20")),
    )
    with Lake(tmp_path_factory.mktemp("policed"), pool=pool) as lake:
        lake.append("t", HIDDEN)
        lake.set_policy("t", [rule])
        yield lake


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("UPDATE t SET id = id + 10 RETURNING *", [(10, "alice", 0), (12, "alice", 1), (14, "alice", 2)]),
        ("DELETE FROM t WHERE id > 2 RETURNING to_json(t)", ['{"id":4,"owner":"alice","pay":2}']),
        ("INSERT INTO t (id, owner) VALUES (7, 'alice') RETURNING *", [(7, "alice", None)]),
        ("INSERT INTO t BY NAME SELECT 8 AS id, 'alice' AS owner RETURNING pay, id", [(None, 8)]),
        ("DELETE FROM t WHERE owner = 'bob' RETURNING *", []),
    ],
)  # fmt: skip
def test_a_policy_holds_for_returned_rows(policed: Lake, sql: str, rows: list[object]) -> None:
    found = ask(policed, sql, "alice", "writer")
    assert found == [row if isinstance(row, tuple) else (row,) for row in rows]


@pytest.mark.parametrize(
    "clause", ["code", "t.code", "CAST(pay AS INT) // 0, code", "error(code)", "COLUMNS('c.*')"]
)
def test_no_clause_returns_what_a_policy_hides(policed: Lake, clause: str) -> None:
    for sql in ("UPDATE t SET id = id", "DELETE FROM t", "INSERT INTO t (owner) VALUES ('alice')"):
        with pytest.raises(SennitError) as refused:
            ask(policed, f"{sql} RETURNING {clause}", "alice", "writer")
        assert "SECRET" not in repr(refused.value)
        assert not isinstance(refused.value, Denied)
    assert policed.sql("SELECT count(*) FROM t").value == 6


def test_returned_rows_of_an_encrypted_dataset_are_not_on_the_disk(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "data", pool, plain_bytes=MIB) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
        before = set(clear_files(lake.folder))
        with lake.run("UPDATE t SET id = id RETURNING *") as execution:
            execution.result()
            assert set(clear_files(lake.folder)) == before
            assert CANARY.encode() in b"".join(map(bytes, execution.payloads()))
        with pytest.raises(StorageFull, match="rows that the statement returns"):
            lake.sql("DELETE FROM t RETURNING repeat('x', 1000)")
        assert lake.sql("SELECT count(*) FROM t").value == 3000
