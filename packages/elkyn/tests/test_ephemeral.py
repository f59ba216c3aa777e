"""Ephemeral writes: visible like others, never in the durable tree, never in its way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore, _failpoints


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree") as store:
        yield store


def durable(store: ElkynStore) -> object:
    with store.admin.snapshot() as view:
        return view.tree.get(())


def test_an_ephemeral_value_covers_the_durable_one(store: ElkynStore) -> None:
    store.set("/job", {"state": "running", "progress": {"done": 0}})
    store.set("/job/progress", {"done": 5}, ephemeral=True)
    store.set("/job/progress/total", 9, ephemeral=True)
    assert store.get("/job") == {"state": "running", "progress": {"done": 5, "total": 9}}
    assert durable(store) == {"job": {"state": "running", "progress": {"done": 0}}}


def test_it_outlives_the_process_but_not_the_boot(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", 1)
        store.set("/b", 2, ephemeral=True)
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/") == {"a": 1, "b": 2}
    (tmp_path / "t" / "ephemeral" / "boot").write_text("another boot\n")
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/") == {"a": 1}


def test_a_torn_ephemeral_file_of_another_boot_is_never_read(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", 1)
        store.set("/b", 2, ephemeral=True)
    (tmp_path / "t" / "ephemeral" / "boot").write_text("another boot\n")
    (tmp_path / "t" / "ephemeral" / "data.mdb").write_bytes(b"torn" * 5000)
    with ElkynStore(tmp_path / "t") as store:
        store.set("/b", 3, ephemeral=True)
        assert store.get("/") == {"a": 1, "b": 3}


def test_a_durable_write_above_replaces_it(store: ElkynStore) -> None:
    store.set("/job/progress/done", 5, ephemeral=True)
    store.set("/job", {"state": "done"})
    assert store.get("/") == durable(store) == {"job": {"state": "done"}}


def test_a_durable_write_below_makes_the_whole_value_durable(store: ElkynStore) -> None:
    store.set("/job", {"done": 5}, ephemeral=True)
    store.set("/job/state", "done")
    assert store.get("/") == durable(store) == {"job": {"done": 5, "state": "done"}}


def test_an_ephemeral_delete_hides_and_a_durable_write_shows_again(store: ElkynStore) -> None:
    store.set("/a", {"b": 1, "c": 2})
    store.delete("/a/b", ephemeral=True)
    assert (store.get("/a"), store.keys("/a")) == ({"c": 2}, ["c"])
    store.delete("/a/c", ephemeral=True)
    assert store.get("/") is None
    store.set("/a/b", 3)
    assert store.get("/") == {"a": {"b": 3}}


def test_a_scalar_in_the_way_stays_replaced(store: ElkynStore) -> None:
    store.set("/a", 5)
    store.set("/a/b", 1, ephemeral=True)
    store.delete("/a/b", ephemeral=True)
    assert store.get("/") is None
    assert durable(store) == {"a": 5}


def test_no_shadow_is_left_when_values_go_back_to_nothing(store: ElkynStore) -> None:
    for number in range(20):
        store.set(f"/live/{number}/at", number, ephemeral=True)
    store.delete("/live", ephemeral=True)
    assert store.get("/") is None
    assert store._disk._ephemeral_count == 0


def test_a_read_that_a_commit_falls_into_starts_again(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set("/pair", {"a": "old"})
    store.set("/pair/b", "old", ephemeral=True)
    env = store._disk._durable
    enter = env.enter

    def enter_after_write() -> Any:
        monkeypatch.setattr(env, "enter", enter)
        txn = enter()
        store.set("/pair", {"a": "new", "b": "new"})
        return txn

    monkeypatch.setattr(env, "enter", enter_after_write)
    assert store.get("/pair") == {"a": "new", "b": "new"}


def test_a_read_between_the_two_commits_of_a_write_waits_for_the_second(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set("/pair", {"a": "old"})
    store.set("/pair/b", "old", ephemeral=True)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.append(store.get("/pair")))

    def read_between(point: str) -> None:
        if point == "between-environments":
            reader.start()
            reader.join(timeout=0.2)

    monkeypatch.setattr(_failpoints, "hook", read_between)
    store.set("/pair", {"a": "new", "b": "new"})
    reader.join()
    assert seen == [{"a": "new", "b": "new"}]


def test_when_the_durable_commit_fails_the_ephemeral_values_are_still_there(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set("/pair", {"a": "old"})
    store.set("/pair/b", "old", ephemeral=True)

    def fail(point: str) -> None:
        if point == "between-environments":
            raise OSError("the disk is gone")

    with store.watch("/pair") as events:
        monkeypatch.setattr(_failpoints, "hook", fail)
        with pytest.raises(OSError, match="gone"):
            store.set("/pair", {"a": "new"})
        assert store.get("/pair") == {"a": "old", "b": "old"}
        assert [events.poll(), events.poll()][1] is None


def exported(store: ElkynStore) -> object:
    return store.get("/", export=True)


def test_a_map_keeps_its_priority_when_only_ephemeral_children_are_left(store: ElkynStore) -> None:
    store.set("/m", {"a": 1, ".priority": 3})
    store.set("/m/b", 2, ephemeral=True)
    store.delete("/m/a")
    assert exported(store) == {"m": {"b": 2, ".priority": 3}}
    assert store.get("/m/.priority") == 3
    entry = store.oplog.read(store.position - 1)[0]
    assert [path for path, _value in entry.places] == [("m", "a"), ("m", "b"), ("m", ".priority")]


def test_a_map_of_ephemeral_children_accepts_a_durable_priority(store: ElkynStore) -> None:
    store.set("/m/b", 2, ephemeral=True)
    store.set("/m/.priority", "p")
    assert exported(store) == {"m": {"b": 2, ".priority": "p"}}


@pytest.mark.parametrize("ephemeral", [True, False])
def test_a_priority_does_not_reappear_with_a_map_that_was_emptied(
    store: ElkynStore, ephemeral: bool
) -> None:
    store.set("/m", {"a": 1, "b": 2, ".priority": 3})
    store.delete("/m/a", ephemeral=True)
    store.delete("/m/b", ephemeral=ephemeral)
    assert exported(store) is None
    store.set("/m/c", 4)
    assert exported(store) == {"m": {"c": 4}}
    store.set("/m/a", 1)
    assert exported(store) == {"m": {"a": 1, "c": 4}}
