"""The order of children: Firebase's, checked against a comparison written as clients write theirs."""

from __future__ import annotations

from functools import cmp_to_key
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import testing as model
from elkyn.tree.ordering import BY_KEY, BY_PRIORITY, BY_VALUE, Index, children_of, rank
from elkyn.tree.paths import utf16_order
from elkyn.tree.values import prepare

ORDERED = [
    None,
    False,
    True,
    -1e300,
    -1,
    -0.5,
    0,
    1,
    1.5,
    2**53,
    "",
    "0",
    "A",
    "a",
    "aa",
    "b",
    "é",
    "\U0001f600",
    "\ufb01",  # above the emoji by code point, but not by UTF-16 unit
    {"a": 1},
]


def test_types_come_in_firebases_order() -> None:
    ranks = [rank(value) for value in ORDERED]
    assert all(left < right for left, right in pairwise(ranks))


@pytest.mark.parametrize("pair", [(0, -0.0), (2**53, 2**53 + 1), ({"a": 1}, {"b": 2}), (1, 1.0)])
def test_values_that_clients_cannot_distinguish_are_equal(pair: tuple[Any, Any]) -> None:
    assert rank(pair[0]) == rank(pair[1])


def test_a_leaf_with_a_priority_sorts_by_its_value() -> None:
    leaf = {".value": 3, ".priority": "high"}
    assert rank(leaf) == rank(3)
    assert BY_PRIORITY.position("k", leaf) > BY_PRIORITY.position(
        "k", {".value": 9, ".priority": 9}
    )
    assert list(children_of(leaf)) == []
    assert list(children_of({"a": 1, ".priority": 2})) == [("a", 1)]


def test_integer_keys_come_first_among_equals() -> None:
    keys = ["-3", "0", "2", "02", "10", "010", "0000000000011", "99999999999", "a", "b"]
    for index in (BY_KEY, BY_VALUE, BY_PRIORITY, Index("child", ("x",))):
        places = [index.position(key, True) for key in keys]
        assert sorted(places) == places


def test_an_index_looks_deep_and_finds_nothing_below_a_scalar() -> None:
    deep = Index("child", ("a", "b"))
    assert deep.name == "a/b"
    assert deep.value_of({"a": {"b": 5}}) == 5
    assert deep.value_of({"a": 5}) is None
    assert deep.value_of("text") is None


@pytest.mark.parametrize(
    ("index", "inner", "reads"),
    [
        (Index("child", ("a", "b")), ("a",), True),
        (Index("child", ("a", "b")), ("a", "b", "c"), True),
        (Index("child", ("a", "b")), ("a", "c"), False),
        (BY_PRIORITY, (".priority",), True),
        (BY_PRIORITY, ("a",), False),
        (BY_KEY, ("a",), False),
        (BY_VALUE, ("a",), False),
    ],
)
def test_an_index_knows_which_writes_may_move_a_child(
    index: Index, inner: tuple[str, ...], reads: bool
) -> None:
    assert index.reads(inner) is reads


def compare_as_clients(left: Any, right: Any) -> int:
    """Compare as JavaScript does: by type, then numbers as doubles and text by UTF-16 unit."""

    def kind(value: Any) -> int:
        types: list[Any] = [type(None), bool, (int, float), str, dict]
        return next(place for place, type_ in enumerate(types) if isinstance(value, type_))

    if kind(left) != kind(right):
        return kind(left) - kind(right)
    if left is None or isinstance(left, dict):
        return 0
    if isinstance(left, str):
        left, right = left.encode("utf-16-be"), right.encode("utf-16-be")
    else:
        left, right = float(left), float(right)
    return int(left > right) - int(left < right)


@pytest.mark.slow
@given(st.lists(model.VALUES, max_size=12))
def test_any_values_sort_as_clients_sort_them(values: list[Any]) -> None:
    stored = [prepare(value).value for value in values]
    expected = sorted(stored, key=cmp_to_key(compare_as_clients))
    assert sorted(stored, key=rank) == expected


@given(st.text(), st.text())
def test_text_sorts_by_utf16_units(left: str, right: str) -> None:
    expected = left.encode("utf-16-be") < right.encode("utf-16-be")
    assert (utf16_order(left) < utf16_order(right)) is expected
