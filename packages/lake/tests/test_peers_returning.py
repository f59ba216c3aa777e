"""RETURNING of changes that another node makes: the answer is that of a change of the node itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lake import Lake
from lake.peers.changes.change_server import ChangeServer
from lake.peers.changes.forwarding import ChangeRequest
from lake.peers.changes.returned_rows import KeptRows, ReturnedRequest, ReturnedResults
from lake.peers.transport.messages import BODY_BYTES_MAX
from lake.peers.transport.session import Piece, Session
from sennit_core.errors import BadInput, NotFound, TooLarge, Unavailable, Unsupported
from sennit_core.ids import new_id

from .real_offices import Office, office
from .test_peers_service import eventually

TYPES = """SELECT i::INT AS id, i::HUGEINT AS huge, i / 3.0 AS part, i::DECIMAL(9, 2) AS price,
    'x' || i AS name, [i, NULL] AS list, {'a': i, 'b': [DATE '2024-01-01']} AS struct,
    TIMESTAMP '2024-01-01 00:00:00' AS at, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS zoned,
    '00000000-0000-0000-0000-000000000001'::UUID AS u, i = 2 AS flag, 'b'::BLOB AS bytes
    FROM range(4) AS r(i)"""
STATEMENTS = [
    "INSERT INTO trips BY NAME SELECT 9 AS id, 'n' AS name RETURNING id + 1 AS next, name",
    "INSERT INTO trips(id, price) VALUES (7, 2.5), (8, NULL) RETURNING *",
    "UPDATE trips SET id = id + 10 WHERE id > 1 RETURNING *",
    "DELETE FROM trips WHERE flag RETURNING trips.id, struct, list, u, zoned",
    "DELETE FROM trips WHERE id = 99 RETURNING *",
    """MERGE INTO trips USING (VALUES (1, 'z')) AS s(k, n) ON id = k
    WHEN MATCHED THEN UPDATE SET name = n RETURNING id, name""",
]


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Office]]:
    """Oslo writes `trips`, and makes changes of Rome."""
    folder = tmp_path_factory.mktemp("offices")
    with ExitStack() as stack:
        found = {name: stack.enter_context(office(folder, name)) for name in ("oslo", "rome")}
        oslo, rome = found["oslo"], found["rome"]
        rome.peers.join(oslo.peers.invite())
        eventually(lambda: all(len(each.peers.nodes()) == 2 for each in found.values()))
        oslo.lake.sql(f"CREATE TABLE trips AS {TYPES}")
        oslo.peers.share("trips", ["rome"])
        dataset = oslo.lake.catalog.get("trips").id
        eventually(lambda: rome.peers.accepts_changes(dataset) and "trips" in rome.names())
        yield found


def answer(lake: Lake, sql: str, how: str, max_rows: int | None) -> tuple[object, ...]:
    with lake.run(sql, format=how, max_rows=max_rows) as execution:
        payload = b"".join(bytes(piece) for piece in execution.payloads())
        report = execution.result()
    if how == "parquet":
        payload = b""  # it has the time of its writing
    members = ("rows", "count", "columns", "truncated")
    return payload, {name: report[name] for name in members}


@pytest.mark.slow
@pytest.mark.sample(9)
@pytest.mark.parametrize("sql", STATEMENTS)
@pytest.mark.parametrize(("how", "max_rows"), [("arrow", None), ("json", 1), ("csv", 0)])
def test_the_answer_is_that_of_a_change_made_here(
    offices: dict[str, Office], sql: str, how: str, max_rows: int | None
) -> None:
    oslo, rome = offices["oslo"].lake, offices["rome"].lake
    version = oslo.catalog.manifest("trips").snapshot.version
    sent = answer(rome, sql, how, max_rows)
    oslo.rollback("trips", version)
    assert sent == answer(oslo, sql, how, max_rows)
    oslo.rollback("trips", version)


@pytest.mark.slow
def test_rows_of_several_pieces_arrive_and_are_not_kept(offices: dict[str, Office]) -> None:
    rome, oslo = offices["rome"].lake, offices["oslo"].lake
    count = 3 * BODY_BYTES_MAX // 1000
    sql = (
        f"INSERT INTO trips(id, name) SELECT i, repeat('x', 1000) FROM range({count}) AS r(i) "
        "RETURNING id, name"
    )
    result = rome.sql(sql)
    assert sorted(row[0] for row in result.rows) == list(range(count))
    eventually(lambda: not list(oslo.staging.glob("returned-*")))
    assert not list(rome.staging.glob("returned-*"))
    oslo.sql("DELETE FROM trips WHERE length(name) = 1000")


@pytest.mark.slow
def test_more_rows_than_are_sent_change_nothing(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lake.distributed import foreign_statements

    monkeypatch.setattr(foreign_statements, "RETURNED_BYTES_MAX", 1000)
    rome, oslo = offices["rome"].lake, offices["oslo"]
    before = oslo.query("SELECT count(*) FROM trips")
    with pytest.raises(TooLarge, match="RETURNING sends"):
        rome.sql("UPDATE trips SET name = repeat('y', 2000) RETURNING name")
    assert oslo.query("SELECT count(*) FROM trips") == before
    assert oslo.query("SELECT count(*) FROM trips WHERE length(name) = 2000") == [(0,)]


@pytest.mark.slow
def test_a_writer_that_has_the_rows_no_more_says_that_the_change_is_made(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost, with the rows, as if the writer had restarted."""
    serve, asked = ChangeServer.serve, []

    async def losing(
        self: ChangeServer, session: Session, message: ChangeRequest, body: bytes
    ) -> Piece:
        piece = await serve(self, session, message, body)
        asked.append(message.id)
        if len(asked) == 1:
            self._writer.returned.drop(self._ledger.key(session.peer, message.id))
            raise Unavailable("the connection")
        return piece

    network = offices["oslo"].peers._network
    assert network is not None
    assert network.changes is not None
    handlers = network.sessions._handlers
    monkeypatch.setitem(handlers, ChangeRequest, losing.__get__(network.changes.server))
    with pytest.raises(Unavailable, match=r"(?s)is made, of 1 rows.*do not repeat"):
        offices["rome"].lake.sql("INSERT INTO trips(id) VALUES (77) RETURNING id")
    assert len(set(asked)) == 1
    assert len(asked) == 2
    assert offices["oslo"].query("SELECT count(*) FROM trips WHERE id = 77") == [(1,)]


