"""The cleanup: unused datasets go to the trash, come back whole, or leave it; what is in use stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake._failpoints import POINTS
from sennit_core.errors import Conflict, NotFound
from sennit_core.testing import ManualClock

from .test_crash import check_nothing_is_left_over, die, opened

DAY = 86_400.0
POLICY: dict[str, Any] = {"unused_seconds": 10 * DAY, "trash_seconds": 3 * DAY}
CHILD = """
import sys
from lake import Lake
from sennit_core.testing import ManualClock

if __name__ == "__main__":
    folder, verb, what = sys.argv[1:]
    clock = ManualClock(float(what))
    policy = {"unused_seconds": 10 * 86400.0, "trash_seconds": 3 * 86400.0}
    with Lake(folder, memory_bytes="512MiB", clock=clock, **policy) as lake:
        if verb == "restore":
            lake.cleanup.restore("old")
        else:
            lake.maintenance.run("cleanup")
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def aged(tmp_path: Path, pool: ExecutorPool, clock: ManualClock) -> Iterator[Lake]:
    """A lake with `old`, of two versions, that was used eleven days ago, and `new`."""
    with ElkynStore(mode="memory") as tree, open_lake(tmp_path / "data", tree, pool, clock) as lake:
        yield lake


def open_lake(
    folder: Path, tree: ElkynStore, pool: ExecutorPool, clock: ManualClock, **more: Any
) -> Lake:
    lake = Lake(folder, tree=tree, pool=pool, clock=clock, **(POLICY | more))
    lake.append("old", pa.table({"a": [1, 2]}))
    lake.append("old", pa.table({"a": [3]}))
    lake.cleanup.plan()  # from now on their use is known
    clock.advance(11 * DAY)
    lake.append("new", pa.table({"a": [4]}))
    return lake


def clean(lake: Lake) -> int:
    return lake.maintenance.run("cleanup").changed


def names(lake: Lake) -> set[str]:
    return {info.name for info in lake.catalog.list()}


def test_an_unused_dataset_goes_to_the_trash_and_comes_back_with_its_versions(aged: Lake) -> None:
    before = set(aged.objects)

    (planned,) = aged.cleanup.plan()
    assert (planned.name, planned.reason, planned.stays) == (
        "old",
        "it was not used for 11 days",
        "",
    )
    assert names(aged) == {"old", "new"}, "a plan removes nothing"
    assert clean(aged) == 1

    assert names(aged) == {"new"}
    assert set(aged.objects) == before
    (row,) = aged.cleanup.trash().values()
    assert (row.name, row.until - row.moved_at) == ("old", 3 * DAY)
    assert aged.cleanup.restore("OLD").name == "old"
    assert aged.sql("SELECT sum(a) FROM old").rows == [(6,)]
    assert aged.sql("SELECT count(*) FROM old AT (VERSION => 1)").rows == [(2,)]
    assert aged.cleanup.trash() == {}
    assert aged.verify().findings == ()
    assert clean(aged) == 0, "it was just restored"


def test_the_trash_is_emptied_after_its_time_and_leaves_nothing(
    aged: Lake, clock: ManualClock
) -> None:
    old = aged.catalog.get("old")
    clean(aged)
    clock.advance(3 * DAY + 1)

    clean(aged)

    assert aged.cleanup.trash() == {}
    assert aged.tree.get(f"/trashed/{old.id}") is None
    check_nothing_is_left_over(aged)
    with pytest.raises(NotFound):
        aged.cleanup.restore("old")


def test_a_read_is_a_use(aged: Lake, clock: ManualClock) -> None:
    assert aged.sql("SELECT count(*) FROM old").rows == [(3,)]

    assert clean(aged) == 0
    clock.advance(11 * DAY)
    assert {each.name for each in aged.cleanup.plan()} == {"old", "new"}


def keep(lake: Lake, _: str) -> None:
    lake.storage.access.keep(lake.catalog.get("old").id, "ada")


def tag(lake: Lake, dataset: str) -> None:
    lake.catalog.set_tag("old", "release", str(lake.catalog.get("old").head))


def pin(lake: Lake, dataset: str) -> None:
    head = str(lake.catalog.get("old").head)
    lake.retention.pin(lake.catalog.objects_of(dataset, head), "backup")


def lease(lake: Lake, dataset: str) -> None:
    head = str(lake.catalog.get("old").head)
    lake.retention.acquire(lake.catalog.objects_of(dataset, head))


def upload(lake: Lake, dataset: str) -> None:
    lake.parts.start("old.csv", 10, mode="append")


def view(lake: Lake, dataset: str) -> None:
    lake.sql("CREATE VIEW v AS SELECT a FROM old")
    lake.storage.access._used_at.clear()
    lake.storage.access._rows.put(dataset, type(lake.storage.access._rows.get(dataset))(0.0))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("protect", "reason"),
    [
        (keep, "it is kept"),
        (tag, "a version has a tag"),
        (pin, "it is pinned"),
        (lease, "it is in use"),
        (upload, "an upload is for it"),
        (view, "the view 'v' reads it"),
    ],
)
def test_what_is_protected_stays_and_the_plan_says_why(
    aged: Lake, protect: Any, reason: str
) -> None:
    protect(aged, aged.catalog.get("old").id)

    (planned,) = aged.cleanup.plan()
    clean(aged)

    assert planned.stays == reason
    assert "old" in names(aged)


