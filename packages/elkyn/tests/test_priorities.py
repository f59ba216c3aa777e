"""Priorities: stored with values, hidden unless requested, deleted with their value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import BadPath, BadValue, ElkynStore
from elkyn import testing as model
from elkyn.tree.paths import parse_path
from elkyn.tree.reader import MAP, Overlay, peek_of
from elkyn.tree.values import get_at, keys_of, prepare, present, same, set_at, with_at
from sennit_core.testing import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree", clock=ManualClock()) as store:
        yield store


def test_a_priority_is_shown_only_on_request(store: ElkynStore) -> None:
    store.set("/a", {"leaf": {".value": 5, ".priority": 2}, "map": {"x": 1, ".priority": "p"}})
    assert store.get("/a") == {"leaf": 5, "map": {"x": 1}}
    assert store.get("/a", export=True) == {
        "leaf": {".value": 5, ".priority": 2},
        "map": {"x": 1, ".priority": "p"},
    }
    assert store.get("/a/leaf/.priority") == 2
    assert store.get("/a/map/.priority") == "p"
    assert store.keys("/a/map") == ["x"]
    assert store.keys("/a/leaf") == []


def test_a_priority_is_written_by_its_path_alone(store: ElkynStore) -> None:
    store.set("/a", {"leaf": 5, "map": {"x": 1}})
    store.update("/a", {"leaf/.priority": 1, "map/.priority": {".sv": "timestamp"}})
    now = int(ManualClock().now() * 1000)
    assert store.get("/a/leaf", export=True) == {".value": 5, ".priority": 1}
    assert store.get("/a/map", export=True) == {"x": 1, ".priority": now}
    store.set("/a/leaf/.priority", None)
    assert store.get("/a/leaf", export=True) == 5


def test_a_value_written_again_loses_its_priority(store: ElkynStore) -> None:
    store.set("/a", {".value": 5, ".priority": 1})
    store.set("/a", 6)
    assert store.get("/a", export=True) == 6


def test_a_child_below_a_leaf_keeps_the_priority_of_the_place(store: ElkynStore) -> None:
    store.set("/a", {".value": 5, ".priority": 1})
    store.set("/a/b", 6)
    assert store.get("/a", export=True) == {"b": 6, ".priority": 1}


def test_an_absent_value_has_no_priority(store: ElkynStore) -> None:
    store.set("/a/.priority", 1)
    store.set("/b", {".priority": 1})
    store.set("/c", {"x": 1, ".priority": 1})
    store.delete("/c/x")
    assert store.get("/", export=True) is None


def test_an_increment_finds_the_number_of_a_value_with_a_priority(store: ElkynStore) -> None:
    store.set("/n", {".value": 5, ".priority": 1})
    store.set("/n", {".value": {".sv": {"increment": 2}}, ".priority": 3})
    assert store.get("/n", export=True) == {".value": 7, ".priority": 3}


def test_large_things_keep_their_priority(tmp_path: Path) -> None:
    children = {f"k{number:03}": "x" * 100 for number in range(100)}
    with ElkynStore(tmp_path / "t") as store:
        store.set("/map", {**children, ".priority": 7})
        store.set("/leaf", {".value": "x" * 5000, ".priority": 8})
    with ElkynStore(tmp_path / "t") as store:
        assert store.keys("/map") == list(children)
        assert store.get("/map") == children
        assert store.get("/map/.priority") == 7
        assert store.get("/leaf/.priority") == 8
        store.set("/map/.priority", 9)
        assert store.get("/map", export=True) == {**children, ".priority": 9}
        for key in children:
            store.delete(f"/map/{key}")
        assert store.get("/", export=True) == {"leaf": {".value": "x" * 5000, ".priority": 8}}


def test_ephemeral_writes_hold_priorities_too(store: ElkynStore) -> None:
    store.set("/a", {"b": 1, "c": 2})
    store.set("/a/b", {".value": 5, ".priority": 1}, ephemeral=True)
    store.set("/a/c/.priority", 4, ephemeral=True)
    shown = {"b": {".value": 5, ".priority": 1}, "c": {".value": 2, ".priority": 4}}
    assert store.get("/a", export=True) == shown


@pytest.mark.parametrize("priority", [True, {"a": 1}, [1], float("nan")])
def test_a_priority_is_a_number_or_a_text(store: ElkynStore, priority: Any) -> None:
    with pytest.raises(BadValue):
        store.set("/a", {".value": 1, ".priority": priority})
    with pytest.raises(BadValue):
        store.set("/a/.priority", priority)


def test_a_value_with_children_and_a_path_below_a_priority_are_refused() -> None:
    with pytest.raises(BadValue, match="also 'x'"):
        prepare({".value": 1, "x": 2})
    with pytest.raises(BadPath):
        parse_path("/a/.priority/b")
    with pytest.raises(BadPath):
        parse_path("/a/.value")


PLACES = st.lists(
    st.tuples(st.lists(st.sampled_from(["a", "b", "1", "c"]), max_size=3), model.EXPORTS),
    max_size=4,
).map(lambda found: [(tuple(keys), prepare(value).value) for keys, value in found])


class Tree:
    """A stored form as a `Reader`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self, path: tuple[str, ...]) -> Any:
        return get_at(self.value, path)

    def keys(self, path: tuple[str, ...]) -> list[str] | None:
        return keys_of(self.get(path))

    def peek(self, path: tuple[str, ...]) -> Any:
        return peek_of(self.get(path))


@pytest.mark.slow
@given(model.EXPORTS, PLACES, st.lists(st.sampled_from(["a", "b", "1", "c"]), max_size=3))
def test_an_overlay_is_the_tree_after_the_write(value: Any, places: Any, keys: list[str]) -> None:
    before = prepare(value).value
    apart: list[Any] = []
    for place, new in places:
        nested = any(p[: len(place)] == place or place[: len(p)] == p for p, _new in apart)
        if not nested:
            apart.append((place, new))
    after = before
    for place, new in apart:
        after = with_at(after, place, new)
    overlay = Overlay(Tree(before), apart)
    for path in (tuple(keys), (*keys, ".priority")):
        assert same(overlay.get(path), get_at(after, path))
        assert overlay.keys(path) == keys_of(get_at(after, path))
        peeked = overlay.peek(path)
        assert (
            peeked is MAP
            if keys_of(get_at(after, path))
            else same(peeked, peek_of(get_at(after, path)))
        )
    assert same(before, prepare(value).value), "the tree before was changed"


@given(model.EXPORTS)
def test_an_export_imports_unchanged(value: Any) -> None:
    stored = prepare(value).value
    assert same(stored, prepare(present(stored, export=True)).value)
    assert model.typed(present(stored)) == model.typed(model.shown(model.plain(value)))
    assert same(stored, set_at(stored, (), stored))


def test_a_priority_stays_when_the_last_durable_child_is_hidden_and_an_ephemeral_one_is_there(
    tmp_path: Path,
) -> None:
    with ElkynStore(tmp_path) as store:
        store.set("/", {"0": 1, "010": 1, ".priority": -4})
        store.update("/", {"a": 2, "010": None}, ephemeral=True)
        store.delete("/0")
        assert store.get("/", export=True) == {".priority": -4, "a": 2}
