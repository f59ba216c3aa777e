"""ALTER TABLE changes no shard, and every engine and every earlier version reads the right columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
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
from lake.sql.alter_statements import Alter
from lake.sql.types import column_types, shard_types
from lake.sql.write_statements import parse_write
from lake.writes.schema_changes import can_widen
from sennit_core.errors import (
    BadInput,
    Conflict,
    NotFound,
    SennitError,
    SqlError,
    UnknownColumn,
    Unsupported,
)
from sennit_core.schema import DataType, Schema

from .conftest import put

ENGINES = ("duckdb", "emsqrt")


@pytest.fixture
def t(lake: Lake) -> Iterator[Lake]:
    lake.sql("CREATE TABLE t (a INTEGER, b VARCHAR)")
    lake.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    yield lake
    assert lake.verify().findings == ()


def shards(lake: Lake) -> list[str]:
    return [shard.object for shard in lake.catalog.manifest("t").snapshot.shards]


def rows(lake: Lake, sql: str = "FROM t") -> list[tuple[object, ...]]:
    """The rows, which are the same for both engines."""
    query = sql if sql.startswith("SELECT") else f"SELECT * {sql}"
    first, second = (lake.sql(query, engine=engine) for engine in ENGINES)
    assert first.columns == second.columns
    assert repr(first.rows) == repr(second.rows)  # as text, since NaN is not equal to itself
    return first.rows


def test_a_change_of_columns_writes_no_shard(t: Lake) -> None:
    before = shards(t)
    for change in (
        "ADD COLUMN c DOUBLE",
        "RENAME COLUMN b TO name",
        "ALTER COLUMN a TYPE BIGINT",
        "DROP COLUMN name",
        "ADD COLUMN b VARCHAR",
    ):
        t.sql(f"ALTER TABLE t {change}")

    assert shards(t) == before
    assert rows(t) == [(1, None, None), (2, None, None)]
    assert t.sql("FROM t").columns == ["a", "c", "b"]
    assert str(t.catalog.get("t").schema.field("a").type) == "Int64"
    assert rows(t, "SELECT b, c FROM t WHERE a = 2") == [(None, None)]


def test_new_rows_have_the_new_columns(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME b TO name")
    t.sql("ALTER TABLE t ADD c BIGINT")
    t.sql("INSERT INTO t VALUES (3, 'z', 30)")
    t.sql("ALTER TABLE t DROP a")
    t.sql("INSERT INTO t VALUES ('w', 40)")

    assert rows(t) == [("x", None), ("y", None), ("z", 30), ("w", 40)]
    assert rows(t, "SELECT count(*) AS n, max(c) AS c FROM t WHERE name > 'w'") == [(3, 30)]


def test_a_dropped_column_does_not_come_back_with_its_name(t: Lake) -> None:
    t.sql("ALTER TABLE t DROP COLUMN b")
    t.sql("ALTER TABLE t ADD COLUMN b VARCHAR")

    assert rows(t, "SELECT b FROM t") == [(None,), (None,)]


def test_columns_that_swap_their_names_keep_their_values(t: Lake) -> None:
    t.sql("CREATE OR REPLACE TABLE t AS SELECT 'left' AS a, 'right' AS b")
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        t.sql(f"ALTER TABLE t RENAME {old} TO {new}")
    t.sql("INSERT INTO t (a, b) VALUES ('right', 'left')")

    assert rows(t, "SELECT a, b FROM t") == [("right", "left")] * 2


def test_earlier_versions_keep_their_columns(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME a TO id")
    t.sql("ALTER TABLE t DROP b")

    assert t.sql("FROM t AT (VERSION => 2)").columns == ["a", "b"]
    assert rows(t, "SELECT b FROM t AT (VERSION => 3) WHERE id = 1") == [("x",)]
    t.rollback("t", 2)
    t.sql("ALTER TABLE t ADD c BIGINT")
    t.sql("INSERT INTO t VALUES (3, 'z', 7)")
    assert rows(t) == [(1, "x", None), (2, "y", None), (3, "z", 7)]


def test_rows_of_older_shards_are_changed(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME b TO name")
    t.sql("ALTER TABLE t ADD c BIGINT")
    t.sql("INSERT INTO t VALUES (3, 'z', 3)")
    t.sql("UPDATE t SET c = a * 10 WHERE name = 'y'")
    t.sql("DELETE FROM t WHERE name = 'x'")
    t.sql(
        "MERGE INTO t USING (SELECT 3 AS a, 'new' AS n) AS s ON t.a = s.a "
        "WHEN MATCHED THEN UPDATE SET name = s.n"
    )

    assert rows(t) == [(2, "y", 20), (3, "new", 3)]


def test_an_append_has_the_columns_of_the_dataset(t: Lake) -> None:
    t.sql("CREATE OR REPLACE TABLE t AS SELECT 1::BIGINT AS a, 'x' AS b")
    t.sql("ALTER TABLE t RENAME a TO id")
    t.sql("ALTER TABLE t ADD c DOUBLE")
    put(t, "more.csv", "id,b,c\n2,y,2.5\n", mode="append", options={"name": "t"})
    t.append("t", pa.table({"id": [3], "b": ["z"], "c": [0.5]}))

    assert rows(t) == [(1, "x", None), (2, "y", 2.5), (3, "z", 0.5)]
    info, paths = t.resolve("t")
    ids = [
        [int(field.metadata[b"PARQUET:field_id"]) for field in pq.read_schema(path)]
        for path in paths
    ]
    assert ids == [[1, 2], [1, 2, 3], [1, 2, 3]]
    assert info.columns == (1, 2, 3)


def test_a_column_that_may_not_be_null(t: Lake) -> None:
    t.sql("ALTER TABLE t ALTER COLUMN a SET NOT NULL")

    with pytest.raises(SqlError, match="NOT NULL"):
        t.sql("INSERT INTO t (b) VALUES ('z')")
    with pytest.raises(SqlError, match="NOT NULL"):
        t.sql("UPDATE t SET a = NULL WHERE b = 'x'")
    with pytest.raises(BadInput, match="NOT NULL"):
        t.append("t", pa.table({"a": pa.array([None], pa.int32()), "b": ["z"]}))
    assert rows(t) == [(1, "x"), (2, "y")]
    t.append("t", pa.table({"a": pa.array([3], pa.int32()), "b": ["z"]}))
    t.sql("ALTER TABLE t ALTER COLUMN a DROP NOT NULL")
    t.sql("INSERT INTO t (b) VALUES ('w')")
    with pytest.raises(SqlError, match="no value in 1 rows"):
        t.sql("ALTER TABLE t ALTER COLUMN a SET NOT NULL")
    assert t.catalog.get("t").schema.field("a").nullable


def test_a_dataset_gets_another_name(t: Lake) -> None:
    before = t.catalog.get("t")
    t.sql("ALTER TABLE t RENAME TO Trips")
    t.sql("ALTER TABLE trips RENAME TO trips")
    t.sql("CREATE TABLE other AS SELECT 1 AS a")

    assert (t.catalog.get("trips").id, t.catalog.get("trips").name) == (before.id, "trips")
    assert t.sql("SELECT count(*) FROM trips").value == 2
    with pytest.raises(NotFound):
        t.sql("FROM t")
    with pytest.raises(Conflict, match="exists"):
        t.sql("ALTER TABLE trips RENAME TO OTHER")
    t.sql("CREATE TABLE t AS SELECT 5 AS a")
    assert t.sql("FROM t").rows == [(5,)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("ADD COLUMN A VARCHAR", Conflict, "'A' already"),
        ("ADD COLUMN c VARCHAR DEFAULT 'x'", Unsupported, "with a default at once"),
        ("ADD COLUMN c VARCHAR PRIMARY KEY", SqlError, "constraints"),
        ("ADD COLUMN c NOSUCH", SennitError, "NOSUCH"),
        ("ADD COLUMN c BIT", Unsupported, "BIT"),
        ("ADD COLUMN s.c INTEGER", Unsupported, "schema or catalog"),
        ("DROP COLUMN nosuch", UnknownColumn, "nosuch"),
        ("DROP COLUMN a CASCADE", Unsupported, "CASCADE"),
        ("RENAME nosuch TO c", UnknownColumn, "nosuch"),
        ("RENAME a TO B", Conflict, "'B' already"),
        ("ALTER a TYPE SMALLINT", Unsupported, "from Int32 to Int16"),
        ("ALTER a TYPE BIGINT USING a + 1", Unsupported, "USING"),
        ("ALTER b TYPE BIGINT", Unsupported, "from Utf8 to Int64"),
        ("ALTER a SET DEFAULT b", SqlError, "cannot contain column names"),
        ("ALTER nosuch TYPE BIGINT", UnknownColumn, "nosuch"),
        ("SET SCHEMA x", SqlError, "syntax"),
        ("SET (x = 1)", SennitError, "SET"),
        ("ADD COLUMN", SqlError, "syntax"),
        ("ADD PRIMARY KEY (a)", Unsupported, "PRIMARY"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    t: Lake, change: str, error: type[SennitError], message: str
) -> None:
    before = t.catalog.get("t")
    with pytest.raises(error, match=f"(?i){message}"):
        t.sql(f"ALTER TABLE t {change}")
    assert t.catalog.get("t") == before


def test_what_changes_nothing_makes_no_snapshot(t: Lake) -> None:
    before = t.catalog.get("t")
    for statement in (
        "ALTER TABLE t ADD COLUMN IF NOT EXISTS A INTEGER",
        "ALTER TABLE t DROP COLUMN IF EXISTS nosuch",
        "ALTER TABLE t ALTER a TYPE INTEGER",
        "ALTER TABLE t ALTER a DROP NOT NULL",
        "ALTER TABLE IF EXISTS nosuch DROP COLUMN a",
    ):
        t.sql(statement)
    assert t.catalog.get("t") == before


def test_the_last_column_stays(t: Lake) -> None:
    t.sql("ALTER TABLE t DROP a")
    with pytest.raises(Unsupported, match="only column"):
        t.sql("ALTER TABLE t DROP b")


def test_columns_get_another_order(t: Lake) -> None:
    info = t.reorder_columns("t", ["B", "a"], user="ada")

    assert info.schema.names == ("b", "a")
    assert rows(t) == [("x", 1), ("y", 2)]
    assert t.catalog.manifest("t").snapshot.author == "ada"
    for order in (["a"], ["a", "a"], ["a", "b", "a"]):
        with pytest.raises(SqlError, match="order"):
            t.reorder_columns("t", order)


def test_a_statement_is_not_written_to_other_columns_than_it_read(t: Lake) -> None:
    """The column of this name is another one by the time of the commit; it runs again."""
    with t.run("INSERT INTO t SELECT i, 'n' FROM range(100_000) r(i)") as inserting:
        t.sql("ALTER TABLE t DROP b")
        t.sql("ALTER TABLE t ADD b VARCHAR")
        inserting.result()

    assert rows(t, "SELECT count(*) AS n, count(b) AS b FROM t") == [(100_002, 100_000)]


def test_the_types_are_those_that_duckdb_reads() -> None:
    texts = [
        "Bool",
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
        "Decimal(4,2)",
        "Decimal(38,5)",
        "Utf8",
        "Binary",
        "Date",
        "Timestamp(s)",
        "Timestamp(ms)",
        "Timestamp(us)",
        "Timestamp(ns)",
        "Timestamp(us,UTC)",
        "Timestamp(ms,Europe/Rome)",
        "Timestamp(ns,UTC)",
        "Time",
        "Duration",
        "List(Int32)",
    ]
    kinds = [*texts, "List(List(Utf8))", "Struct(a: Int32, c: List(Timestamp(us)))"]
    schema = Schema.of(**{f"c{index}": kind for index, kind in enumerate(kinds)})
    table = schema.to_arrow().empty_table()
    with duckdb.connect() as connection:
        connection.register("arrow", table)
        described = connection.execute("DESCRIBE arrow").fetchall()
        ours = ", ".join(f"NULL::{kind} AS {name}" for name, kind in column_types(schema).items())
        assert connection.execute(f"DESCRIBE SELECT {ours}").fetchall() == described


def test_the_types_of_shards_are_those_that_duckdb_reads(tmp_path: Path) -> None:
    schema = Schema.of(a="Timestamp(s)", b="Timestamp(ms)", c="Duration", d="Int8", e="Time")
    pq.write_table(schema.to_arrow().empty_table(), tmp_path / "x.parquet")
    with duckdb.connect() as connection:
        described = connection.execute(f"DESCRIBE FROM '{tmp_path}/x.parquet'").fetchall()
    assert shard_types(schema) == {name: kind for name, kind, *_ in described}


WIDER = {
    "Int8": "Int16 Int32 Int64 Float32 Float64 Decimal(3,0) Decimal(10,2)",
    "Int32": "Int64 Float64 Decimal(10,0)",
    "Int64": "Decimal(19,0)",
    "UInt8": "Int16 UInt16 Float32 Float64",
    "UInt32": "Int64 UInt64 Float64",
    "Float32": "Float64",
    "Decimal(4,2)": "Decimal(5,2) Decimal(5,3)",
    "Date": "Timestamp(s) Timestamp(us)",
    "Timestamp(ms)": "Timestamp(us)",
}
NOT_WIDER = {
    "Int64": "Int32 Float64 UInt64 Utf8 Decimal(18,0)",
    "Int32": "Float32 UInt32 UInt64",
    "UInt64": "Int64 Float64",
    "Float64": "Float32 Int64 Decimal(38,10)",
    "Decimal(4,2)": "Decimal(5,4) Decimal(4,1) Float64 Int64",
    "Date": "Timestamp(us,UTC) Timestamp(ns)",
    "Timestamp(us)": "Timestamp(ms) Timestamp(us,UTC) Date Timestamp(ns)",
    "Utf8": "Binary Int64",
}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (old, new, expected)
        for table, expected in ((WIDER, True), (NOT_WIDER, False))
        for old, news in table.items()
        for new in news.split()
    ],
)
def test_a_wider_type_holds_every_value(old: str, new: str, expected: bool) -> None:
    assert can_widen(DataType.parse(old), DataType.parse(new)) is expected


@pytest.mark.parametrize(
    ("old", "new", "values"),
    [
        ("TINYINT", "DOUBLE", "-128, 127"),
        ("UINTEGER", "BIGINT", "0, 4294967295"),
        ("INTEGER", "DECIMAL(12,2)", "-2147483648, 2147483647"),
        ("FLOAT", "DOUBLE", "0.1::FLOAT, 'nan'::FLOAT"),
        ("DECIMAL(4,2)", "DECIMAL(9,4)", "-99.99, 99.99"),
        ("DATE", "TIMESTAMP", "'1969-12-31', '2262-04-12'"),
    ],
)
def test_values_of_a_widened_column_are_equal_for_both_engines(
    lake: Lake, old: str, new: str, values: str
) -> None:
    lake.sql(f"CREATE TABLE t AS SELECT unnest([{values}])::{old} AS a")
    before = lake.sql(f"SELECT a::{new} AS a FROM t").rows
    lake.sql(f"ALTER TABLE t ALTER a TYPE {new}")

    assert repr(rows(lake, "SELECT a FROM t")) == repr(before)


def test_alter_is_taken_apart() -> None:
    found = parse_write('alter table if exists "T t" add column if not exists "c d" decimal(4, 2);')
    assert isinstance(found, Alter)
    assert (found.table, found.if_exists) == ("T t", True)
    assert "decimal(4, 2)" in str(found.alteration)


class AgainstDuckDB(RuleBasedStateMachine):
    """Random changes of columns and rows on a lake and on DuckDB: the same rows after each."""

    pool: ExecutorPool
    folder: Path

    @initialize()
    def open(self) -> None:
        self.tree = ElkynStore(mode="memory")
        self.lake = Lake(self.folder / str(id(self)), tree=self.tree, pool=self.pool)
        self.peer = duckdb.connect()
        self.columns = {"a": "INTEGER", "b": "VARCHAR"}
        self.both("CREATE TABLE t (a INTEGER, b VARCHAR)")

    def both(self, sql: str) -> None:
        self.peer.execute(sql)
        self.lake.sql(sql)

    def column(self, place: int) -> str:
        names = sorted(self.columns)
        return names[place % len(names)]

    @rule(name=st.sampled_from("abcdef"), kind=st.sampled_from(("INTEGER", "VARCHAR", "FLOAT")))
    def add(self, name: str, kind: str) -> None:
        if name not in self.columns:
            self.both(f"ALTER TABLE t ADD COLUMN {name} {kind}")
            self.columns[name] = kind

    @rule(place=st.integers(0, 5))
    def drop(self, place: int) -> None:
        name = self.column(place)
        if len(self.columns) > 1:
            self.both(f"ALTER TABLE t DROP COLUMN {name}")
            del self.columns[name]

    @rule(place=st.integers(0, 5), name=st.sampled_from("abcdef"))
    def rename(self, place: int, name: str) -> None:
        old = self.column(place)
        if name not in self.columns:
            self.both(f"ALTER TABLE t RENAME {old} TO {name}")
            self.columns[name] = self.columns.pop(old)

    @rule(place=st.integers(0, 5))
    def widen(self, place: int) -> None:
        wider = {"INTEGER": "BIGINT", "FLOAT": "DOUBLE", "BIGINT": "DECIMAL(20,0)"}
        name = self.column(place)
        if (kind := wider.get(self.columns[name])) is not None:
            self.both(f"ALTER TABLE t ALTER {name} TYPE {kind}")
            self.columns[name] = kind

    @rule(place=st.integers(0, 5), count=st.integers(1, 4), first=st.integers(0, 9))
    def insert(self, place: int, count: int, first: int) -> None:
        name = self.column(place)
        self.both(f"INSERT INTO t ({name}) SELECT {first} + i FROM range({count}) r(i)")

    @rule(place=st.integers(0, 5), other=st.integers(0, 5))
    def update(self, place: int, other: int) -> None:
        name, source = self.column(place), self.column(other)
        self.both(f"UPDATE t SET {name} = length({source}::VARCHAR) WHERE {source} IS NOT NULL")

    @rule(place=st.integers(0, 5), number=st.integers(0, 9))
    def delete(self, place: int, number: int) -> None:
        self.both(f"DELETE FROM t WHERE {self.column(place)}::VARCHAR = '{number}'")

    @precondition(lambda self: hasattr(self, "lake"))
    @invariant()
    def rows_are_equal(self) -> None:
        names = ", ".join(sorted(self.columns))
        query = f"SELECT {names} FROM t ORDER BY {names}"
        expected = self.peer.execute(query).fetchall()
        for engine in ENGINES:
            assert self.lake.sql(query, engine=engine).rows == expected
        order = [name for name, *_ in self.peer.execute("DESCRIBE t").fetchall()]
        assert list(self.lake.catalog.get("t").schema.names) == order

    def teardown(self) -> None:
        if hasattr(self, "lake"):
            assert self.lake.verify().findings == ()
            self.lake.close()
            self.tree.close()
            self.peer.close()


@pytest.fixture
def machine(pool: ExecutorPool, tmp_path: Path) -> type[AgainstDuckDB]:
    return type("Machine", (AgainstDuckDB,), {"pool": pool, "folder": tmp_path})


@pytest.mark.slow
def test_random_changes_leave_what_duckdb_has(machine: type[AgainstDuckDB]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=4, stateful_step_count=12))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_long_histories_leave_what_duckdb_has(machine: type[AgainstDuckDB]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30))
