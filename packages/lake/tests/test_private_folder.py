"""A lake used as a library keeps its data private to its account, under any umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake

from .conftest import FLIGHTS, put


def test_folders_objects_and_the_tree_are_private(tmp_path: Path, pool: ExecutorPool) -> None:
    before = os.umask(0o022)
    try:
        root = tmp_path / "data"
        with (
            ElkynStore(root / "elkyn" / "sys", namespace="sys") as tree,
            Lake(root, tree=tree, pool=pool) as lake,
        ):
            put(lake, "flights.csv", FLIGHTS)
            tree.admin.backup(tmp_path / "backup")
    finally:
        os.umask(before)

    below = [root, tmp_path / "backup", *root.rglob("*"), *(tmp_path / "backup").rglob("*")]
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in below}
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
    assert modes["data/elkyn/sys/data.mdb"] == 0o600
    assert 0o400 in modes.values(), "objects cannot be written"
