"""SQL that reads anything but datasets is refused: by the guard, and by DuckDB's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lake.sql.guard import check_statement
from lake.sql.session import SqlLimits, open_session
from lake.sql.tables import Table
from sennit_core.errors import Denied, SennitError, SqlError, Unsupported
from sennit_core.schema import Schema

REFUSED = [
    # files by name
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "FROM '/etc/passwd'",
    "FROM 'passwd.csv'",
    "TABLE '/etc/passwd'",
    "DESCRIBE '/etc/passwd'",
    "SUMMARIZE '/etc/passwd'",
    "SHOW '/etc/passwd'",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "SELECT * FROM 's3://bucket/*.parquet'",
    "SELECT * FROM '../../../etc/passwd'",
    "SELECT * FROM '/proc/self/environ'",
    "SELECT * FROM '/dev/stdin'",
    "EXPLAIN SELECT * FROM '/etc/passwd'",
    "SELECT * FROM t JOIN '/etc/passwd' p ON true",
    "WITH x AS (FROM '/etc/passwd') SELECT * FROM x",
    "SELECT (SELECT count(*) FROM '/etc/passwd')",
    "SELECT * FROM t WHERE EXISTS (FROM '/etc/passwd')",
    # files by function
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto(['/etc/passwd'])",
    "SELECT * FROM READ_TEXT('/etc/passwd')",
    "SELECT * FROM \"read_text\"('/etc/passwd')",
    "SELECT * FROM main.read_text('/etc/passwd')",
    "SELECT * FROM system.main.read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_json_objects('/etc/passwd')",
    "SELECT * FROM read_ndjson_auto('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM parquet_scan('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM parquet_kv_metadata('/etc/passwd')",
    "SELECT * FROM read_duckdb('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM query('FROM ''/etc/passwd''')",
    "SELECT * FROM query_table('/etc/passwd')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "SELECT * FROM pandas_scan(0)",
    "SELECT * FROM arrow_scan(0, 0, 0)",
    "SELECT * FROM seq_scan('t')",
    # the node's own state
    "SELECT getenv('HOME')",
    "SELECT current_setting('allowed_paths')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('x', 's3')",
    "SELECT * FROM duckdb_views()",
    "SELECT sql FROM information_schema.views",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM pragma_database_size()",
    "PRAGMA database_list",
    "SELECT write_log('x')",
    "SELECT sleep_ms(1000000)",
    "SELECT nextval('s')",
    # writing
    "COPY t TO '/tmp/x.csv'",
    "COPY (SELECT 1) TO '/tmp/x.parquet'",
    "COPY t FROM '/etc/passwd'",
    "EXPLAIN COPY t TO '/tmp/x.csv'",
    "EXPLAIN ANALYZE COPY t TO '/tmp/x.csv'",
    "WITH x AS (COPY t TO '/tmp/x.csv') SELECT 1",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
    "EXPORT DATABASE '/tmp/x'",
    "IMPORT DATABASE '/tmp/x'",
    "CREATE TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW t AS SELECT 1",
    "CREATE TEMP MACRO m() AS 1",
    "CREATE SECRET (TYPE s3)",
    "INSERT INTO t VALUES (1)",
    "DELETE FROM t",
    "UPDATE t SET a = 1",
    "MERGE INTO t USING t s ON true WHEN MATCHED THEN DELETE",
    "DROP VIEW t",
    "ALTER VIEW t RENAME TO u",
    "TRUNCATE t",
    # the database itself
    "ATTACH '/tmp/x.db'",
    "DETACH memory",
    "USE memory",
    "INSTALL httpfs",
    "LOAD '/tmp/evil.so'",
    "FORCE INSTALL httpfs",
    "UPDATE EXTENSIONS",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET GLOBAL memory_limit = '100GB'",
    "RESET memory_limit",
    "SET VARIABLE v = 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "CALL duckdb_settings()",
    "BEGIN",
    "COMMIT",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "PIVOT read_csv('/etc/passwd') ON column0",
    "PIVOT '/etc/passwd' ON column0",
    "PIVOT t ON getenv('HOME')",
    "PIVOT t ON a USING max(getenv('HOME'))",
    "PIVOT t ON a; DROP VIEW t",
    "PIVOT t ON a, (SELECT content FROM read_text('/etc/passwd'))",
    "WITH x AS (FROM glob('/*')) PIVOT x ON file",
    "SELECT * FROM (PIVOT duckdb_settings() ON name)",
    "SELECT 1; DROP VIEW t",
    "SELECT 1; SELECT 2",
    "/* SELECT */ ATTACH '/tmp/x.db'",
]
ALLOWED = [
    "SELECT a FROM t",
    "select 1 -- comment",
    "SELECT 'a;b'",
    "FROM t SELECT a",
    "FROM t",
    "VALUES (1), (2)",
    "TABLE t",
    "WITH x AS (SELECT a FROM t) SELECT * FROM x",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    "SELECT a FROM t UNION ALL SELECT a FROM t",
    "SHOW TABLES",
    "SHOW t",
    "SHOW ALL TABLES",
    "PIVOT t ON a IN (1, 2) USING count(*)",
    "PIVOT t ON a",
    "SELECT * FROM (PIVOT t ON a USING count(*)) LIMIT 3",
    "UNPIVOT t ON a INTO NAME n VALUE v",
    "DESCRIBE t",
    "DESCRIBE SELECT a FROM t",
    "SUMMARIZE t",
    "EXPLAIN SELECT a FROM t",
    "EXPLAIN ANALYZE SELECT a FROM t",
    "/* why */ EXPLAIN (FORMAT json) SELECT a FROM t",
    "SELECT count(*) FILTER (WHERE a > 1) OVER () FROM t",
    "SELECT * FROM range(3)",
    "SELECT unnest([1, 2])",
    "SELECT list_transform([1], lambda x: x + 1)",
    "SELECT table_name FROM information_schema.tables",
    "SELECT a FROM main.t",
    "SELECT * EXCLUDE (a) FROM t",
]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    path = tmp_path / "shard"
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), path)
    table = Table("t", "0" * 26, Schema.of(a="Int64", b="Utf8"), (str(path),))
    limits = SqlLimits(128 << 20, tmp_path / "temp", 64 << 20, 1)
    with open_session([table], ["t"], limits) as connection:
        yield connection


@pytest.mark.parametrize("statement", REFUSED)
def test_the_guard_refuses_it(statement: str) -> None:
    with pytest.raises((Denied, Unsupported, SqlError)):
        check_statement(statement, frozenset(("t",)))


@pytest.mark.parametrize("statement", ALLOWED)
def test_reading_is_allowed_and_answered(
    statement: str, session: duckdb.DuckDBPyConnection
) -> None:
    check_statement(statement, frozenset(("t",)))

    assert session.sql(statement) is not None


@pytest.mark.slow
@pytest.mark.sample(20)
@pytest.mark.parametrize("statement", REFUSED)
def test_behind_the_guard_the_session_reaches_nothing_either(
    statement: str, session: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    if "sleep" in statement:
        return
    secret = tmp_path / "secret.csv"
    secret.write_text("canary\nsong\n")
    target = tmp_path / "target"
    reaching = statement.replace("/etc/passwd", str(secret)).replace("/etc/*", f"{tmp_path}/*")

    try:
        rows = session.execute(reaching.replace("/tmp/x", str(target))).fetchall()
    except duckdb.Error:
        rows = []

    assert not any(word in repr(rows) for word in ("canary", "song", "secret.csv"))
    assert not list(tmp_path.glob("target*"))
    with pytest.raises(duckdb.Error):
        session.execute("SET enable_external_access = true")


def test_the_session_would_reach_it_if_it_were_open(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("canary\nsong\n")
    with duckdb.connect() as open_connection:
        found = open_connection.execute(f"SELECT * FROM read_csv('{secret}')").fetchall()

    assert found == [("song",)]


def test_python_objects_of_the_process_are_no_tables(session: duckdb.DuckDBPyConnection) -> None:
    local_table = pa.table({"secret": [1]})

    with pytest.raises(duckdb.Error, match="local_table"):
        session.execute("SELECT * FROM local_table")
    assert local_table.num_rows == 1


def test_a_dataset_may_be_named_like_a_file() -> None:
    statement = check_statement('SELECT * FROM "data.csv"', frozenset(("data.csv",)))

    assert statement.tables == {"data.csv"}


def test_names_of_ctes_are_no_datasets() -> None:
    statement = check_statement("WITH x AS (FROM t) SELECT * FROM x, (WITH y AS (FROM u) FROM y)")

    assert statement.tables == {"t", "u"}


@pytest.mark.parametrize(
    ("sql", "line", "column", "offset"),
    [
        ("SELCT 1", 1, 1, 0),
        ("SELECT 1,\n  FROM FROM t", 2, 8, 17),
        ("SELECT 'ünï', 日本 FROM FROM t", 1, 23, 22),
    ],
)
def test_a_syntax_error_has_its_position(sql: str, line: int, column: int, offset: int) -> None:
    with pytest.raises(SqlError) as caught:
        check_statement(sql)

    assert (caught.value.line, caught.value.column, caught.value.offset) == (line, column, offset)
    assert sql[offset:].startswith(("SELCT", "FROM"))


def test_an_empty_statement_is_reported() -> None:
    for sql in ("", "  ", "-- nothing", ";"):
        with pytest.raises(SqlError, match="no statement"):
            check_statement(sql)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "+".join(["a"] * 900) + " FROM t",
        "SELECT " + "(" * 900 + "1" + ")" * 900,
        "SELECT * FROM " + "(SELECT * FROM " * 200 + "t" + ")" * 200,
        "SELECT 1 IN (" + ", ".join(map(str, range(20_000))) + ")",
    ],
    ids=["sum", "parentheses", "subqueries", "list"],
)
def test_long_and_deep_statements_are_read(sql: str) -> None:
    assert check_statement(sql).tables <= {"t"}


TEMPLATES = [
    *ALLOWED,
    *REFUSED,
    "FROM t1",
    'FROM "t 1"',
    "FROM 'x1.csv'",
    "SELECT $$1$$, $a1$ 1 $a1$",
]


@pytest.mark.slow
@given(st.sampled_from(TEMPLATES), st.integers(0, 10**12), st.integers(0, 10**12))
@example("SELECT * FROM t1 -- 1", 1, 22)
@example("FROM t SELECT 1, E'\\' 1', \"1\"", 3, 40)
@example("SELECT 1 /* ' */ FROM t1, 'x1' /* ' */", 3, 40)
def test_a_statement_is_checked_again_unless_only_numbers_changed(
    template: str, first: int, second: int
) -> None:
    def outcome(sql: str) -> object:
        try:
            return check_statement(sql)
        except SennitError as error:
            return type(error), str(error)

    earlier, later = (re.sub(r"\d+", str(number), template) for number in (first, second))
    outcome(earlier)

    # A text of that length is never remembered.
    assert outcome(later) == outcome(later + "\n" + " " * (9 << 10))


@pytest.mark.parametrize("depth", [1_100, 20_000])
def test_a_statement_beyond_duckdbs_depth_is_refused(depth: int) -> None:
    with pytest.raises(SqlError, match="depth"):
        check_statement("SELECT " + "+".join(["1"] * depth))
