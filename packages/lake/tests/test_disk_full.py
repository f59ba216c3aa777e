"""A full disk, as the kernel reports it: a clear error, and stored data stays intact."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from lake.ingest.shards import Limits, ShardWriter
from lake.objects.durable import NewFile
from lake.objects.store import ObjectStore
from lake.uploads.parts import PartStore
from sennit_core.errors import StorageFull

from .conftest import put

DEV_FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not DEV_FULL.exists(), reason="the system has no /dev/full")


def fill(new: NewFile) -> None:
    """From now on every write of this file meets a full disk."""
    new._file.close()
    new._file = DEV_FULL.open("wb", buffering=0)


def test_a_part_that_does_not_fit_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    upload = store.start("a.csv", 8, part_bytes=4)
    with store.open_part(upload.id, 0) as part:
        part.write(b"abcd")
        part.commit()

    with store.open_part(upload.id, 1) as part:
        fill(part._new)
        with pytest.raises(StorageFull) as caught:
            part.write(b"efgh")

    assert caught.value.free_bytes is not None
    assert store.get(upload.id).have == (0,)
    assert sorted(p.suffix for p in store.folder(upload.id).iterdir()) == [".json", ".part"]


def test_an_object_that_does_not_fit_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    kept = store.put_bytes(b"kept").object

    with store.open_writer() as writer:
        fill(writer._new)
        with pytest.raises(StorageFull):
            writer.write(b"more")

    assert list(store) == [kept]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_shard_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x-00000.parquet").symlink_to(DEV_FULL)
    writer = ShardWriter(tmp_path, Limits(), "x")
    writer.write(pa.record_batch({"a": pa.array(range(1000))}), start=0, stop=1)

    with pytest.raises(StorageFull):
        writer.cut()
    writer.discard()


def test_an_ingest_that_meets_a_full_disk_leaves_the_other_datasets(
    flights: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: NewFile, data: bytes) -> None:
        raise StorageFull(path=str(self.path), needed_bytes=len(data), free_bytes=0)

    with monkeypatch.context() as patch:
        patch.setattr(NewFile, "write", no_room)
        upload = None
        with pytest.raises(StorageFull):
            upload = put(flights, "more.csv", "a\n1\n")
    assert upload is None
    assert [info.name for info in flights.catalog.list()] == ["flights"]
    assert flights.sql("SELECT count(*) FROM flights").value == 4
    flights.delete("flights")
    assert list(flights.objects) == []
