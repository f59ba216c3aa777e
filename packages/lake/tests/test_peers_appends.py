"""Files that are appended to a dataset of another node: its writer fetches the rows and commits them once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.distributed.staged_inputs import StagedInput, StagedObject, check_inputs
from lake.peers.changes.change_server import ChangeServer
from lake.peers.changes.forwarding import ChangeReply, ChangeRequest
from lake.peers.changes.staging import Offers
from lake.peers.transport.session import Piece, Session
from lake.statements.limits import Requester
from sennit_core.errors import (
    BadInput,
    Denied,
    TooLarge,
    Unavailable,
    UnknownColumn,
    UsageError,
)
from sennit_core.ids import new_id
from sennit_core.schema import DataType, Field, Schema

from .real_offices import Office, office
from .test_peers_service import eventually

TABLE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})
ROWS = "SELECT id, name FROM trips ORDER BY id"


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    """Oslo writes `trips`, and makes changes of Rome."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(office(tmp_path, name)) for name in ("oslo", "rome")}
        oslo, rome = found["oslo"], found["rome"]
        rome.peers.join(oslo.peers.invite())
        eventually(lambda: all(len(each.peers.nodes()) == 2 for each in found.values()))
        oslo.lake.append("trips", TABLE)
        oslo.lake.append("secret", pa.table({"id": [7], "name": ["hidden"]}))
        oslo.peers.share("trips", ["rome"])
        dataset = oslo.lake.catalog.get("trips").id
        eventually(lambda: rome.peers.accepts_changes(dataset) and "trips" in rome.names())
        yield found


def csv(folder: Path, text: str = "id,name\n4,d\n5,\n") -> Path:
    place = folder / "more.csv"
    place.write_text(text)
    return place


def unreferenced(found: Office) -> set[str]:
    """Objects that no version of a dataset has."""
    lake = found.lake
    referenced = {
        name
        for info in lake.catalog.list()
        for each in lake.catalog.snapshots(info.id)
        for name in lake.catalog.objects_of(info.id, each.snapshot.id)
    }
    found_names = {n for part in range(256) for n in lake.objects.names(f"{part:02x}")}
    return found_names - referenced


@pytest.mark.slow
def test_a_file_is_appended_by_the_writer_and_read_here_at_once(
    offices: dict[str, Office], tmp_path: Path
) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    before = unreferenced(oslo), unreferenced(rome)
    info = rome.lake.append("trips", csv(tmp_path))
    assert info.rows == 5
    assert rome.query(ROWS) == [(1, "a"), (2, "b"), (3, None), (4, "d"), (5, None)]
    assert oslo.query(ROWS) == rome.query(ROWS)
    snapshot = oslo.lake.catalog.manifest("trips").snapshot
    assert snapshot.query == 'INSERT INTO "trips" BY NAME FROM "more.csv (file)"'
    assert (unreferenced(oslo), unreferenced(rome)) == before


