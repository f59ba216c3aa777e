"""Copies of a store in use, its log in files, and going back to any position."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from elkyn.errors import PositionGone
from elkyn.recovery import Archiver, archive_log, restore
from sennit_core.errors import Corrupt, NotFound, UsageError
from sennit_core.testing import ManualClock, run_markdown


def test_a_backup_is_a_consistent_snapshot(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        pad = {f"k{number}": "x" * 500 for number in range(500)}
        store.set("/", {"a": 0, "b": 0, "pad": {**pad, "k7": 0}})
        done = threading.Event()

        def write() -> None:
            number = 0
            while not done.is_set():
                number += 1
                store.update("/", {"a": number, "pad/k7": number, "b": number})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(5):
                store.admin.backup(tmp_path / f"copy{number}")
        finally:
            done.set()
            writer.join()
        store.set("/live", 1, ephemeral=True)
        store.admin.backup(tmp_path / "last")
        last = store.position
    for number in range(5):
        with ElkynStore(tmp_path / f"copy{number}") as copy:
            assert copy.get("/a") == copy.get("/b") == copy.get("/pad/k7")
            assert copy.admin.verify() == []
            assert copy.position == copy.get("/a") + 1
    with ElkynStore(tmp_path / "last") as copy:
        assert (copy.get("/live"), copy.position) == (None, last)
        copy.set("/goes", "on")


def test_a_backup_replaces_nothing_and_leaves_nothing_half(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", 1)
        with pytest.raises(UsageError, match="exists already"):
            store.admin.backup(tmp_path / "t")
        store.admin.backup(tmp_path / "deep" / "copy")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["copy"]
    with pytest.raises(NotFound):
        restore(tmp_path / "nowhere", tmp_path / "new")


def test_a_store_in_memory_can_be_kept(tmp_path: Path) -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/a", {"b": [1, 2]})
        store.admin.backup(tmp_path / "kept")
    with ElkynStore(tmp_path / "kept") as store:
        assert store.get("/") == {"a": {"b": [1, 2]}}


def history(tmp_path: Path) -> list[Any]:
    """Write, back up, write more while archiving; returns the tree after each position."""
    clock = ManualClock()
    trees: list[Any] = [None]
    with ElkynStore(tmp_path / "t", clock=clock) as store:
        for number in range(1, 61):
            clock.advance(1)
            store.update(f"/a/{number % 7}", {f"n{number}": {"x": number, ".priority": number}})
            trees.append(store.get("/", export=True))
            if number == 20:
                store.admin.backup(tmp_path / "backup")
            if number % 9 == 0:
                archive_log(store, tmp_path / "archive")
        assert archive_log(store, tmp_path / "archive") == 60
        assert archive_log(store, tmp_path / "archive") == 60
    return trees


def test_a_backup_and_the_archive_restore_any_position(tmp_path: Path) -> None:
    trees = history(tmp_path)
    started_ms = int(ManualClock().now() * 1000)
    cases: list[tuple[dict[str, int], int]] = [
        ({}, 60),
        ({"until_position": 33}, 33),
        ({"until_position": 3}, 20),
        ({"until_ms": started_ms + 41_500}, 41),
    ]
    for number, (until, expected) in enumerate(cases):
        folder = tmp_path / f"new{number}"
        position = restore(
            tmp_path / "backup",
            folder,
            archive=tmp_path / "archive",
            until_position=until.get("until_position"),
            until_ms=until.get("until_ms"),
        )
        assert position == expected
        with ElkynStore(folder) as store:
            assert store.get("/", export=True) == trees[expected]
            assert store.admin.verify() == []
            store.set("/more", 1)
            assert store.position == expected + 1


def test_a_damaged_or_incomplete_archive_is_refused(tmp_path: Path) -> None:
    history(tmp_path)
    files = sorted((tmp_path / "archive").iterdir())
    data = files[4].read_bytes()
    files[4].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Corrupt, match="log file"):
        restore(tmp_path / "backup", tmp_path / "one", archive=tmp_path / "archive")
    files[4].unlink()
    with pytest.raises(PositionGone):
        restore(tmp_path / "backup", tmp_path / "two", archive=tmp_path / "archive")


def test_an_archive_that_the_log_has_left_behind_is_refused(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t", oplog_bytes_max="64KiB") as store:
        store.set("/a", 1)
        archive_log(store, tmp_path / "archive")
        for _number in range(30):
            store.set("/a", "x" * 20_000)
        with pytest.raises(PositionGone):
            archive_log(store, tmp_path / "archive")


def test_compacting_keeps_everything_and_frees_the_rest(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t", oplog_bytes_max="64KiB") as store:
        for number in range(40):
            store.set(f"/{number}", "x" * 100_000)
        for number in range(38):
            store.delete(f"/{number}")
        store.set("/live", 1, ephemeral=True)
        store.set("/records", {f"r{n}": {"alpha": n, "beta": "y" * 20} for n in range(500)})
        before, tree, position = store.admin.file_bytes, store.get("/"), store.position
        with store.watch("/records/r1") as events:
            store.admin.compact()
            assert store.admin.file_bytes < before / 4
            assert (store.get("/"), store.position, store.admin.verify()) == (tree, position, [])
            store.set("/records/r1/alpha", -1)
            assert [event.data for event in (next(events), next(events))][1] == -1
        assert (tmp_path / "t" / "data.mdb").stat().st_size < before / 3
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/records/r1") == {"alpha": -1, "beta": "y" * 20}
        assert not (tmp_path / "t" / "compacting").exists()


def test_a_store_in_memory_compacts_while_it_is_read() -> None:
    done = threading.Event()
    wrong: list[Any] = []
    with ElkynStore(mode="memory") as store:
        store.set("/a", "x" * 50_000)

        def read() -> None:
            while not done.is_set():
                if store.get("/a") != "x" * 50_000:
                    wrong.append(1)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(10):
            store.set("/b", "y" * number * 1000)
            store.admin.compact()
        done.set()
        reader.join()
        assert (wrong, store.position) == ([], 11)


def test_entries_are_replayed_in_order_and_sent_to_watchers(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store, ElkynStore(mode="memory") as follower:
        store.update("/", {"a": 1, "b": {"c": 2}})
        store.set("/b/c", {".value": 3, ".priority": 1})
        entries = store.oplog.read(0)
        with follower.watch("/b") as events:
            with pytest.raises(PositionGone):
                follower.admin.replicate(entries[1:])
            follower.admin.replicate(entries)
            received = [next(events), next(events), next(events)]
        assert [(event.path, event.data) for event in received[1:]] == [("/", {"c": 2}), ("/c", 3)]
        assert received[-1].position == 2
        assert follower.get("/", export=True) == store.get("/", export=True)
        assert follower.oplog.read(0) == entries


def test_writes_are_archived_in_the_background(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.admin.backup(tmp_path / "backup")
        with Archiver(store, tmp_path / "archive", every_seconds=0.001) as archiver:
            for number in range(50):
                store.set("/n", number)
        assert archiver.position == 50
        assert archiver.error is None
    restore(tmp_path / "backup", tmp_path / "new", archive=tmp_path / "archive", until_position=30)
    with ElkynStore(tmp_path / "new") as store:
        assert store.get("/n") == 29


def test_an_archive_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        with Archiver(store, tmp_path / "archive", every_seconds=0.001) as archiver:
            folder = archiver._folder
            archiver._folder = tmp_path / "t" / "data.mdb"
            store.set("/a", 1)
            while archiver.error is None:
                pass
            archiver._folder = folder
        assert archiver.position == 1
        assert archiver.error is None


def test_the_page_on_stores_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "elkyn-store.md"
    monkeypatch.chdir(tmp_path)
    assert "restore" in run_markdown(page)
