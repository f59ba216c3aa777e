"""Queries: their syntax, and their results over any tree."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn import testing as model
from elkyn.tree.ordering import BY_KEY, BY_PRIORITY, BY_VALUE, MAX_NAME, MIN_NAME, Index
from elkyn.tree.query import EVERYTHING, Bound, IndexMissing, Query, require_index, run_query
from sennit_core.errors import UsageError

AGE = Index("child", ("age",))
PEOPLE = {
    "ann": {"age": 30},
    "bob": {"age": 25},
    "cyd": {"age": 30},
    "dan": {"age": "old"},
    "eve": {},
    "fay": "no map",
    "gus": {"age": {"years": 5}},
    "7": {"age": True},
}


def select(query: Query, tree: Any = None) -> list[str]:
    with ElkynStore(mode="memory") as store:
        store.set("/p", PEOPLE if tree is None else tree)
        with store.admin.snapshot() as view:
            return list(run_query(query, view, ("p",)))


def test_children_come_in_the_order_of_the_query() -> None:
    assert select(Query.build("age")) == ["fay", "7", "bob", "ann", "cyd", "dan", "gus"]
    assert select(Query.build("$key")) == ["7", "ann", "bob", "cyd", "dan", "fay", "gus"]
    assert select(Query.build("$value")) == ["fay", "7", "ann", "bob", "cyd", "dan", "gus"]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"start_at": 26}, ["ann", "cyd", "dan", "gus"]),
        ({"start_at": (30, "b")}, ["cyd", "dan", "gus"]),
        ({"start_at": (30, "cyd")}, ["cyd", "dan", "gus"]),
        ({"start_after": 25}, ["ann", "cyd", "dan", "gus"]),
        ({"start_after": (30, "ann")}, ["cyd", "dan", "gus"]),
        ({"end_at": 25}, ["fay", "7", "bob"]),
        ({"end_at": (30, "ann")}, ["fay", "7", "bob", "ann"]),
        ({"end_before": 30}, ["fay", "7", "bob"]),
        ({"end_before": (30, "cyd")}, ["fay", "7", "bob", "ann"]),
        ({"equal_to": 30}, ["ann", "cyd"]),
        ({"equal_to": (30, "cyd")}, ["cyd"]),
        ({"equal_to": None}, ["fay"]),
        ({"equal_to": True}, ["7"]),
        ({"start_at": "a"}, ["dan", "gus"]),
        ({"start_at": 25, "end_at": 30, "limit_to_last": 2}, ["ann", "cyd"]),
        ({"limit_to_first": 2}, ["fay", "7"]),
        ({"limit_to_last": 3}, ["cyd", "dan", "gus"]),
        ({"start_at": 5, "end_at": 1}, []),
    ],
)
def test_ranges_and_limits(window: Any, expected: list[str]) -> None:
    assert select(Query.build("age", **window)) == expected


def test_ranges_of_keys_count_integers_first() -> None:
    tree = {"a": 1, "b": 1, "2": 1, "10": 1, "-1": 1}
    assert select(Query.build("$key", start_at="2"), tree) == ["2", "10", "a", "b"]
    assert select(Query.build("$key", start_after="2", end_before="b"), tree) == ["10", "a"]
    assert select(Query.build("$key", equal_to="10"), tree) == ["10"]


def test_a_scalar_and_nothing_have_no_children() -> None:
    assert select(Query.build("age"), 5) == []
    assert select(Query.build("$key", limit_to_first=1), {}) == []


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({"orderBy": '"age"'}, Query(AGE)),
        ({"orderBy": '"$key"'}, Query(BY_KEY)),
        ({"orderBy": '"$value"', "limitToLast": "3"}, Query(BY_VALUE, None, None, 3, True)),
        ({"orderBy": '"$priority"', "startAt": "5"}, Query(BY_PRIORITY, Bound(5))),
        ({"orderBy": '"a/b"', "endAt": '"x"'}, Query(Index("child", ("a", "b")), end=Bound("x"))),
        ({"orderBy": '"age"', "startAt": '5,"key"'}, Query(AGE, Bound(5, "key"))),
        (
            {"orderBy": '"age"', "endBefore": '"a,b" , "k"'},
            Query(AGE, end=Bound("a,b", "k", False)),
        ),
        ({"orderBy": '"age"', "startAfter": "5"}, Query(AGE, Bound(5, MAX_NAME, False))),
        ({"orderBy": '"age"', "endBefore": "5"}, Query(AGE, end=Bound(5, MIN_NAME, False))),
        ({"orderBy": '"$key"', "startAfter": '"k"'}, Query(BY_KEY, Bound("k", None, False))),
        ({"orderBy": '"age"', "equalTo": "null"}, Query(AGE, Bound(None), Bound(None))),
    ],
)
def test_rest_parameters_are_read(params: dict[str, str], query: Query) -> None:
    assert Query.of_rest({**params, "print": "pretty"}) == query


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"limitToFirst": "1"}, "orderBy must be defined when other query parameters are defined"),
        ({"orderBy": "age"}, "orderBy must be a valid JSON encoded path"),
        ({"orderBy": '""'}, "orderBy must be a valid JSON encoded path"),
        ({"orderBy": '"$unknown"'}, "orderBy must be a valid JSON encoded path"),
        ({"orderBy": "5"}, "orderBy must be a valid JSON encoded path"),
        ({"orderBy": '"a.b"'}, "orderBy must be a valid JSON encoded path"),
        ({"orderBy": '"a"', "startAt": "x"}, "Constraint index field must be a JSON primitive"),
        ({"orderBy": '"a"', "equalTo": "{}"}, "Constraint index field must be a JSON primitive"),
        ({"orderBy": '"a"', "endAt": "[1]"}, "Constraint index field must be a JSON primitive"),
        ({"orderBy": '"a"', "endAt": "1 2"}, "Constraint index field must be a JSON primitive"),
        ({"orderBy": '"a"', "endAt": "NaN"}, "Constraint index field must be a JSON primitive"),
        ({"orderBy": '"a"', "limitToFirst": "x"}, "limitToFirst must be an integer"),
        ({"orderBy": '"a"', "limitToFirst": "0"}, "limitToFirst must be positive"),
        ({"orderBy": '"a"', "limitToLast": "-1"}, "limitToLast must be positive"),
        (
            {"orderBy": '"a"', "limitToFirst": "1", "limitToLast": "1"},
            "Only one of limitToFirst and limitToLast may be specified",
        ),
        (
            {"orderBy": '"a"', "equalTo": "1", "startAt": "1"},
            "equalTo cannot be specified in addition to startAfter, startAt, endAt, or endBefore",
        ),
        (
            {"orderBy": '"$key"', "startAt": "1"},
            "Provided key index type is invalid, must be string",
        ),
        (
            {"orderBy": '"$priority"', "startAt": "true"},
            "Provided priority is invalid, must be number, string or null",
        ),
        (
            {"orderBy": '"a"', "startAt": "1", "startAfter": "1"},
            "Only one of startAt and startAfter may be specified",
        ),
    ],
)
def test_bad_rest_parameters_are_refused_in_firebases_words(
    params: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        Query.of_rest(params)
    assert str(refused.value) == message


@given(st.dictionaries(st.sampled_from(["orderBy", "startAt", "limitToLast"]), st.text()))
def test_any_rest_parameters_are_read_or_refused(params: dict[str, str]) -> None:
    with suppress(UsageError):
        Query.of_rest(params)


def test_other_parameters_make_no_query() -> None:
    assert Query.of_rest({"print": "pretty", "ns": "x"}) is None


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"i": ".key", "sp": "a", "sin": True, "l": 2, "vf": "l"},
        {"i": "a/b", "sp": 1, "sn": "[MAX_NAME]", "sin": False, "ep": None, "en": "k", "ein": True},
        {"i": ".value", "l": 3, "vf": "r"},
        {"ep": "x", "ein": False},
    ],
)
def test_the_wire_form_is_read_and_written(wire: dict[str, Any]) -> None:
    assert Query.of_wire(wire).to_wire() == wire


@pytest.mark.parametrize(
    "wire", [{"i": 5}, {"sp": {}}, {"sp": 1, "sn": 2}, {"l": "x"}, {"l": 0}, {"l": -1}, {"i": ""}]
)
def test_a_bad_wire_form_is_refused(wire: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Query.of_wire(wire)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=3,
)


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(["sp", "sn", "sin", "ep", "en", "ein", "l", "vf", "i"]), JSON)
)
def test_any_wire_form_is_read_and_answered_or_refused(wire: dict[str, Any]) -> None:
    with suppress(UsageError):
        query = Query.of_wire(wire)
        query.select({"a": 1, "2": {"n": "x"}}.items())


def test_only_a_query_for_everything_by_priority_is_the_default() -> None:
    assert EVERYTHING.is_default
    assert not Query(BY_KEY).is_default
    assert Query(BY_KEY).loads_all


def test_an_unknown_or_wrong_option_is_refused() -> None:
    with pytest.raises(TypeError, match="starts_at"):
        Query.build("a", starts_at=5)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="limit_to_first must be an integer"):
        Query.build("a", limit_to_first="5")  # type: ignore[arg-type]


def test_a_missing_index_is_named_as_firebase_names_it() -> None:
    with pytest.raises(IndexMissing) as refused:
        require_index(Query(AGE), ("a", "b"), (".value", "name"))
    expected = 'Index not defined, add ".indexOn": "age", for path "/a/b", to the rules'
    assert str(refused.value) == expected
    with pytest.raises(IndexMissing, match=r'"\.indexOn": "\.value", for path "/"'):
        require_index(Query(BY_VALUE), (), ())
    for query in (Query(AGE), Query(BY_KEY), Query(BY_PRIORITY)):
        require_index(query, (), ("age",))


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "b"]))
CHILDREN = st.dictionaries(
    st.sampled_from(["a", "b", "c", "1", "2", "10", "010", "é"]),
    st.one_of(SCALARS, st.dictionaries(st.just("x"), SCALARS, max_size=1)),
)
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(SCALARS, st.tuples(SCALARS, st.sampled_from(["a", "b", "2", "z"])))
        for name in ("start_at", "start_after", "end_at", "end_before", "equal_to")
    },
)
LIMITS: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"limit_to_first": st.integers(1, 4)}),
    st.fixed_dictionaries({"limit_to_last": st.integers(1, 4)}),
)


def naive_key(key: str) -> tuple[int, int, bytes]:
    number = key.removeprefix("-").isdigit() and str(int(key)) == key
    return (0, int(key), b"") if number else (1, 0, key.encode())


def naive_rank(value: Any) -> tuple[Any, ...]:
    kinds = {type(None): 0, bool: 1, int: 2, float: 2, str: 3, dict: 4}
    comparable = 0 if value is None or type(value) is dict else value
    return (kinds[type(value)], comparable)


def naive(children: dict[str, Any], order_by: str, window: dict[str, Any]) -> list[str]:
    """Select as documented: sort, cut both ends, limit to the first or last."""

    def place(key: str) -> tuple[Any, ...]:
        child = children[key]
        if order_by == "x":
            child = child.get("x") if type(child) is dict else None
        return (*naive_rank(child), naive_key(key))

    kept = {
        "start_at": lambda spot, edge: spot >= edge,
        "start_after": lambda spot, edge: spot > edge,
        "end_at": lambda spot, edge: spot <= edge,
        "end_before": lambda spot, edge: spot < edge,
        "equal_to": lambda spot, edge: spot == edge,
    }
    found = sorted(children, key=place)
    for name, bound in window.items():
        if name in kept:
            value, key = bound if isinstance(bound, tuple) else (bound, None)
            edge = naive_rank(value) if key is None else (*naive_rank(value), naive_key(key))
            found = [k for k in found if kept[name](place(k)[: len(edge)], edge)]
    last = window.get("limit_to_last")
    return found[-last:] if last else found[: window.get("limit_to_first")]


@pytest.mark.slow
@given(CHILDREN, st.sampled_from(["$value", "x"]), BOUNDS, LIMITS)
def test_any_query_selects_the_same_as_a_naive_one(
    children: dict[str, Any], order_by: str, bounds: Any, limits: Any
) -> None:
    try:
        query = Query.build(order_by, **bounds, **limits)
    except UsageError:
        return
    tree = model.plain(children) or {}
    assert list(query.select(tree.items())) == naive(tree, order_by, {**bounds, **limits})
    assert Query.of_wire(json.loads(json.dumps(query.to_wire()))) == query