@pytest.mark.slow
def test_an_upsert_replaces_the_rows_with_equal_keys(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    rome.lake.upsert("trips", pa.table({"id": [2, 9], "name": ["x", "y"]}), key=["id"])
    assert oslo.query(ROWS) == [(1, "a"), (2, "x"), (3, None), (9, "y")]
    with pytest.raises(BadInput):
        rome.lake.upsert("trips", pa.table({"id": [8, 8], "name": ["x", "y"]}), key=["id"])
    assert len(oslo.query(ROWS)) == 4


@pytest.mark.slow
def test_a_repeated_ingest_is_committed_once(
    offices: dict[str, Office], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process ends after the writer's commit, before it forgets the upload."""
    rome = offices["rome"].lake
    data = csv(tmp_path).read_bytes()
    upload = rome.parts.start("more.csv", len(data), mode="append", options={"name": "trips"})
    with rome.parts.open_part(upload.id, 0) as part:
        part.write(data)
        part.commit()
    with monkeypatch.context() as patched:
        patched.setattr(rome.parts, "abort", lambda _id: (_ for _ in ()).throw(Unavailable("x")))
        with pytest.raises(Unavailable, match="x"):
            rome.ingest(upload.id)
    assert rome.ingest(upload.id).rows == 5
    assert offices["oslo"].query("SELECT count(*) FROM trips") == [(5,)]


@pytest.mark.slow
def test_what_is_not_appended_changes_nothing(
    offices: dict[str, Office], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    with pytest.raises(BadInput):
        rome.lake.append("trips", csv(tmp_path, "id,other\n4,d\n"))
    with pytest.raises(UsageError, match="onBadRow"):
        rome.lake.append("trips", csv(tmp_path), on_bad_row="skip")
    writer = rome.peers._network.changes.server._writer  # type: ignore[union-attr]
    object.__setattr__(writer, "change_bytes_max", 10)
    with pytest.raises(TooLarge, match="sends to another node"):
        rome.lake.append("trips", csv(tmp_path))
    object.__setattr__(writer, "change_bytes_max", 1 << 30)
    at_oslo = oslo.peers._network.changes.server._writer  # type: ignore[union-attr]
    object.__setattr__(at_oslo, "change_bytes_max", 10)
    with pytest.raises(TooLarge, match="sends to another node"):
        rome.lake.append("trips", csv(tmp_path))
    assert oslo.query("SELECT count(*) FROM trips") == [(3,)]
    # The columns of this moment count, and not those that the rows were encoded to.
    object.__setattr__(at_oslo, "change_bytes_max", 1 << 30)
    serve = ChangeServer.serve

    async def late(
        self: ChangeServer, session: Session, message: ChangeRequest, body: bytes
    ) -> Piece:
        import asyncio

        await asyncio.to_thread(oslo.lake.sql, "ALTER TABLE trips DROP COLUMN name")
        return await serve(self, session, message, body)

    network = oslo.peers._network
    assert network is not None
    assert network.changes is not None
    monkeypatch.setitem(
        network.sessions._handlers, ChangeRequest, late.__get__(network.changes.server)
    )
    with pytest.raises(UnknownColumn):
        rome.lake.append("trips", csv(tmp_path))


@pytest.mark.slow
def test_a_dataset_that_is_shared_to_be_read_gets_no_file(
    offices: dict[str, Office], tmp_path: Path
) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    dataset = rome.lake.catalog.get("trips").id
    oslo.peers.share("trips", ["rome"], read_only=True)
    eventually(lambda: not rome.peers.accepts_changes(dataset))
    with pytest.raises(Denied, match="writes"):
        rome.lake.append("trips", csv(tmp_path))
    with pytest.raises(Denied, match="writes"):
        rome.lake.parts.start("more.csv", 10, mode="append", options={"name": "trips"})
    oslo.peers.share("trips", ["rome"])
    eventually(lambda: rome.peers.accepts_changes(dataset))
    with pytest.raises(Denied, match="writes"):
        rome.lake.parts.start("more.csv", 10, mode="replace", options={"name": "trips"})


def send(source: Office, writer: Office, request: ChangeRequest) -> Any:
    """Send a change as a hostile node would."""
    network = source.peers._network
    assert network is not None
    node = writer.peers.identity.id
    claim = network.claims.sign(Requester("eve"), node, request, source.lake.clock.now())

    async def call() -> Any:
        session = await network.session(node)
        return (await session.call(replace(request, claim=claim), timeout_seconds=30))[0]

    return source.peers._submit(call()).result()


@pytest.mark.slow
def test_the_id_of_an_object_that_the_writer_has_gives_none_of_its_rows(
    offices: dict[str, Office],
) -> None:
    """The sender has to send the rows: it cannot have others inserted that it may not read."""
    oslo, rome = offices["oslo"], offices["rome"]
    [shard] = oslo.lake.catalog.manifest("secret").snapshot.shards
    schema = oslo.lake.catalog.get("secret").schema
    rows = StagedInput("s", schema, (StagedObject(shard.object, shard.bytes),))
    request = ChangeRequest(
        new_id(), oslo.lake.catalog.get("trips").id, "trips",
        "INSERT INTO trips BY NAME FROM s", "", 5.0, oslo.lake.clock.now() + 60, inputs=(rows,),
    )  # fmt: skip
    reply = send(rome, oslo, request)
    assert isinstance(reply, ChangeReply)
    assert reply.error["code"] in ("unavailable", "deadline-exceeded")
    assert oslo.query("SELECT count(*) FROM trips WHERE name = 'hidden'") == [(0,)]
    # And the object is still there.
    assert oslo.query("SELECT name FROM secret") == [("hidden",)]


# What is offered, and what is refused


def test_an_offer_is_to_one_node_and_ends() -> None:
    offers = Offers()
    with offers.open("rome", "d", ["x"]):
        with offers.open("rome", "d", ["x"]):
            pass
        assert offers.has("rome", "d", "x")
        assert not offers.has("bern", "d", "x")
        assert not offers.has("rome", "other", "x")
        assert not offers.has("rome", "d", "y")
    assert not offers.has("rome", "d", "x")


SCHEMA = Schema((Field("id", DataType.parse("Int64")),))
GOOD = StagedObject("a" * 64, 10)


@pytest.mark.parametrize(
    "inputs",
    [
        [StagedInput("TRIPS", SCHEMA, (GOOD,))],
        [StagedInput("s", SCHEMA, (GOOD,)), StagedInput("S", SCHEMA, (GOOD,))],
        [StagedInput("", SCHEMA, (GOOD,))],
        [StagedInput("s", SCHEMA, (StagedObject("../x", 10),))],
        [StagedInput("s", SCHEMA, (StagedObject("a" * 64, 0),))],
        [StagedInput("s", SCHEMA, (GOOD,) * 501)],
        [StagedInput(f"s{number}", SCHEMA, ()) for number in range(17)],
    ],
)
def test_tables_out_of_range_are_refused(inputs: list[StagedInput]) -> None:
    with pytest.raises(BadInput):
        check_inputs(inputs, "trips")
    check_inputs([StagedInput("s", SCHEMA, (GOOD,))], "trips")
