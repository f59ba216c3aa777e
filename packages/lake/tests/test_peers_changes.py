"""Changes of a shared dataset at nodes that do not write it: made by the writer, once, and read here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.access.rules import PolicyRule
from lake.distributed.foreign_statements import ForeignChanges, MadeChange
from lake.distributed.forks import fork_dataset
from lake.distributed.receipts import Receipts
from lake.distributed.remote_shards import ForeignChange
from lake.peers.changes import change_server, changes
from lake.peers.changes.change_server import ChangeServer
from lake.peers.changes.forwarding import ChangeReply, ChangeRequest
from lake.peers.service import PeerService
from lake.peers.transport.messages import Message
from lake.peers.transport.session import Session
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from lake.writes.writes import ReceiptRows
from sennit_core.clock import SYSTEM
from sennit_core.errors import (
    Busy,
    Denied,
    InternalError,
    NotFound,
    SennitError,
    SqlError,
    Unavailable,
    UnknownColumn,
    Unsupported,
    UsageError,
)
from sennit_core.ids import new_id

from .real_offices import Office, office
from .served_lake import Client, make_app
from .test_peers_service import eventually

pytestmark = pytest.mark.slow  # real nodes with executors, and times of the protocols
TABLE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})
ROWS = "SELECT id, name FROM trips ORDER BY id"


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    """Oslo writes `trips`, and makes changes of Rome."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(office(tmp_path, name)) for name in ("oslo", "rome")}
        found["rome"].peers.join(found["oslo"].peers.invite())
        eventually(lambda: all(len(each.peers.nodes()) == 2 for each in found.values()))
        found["oslo"].lake.append("trips", TABLE)
        found["oslo"].lake.append("secret", pa.table({"id": [7]}))
        found["oslo"].peers.share("trips", ["rome"])
        dataset = found["oslo"].lake.catalog.get("trips").id
        rome = found["rome"]
        eventually(lambda: rome.peers.accepts_changes(dataset) and "trips" in rome.names())
        yield found


LISTING = (
    "INSERT INTO trips SELECT 1, error(table_name) FROM information_schema.tables "
    "WHERE table_name = 'secret'"
)
MERGE = (
    "MERGE INTO trips USING (VALUES (1, 'z'), (9, 'y')) AS s(id, name) ON trips.id = s.id "
    "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name)"
)
CHANGES = [
    ("INSERT INTO trips VALUES (4, 'd'), (5, NULL)", 2, [1, 2, 3, 4, 5]),
    ("UPDATE trips SET id = id + 10 WHERE name IS NOT NULL", 2, [3, 11, 12]),
    ("DELETE FROM trips WHERE id = 2", 1, [1, 3]),
    ("TRUNCATE trips", 3, []),
    (
        MERGE,
        2,
        [2, 3, 9],
    ),
    ("WITH big AS (SELECT max(id) AS m FROM trips) INSERT INTO trips SELECT m, 'n' FROM big", 1,
     [1, 2, 3, 3]),
    ("DELETE FROM trips WHERE id = 99", 0, [1, 2, 3]),
]  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize(("sql", "count", "left"), CHANGES)
def test_a_change_is_made_by_the_writer_and_read_here_at_once(
    offices: dict[str, Office], sql: str, count: int, left: list[int]
) -> None:
    result = offices["rome"].lake.sql(sql)
    assert (result.value, result.manifest["count"]) == (count, count)
    assert result.manifest["isHere"]
    assert [row[0] for row in offices["rome"].query(ROWS)] == left
    assert offices["rome"].query(ROWS) == offices["oslo"].query(ROWS)


def test_the_author_is_the_user_at_the_node(offices: dict[str, Office]) -> None:
    with offices["rome"].lake.run(
        "INSERT INTO trips VALUES ($id, $name)", params={"id": 4, "name": "d"}, user="ann"
    ) as execution:
        assert execution.result()["count"] == 1
    head = offices["oslo"].lake.catalog.manifest("trips").snapshot
    assert head.author == "ann@rome"
    assert offices["rome"].query("SELECT name FROM trips WHERE id = 4") == [("d",)]


