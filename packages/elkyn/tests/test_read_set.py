"""When an open stream must be authorized again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.auth.principal import ADMIN, Principal
from elkyn.rules import parse_rules
from elkyn.rules.memory import MemoryReader
from elkyn.tree.paths import Path
from elkyn.tree.reader import Overlay
from elkyn.tree.values import prepare

ANN = Principal("ann")
ROOM = "root.child('members').child($room).child(auth.uid).val() === true"


def authorize(rule: str, data: Any, path: Path = ("rooms", "r")) -> tuple[bool, set[Path], bool]:
    rules = parse_rules({"rules": {"rooms": {"$room": {".read": rule}}}})
    allowed, read_set = rules.authorize_stream(MemoryReader(data), path, ANN, 0)
    return allowed, set(read_set.paths), read_set.timed


@pytest.mark.parametrize(
    ("rule", "paths", "timed"),
    [
        ("auth != null", set(), False),
        (ROOM, {("members", "r", "ann")}, False),
        ("data.child('open').exists()", {("rooms", "r", "open")}, False),
        ("auth == null || data.val() != 1", {("rooms", "r")}, False),
        ("auth != null || data.exists()", set(), False),
        ("data.getPriority() == null", {("rooms", "r", ".priority")}, False),
        ("now < 5 && auth != null", set(), True),
        ("'now' == 'now' && auth.now == null", set(), False),
    ],
)
def test_the_read_set_has_the_paths_the_rules_read(
    rule: str, paths: set[Path], timed: bool
) -> None:
    data = {"members": {"r": {"ann": True}}, "rooms": {"r": {"open": 1}}}
    assert authorize(rule, data) == (True, paths, timed)


def test_only_writes_that_meet_it_touch_it() -> None:
    rules = parse_rules({"rules": {"rooms": {"$room": {".read": ROOM}}}})
    _allowed, read_set = rules.authorize_stream(MemoryReader(), ("rooms", "r"), ANN, 0)
    for place in ((), ("members",), ("members", "r", "ann"), ("members", "r", "ann", "x")):
        assert read_set.touched_by([("other",), place])
    assert not read_set.touched_by([("rooms", "r", "m1"), ("members", "r", "bob")])


def test_an_admin_rests_on_nothing() -> None:
    rules = parse_rules({"rules": {".read": "now > 1 && data.exists()"}})
    allowed, read_set = rules.authorize_stream(MemoryReader(), (), ADMIN, 0)
    assert (allowed, read_set.paths, read_set.timed) == (True, frozenset(), False)


RULES = st.sampled_from(
    [
        "root.child('a').exists() && !root.hasChild('b/c')",
        "data.val() == root.child('b').val()",
        "data.hasChildren(['a', 'b']) || root.child('c').isString()",
        "root.child('a').val() > 1 ? root.hasChildren() : data.parent().hasChild('b')",
    ]
)
KEYS = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(
    st.sampled_from([1, 2, "x"]), lambda inner: st.dictionaries(KEYS, inner, max_size=3)
)


@given(RULES, TREES, st.lists(KEYS, max_size=2).map(tuple), st.none() | TREES)
def test_writes_outside_the_read_set_do_not_change_the_decision(
    rule: str, data: Any, place: Path, value: Any
) -> None:
    rules = parse_rules({"rules": {"a": {".read": rule}}})
    before = MemoryReader(data)
    allowed, read_set = rules.authorize_stream(before, ("a",), ANN, 0)
    after = Overlay(before, [(place, prepare(value).value)])
    if not read_set.touched_by([place]):
        assert rules.may_read(after, ("a",), ANN, 0) is allowed
