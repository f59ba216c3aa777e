"""A disk without room: a clear error, earlier data intact, and writes work again when there is room."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from elkyn.server.handle import handle
from elkyn.server.request import Request
from sennit_core.errors import StorageFull


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(store: ElkynStore, *, ephemeral: bool) -> tuple[StorageFull, int]:
    for number in range(1000):
        try:
            store.set(f"/n{number}", "x" * 50_000, ephemeral=ephemeral)
        except StorageFull as full:
            return full, number
    pytest.fail("the disk was never full")


@pytest.mark.parametrize("ephemeral", [False, True])
def test_a_full_disk_keeps_stored_data(small_disk: Path, ephemeral: bool) -> None:
    with ElkynStore(small_disk / "t") as store:
        full, stored = fill(store, ephemeral=ephemeral)
        assert str(full.path).startswith(str(small_disk))
        assert len(store.get("/")) == stored > 20
        answer = handle(Request("PUT", "/big.json", body=json.dumps("x" * 900_000).encode()), store)
        assert answer.status == 507
        for number in range(stored):
            store.delete(f"/n{number}", ephemeral=ephemeral)
        store.set("/n0", "x" * 50_000, ephemeral=ephemeral)
        assert store.get("/") == {"n0": "x" * 50_000}


def test_reads_continue_and_writes_recover_by_themselves(small_disk: Path) -> None:
    with ElkynStore(small_disk / "t") as store:
        ballast = small_disk / "ballast"
        store.set("/a", {"b": 1})
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"x" * (free - 4096))
        with pytest.raises(StorageFull) as refused:
            store.set("/big", "x" * 200_000)
        assert refused.value.free_bytes is not None
        position = store.position
        with store.watch("/a") as events:
            assert next(events).data == store.get("/a") == {"b": 1}
            assert store.admin.verify() == []
            ballast.unlink()
            store.set("/a/b", 2)
            assert next(events).data == 2
        assert store.position == position + 1
    with ElkynStore(small_disk / "t") as store:
        assert store.get("/") == {"a": {"b": 2}}
        assert [entry.position for entry in store.oplog.read(0)] == [1, 2]


def test_a_backup_that_finds_no_room_leaves_nothing(small_disk: Path) -> None:
    with ElkynStore(small_disk / "t", oplog_bytes_max=0) as store:
        for number in range(22):
            store.set(f"/n{number}", "x" * 50_000)
        store.admin.backup(small_disk / "copy")
        with pytest.raises(StorageFull):
            store.admin.backup(small_disk / "copy1")
        left = sorted(file.name for file in small_disk.iterdir())
        assert all(not name.endswith(".partial") for name in left)
        shutil.rmtree(small_disk / "copy")
        store.set("/after", 1)
        assert store.get("/after") == 1


def test_a_compaction_that_finds_no_room_keeps_the_file(small_disk: Path) -> None:
    with ElkynStore(small_disk / "t", oplog_bytes_max=0) as store:
        fill(store, ephemeral=False)
        tree = store.get("/")
        with pytest.raises(StorageFull):
            store.admin.compact()
        assert (store.get("/"), store.admin.verify()) == (tree, [])
        for number in range(40):
            store.delete(f"/n{number}")
        assert len(store.get("/")) == len(tree) - 40
