"""Appends that wait while the writer of their dataset is away: durable, delivered once, in order, with rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from lake.peers.changes import deliveries
from lake.peers.changes.append_queue import QueuedAppend
from lake.statements.limits import Requester
from sennit_core.errors import Conflict, NotFound, StorageFull, Unavailable, UsageError

from .real_offices import Office, office
from .test_peers_service import eventually

# Real nodes with executors, and times of the protocols.
pytestmark = [pytest.mark.slow, pytest.mark.nightly]
TABLE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})
ROWS = "SELECT id FROM trips ORDER BY id"
ADMIN = Requester()


class World:
    """Oslo writes `trips`, makes changes of Rome, and comes and goes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._oslo = ExitStack()
        stack.callback(lambda: self._oslo.close())
        self.rome = stack.enter_context(office(folder, "rome"))
        self.oslo = self._oslo.enter_context(office(folder, "oslo"))
        self.oslo.lake.append("trips", TABLE)
        self.rome.peers.join(self.oslo.peers.invite())
        self.oslo.peers.share("trips", ["rome"])
        eventually(lambda: "trips" in self.rome.names() and self.accepts())

    def accepts(self) -> bool:
        return self.rome.peers.accepts_changes(self.rome.lake.catalog.get("trips").id)

    def leave(self) -> None:
        self._oslo.close()

    def come_back(self) -> Office:
        self._oslo = ExitStack()
        self.oslo = self._oslo.enter_context(office(self._folder, "oslo"))
        return self.oslo

    def states(self) -> list[str]:
        return [each.state for each in self.rome.lake.queued.list()]

    def ids_at_oslo(self) -> list[object]:
        return [row[0] for row in self.oslo.query(ROWS)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def test_rows_of_both_ways_wait_and_are_committed_once_in_order(world: World) -> None:
    rome = world.rome.lake
    rome.append("more", pa.table({"id": [7], "name": ["x"]}))
    world.leave()
    with pytest.raises(Unavailable) as refused:
        rome.sql("INSERT INTO trips VALUES (4, 'd')")
    assert "--queue" in str(refused.value.hint)
    result = rome.sql("INSERT INTO trips VALUES ($id, 'd')", {"id": 4}, queue=True)
    [first] = rome.queued.list()
    assert (result.rows, result.manifest["queued"]) == ([(first.id,)], first.id)
    rome.append("trips", pa.table({"id": [5, 6], "name": ["e", "f"]}), queue=True)
    rome.sql("INSERT INTO trips SELECT * FROM more", queue=True)
    # What an INSERT reads is read when it is queued, and kept.
    rome.delete("more")
    assert world.states() == ["waiting"] * 3
    assert rome.catalog.get("trips").rows == 3
    world.come_back()
    eventually(lambda: not world.states())
    assert world.ids_at_oslo() == [1, 2, 3, 4, 5, 6, 7]
    # The newest first.
    queries = [each.snapshot.query or "" for each in world.oslo.lake.catalog.snapshots("trips")]
    assert ["more" in queries[0], "file" in queries[1], "$id" in queries[2]] == [True] * 3
    eventually(lambda: rome.sql("SELECT count(*) FROM trips").rows == [(7,)])
    assert not rome.retention.pins()


def test_while_the_writer_is_there_nothing_is_queued(world: World) -> None:
    rome = world.rome.lake
    assert rome.sql("INSERT INTO trips VALUES (4, 'd')", queue=True).value == 1
    assert rome.append("trips", pa.table({"id": [5], "name": ["e"]}), queue=True).rows == 5
    assert not rome.queued.list()
    assert world.ids_at_oslo() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM trips",
        "UPDATE trips SET id = 1",
        "INSERT INTO trips SELECT * FROM trips",
        "INSERT INTO trips VALUES (1, 'a') RETURNING id",
    ],
)
def test_only_what_adds_rows_is_queued(world: World, sql: str) -> None:
    with pytest.raises(UsageError, match="queued"):
        world.rome.lake.sql(sql, queue=True)
    with pytest.raises(UsageError, match="upsert"):
        world.rome.lake.upsert("trips", TABLE, key=["id"], queue=True)
    assert not world.states()


