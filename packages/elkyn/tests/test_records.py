"""Tables of records in a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.records import CheckedTable, Table, write_changes
from sennit_core.errors import Corrupt, UsageError
from sennit_core.records import NodeInfo, Record

NODE = NodeInfo("n1", ("a:1", "b:2"), "local", 10, 0, "up", 1.5)


@dataclass(frozen=True, slots=True)
class Note(Record):
    """A record with members of every kind that the tree stores in another form."""

    id: str
    title: str
    labels: tuple[str, ...] = ()
    weight: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None


NOTE = Note("a", "flights", ("x", "y"), 2.0, {"list": [1, None, []], "map": {"deep": {}}})


@pytest.fixture
def tree() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory", namespace="sys") as store:
        yield store


@pytest.fixture
def nodes(tree: ElkynStore) -> Table[NodeInfo]:
    return Table(tree, "/nodes", NodeInfo)


@pytest.fixture
def notes(tree: ElkynStore) -> CheckedTable[Note]:
    return CheckedTable(tree, "/notes", Note)


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


def test_changes_are_one_write(
    nodes: Table[NodeInfo], notes: CheckedTable[Note], tree: ElkynStore
) -> None:
    note = replace(NOTE, more={})
    with tree.watch("/") as events:
        seen = iter(events)
        next(seen)
        write_changes(tree, nodes.change("n1", NODE), notes.change("a", note))
        event = next(seen)

    assert set(event.data) == {"nodes/n1", "notes/a"}
    assert nodes.get("n1") == NODE
    assert notes.get("a") == note

    write_changes(tree, nodes.change("n1", None), notes.change("a", None))
    assert tree.get("/") is None


def test_a_checked_row_with_another_value_is_found(
    notes: CheckedTable[Note], tree: ElkynStore
) -> None:
    notes.put("a", NOTE)
    tree.set("/notes/a/title", "flighty")

    with pytest.raises(Corrupt, match=r"/notes/a .*checksum"):
        notes.get("a")


def test_a_checked_row_under_another_id_is_found(
    notes: CheckedTable[Note], tree: ElkynStore
) -> None:
    notes.put("a", NOTE)
    tree.set("/notes/b", tree.get("/notes/a"))

    with pytest.raises(Corrupt, match="/notes/b"):
        notes.get("b")


def test_no_flipped_bit_in_a_checked_row_is_worse_than_corrupt(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "sys", namespace="sys") as tree:
        notes = CheckedTable(tree, "/notes", Note)
        notes.put("a", NOTE)
        stored = notes.get("a")
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
                notes.ids()
            with suppress(Corrupt):
                assert notes.get("a") in (stored, None), at


def test_a_row_of_a_version_without_checksums_is_read(
    notes: CheckedTable[Note], tree: ElkynStore
) -> None:
    note = replace(NOTE, more={})
    tree.set("/notes/a", note.to_json())

    assert notes.get("a") == note


TEXT = st.text(max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e12, 1e12) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(TEXT, st.lists(TEXT), st.floats(0, 2**40), st.dictionaries(st.sampled_from("abc"), VALUES))
def test_every_checked_row_agrees_with_its_checksum(
    title: str, labels: list[str], weight: float, more: dict[str, Any]
) -> None:
    with ElkynStore(mode="memory", namespace="sys") as tree:
        notes = CheckedTable(tree, "/notes", Note)
        notes.put("a", Note("a", title, tuple(labels), weight, more))

        found = notes.get("a")

        assert found is not None
        assert (found.title, found.labels, found.weight) == (title, tuple(labels), weight)
        assert tree.get("/notes/a/checksum")
