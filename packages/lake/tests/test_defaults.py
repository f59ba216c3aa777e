"""Defaults of columns: as in DuckDB, kept by the id of the column, also for files that are appended."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from sennit_core.errors import BadInput, Denied, SennitError, SqlError, TooLarge, Unsupported

from .conftest import put
from .test_encryption import opened
from .test_policies import ask

TABLE = (
    "CREATE TABLE t (a BIGINT DEFAULT 3, b VARCHAR NOT NULL DEFAULT 'x' || 'y', c INTEGER, "
    "d INT[] DEFAULT [1, 2], e DECIMAL(9, 2) DEFAULT 1.5, f DATE DEFAULT '2020-02-03', "
    "g INT DEFAULT CASE WHEN true THEN 4 END NULL, h INT DEFAULT (5) NOT NULL)"
)


@pytest.fixture
def t(lake: Lake) -> Lake:
    lake.sql(TABLE)
    return lake


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (c) VALUES (1), (2)",
        "INSERT INTO t (a, b) SELECT 1, 'b'",
        "INSERT INTO t BY NAME SELECT 1 AS c, 9 AS h",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t (b, a) VALUES (DEFAULT, 1), ('q', DEFAULT)",
        "INSERT INTO t VALUES (DEFAULT, 'b', DEFAULT, [3], 2, NULL, 7, DEFAULT) RETURNING *",
        "INSERT INTO t (a) VALUES (1); UPDATE t SET a = DEFAULT, b = DEFAULT, c = DEFAULT, g = 1",
        "MERGE INTO t USING (SELECT 1 AS k) ON t.a = k WHEN NOT MATCHED THEN INSERT (a) VALUES (k)",
        "MERGE INTO t USING (SELECT 1 AS k) ON t.a = k WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
        ("INSERT INTO t (a) VALUES (1); MERGE INTO t USING (SELECT 1 AS k) ON t.a = k "
        "WHEN MATCHED THEN UPDATE SET a = DEFAULT, h = DEFAULT, c = DEFAULT"),
    ],
)  # fmt: skip
def test_a_missing_value_is_the_default_as_in_duckdb(t: Lake, sql: str) -> None:
    with duckdb.connect() as peer:
        peer.execute(TABLE)
        for statement in sql.split("; "):
            peer.execute(statement)
            t.sql(statement)
        assert t.sql("FROM t").rows == peer.execute("FROM t").fetchall()
        described = peer.execute("DESCRIBE t").fetchall()
        assert t.sql("DESCRIBE t").rows == described
        assert t.sql("DESCRIBE SELECT h AS x, a + 1 AS y FROM t").rows == (
            peer.execute("DESCRIBE SELECT h AS x, a + 1 AS y FROM t").fetchall()
        )
        columns = "SELECT column_name, is_nullable, column_default FROM information_schema.columns"
        where = " WHERE table_name = 't' ORDER BY ordinal_position"
        assert t.sql(columns + where).rows == peer.execute(columns + where).fetchall()


def test_the_clock_stands_still_in_a_statement_and_chance_does_not(lake: Lake) -> None:
    lake.sql(
        "CREATE TABLE t (a INT, made TIMESTAMP DEFAULT now(), day DATE DEFAULT current_date, "
        "r DOUBLE DEFAULT random(), id UUID DEFAULT uuid())"
    )
    for statement in ("VALUES (1), (2), (3)", "SELECT * FROM range(3)"):
        rows = lake.sql(f"INSERT INTO t (a) {statement} RETURNING made, day, r, id").rows
        assert [len({row[index] for row in rows}) for index in range(4)] == [1, 1, 3, 3]
        assert (
            abs(rows[0][0] - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)).seconds < 60
        )
    returned = lake.sql("UPDATE t SET r = DEFAULT, made = DEFAULT RETURNING r, made").rows
    assert lake.sql("SELECT r, made FROM t").rows == returned


def test_a_default_belongs_to_the_id_of_its_column(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME COLUMN a TO z")
    t.sql("ALTER TABLE t ALTER z TYPE DECIMAL(20, 1)")
    t.reorder_columns("t", ["b", "z", *"cdefgh"])
    assert str(t.sql("INSERT INTO t DEFAULT VALUES RETURNING z").value) == "3.0"
    t.sql("ALTER TABLE t ALTER COLUMN z SET DEFAULT 2 + 2")
    version = t.catalog.manifest("t").snapshot.version
    t.sql("ALTER TABLE t ALTER z DROP DEFAULT")
    assert t.sql("INSERT INTO t DEFAULT VALUES RETURNING z").value is None
    t.sql("ALTER TABLE t DROP COLUMN z")
    t.sql("ALTER TABLE t ADD COLUMN z INT")
    assert t.sql("INSERT INTO t DEFAULT VALUES RETURNING z").value is None
    assert "z" not in {row[0] for row in t.sql("DESCRIBE t").rows if row[4]}
    t.rollback("t", version)
    assert t.sql("INSERT INTO t DEFAULT VALUES RETURNING z").value == 4
    t.compact("t")
    assert t.sql("INSERT INTO t DEFAULT VALUES RETURNING b").value == "xy"


def test_a_default_that_is_set_again_makes_no_snapshot(t: Lake) -> None:
    head = t.catalog.get("t").head
    t.sql("ALTER TABLE t ALTER c DROP DEFAULT")
    t.sql("ALTER TABLE t ALTER c SET DEFAULT NULL")
    assert t.catalog.get("t").head == head


@pytest.mark.parametrize(
    ("default", "error", "text"),
    [
        ("b", SqlError, "cannot contain column names"),
        ("(SELECT 1)", SqlError, "cannot contain subqueries"),
        ("sum(1)", SqlError, "cannot contain aggregates"),
        ("row_number() OVER ()", SqlError, "cannot contain window functions"),
        ("?", SqlError, "parameters"),
        ("'abc'", SqlError, "Could not convert string 'abc' to INT32"),
        ("getenv('HOME')", SennitError, "getenv"),
        ("current_setting('temp_directory')", Denied, "current_setting"),
        ("current_user", Unsupported, "current_user"),
        ("length(current_query())", Unsupported, "current_query"),
        ("nextval('s')", SennitError, "s"),
        ("1) , (2", SqlError, "syntax"),
        ("unnest([1])", SqlError, "UNNEST"),
        (f"length('{'x' * 5000}')", TooLarge, "default"),
    ],
)
def test_what_is_no_constant_expression_is_refused(
    t: Lake, default: str, error: type[SennitError], text: str
) -> None:
    head = t.catalog.get("t").head
    for sql in (
        f"ALTER TABLE t ALTER c SET DEFAULT {default}",
        f"CREATE TABLE u (b INT, c INT DEFAULT {default})",
    ):
        with pytest.raises(error) as refused:
            t.sql(sql)
        assert text in str(refused.value)
    assert t.catalog.get("t").head == head
    assert [info.name for info in t.catalog.list()] == ["t"]


def test_an_error_in_a_default_has_its_place(t: Lake) -> None:
    with pytest.raises(SqlError) as refused:
        t.sql("CREATE TABLE u (\n a INT,\n c INT NOT NULL DEFAULT 1 + nofunction(2))")
    assert (refused.value.line, refused.value.column) == (3, 29)
    with pytest.raises(Unsupported, match="with a default at once"):
        t.sql("ALTER TABLE t ADD COLUMN z INT DEFAULT 4")


def test_files_without_a_column_get_its_default(t: Lake, tmp_path: Path) -> None:
    file = tmp_path / "more.csv"
    file.write_text("c,a\n1,2\n")
    t.append("t", pa.table({"c": [0]}))
    t.append("t", file)
    file = tmp_path / "more.jsonl"
    file.write_text('{"c": 2}\n')
    t.sql("ALTER TABLE t DROP COLUMN d")
    t.append("t", file)
    rest = ("1.50", datetime.date(2020, 2, 3), 4, 5)
    found = t.sql("SELECT a, b, c, e::VARCHAR, f, g, h FROM t").rows
    assert found == [(3, "xy", 0, *rest), (2, "xy", 1, *rest), (3, "xy", 2, *rest)]
    assert t.sql("SELECT count(*) FROM t WHERE h = 5 AND b = 'xy'", engine="emsqrt").value == 3
    ingest = t.catalog.manifest("t").ingest
    assert ingest is not None
    assert {note["note"] for note in ingest["report"]["notes"]} == {
        "the file does not have it: its default"
    }


def test_a_file_cannot_get_a_default_of_chance(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (a INT, id UUID DEFAULT uuid())")
    with pytest.raises(BadInput, match="another value in each row") as refused:
        lake.append("t", pa.table({"a": [1]}))
    assert "INSERT" in str(refused.value.hint)
    lake.append("t", pa.table({"a": [1], "id": [None]}))


def test_a_default_of_an_encrypted_dataset_would_be_in_its_manifest(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "data", pool) as lake:
        put(lake, "t.csv", "id\n1\n", options={"encrypt": True})
        for sql in (
            "ALTER TABLE t ALTER id SET DEFAULT 7",
            "CREATE TABLE u (a INT DEFAULT 7) WITH (encrypt = true)",
            "CREATE OR REPLACE TABLE t (a INT DEFAULT 7)",
        ):
            with pytest.raises(Unsupported, match="which is encrypted"):
                lake.sql(sql)
        lake.sql("ALTER TABLE t ALTER id DROP DEFAULT")


@pytest.fixture
def policed(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Iterator[Lake]:
    """`t` with defaults in a hidden and a masked column."""
    with Lake(tmp_path_factory.mktemp("policed"), pool=pool) as lake:
        lake.sql(
            "CREATE TABLE t (id INT DEFAULT 1, code VARCHAR NOT NULL DEFAULT 'SECRET', "
            "pay INT DEFAULT 4242, lot DOUBLE DEFAULT random())"
        )
        columns = (ColumnRule("code"), ColumnRule("pay", "pay > 0"), ColumnRule("lot"))
        lake.set_policy("t", [PolicyRule("alice", write=True, columns=columns)])
        yield lake


def test_hidden_columns_get_their_defaults_unseen(policed: Lake) -> None:
    for sql in ("VALUES (5)", "SELECT 6", "BY NAME SELECT 7 AS id", "DEFAULT VALUES"):
        found = ask(policed, f"INSERT INTO t {sql} RETURNING *", "alice", "writer")
        assert found[0][1] is True
    rows = policed.sql("SELECT id, code, pay FROM t").rows
    assert rows == [(each, "SECRET", 4242) for each in (5, 6, 7, 1)]
    assert policed.sql("SELECT count(DISTINCT lot) FROM t").value == 4
    for sql in (
        "DESCRIBE t",
        "DESCRIBE SELECT * FROM t",
        "SELECT * FROM information_schema.columns WHERE table_name = 't'",
    ):
        shown = repr(ask(policed, sql, "alice"))
        assert "SECRET" not in shown
        assert "4242" not in shown
        assert "code" not in shown