def test_what_was_not_made_says_why(offices: dict[str, Office]) -> None:
    rome, oslo = offices["rome"].lake, offices["oslo"].lake
    rome.append("mine", pa.table({"id": [8]}))
    for sql, error in [
        ("INSERT INTO trips SELECT id, 'x' FROM secret", NotFound),
        ("INSERT INTO trips SELECT id, 'x' FROM trips AT (VERSION => 1)", Unsupported),
        ("INSERT INTO trips VALUES ('no number', 'x')", SqlError),
        ("UPDATE trips SET nothing = 1", UnknownColumn),
        ("DROP TABLE trips", Denied),
        ("ALTER TABLE trips ADD COLUMN x INT", Denied),
        ("BEGIN; DELETE FROM trips; COMMIT", Denied),
    ]:
        with pytest.raises(error) as caught:
            rome.sql(sql)
        assert "secret" not in (getattr(caught.value, "suggestion", None) or "")
    assert oslo.catalog.manifest("trips").snapshot.version == 1


def test_a_dataset_of_this_node_is_changed_here_from_a_shared_one(
    offices: dict[str, Office],
) -> None:
    rome = offices["rome"].lake
    rome.append("mine", pa.table({"id": [8], "name": ["m"]}))
    assert rome.sql("INSERT INTO mine SELECT * FROM trips").value == 3
    assert rome.sql("SELECT count(*) FROM mine").value == 4


@pytest.mark.parametrize(("nodes", "read_only"), [(None, None), (["rome"], True)])
def test_a_share_is_read_only_for_all_nodes_and_when_it_says_so(
    offices: dict[str, Office], nodes: list[str] | None, read_only: bool | None
) -> None:
    oslo, rome = offices["oslo"].peers, offices["rome"]
    with pytest.raises(UsageError, match="read only"):
        oslo.share("trips", None, read_only=False)
    dataset = rome.lake.catalog.get("trips").id
    eventually(lambda: rome.peers.accepts_changes(dataset))
    oslo.share("trips", nodes, read_only=read_only)
    eventually(lambda: not rome.peers.accepts_changes(dataset))
    with pytest.raises(Denied, match="writes"):
        rome.lake.sql("DELETE FROM trips")


def send(
    source: Office,
    writer: Office,
    dataset: str,
    name: str,
    sql: str,
    *,
    claim_of: str | None = "",
) -> Any:
    """Send a change as a hostile node would, with a claim for it or for another statement."""
    network = source.peers._network
    assert network is not None
    node, now = writer.peers.identity.id, source.lake.clock.now()
    request = ChangeRequest(new_id(), dataset, name, sql, "", 20.0, now + 60)
    if claim_of is not None:
        claimed = replace(request, sql=claim_of or sql)
        claim = network.claims.sign(Requester("ann"), node, claimed, now)
        request = replace(request, claim=claim)

    async def call() -> Any:
        session = await network.session(node)
        return (await session.call(request, timeout_seconds=20))[0]

    return source.peers._submit(call()).result()


