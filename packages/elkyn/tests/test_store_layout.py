"""The row layout of a tree: interned keys, merged small branches, rows of older stores."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore, _failpoints
from elkyn import testing as model
from elkyn.storage import rows as row_format
from elkyn.storage import shapes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree") as store:
        yield store


def entries(store: ElkynStore, database: str = "tree") -> dict[bytes, bytes]:
    env = store._disk._durable
    with env.read() as txn, txn.cursor(db=env.databases[database]) as cursor:
        return {bytes(key): bytes(data) for key, data in cursor}


def record(number: int) -> dict[str, Any]:
    return {"carrier": "AA", "distance": number, "delayed": False, "at": {"from": "JFK", "to": "X"}}


def test_the_keys_of_like_records_are_stored_once(tmp_path: Path) -> None:
    records = {f"r{number:03}": record(number) for number in range(300)}
    with ElkynStore(tmp_path / "t") as store:
        store.set("/records", records)
        holding = [data for data in entries(store).values() if b"distance" in data]
        assert len(holding) < 5
        assert len(entries(store, "shapes")) == 2
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/records") == records
        assert store.get("/records/r250/at/to") == "X"
        store.set("/records/r250/at/to", "Y")
        assert store.get("/records/r250") == {**record(250), "at": {"from": "JFK", "to": "Y"}}
        assert len(entries(store, "shapes")) == 2


def test_records_of_all_shapes_and_sizes_are_rows_again(store: ElkynStore) -> None:
    def fields(count: int, kind: int) -> dict[str, Any]:
        return {f"field{kind}of{index:02}": index for index in range(count)}

    kinds = [
        fields(2 + number % 20, number) for number in range(130)
    ]  # past all tags, and all heads
    for kind, value in enumerate(kinds):
        store.update("/", {f"{kind}-{copy}": value for copy in range(3)})
    tags = {data[0] for data in entries(store).values()}
    assert {0x04, 0x10, 0x7F} <= tags
    assert [store.get(f"/{kind}-2") for kind in range(130)] == kinds
    assert store.admin.verify() == []


def test_a_map_that_is_written_over_and_over_is_no_shape(store: ElkynStore) -> None:
    for number in range(50):
        store.set("/one", {"key of its own": number, "another": "x"})
    assert entries(store, "shapes") == {}


def test_a_shape_of_a_write_that_failed_is_forgotten(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {f"r{number:03}": record(number) for number in range(100)}

    def fail(point: str) -> None:
        if point == "applied":
            raise OSError("no")

    monkeypatch.setattr(_failpoints, "hook", fail)
    with pytest.raises(OSError, match="no"):
        store.set("/records", records)
    monkeypatch.setattr(_failpoints, "hook", None)
    store.set("/other", {f"r{n:03}": {"alpha": n, "beta": n, "gamma": n} for n in range(100)})
    store.set("/records", records)
    assert store.get("/records") == records
    assert store.get("/other/r099") == {"alpha": 99, "beta": 99, "gamma": 99}


def test_when_the_table_is_full_maps_keep_their_keys(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "SHAPES_MAX", 1)
    store.set("/a", {f"r{number:03}": record(number) for number in range(100)})
    other = {f"r{number:03}": {"alpha": "x" * 20, "beta": number} for number in range(100)}
    store.set("/b", other)
    assert store.get("/b") == other
    assert len(entries(store, "shapes")) == 1


def test_a_branch_that_has_shrunk_is_one_row_again(store: ElkynStore) -> None:
    store.set("/a/b", {f"k{number:02}": "x" * 100 for number in range(60)})
    assert len(entries(store)) > 60
    for number in range(3, 60):
        store.delete(f"/a/b/k{number:02}")
    assert len(entries(store)) == 1
    assert store.get("/") == {"a": {"b": {f"k{number:02}": "x" * 100 for number in range(3)}}}


def test_values_that_shrink_merge_their_branch(store: ElkynStore) -> None:
    store.set("/a", {"big": "x" * 3000, "small": 1, ".priority": 2})
    assert len(entries(store)) > 1
    store.set("/a/big", "y")
    assert len(entries(store)) == 1
    assert store.get("/a", export=True) == {".priority": 2, "big": "y", "small": 1}


def test_rows_of_older_stores_are_read_and_written(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        env = store._disk._durable
        node = struct.pack(">Q", 1)
        txn = env.begin_write()
        tree, meta = env.databases["tree"], env.databases["meta"]
        txn.put(row_format.ROOT_ROW, b"\x02" + node, db=tree)
        for number in range(30):
            value = ormsgpack.packb({"n": number, "text": "x" * 90})
            txn.put(node + b"\x01" + struct.pack(">I", number + 2**31), b"\x01" + value, db=tree)
            txn.put(node + b"\x02" + f"k{number:02}".encode(), b"\x01" + value, db=tree)
        flat = ormsgpack.packb([0, -5, "flat"])
        txn.put(node + b"\x01" + struct.pack(">I", 2**31 - 9), b"\x04" + flat, db=tree)
        names = ormsgpack.packb(["n", "text"])
        txn.put((0).to_bytes(2, "big"), names, db=env.databases["shapes"])
        txn.put(b"next-node", (2).to_bytes(8, "big"), db=meta)
        txn.commit()
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/-9") == {"n": -5, "text": "flat"}
        store.delete("/-9")
        assert store.keys("/") == [*map(str, range(30)), *(f"k{n:02}" for n in range(30))]
        assert store.get("/17/n") == store.get("/k17/n") == 17
        store.set("/new", {f"c{n}": "y" * 100 for n in range(40)})
        store.set("/17", {"n": -1})
        assert store.get("/17") == {"n": -1}
        assert len(store.get("/new")) == 40
        for key in store.keys("/")[:-2]:
            store.delete(f"/{key}")
        assert store.keys("/") == ["k29", "new"]


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_no_node_is_the_beginning_of_another_one(left: int, right: int) -> None:
    one, other = row_format.node_of(left), row_format.node_of(right)
    assert left == right or not one.startswith(other)
    assert (left < right) == (one < other)
    assert row_format.number_of(one) == left
    assert row_format.node_bytes(one + b"\x02key") == len(one)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.dictionaries(model.KEYS, model.EXPORTS, min_size=1, max_size=6))
def test_folded_branches_unfold(value: dict[str, Any]) -> None:
    with ElkynStore(mode="memory") as store:
        for number in range(4):
            store.set(f"/{number}", {"x": value, "pad": "p" * 700})
        for number in range(4):
            assert model.typed(store.get(f"/{number}/x")) == model.typed(model.shown(value))
