"""`verify="always"`: every statement hashes the shards that it reads, each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake, ObjectStore
from lake.objects.verification import ShardFile, Verifier
from sennit_core.errors import Corrupt, UsageError
from sennit_core.hashing import CHUNK_BYTES

from .conftest import FLIGHTS, put
from .small_disks import damage_below, image_disk
from .test_verification import Pieces

QUERY = "SELECT carrier, distance FROM flights ORDER BY carrier, distance"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    with image_disk(tmp_path) as mounted:
        yield mounted


def test_each_check_hashes_the_file_anew(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    name = store.put_bytes(bytes(2 * CHUNK_BYTES)).object
    shard, verifier, pieces = ShardFile("t", 0, str(store.path(name)), True), Verifier(), Pieces()

    verifier.check(shard, pieces)
    first = pieces.count
    verifier.check(shard, pieces)

    assert pieces.count == 2 * first
    assert ShardFile.from_json(shard.to_json()) == shard


def test_damage_below_the_file_system_is_seen_by_always_only(disk: tuple[Path, Path]) -> None:
    folder, image = disk
    store = ObjectStore(folder / "objects")
    path = store.path(store.put_bytes(os.urandom(3 * 4096)).object)
    verifier = Verifier()
    verifier.check(ShardFile("t", 0, str(path)))
    before = path.stat()

    damage_below(image, path, 5000)

    assert path.stat() == before
    verifier.check(ShardFile("t", 0, str(path)))  # the window that docs/damage.md names
    with pytest.raises(Corrupt, match="chunk 0 of shard 0"):
        verifier.check(ShardFile("t", 0, str(path), True))
    with pytest.raises(Corrupt):  # a file that was found to be damaged is no longer verified
        verifier.check(ShardFile("t", 0, str(path)))


@pytest.mark.slow  # two engines, and a file system made for it
@pytest.mark.parametrize("engine", ["duckdb", "emsqrt"])
def test_a_lake_that_always_verifies_refuses_damage_below_the_file_system(
    disk: tuple[Path, Path], pool: ExecutorPool, engine: str
) -> None:
    folder, image = disk
    with (
        ElkynStore(mode="memory") as tree,
        Lake(folder / "data", tree=tree, pool=pool, verify="always") as lake,
    ):
        put(lake, "flights.csv", FLIGHTS)
        answer = lake.sql(QUERY, engine=engine).rows
        assert lake.sql(QUERY, engine=engine).rows == answer

        damage_below(image, lake.resolve("flights")[1][0], 40)

        with pytest.raises(Corrupt, match="chunk 0 of shard 0"):
            lake.sql(QUERY, engine=engine)
        with pytest.raises(Corrupt, match="chunk 0 of shard 0"):
            lake.sql("UPDATE flights SET distance = 0")
        with pytest.raises(Corrupt):
            lake.verify_shard("flights", 0, lake.resolve("flights")[0].shards[0].object)


def test_a_mode_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="verify is 'sometimes'"):
        Lake(tmp_path, verify="sometimes")
    assert not (tmp_path / "lake").exists()
