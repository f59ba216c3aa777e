"""Queries with the engine `ray`, at a cluster of two executors; Ray itself is in `elytra`'s tests."""

from collections.abc import Iterator, Sequence
from threading import BoundedSemaphore
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import PolicyRule
from lake.distributed.fragment_cluster import ClusterFragment
from lake.peers.transport.stop import Stop
from sennit_core.errors import Busy, SennitError, Unavailable, UnknownColumn, Unsupported

JOIN = (
    "SELECT d.city, count(*) AS n, sum(t.km) AS km FROM trips t JOIN drivers d USING (driver) "
    "GROUP BY d.city ORDER BY d.city"
)


class Executors:
    """Two workers, whose first fragments are lost as often as `lost` says."""

    def __init__(self, pool: ExecutorPool) -> None:
        self._pool = pool
        self.lost = 0
        self.ran: list[str] = []

    def workers(self) -> Sequence[str]:
        return ("two", "one")

    def run_fragment(self, worker: str, fragment: ClusterFragment, stop: Stop) -> None:
        self.ran.append(worker)
        if self.lost:
            self.lost -= 1
            raise Unavailable(f"worker {worker}")
        paths = {each.name: each.path for each in fragment.inputs}
        request = dict(fragment.request)
        request["tables"] = [
            {**table, "paths": [paths[name] for name in table["paths"]]}
            for table in request["tables"]
        ]
        with self._pool.submit("lake.sql", request, user=fragment.user) as execution:
            stop.attach(execution.cancel)
            with fragment.output.open("wb") as file:
                for payload in execution.payloads():
                    file.write(payload)
            execution.result()


@pytest.fixture
def lake(tmp_path: Any, pool: ExecutorPool) -> Iterator[Lake]:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    with Lake(tmp_path / "lake", pool=pool, key_file=key) as found:
        for start in range(0, 400, 100):
            numbers = range(start, start + 100)
            found.append("trips", pa.table({"driver": [n % 7 for n in numbers], "km": [*numbers]}))
        for some in (range(4), range(4, 7)):
            cities = [("Oslo", "Rome")[n % 2] for n in some]
            found.append("drivers", pa.table({"driver": some, "city": cities}))
        yield found


@pytest.fixture
def cluster(lake: Lake, pool: ExecutorPool) -> Executors:
    found = Executors(pool)
    lake.statements.use_cluster(found)
    return found


def test_fragments_run_at_all_workers_and_lost_ones_run_again(
    lake: Lake, cluster: Executors
) -> None:
    expected = lake.sql(JOIN).rows
    assert lake.sql(JOIN, engine="ray").rows == expected
    assert set(cluster.ran) == {"one", "two"}
    cluster.lost = 2
    assert lake.sql(JOIN, engine="ray").rows == expected
    assert not list(lake.staging.glob("cluster-*"))
    with pytest.raises(UnknownColumn, match="miles"):
        lake.sql("SELECT sum(miles) FROM trips", engine="ray")
    (explained,) = (
        row for row in lake.sql(f"EXPLAIN {JOIN}", engine="ray").rows if "push" in row[1]
    )
    assert "at one: 1 unit" in explained[1]


def test_rows_that_are_not_stored_as_the_user_sees_them_stay_here(
    lake: Lake, cluster: Executors
) -> None:
    lake.sql("CREATE VIEW far AS SELECT * FROM trips WHERE km > 100")
    lake.set_policy("drivers", [PolicyRule("role:reader", rows="city = 'Oslo'")])
    lake.append("secret", pa.table({"n": [1]}), encrypt=True)
    count = "SELECT count(*) AS n FROM"
    for sql, what in (
        (f"{count} far", "views"),
        (f"{count} drivers", "a policy"),
        (f"{count} secret", "encrypted datasets"),
    ):
        with pytest.raises(Unsupported, match=what):
            lake.sql(sql, engine="ray", user="eve", role="reader")
    for sql, options in (
        ("SELECT sum(km) FROM trips WHERE km > ?", {"params": [3]}),
        ("SELECT sum(km) FROM trips AT (VERSION => 1)", {}),
        ("SHOW TABLES", {}),
        ("DROP TABLE trips", {}),
    ):
        with pytest.raises(Unsupported):
            lake.sql(sql, engine="ray", **options)
    assert not cluster.ran


def test_more_queries_than_the_cluster_takes_are_refused(
    lake: Lake, cluster: Executors, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[SennitError] = []
    run = cluster.run_fragment

    def nested(worker: str, fragment: ClusterFragment, stop: Stop) -> None:
        if not errors:  # while this query has the only place
            with pytest.raises(Busy) as caught:
                lake.sql(JOIN, engine="ray", use_cache=False)
            errors.append(caught.value)
        run(worker, fragment, stop)

    monkeypatch.setattr(cluster, "run_fragment", nested)
    monkeypatch.setattr(lake.statements._clustered, "_slots", BoundedSemaphore(1))
    assert lake.sql(JOIN, engine="ray").rows == lake.sql(JOIN).rows
    assert errors
