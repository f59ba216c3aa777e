"""What a dataset stores is counted once for each change, and is the sum over its kept versions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.quotas import UserQuota
from lake.distributed.forks import fork_dataset
from sennit_core.errors import StorageFull
from sennit_core.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lake(tmp_path: Path, pool: ExecutorPool, clock: ManualClock) -> Iterator[Lake]:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, clock=clock) as lake,
    ):
        yield lake


def kept(lake: Lake, name: str) -> dict[str, int]:
    """Return the shards of all versions, read from their manifests."""
    info = lake.catalog.get(name)
    manifests = lake.catalog.rewriter.read(info).values()
    return {each.object: each.bytes for found in manifests for each in found.snapshot.shards}


@pytest.mark.parametrize("seed", range(3))
def test_the_count_is_that_of_the_kept_versions(
    lake: Lake, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("lake.catalog.manifests.UNLISTED_MAX", 2)
    choices = random.Random(seed)
    lake.append("t", pa.table({"a": [0]}))
    for step in range(1, 30):
        clock.advance(1)
        match choices.randrange(5):
            case 0:
                lake.sql(f"DELETE FROM t WHERE a % 7 = {choices.randrange(7)}")
            case 1:
                lake.expire("t", keep=choices.randint(1, 4))
            case 2:
                lake.compact("t")
            case _:
                lake.append("t", pa.table({"a": list(range(step * 10, step * 10 + 10))}))
        if choices.random() < 0.7:  # several changes at once as well
            found = kept(lake, "t")
            assert lake.quotas.stored.sizes(lake.catalog.get("t")) == found
            assert lake.quotas.stored.bytes_of(lake.catalog.get("t")) == sum(found.values())


def test_lists_are_read_once_also_after_an_expiry(
    lake: Lake, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lake.catalog.manifests.UNLISTED_MAX", 0)  # a list from the first shard on
    for number in range(20):
        clock.advance(1)
        lake.append("t", pa.table({"a": [number]}))
    used = lake.quotas.stored.bytes_of(lake.catalog.get("t"))
    clock.advance(1)
    lake.expire("t", keep=2)
    lake.catalog.reload()  # nothing is in memory that would make reading needless

    def refuse(*_: object) -> object:
        raise AssertionError("a list is read again")

    monkeypatch.setattr("lake.catalog.manifests.read_list", refuse)
    monkeypatch.setattr("lake.catalog.manifests.read_stored", refuse)
    assert lake.quotas.stored.owned_by(lake.catalog.get("t").owner) == used


def test_a_fork_counts_for_its_owner_by_the_lists_that_it_shares(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lake.catalog.manifests.UNLISTED_MAX", 0)
    lake.append("t", pa.table({"a": list(range(1000))}))
    used = lake.quotas.stored.bytes_of(lake.catalog.get("t"))
    lake.quotas.set(UserQuota("ann", disk_bytes=used - 1))
    with pytest.raises(StorageFull, match="ann"):
        fork_dataset(lake, "t", "mine", user="ann")
    lake.quotas.set(UserQuota("ann", disk_bytes=used))
    fork_dataset(lake, "t", "mine", user="ann")
    assert lake.quotas.stored.owned_by("ann") == used


def test_a_deleted_dataset_counts_no_more(lake: Lake) -> None:
    lake.append("t", pa.table({"a": [1]}))
    owner = lake.catalog.get("t").owner
    assert lake.quotas.stored.owned_by(owner) > 0
    lake.delete("t")
    assert lake.quotas.stored.owned_by(owner) == 0
    assert lake.quotas.stored.distinct() == {}