def test_a_lease_that_begins_after_the_plan_protects(aged: Lake, monkeypatch: Any) -> None:
    plan = aged.cleanup.plan()
    lease(aged, aged.catalog.get("old").id)
    monkeypatch.setattr(aged.cleanup, "plan", lambda: plan)

    assert plan[0].stays == ""
    assert clean(aged) == 0
    assert "old" in names(aged)


def test_beyond_the_limit_the_least_recently_used_go_first(
    tmp_path: Path, pool: ExecutorPool, clock: ManualClock
) -> None:
    with ElkynStore(mode="memory") as tree:
        policy = {"unused_seconds": 0.0, "cleanup_bytes": 1}
        with open_lake(tmp_path / "data", tree, pool, clock, **policy) as lake:
            assert [each.name for each in lake.cleanup.plan()] == ["old"], "`new` was just made"
            clock.advance(2 * 3600)
            lake.append("newer", pa.table({"a": [5]}))
            total = sum(each.stored_bytes for each in lake.storage.usage())
            lake.cleanup._bytes_max = total - 1

            assert clean(lake) == 1
            assert names(lake) == {"new", "newer"}


def test_a_restored_dataset_needs_a_free_name(aged: Lake) -> None:
    clean(aged)
    aged.append("old", pa.table({"b": [1]}))

    with pytest.raises(Conflict, match="exists"):
        aged.cleanup.restore("old")
    assert aged.cleanup.restore("old", "older").name == "older"
    assert aged.sql("SELECT sum(a) FROM older").rows == [(6,)]


def test_an_encrypted_dataset_keeps_its_key_until_it_leaves_the_trash(
    tmp_path: Path, pool: ExecutorPool, clock: ManualClock
) -> None:
    more: dict[str, Any] = {"encrypt": True, "passphrase": "correct horse"}
    folder = tmp_path / "data"
    with ElkynStore(mode="memory") as tree:
        with open_lake(folder, tree, pool, clock, **more) as lake:
            old = lake.catalog.get("old").id
            assert clean(lake) == 1
        with Lake(folder, tree=tree, pool=pool, clock=clock, **POLICY, **more) as lake:
            lake.cleanup.restore("old")
            assert lake.sql("SELECT sum(a) FROM old").rows == [(6,)]
            clock.advance(11 * DAY)
            clean(lake)
            assert old in lake.storage.vault.keys.datasets()
            clock.advance(4 * DAY)
            clean(lake)
            assert old not in lake.storage.vault.keys.datasets()


def test_a_purge_of_another_dataset_leaves_the_trash_whole(aged: Lake) -> None:
    clean(aged)

    aged.purge("new", "a = 4")

    aged.cleanup.restore("old")
    assert aged.sql("SELECT sum(a) FROM old").rows == [(6,)]


def test_uploads_expire_and_those_of_running_ingests_stay(aged: Lake, clock: ManualClock) -> None:
    _stale, running, failed = (aged.parts.start(f"{name}.csv", 4) for name in "abc")
    for each in (running, failed):
        with aged.parts.open_part(each.id, 0) as part:
            part.write(b"a\n1\n")
            part.commit()
        aged.parts.seal(each.id)
    aged.parts.is_needed = lambda upload: upload == running.id
    clock.advance(2 * DAY)

    clean(aged)

    assert [each.id for each in aged.parts.list()] == [running.id]


@pytest.mark.crash
@pytest.mark.nightly
@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("trash")])
def test_a_cleanup_killed_anywhere_loses_nothing_that_is_referenced(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder, clock = tmp_path / "data", ManualClock()
    with opened(folder, pool) as lake:
        lake.tree.close()
    tree = ElkynStore(folder / "elkyn" / "sys", namespace="sys")
    with tree, open_lake(folder, tree, pool, clock) as lake:
        if point in ("trash-restored", "trash-forgotten"):
            clean(lake)
    verb = "restore" if point == "trash-restored" else "clean"
    if point == "trash-forgotten":
        clock.advance(3 * DAY + 1)

    die(folder, point, verb, str(clock.now()), child=CHILD)

    tree = ElkynStore(folder / "elkyn" / "sys", namespace="sys")
    with tree, Lake(folder, tree=tree, pool=pool, clock=clock, **POLICY) as lake:
        assert lake.sql("SELECT sum(a) FROM new").rows == [(4,)]
        if point == "trash-forgotten":
            clean(lake)
            assert lake.cleanup.trash() == {}
        else:
            if "old" not in names(lake):
                lake.cleanup.restore("old")
            assert lake.sql("SELECT sum(a) FROM old").rows == [(6,)]
            assert lake.sql("SELECT count(*) FROM old AT (VERSION => 1)").rows == [(2,)]
        assert lake.verify().findings == ()
        assert all(map(lake.catalog.references, lake.objects))
