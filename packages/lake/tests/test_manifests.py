"""Snapshots share lists of shards: what is read is what was committed, and little is written."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from lake.catalog import manifests
from lake.catalog.catalog import Catalog
from lake.catalog.manifests import LIST_MAX, UNLISTED_MAX, Manifests
from lake.catalog.snapshots import Manifest, ids_in_list, write_list
from lake.maintenance.retention import Retention
from lake.objects.store import ObjectStore
from sennit_core.errors import Corrupt
from sennit_core.hashing import sha256_hex
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

SCHEMA = Schema.of(a="Int64")


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path)


@pytest.fixture
def catalog(objects: ObjectStore) -> Iterator[Catalog]:
    with ElkynStore(mode="memory") as tree:
        yield Catalog(tree, objects)


def shard(number: int) -> ShardInfo:
    return ShardInfo(sha256_hex(b"%d" % number), 2, 10, {}, {"a": {"nulls": 0}})


def manifest_of(info: DatasetInfo, shards: tuple[ShardInfo, ...]) -> Manifest:
    snapshot = SnapshotInfo(new_id(), info.head, info.id, SCHEMA, shards, {}, "", None, ())
    return Manifest(snapshot, 1.0)


def commit(catalog: Catalog, info: DatasetInfo, shards: tuple[ShardInfo, ...]) -> DatasetInfo:
    return catalog.commit(info, manifest_of(info, shards), expected_head=info.head)


def extend(catalog: Catalog, info: DatasetInfo, new: tuple[ShardInfo, ...]) -> DatasetInfo:
    """Commit the head with more shards, as an append does."""
    if info.head is None:
        return commit(catalog, info, new)
    head = catalog.stored_manifest(info.id)
    manifest = head.extended(manifest_of(info, new).snapshot, 1.0)
    return catalog.commit(info, manifest, expected_head=info.head)


def new_dataset() -> DatasetInfo:
    return DatasetInfo(id=new_id(), name="t", owner="", schema=SCHEMA)


def test_a_small_snapshot_is_one_object(catalog: Catalog, objects: ObjectStore) -> None:
    commit(catalog, new_dataset(), tuple(map(shard, range(UNLISTED_MAX))))

    assert len(list(objects)) == 1
    assert catalog.manifest("t").lists == ()


def test_a_commit_to_a_large_dataset_writes_what_it_changes(
    catalog: Catalog, objects: ObjectStore
) -> None:
    shards = tuple(map(shard, range(3 * LIST_MAX)))
    info = commit(catalog, new_dataset(), shards)
    before = set(objects)

    info = commit(catalog, info, (*shards, shard(-1)))
    added = set(objects) - before
    changed = [*shards, shard(-1)]
    changed[LIST_MAX + 5] = shard(-2)
    commit(catalog, info, tuple(changed))

    assert [objects.digest(name).size < 20_000 for name in added] == [True]
    assert catalog.manifest("t").snapshot.shards == tuple(changed)
    assert len(set(objects) - before - added) == 2  # the manifest, and the list with the change


def test_an_append_to_a_long_history_reads_a_bounded_number_of_shards(
    catalog: Catalog, objects: ObjectStore
) -> None:
    info = commit(catalog, new_dataset(), tuple(map(shard, range(5 * LIST_MAX))))
    catalog.count_references()
    catalog.reload()
    for each in catalog.stored_manifest("t").lists:
        objects.place(each.object).unlink()  # a read would raise

    for number in range(3 * UNLISTED_MAX):
        info = extend(catalog, info, (shard(-number - 1),))

    assert (info.shards, info.rows) == (5 * LIST_MAX + 192, 2 * (5 * LIST_MAX + 192))
    assert [each.rows for each in catalog.snapshots("t", limit=2)] == [info.rows, info.rows - 2]
    assert catalog.references(shard(-1).object)
    assert catalog.references(shard(5).object)


def test_many_commits_keep_manifests_small(catalog: Catalog, objects: ObjectStore) -> None:
    info = new_dataset()
    shards: tuple[ShardInfo, ...] = ()
    for number in range(40):
        shards = (*shards, *(shard(100 * number + each) for each in range(100)))
        info = commit(catalog, info, shards)

    assert catalog.manifest("t").snapshot.shards == shards
    assert len(catalog.manifest("t").lists) < 16
    assert [each.rows for each in catalog.snapshots("t")[:2]] == [8000, 7800]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("append", "extend", "delete", "replace", "repeat", "clear")),
            st.integers(0, 200),
            st.integers(0, 200),
        ),
        max_size=12,
    )
)
def test_any_history_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int, int]],
) -> None:
    """With lists of at most 8 shards, every snapshot stays what it was, and needs what it has."""
    store = ObjectStore(tmp_path_factory.mktemp("objects"))
    with pytest.MonkeyPatch.context() as patch, ElkynStore(mode="memory") as tree:
        patch.setattr(manifests, "UNLISTED_MAX", 2)
        patch.setattr(manifests, "_SMALL", 4)
        patch.setattr(manifests, "_MERGED", 3)
        patch.setattr(manifests, "LIST_MAX", 8)
        catalog = Catalog(tree, store)
        info, shards, fresh = new_dataset(), tuple[ShardInfo, ...](), iter(range(10_000))
        history: dict[str, tuple[ShardInfo, ...]] = {}
        for action, where, count in steps:
            place, few = where % (len(shards) + 1), count % 20
            new = tuple(shard(next(fresh)) for _ in range(few))
            match action:
                case "append" | "extend":
                    shards = (*shards, *new)
                case "delete":
                    shards = (*shards[:place], *shards[place + few :])
                case "replace":
                    shards = (*shards[:place], *new, *shards[place + few :])
                case "repeat":  # the same object several times
                    shards = (*shards, *shards[place : place + few])
                case "clear":
                    shards = ()
            if action == "extend":
                info = extend(catalog, info, new)
            else:
                info = commit(catalog, info, shards)
            assert info.head is not None
            history[info.head] = shards

        read = Catalog(tree, store)
        for snapshot, expected in history.items():
            assert read.manifest("t", snapshot).snapshot.shards == expected
            assert all(catalog.references(each.object) for each in expected)
        if info.head is not None:
            assert [each.rows for each in read.snapshots("t")] == [
                sum(each.rows for each in expected) for expected in reversed(history.values())
            ]
            Retention(store, catalog, tree).delete_dataset("t")
        assert list(store) == []


def test_a_damaged_list_is_damage_to_its_dataset_alone(
    catalog: Catalog, objects: ObjectStore
) -> None:
    commit(catalog, new_dataset(), tuple(map(shard, range(100))))
    other = replace(new_dataset(), name="other")
    commit(catalog, other, (shard(1),))
    (part,) = catalog.manifest("t").lists
    path = objects.place(part.object)
    data = bytearray(path.read_bytes())
    data[random.Random(1).randrange(len(data))] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    catalog.reload()

    with pytest.raises(Corrupt, match="manifest of snapshot"):
        catalog.manifest("t")
    assert catalog.manifest("other").rows == 2
    assert [info.name for info in catalog.list() if info.damaged] == ["t"]
    damage, intact, _ = catalog.examine(catalog.ids()[1])
    assert (len(damage), intact) == (1, {})
    # What the list names is unknown, so nothing may be deleted.
    assert not Catalog(catalog._rows._tree, objects).references_known


def test_a_list_that_is_not_the_one_described_is_refused(objects: ObjectStore) -> None:
    store = Manifests(objects)
    name = store.write(manifest_of(new_dataset(), tuple(map(shard, range(100)))), None)
    (part,) = store.stored(name).lists

    store.clear()
    with pytest.raises(Corrupt, match="list of shards"):
        store.shards_of(replace(part, rows=part.rows + 1))


def test_names_of_objects_are_durable_before_the_row_of_their_snapshot(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(ObjectStore, "sync_names", lambda self: order.append("names"))
    with ElkynStore(mode="memory") as tree:
        tree.admin.observe(lambda position, paths: order.append("row"))
        commit(Catalog(tree, objects), new_dataset(), (shard(1),))

    assert order == ["names", "row"]


HASH = sha256_hex(b"another")


@given(
    st.lists(
        st.tuples(
            st.none() | st.just(HASH),
            st.sampled_from(["object", "sourceObject", "a"]),
            st.sampled_from([HASH, f'"object":"{HASH}"', f'","sourceObject":"{HASH}"', "\\", "é"]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_ids_of_a_list_are_those_of_its_shards_whatever_their_statistics_say(
    tmp_path_factory: pytest.TempPathFactory, described: list[tuple[str | None, str, str]]
) -> None:
    objects = ObjectStore(tmp_path_factory.mktemp("objects"))
    shards = [
        ShardInfo(sha256_hex(b"%d" % number), 1, 1, {text: text}, {name: {"min": text}}, source)
        for number, (source, name, text) in enumerate(described)
    ]
    stored = write_list(objects, shards)

    wanted = {shard.object for shard in shards} | {s.source_object for s in shards} - {None}
    assert ids_in_list(objects, stored) == wanted
