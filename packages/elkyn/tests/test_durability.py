"""When writes reach the disk, what happens when they cannot, and stores that may be torn."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import lmdb
import pytest

from elkyn import ElkynStore
from elkyn.storage.durability import Durability
from sennit_core.errors import Corrupt, StorageFull, UsageError


@pytest.mark.parametrize("durability", ["always", "interval", "none"])
def test_values_are_there_after_reopening(tmp_path: Path, durability: Durability) -> None:
    for number in range(3):
        with ElkynStore(tmp_path / "t", durability=durability) as store:
            assert store.get("/n") == (number - 1 if number else None)
            store.set("/n", number)
    assert not (tmp_path / "t" / "unsynced").exists()


def test_an_unknown_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'sometimes'"):
        ElkynStore(tmp_path / "t", durability="sometimes")  # type: ignore[arg-type]


def test_with_an_interval_commits_are_synced_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ElkynStore(tmp_path / "t", durability="interval", sync_interval_ms=1) as store:
        synced = threading.Event()
        monkeypatch.setattr(store._disk._syncer, "_sync", synced.set)
        store.set("/a", 1)
        assert synced.wait(10)


def test_when_a_sync_fails_writes_are_refused_until_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ElkynStore(tmp_path / "t", durability="interval", sync_interval_ms=1) as store:
        syncer = store._disk._syncer
        full, tried = True, threading.Semaphore(0)

        def sync() -> None:
            tried.release()
            if full:
                raise StorageFull("disk")

        monkeypatch.setattr(syncer, "_sync", sync)
        store.set("/a", 1)
        assert tried.acquire(timeout=10)
        assert tried.acquire(timeout=10)
        with pytest.raises(StorageFull):
            store.set("/a", 2)
        assert store.get("/a") == 1
        full = False
        while syncer.error is not None:
            assert tried.acquire(timeout=10)
        store.set("/a", 3)
        assert store.get("/a") == 3


@pytest.mark.slow
def test_a_store_that_the_machine_left_unsynced_is_verified(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", {f"k{number}": "x" * 100 for number in range(100)})
    (tmp_path / "t" / "unsynced").write_text("another boot\n")
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/a/k5") == "x" * 100
        damage(store)
    (tmp_path / "t" / "unsynced").write_text("another boot\n")
    with pytest.raises(Corrupt, match="cannot be read"):
        ElkynStore(tmp_path / "t")


@pytest.mark.parametrize("how", ["cut", "zeroed"])
def test_a_store_whose_pages_never_arrived_is_refused(tmp_path: Path, how: str) -> None:
    with ElkynStore(tmp_path / "t", durability="none") as store:
        store.set("/a", {f"k{number}": "x" * 1000 for number in range(400)})
    file = tmp_path / "t" / "data.mdb"
    half = file.stat().st_size // 8192 * 4096
    (tmp_path / "t" / "unsynced").write_text("another boot\n")
    if how == "cut":
        os.truncate(file, half)
    else:
        file.write_bytes(file.read_bytes()[:8192] + bytes(file.stat().st_size - 8192))
    with pytest.raises(Corrupt) as refused:
        ElkynStore(tmp_path / "t")
    assert refused.value.hint is not None
    assert "restore a backup" in refused.value.hint


def damage(store: ElkynStore) -> None:
    env = store._disk._durable
    txn = env.begin_write()
    with txn.cursor(db=env.databases["tree"]) as cursor:
        cursor.last()
        txn.put(cursor.key(), b"\x01\xc1", db=env.databases["tree"])
    txn.commit()


def test_verify_finds_inconsistencies(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", {f"k{number}": {"x": number, "pad": "y" * 60} for number in range(100)})
        store.set("/b", {".value": "z" * 5000, ".priority": 1})
        store.set("/é" * 10, 1)
        assert store.admin.verify() == []
        damage(store)
        env = store._disk._durable
        txn = env.begin_write()
        txn.put(b"\x01\x77\x02lost", b"\x01\x01", db=env.databases["tree"])
        txn.delete((2).to_bytes(8, "big"), db=env.databases["oplog"])
        txn.commit()
        unreadable, orphan, gap = store.admin.verify()
        assert "cannot be read" in unreadable
        assert "a row that is unreachable from the root" in orphan
        assert gap == "the log jumps from 1 to 3"


def test_lmdb_wants_to_start_over_and_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", 1)
        env = store._disk._durable

        class Broken:
            def __getattr__(self, name: str) -> Any:
                return getattr(known, name)

            def begin(self, **_options: Any) -> Any:
                raise lmdb.PanicError("a page could not be written")

        known = env._env
        monkeypatch.setattr(env, "_env", Broken())
        store.set("/a", 2)
        assert store.get("/a") == 2
        assert store.position == 2
