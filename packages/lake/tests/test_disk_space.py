"""The disk's reserve and the lake's quota: what is refused, what still works, and the message."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.objects.disk_space import DiskSpace, Usage
from sennit_core.errors import StorageFull

from .conftest import put, upload_file
from .small_disks import mounted_tmpfs

MIB = 1 << 20
RANDOM = "SELECT md5(i::VARCHAR) AS a, md5((i + 1)::VARCHAR) AS b FROM range({}) r(i)"


@contextmanager
def opened(folder: Path, pool: ExecutorPool, **settings: object) -> Iterator[Lake]:
    with (
        ElkynStore(folder / "elkyn" / "sys", namespace="sys", map_size=8 * MIB) as tree,
        Lake(folder, tree=tree, pool=pool, **settings) as lake,  # type: ignore[arg-type]
    ):
        yield lake


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_tmpfs(tmp_path / "disk", "size=64m,nr_inodes=400") as folder:
        yield folder


def fill(folder: Path, leave_bytes: int) -> None:
    disk = os.statvfs(folder)
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - leave_bytes)


def assert_a_full_disk_still_serves(lake: Lake) -> None:
    """Queries, deletions of rows without a rewrite, and deletions of datasets."""
    assert lake.sql("SELECT count(*) FROM kept").value == 1000
    lake.sql("TRUNCATE kept")
    lake.delete("kept")
    assert list(lake.catalog.list()) == []
    assert list(lake.objects) == []


@pytest.mark.slow  # fills a file system, twice
@pytest.mark.parametrize(
    "write",
    [
        lambda lake: lake.sql(f"CREATE TABLE huge AS {RANDOM.format(5_000_000)}"),
        lambda lake: lake.sql(f"INSERT INTO kept {RANDOM.format(5_000_000)}"),
        lambda lake: put(lake, "huge.csv", "a,b\n" + "1,2\n" * 5_000_000),
        lambda lake: put(lake, "huge.csv.gz", gzip_of("a,b\n" + "1,2\n" * 9_000_000)),
    ],
    ids=["create", "insert", "upload", "unpack"],
)
def test_what_does_not_fit_is_refused_and_leaves_the_reserve(
    small_disk: Path, pool: ExecutorPool, write: Callable[[Lake], object]
) -> None:
    with opened(small_disk / "node", pool) as lake:
        lake.sql(f"CREATE TABLE kept AS {RANDOM.format(1000)}")
        fill(small_disk, 24 * MIB)

        with pytest.raises(StorageFull) as caught:
            write(lake)

        assert "free, of which 4.0 MiB are reserved" in str(caught.value)
        assert str(small_disk) not in str(caught.value.to_json())
        assert "delete datasets" in (caught.value.hint or "")
        for upload in lake.parts.list():
            lake.parts.abort(upload.id)
        assert list((small_disk / "node" / "lake" / "staging").iterdir()) == []
        assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize >= 4 * MIB
        assert_a_full_disk_still_serves(lake)


def gzip_of(text: str) -> bytes:
    import gzip

    return gzip.compress(text.encode(), 1)


def test_the_last_inodes_are_reserved_too(small_disk: Path, pool: ExecutorPool) -> None:
    with opened(small_disk / "node", pool) as lake:
        lake.sql(f"CREATE TABLE kept AS {RANDOM.format(1000)}")
        with suppress(OSError):
            for index in range(400):
                if os.statvfs(small_disk).f_favail < 20:
                    break
                (small_disk / f"file{index}").touch()

        for write in (
            lambda: lake.sql("CREATE TABLE more AS SELECT 1 AS a"),
            lambda: lake.append("more", pa.table({"a": [1]})),
            lambda: lake.parts.start("a.csv", 10),
        ):
            with pytest.raises(StorageFull, match=r"has room for 1\d \(inodes\), of which 25"):
                write()

        assert_a_full_disk_still_serves(lake)


def test_a_quota_of_bytes_limits_every_writer(tmp_path: Path, pool: ExecutorPool) -> None:
    with opened(tmp_path, pool, quota_bytes=MIB) as lake:
        lake.sql(f"CREATE TABLE kept AS {RANDOM.format(1000)}")

        with pytest.raises(StorageFull, match="of the lake's quota are left") as caught:
            lake.sql(f"INSERT INTO kept {RANDOM.format(100_000)}")

        assert "storage.quota_bytes" in (caught.value.hint or "")
        assert lake.objects.usage().bytes < MIB
        lake.append("kept", pa.table({"a": [os.urandom(300_000).hex()], "b": ["x"]}))
        with pytest.raises(StorageFull):  # what another dataset has stored counts
            put(lake, "more.csv", f"a\n{os.urandom(900_000).hex()}\n")
        lake.delete("kept")
        put(lake, "again.csv", f"a\n{os.urandom(400_000).hex()}\n")


def test_a_quota_of_objects_counts_manifests_and_is_checked_before_a_change(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path, pool, quota_objects=4) as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
        lake.sql("INSERT INTO t VALUES (2)")

        with pytest.raises(StorageFull, match="holds 4 of its quota of 4"):
            lake.sql("INSERT INTO t VALUES (3)")
        with pytest.raises(StorageFull, match="holds 4 of its quota of 4"):
            upload_file(lake, "more.csv", "a\n1\n")

        assert lake.sql("SELECT sum(a) FROM t").value == 3
        assert lake.objects.usage().objects == 4


def test_concurrent_writers_do_not_use_the_same_room(tmp_path: Path) -> None:
    space = DiskSpace(tmp_path, lambda: Usage(50, 1), quota_bytes=100)
    admitted: list[int] = []
    refused: list[int] = []
    barrier = threading.Barrier(8)

    def write() -> None:
        barrier.wait()
        try:
            with space.admit("a shard", 20, 1):
                admitted.append(1)
                done.wait()
        except StorageFull:
            refused.append(1)

    done = threading.Event()
    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(admitted) + len(refused) < 8:
        pass
    done.set()
    for thread in threads:
        thread.join()

    assert len(admitted) == 2
    assert space.limit().bytes_max == 50


def test_usage_is_counted_once_and_follows_what_is_stored(lake: Lake) -> None:
    before = lake.objects.usage()
    lake.append("t", pa.table({"a": [1]}))
    lake.append("u", pa.table({"a": [1]}))  # its shard is the same object
    after = lake.objects.usage()

    on_disk = [lake.objects.place(name).stat().st_size for name in lake.objects]
    assert (before.objects, after) == (0, Usage(sum(on_disk), len(on_disk)))

    lake.delete("t")
    lake.delete("u")
    assert lake.objects.usage() == Usage(0, 0)
