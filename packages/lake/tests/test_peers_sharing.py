"""Datasets shared between real nodes: seen, queried, copied, refused, private, withdrawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.distributed.forks import fork_dataset
from lake.peers.copies.placement import Placement
from lake.peers.data import DataParts
from lake.peers.queries.fragments import FragmentRequest, FragmentRunner
from lake.peers.transport.stop import Stop
from sennit_core.errors import Denied, NotFound, SqlError, Unavailable, UnknownColumn

from .real_offices import TABLE, Office, big, office, offices
from .test_peers_service import eventually

__all__ = ["offices"]

pytestmark = pytest.mark.slow  # real nodes with executors, and times of the protocols


def shared(offices: dict[str, Office], *nodes: str, factor: int = 1) -> None:
    oslo = offices["oslo"].peers
    oslo.share("trips", list(nodes) or None, Placement(factor), read_only=True)
    names = nodes or ("rome", "bern")
    eventually(lambda: all("trips" in offices[name].names() for name in names))


def test_a_dataset_is_private_until_it_is_shared(offices: dict[str, Office]) -> None:
    shared(offices, "rome")
    rows = "SELECT id, name FROM trips ORDER BY id"
    assert offices["rome"].query(rows) == offices["oslo"].query(rows)
    info = offices["rome"].lake.catalog.get("trips")
    assert (info.visibility, info.node) == ("shared", offices["oslo"].peers.identity.id)
    assert offices["bern"].names() == set()
    with pytest.raises(NotFound):
        offices["bern"].query("FROM trips")


def test_a_new_version_follows_and_time_travel_reaches_back(offices: dict[str, Office]) -> None:
    shared(offices)
    offices["oslo"].lake.sql("DELETE FROM trips WHERE id = 2")
    rome = offices["rome"]
    eventually(lambda: rome.lake.catalog.get("trips").rows == 2)
    assert rome.query("SELECT count(*) FROM trips AT (VERSION => 1)") == [(3,)]
    assert rome.query("SELECT count(*) FROM trips") == [(2,)]


CHANGES = [
    "INSERT INTO trips VALUES (4, 'd')",
    "UPDATE trips SET id = 0",
    "DELETE FROM trips",
    "DROP TABLE trips",
    "ALTER TABLE trips ADD COLUMN x INT",
    "CREATE OR REPLACE TABLE trips AS SELECT 1 AS a",
]


def test_only_the_writer_changes_a_dataset(offices: dict[str, Office]) -> None:
    shared(offices, "rome")
    rome = offices["rome"].lake
    for sql in CHANGES:
        with pytest.raises(Denied, match="writes"):
            rome.sql(sql)
    with pytest.raises(Denied, match="writes"):
        rome.append("trips", TABLE)
    with pytest.raises(Denied, match="writes"):
        rome.delete("trips")
    assert rome.sql("CREATE TABLE mine AS FROM trips").value == 3
    assert offices["oslo"].query("SELECT count(*) FROM trips") == [(3,)]


def test_copies_survive_the_loss_of_the_writer(offices: dict[str, Office]) -> None:
    shared(offices, factor=3)
    eventually(lambda: offices["rome"].has_all("trips") and offices["bern"].has_all("trips"))
    offices["oslo"].peers.close()
    assert offices["rome"].query("SELECT sum(id) FROM trips") == [(6,)]


def test_without_a_copy_the_query_names_what_is_missing(offices: dict[str, Office]) -> None:
    shared(offices)
    offices["oslo"].peers.close()
    with pytest.raises(Unavailable, match="1 of 1 shards"):
        offices["rome"].query("SELECT sum(id) FROM trips")


def test_a_damaged_copy_is_replaced(offices: dict[str, Office]) -> None:
    shared(offices, factor=3)
    rome = offices["rome"]
    eventually(lambda: rome.has_all("trips"))
    [shard] = rome.lake.catalog.manifest("trips").snapshot.shards
    path = rome.lake.objects.place(shard.object)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    rome.lake.verify()
    eventually(lambda: rome.has_all("trips") and rome.lake.objects.verify(shard.object))
    assert rome.query("SELECT sum(id) FROM trips") == [(6,)]


def test_a_withdrawn_dataset_is_gone_for_others(offices: dict[str, Office]) -> None:
    shared(offices)
    offices["oslo"].peers.unshare("trips")
    eventually(lambda: offices["rome"].names() == offices["bern"].names() == set())
    assert offices["oslo"].query("SELECT count(*) FROM trips") == [(3,)]


def test_a_node_that_has_left_and_joins_again_shares_nothing_until_it_is_told_to(
    offices: dict[str, Office],
) -> None:
    shared(offices)
    oslo, rome = offices["oslo"], offices["rome"]
    rome.lake.append("plans", TABLE)
    rome.peers.share("plans", None)
    eventually(lambda: "plans" in oslo.names())
    rome.peers.leave()
    assert rome.names() == {"plans"}
    rome.peers.join(oslo.peers.invite())
    # The others have its log of the time before, and it says so itself that this is over.
    eventually(lambda: "plans" not in oslo.names() and "trips" in rome.names())
    rome.peers.share("plans", None)
    eventually(lambda: "plans" in oslo.names() and "plans" in offices["bern"].names())
    assert oslo.query("SELECT count(*) FROM plans") == [(3,)]


def test_a_name_that_is_taken_gets_the_node_s(offices: dict[str, Office]) -> None:
    offices["rome"].lake.append("trips", pa.table({"x": [9]}))
    offices["oslo"].peers.share("trips", None)
    eventually(lambda: offices["rome"].names() == {"trips", "trips@oslo"})
    assert offices["rome"].query('SELECT count(*) FROM "trips@oslo"') == [(3,)]
    assert offices["rome"].query("FROM trips") == [(9,)]


def test_what_cannot_be_shared_says_why(offices: dict[str, Office]) -> None:
    oslo = offices["oslo"]
    with pytest.raises(NotFound):
        oslo.peers.share("nothing", None)
    with pytest.raises(NotFound, match="paris"):
        oslo.peers.share("trips", ["paris"])
    shared(offices, "rome")
    with pytest.raises(Denied, match="another node writes"):
        offices["rome"].peers.share("trips", None)


def test_a_node_that_offers_no_room_holds_no_copies(tmp_path: Path) -> None:
    with office(tmp_path, "oslo") as oslo, office(tmp_path, "rome", capacity=0) as rome:
        rome.peers.join(oslo.peers.invite())
        oslo.lake.append("trips", TABLE)
        oslo.peers.share("trips", None, Placement(2))
        eventually(lambda: "trips" in rome.names())
        assert not rome.has_all("trips")
        assert rome.query("SELECT sum(id) FROM trips") == [(6,)]  # fetched for the query


PUSHED = [
    "SELECT count(*), sum(v), min(s), avg(v) FROM big",
    "SELECT k, count(*) AS n, sum(v) AS total FROM big GROUP BY k ORDER BY k",
    "SELECT count(DISTINCT k) FROM big WHERE v > 10",
    "SELECT k, max(v) FROM big WHERE s LIKE '%7' GROUP BY k HAVING max(v) > 5 ORDER BY 1",
    "SELECT v, s FROM big ORDER BY v DESC, s LIMIT 5",
    "SELECT sum(v) FROM big WHERE v < 0",
]


def test_a_query_is_computed_where_the_shards_are(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    for sql in PUSHED:
        assert rome.query(sql) == offices["oslo"].query(sql), sql
    shards = rome.lake.catalog.manifest("big").snapshot.shards
    assert not any(shard.object in rome.lake.objects for shard in shards)
    assert not list(rome.lake.staging.glob("distributed-*"))


def test_a_query_that_is_not_distributed_fetches_the_shards(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    with rome.lake.run("SELECT sum(v) FROM big WHERE k = ?", params=[3]) as execution:
        execution.result()
    assert rome.has_all("big")


def test_an_error_of_a_distributed_query_is_duckdb_s(offices: dict[str, Office]) -> None:
    big(offices)
    with pytest.raises(UnknownColumn, match="nothing"):
        offices["rome"].query("SELECT sum(nothing) FROM big")
    with pytest.raises(SqlError, match="Could not convert string"):
        offices["rome"].query("SELECT sum(CAST(s || 'x' AS INTEGER)) FROM big")


def explained(office: Office, sql: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in office.query(sql)}


def test_explain_says_where_a_query_would_run(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    found = explained(rome, "EXPLAIN SELECT k, sum(v) FROM big WHERE v < 2000 GROUP BY k")
    assert list(found) == ["physical_plan", "distributed"]
    text = found["distributed"]
    assert text.startswith("push: about ")
    assert "  big: shards: 1 of 3\n  at oslo: 1 unit\n" in text
    assert "GROUP BY" in text
    assert "moved" not in text
    assert not rome.has_all("big")


def test_explain_analyze_says_what_was_moved(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    text = explained(rome, "EXPLAIN ANALYZE SELECT k, sum(v) FROM big GROUP BY k")["distributed"]
    assert "\nmoved: " in text
    assert "  at oslo: 3 units, " in text
    # One request for the three shards, so its groups are those of all rows.
    assert "  rows: 7\n" in text
    [(_, plan), (_, data)] = rome.query("EXPLAIN (FORMAT json) SELECT k FROM big LIMIT 1")
    assert json.loads(str(plan))
    assert json.loads(str(data))["steps"][0]["unitsByNode"] == {"oslo": 3}


def test_states_of_aggregates_come_from_nodes_with_this_version_of_duckdb(tmp_path: Path) -> None:
    sql = (
        "SELECT k, stddev(v) AS d, corr(v, v % 5) AS c FROM big WHERE v <> 3 GROUP BY k ORDER BY k"
    )
    names = (("oslo", version("duckdb")), ("rome", version("duckdb")), ("bern", "1.5.0"))
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(office(tmp_path, name, duckdb=duckdb))
            for name, duckdb in names
        }
        for name in ("rome", "bern"):
            found[name].peers.join(found["oslo"].peers.invite())
        big(found)

        def shown(name: str) -> str:
            return explained(found[name], f"EXPLAIN {sql}")["distributed"]

        def has_big(name: str) -> bool:
            node = found[name]
            return "big" in node.names() and node.lake.catalog.get("big").shards == 3

        eventually(lambda: has_big("rome") and has_big("bern"))
        eventually(lambda: "EXPORT_STATE" in shown("rome"))  # once it knows oslo's version
        assert "EXPORT_STATE" not in shown("bern")
        expected = found["oslo"].query(sql)
        for name in ("rome", "bern"):
            for row, other in zip(found[name].query(sql), expected, strict=True):
                assert row == pytest.approx(other, rel=1e-9)


def test_explain_says_why_a_query_gathers(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    rome.lake.append("mine", pa.table({"k": [3, 4]}))
    sql = "EXPLAIN SELECT median(v) FROM big WHERE k IN (SELECT k FROM mine)"
    text = explained(rome, sql)["distributed"]
    assert text.startswith("gather: about ")
    assert "\n  because the holders of its shards do not have the rows that it joins\n" in text


def test_a_repeated_query_is_planned_once_for_each_version(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    big(offices)
    oslo, rome = offices["oslo"], offices["rome"]
    planned: list[str] = []
    submit = rome.lake.pool.submit

    def record(entry: str, request: dict[str, Any], **options: Any) -> Any:
        if request.get("engine") == "distribute":
            planned.append(request["sql"])
        return submit(entry, request, **options)

    monkeypatch.setattr(rome.lake.pool, "submit", record)
    sql = "SELECT count(*), sum(v) FROM big"
    assert rome.query(sql) == rome.query(sql) == oslo.query(sql)
    assert planned == [sql]
    oslo.lake.append("big", pa.table({"k": [1], "v": [5], "s": ["new"]}))
    eventually(lambda: rome.lake.catalog.get("big").shards == 4)
    assert rome.query(sql) == oslo.query(sql)
    assert planned == [sql, sql]


def test_a_query_over_tables_of_one_node_is_computed_there(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    shared(offices)
    sql = (
        "SELECT name, median(v) AS m FROM trips LEFT JOIN big ON k = id AND v % 2 = 0"
        " GROUP BY name ORDER BY m NULLS FIRST, name LIMIT 2"
    )
    text = explained(rome, f"EXPLAIN ANALYZE {sql}")["distributed"]
    assert "1 unit by node" in text
    assert "  trips whole\n  big whole\n  at oslo: 1 unit, " in text
    assert rome.query(sql) == offices["oslo"].query(sql)
    assert not rome.has_all("trips")
    assert not rome.has_all("big")


def test_shards_are_joined_where_the_other_table_is_whole(offices: dict[str, Office]) -> None:
    big(offices)
    oslo, rome = offices["oslo"], offices["rome"]
    oslo.lake.append("names", pa.table({"k": [0, 1, None], "name": ["zero", "one", "none"]}))
    oslo.peers.share("names", None, Placement(3))
    eventually(lambda: "names" in rome.names() and rome.has_all("names"))
    sql = (
        "SELECT name, sum(v) AS total, count(*) AS n FROM big LEFT JOIN names USING (k)"
        " WHERE k NOT IN (SELECT k + 2 FROM names WHERE k IS NOT NULL) GROUP BY name ORDER BY n, name"
    )
    text = explained(rome, f"EXPLAIN ANALYZE {sql}")["distributed"]
    assert text.startswith("push: about ")
    assert "  names whole\n  at oslo: 3 units, " in text
    assert rome.query(sql) == oslo.query(sql)
    assert not rome.has_all("big")


@dataclass
class Recorded:
    """Runs fragments, and remembers them."""

    inner: FragmentRunner
    requests: list[FragmentRequest] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        self.requests.append(request)
        self.bodies.append(body)
        return self.inner.run(request, stop, body)


def test_rows_of_a_private_dataset_stay_here(tmp_path: Path) -> None:
    recorded: list[Recorded] = []

    def record(data: DataParts) -> DataParts:
        recorded.append(Recorded(data.fragments))
        return replace(data, fragments=recorded[0])

    with office(tmp_path, "oslo", change=record) as oslo, office(tmp_path, "rome") as rome:
        rome.peers.join(oslo.peers.invite())
        big({"oslo": oslo, "rome": rome})
        rome.lake.append("secrets", pa.table({"k": [3, 4], "word": ["xyzzy", "plugh"]}))
        scalar = "SELECT count(*) FROM big WHERE k = (SELECT max(k) FROM secrets) AND v < 900"
        assert rome.query(scalar) == [(43,)]
        sql = "SELECT word, count(*) FROM big JOIN secrets USING (k) GROUP BY word ORDER BY word"
        assert rome.query(sql) == [("plugh", 428), ("xyzzy", 429)]
        assert recorded[0].requests
        for request in recorded[0].requests:
            assert [table.name for table in request.tables] == ["big"]
            assert "secrets" not in request.sql
            assert "xyzzy" not in request.sql


@dataclass
class Forgetful:
    """Runs fragments of one table; of others it has lost a shard."""

    inner: FragmentRunner
    refused: int = 0

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        if len(request.tables) > 1:
            self.refused += 1
            raise NotFound("shard of a fragment", request.tables[1].name, suggestion=None)
        return self.inner.run(request, stop, body)


def test_a_holder_without_a_whole_table_costs_a_plan_and_not_the_query(tmp_path: Path) -> None:
    runners: list[Forgetful] = []

    def forget(data: DataParts) -> DataParts:
        runners.append(Forgetful(data.fragments))
        return replace(data, fragments=runners[0])

    with office(tmp_path, "oslo", change=forget) as oslo, office(tmp_path, "rome") as rome:
        rome.peers.join(oslo.peers.invite())
        big({"oslo": oslo, "rome": rome})
        oslo.lake.append("trips", TABLE)
        oslo.peers.share("trips", None)
        eventually(lambda: "trips" in rome.names())
        sql = "SELECT name, sum(v) FROM big JOIN trips ON k = id GROUP BY name ORDER BY name"
        assert rome.query(sql) == oslo.query(sql)
        assert runners[0].refused


def test_shards_are_fetched_if_their_rows_are_more_bytes(offices: dict[str, Office]) -> None:
    big(offices)
    rome = offices["rome"]
    assert "the whole shards are" in explained(rome, "EXPLAIN FROM big")["distributed"]
    assert not rome.has_all("big")
    assert sorted(rome.query("FROM big")) == sorted(offices["oslo"].query("FROM big"))
    assert rome.has_all("big")


def test_functions_that_queries_may_not_use_are_refused(offices: dict[str, Office]) -> None:
    big(offices)
    with pytest.raises(Denied, match="getenv"):
        offices["rome"].query("SELECT median(v), getenv('HOME') FROM big")


def test_a_dataset_with_a_shard_that_is_here_for_another_one_is_forked(
    offices: dict[str, Office],
) -> None:
    shared(offices, factor=3)
    oslo, rome = offices["oslo"], offices["rome"]
    eventually(lambda: rome.has_all("trips"))
    oslo.lake.append("equal", TABLE)
    assert oslo.lake.catalog.manifest("equal").snapshot.shards[0].object in rome.lake.objects
    oslo.peers.share("equal", None, Placement(1))
    eventually(lambda: "equal" in rome.names())

    fork_dataset(rome.lake, "equal", "mine")

    assert rome.query("SELECT sum(id) FROM mine") == [(6,)]
    [shard] = rome.lake.catalog.manifest("equal").snapshot.shards
    assert rome.lake.remote.was_received(rome.lake.catalog.get("equal").id, shard.object)