@pytest.mark.slow
def test_a_lost_answer_is_repeated_with_its_rows(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, asked = ChangeServer.serve, []

    async def losing(
        self: ChangeServer, session: Session, message: ChangeRequest, body: bytes
    ) -> Piece:
        piece = await serve(self, session, message, body)
        asked.append(message.id)
        if len(asked) == 1:
            raise Unavailable("the connection")
        return piece

    network = offices["oslo"].peers._network
    assert network is not None
    assert network.changes is not None
    monkeypatch.setitem(
        network.sessions._handlers, ChangeRequest, losing.__get__(network.changes.server)
    )
    sql = "INSERT INTO trips(id) VALUES (78) RETURNING id"
    assert offices["rome"].lake.sql(sql).rows == [(78,)]
    assert len(asked) == 2


@pytest.mark.slow
def test_a_writer_of_an_earlier_version_is_named(
    offices: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = offices["rome"].peers._network
    monkeypatch.setattr(type(network), "can", lambda *_: False)
    with pytest.raises(Unsupported, match="RETURNING in a change that node oslo makes"):
        offices["rome"].lake.sql("DELETE FROM trips RETURNING id")


# What a writer keeps


def kept(results: ReturnedResults, node: str, key: str, now: float = 0.0) -> KeptRows:
    rows = KeptRows(node, results.place(), 3, now)
    rows.place.write_bytes(b"abc")
    results.keep(key, rows)
    return rows


def test_a_piece_begins_anywhere_and_none_is_outside(tmp_path: Path) -> None:
    results = ReturnedResults(tmp_path)
    kept(results, "a", "k")
    assert results.read("k", ReturnedRequest(new_id(), 1)) == b"bc"
    assert results.read("k", ReturnedRequest(new_id(), 3)) == b""
    with pytest.raises(BadInput):
        results.read("k", ReturnedRequest(new_id(), -1))
    with pytest.raises(NotFound):
        results.read("other", ReturnedRequest(new_id(), 0))


def test_one_node_cannot_push_out_the_rows_of_another(tmp_path: Path) -> None:
    results = ReturnedResults(tmp_path)
    kept(results, "a", "a0")
    files = [kept(results, "b", f"b{number}").place for number in range(20)]
    assert results.find("a0") == 3
    assert results.find("b0") is None
    assert results.find("b19") is not None
    assert len([each for each in files if each.exists()]) == 8


def test_rows_that_nobody_reads_are_removed(tmp_path: Path) -> None:
    results = ReturnedResults(tmp_path)
    rows = kept(results, "a", "k", now=5.0)
    results.sweep(600.0)
    assert rows.place.exists()
    results.sweep(606.0)
    assert not rows.place.exists()
    assert results.find("k") is None
