"""Results without the shards that no reachable node has: refused, or allowed and reported."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from lake.access.rules import PolicyRule
from lake.distributed.partial import MissingShards, missing_header
from sennit_core.errors import Denied, Unavailable, Unsupported

from .real_offices import Office, big, offices
from .served_lake import Client, make_app
from .test_peers_service import eventually

__all__ = ["offices"]

SLOW = pytest.mark.slow  # real nodes with executors, and times of the protocols
MISSING = {
    "shards": 2,
    "rows": 2000,
    "datasets": [{"dataset": "big", "shards": 2, "rows": 2000, "nodes": ["oslo"]}],
}


@pytest.fixture
def rome(offices: dict[str, Office]) -> Office:
    """A node that has one of three shards, while the one that has all is away."""
    big(offices)
    found = offices["rome"]
    fetch(found, 0)
    offices["oslo"].peers.close()
    return found


def fetch(office: Office, *numbers: int) -> None:
    """Fetch some shards of `big`."""
    shards = office.lake.catalog.manifest("big").snapshot.shards
    names = [shards[number].object for number in numbers]

    def fetched() -> bool:
        with suppress(Unavailable):  # a node on a busy machine was suspected
            office.peers.fetch(names)
        return all(name in office.lake.objects for name in names)

    eventually(fetched)


@SLOW
def test_a_query_over_lost_shards_is_refused_unless_a_part_is_allowed(rome: Office) -> None:
    for sql in ("SELECT sum(v) FROM big", "SELECT median(v) FROM big", "FROM big ORDER BY v"):
        with pytest.raises(Unavailable, match="2 of "):
            rome.lake.sql(sql)
    found = rome.lake.sql("SELECT count(*), min(v), max(v), avg(v) FROM big", allow_partial=True)
    assert found.rows == [(1000, 0, 2997, 1498.5)]
    assert found.manifest["missing"] == MISSING
    rome.lake.append("mine", found.arrow())
    assert "missing" not in rome.lake.sql("FROM mine", allow_partial=True).manifest


@SLOW
def test_shards_are_found_at_a_node_that_need_not_hold_them(
    offices: dict[str, Office],
) -> None:
    big(offices)
    rome, bern = offices["rome"], offices["bern"]
    eventually(lambda: "big" in bern.names() and bern.lake.catalog.get("big").shards == 3)
    fetch(rome, 0)
    fetch(bern, 1, 2)
    offices["oslo"].peers.close()
    assert rome.query("SELECT count(*), sum(v), max(v) FROM big") == [(3000, 13495500, 8997)]


@SLOW
def test_each_use_of_a_dataset_has_the_same_part_of_the_rows(rome: Office) -> None:
    rome.lake.sql("CREATE TABLE names AS SELECT range AS k, 'n' || range AS name FROM range(7)")
    rows = {
        "SELECT (SELECT count(*) FROM big) - count(*) FROM big WHERE v >= 0": [(0,)],
        "SELECT count(*) FROM big a JOIN big b ON a.v = b.v": [(1000,)],
        "SELECT name, count(*) FROM big JOIN names USING (k) GROUP BY 1 ORDER BY 2, 1 LIMIT 1": [
            ("n6", 142)
        ],
    }
    for sql, expected in rows.items():
        found = rome.lake.sql(sql, allow_partial=True)
        assert found.rows == expected, sql
        assert found.manifest["missing"]["rows"] == 2000, sql


@SLOW
def test_only_shards_that_the_query_needs_are_missing(rome: Office) -> None:
    found = rome.lake.sql("SELECT k FROM big WHERE v = 3000", allow_partial=True)
    assert (found.rows, found.manifest["missing"]["rows"]) == ([], 1000)
    assert (
        "missing" not in rome.lake.sql("SELECT k FROM big WHERE v = 3", allow_partial=True).manifest
    )


@SLOW
def test_a_part_of_a_query_that_fetches_its_shards(rome: Office) -> None:
    sql = "SELECT count(*), max(v) FROM big WHERE v >= ?"
    with pytest.raises(Unavailable):
        rome.lake.sql(sql, [0])
    found = rome.lake.sql(sql, [0], allow_partial=True)
    assert (found.rows, found.manifest["missing"]) == ([(1000, 2997)], MISSING)
    earlier = rome.lake.sql("FROM big AT (VERSION => 3) WHERE v > 2993", allow_partial=True)
    assert (len(earlier), earlier.manifest["missing"]["shards"]) == (2, 2)


@SLOW
def test_a_response_says_what_is_missing_and_is_not_kept(rome: Office) -> None:
    client = Client(make_app(rome.lake))
    query = {"sql": "SELECT count(*) AS n FROM big", "allowPartial": True}
    for _ in range(2):
        response = client.post("/api/query", json=query)
        assert response.json()["rows"] == [["1000"]] or response.json()["rows"] == [[1000]]
        assert json.loads(response.headers["Sennit-Missing"]) == MISSING
        assert response.headers["Sennit-Cache"] == "bypass"
    assert "Sennit-Missing" not in client.post("/api/query", json={"sql": "SELECT 1"}).headers


@SLOW
def test_a_user_who_sees_some_rows_is_not_told_how_many_are_missing(rome: Office) -> None:
    rome.lake.set_policy("big", [PolicyRule("bob", rows="k = 3"), PolicyRule("ann")])
    sql = "SELECT count(*) FROM big"
    with pytest.raises(Denied, match="your policy shows a part"):
        rome.lake.sql(sql, user="bob", allow_partial=True)
    assert rome.lake.sql(sql, user="ann", allow_partial=True).rows == [(1000,)]


@SLOW
def test_a_change_and_several_statements_allow_no_part(rome: Office) -> None:
    for sql in (
        "CREATE TABLE copy AS FROM big",
        "DELETE FROM big",
        "SELECT 1; FROM big",
    ):
        with pytest.raises(Unsupported, match="a partial result"):
            rome.lake.sql(sql, allow_partial=True)


def test_a_header_has_totals_and_as_many_datasets_as_it_has_room_for() -> None:
    missing = [MissingShards(f"dataset é {n}", 1, 10, ("oslo", "rome")) for n in range(100)]
    text = missing_header(missing)
    assert text.isascii()
    assert len(text) <= 4096
    report = json.loads(text)
    assert (report["shards"], report["rows"]) == (100, 1000)
    assert 20 < len(report["datasets"]) < 100
