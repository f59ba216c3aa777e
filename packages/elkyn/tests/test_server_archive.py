"""A server that archives its log as it grows, and a restore from the archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from elkyn.cli import main


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("durability", ["always", "interval", "none"])
def test_every_write_of_a_server_is_restored_from_backup_and_archive(
    start_server: Any, tmp_path: Path, durability: str
) -> None:
    archive, backup, other = tmp_path / "archive", tmp_path / "backup", tmp_path / "other"
    served = start_server("--archive", str(archive), "--durability", durability, "--emulator")
    served.client.put("/a.json", json=1)
    assert main(["backup", "--data", str(served.data), str(backup)]) == 0
    for number in range(20):
        served.client.put(f"/b/k{number}.json", json=number)
    served.client.put("/c.json?ns=second", json="another tree")
    assert served.stop()[0] == 0
    restoring = ["restore", "--data", str(other), "--archive", str(archive / "default")]
    assert main([*restoring, str(backup)]) == 0
    with ElkynStore(other / "default") as store, ElkynStore(served.data / "default") as kept:
        assert store.get("/") == kept.get("/") == {"a": 1, "b": {f"k{n}": n for n in range(20)}}
        assert store.position == kept.position
    assert (archive / "second").is_dir()
