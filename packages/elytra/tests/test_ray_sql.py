"""SQL with the engine `ray`: fragments at the workers of a real cluster (nightly), and what is refused (always)."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from elytra.backends.ray import RayBackend, RayOptions
from elytra.testing import BackendWorld, open_world
from lake import Lake
from lake.distributed.fragment_cluster import ClusterFragment
from lake.peers.transport.stop import Stop
from sennit_core.errors import (
    Cancelled,
    DeadlineExceeded,
    SennitError,
    UnknownColumn,
    Unsupported,
)

QUERIES = {
    "groups": "SELECT city, count(*) AS n, sum(km) AS total, avg(km) AS mean FROM trips GROUP BY city ORDER BY city",
    "rows": "SELECT id, km FROM trips WHERE km > 120 AND id % 11 = 0 ORDER BY id",
    "join": "SELECT d.city, count(*) AS n, max(t.km) AS far FROM trips t JOIN drivers d ON t.driver = d.driver "
    "GROUP BY d.city ORDER BY d.city NULLS FIRST",
    "left join, as TPC-H 13": "SELECT n, count(*) AS drivers FROM (SELECT d.driver, count(t.id) AS n "
    "FROM drivers d LEFT JOIN trips t ON d.driver = t.driver AND t.km > 100 GROUP BY d.driver) GROUP BY n ORDER BY n",
    "correlated, as TPC-H 17": "SELECT sum(t.km) AS km FROM trips t JOIN drivers d ON t.driver = d.driver "
    "WHERE d.city = 'Oslo' AND t.km < (SELECT 0.5 * avg(km) FROM trips u WHERE u.driver = d.driver)",
    "nested, as TPC-H 20": "SELECT driver FROM drivers WHERE driver IN (SELECT driver FROM trips WHERE km > "
    "(SELECT avg(km) FROM trips) GROUP BY driver HAVING count(*) > 30) ORDER BY driver",
    "exists, as TPC-H 22": "SELECT city, count(*) AS n FROM drivers d WHERE driver > (SELECT avg(driver) FROM drivers) "
    "AND NOT EXISTS (SELECT 1 FROM trips t WHERE t.driver = d.driver AND t.km > 125) GROUP BY city ORDER BY city",
    "window": "SELECT id, row_number() OVER (PARTITION BY driver ORDER BY km DESC, id) AS place FROM trips "
    "WHERE id < 500 ORDER BY id",
    "distinct": "SELECT count(DISTINCT driver) AS n, median(km) AS middle FROM trips",
    "nothing": "SELECT id FROM trips WHERE km < 0",
}


WHOLE = "EXPLAIN SELECT city, sum(km) AS km, avg(km) AS mean FROM trips GROUP BY city ORDER BY city"
"""Which has no parts, as a result is called what a column is."""


def load(lake: Lake) -> None:
    """Add trips in six shards and drivers in two."""
    for rows, shards, name in ((30_000, 6, "trips"), (400, 2, "drivers")):
        size = rows // shards
        for start in range(0, rows, size):
            numbers = range(start, start + size)
            drivers = [None if n % 97 == 0 else n * 7919 % 500 for n in numbers]
            lake.append(
                name,
                pa.table(
                    {
                        "id": pa.array(numbers, pa.int64()),
                        "driver": pa.array(drivers if rows > 400 else list(numbers), pa.int64()),
                        "km": [n * 7919 % 1009 / 8 for n in numbers],
                        "city": [("Oslo", "Rome", "Åre", None)[n * 31 % 4] for n in numbers],
                    }
                ),
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
    pytest.importorskip("ray")
    options = RayOptions(workers=2, object_store_bytes=128 << 20)
    with ExitStack() as owned:
        found = open_world(
            tmp_path_factory.mktemp("sql"),
            owned,
            "ray",
            lambda node: RayBackend(node, options),
            lambda _: "",
            busy_count=RayBackend.busy,
            pids=RayBackend.pids,
        )
        assert isinstance(found.backend, RayBackend)
        backend = found.backend
        wait_until(lambda: len(backend.workers()) == 2)
        load(found.lake)
        yield found


def wait_until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def rows_of(lake: Lake, sql: str, engine: str, **options: Any) -> list[str]:
    table = lake.sql(sql, engine=engine, use_cache=False, **options).to_arrow()
    return [repr(row) for row in table.to_pylist()]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_answers_are_those_of_one_duckdb(
    world: BackendWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(world.backend, RayBackend)
    workers: list[str] = []
    run = world.backend.run_fragment

    def noted(worker: str, fragment: ClusterFragment, stop: Stop) -> None:
        workers.append(worker)
        run(worker, fragment, stop)

    monkeypatch.setattr(world.backend, "run_fragment", noted)
    at_workers = {}
    for name, sql in QUERIES.items():
        workers.clear()
        assert rows_of(world.lake, sql, "ray") == rows_of(world.lake, sql, "duckdb"), name
        at_workers[name] = len(set(workers))
    assert {name for name, count in at_workers.items() if not count} == {"nothing"}
    assert at_workers["groups"] == at_workers["join"] == at_workers["exists, as TPC-H 22"] == 2
    with pytest.raises(UnknownColumn, match="kilometres"):
        world.lake.sql("SELECT kilometres FROM trips", engine="ray")
    assert not list(world.lake.staging.glob("cluster-*")), "the files of fragments are gone"


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_explain_names_the_workers(world: BackendWorld) -> None:
    assert isinstance(world.backend, RayBackend)
    text = "\n".join(rows_of(world.lake, f"EXPLAIN {QUERIES['groups']}", "ray"))
    assert "push: " in text
    for worker in world.backend.workers():
        assert f"at {worker}: 3 units" in text
    text = "\n".join(rows_of(world.lake, f"EXPLAIN ANALYZE {QUERIES['groups']}", "ray"))
    assert "moved: " in text
    whole = "\n".join(rows_of(world.lake, WHOLE, "ray"))
    assert "one executor reads them here" in whole


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_killed_worker_does_not_change_the_answer(world: BackendWorld) -> None:
    expected = rows_of(world.lake, QUERIES["groups"], "duckdb")
    found: list[list[str]] = []

    def ask() -> None:
        found.append(rows_of(world.lake, QUERIES["groups"], "ray"))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: world.busy_count() or not asking.is_alive())
    assert isinstance(world.backend, RayBackend)
    pids = world.backend.pids()
    os.kill(pids[0], signal.SIGKILL)
    asking.join()
    assert found == [expected]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_end_of_a_query_frees_the_workers(world: BackendWorld) -> None:
    long = (
        "SELECT d.city, max(sin(t.km * u.km)) AS far FROM drivers d JOIN trips t ON d.km <> t.km "
        "JOIN trips u ON u.km > t.km GROUP BY d.city"
    )
    with pytest.raises(DeadlineExceeded):
        world.lake.sql(long, engine="ray", deadline_seconds=2.0)
    wait_until(lambda: not world.busy_count())

    stop, errors = Stop(), list[SennitError]()

    def ask() -> None:
        try:
            world.lake.sql(long, engine="ray", stop=stop)
        except SennitError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(world.busy_count)
    stop.stop()
    asking.join()
    assert isinstance(errors[0], Cancelled)
    wait_until(lambda: not world.busy_count())
    assert not list(world.lake.staging.glob("cluster-*"))
    assert len(rows_of(world.lake, QUERIES["groups"], "ray")) == 4


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_rows_that_a_user_does_not_see_whole_stay_in_the_node(world: BackendWorld) -> None:
    world.lake.sql("CREATE VIEW far AS SELECT * FROM trips WHERE km > 100")
    try:
        with pytest.raises(Unsupported, match="views"):
            world.lake.sql("SELECT count(*) FROM far", engine="ray")
    finally:
        world.lake.sql("DROP VIEW far")


def test_a_node_without_ray_says_how_to_have_it(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        lake.append("trips", pa.table({"n": [1, 2]}))
        with pytest.raises(Unsupported, match="without a Ray cluster") as caught:
            lake.sql("SELECT sum(n) FROM trips", engine="ray")
        assert "--ray auto" in (caught.value.hint or "")
        with pytest.raises(Unsupported, match="Ray runs queries only"):
            lake.sql("DELETE FROM trips", engine="ray")
        assert lake.sql("SELECT sum(n) AS n FROM trips").rows == [(3,)]
