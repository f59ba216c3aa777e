"""The tree as it would be after a write of many places."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.auth.principal import Principal
from elkyn.rules import parse_rules
from elkyn.rules.memory import MemoryReader
from elkyn.tree.reader import Overlay, peek_of
from elkyn.tree.values import get_at, keys_of, prepare, same, with_at

KEYS = st.sampled_from(["a", "b", "c", "1", "10"])
PATHS = st.lists(KEYS, max_size=3).map(tuple)
TREES = st.recursive(
    st.sampled_from([1, "x", True]), lambda inner: st.dictionaries(KEYS, inner, max_size=4)
)
PLACES = st.dictionaries(
    st.lists(KEYS, min_size=1, max_size=3).map(tuple), st.none() | TREES, max_size=12
)


@pytest.mark.slow
@given(TREES, PLACES, st.lists(PATHS, min_size=1, max_size=4))
def test_many_places_read_as_if_they_were_written(value: Any, new: Any, paths: Any) -> None:
    places = [
        (place, prepare(new[place]).value)
        for place in new
        if not any(place != other and place[: len(other)] == other for other in new)
    ]
    before = MemoryReader(value)
    after = before.get(())
    for place, stored in places:
        after = with_at(after, place, stored)
    overlay = Overlay(before, places)
    for path in paths:
        expected = get_at(after, path)
        assert same(overlay.get(path), expected)
        assert overlay.keys(path) == keys_of(expected)
        assert overlay.peek(path) is peek_of(expected) or overlay.peek(path) == peek_of(expected)


@pytest.mark.parametrize("value", ["v", None], ids=["writes", "deletes"])
@pytest.mark.parametrize(
    "rule",
    [
        "auth != null && newData.val() != 1",
        "newData.parent().exists() && !newData.hasChildren(['x'])",
        "newData.parent().parent().hasChildren()",
    ],
)
def test_checking_many_paths_needs_steps_in_proportion(value: Any, rule: str) -> None:
    count = 2000
    before = MemoryReader({"l": {f"k{index}": 0 for index in range(count + 1)}})
    places = [(("l", f"k{index}"), value) for index in range(count)]
    rules = parse_rules({"rules": {"l": {"$k": {".write": rule, ".validate": "newData.exists()"}}}})
    steps = 0

    def step(_frame: object, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    sys.setprofile(step)
    try:
        allowed = rules.may_write(before, Overlay(before, places), places, Principal("u"), 0)
    finally:
        sys.setprofile(None)
    assert allowed
    assert steps < 100 * count
