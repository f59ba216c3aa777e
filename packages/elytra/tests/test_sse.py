"""Events of the tree fold into the value they describe."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from elytra.sse import ServerEvent, fold, parse_events


def event(name: str, path: str, data: Any) -> ServerEvent:
    return ServerEvent(name, json.dumps({"path": path, "data": data}))


def test_lines_become_events() -> None:
    lines = [": hello", "event: put", "data: {", "data: }", "", "", "data:bare", ""]

    assert list(parse_events(lines)) == [ServerEvent("put", "{\n}"), ServerEvent("message", "bare")]


def test_changes_are_applied_where_they_happened() -> None:
    events = [
        event("put", "/", {"state": "queued"}),
        event("patch", "/", {"state": "running", "progress/rows": 5}),
        event("put", "/progress/rows", 9),
        ServerEvent("keep-alive", "null"),
        event("put", "/progress", None),
    ]

    assert list(fold(events)) == [
        {"state": "queued"},
        {"state": "running", "progress": {"rows": 5}},
        {"state": "running", "progress": {"rows": 9}},
        {"state": "running"},
    ]


def test_deleting_the_root_gives_nothing() -> None:
    assert list(fold([event("put", "/", {"a": 1}), event("put", "/", None)]))[-1] is None


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda kids: st.dictionaries(st.sampled_from("abc"), kids, min_size=1, max_size=3),
    max_leaves=8,
)
paths = st.lists(st.sampled_from("abc"), max_size=3)


@given(st.lists(st.tuples(paths, trees), min_size=1, max_size=6))
def test_a_value_that_was_seen_never_changes_afterwards(changes: Any) -> None:
    events = [event("put", "/" + "/".join(path), value) for path, value in changes]
    seen, copies = [], []
    for value in fold(events):
        seen.append(value)
        copies.append(json.dumps(value))

    assert [json.dumps(value) for value in seen] == copies


@given(paths, trees)
def test_a_put_is_found_at_its_path(path: Any, value: Any) -> None:
    (found,) = fold([event("put", "/" + "/".join(path), value)])
    for key in path:
        found = found[key]
    assert found == value
