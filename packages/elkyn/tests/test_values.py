"""Values that the tree accepts, and how it returns them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import BadPath, BadValue
from elkyn import testing as model
from elkyn.tree.paths import format_path, order_key, parse_path, sorted_map
from elkyn.tree.push_ids import PushIds
from elkyn.tree.values import prepare, present, same
from sennit_core.testing import ManualClock


def test_slashes_at_the_ends_and_doubled_ones_mean_nothing() -> None:
    assert parse_path("a//b/") == parse_path("/a/b") == ("a", "b")
    assert format_path(parse_path("/")) == "/"


@pytest.mark.parametrize("key", ["a.b", "$x", "a#", "[", "]", "a\nb", "\x7f", "é" * 385, "\ud800"])
def test_a_forbidden_key_is_refused_with_its_path(key: str) -> None:
    with pytest.raises(BadPath, match="path /safe/") as refused:
        parse_path(f"/safe/{key}")
    assert refused.value.path == f"/safe/{key}"


def test_a_key_of_768_bytes_and_a_path_of_32_levels_are_fine() -> None:
    assert len(parse_path("/".join(["k" * 768] * 32))) == 32
    with pytest.raises(BadPath, match="33 levels"):
        parse_path("/".join("k" * 33))


def test_a_value_deeper_than_the_tree_is_refused_where_it_breaks() -> None:
    value: Any = 1
    for _level in range(31):
        value = {"d": value}
    prepare(value, ("a",))
    with pytest.raises(BadValue, match="/a/b/d/d"):
        prepare(value, ("a", "b"))


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({"a": {"b.c": 1}}, "/p/a", "must not hold"),
        ({"a": [0, float("nan")]}, "/p/a/1", "finite"),
        ({"a": b"bytes"}, "/p/a", "cannot store a value of type bytes"),
        ({"a": {1: 2}}, "/p/a", "not a str"),
        ({"": 2}, "/p", "empty"),
        ("x" * (10 * 1024 * 1024 + 1), "/p", "limit"),
        ("\ud800", "/p", "surrogate"),
        ({".sv": "tomorrow"}, "/p", "unknown server value"),
        ({"n": {".sv": {"increment": True}}}, "/p/n", "unknown server value"),
        (10**400, "/p", "finite"),
    ],
)
def test_a_value_the_tree_cannot_hold_names_its_place(value: Any, place: str, reason: str) -> None:
    with pytest.raises(BadValue, match=reason) as refused:
        prepare(value, ("p",))
    assert refused.value.path == place


def test_absent_things_vanish() -> None:
    assert prepare({"a": None, "b": {}, "c": [], "d": {"e": [None, {}]}}).value is None


def test_dense_integer_keys_are_returned_as_a_list() -> None:
    assert present(prepare(["a", None, "c"]).value) == ["a", None, "c"]
    assert present(prepare({"1": "b"}).value) == [None, "b"]
    assert present(prepare({"2": "c"}).value) == {"2": "c"}
    assert present(prepare({"0": "a", "x": 1}).value) == {"0": "a", "x": 1}
    assert present(prepare({"-1": "a", "0": "b"}).value) == {"-1": "a", "0": "b"}
    assert present(prepare({"00": "a"}).value) == {"00": "a"}


def test_integer_keys_come_first_by_number_then_text() -> None:
    keys = ["b", "10", "9", "-1", "010", "a", "é", "2147483648", "_"]
    ordered = ["-1", "9", "10", "010", "2147483648", "_", "a", "b", "é"]
    assert list(sorted_map(dict.fromkeys(keys, 1))) == ordered == sorted(keys, key=order_key)


@pytest.mark.slow
@given(model.VALUES)
def test_a_shown_value_imports_unchanged(value: Any) -> None:
    stored = prepare(value).value
    again = prepare(present(stored)).value
    assert same(stored, again)
    assert model.typed(present(stored)) == model.typed(model.shown(model.plain(value)))
    assert json.loads(json.dumps(present(stored))) == present(stored)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50))
def test_push_ids_always_rise_and_have_twenty_characters(steps: list[int]) -> None:
    clock = ManualClock()
    ids = PushIds(clock)
    made = []
    for step in steps:
        clock.advance(step / 1000)
        made.append(ids.new())
    assert made == sorted(set(made))
    assert {len(key) for key in made} == {20}
