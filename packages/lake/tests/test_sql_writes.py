"""Statements that change datasets: their result, what they rewrite, and conflicts."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.sql.write_statements import CreateTable, Delete, DropTable, Insert, Update, parse_write
from lake.statements.mentions import changes_data
from lake.writes.write_execution import WriteExecution
from sennit_core.errors import (
    Cancelled,
    Conflict,
    Corrupt,
    Denied,
    NotFound,
    SennitError,
    SqlError,
    UnknownColumn,
    Unsupported,
    UsageError,
)

from .test_sql_guard import REFUSED

NUMBERS = pa.table({"a": list(range(10)), "b": [f"x{i}" for i in range(10)]})


def objects(lake: Lake, name: str) -> list[str]:
    return [shard.object for shard in lake.catalog.manifest(name).snapshot.shards]


def test_the_result_is_the_number_of_rows(numbers: Lake) -> None:
    assert numbers.sql("INSERT INTO t VALUES (100, 'new'), (101, NULL)").value == 2
    assert numbers.sql("UPDATE t SET b = 'changed' WHERE a >= 100").value == 2
    assert numbers.sql("DELETE FROM t WHERE b = 'changed'").value == 2
    assert numbers.sql("CREATE TABLE u AS SELECT a FROM t WHERE a < 5").value == 5
    assert numbers.sql("DROP TABLE u").value == 0
    assert numbers.sql("TRUNCATE t").value == 30
    assert numbers.sql("SELECT count(*) FROM t").value == 0


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("INSERT INTO t VALUES (1, 'one')", [(1, "one")]),
        ("INSERT INTO t (b) VALUES ('one')", [(None, "one")]),
        ("INSERT INTO t (b, a) SELECT 'one', 1", [(1, "one")]),
        ("INSERT INTO T BY NAME SELECT 'one' AS B", [(None, "one")]),
        ("INSERT INTO t FROM s", [(7, "seven")]),
        ("INSERT INTO t (SELECT a + 1, b FROM s)", [(8, "seven")]),
        ("INSERT INTO t DEFAULT VALUES", [(None, None)]),
        ("WITH w AS (SELECT 2 AS v) INSERT INTO t (a) SELECT v FROM w", [(2, None)]),
        ("INSERT INTO t SELECT 1, 'a;b' -- a comment\n;", [(1, "a;b")]),
        ("INSERT INTO t VALUES (1.6, 5)", [(2, "5")]),
        ("INSERT INTO t (a) SELECT a FROM s WHERE false", []),
    ],
)
def test_rows_are_inserted_as_duckdb_does(lake: Lake, statement: str, rows: list[object]) -> None:
    lake.sql("CREATE TABLE t (a BIGINT, b VARCHAR)")
    lake.sql("CREATE TABLE s AS SELECT 7::BIGINT AS a, 'seven' AS b")
    with duckdb.connect() as peer:
        peer.execute("CREATE TABLE t (a BIGINT, b VARCHAR)")
        peer.execute("CREATE TABLE s AS SELECT 7::BIGINT AS a, 'seven' AS b")
        peer.execute(statement)
        assert peer.execute("FROM t").fetchall() == rows

    lake.sql(statement)

    assert lake.sql("FROM t").rows == rows


def test_a_table_has_the_columns_of_its_query_or_its_definitions(lake: Lake) -> None:
    lake.sql("CREATE TABLE q AS SELECT 1 AS a, 2.50::DECIMAL(9, 2) AS b, [DATE '2020-01-01'] AS c")
    lake.sql("CREATE TABLE d (a INT, b DECIMAL(9, 2), c VARCHAR[], e STRUCT(x INT, y DOUBLE))")

    assert [row[:2] for row in lake.sql("DESCRIBE q").rows] == [
        ("a", "INTEGER"), ("b", "DECIMAL(9,2)"), ("c", "DATE[]"),
    ]  # fmt: skip
    assert [row[:2] for row in lake.sql("DESCRIBE d").rows] == [
        ("a", "INTEGER"), ("b", "DECIMAL(9,2)"), ("c", "VARCHAR[]"),
        ("e", "STRUCT(x INTEGER, y DOUBLE)"),
    ]  # fmt: skip
    assert lake.sql("FROM d").rows == []


def test_a_taken_name_is_refused_replaced_or_left(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 1 AS a")

    with pytest.raises(Conflict, match="a dataset named 't' exists"):
        lake.sql("CREATE TABLE T AS SELECT 2 AS a")
    assert lake.sql("CREATE TABLE IF NOT EXISTS t AS SELECT 3 AS b").value == 0
    assert lake.sql("FROM t").rows == [(1,)]
    lake.sql("CREATE OR REPLACE TABLE t AS SELECT 4 AS b, 5 AS c")
    assert lake.sql("FROM t").rows == [(4, 5)]
    assert len(lake.catalog.snapshots("t")) == 2


def test_only_shards_with_changed_rows_are_written_anew(numbers: Lake) -> None:
    first, second, third = objects(numbers, "t")

    numbers.sql("DELETE FROM t WHERE a = 15")
    assert objects(numbers, "t")[0::2] == [first, third]
    assert second not in objects(numbers, "t")

    numbers.sql("DELETE FROM t WHERE a BETWEEN 10 AND 19")  # all rows that are left of a shard
    assert objects(numbers, "t") == [first, third]

    numbers.sql("UPDATE t SET b = 'last' WHERE a = 29")
    assert objects(numbers, "t")[0] == first
    assert numbers.sql("SELECT a, b FROM t WHERE a >= 28").rows == [(28, "x8"), (29, "last")]


def test_rows_keep_their_order(numbers: Lake) -> None:
    numbers.sql("UPDATE t SET b = b || '!' WHERE a % 3 = 0")
    numbers.sql("DELETE FROM t WHERE a % 4 = 1")

    kept = [a for a in range(30) if a % 4 != 1]
    assert numbers.sql("SELECT a FROM t").rows == [(a,) for a in kept]


def test_nothing_to_change_makes_no_snapshot(numbers: Lake) -> None:
    head = numbers.catalog.get("t").head

    assert numbers.sql("DELETE FROM t WHERE a > 1000").value == 0
    assert numbers.sql("UPDATE t SET a = 1 WHERE false").value == 0
    assert numbers.sql("INSERT INTO t SELECT 1, 'b' WHERE false").value == 0
    assert numbers.catalog.get("t").head == head


def test_equal_shards_are_changed_one_by_one(lake: Lake) -> None:
    for _ in range(3):
        lake.append("t", NUMBERS)
    assert len(set(objects(lake, "t"))) == 1

    lake.sql("DELETE FROM t WHERE a < 9")

    assert lake.sql("SELECT a, count(*) FROM t GROUP BY a").rows == [(9, 3)]


def test_a_snapshot_records_its_statement_author_and_inputs(numbers: Lake) -> None:
    numbers.sql("CREATE TABLE gone AS SELECT 3 AS a")
    statement = "DELETE FROM t USING gone WHERE t.a = gone.a"
    inputs = {numbers.catalog.get(name).head for name in ("t", "gone")}
    parent = numbers.catalog.get("t").head

    with numbers.run(statement, user="ada") as execution:
        execution.result()

    snapshot = numbers.catalog.manifest("t").snapshot
    assert (snapshot.query, snapshot.author, snapshot.parent) == (statement, "ada", parent)
    assert set(snapshot.inputs) == inputs
    assert numbers.resolve("t", parent)[0].shards != snapshot.shards


@pytest.mark.parametrize(
    ("statement", "error", "text"),
    [
        ("INSERT INTO nothing VALUES (1)", NotFound, "there is no dataset"),
        ("DELETE FROM nothing", NotFound, "there is no dataset"),
        ("DROP TABLE nothing", NotFound, "there is no dataset"),
        ("INSERT INTO t VALUES (1, 'b', 3)", SqlError, "3 values"),
        ("INSERT INTO t SELECT 1, 'b', 3", SqlError, "3 values for 2 columns"),
        ("INSERT INTO t (a, A) VALUES (1, 2)", SqlError, "assigned twice"),
        ("INSERT INTO t (a, c) VALUES (1, 2)", UnknownColumn, 'no column "c"'),
        ("INSERT INTO t BY NAME SELECT 1 AS c", UnknownColumn, 'no column "c"'),
        ("INSERT INTO t VALUES ('abc', 'b')", SqlError, "Could not convert"),
        ("INSERT OR REPLACE INTO t VALUES (1, 'b')", Unsupported, "INSERT OR"),
        ("INSERT INTO t VALUES (1, 'b') ON CONFLICT DO NOTHING", Unsupported, "ON CONFLICT"),
        ("INSERT INTO t VALUES (1, 'b') RETURNING sum(a)", SqlError, "Aggregate functions"),
        ("UPDATE t SET c = 1", UnknownColumn, 'no column "c"'),
        ("UPDATE t SET a = 1, A = 2", SqlError, "assigned twice"),
        ("UPDATE t SET a = c", UnknownColumn, 'no column "c"'),
        ("UPDATE t SET (a, b) = (1, 2)", Unsupported, "one column at a time"),
        ("UPDATE t SET a = 'abc' WHERE a = 1", SqlError, "Could not convert"),
        ("UPDATE t SET a = 1 RETURNING (SELECT 1)", SqlError, "SUBQUERY is not supported"),
        ("DELETE FROM t WHERE a = 1 RETURNING getenv('HOME')", Denied, "getenv"),
        ("DELETE FROM t RETURNING a + ?", Unsupported, "parameters in RETURNING"),
        ("DELETE FROM t RETURNING rowid", UnknownColumn, 'no column "rowid"'),
        ("DELETE FROM main.t", Unsupported, "dataset's name alone"),
        (
            "MERGE INTO t USING t AS s ON t.a = s.a WHEN MATCHED THEN DELETE RETURNING getenv('A')",
            Denied,
            "getenv",
        ),
        ("MERGE INTO t USING t s USING (a) WHEN MATCHED THEN UPDATE SET c = 1", SennitError, "c"),
        ("MERGE INTO t USING t s USING (a) WHEN MATCHED THEN ERROR", SennitError, "error"),
        (
            "MERGE INTO t USING t s USING (a) WHEN MATCHED THEN ERROR getenv('HOME')",
            Unsupported,
            "getenv",
        ),
        (
            "MERGE INTO t USING t s USING (a) WHEN MATCHED AND getenv('HOME') = '' THEN DELETE",
            Denied,
            "getenv",
        ),
        (
            "MERGE INTO t USING t s USING (a) WHEN MATCHED THEN UPDATE SET b = getenv('HOME')",
            Denied,
            "getenv",
        ),
        (
            "MERGE INTO t USING t s USING (a) WHEN NOT MATCHED THEN INSERT VALUES (1, getenv('A'))",
            Denied,
            "getenv",
        ),
        ("ALTER VIEW t RENAME TO u", Unsupported, "ALTER"),
        ("CREATE SEQUENCE v", Unsupported, "CREATE SEQUENCE"),
        ("CREATE TEMP TABLE v AS SELECT 1", Unsupported, "CREATE TEMP"),
        ("CREATE TABLE v (a INT PRIMARY KEY)", Unsupported, "PRIMARY"),
        ("CREATE TABLE v (a INT DEFAULT (SELECT 7))", SqlError, "DEFAULT value"),
        ("CREATE TABLE v AS SELECT INTERVAL 1 DAY AS a", Unsupported, "a"),
        ("CREATE TABLE ' v' AS SELECT 1", UsageError, "not a dataset name"),
        ("DROP VIEW t", SqlError, "is a dataset"),
        ("INSERT INTO t SELECT 1, name FROM information_schema.tables", Unsupported, "catalog"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    numbers: Lake, statement: str, error: type[SennitError], text: str
) -> None:
    with pytest.raises(error) as refused:
        numbers.sql(statement)

    assert text in f"{refused.value} {refused.value.hint}"
    assert numbers.sql("SELECT count(*), sum(a) FROM t").rows == [(30, 435)]
    assert [info.name for info in numbers.catalog.list()] == ["t"]
    assert list((numbers.folder / "lake" / "staging").iterdir()) == []


def test_an_error_has_its_place_in_the_statement(numbers: Lake) -> None:
    with pytest.raises(SqlError) as refused:
        numbers.sql("UPDATE t\nSET b = 'ü',\n  a = nofunction(a) WHERE a = 1")
    assert (refused.value.line, refused.value.column) == (3, 7)

    with pytest.raises(SqlError) as refused:
        numbers.sql("INSERT INTO t\nSELECT 1, nofunction(2)")
    assert (refused.value.line, refused.value.column) == (2, 11)

    with pytest.raises(SqlError) as refused:
        numbers.sql("WITH w AS (SELECT 1)\n DELETE FROM t\nWHERE nofunction(a)")
    assert (refused.value.line, refused.value.column) == (3, 7)


@pytest.mark.slow
@pytest.mark.sample(12)
@pytest.mark.parametrize("query", [sql for sql in REFUSED if sql.startswith("SELECT * FROM")])
def test_what_a_query_may_not_read_no_statement_reads(numbers: Lake, query: str) -> None:
    before = {info.name: info.head for info in numbers.catalog.list()}
    for statement in (
        f"INSERT INTO t (b) {query}",
        f"CREATE TABLE stolen AS {query}",
        f"UPDATE t SET b = ({query})",
        f"DELETE FROM t WHERE EXISTS ({query})",
        f"MERGE INTO t USING ({query}) s ON true WHEN NOT MATCHED THEN INSERT (b) VALUES ('x')",
        f"MERGE INTO t USING t s USING (a) WHEN MATCHED THEN UPDATE SET b = ({query})",
        f"WITH w AS ({query}) DELETE FROM t USING w",
    ):
        with pytest.raises((Denied, UsageError, NotFound)):
            numbers.sql(statement)
    assert {info.name: info.head for info in numbers.catalog.list()} == before


def test_no_statement_sees_how_shards_are_numbered(numbers: Lake) -> None:
    for statement in (
        "UPDATE t SET a = __lake_row",
        "UPDATE t SET a = file_row_number",
        "UPDATE t SET b = t.filename",
        "DELETE FROM t WHERE file_index = 0",
        "DELETE FROM t WHERE COLUMNS('file.*') = 0",
        "INSERT INTO t (a) SELECT __lake_shard FROM __lake_hits",
        "INSERT INTO t FROM __lake_new",
    ):
        with pytest.raises((UnknownColumn, NotFound, SqlError)):
            numbers.sql(statement)
    assert numbers.sql("DELETE FROM t WHERE t IN (SELECT x FROM t AS x WHERE a = 1)").value == 1
    numbers.sql("UPDATE t SET b = to_json(t) WHERE a = 2")
    assert json.loads(numbers.sql("SELECT b FROM t WHERE a = 2").value) == {"a": 2, "b": "x2"}


def test_a_damaged_dataset_is_not_rewritten(numbers: Lake) -> None:
    path = numbers.objects.place(objects(numbers, "t")[1])
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(Corrupt):
        numbers.sql("UPDATE t SET b = 'x' WHERE a = 15")

    assert len(numbers.catalog.snapshots("t")) == 3


def test_an_append_conflicts_with_nothing(numbers: Lake) -> None:
    with numbers.run("DELETE FROM t WHERE a < 5") as deleting:
        assert isinstance(deleting.execution, WriteExecution)
        deleting.execution._execution.wait()  # its shards are written; now others come first
        numbers.sql("INSERT INTO t VALUES (3, 'later')")
        numbers.append("t", NUMBERS)
        deleting.result()

    assert numbers.sql("SELECT b FROM t WHERE a = 3 ORDER BY b").rows == [("later",), ("x3",)]
    assert numbers.sql("SELECT count(*) FROM t").value == 30 - 5 + 1 + 10


def test_a_statement_whose_rows_were_changed_runs_again(numbers: Lake) -> None:
    with numbers.run("UPDATE t SET a = a + 100 WHERE a IN (5, 15)") as updating:
        assert isinstance(updating.execution, WriteExecution)
        updating.execution._execution.wait()
        numbers.sql("UPDATE t SET a = a + 1000 WHERE a = 5")
        assert updating.result()["count"] == 1

    assert numbers.sql("SELECT a FROM t WHERE a > 29 ORDER BY a").rows == [(115,), (1005,)]


def test_a_statement_that_loses_every_race_is_a_conflict(
    numbers: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = numbers.run("UPDATE t SET b = 'mine' WHERE a = 5")
    updating = statement.execution
    assert isinstance(updating, WriteExecution)
    run = updating._run

    def overtaken() -> dict[str, object]:
        answer = run()
        numbers.sql("UPDATE t SET b = b || '!' WHERE a = 5")
        return answer

    monkeypatch.setattr(updating, "_run", overtaken)
    with statement, pytest.raises(Conflict, match="was changed in the meantime"):
        updating.result()

    assert numbers.sql("SELECT b FROM t WHERE a = 5").value == "x5!!!!"


def test_a_cancelled_statement_changes_nothing(numbers: Lake) -> None:
    head = numbers.catalog.get("t").head
    with numbers.run("INSERT INTO t SELECT i, 'x' FROM range(100_000_000) r(i)") as inserting:
        threading.Timer(0.3, inserting.cancel).start()
        with pytest.raises(Cancelled):
            inserting.result()

    assert numbers.catalog.get("t").head == head
    assert list((numbers.folder / "lake" / "staging").iterdir()) == []
    assert not numbers.retention._leases


@pytest.mark.slow
def test_concurrent_statements_lose_nothing(numbers: Lake) -> None:
    errors: list[SennitError] = []

    def work(worker: int) -> None:
        try:
            for turn in range(4):
                key = 1000 + worker * 10 + turn
                numbers.sql("INSERT INTO t VALUES (?, 'new')", [key])
                numbers.sql("UPDATE t SET b = b || '+' WHERE a = ?", [key])
        except SennitError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    rows = numbers.sql("SELECT a, b FROM t WHERE a >= 1000 ORDER BY a").rows
    assert rows == [(1000 + w * 10 + turn, "new+") for w in range(3) for turn in range(4)]


def test_the_formats_of_a_result(numbers: Lake) -> None:
    def answer(format_name: str) -> bytes:
        with numbers.run("DELETE FROM t WHERE a = 1", format=format_name) as execution:
            return b"".join(bytes(piece) for piece in execution.payloads())

    assert json.loads(answer("json"))["rows"] == [[1]]
    assert answer("csv") == b"Count\n0\n"


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("insert into t values (1)", Insert),
        ("-- select\n/* from */ DELETE FROM t", Delete),
        ("WITH a AS (SELECT 1), b AS MATERIALIZED (SELECT 2) UPDATE t SET a = 1", Update),
        ("WITH RECURSIVE a(i) AS (SELECT 1) DELETE FROM t USING a", Delete),
        ("create or replace table t as select 1", CreateTable),
        ("drop table if exists t", DropTable),
        ("truncate table t", Delete),
        ("SELECT 'insert into t values (1)'", None),
        ("WITH a AS (SELECT 'delete' AS \"update\") SELECT * FROM a", None),
        ('FROM "insert"', None),
        ("(SELECT 1)", None),
        ("VALUES (1)", None),
        ("EXPLAIN DELETE FROM t", None),
        ("SELECT $$; delete from t; $$, E'\\'insert'", None),
        ("", None),
    ],
)
def test_the_verb_decides_who_runs_a_statement(sql: str, verb: type | None) -> None:
    assert changes_data(sql) == (verb is not None)
    if verb is None:
        assert sql.startswith("EXPLAIN") or parse_write(sql) is None
    else:
        assert isinstance(parse_write(sql), verb)


def test_clauses_are_found_outside_of_brackets_and_expressions() -> None:
    update = parse_write(
        "UPDATE t AS x SET a = (SELECT max(b) FROM s WHERE c), "
        "b = CASE WHEN a IS NOT DISTINCT FROM 1 THEN [1, 2] ELSE {'from': 3, 'where': 4} END "
        "FROM s JOIN u USING (k) WHERE x.a = extract(year FROM s.d) -- returning"
    )
    assert isinstance(update, Update)
    assert [name for name, _ in update.assignments] == ["a", "b"]
    assert update.alias == "x"
    assert update.sources.text == "s JOIN u USING (k)"
    assert update.condition.text == "x.a = extract(year FROM s.d)"

    delete = parse_write("DELETE FROM t USING a JOIN b USING (k) WHERE t.k = a.k")
    assert isinstance(delete, Delete)
    assert delete.sources.text == "a JOIN b USING (k)"


class AgainstDuckDB(RuleBasedStateMachine):
    """Random statements on a lake and on DuckDB: the same rows after each."""

    pool: ExecutorPool
    folder: Path

    @initialize()
    def open(self) -> None:
        self.tree = ElkynStore(mode="memory")
        self.lake = Lake(self.folder / str(id(self)), tree=self.tree, pool=self.pool)
        self.peer = duckdb.connect()
        self.both("CREATE TABLE t (a BIGINT DEFAULT 7, b VARCHAR)")
        self.both("CREATE TABLE s (k BIGINT, v VARCHAR)")
        self.both("INSERT INTO s SELECT i % 7, 'v' || i % 7 FROM range(5) r(i)")

    def both(self, sql: str) -> None:
        expected = self.peer.execute(sql).fetchall()
        found = self.lake.sql(sql)
        if "RETURNING" in sql:  # in no order: MERGE leaves rows in any
            assert sorted(found.rows, key=repr) == sorted(expected, key=repr), sql
        elif not sql.startswith(("CREATE", "ALTER")):
            assert found.rows == expected, sql

    @rule(first=st.integers(0, 30), count=st.integers(0, 12))
    def insert(self, first: int, count: int) -> None:
        self.both(
            f"INSERT INTO t SELECT {first} + i, CASE WHEN i % 5 > 0 THEN 'x' || i END "
            f"FROM range({count}) r(i) RETURNING *, a % 3 AS k"
        )

    @rule(condition=st.sampled_from((
        "a % 3 = 1", "b IS NULL", "a > 20", "b = 'x3' OR a = 2", "length(b) > a",
        "a IN (SELECT k FROM s)", "EXISTS (SELECT 1 FROM s WHERE s.k = t.a AND s.v <> t.b)",
        "a = (SELECT min(a) FROM t)", "a > (SELECT avg(a) FROM t) + 3",
    )))  # fmt: skip
    def delete(self, condition: str) -> None:
        self.both(f"DELETE FROM t WHERE {condition}")

    @rule(statement=st.sampled_from((
        "DELETE FROM t WHERE a % 5 = 1 RETURNING b, a", "DELETE FROM t AS x RETURNING x.a + 1",
        "UPDATE t SET a = a + 1 WHERE b IS NULL RETURNING *", "UPDATE t SET b = b RETURNING upper(b)",
        "UPDATE t AS x SET b = s.v FROM s WHERE s.k = x.a RETURNING x.*",
        "INSERT INTO t VALUES (3, 'x'), (NULL, NULL) RETURNING COLUMNS(*)",
        "INSERT INTO t (b) SELECT v FROM s RETURNING t.b AS v, a IS NULL",
        ("MERGE INTO t USING (SELECT DISTINCT * FROM s) s ON t.a = s.k WHEN MATCHED AND s.k > 3 "
        "THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v) RETURNING merge_action, *"),
        "INSERT INTO t (b) VALUES ('d'), (NULL) RETURNING *", "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t VALUES (DEFAULT, DEFAULT), (2, 'x')", "UPDATE t SET a = DEFAULT WHERE a > 30",
        "ALTER TABLE t ALTER a SET DEFAULT 3 * 4", "ALTER TABLE t ALTER COLUMN a DROP DEFAULT",
        "ALTER TABLE t ALTER b SET DEFAULT 'x' || 'y'",
        ("MERGE INTO t USING (FROM range(4) r(k)) s ON t.a = s.k WHEN MATCHED THEN UPDATE "
        "SET b = DEFAULT WHEN NOT MATCHED THEN INSERT (b, a) VALUES (DEFAULT, s.k)"),
    )))  # fmt: skip
    def return_rows(self, statement: str) -> None:
        self.both(statement)

    @rule(statement=st.sampled_from((
        "UPDATE t SET a = a + 1", "UPDATE t SET b = NULL, a = a * 2 WHERE a % 4 = 0",
        "UPDATE t SET b = s.v FROM s WHERE s.k = t.a",
        "UPDATE t AS x SET a = (SELECT count(*) FROM t WHERE t.a < x.a) WHERE b IS NOT NULL",
        "WITH w AS (SELECT max(k) AS m FROM s) UPDATE t SET a = m FROM w WHERE a > 40",
        "DELETE FROM t USING s WHERE s.k = t.a AND s.v = 'v3'",
        "INSERT INTO t (b) SELECT v FROM s WHERE k > 2", "INSERT INTO t FROM t WHERE a = 5",
        ("MERGE INTO t USING (SELECT DISTINCT * FROM s) s ON t.a = s.k "
        "WHEN MATCHED AND t.b = s.v THEN DELETE WHEN MATCHED THEN UPDATE SET b = s.v "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v)"),
        ("MERGE INTO t AS x USING (SELECT 7 AS a, 'seven' AS b) USING (a) "
        "WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT BY NAME"),
        ("WITH w AS (SELECT k FROM s GROUP BY k) MERGE INTO t USING w ON t.a = w.k "
        "WHEN NOT MATCHED BY SOURCE AND a > 25 THEN DELETE "
        "WHEN MATCHED AND CASE WHEN t.a > 2 THEN true ELSE false END THEN DO NOTHING "
        "WHEN MATCHED THEN UPDATE SET b = (SELECT max(b) FROM t)"),
    )))  # fmt: skip
    def change(self, statement: str) -> None:
        self.both(statement)

    @rule()
    def replace(self) -> None:
        # Rewritten by another way, so that shards differ in number and rows.
        self.both("CREATE OR REPLACE TABLE t AS SELECT * FROM t ORDER BY a, b")

    @precondition(lambda self: hasattr(self, "lake"))
    @invariant()
    def rows_are_equal(self) -> None:
        query = "SELECT * FROM t ORDER BY ALL"
        assert self.lake.sql(query).rows == self.peer.execute(query).fetchall()
        info = self.lake.catalog.get("t")
        assert info.rows == self.peer.execute("SELECT count(*) FROM t").fetchall()[0][0]

    def teardown(self) -> None:
        if hasattr(self, "lake"):
            assert self.lake.verify().findings == ()
            assert all(map(self.lake.catalog.references, self.lake.objects))
            self.lake.close()
            self.tree.close()
            self.peer.close()


@pytest.fixture
def machine(pool: ExecutorPool, tmp_path: Path) -> type[AgainstDuckDB]:
    return type("Machine", (AgainstDuckDB,), {"pool": pool, "folder": tmp_path})


@pytest.mark.slow
def test_random_statements_leave_the_rows_that_duckdb_has(machine: type[AgainstDuckDB]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=5, stateful_step_count=8))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_long_histories_leave_the_rows_that_duckdb_has(machine: type[AgainstDuckDB]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=25))


def test_a_merge_rewrites_the_shards_that_it_matches(numbers: Lake) -> None:
    first, second, third = objects(numbers, "t")
    numbers.sql("CREATE TABLE news AS FROM (VALUES (15, 'changed'), (100, 'new')) v(a, b)")

    merge = (
        "MERGE INTO t USING news AS s ON t.a = s.a AND t.a < ? WHEN MATCHED THEN UPDATE "
        "SET b = s.b || ? WHEN NOT MATCHED THEN INSERT (a, b) VALUES (s.a, s.b || ?)"
    )
    assert numbers.sql(merge, [50, "!", "?"]).value == 2

    assert objects(numbers, "t")[::2] == [first, third]
    assert second not in objects(numbers, "t")
    rows = numbers.sql("SELECT a, b FROM t WHERE length(b) > 2 ORDER BY a").rows
    assert rows == [(15, "changed!"), (100, "new?")]
    inserting = "MERGE INTO t USING (SELECT 500 AS a) s USING (a) WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a)"
    assert numbers.sql(inserting).value == 1
    assert len(objects(numbers, "t")) == 4
    assert numbers.sql(inserting).value == 0
    assert len(objects(numbers, "t")) == 4


def test_a_second_insert_uses_the_database_of_the_first_and_sees_nothing_of_it(lake: Lake) -> None:
    lake.sql("CREATE TABLE kept (i INTEGER)")
    for _ in range(2):
        assert lake.sql("INSERT INTO kept SELECT count(*) FROM range(3)").value == 1
        assert lake.sql("INSERT INTO kept VALUES (1), (1 + 1)").value == 2
        with pytest.raises(SennitError):
            lake.sql("INSERT INTO kept SELECT i FROM __lake_new")
    assert sorted(lake.sql("FROM kept").fetchall()) == [(1,), (1,), (2,), (2,), (3,), (3,)]


def test_two_inserts_into_a_dataset_with_buckets(lake: Lake) -> None:
    """Buckets are computed by a function, which a kept database would have already."""
    lake.sql("CREATE TABLE divided (i INTEGER) PARTITIONED BY (bucket(3, i))")
    for _ in range(2):
        assert lake.sql("INSERT INTO divided SELECT i FROM range(9) AS r(i)").value == 9
    assert lake.sql("SELECT count(*) FROM divided").value == 18
