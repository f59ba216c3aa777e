"""Earlier snapshots: in SQL by version and time, and as the way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.sql.history import find_history
from sennit_core.errors import Corrupt, Denied, NotFound, SennitError, SqlError, UnknownColumn

START = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


class HourClock:
    """A clock that goes on by an hour each time that it is read for a commit."""

    def __init__(self) -> None:
        self.seconds = START

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> HourClock:
    return HourClock()


@pytest.fixture
def log(tmp_path: Path, pool: ExecutorPool, clock: HourClock) -> Iterator[Lake]:
    """A lake whose dataset `t` has n rows in version n + 1, committed n hours after the start."""
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, clock=clock) as lake,
    ):
        lake.sql("CREATE TABLE t (a BIGINT, b VARCHAR)")
        for number in range(1, 5):
            clock.sleep(3600)
            lake.sql("INSERT INTO t VALUES (?, 'x')", [number])
        yield lake


@pytest.mark.parametrize("engine", ["duckdb", "emsqrt"])
def test_a_version_has_its_rows_for_both_engines(log: Lake, engine: str) -> None:
    query = "SELECT count(*) AS n, sum(a) AS s FROM t AT (VERSION => 3) WHERE a > 0"
    assert [tuple(map(int, row)) for row in log.sql(query, engine=engine).rows] == [(2, 3)]


@pytest.mark.parametrize(
    ("clause", "rows"),
    [
        ("VERSION => 1", 0),
        ("VERSION => 2 + 2", 3),
        ("version => (5)", 4),
        ("TIMESTAMP => TIMESTAMP '2023-11-14 22:13:20'", 0),
        ("TIMESTAMP => TIMESTAMP '2023-11-15 00:30:00'", 2),
        ("TIMESTAMP => '2023-11-15 00:30:00+00'", 2),
        ("TIMESTAMP => TIMESTAMPTZ '2023-11-15 02:30:00+02'", 2),
        ("TIMESTAMP => DATE '2023-11-15' + INTERVAL 10 MINUTE", 1),
        ("TIMESTAMP => now()", 4),
        ("TIMESTAMP => TIMESTAMP '290000-01-01'", 4),
    ],
)
def test_a_point_in_the_history_is_any_constant(log: Lake, clause: str, rows: int) -> None:
    assert log.sql(f"SELECT count(*) FROM t AT ({clause})").value == rows


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT t.a FROM t AT (VERSION => 2)", [(1,)]),
        ("SELECT x.a FROM t x AT (VERSION => 2)", [(1,)]),
        ('SELECT "é".a FROM main.t AS "é" AT /* c */ (VERSION => 2) -- end', [(1,)]),
        ("SELECT x.c FROM T AS x(c, d) AT (VERSION => 2) WHERE d = 'x'", [(1,)]),
        ("SELECT a FROM t AT (VERSION => 5) EXCEPT SELECT a FROM t AT (VERSION => 4)", [(4,)]),
        ("SELECT old.a, t.a FROM t AS old AT (VERSION => 2) JOIN t ON t.a = old.a + 3", [(1, 4)]),
        ("WITH w AS (FROM t AT (VERSION => 3)) SELECT max(a) FROM w", [(2,)]),
        ("SELECT (SELECT max(a) FROM t AT (VERSION => 2)), max(a) FROM t", [(1, 4)]),
        ("SELECT a FROM t AT (VERSION => 2) TABLESAMPLE 100%", [(1,)]),
        ("SELECT 'AT (VERSION => 7)', a FROM t AT (VERSION => 2)", [("AT (VERSION => 7)", 1)]),
    ],
)
def test_a_table_has_its_name_alias_and_place(log: Lake, query: str, rows: list[object]) -> None:
    assert log.sql(query).rows == rows


def test_parameters_and_the_snapshots_that_were_read(log: Lake) -> None:
    query = "SELECT a FROM t AT (VERSION => 3) WHERE a < ? UNION ALL SELECT a FROM t WHERE a = ?"
    result = log.sql(query, [2, 4])

    assert sorted(result.rows) == [(1,), (4,)]
    read = {log.catalog.manifest_at("t", version=version).snapshot.id for version in (3, 5)}
    assert set(result.manifest["inputs"]) == read


def test_statements_that_change_data_read_history(log: Lake) -> None:
    log.sql("DELETE FROM t WHERE a NOT IN (SELECT a FROM t AT (VERSION => 3))")
    assert log.sql("SELECT a FROM t").rows == [(1,), (2,)]
    log.sql("INSERT INTO t SELECT * FROM t AT (VERSION => 5) WHERE a > 2")
    assert log.sql("SELECT a FROM t").rows == [(1,), (2,), (3,), (4,)]
    log.sql("CREATE TABLE u AS FROM t AT (VERSION => 2)")
    assert log.sql("FROM u").rows == [(1, "x")]
    log.sql("UPDATE t SET a = (SELECT max(a) FROM t AT (VERSION => 3)) WHERE a = 4")
    assert log.sql("SELECT a FROM t").rows == [(1,), (2,), (3,), (2,)]
    log.sql("WITH w AS (FROM t AT (VERSION => 2)) DELETE FROM t USING w WHERE t.a = w.a")
    assert log.sql("SELECT a FROM t").rows == [(2,), (3,), (2,)]
    log.sql(
        "MERGE INTO t USING t AS old AT (VERSION => 2) USING (a) WHEN NOT MATCHED THEN INSERT "
        "VALUES (old.a, (SELECT count(*)::VARCHAR FROM t AT (VERSION => 5)))"
    )
    assert log.sql("FROM t WHERE a = 1").rows == [(1, "4")]


def test_a_version_keeps_its_columns(log: Lake) -> None:
    log.sql("CREATE OR REPLACE TABLE t AS SELECT 'new' AS c")

    assert log.sql("SELECT a, b FROM t AT (VERSION => 2)").rows == [(1, "x")]
    with pytest.raises(UnknownColumn):
        log.sql("SELECT c FROM t AT (VERSION => 2)")


@pytest.mark.parametrize(
    ("query", "error", "text"),
    [
        ("FROM t AT (VERSION => 9)", NotFound, "there are versions 1 to 5"),
        ("FROM t AT (VERSION => -1)", NotFound, "no version -1"),
        ("FROM t AT (TIMESTAMP => '2020-01-01')", NotFound, "no state at 2020-01-01"),
        ("FROM nothing AT (VERSION => 1)", NotFound, "no dataset"),
        ("FROM t AT (VERSION => 'abc')", NotFound, "tag of 't'"),
        ("FROM t AT (VERSION => NULL)", SqlError, "needs a whole number"),
        ("FROM t AT (VERSION => ?)", SqlError, "parameters"),
        ("FROM t AT (VERSION => (SELECT max(a) FROM t))", SqlError, "subquery"),
        ("FROM t AT (VERSION => (SELECT count(*) FROM range(100000000000)))", SqlError, "subquery"),
        ("FROM t AT (TIMESTAMP => TIMESTAMP '290000-01-01 (BC) 00:00:00')", NotFound, "versions 1"),
        ("FROM t AT (VERSION => a)", SennitError, "a"),
        ("FROM t AT (VERSION => getenv('HOME'))", Denied, "getenv"),
        ("FROM t AT (VERSION => (SELECT 1 FROM read_text('/etc/passwd')))", Denied, "read_text"),
        ("FROM t AT (WRONG => 1)", SennitError, ""),
        ("FROM range(3) AT (VERSION => 1)", SqlError, "syntax error"),
        ("WITH w AS (FROM t) FROM w AT (VERSION => 1)", NotFound, "no dataset"),
    ],
)
def test_a_point_that_is_not_there_is_refused(
    log: Lake, query: str, error: type[SennitError], text: str
) -> None:
    with pytest.raises(error) as refused:
        log.sql(query)
    assert text in f"{refused.value} {refused.value.hint}"
    assert not log.retention._leases


def test_a_dataset_with_the_name_of_a_view_is_not_taken_for_it(log: Lake) -> None:
    view = f"{log.catalog.get('t').id}@2"
    log.sql(f'CREATE TABLE "{view}" AS SELECT 7 AS a')

    with pytest.raises(SennitError, match="snapshots of another"):
        log.sql("FROM t AT (VERSION => 2)")
    assert log.sql(f'FROM "{view}"').rows == [(7,)]


def test_versions_grow_though_the_clock_is_set_back(log: Lake, clock: HourClock) -> None:
    clock.seconds = START - 1000
    log.sql("INSERT INTO t VALUES (5, 'x')")

    newest, before = log.catalog.snapshots("t", limit=2)
    assert (newest.snapshot.version, before.snapshot.version) == (6, 5)
    assert newest.created_at == before.created_at
    clause = "TIMESTAMP => '2100-01-01'"
    assert log.sql(f"SELECT count(*) FROM t AT ({clause})").value == 5


def test_a_row_with_another_version_is_damage(log: Lake) -> None:
    info = log.catalog.get("t")
    row = log.tree.get(f"/snapshots/{info.id}/{info.head}")
    log.tree.set(f"/snapshots/{info.id}/{info.head}", {**row, "version": 4})

    with pytest.raises(Corrupt, match="version"):
        log.sql("FROM t AT (VERSION => 4)")


def test_a_rollback_is_a_new_snapshot(log: Lake) -> None:
    log.sql("CREATE OR REPLACE TABLE t AS SELECT 'new' AS c")

    info = log.rollback("t", 3, user="ada")

    assert (info.rows, info.schema.names) == (2, ("a", "b"))
    assert log.sql("SELECT a FROM t").rows == [(1,), (2,)]
    snapshot = log.catalog.manifest("t").snapshot
    assert (snapshot.version, snapshot.author) == (7, "ada")
    assert log.sql("FROM t AT (VERSION => 6)").rows == [("new",)]
    log.sql("INSERT INTO t VALUES (9, 'y')")
    assert log.rollback("t", 8).head == log.catalog.get("t").head  # it has that version already
    assert len(log.catalog.snapshots("t")) == 8
    with pytest.raises(NotFound):
        log.rollback("t", 99)
    with pytest.raises(NotFound):
        log.rollback("nothing", 1)
    assert log.verify().findings == ()


def test_clauses_are_found_by_their_place() -> None:
    sql = "SELECT 'ü', x.a FROM t AS x AT (VERSION => 3) JOIN s AT (VERSION => 1) USING (a)"

    first, second = find_history(sql)

    assert sql[first["start"] : first["stop"]] == "t AS x AT (VERSION => 3)"
    assert (first["table"], first["version"], first["after"]) == ("t", 3, " AS x")
    assert (second["table"], second["after"]) == ("s", ' AS "s"')
    assert find_history("SELECT 'FROM t AT (VERSION => 3)'") == []
