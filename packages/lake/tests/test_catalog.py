"""Commits are checked against the head that the caller read; unknown names suggest the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from lake.catalog.catalog import Catalog
from lake.catalog.snapshots import Manifest
from lake.objects.store import ObjectStore
from sennit_core.errors import Conflict, NotFound, UsageError
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema
from sennit_core.testing import ManualClock

SCHEMA = Schema.of(a="Int64")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with ElkynStore(mode="memory") as tree:
        yield Catalog(tree, ObjectStore(tmp_path), clock=ManualClock())


def dataset(name: str) -> DatasetInfo:
    return DatasetInfo(id=new_id(), name=name, owner="", schema=SCHEMA)


def manifest(info: DatasetInfo, *objects: str, at: float = 1.0) -> Manifest:
    shards = tuple(ShardInfo(each, 2, 10, {}, {}) for each in objects)
    snapshot = SnapshotInfo(new_id(), info.head, info.id, SCHEMA, shards, {}, "", None, ())
    return Manifest(snapshot, at)


def test_a_commit_shows_the_new_snapshot(catalog: Catalog) -> None:
    info = dataset("flights")

    committed = catalog.commit(info, manifest(info, "a" * 64, "b" * 64), expected_head=None)

    assert (committed.rows, committed.bytes, committed.shards) == (4, 20, 2)
    assert catalog.get(info.id) == catalog.get("Flights") == committed
    assert catalog.manifest("flights").snapshot.id == committed.head


def test_a_commit_on_a_head_that_has_moved_is_refused(catalog: Catalog) -> None:
    first = dataset("flights")
    second = catalog.commit(first, manifest(first), expected_head=None)
    third = catalog.commit(second, manifest(second, at=2.0), expected_head=second.head)

    with pytest.raises(Conflict, match="moved on"):
        catalog.commit(second, manifest(second, at=3.0), expected_head=second.head)

    assert catalog.get("flights") == third
    assert [m.snapshot.id for m in catalog.snapshots("flights")] == [third.head, second.head]


def test_two_datasets_never_share_a_name(catalog: Catalog) -> None:
    one, two = dataset("flights"), dataset("FLIGHTS")
    catalog.commit(one, manifest(one), expected_head=None)

    with pytest.raises(Conflict, match="exists"):
        catalog.commit(two, manifest(two), expected_head=None)


def test_an_unknown_name_gets_the_nearest(catalog: Catalog) -> None:
    info = dataset("flights")
    catalog.commit(info, manifest(info), expected_head=None)

    with pytest.raises(NotFound) as caught:
        catalog.get("fligths")
    with pytest.raises(NotFound, match="snapshot"):
        catalog.manifest("flights", "nosuch")
    assert caught.value.suggestion == "flights"


def test_removing_returns_the_objects_that_were_used(catalog: Catalog) -> None:
    one, two = dataset("one"), dataset("two")
    catalog.commit(one, manifest(one, "a" * 64, "b" * 64), expected_head=None)
    catalog.commit(two, manifest(two, "b" * 64), expected_head=None)

    _, used = catalog.remove("one")

    assert {"a" * 64, "b" * 64} < used
    assert catalog.references("b" * 64)
    assert not catalog.references("a" * 64)


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 129, "\x00"])
def test_unusable_names_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(UsageError):
        catalog.check_free(name)
