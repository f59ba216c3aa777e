"""A disk without room: a clear error, earlier data intact, and work goes on when there is room."""

from __future__ import annotations

import json
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
def test_a_full_disk_keeps_what_was_stored(small_disk: Path, ephemeral: bool) -> None:
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
