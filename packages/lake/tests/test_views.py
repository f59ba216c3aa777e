"""Views: named queries that statements read like datasets, with the rights of who runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from lake.statements.limits import Requester
from lake.views.access import views_shown
from sennit_core.errors import (
    Conflict,
    Denied,
    NotFound,
    SennitError,
    SqlError,
    TooLarge,
    UnknownColumn,
    Unsupported,
)

from .served_lake import Client, make_app


@pytest.fixture
def trips(lake: Lake) -> Lake:
    """A dataset of three trips, and a view of the long ones."""
    lake.sql("CREATE TABLE trips (city VARCHAR, km DOUBLE)")
    lake.sql("INSERT INTO trips VALUES ('Oslo', 3.5), ('Bergen', 12.0), ('Oslo', 20.0)")
    lake.sql("CREATE VIEW long_trips AS SELECT city, km FROM trips WHERE km > 10 -- the long ones")
    return lake


@pytest.mark.parametrize("engine", ["duckdb", "emsqrt", "auto"])
def test_both_engines_read_a_view(trips: Lake, engine: str) -> None:
    query = "SELECT city FROM Long_Trips ORDER BY km"

    assert trips.sql(query, engine=engine).rows == [("Bergen",), ("Oslo",)]


@pytest.mark.parametrize("engine", ["duckdb", "emsqrt"])
def test_a_view_reads_views_and_names_their_columns(trips: Lake, engine: str) -> None:
    trips.sql(
        "CREATE VIEW v (place, n) AS SELECT city, count(*) AS c FROM long_trips GROUP BY city"
    )
    trips.sql("CREATE VIEW w (x) AS SELECT place, n FROM v")

    assert trips.sql("SELECT x, n FROM w ORDER BY x", engine=engine).rows == [
        ("Bergen", 1),
        ("Oslo", 1),
    ]


def test_a_view_shows_the_rows_that_its_datasets_have_now(trips: Lake) -> None:
    trips.sql("INSERT INTO trips VALUES ('Moss', 99)")

    assert trips.sql("SELECT max(km) FROM long_trips").value == 99


def test_statements_that_change_data_read_views(trips: Lake) -> None:
    trips.sql("CREATE TABLE copy AS FROM long_trips")
    trips.sql("INSERT INTO copy SELECT * FROM long_trips")
    trips.sql("DELETE FROM trips USING long_trips l WHERE trips.km = l.km")
    trips.sql("CREATE VIEW again AS FROM trips")
    trips.sql(
        "MERGE INTO trips USING (SELECT km + 1 AS km, city FROM again) s ON trips.city = s.city "
        "WHEN MATCHED THEN UPDATE SET km = s.km"
    )

    assert trips.sql("SELECT count(*) FROM copy").value == 4
    assert trips.sql("FROM trips").rows == [("Oslo", 4.5)]


def test_a_view_is_replaced_and_dropped(trips: Lake) -> None:
    trips.sql("CREATE OR REPLACE VIEW long_trips AS SELECT 7 AS a")
    assert trips.sql("FROM long_trips").rows == [(7,)]
    trips.sql("CREATE VIEW IF NOT EXISTS long_trips AS SELECT 8 AS a")
    assert trips.sql("FROM long_trips").rows == [(7,)]

    trips.sql("DROP VIEW long_trips")
    trips.sql("DROP VIEW IF EXISTS long_trips")

    with pytest.raises(NotFound):
        trips.sql("FROM long_trips")
    with pytest.raises(NotFound, match="no view"):
        trips.sql("DROP VIEW long_trips")


def test_views_are_listed_and_described(trips: Lake) -> None:
    trips.sql("CREATE VIEW broken AS SELECT km FROM trips")
    trips.sql("ALTER TABLE trips RENAME COLUMN km TO distance")
    trips.sql("CREATE OR REPLACE VIEW long_trips AS SELECT city FROM trips")

    assert trips.sql("SHOW TABLES").rows == [("long_trips",), ("trips",)]
    assert trips.sql("SELECT column_name FROM (DESCRIBE long_trips)").rows == [("city",)]
    found = trips.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'long_trips'"
    )
    assert found.rows == [("city",)]
    assert [(view.name, view.schema.names) for view in trips.catalog.views.all()] == [
        ("broken", ("km",)),
        ("long_trips", ("city",)),
    ]


@pytest.mark.parametrize("change", ["DROP TABLE trips", "ALTER TABLE trips RENAME TO t"])
@pytest.mark.parametrize("engine", ["duckdb", "emsqrt"])
def test_a_view_over_a_dataset_that_is_gone_says_so(trips: Lake, change: str, engine: str) -> None:
    trips.sql("CREATE VIEW outer_view AS FROM long_trips")
    trips.sql(change)

    with pytest.raises(SqlError, match=r"view 'long_trips' .* no dataset or view 'trips'") as error:
        trips.sql("FROM outer_view", engine=engine)
    assert "CREATE OR REPLACE VIEW" in str(error.value.hint)


def test_a_view_over_a_column_that_is_gone_says_so(trips: Lake) -> None:
    trips.sql("ALTER TABLE trips RENAME COLUMN km TO distance")

    with pytest.raises(SqlError, match=r"view 'long_trips' cannot be read any more: .*km"):
        trips.sql("FROM long_trips")

    trips.sql("ALTER TABLE trips RENAME COLUMN distance TO km")
    assert len(trips.sql("FROM long_trips").rows) == 2


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("CREATE VIEW long_trips AS SELECT 1 AS a", Conflict),
        ("CREATE VIEW trips AS SELECT 1 AS a", Conflict),
        ("CREATE OR REPLACE VIEW trips AS SELECT 1 AS a", Conflict),
        ("CREATE TABLE LONG_TRIPS (a INT)", Conflict),
        ("CREATE OR REPLACE TABLE long_trips AS SELECT 1 AS a", Conflict),
        ("ALTER TABLE trips RENAME TO long_trips", Conflict),
        ("INSERT INTO long_trips VALUES ('a', 1)", Unsupported),
        ("UPDATE long_trips SET km = 1", Unsupported),
        ("DELETE FROM long_trips", Unsupported),
        ("ALTER TABLE long_trips RENAME TO b", Unsupported),
        ("DROP TABLE long_trips", Unsupported),
        ("DROP VIEW trips", SqlError),
        ("CREATE VIEW v AS SELECT ? AS a", SqlError),
        ("CREATE VIEW v AS SELECT $a AS a", SqlError),
        ("CREATE VIEW v AS SELECT nothing FROM trips", UnknownColumn),
        ("CREATE VIEW v AS FROM missing", NotFound),
        ("CREATE VIEW v AS SHOW TABLES", SennitError),
        ("CREATE VIEW v AS FROM information_schema.tables", Unsupported),
        ("CREATE VIEW v AS EXPLAIN SELECT 1", SennitError),
        ("CREATE VIEW v AS FROM trips AT (VERSION => 1)", Unsupported),
        ("CREATE VIEW v AS FROM read_csv('/etc/passwd')", Denied),
        ("CREATE VIEW v AS SELECT getenv('HOME') AS a", Denied),
        ("CREATE VIEW v AS SELECT 1 AS a) AS b; DROP TABLE trips; --", SennitError),
        ("CREATE VIEW v AS SELECT 1 AS a) JOIN (SELECT 2 AS b", SennitError),
        ("CREATE VIEW v AS DELETE FROM trips", SennitError),
        ("CREATE VIEW v (a, b) AS SELECT 1 AS a", SennitError),
        ("CREATE VIEW s.v AS SELECT 1 AS a", Unsupported),
        ("CREATE TEMP VIEW v AS SELECT 1 AS a", Unsupported),
        ("CREATE VIEW v AS SELECT '" + "x" * 70_000 + "' AS a", TooLarge),
        ("CREATE OR REPLACE VIEW long_trips AS FROM long_trips", SqlError),
    ],
)
def test_what_no_view_can_be_is_refused(
    trips: Lake, statement: str, error: type[SennitError]
) -> None:
    with pytest.raises(error) as found:
        trips.sql(statement)

    assert str(found.value)
    assert [view.name for view in trips.catalog.views.all()] == ["long_trips"]
    assert len(trips.sql("FROM long_trips").rows) == 2


def test_an_error_in_a_views_query_has_its_place(trips: Lake) -> None:
    with pytest.raises(SqlError) as error:
        trips.sql("CREATE VIEW v AS\nSELECT city + FROM trips")

    assert (error.value.line, error.value.column) == (2, 15)


def test_views_that_read_each_other_are_refused(trips: Lake) -> None:
    trips.sql("CREATE VIEW a AS FROM long_trips")
    trips.sql("CREATE VIEW b AS FROM a")

    with pytest.raises(SqlError, match="long_trips → b → a → long_trips"):
        trips.sql("CREATE OR REPLACE VIEW long_trips AS FROM b")


def test_the_levels_and_the_size_of_views_are_limited(trips: Lake) -> None:
    trips.sql("CREATE VIEW v0 AS FROM trips")
    for level in range(8):
        trips.sql(f"CREATE VIEW v{level + 1} AS FROM v{level} UNION ALL FROM v{level}")
    with pytest.raises(SqlError, match="512 tables"):
        trips.sql("CREATE VIEW v9 AS FROM v8 UNION ALL FROM v8")

    trips.sql("CREATE VIEW w0 AS FROM trips")
    for level in range(15):
        trips.sql(f"CREATE VIEW w{level + 1} AS FROM w{level}")
    with pytest.raises(SqlError, match="16 levels"):
        trips.sql("CREATE VIEW w16 AS FROM w15")
    # What is under a view may grow later.
    trips.sql("CREATE OR REPLACE VIEW w0 AS FROM v8")
    assert trips.sql("SELECT count(*) FROM w6").value == 3 * 256


def test_a_repeated_query_over_a_view_comes_from_the_cache_until_it_changes(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, cache_bytes=1 << 20) as lake,
    ):
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
        lake.sql("CREATE VIEW v AS FROM t")
        lake.sql("CREATE VIEW r AS SELECT random() AS a FROM t")

        def ask(name: str = "v") -> tuple[object, str | None]:
            with lake.run(f"SELECT * FROM {name}", format="json") as running:
                result = json.loads(b"".join(bytes(piece) for piece in running.payloads()))
                running.result()
                return result["rows"][0][0], running.cache

        assert [ask(), ask()] == [(1, "miss"), (1, "hit")]
        lake.sql("UPDATE t SET a = 2")
        assert [ask(), ask()] == [(2, "miss"), (2, "hit")]
        lake.sql("CREATE OR REPLACE VIEW v AS SELECT a + 10 AS a FROM t")
        assert [ask(), ask()] == [(12, "miss"), (12, "hit")]
        assert [ask("r")[1], ask("r")[1]] == ["miss", "miss"]


@pytest.fixture
def restricted(trips: Lake) -> Lake:
    """`trips` shows user eve the city Oslo without km, user ann everything, and others nothing."""
    trips.set_policy(
        "trips",
        [
            PolicyRule("eve", rows="city = 'Oslo'", columns=(ColumnRule("km"),)),
            PolicyRule("ann"),
        ],
    )
    trips.sql("CREATE VIEW cities AS SELECT * FROM trips")
    return trips


def run(lake: Lake, user: str, sql: str, role: str = "writer") -> list[tuple[object, ...]]:
    with lake.run(sql, user=user, role=role) as running:
        return [tuple(row.values()) for batch in running.batches() for row in batch.to_pylist()]


def test_a_view_has_the_rights_of_the_user_who_asks(restricted: Lake) -> None:
    assert len(run(restricted, "ann", "FROM cities")) == 3
    assert run(restricted, "eve", "FROM cities") == [("Oslo",), ("Oslo",)]
    with pytest.raises(NotFound, match='no dataset "cities"'):
        run(restricted, "bob", "FROM cities")
    assert run(restricted, "bob", "SHOW TABLES") == []
    assert run(restricted, "eve", "SHOW TABLES") == [("cities",), ("trips",)]


def test_who_sees_a_part_of_a_dataset_sees_no_text_of_a_view(restricted: Lake) -> None:
    def shown(user: str) -> list[tuple[str, str, int]]:
        views = views_shown(restricted.catalog, restricted.policies, Requester(user, role="writer"))
        return [(view.name, view.sql, len(view.schema)) for view in views]

    assert shown("bob") == []
    assert shown("eve") == [("cities", "", 0), ("long_trips", "", 0)]
    assert ("cities", "SELECT * FROM trips", 2) in shown("ann")
    with pytest.raises(SqlError, match="its owner can see why") as error:
        run(restricted, "eve", "FROM long_trips")
    assert "km" not in str(error.value)
    with pytest.raises(Denied, match="the view 'cities'") as denied:
        run(restricted, "eve", "EXPLAIN FROM cities")
    assert "km" not in str(denied.value)
    assert run(restricted, "eve", "EXPLAIN FROM trips")
    assert not restricted.policies.may_watch("/views/x", Requester("eve", role="writer"))


def test_the_route_lists_views(trips: Lake) -> None:
    (view,) = Client(make_app(trips)).get("/api/views").json()

    assert view["name"] == "long_trips"
    assert view["sql"] == "SELECT city, km FROM trips WHERE km > 10"
    assert [field["name"] for field in view["schema"]["fields"]] == ["city", "km"]


def test_only_its_owner_and_admins_change_a_view(trips: Lake) -> None:
    run(trips, "ann", "CREATE VIEW hers AS FROM trips")

    for statement in ("DROP VIEW hers", "CREATE OR REPLACE VIEW hers AS SELECT 1 AS a"):
        with pytest.raises(Denied, match="its owner or an admin"):
            run(trips, "eve", statement)
    with (
        pytest.raises(Denied, match="changing a dataset"),
        trips.run(
            "CREATE VIEW x AS SELECT 1 AS a", user="ann", role="reader", read_only=True
        ) as running,
    ):
        running.result()
    run(trips, "eve", "CREATE OR REPLACE VIEW hers AS SELECT 1 AS a", role="admin")
    assert [view.owner for view in trips.catalog.views.all() if view.name == "hers"] == ["ann"]


@pytest.fixture
def durable(tmp_path: Path, pool: ExecutorPool) -> Path:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        lake.sql("CREATE VIEW v AS SELECT 1 AS a")
    return folder


def opened(folder: Path, pool: ExecutorPool) -> Lake:
    return Lake(folder, tree=ElkynStore(folder / "elkyn" / "sys", namespace="sys"), pool=pool)


def test_views_are_there_after_a_restart(durable: Path, pool: ExecutorPool) -> None:
    with opened(durable, pool) as lake, lake.tree:
        assert lake.sql("FROM v").value == 1


def test_a_damaged_view_is_reported_and_can_be_dropped(durable: Path, pool: ExecutorPool) -> None:
    with opened(durable, pool) as lake, lake.tree:
        (view,) = lake.catalog.views.all()
        lake.tree.set(f"/views/{view.id}/sql", "SELECT 2 AS a")

    with opened(durable, pool) as lake, lake.tree:
        assert lake.catalog.views.all()[0].damaged is not None
        with pytest.raises(SennitError, match="checksum"):
            lake.sql(f'FROM "{view.id}"')
        lake.sql(f'DROP VIEW "{view.id}"')
        assert lake.catalog.views.all() == []
