"""One query leaves nothing behind that a later query in the same DuckDB instance could see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.sql.guard import check_statement
from lake.sql.instance_cache import InstanceCache, instance_key
from lake.sql.session import Instance, SqlLimits
from lake.sql.tables import Table
from sennit_core.errors import DeadlineExceeded, Denied, SennitError, SqlError, Unsupported
from sennit_core.schema import Schema

CANARY = "canary4711"
ERROR = "an error"
Rows = list[tuple[Any, ...]]

# What query A does | what query B asks next | what B must get.
# The guard refuses most of A's; here they run behind it, as if it had let them through.
ATTACKS: list[tuple[str, str, object]] = [
    # objects of the catalog
    (f"CREATE TEMP TABLE leak AS SELECT '{CANARY}'", "FROM leak", ERROR),
    (f"CREATE TEMP VIEW leak AS SELECT '{CANARY}'", "FROM leak", ERROR),
    (f"CREATE TEMP MACRO leak() AS '{CANARY}'", "SELECT leak()", ERROR),
    ("CREATE TEMP SEQUENCE leak START 4711", "SELECT nextval('leak')", ERROR),
    (f"CREATE TEMP VIEW t AS SELECT '{CANARY}' AS a", "FROM t", [(1,), (2,)]),
    (f"CREATE TABLE leak AS SELECT '{CANARY}'", "FROM leak", ERROR),
    (f"CREATE VIEW leak AS SELECT '{CANARY}'", "FROM leak", ERROR),
    (f"CREATE OR REPLACE VIEW t AS SELECT '{CANARY}' AS a", "FROM t", [(1,), (2,)]),
    (f"CREATE MACRO leak() AS '{CANARY}'", "SELECT leak()", ERROR),
    (f"CREATE MACRO sum(x) AS '{CANARY}'", "SELECT sum(a) FROM t", [(3,)]),
    ("CREATE SEQUENCE leak START 4711", "SELECT nextval('leak')", ERROR),
    (f"CREATE TYPE leak AS ENUM ('{CANARY}')", f"SELECT '{CANARY}'::leak", ERROR),
    (f"CREATE SCHEMA {CANARY}", f"SELECT * FROM {CANARY}.t", ERROR),
    ("DROP VIEW t", "FROM t", [(1,), (2,)]),
    ("ALTER VIEW t RENAME TO leak", "FROM t", [(1,), (2,)]),
    (f"COMMENT ON VIEW t IS '{CANARY}'", "SELECT comment FROM duckdb_views() WHERE comment <> ''", []),
    # state of a session
    (f"SET VARIABLE leak = '{CANARY}'", "SELECT getvariable('leak')", [(None,)]),
    (f"PREPARE leak AS SELECT '{CANARY}'", "EXECUTE leak", ERROR),
    (f"PREPARE leak AS SELECT '{CANARY}'", "FROM duckdb_prepared_statements()", []),
    ("USE temp", "SELECT current_catalog()", [("memory",)]),
    ("BEGIN", "FROM t", [(1,), (2,)]),
    ("SELECT error('the transaction fails')", "FROM t", [(1,), (2,)]),
    (f"SELECT '{CANARY}'", "SELECT current_query()", [("SELECT current_query()",)]),
    # settings
    ("SET TimeZone = 'Asia/Tokyo'", "SELECT current_setting('TimeZone')", [("UTC",)]),
    ("SET GLOBAL TimeZone = 'Asia/Tokyo'", "SELECT current_setting('TimeZone')", [("UTC",)]),
    ("SET streaming_buffer_size = '1KiB'", "SELECT current_setting('streaming_buffer_size')", [("2.0 MiB",)]),
    ("SET allowed_configs = ['threads']", "SET threads = 7", ERROR),
    ("SET search_path = 'temp'", "FROM t", [(1,), (2,)]),
    ("SET memory_limit = '64GiB'", "SELECT current_setting('memory_limit')", [("128.0 MiB",)]),
    ("SET schema = 'temp'", "FROM t", [(1,), (2,)]),
    ("PRAGMA enable_profiling = 'json'", "FROM t", [(1,), (2,)]),
    ("PRAGMA disable_optimizer", "FROM t", [(1,), (2,)]),
    ("PRAGMA default_order = 'desc'", "FROM t ORDER BY a", [(1,), (2,)]),
    # what belongs to the whole instance
    (f"CREATE SECRET {CANARY} (TYPE http)", f"SELECT * FROM duckdb_secrets() WHERE name = '{CANARY}'", []),
    (f"ATTACH ':memory:' AS {CANARY}", f"SELECT * FROM duckdb_databases() WHERE database_name = '{CANARY}'", []),
    ("CALL enable_logging()", "FROM duckdb_logs()", []),
    (f"SELECT write_log('{CANARY}')", "FROM duckdb_logs()", []),
    ("INSTALL httpfs", "LOAD httpfs", ERROR),
]  # fmt: skip

REFUSED_BEFORE = [
    "ATTACH ':memory:' AS leak",
    "CREATE SECRET leak (TYPE http)",
    "SET streaming_buffer_size = '1KiB'",
    "COMMIT; CREATE TABLE leak AS SELECT 1",
    "ROLLBACK; CREATE TABLE leak AS SELECT 1",
    "COMMENT ON VIEW t IS 'x'",
    "SELECT getvariable('leak')",
    "FROM duckdb_prepared_statements()",
    "FROM duckdb_logs()",
    "FROM duckdb_variables()",
    "FROM duckdb_connection_count()",
    "FROM duckdb_external_file_cache()",
    "FROM duckdb_memory()",
    "CALL register_external_resource('x')",
]
"""Statements that only the guard keeps from the instance, or that reveal it."""


@pytest.fixture
def table(tmp_path: Path) -> Table:
    path = tmp_path / "shard"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    return Table("t", "0" * 26, Schema.of(a="Int64"), (str(path),), "1" * 26)


@pytest.fixture
def limits(tmp_path: Path) -> SqlLimits:
    return SqlLimits(128 << 20, tmp_path / "temp", 64 << 20, 1)


@pytest.fixture
def instance(table: Table, limits: SqlLimits) -> Iterator[Instance]:
    opened = Instance([table], ["t"], limits)
    yield opened
    opened.close()


def ask(instance: Instance, sql: str) -> Rows:
    with instance.connect() as connection:
        rows: Rows = connection.execute(sql).fetchall()
        return rows


def attack(instance: Instance, sql: str) -> None:
    try:
        ask(instance, sql)
    except duckdb.Error:
        return


@pytest.mark.slow
@pytest.mark.sample(10)
@pytest.mark.parametrize(("hostile", "probe", "expected"), ATTACKS)
def test_the_next_query_sees_nothing_of_it(
    instance: Instance, hostile: str, probe: str, expected: object
) -> None:
    attack(instance, hostile)

    if expected is ERROR:
        with pytest.raises(duckdb.Error):
            ask(instance, probe)
    else:
        assert ask(instance, probe) == expected


@pytest.mark.parametrize("statement", REFUSED_BEFORE)
def test_statements_that_affect_the_whole_instance_are_refused(statement: str) -> None:
    with pytest.raises((Denied, SqlError, Unsupported)):
        check_statement(statement, frozenset(("t",)))


@pytest.mark.slow
def test_no_function_without_arguments_shows_an_earlier_query(instance: Instance) -> None:
    for hostile, _, _ in ATTACKS:
        attack(instance, hostile)
    attack(instance, f"SELECT '{CANARY}', count(*) FROM range(1000000) GROUP BY range % 100000")
    found = ask(
        instance,
        """SELECT DISTINCT function_name, function_type FROM duckdb_functions()
        WHERE len(parameters) = 0 AND function_type IN ('table', 'scalar')
        AND function_name ~ '^[a-z_0-9]+$'""",
    )

    queries = 0
    for name, kind in found:
        sql = f"SELECT * FROM {name}()" if kind == "table" else f"SELECT {name}()"
        try:
            rows = ask(instance, sql)
        except duckdb.Error:
            continue
        queries += 1
        assert CANARY not in repr(rows), name
    assert queries > 40


def test_a_seed_stays_with_the_query_that_set_it(instance: Instance) -> None:
    with instance.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        seeded = connection.execute("SELECT random() FROM range(4)").fetchall()
        connection.execute("SELECT setseed(0.5)")
        assert connection.execute("SELECT random() FROM range(4)").fetchall() == seeded

    assert ask(instance, "SELECT random() FROM range(4)") != seeded


def test_objects_of_python_end_with_their_connection(instance: Instance) -> None:
    with instance.connect() as connection:
        connection.register("leak", pa.table({"a": [CANARY]}))
        assert connection.execute("FROM leak").fetchall() == [(CANARY,)]

    with pytest.raises(duckdb.CatalogException):
        ask(instance, "FROM leak")


def test_an_unfinished_response_blocks_no_other_query(instance: Instance) -> None:
    with instance.connect() as connection:
        reader = connection.sql("FROM range(100000000)").to_arrow_reader(1000)
        assert reader.read_next_batch().num_rows == 1000

    assert ask(instance, "FROM t") == [(1,), (2,)]


def test_a_delayed_interrupt_does_not_reach_the_next_query(instance: Instance) -> None:
    with instance.connect() as first:
        first.execute("FROM t").fetchall()
    with instance.connect() as second:
        with pytest.raises(duckdb.ConnectionException):
            first.interrupt()

        assert second.execute("SELECT count(*) FROM range(3000000)").fetchall() == [(3_000_000,)]


# ---- which instance serves a query -------------------------------------------------------------


_HELD_BYTES_MAX = 64 << 20


class World:
    """A cache of instances, and what its queries see and are allowed."""

    def __init__(self, table: Table, limits: SqlLimits) -> None:
        self.cache = InstanceCache(2)
        self.table = table
        self.limits = limits

    def ask(self, sql: str, *, grown_bytes: int | None = 0) -> Rows:
        key = instance_key([self.table], ["t"], self.limits.threads)
        with self.cache.connect(
            key, [self.table], ["t"], self.limits, lambda: grown_bytes, _HELD_BYTES_MAX
        ) as connection:
            rows: Rows = connection.execute(sql).fetchall()
            return rows


@pytest.fixture
def world(table: Table, limits: SqlLimits) -> Iterator[World]:
    made = World(table, limits)
    yield made
    made.cache.clear()


def is_cached(world: World, sql: str, **options: Any) -> bool:
    """Whether the instance that answers `sql` serves the next query too.

    It is marked with a database, which the guard keeps users from attaching.
    """
    before = world.limits
    world.ask(f"ROLLBACK; ATTACH ':memory:' AS {CANARY}")
    with contextlib.suppress(duckdb.Error):
        world.ask(sql, **options)
    world.limits = before
    marked = f"SELECT count(*) FROM duckdb_databases() WHERE database_name = '{CANARY}'"
    return world.ask(marked) == [(1,)]


@pytest.mark.parametrize(
    "sql", ["FROM t", "SELECT nope FROM t", "SELECT FROM FROM", "SELECT 'x'::INT"]
)
def test_an_instance_is_kept_after_ordinary_queries_and_mistakes(world: World, sql: str) -> None:
    assert is_cached(world, sql)


@pytest.mark.parametrize(
    "sql",
    ["SELECT list(i) FROM range(900000000) t(i)", "COPY (FROM t) TO '/tmp/leak'"],
    ids=["out of memory", "permission"],
)
def test_an_instance_ends_with_a_query_that_ended_badly(world: World, sql: str) -> None:
    assert not is_cached(world, sql)


def test_an_instance_ends_with_a_query_that_was_stopped(world: World) -> None:
    assert not is_cached(world, "FROM t", grown_bytes=None)


@pytest.mark.nightly
def test_an_instance_ends_with_a_query_that_spilled(world: World) -> None:
    world.limits = replace(world.limits, temp_bytes=4 << 30)
    sorted_rows = "SELECT hash(i) FROM range(9000000) t(i) ORDER BY 1 LIMIT 8000000"

    assert not is_cached(world, f"SELECT count(*) FROM ({sorted_rows})")
    assert not world.limits.temp_folder.exists()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_memory_limit_follows_free_memory(world: World, factor: float) -> None:
    world.ask("FROM t")
    world.limits = replace(world.limits, memory_bytes=int(world.limits.memory_bytes * factor))

    [(shown,)] = world.ask("SELECT current_setting('memory_limit')")

    assert shown == f"{120 * factor:.1f} MiB"


def test_the_least_recently_used_instance_is_closed(world: World, tmp_path: Path) -> None:
    first = world.table
    for place in range(4):
        world.table = replace(first, snapshot=f"{place}")
        world.ask("FROM t")

    assert len(world.cache) == 2


def test_instances_together_hold_no_more_than_allowed(world: World) -> None:
    first = world.table
    world.ask("FROM t", grown_bytes=_HELD_BYTES_MAX // 2)
    world.ask("FROM t", grown_bytes=_HELD_BYTES_MAX // 2)
    assert len(world.cache) == 1
    world.table = replace(first, snapshot="another")
    world.ask("FROM t", grown_bytes=1)
    assert len(world.cache) == 1  # the first one was closed
    world.ask("FROM t", grown_bytes=_HELD_BYTES_MAX)
    assert not world.cache


def test_the_memory_that_an_instance_holds_is_its_own(world: World) -> None:
    world.ask(f"ROLLBACK; ATTACH ':memory:' AS {CANARY}", grown_bytes=_HELD_BYTES_MAX)
    # Less is free by what it holds, and it may go on using that.
    world.limits = replace(world.limits, memory_bytes=world.limits.memory_bytes - _HELD_BYTES_MAX)
    marked = f"SELECT count(*) FROM duckdb_databases() WHERE database_name = '{CANARY}'"
    assert world.ask(marked) == [(1,)]


def test_readers_with_other_rights_have_other_instances(world: World) -> None:
    one = instance_key([world.table], ["t"], 1, "may see all")
    other = instance_key([world.table], ["t"], 1, "may see half")

    assert one != other


def test_a_name_the_query_does_not_use_is_no_view(world: World, table: Table) -> None:
    other = replace(table, name="u", id="2" * 26)
    use_both = instance_key([table, other], ["t", "u"], 1)
    with world.cache.connect(
        use_both, [table, other], ["t", "u"], world.limits, lambda: 0, _HELD_BYTES_MAX
    ) as connection:
        connection.execute("SELECT * FROM t, u").fetchall()

    with pytest.raises(duckdb.CatalogException):
        world.ask("FROM u")
    with pytest.raises(duckdb.CatalogException):
        world.ask(f'FROM "{table.id}"')


# ---- on a node, in one executor ----------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("isolation")
    with (
        ElkynStore(mode="memory") as tree,
        ExecutorPool(1, memory_bytes=512 << 20, spill_dir=folder / "spill") as pool,
        Lake(folder / "data", tree=tree, pool=pool) as opened,
    ):
        opened.append("t", pa.table({"a": [1, 2]}))
        opened.append("u", pa.table({"b": [3]}))
        yield opened


@pytest.mark.slow
def test_hostile_queries_of_one_user_change_no_answer_of_the_next(node: Lake) -> None:
    for hostile, probe, _ in ATTACKS:
        # As a query: some attacks are statements that a writer may run.
        with contextlib.suppress(SennitError), node.run(hostile, read_only=True) as query:
            query.result()
        try:
            shown = repr(node.sql(probe).rows)
        except SennitError:
            continue
        assert CANARY not in shown, probe
        assert node.sql("FROM t ORDER BY a").rows == [(1,), (2,)]


def test_a_query_sees_the_newest_snapshot(node: Lake) -> None:
    assert node.sql("SELECT sum(b) FROM u").value == 3
    node.append("u", pa.table({"b": [4]}))

    assert node.sql("SELECT sum(b) FROM u").value == 7


@pytest.mark.slow
def test_a_cancelled_query_leaves_the_next_one_alone(node: Lake) -> None:
    for _ in range(3):
        with (
            pytest.raises(DeadlineExceeded),
            node.run("SELECT count(*) FROM t, range(100000000000)", deadline_seconds=0.2) as slow,
        ):
            slow.result()

        assert node.sql("SELECT count(*) FROM t").value == 2


def test_an_engine_that_needs_the_cap_gets_the_memory_of_instances(node: Lake) -> None:
    for _ in range(2):
        assert node.sql("SELECT sum(a) FROM t", engine="duckdb").value == 3
        assert node.sql("SELECT sum(a) FROM t", engine="emsqrt").value == 3


def test_names_of_datasets_are_listed_after_any_query(node: Lake) -> None:
    node.sql("FROM t")

    assert node.sql("SHOW TABLES").rows == [("t",), ("u",)]
