"""The log of durable writes: it is complete, in order, bounded, and agrees with the data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from elkyn.errors import PositionGone
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import put_write
from elkyn.testing import replayed
from elkyn.tree.paths import Path as Keys
from elkyn.tree.values import Stored
from sennit_core.errors import Denied
from sennit_core.testing import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree", clock=ManualClock()) as store:
        yield store


def test_each_durable_write_is_one_entry_with_resolved_values(store: ElkynStore) -> None:
    store.set("/a", {"n": {".sv": {"increment": 2}}, "at": {".sv": "timestamp"}})
    store.update("/a", {"n": None, "b/c": [1]})
    put, patch = store.oplog.read(0)
    now = int(ManualClock().now() * 1000)
    assert put == (1, 1, now, "put", ("a",), [(("a",), {"at": now, "n": 2})], None)
    assert (patch.position, patch.kind, patch.base) == (2, "patch", ("a",))
    assert patch.places == [(("a", "n"), None), (("a", "b", "c"), {"0": 1})]
    assert (store.oplog.first, store.oplog.last, store.position) == (1, 2, 2)


def test_positions_continue_after_reopening(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        with ElkynStore(tmp_path / "t") as store:
            store.set("/n", expected)
            assert store.position == expected
            assert [entry.position for entry in store.oplog.read(expected - 1)] == [expected]


def test_failed_and_refused_writes_are_not_in_it(store: ElkynStore) -> None:
    def refuse(_view: ReadTransaction, places: list[tuple[Keys, Stored]], _now_ms: int) -> None:
        raise Denied(f"writing {places}")

    good, bad = put_write(("a",), 1), put_write(("b",), 2)
    bad.authorize = refuse
    store.admin.apply([good, bad, put_write(("c",), 3)])
    with pytest.raises(ZeroDivisionError):
        store.transaction("/a", lambda n: n / 0)
    assert isinstance(bad.error, Denied)
    assert store.get("/") == {"a": 1, "c": 3}
    assert [entry.base for entry in store.oplog.read(0)] == [("a",), ("c",)]
    assert good.position == 1


def test_ephemeral_writes_leave_no_entry_but_a_mark(store: ElkynStore) -> None:
    store.set("/a", 1)
    assert store.admin.ephemeral_position == -1
    store.set("/live", 1, ephemeral=True)
    assert (store.position, store.admin.ephemeral_position) == (1, 1)
    store.set("/a", 2)
    assert (store.position, store.admin.ephemeral_position) == (2, 1)


def test_an_ephemeral_value_made_durable_is_logged_whole(store: ElkynStore) -> None:
    store.set("/job", {"state": "running", "done": 1}, ephemeral=True)
    store.update("/job", {"state": "done", "left": 0})
    whole = {"done": 1, "left": 0, "state": "done"}
    assert store.oplog.read(0)[0].places == [(("job",), whole)]
    assert replayed(store.oplog.read(0)) == whole_tree(store) == {"job": whole}


def whole_tree(store: ElkynStore) -> Any:
    with store.admin.snapshot() as view:
        return view.tree.get(())


@pytest.mark.slow
def test_the_log_alone_rebuilds_the_tree(store: ElkynStore) -> None:
    for number in range(300):
        store.set(f"/a/{number % 7}/n{number}", {"x": number, ".priority": number})
        store.update("/", {f"a/{number % 5}/n{number - 5}": None, f"b/{number % 50}": "y" * 100})
    store.set("/live/x", 1, ephemeral=True)
    store.set("/live/x/y", 2)
    assert replayed(store.oplog.read(0)) == whole_tree(store)


def test_old_entries_go_when_the_log_is_too_large(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t", oplog_bytes_max="1MiB") as store:
        for number in range(400):
            store.set("/a", f"{number}" + "x" * 10_000)
        assert store.position == 400
        assert 1 < store.oplog.first < 400
        with store._disk.log() as rows:
            assert rows.size_bytes() < 2 * 1024 * 1024
        assert [entry.position for entry in store.oplog.read(398)] == [399, 400]
        with pytest.raises(PositionGone, match="cannot be read after 5"):
            store.oplog.read(5)
        assert (store.oplog.covers(5), store.oplog.covers(398)) == (False, True)
        assert (store.oplog.covers(400), store.oplog.covers(401)) == (True, False)


def test_old_entries_go_by_age(tmp_path: Path) -> None:
    clock = ManualClock()
    with ElkynStore(tmp_path / "t", clock=clock, oplog_seconds_max=60) as store:
        store.set("/a", "x" * 300_000)
        clock.advance(61)
        store.set("/a", "x" * 300_000)
        store.set("/a", "x" * 300_000)
        assert store.oplog.first == 2


@pytest.mark.slow
def test_a_snapshot_knows_its_position(store: ElkynStore) -> None:
    done = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not done.is_set():
            with store.admin.snapshot() as view:
                if view.position != (view.get(("n",)) or 0):
                    wrong.append(view.position)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 300):
        store.set("/n", number)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_events_carry_the_position_of_their_commit(store: ElkynStore) -> None:
    with store.watch("/a") as events:
        assert next(events).position == 0
        store.set("/b", 1)
        store.set("/a", 1)
        assert next(events).position == 2


def test_observers_are_notified_of_each_commit_until_removed(store: ElkynStore) -> None:
    observe_term: list[tuple[int, list[Keys]]] = []
    end = store.admin.observe(lambda position, paths: observe_term.append((position, paths)))
    store.update("/a", {"b": 1, "c": 2})
    store.set("/live", 1, ephemeral=True)
    store.transaction("/n", lambda n: 1)
    end()
    store.set("/x", 1)
    assert observe_term == [(1, [("a", "b"), ("a", "c")]), (1, [("live",)]), (2, [("n",)])]
