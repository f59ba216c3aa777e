"""A dataset is deleted on a file system without a free byte."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from sennit_core.errors import StorageFull


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 40 MiB; only root may mount one."""
    libc = ctypes.CDLL(None)
    if libc.mount(b"tmpfs", os.fsencode(tmp_path), b"tmpfs", 0, b"size=40m") != 0:
        pytest.skip("no tmpfs can be mounted here")
    yield tmp_path
    libc.umount2(os.fsencode(tmp_path), 2)


@pytest.mark.slow
def test_the_reserve_allows_deleting_a_dataset_on_a_full_disk(small_disk: Path) -> None:
    with Lake(small_disk / "node") as lake:
        lake.append("one", pa.table({"a": list(range(1000))}))
        with (small_disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(StorageFull):
            lake.retention.delete_dataset("one")
        assert lake.delete("one").name == "one"
        assert list(lake.catalog.list()) == []
