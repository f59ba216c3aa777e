"""Pipelines over views, over earlier versions, and over what a policy shows of a dataset."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from elytra import Elytra, col, count
from elytra.pipelines.pipeline import Pipeline
from emsqrt.plan import DatasetRef, Scan, plan_to_json
from lake.access.rules import PolicyRule
from lake.statements.limits import Requester
from sennit_core.errors import (
    Conflict,
    Denied,
    NotFound,
    SqlError,
    UnknownColumn,
    Unsupported,
    UsageError,
)

from .conftest import Node

pytestmark = pytest.mark.slow  # each runs jobs

TRIPS = pa.table({"id": [1, 2, 3, 4], "city": ["Bern", "Bern", "Chur", None], "km": [1, 2, 3, 4]})


@pytest.fixture(scope="module")
def trips(shared_node: Node) -> Node:
    """A dataset of three versions, with a tag for the first, and views over it."""
    lake = shared_node.lake
    lake.append("trips", TRIPS)
    lake.tag("trips", "first", 1)
    lake.sql("DELETE FROM trips WHERE id = 1")
    lake.sql("ALTER TABLE trips ADD COLUMN note VARCHAR")
    lake.sql("CREATE VIEW far AS SELECT city, sum(km) AS km FROM trips GROUP BY city")
    lake.sql('CREATE VIEW "odd ""name" AS SELECT km, city FROM far WHERE km > 2')
    return shared_node


@pytest.fixture
def remote(trips: Node) -> Any:
    return Elytra(trips.client).remote


# Versions


@pytest.mark.parametrize(
    ("place", "ids"),
    [
        ({}, [2, 3, 4]),
        ({"version": 1}, [1, 2, 3, 4]),
        ({"version": "first"}, [1, 2, 3, 4]),
        ({"version": 2}, [2, 3, 4]),
        ({"timestamp": "2999-01-01T00:00"}, [2, 3, 4]),
        ({"timestamp": datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)}, [2, 3, 4]),
    ],
)
def test_a_version_is_chosen_by_number_tag_or_time(
    remote: Any, place: dict[str, Any], ids: list[int]
) -> None:
    rows = remote("trips", **place)
    assert [i for (i,) in rows.filter(lambda r: r["id"] > 0).select("id").collect().rows] == ids
    assert ("note" in rows.schema.names) == (place.get("version") not in (1, 2, "first"))


def test_two_versions_are_joined(remote: Any) -> None:
    old, new = remote("trips", version=1), remote("trips")
    gone = old.join(new, on="id", how="anti").select("id").collect()
    assert gone.rows == [(1,)]


def test_what_is_no_version_is_refused(remote: Any, trips: Node) -> None:
    with pytest.raises(NotFound, match="9"):
        remote("trips", version=9).submit()
    with pytest.raises(NotFound, match="frist"):
        remote("trips", version="frist").submit()
    with pytest.raises(UsageError, match="ISO 8601"):
        remote("trips", timestamp="soon").submit()
    with pytest.raises(UsageError, match="one of"):
        remote("trips", version=1, timestamp="2999-01-01")
    with pytest.raises(Unsupported, match="which is a view"):
        remote("far", version=1).submit()
    source = {"dataset": "trips", "version": 1, "snapshot": "x"}
    with pytest.raises(UsageError, match="one of snapshot, version and timestamp"):
        trips.client.submit({"v": 1, "op": "scan", "source": source})


def test_a_plan_names_the_version_over_http(trips: Node) -> None:
    plan = {"v": 1, "op": "scan", "source": {"dataset": "trips", "version": "first"}}
    assert len(trips.client.submit(plan).result()) == 4


# Views


def test_a_pipeline_reads_a_view(remote: Any) -> None:
    found = remote("far").filter(col("km") >= 3).sort("km").collect()
    assert found.rows == [("Chur", 3), (None, 4)]
    assert remote("far").schema.names == ("city", "km")
    assert remote('odd "name').count().collect().value == 2
    joined = remote("far").join(remote("trips"), on="city", suffix="_one").select("id", "km")
    assert sorted(joined.collect().rows) == [(2, 2), (3, 3)]


def test_a_view_is_read_as_it_is_when_the_job_is_submitted(trips: Node, remote: Any) -> None:
    trips.lake.sql("CREATE TABLE rows AS SELECT range AS n FROM range(10)")
    trips.lake.sql("CREATE VIEW twice AS SELECT 2 * n AS n FROM rows")
    job = remote("twice").sum("n").submit()
    trips.lake.sql("INSERT INTO rows VALUES (1000)")
    trips.lake.sql("DROP VIEW twice")
    assert job.result().value == 90
    trips.lake.delete("rows")


def test_a_view_that_cannot_be_read_any_more_is_refused_at_once(trips: Node, remote: Any) -> None:
    trips.lake.sql("CREATE TABLE gone AS SELECT 1 AS a")
    trips.lake.sql("CREATE VIEW lost AS FROM gone")
    trips.lake.sql("DROP TABLE gone")
    with pytest.raises(SqlError, match="cannot be read any more"):
        remote("lost").count().submit()
    trips.lake.sql("DROP VIEW lost")


def test_a_job_over_a_view_leaves_no_file_of_it(trips: Node, remote: Any) -> None:
    job = remote("far").submit()
    job.wait()
    assert list(trips.folder.rglob("source-*")) == []


# Policies


@pytest.fixture
def restricted(trips: Node) -> Iterator[Node]:
    """Of `people`, Ann sees the rows of Bern without pay, and Bob the rest with a masked name."""
    lake = trips.lake
    people = {"name": ["a", "b", "c"], "city": ["Bern", "Chur", "Bern"], "pay": [1, 2, 3]}
    lake.append("people", pa.table(people))
    lake.append("people", pa.table({"name": ["d"], "city": ["Bern"], "pay": [4]}))
    lake.sql("CREATE VIEW paid AS SELECT city, sum(pay) AS pay FROM people GROUP BY city")
    lake.sql("CREATE VIEW names AS SELECT name FROM people")
    lake.set_policy(
        "people",
        [
            PolicyRule("ann", rows="city = 'Bern'", columns=(_column("pay"),)),
            PolicyRule("bob", rows="city <> 'Bern'", columns=(_column("name", "'***'"),)),
        ],
    )
    yield trips
    for name in ("paid", "names"):
        lake.sql(f"DROP VIEW {name}")
    lake.delete("people")


def _column(name: str, mask: str | None = None) -> Any:
    from lake.access.rules import ColumnRule

    return ColumnRule(name, mask)


def answer(node: Node, pipeline: Pipeline | Any, user: str) -> list[tuple[Any, ...]]:
    plan = plan_to_json(pipeline.plan) if isinstance(pipeline, Pipeline) else plan_to_json(pipeline)
    job = node.jobs.submit(plan, submitted_by=user, role="writer")
    return list(node.client.job(job.id).result().rows)


def scan(name: str, **place: Any) -> Scan:
    return Scan(DatasetRef(name, **place))


def test_a_pipeline_reads_what_a_policy_shows(restricted: Node) -> None:
    assert answer(restricted, scan("people"), "ann") == [
        *[("a", "Bern"), ("c", "Bern"), ("d", "Bern")]
    ]
    assert answer(restricted, scan("people"), "bob") == [("***", "Chur", 2)]
    assert len(restricted.client.submit(plan_to_json(scan("people"))).result()) == 4
    assert answer(restricted, scan("people", version=1), "ann") == [("a", "Bern"), ("c", "Bern")]
    assert answer(restricted, scan("names"), "bob") == [("***",)]
    total = Pipeline(scan("paid"), None).filter("pay > 0")  # type: ignore[arg-type]
    assert answer(restricted, total, "bob") == [("Chur", 2)]


def test_what_a_policy_hides_is_hidden_from_pipelines(restricted: Node) -> None:
    for name, user, error in (
        ("people", "carol", NotFound),
        ("paid", "carol", NotFound),
        ("paid", "ann", SqlError),  # it reads a column that she does not see
    ):
        with pytest.raises(error) as caught:
            answer(restricted, scan(name), user)
        assert "Bern" not in str(caught.value)
    hidden = Pipeline(scan("people"), None).filter("pay > 0")  # type: ignore[arg-type]
    with pytest.raises(UnknownColumn, match="pay"):
        answer(restricted, hidden, "ann")
    job = restricted.jobs.submit(plan_to_json(scan("people")), submitted_by="ann", role="writer")
    restricted.client.job(job.id).wait()
    done = restricted.jobs.get(job.id)
    assert done.progress is not None
    assert (done.progress.rows, done.progress.bytes_total) == (3, 0)  # not of all rows


def test_jobs_over_a_view_are_shown_to_those_who_read_the_datasets_whole(restricted: Node) -> None:
    job = restricted.jobs.submit(plan_to_json(scan("names")), submitted_by="ann", role="writer")
    restricted.client.job(job.id).wait()
    for user, expected in (("ann", True), ("bob", False), ("carol", False)):
        assert restricted.jobs.may_read(job, Requester(user, role="writer")) is expected


def test_an_earlier_version_with_other_columns_is_refused_under_a_policy(restricted: Node) -> None:
    restricted.lake.sql("ALTER TABLE people RENAME COLUMN pay TO salary")
    with pytest.raises(Denied, match="other columns"):
        answer(restricted, scan("people", version=1), "ann")


def test_a_purge_removes_the_results_of_pipelines_over_views(trips: Node, remote: Any) -> None:
    trips.lake.sql("CREATE TABLE logs AS SELECT range AS n FROM range(5)")
    trips.lake.sql("CREATE VIEW log_view AS FROM logs")
    job = remote("log_view").submit()
    job.wait()
    trips.lake.purge("logs", "n = 3")
    with pytest.raises(NotFound):
        trips.client.job(job.id).result()
    trips.lake.sql("DROP VIEW log_view")


def test_counts_of_a_view_by_the_command_of_the_docs(remote: Any) -> None:
    assert remote("far").agg(n=count()).collect().rows == [(3,)]


def test_a_linked_file_is_named_as_the_reason(trips: Node, tmp_path: Any) -> None:
    from lake.links.linking import LinkRequest

    file = tmp_path / "linked.csv"
    file.write_text("a,b\n1,2\n")
    trips.lake.linker.link(LinkRequest(str(file), only=True))
    with pytest.raises(Conflict, match="not ingested"):
        Elytra(trips.client).remote("linked").count().submit()
