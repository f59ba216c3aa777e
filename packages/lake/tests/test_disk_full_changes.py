"""Changes of datasets on a real file system without room: a clear error, and nothing is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from sennit_core.errors import StorageFull

from .small_disks import mounted_tmpfs

ROWS = 160_000
MIB = 1 << 20


def rows(start: int, count: int) -> pa.Table:
    """Rows that do not compress: 64 bytes each, and a key."""
    keys = range(start, start + count)
    texts = [hashlib.sha256(b"%d" % key).hexdigest() for key in keys]
    return pa.table({"id": list(keys), "text": texts})


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Lake]:
    """Two datasets, and a disk that has room for one of them again once its filler is gone."""
    folder = tmp_path / "disk"
    with mounted_tmpfs(folder, "size=160m"), Lake(folder / "node") as lake:
        for start in range(0, ROWS, ROWS // 8):
            lake.append("t", rows(start, ROWS // 8))
        lake.append("other", rows(0, 10))
        yield lake


CHANGES: dict[str, Callable[[Lake], object]] = {
    "upsert": lambda lake: lake.upsert("t", rows(100, ROWS), key=["id"]),
    "append": lambda lake: lake.append("t", rows(1_000_000, ROWS)),
    "merge": lambda lake: lake.sql(
        "MERGE INTO t USING (SELECT id + 7 AS id, text FROM t) s ON t.id = s.id "
        "WHEN MATCHED THEN UPDATE SET text = s.text WHEN NOT MATCHED THEN INSERT"
    ),
    "transaction": lambda lake: lake.sql(
        "BEGIN; INSERT INTO other VALUES (77, 'x'); UPDATE t SET text = sha256(text); COMMIT"
    ),
    "compaction": lambda lake: lake.compact("t"),
    "purge": lambda lake: lake.purge("t", "id % 2 = 1", wait_seconds=0),
}


def fill(folder: Path) -> Path:
    """Leave room for the reserve of the lake and for a tenth of what a change of `t` writes."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 43 * MIB // 4)
    return filler


def contents(lake: Lake) -> list[object]:
    return [lake.sql(f"FROM {name} ORDER BY id").rows for name in ("t", "other")]


@pytest.mark.slow  # each fills a disk
@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_without_room_changes_nothing_and_works_with_room(
    crowded: Lake, kind: str
) -> None:
    before, versions = contents(crowded), len(list(crowded.catalog.snapshots("t")))
    filler = fill(crowded.folder.parent)
    try:
        with pytest.raises(StorageFull):
            CHANGES[kind](crowded)

        assert contents(crowded) == before
        assert len(list(crowded.catalog.snapshots("t"))) == versions
        assert [name for name in crowded.objects if not crowded.catalog.references(name)] == []
        crowded.append("other", rows(1000, 1))  # a small one still fits
    finally:
        filler.unlink()

    CHANGES[kind](crowded)
    assert crowded.verify().findings == ()
    assert contents(crowded) != before