def test_a_refusal_is_kept_with_its_reason_and_the_next_append_follows(world: World) -> None:
    rome = world.rome.lake
    world.leave()
    rome.append("trips", pa.table({"id": [4], "name": ["d"]}), queue=True)
    rome.sql("INSERT INTO trips (id) VALUES (5)", queue=True)
    cancelled = rome.sql("INSERT INTO trips (id) VALUES (6)", queue=True).value
    assert rome.queued.remove(cancelled, ADMIN).state == "waiting"
    with pytest.raises(NotFound):
        rome.queued.remove(cancelled, ADMIN)
    world.come_back().lake.sql("ALTER TABLE trips RENAME COLUMN name TO label")
    eventually(lambda: world.states() == ["refused"])
    assert world.ids_at_oslo() == [1, 2, 3, 5]
    [refused] = rome.queued.list()
    assert "name" in str(refused.error)
    world.oslo.lake.sql("ALTER TABLE trips RENAME COLUMN label TO name")
    again = rome.queued.retry(refused.id, ADMIN)
    with pytest.raises((Conflict, NotFound)):
        rome.queued.retry(again.id, ADMIN)
    eventually(lambda: not world.states())
    assert world.ids_at_oslo() == [1, 2, 3, 4, 5]


def test_a_user_who_lost_the_right_meanwhile_appends_nothing(world: World) -> None:
    rome = world.rome.lake
    roles: dict[str, str | None] = {"ann": "writer", "bob": "writer"}
    rome.queued.find_role = lambda user, _role: roles[user]
    world.leave()
    for user, number in (("ann", 4), ("bob", 5)):
        rome.sql(f"INSERT INTO trips (id) VALUES ({number})", queue=True, user=user, role="writer")
    assert [each.user for each in rome.queued.list(Requester("bob", role="writer"))] == ["bob"]
    with pytest.raises(NotFound):
        rome.queued.remove(rome.queued.list()[0].id, Requester("bob", role="writer"))
    roles["ann"] = None
    world.come_back()
    eventually(lambda: world.states() == ["refused"])
    assert world.ids_at_oslo() == [1, 2, 3, 5]
    assert rome.queued.list()[0].error["code"] == "denied"  # type: ignore[index]
    assert world.oslo.lake.catalog.manifest("trips").snapshot.author == "bob@rome"


def test_a_full_disk_keeps_the_end_of_an_append_waiting_and_commits_it_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rome = world.rome.lake
    world.leave()
    for number in (4, 5):
        rome.sql(f"INSERT INTO trips (id) VALUES ({number})", queue=True)
    monkeypatch.setattr(deliveries, "_STORE_SECONDS", 0.05)
    failures = [StorageFull("the disk", 1, 0) for _ in range(5)]
    seen: list[list[object]] = []
    remove = rome.queued._table.remove

    def full(name: str) -> None:
        if failures:
            seen.append(world.ids_at_oslo())
            raise failures.pop()
        remove(name)

    monkeypatch.setattr(rome.queued._table, "remove", full)
    world.come_back()
    eventually(lambda: not world.states())
    assert not failures
    # The next append waits until what became of this one is stored.
    assert seen == [[1, 2, 3, 4]] * 5
    assert world.ids_at_oslo() == [1, 2, 3, 4, 5]


def test_an_append_is_not_sent_while_it_cannot_be_noted_as_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rome = world.rome.lake
    world.leave()
    rome.sql("INSERT INTO trips (id) VALUES (4)", queue=True)
    failures = [StorageFull("the disk", 1, 0) for _ in range(2)]
    put = rome.queued._table.put

    def full(name: str, row: QueuedAppend) -> None:
        if failures:
            assert world.ids_at_oslo() == [1, 2, 3]
            raise failures.pop()
        put(name, row)

    monkeypatch.setattr(rome.queued._table, "put", full)
    world.come_back()
    eventually(lambda: not world.states())
    assert not failures
    assert world.ids_at_oslo() == [1, 2, 3, 4]
