"""The platform's own state in a tree, by records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.records import SnapshotRow, SystemTree, Table
from sennit_core.errors import Corrupt, UsageError
from sennit_core.records import DatasetInfo, NodeInfo
from sennit_core.schema import DataType, Field, Schema

NODE = NodeInfo("n1", ("a:1", "b:2"), "local", 10, 0, "up", 1.5)
SCHEMA = Schema.from_json({"fields": [{"name": "delay", "type": "Int64", "nullable": True}]})
INT64 = DataType.parse("Int64")
DATASET = DatasetInfo("d1", "flights", "me", SCHEMA, head="s1")


@pytest.fixture
def tree() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory", namespace="sys") as store:
        yield store


@pytest.fixture
def nodes(tree: ElkynStore) -> Table[NodeInfo]:
    return Table(tree, "/nodes", NodeInfo)


@pytest.fixture
def system(tree: ElkynStore) -> SystemTree:
    return SystemTree(tree)


@pytest.mark.parametrize("ephemeral", [False, True])
def test_a_record_round_trips(nodes: Table[NodeInfo], ephemeral: bool) -> None:
    nodes.put("n1", NODE, ephemeral=ephemeral)

    assert nodes.all() == {"n1": NODE}
    assert nodes.get("n1") == NODE
    assert nodes.get("n2") is None
    assert "n1" in nodes


def test_a_removed_record_is_gone_with_its_children(
    nodes: Table[NodeInfo], tree: ElkynStore
) -> None:
    nodes.put("n1", NODE)
    tree.set("/nodes/n1/disks/d1", {"bytes": 5})
    nodes.remove("n1")

    assert nodes.all() == {}
    assert tree.get("/nodes/n1/disks") is None


def test_changes_are_one_write(system: SystemTree, tree: ElkynStore) -> None:
    with tree.watch("/") as events:
        seen = iter(events)
        next(seen)
        system.write(
            system.datasets.change("d1", DATASET),
            system.snapshots("d1").change("s1", SnapshotRow("ab", 2.0)),
        )
        event = next(seen)

    assert set(event.data) == {"datasets/d1", "snapshots/d1/s1"}
    assert system.datasets.get("d1") == DATASET
    assert system.datasets_with_snapshots() == ["d1"]
    assert system.snapshots("d1").all() == {"s1": SnapshotRow("ab", 2.0)}

    system.write(system.datasets.change("d1", None), system.forget_snapshots("d1"))
    assert tree.get("/") is None


def test_a_row_that_is_no_record_is_named(nodes: Table[NodeInfo], tree: ElkynStore) -> None:
    tree.set("/nodes/n1", {"id": "n1"})
    with pytest.raises(Corrupt, match=r"/nodes/n1 of the platform's tree.*missing"):
        nodes.get("n1")
    tree.set("/nodes", 3)
    with pytest.raises(Corrupt, match="/nodes"):
        nodes.all()


def test_a_row_of_a_newer_version_is_read(nodes: Table[NodeInfo], tree: ElkynStore) -> None:
    tree.set("/nodes/n1", NODE.to_json() | {"moon": "full"})
    assert nodes.get("n1") == NODE


@pytest.mark.parametrize("record_id", ["", "a/b", "../x"])
def test_an_id_is_one_key(nodes: Table[NodeInfo], record_id: str) -> None:
    with pytest.raises(UsageError, match="not a valid id"):
        nodes.put(record_id, NODE)


def test_a_dataset_row_with_another_value_is_found(system: SystemTree, tree: ElkynStore) -> None:
    system.datasets.put("d1", DATASET)
    tree.set("/datasets/d1/name", "flighty")

    with pytest.raises(Corrupt, match=r"/datasets/d1 .*checksum"):
        system.datasets.get("d1")


def test_a_dataset_row_under_another_id_is_found(system: SystemTree, tree: ElkynStore) -> None:
    system.datasets.put("d1", DATASET)
    tree.set("/datasets/d2", tree.get("/datasets/d1"))

    with pytest.raises(Corrupt, match="/datasets/d2"):
        system.datasets.get("d2")


def test_no_flipped_bit_in_a_dataset_row_is_worse_than_corrupt(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "sys", namespace="sys") as tree:
        system = SystemTree(tree)
        system.datasets.put("d1", DATASET)
        env: Any = tree._disk._durable
        with env.read() as txn, txn.cursor(db=env.databases["tree"]) as cursor:
            ((key, data),) = ((bytes(k), bytes(d)) for k, d in cursor if b"flights" in bytes(d))
        for step in range(2 * len(data)):
            at = step // 2
            damaged = bytearray(data)
            damaged[at] ^= 1 << (at % 8 if step % 2 else 0)
            txn = env.begin_write()
            txn.put(key, bytes(damaged), db=env.databases["tree"])
            txn.commit()
            with suppress(Corrupt):
                system.datasets.ids()
            with suppress(Corrupt):
                assert system.datasets.get("d1") in (DATASET, None), at


def test_a_dataset_row_of_a_version_without_checksums_is_read(
    system: SystemTree, tree: ElkynStore
) -> None:
    tree.set("/datasets/d1", DATASET.to_json())

    assert system.datasets.get("d1") == DATASET


KEY = Field("primary key", INT64)
SMALL = st.integers(0, 2**40) | st.floats(0, 2**40)


@pytest.mark.slow
@given(st.text(max_size=20), st.text(max_size=9), SMALL, st.lists(st.text(max_size=9), unique=True))
def test_every_dataset_row_agrees_with_its_checksum(
    name: str, owner: str, created_at: float, columns: list[str]
) -> None:
    fields = tuple(Field(column, INT64) for column in columns if column)
    info = DatasetInfo("d1", name, owner, Schema((KEY, *fields)), created_at=float(created_at))
    with ElkynStore(mode="memory", namespace="sys") as tree:
        system = SystemTree(tree)
        system.datasets.put("d1", info)

        assert system.datasets.get("d1") == info
        assert tree.get("/datasets/d1/checksum")
