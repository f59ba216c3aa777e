"""Events of the tree fold into the value they describe."""

import json
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

from elytra.client.sse import fold, watched_values


def event(name: str, path: str, data: Any) -> ServerSentEvent:
    return ServerSentEvent(name, json.dumps({"path": path, "data": data}))


def test_a_stream_yields_the_value_after_each_change() -> None:
    """The line separator U+2028 within a value does not end a line of the stream."""
    text = (
        ': hello\nevent: put\ndata: {"path": "/",\ndata: "data": "a\u2028b"}\n\n'
        'event: keep-alive\ndata: null\n\nevent: put\ndata: {"path": "/", "data": 1}\n\n'
    )
    response = httpx.Response(
        200, headers={"content-type": "text/event-stream"}, content=text.encode()
    )

    assert list(watched_values(response)) == ["a\u2028b", 1]


def test_changes_are_applied_where_they_happened() -> None:
    events = [
        event("put", "/", {"state": "queued"}),
        event("patch", "/", {"state": "running", "progress/rows": 5}),
        event("put", "/progress/rows", 9),
        ServerSentEvent("keep-alive", "null"),
        event("put", "/progress", None),
    ]

    assert list(fold(events)) == [
        {"state": "queued"},
        {"state": "running", "progress": {"rows": 5}},
        {"state": "running", "progress": {"rows": 9}},
        {"state": "running"},
    ]


def test_deleting_the_root_leaves_nothing() -> None:
    assert list(fold([event("put", "/", {"a": 1}), event("put", "/", None)]))[-1] is None


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda kids: st.dictionaries(st.sampled_from("abc"), kids, min_size=1, max_size=3),
    max_leaves=8,
)
paths = st.lists(st.sampled_from("abc"), max_size=3)


@pytest.mark.slow
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