def test_the_writer_decides_who_may_change_what(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    trips = oslo.lake.catalog.get("trips").id
    secret = oslo.lake.catalog.get("secret").id

    for dataset, name, sql, code in [
        (secret, "secret", "DELETE FROM secret", "not-found"),
        (trips, "trips", "DELETE FROM secret", "not-found"),
        (trips, "secret", "ALTER TABLE secret DROP COLUMN name", "unsupported"),
        (trips, "trips", "DELETE FROM trips; DELETE FROM trips", "sql"),
        (trips, "trips", "CREATE TABLE x AS FROM trips", "unsupported"),
        (trips, "trips", LISTING, "unsupported"),
    ]:  # fmt: skip
        reply = send(rome, oslo, dataset, name, sql)
        assert isinstance(reply, ChangeReply), sql
        assert reply.error["code"] == code, (sql, reply.error)
    oslo.peers.share("trips", ["rome"], read_only=True)
    assert send(rome, oslo, trips, "trips", "DELETE FROM trips").error["code"] == "denied"
    assert oslo.lake.catalog.get("trips").rows == 3


@pytest.mark.parametrize("claim_of", [None, "DELETE FROM trips WHERE id = 1"])
def test_a_change_needs_a_claim_for_itself(
    offices: dict[str, Office], claim_of: str | None
) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    trips = oslo.lake.catalog.get("trips").id
    with pytest.raises(Denied, match="claim"):
        send(rome, oslo, trips, "trips", "DELETE FROM trips", claim_of=claim_of)


def test_a_dataset_with_a_policy_is_changed_by_no_other_node(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    trips = oslo.lake.catalog.get("trips").id
    oslo.lake.set_policy("trips", [PolicyRule("*", write=True), PolicyRule("*@*", write=False)])
    reply = send(rome, oslo, trips, "trips", "DELETE FROM trips")
    assert reply.error["code"] == "denied"
    eventually(lambda: not rome.peers.accepts_changes(trips))
    with pytest.raises(SennitError):  # which one depends on what has arrived of the policy
        rome.lake.sql("DELETE FROM trips")
    assert oslo.lake.catalog.get("trips").rows == 3


def test_one_node_does_not_use_up_the_receipts_of_all(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_server, "_RECEIPTS_OF_NODE_MAX", 1)
    oslo, rome = offices["oslo"], offices["rome"]
    trips = oslo.lake.catalog.get("trips").id
    assert send(rome, oslo, trips, "trips", "DELETE FROM trips WHERE id = 1").count == 1
    with pytest.raises(Busy):
        send(rome, oslo, trips, "trips", "DELETE FROM trips WHERE id = 2")
    receipts = oslo.peers._network.changes.server._writer.receipts  # type: ignore[union-attr]
    assert (receipts.count_of(rome.peers.identity.id), receipts.count_of("f" * 64)) == (1, 0)


def test_an_answer_that_is_lost_is_given_again(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after the commit; the request comes again, and the change is made once."""
    serve = ChangeServer.serve
    lost: list[str] = []

    async def losing(
        self: ChangeServer, session: Session, message: ChangeRequest, body: bytes
    ) -> Any:
        piece = await serve(self, session, message, body)
        if len(lost) < 2:
            lost.append(message.id)
            await asyncio.shield(asyncio.ensure_future(session.close("lost")))
        return piece

    monkeypatch.setattr(ChangeServer, "serve", losing)
    network = offices["oslo"].peers._network
    assert network is not None
    assert network.changes is not None
    handlers = network.sessions._handlers
    handlers[ChangeRequest] = network.changes.server.serve
    assert offices["rome"].lake.sql("INSERT INTO trips VALUES (4, 'd')").value == 1
    assert len(lost) == 2
    assert lost[0] == lost[1]
    assert offices["oslo"].query("SELECT count(*) FROM trips") == [(4,)]


def test_a_writer_that_is_away_is_named_and_a_copy_can_be_changed(
    offices: dict[str, Office],
) -> None:
    offices["oslo"].peers.close()
    rome = offices["rome"].lake
    with pytest.raises(Unavailable, match=r"(?s)node oslo.*platform fork"):
        rome.sql("DELETE FROM trips")


def test_a_fork_has_all_shards_here_and_outlives_the_share(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    fork_dataset(rome.lake, "trips", "mine", user="ann")
    assert rome.has_all("mine")
    oslo.peers.unshare("trips")
    eventually(lambda: rome.names() == {"mine"})
    oslo.peers.close()
    assert rome.lake.sql("DELETE FROM mine WHERE id = 1").value == 1
    assert rome.query("SELECT count(*) FROM mine") == [(2,)]
    assert rome.lake.catalog.get("mine").node is None


def test_a_writer_that_restarts_after_the_commit_answers_from_its_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost with the process that made the change; the next one finds the receipt."""
    committed, restarted = threading.Event(), threading.Event()
    run = ForeignChanges.run
    runs: list[str] = []

    def losing(
        self: ForeignChanges, change: ForeignChange, receipt: ReceiptRows, stop: Stop
    ) -> MadeChange:
        runs.append(change.sql)
        run(self, change, receipt, stop)
        committed.set()
        restarted.wait(60)  # so that this process answers nothing
        raise InternalError("the process was killed")

    async def silent(_session: Session, _message: ChangeRequest, _body: bytes) -> Any:
        raise Unavailable("a process that was killed")

    with office(tmp_path, "rome") as rome, ThreadPoolExecutor(1) as pool:
        with office(tmp_path, "oslo") as oslo:
            rome.peers.join(oslo.peers.invite())
            oslo.lake.append("trips", TABLE)
            oslo.peers.share("trips", [rome.peers.identity.id])
            eventually(lambda: "trips" in rome.names())
            dataset = rome.lake.catalog.get("trips").id
            eventually(lambda: rome.peers.accepts_changes(dataset))
            monkeypatch.setattr(ForeignChanges, "run", losing)
            monkeypatch.setattr(Receipts, "find", lambda _self, _key: None)
            change = pool.submit(rome.lake.sql, "INSERT INTO trips VALUES (4, 'd')")
            assert committed.wait(60)
            network = oslo.peers._network  # the process answers nothing any more
            assert network is not None
            network.sessions._handlers[ChangeRequest] = silent
            oslo.peers._submit(network.sessions.__aexit__(None, None, None)).result(20)
            restarted.set()
        monkeypatch.undo()
        with office(tmp_path, "oslo") as oslo:
            assert change.result(90).value == 1
            assert oslo.query("SELECT count(*) FROM trips") == [(4,)]
    assert len(runs) == 1


async def ask(rome: PeerService, writer: str, request: ChangeRequest) -> Message:
    network = rome._network
    assert network is not None
    claim = network.claims.sign(Requester("ann", role="writer"), writer, request, network.wall())
    session = await network.session(writer)
    reply, _ = await session.call(replace(request, claim=claim), timeout_seconds=30)
    return reply


def test_a_writer_that_has_left_and_joined_again_answers_from_its_receipt(tmp_path: Path) -> None:
    with office(tmp_path, "rome") as rome, office(tmp_path, "oslo") as oslo:
        oslo.lake.append("trips", TABLE)
        writer, dataset = oslo.peers.identity.id, oslo.lake.catalog.get("trips").id
        request = ChangeRequest(
            new_id(), dataset, "trips", "INSERT INTO trips VALUES (4, 'd')", "", 60.0,
            SYSTEM.now() + 660,
        )  # fmt: skip
        for _ in range(2):
            oslo.peers.join(rome.peers.invite())
            oslo.peers.share("trips", [rome.peers.identity.id])
            eventually(lambda: {each.state for each in rome.peers.nodes()} == {"alive"})
            reply = rome.peers._submit(ask(rome.peers, writer, request)).result(60)
            assert isinstance(reply, ChangeReply)
            assert (reply.error, reply.count) == ({}, 1)
            oslo.peers.leave()
        assert oslo.query("SELECT count(*) FROM trips") == [(4,)]


def test_a_version_that_does_not_arrive_in_time_is_named(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_ADOPTED_SECONDS", 0.0)
    rome = offices["rome"].lake
    with rome.run("INSERT INTO trips VALUES (4, 'd')") as execution:
        found = execution.result()
        assert (found["count"], found["version"], found["isHere"]) == (1, 2, False)
    query = {"sql": "INSERT INTO trips VALUES (5, 'e')"}
    answer = Client(make_app(rome)).post("/api/query", json=query)
    assert (answer.status_code, answer.headers["Sennit-Awaited-Version"]) == (200, "3")
    monkeypatch.undo()
    answer = Client(make_app(rome)).post("/api/query", json=query)
    assert "Sennit-Awaited-Version" not in answer.headers
