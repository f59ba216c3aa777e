"""Statements and data that are made to confuse: spaces, names, types, texts, and races."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.statements.mentions import changes_data
from lake.writes.write_execution import WriteExecution
from sennit_core.errors import Conflict, SqlError, Unsupported, UsageError


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff"])
def test_a_space_that_the_tokenizer_takes_for_a_letter_is_refused(
    numbers: Lake, space: str
) -> None:
    for sql in (f"DELETE FROM t AS x{space}WHERE a = 1", f"UPDATE t SET a = 1{space}WHERE a = 2"):
        with pytest.raises(SqlError, match="outside of quotes"):
            numbers.sql(sql)
    assert numbers.sql("SELECT count(*) FROM t").value == 30
    assert numbers.sql(f"UPDATE t SET b = '{space}' WHERE b = 'x1'").value == 3


@pytest.mark.parametrize(
    ("columns", "statement", "rows"),
    [
        ({"__lake_row": [1, 1, 0], "v": ["a", "b", "c"]}, "UPDATE k SET v = 'd' WHERE v = 'a'",
         [(0, "c"), (1, "b"), (1, "d")]),
        ({"v": ["a", "b"], "__lake_shard": [0, 0]}, "DELETE FROM k WHERE v = 'a'", [("b", 0)]),
        ({"value0": [1, 2], "s": [3, 4], "h": [5, 6]}, "UPDATE k SET h = value0 + s WHERE s = 3",
         [(1, 3, 4), (2, 4, 6)]),
        ({"filename": ["a", "b"]}, "UPDATE k SET filename = 'c' WHERE filename = 'a'",
         [("b",), ("c",)]),
    ],
)  # fmt: skip
def test_columns_may_have_names_that_are_used_inside(
    lake: Lake, columns: dict[str, list[object]], statement: str, rows: list[object]
) -> None:
    lake.append("k", pa.table(columns))
    lake.sql(statement)
    assert lake.sql("FROM k ORDER BY ALL").rows == rows


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM k WHERE v = 'b' RETURNING *",
        "DELETE FROM k WHERE file_row_number = 0 AND k.FILE_INDEX > 1",
        "UPDATE k SET v = 'd', file_row_number = file_index + 1 WHERE v IN ('b', 'e') RETURNING *",
        "UPDATE k AS x SET v = to_json(x)::VARCHAR WHERE file_index = 2",
        "UPDATE k SET v = s.v FROM k AS s WHERE s.file_index = k.file_index + 1",
        ("MERGE INTO k USING (VALUES ('b', 7), ('z', 8)) s(v, n) ON k.v = s.v WHEN MATCHED THEN "
        "UPDATE SET file_index = n WHEN NOT MATCHED THEN INSERT VALUES (n, n, s.v)"),
        "MERGE INTO k USING (SELECT 1) s ON false WHEN NOT MATCHED BY SOURCE AND v > 'd' THEN DELETE",
        "INSERT INTO k VALUES (7, 8, 'e')",
        "TRUNCATE k",
    ],
)  # fmt: skip
def test_columns_may_have_the_names_of_the_numbers_of_rows(lake: Lake, sql: str) -> None:
    rows = {"FILE_INDEX": [0, 1, 2, 3, 4], "file_row_number": [0] * 5, "v": list("abcde")}
    whole = pa.table(rows)
    for start in (0, 2):
        lake.append("k", whole.slice(start, 2 + start // 2))
    with duckdb.connect() as peer:
        peer.execute("CREATE TABLE k AS FROM whole")
        result = peer.execute(sql).fetchall()
        expected = peer.execute("FROM k ORDER BY ALL").fetchall()

    found = lake.sql(sql)

    assert found.rows == result
    assert lake.sql("FROM k ORDER BY ALL").rows == expected
    assert lake.sql("FROM k").columns == ["FILE_INDEX", "file_row_number", "v"]


def test_rows_by_key_in_a_dataset_with_such_columns(lake: Lake) -> None:
    lake.append("k", pa.table({"file_row_number": [5, 6], "v": ["a", "b"]}))
    lake.upsert(
        "k", pa.table({"file_row_number": [6, 7], "v": ["x", "y"]}), key=["file_row_number"]
    )
    assert lake.sql("FROM k").rows == [(5, "a"), (6, "x"), (7, "y")]
    lake.sql("ALTER TABLE k ADD COLUMN rowid INT")
    with pytest.raises(Unsupported, match="rowid"):
        lake.sql("DELETE FROM k WHERE v = 'x'")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("row_number() OVER ()", "window functions are not allowed in UPDATE"),
        ("'é' || 1 + sum(a) OVER (ORDER BY nosuch)", "window functions are not allowed in UPDATE"),
        ("sum(a)", "aggregate functions are not allowed in UPDATE"),
        ("count(*) + 1", "aggregate functions are not allowed in UPDATE"),
        ("weighted_avg(a, 2)", "aggregate functions are not allowed in UPDATE"),
        ("unnest([1, 2])", "UNNEST not supported here"),
        ("generate_subscripts([1], 1)", "UNNEST not supported here"),
    ],
)
def test_values_of_update_are_those_of_one_row_as_in_duckdb(
    numbers: Lake, value: str, message: str
) -> None:
    sql = f"UPDATE t\nSET b = 'x', a = {value}"
    with duckdb.connect() as peer:
        peer.execute("CREATE TABLE t (a INT, b VARCHAR, nosuch INT)")
        with pytest.raises(duckdb.Error, match=message):
            peer.execute(sql)
    with pytest.raises(SqlError, match=message) as refused:
        numbers.sql(sql)
    assert (refused.value.line, refused.value.column) == (2, 29 if value[0] == "'" else 18)
    numbers.sql("UPDATE t SET a = (SELECT sum(a) + count(*) FROM t), b = (SELECT unnest(['x']))")


@pytest.mark.parametrize(
    "conflict",
    [
        "ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE excluded.b <> 'x1'",
        "ON CONFLICT (a) DO NOTHING",
        "ON CONFLICT (a) DO UPDATE SET b = excluded.b || '!' RETURNING a",
    ],
)
def test_the_hint_of_on_conflict_is_the_merge(lake: Lake, conflict: str) -> None:
    insert = f"INSERT INTO t (a, b) VALUES (1, 'x1'), (2, 'new'), (7, 'more') {conflict}"
    rows = [(1, "one"), (2, "two")]
    lake.sql("CREATE TABLE t AS FROM (VALUES (1, 'one'), (2, 'two')) v(a, b)")
    with duckdb.connect() as peer:
        peer.execute("CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR)")
        peer.executemany("INSERT INTO t VALUES (?, ?)", rows)
        peer.execute(insert)
        expected = peer.execute("FROM t ORDER BY a").fetchall()

    with pytest.raises(Unsupported, match="no unique columns") as refused:
        lake.sql(insert)
    lake.sql(str(refused.value.hint).partition("; ")[0])

    assert lake.sql("FROM t ORDER BY a").rows == expected
    for sql in ("VALUES (1, 'x')", "SELECT * FROM t"):
        with pytest.raises(Unsupported, match="no unique columns"):
            lake.sql(f"INSERT INTO t {sql} ON CONFLICT DO NOTHING")


def test_an_interval_has_no_form_in_parquet_that_others_read(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "interval.parquet"
    with duckdb.connect() as peer:
        peer.execute(f"COPY (SELECT INTERVAL '1 month 2 days' AS i) TO '{file}'")
        arrow = peer.sql("SELECT INTERVAL '1 month 2 days' AS i").to_arrow_table()
    # When one of these holds no longer, INTERVAL columns can be stored.
    assert str(pq.read_schema(file).field("i").type) == "fixed_size_binary[12]"
    with pytest.raises(pa.ArrowNotImplementedError, match="month_day_nano_interval"):
        pq.write_table(arrow, tmp_path / "arrow.parquet")
    for sql in ("CREATE TABLE k (i INTERVAL)", "CREATE TABLE k AS SELECT [INTERVAL 1 DAY] AS i"):
        with pytest.raises(Unsupported, match="INTERVAL") as refused:
            lake.sql(sql)
        assert "datepart('month', i)" in str(refused.value.hint)


def test_values_are_cast_one_by_one(lake: Lake) -> None:
    lake.sql("CREATE TABLE k (t VARCHAR, n BIGINT)")
    lake.sql("INSERT INTO k VALUES (1, 1), (2.50, 9007199254740993), ('x', ?)", [1.5])
    lake.sql("WITH w AS (SELECT 'w' AS v) INSERT INTO k (n, t) VALUES (9007199254740992, 'y')")
    assert lake.sql("FROM k").rows == [
        ("1", 1), ("2.50", 9007199254740993), ("x", 2), ("y", 9007199254740992),
    ]  # fmt: skip


def test_a_table_that_has_changed_is_not_replaced_unseen(numbers: Lake) -> None:
    with numbers.run("CREATE OR REPLACE TABLE t AS SELECT max(a) AS a FROM t") as replacing:
        assert isinstance(replacing.execution, WriteExecution)
        replacing.execution._execution.wait()
        numbers.sql("INSERT INTO t VALUES (100, 'later')")
        replacing.result()
    assert numbers.sql("FROM t").rows == [(100,)]

    with numbers.run("CREATE OR REPLACE TABLE new AS SELECT 1 AS a") as creating:
        assert isinstance(creating.execution, WriteExecution)
        creating.execution._execution.wait()
        numbers.sql("CREATE TABLE new AS SELECT 'other' AS b")
        creating.result()
    assert len(numbers.catalog.snapshots("new")) == 2  # the other one is a version


@pytest.mark.parametrize(
    "value",
    ["'1010'::BIT", "'12:00:00+05'::TIMETZ", "TIME_NS '12:00:00.1'", "['101'::BIT]",
     "170141183460469231731687303715884105727::HUGEINT", "TIME '24:00:00'"],
)  # fmt: skip
def test_a_value_that_a_shard_does_not_hold_is_refused(lake: Lake, value: str) -> None:
    with pytest.raises((Unsupported, SqlError)):
        lake.sql(f"CREATE TABLE k AS SELECT {value} AS a")
    assert lake.catalog.list() == []


@pytest.mark.parametrize(
    "definition",
    ["a INT CHECK(a > 0)", "a INT DEFAULT(7) UNIQUE", "a INT PRIMARY/**/KEY", "a DEFAULT 7",
     "a INT DEFAULT 7 REFERENCES t(a)", "a INT, UNIQUE(a)", "a VARCHAR COLLATE/**/NOCASE", "a INT, b INT AS (a + 1)",
     "a INT, b AS (from_json('{}', current_setting('temp_directory')))"],
)  # fmt: skip
def test_a_column_is_a_name_a_type_and_a_default(lake: Lake, definition: str) -> None:
    with pytest.raises((Unsupported, SqlError)):
        lake.sql(f"CREATE TABLE k ({definition})")
    lake.sql('CREATE TABLE k (key INT, compression INT, generated INT, "check" DECIMAL(9, 2)[])')
    assert lake.sql("FROM k").columns == ["key", "compression", "generated", "check"]


def test_what_was_not_committed_leaves_no_object(
    numbers: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(numbers.objects)
    with pytest.raises(UsageError):
        numbers.sql('CREATE TABLE " bad" AS SELECT 1 AS a')

    def fail(*_args: object, **_kinds: object) -> None:
        raise Conflict("always")

    monkeypatch.setattr(numbers.catalog, "commit", fail)
    with pytest.raises(Conflict):
        numbers.sql("UPDATE t SET b = 'never' WHERE a = 1")
    with pytest.raises(Conflict):
        numbers.append("t", pa.table({"a": [77], "b": ["never"]}))
    # Only manifests, which the next start sweeps, may be left.
    assert {name for name in numbers.objects if name not in before} == set()


@pytest.mark.parametrize(
    "sql",
    ["UPDATE t SET b = 'about __lake_rows', WHERE a = 1", "; DELETE FROM t WHERE a = 1",
     "WITH delete AS (SELECT 1 AS k) DELETE FROM t USING delete WHERE a = k",
     "UPDATE t SET b = s.\"from\".\"where\" FROM (SELECT {'where': 'x'} AS \"from\") s WHERE a = 1",
     "WITH w AS (SELECT 1 AS a) INSERT INTO t (a) WITH x AS (FROM w) SELECT a FROM x",
     "INSERT INTO t SELECT 1 AS returning, 'x'", "DROP TABLE IF EXISTS nothing"],
)  # fmt: skip
def test_odd_statements_that_duckdb_runs(numbers: Lake, sql: str) -> None:
    numbers.sql(sql)
    assert changes_data(sql)


@pytest.mark.parametrize(
    "text",
    ["/* " * 100_000, "(" + "$0$ $1$ $2$ " * 30_000, "/*" * 300_000 + "*/" * 300_000, "'" * 400_001,
     "/* " * 200_000 + "*/", "e'" + "\\'" * 300_000, "with " + "a," * 200_000],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_the_verb_of_a_hostile_text_is_found_in_one_pass(text: str) -> None:
    assert not changes_data(text)


def test_a_folder_with_the_name_of_a_partition_adds_no_column(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with ElkynStore(mode="memory") as tree, Lake(tmp_path / "k=7", tree=tree, pool=pool) as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
        lake.sql("UPDATE t SET a = 2")
        assert (lake.sql("FROM t").columns, lake.sql("FROM t").rows) == (["a"], [(2,)])


def test_an_engine_that_only_reads_is_refused(numbers: Lake) -> None:
    with pytest.raises(Unsupported, match="queries only"):
        numbers.sql("DELETE FROM t", engine="emsqrt")
