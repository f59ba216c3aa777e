"""Windows that stay up to date: child events as in the client SDKs, and exact streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from elkyn import ElkynStore, Event
from elkyn.tree.events import replay
from elkyn.tree.live_query import CHILD_EVENTS, EVENTS, ViewEvent
from elkyn.tree.query import EVERYTHING, Query, run_query
from elkyn.tree.values import Stored, present
from elkyn.tree.watch import Subscription, ViewSubscription
from sennit_core.errors import Denied, Unsupported


@pytest.fixture
def store() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory") as store:
        yield store


def drain(feed: Any) -> list[Any]:
    events = []
    while (event := feed.poll()) is not None:
        events.append(event)
    return events


def events_of(feed: ViewSubscription) -> list[tuple[Any, ...]]:
    return [event[:4] for event in drain(feed)]


def test_existing_children_come_first_in_order_and_then_the_value(store: ElkynStore) -> None:
    store.set("/p", {"b": 2, "a": 1, "10": 0})
    with store.watch("/p", events=EVENTS) as feed:
        assert events_of(feed) == [
            ("child_added", "10", 0, None),
            ("child_added", "a", 1, "10"),
            ("child_added", "b", 2, "a"),
            ("value", None, {"10": 0, "a": 1, "b": 2}, None),
        ]


def test_nothing_is_a_value_too(store: ElkynStore) -> None:
    with store.watch("/p", events=EVENTS) as feed:
        assert events_of(feed) == [("value", None, None, None)]


def test_the_events_of_one_write_come_in_the_order_of_the_sdks(store: ElkynStore) -> None:
    store.set("/p", {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3}, "d": {"n": 4}})
    with store.watch("/p", Query.build("n"), events=EVENTS) as feed:
        drain(feed)
        store.update("/p", {"b": None, "e": {"n": 2.5}, "a/n": 9, "c/x": True})
        assert events_of(feed) == [
            ("child_removed", "b", {"n": 2}, None),
            ("child_added", "e", {"n": 2.5}, None),
            ("child_moved", "a", {"n": 9}, "d"),
            ("child_changed", "c", {"n": 3, "x": True}, "e"),
            ("child_changed", "a", {"n": 9}, "d"),
            (
                "value",
                None,
                {"e": {"n": 2.5}, "c": {"n": 3, "x": True}, "d": {"n": 4}, "a": {"n": 9}},
                None,
            ),
        ]


def test_without_a_query_children_move_by_their_priority(store: ElkynStore) -> None:
    store.set("/p", {"a": 1, "b": 2})
    with store.watch("/p", events=CHILD_EVENTS) as feed:
        drain(feed)
        store.set("/p/a", {".value": 1, ".priority": 5})
        assert events_of(feed) == [("child_moved", "a", 1, "b"), ("child_changed", "a", 1, "b")]


def test_by_value_every_change_of_a_child_is_a_move(store: ElkynStore) -> None:
    store.set("/p", {"a": {"x": 1}, "b": {"x": 1}})
    with store.watch("/p", Query.build("$value"), events=CHILD_EVENTS) as feed:
        drain(feed)
        store.set("/p/b/x", 2)
        assert events_of(feed) == [
            ("child_moved", "b", {"x": 2}, "a"),
            ("child_changed", "b", {"x": 2}, "a"),
        ]


def test_a_scalar_in_place_of_the_children_removes_them(store: ElkynStore) -> None:
    store.set("/p", {"a": {"x": 1}})
    with store.watch("/p", events=EVENTS) as feed:
        drain(feed)
        store.set("/p", 7)
        store.set("/p/b", 1)
        assert events_of(feed) == [
            ("child_removed", "a", {"x": 1}, None),
            ("value", None, 7, None),
            ("child_added", "b", 1, None),
            ("value", None, {"b": 1}, None),
        ]


def test_a_full_window_admits_the_next_child_when_one_leaves(store: ElkynStore) -> None:
    store.set("/p", {key: {"n": number} for number, key in enumerate("abcdef")})
    with store.watch("/p", Query.build("n", limit_to_last=2), events=CHILD_EVENTS) as feed:
        assert [event[1] for event in events_of(feed)] == ["e", "f"]
        store.delete("/p/f")
        assert events_of(feed) == [
            ("child_removed", "f", {"n": 5}, None),
            ("child_added", "d", {"n": 3}, None),
        ]
        store.set("/p/b/n", 9)  # says nothing of the other parts of b
        assert events_of(feed) == [
            ("child_removed", "d", {"n": 3}, None),
            ("child_added", "b", {"n": 9}, "e"),
        ]
        store.set("/p/a/n", 1)
        assert events_of(feed) == []


def test_a_child_outside_enters_when_the_value_that_excluded_it_is_deleted(
    store: ElkynStore,
) -> None:
    store.set("/p", {"a": {"n": 1}, "b": {"n": 2, "m": 1}, "c": {"n": {"deep": 1}, "m": 2}})
    with store.watch("/p", Query.build("n", limit_to_first=1), events=CHILD_EVENTS) as feed:
        drain(feed)
        store.delete("/p/c/n/deep")
        assert events_of(feed) == [
            ("child_removed", "a", {"n": 1}, None),
            ("child_added", "c", {"m": 2}, None),
        ]
        store.delete("/p/b/n")
        assert events_of(feed) == [
            ("child_removed", "c", {"m": 2}, None),
            ("child_added", "b", {"m": 1}, None),
        ]


def test_a_scalar_outside_enters_when_it_becomes_a_map(store: ElkynStore) -> None:
    store.set("/p", {"a": 1, "b": 2, "c": 3})
    with store.watch("/p", Query.build("$value", limit_to_last=1), events=CHILD_EVENTS) as feed:
        drain(feed)
        store.set("/p/a/x", 1)
        assert events_of(feed) == [
            ("child_removed", "c", 3, None),
            ("child_added", "a", {"x": 1}, None),
        ]


def test_a_new_child_pushes_the_last_one_out_without_a_read(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set("/p", {"a": 1, "b": 2, "c": 3})
    query = Query.build("$value", limit_to_first=2)
    with store.watch("/p", query, events=CHILD_EVENTS) as feed:
        drain(feed)
        monkeypatch.setattr(feed, "resume", None)
        store.set("/p/d", 0)
        assert events_of(feed) == [("child_removed", "b", 2, None), ("child_added", "d", 0, None)]


def test_an_unknown_event_is_refused(store: ElkynStore) -> None:
    with pytest.raises(Unsupported, match="child_add"):
        store.watch("/p", events=["child_add"])


def test_the_stream_of_a_window_is_exact(store: ElkynStore) -> None:
    store.set("/p", {key: {"n": number} for number, key in enumerate("abcd")})
    with store.watch("/p", Query.build("n", limit_to_first=2)) as feed:
        assert drain(feed) == [Event("put", "/", {"a": {"n": 0}, "b": {"n": 1}})]
        store.set("/p/a/x", 1)
        store.set("/p/z", {"n": 0.5})
        store.set("/p/c/n", 2.5)
        store.delete("/p/a")
        assert drain(feed) == [
            Event("put", "/a/x", 1),
            Event("patch", "/", {"z": {"n": 0.5}, "b": None}),
            Event("patch", "/", {"a": None, "b": {"n": 1}}),
        ]


def test_callbacks_get_key_and_previous_key(store: ElkynStore) -> None:
    seen: list[Any] = []
    done = threading.Event()

    def added(value: Any, key: str, previous: str | None) -> None:
        seen.append((value, key, previous))
        if key == "z":
            done.set()

    with store.on("/p", "child_added", added):
        store.set("/p/a", 1)
        store.set("/p/z", 2)
        assert done.wait(10)
    assert seen == [(1, "a", None), (2, "z", "a")]


def test_events_of_a_window_can_be_awaited(store: ElkynStore) -> None:
    async def listen() -> list[str | None]:
        with store.watch("/p", Query.build("$key"), events=["child_added"]) as feed:
            store.set("/p", {"a": 1, "b": 2})
            keys = []
            async for event in feed:
                keys.append(event.key)
                if event.key == "b":
                    return keys
        raise AssertionError

    assert asyncio.run(listen()) == ["a", "b"]


def test_a_server_can_drain_the_queue_and_continue_after_a_loss(store: ElkynStore) -> None:
    store.set("/p", {"a": 1, "b": 2, "c": 3})
    woken: list[None] = []
    with store.watch("/p", Query.build("$value", limit_to_first=2), queue_events=3) as feed:
        feed.drain()
        feed.wake = lambda: woken.append(None)
        store.set("/p/a", 0)
        assert (len(woken), feed.ready) == (1, True)
        assert feed.drain() == [Event("put", "/a", 0)]
        store.delete("/p/b")
        assert (feed.drain(), feed.overflowed) == ([], True)
        assert feed.resume() == [Event("patch", "/", {"b": None, "c": 3})]
        for number in range(9):
            store.set("/p/a", -number)
        assert feed.overflowed
        assert (feed.resume(), feed.overflowed) == ([Event("put", "/a", -8)], False)


def test_the_rules_are_checked_before_each_event(store: ElkynStore) -> None:
    mine = {".read": "auth != null && root.child('ok').val() === true", ".write": True}
    store.set_rules({"rules": {"p": mine, "ok": {".write": True}}})
    store.set("/ok", True)
    store.enable_auth("a secret of more than thirty-two bytes")
    token = store.create_token("ann")
    with pytest.raises(Denied):
        store.watch("/p", events=EVENTS)
    seen: list[Any] = []
    feed = store.watch("/p", token=token)
    called = store.on("/p", "child_added", lambda *event: seen.append(event), token=token)
    store.set("/p/a", 1, token=token)
    assert drain(feed) == [Event("put", "/", None), Event("put", "/a", 1)]
    store.set("/ok", False, token=token)
    store.set("/p/b", 2, token=token)
    with pytest.raises(Denied):
        drain(feed)
    assert feed.closed
    called.close()
    assert all(key != "b" for _value, key, _previous in seen)


def test_every_listener_sees_the_order_of_commits_under_load(store: ElkynStore) -> None:
    def write(name: str) -> None:
        for number in range(50):
            store.set(f"/p/{name}{number % 3}", {"n": number}, ephemeral=number % 5 == 0)
            store.update("/p", {f"{name}x": number, f"{name}y": number})

    queries = [None, Query.build("n", limit_to_last=3), Query.build("$key", start_at="b")]
    feeds = [
        store.watch("/p", query, queue_events=size) for query in queries for size in (10, 10**6)
    ]
    whole = store.watch("/p", queue_events=10**6)
    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    values: list[Stored] = [None] * len(feeds)
    while any(writer.is_alive() for writer in writers):
        for place, feed in enumerate(feeds):
            event = feed.poll(0.001)
            values[place] = values[place] if event is None else replay(values[place], event)
    for place, feed in enumerate(feeds):
        for event in drain(feed):
            values[place] = replay(values[place], event)
    with store.admin.snapshot() as view:
        for place, value in enumerate(values):
            query = queries[place // 2]
            now = view.get(("p",)) if query is None else run_query(query, view, ("p",))
            assert value == now
    history = drain(whole)
    numbers = [
        event.data[f"{n}x"] for n in "abcd" for event in history if f"{n}x" in (event.data or ())
    ]
    assert numbers == [*range(50)] * 4
    assert sorted(event.position for event in history) == [event.position for event in history]


@pytest.mark.nightly
def test_child_events_under_load_add_up_to_the_window(tmp_path: Path) -> None:
    query = Query.build("n", limit_to_last=4)
    with ElkynStore(tmp_path / "tree") as store:
        store.set("/p", {f"k{number}": {"n": number} for number in range(300)})
        feeds = [store.watch("/p", query, events=EVENTS, queue_events=size) for size in (4, 10**6)]

        def write(start: int) -> None:
            for number in range(start, 300, 4):
                store.delete(f"/p/k{299 - number}")
                store.set(f"/p/k{number}/n", 1000 - number)

        writers = [threading.Thread(target=write, args=(start,)) for start in range(4)]
        for writer in writers:
            writer.start()
        held: list[tuple[list[str], dict[str, Any]]] = [([], {}) for _feed in feeds]
        while any(writer.is_alive() for writer in writers):
            for feed, (keys, values) in zip(feeds, held, strict=True):
                follow_all(keys, values, drain(feed))
        with store.admin.snapshot() as view:
            expected = run_query(query, view, ("p",))
        for feed, (keys, values) in zip(feeds, held, strict=True):
            follow_all(keys, values, drain(feed))
            assert (keys, values) == (list(expected), dict(expected))


KEYS = st.sampled_from(["a", "b", "c", "d", "1", "2"])
SCALARS = st.one_of(st.none(), st.integers(0, 4), st.sampled_from(["x", True]))
CHILD = st.one_of(
    SCALARS,
    st.fixed_dictionaries({"n": SCALARS, "m": SCALARS}),
    st.fixed_dictionaries(
        {}, optional={"n": SCALARS, "m": SCALARS, ".priority": st.integers(0, 2)}
    ),
    st.fixed_dictionaries({"n": st.fixed_dictionaries({"deep": SCALARS})}),
)
INNER = st.sampled_from(["", "/n", "/m", "/n/deep", "/.priority"])
QUERIES = [
    None,
    EVERYTHING,
    Query.build("$key", limit_to_first=2),
    Query.build("$key", start_at="2", end_before="d"),
    Query.build("$value", limit_to_last=2),
    Query.build("n", limit_to_first=2),
    Query.build("n", limit_to_last=3),
    Query.build("n", start_at=1, end_at=3, limit_to_last=2),
    Query.build("n", equal_to=None),
    Query.build("n/deep", start_after=1),
    Query.build("$priority", limit_to_last=2),
    Query.build("$priority", equal_to=1),
]


class ViewMachine(RuleBasedStateMachine):
    """Random writes; each feed of child events and each stream must add up to the query's answer."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ElkynStore(mode="memory")
        self.feeds: list[tuple[Query | None, ViewSubscription, list[str], dict[str, Any]]] = []
        self.streams: list[tuple[Query | None, Subscription, list[Stored]]] = []

    @initialize(
        value=st.dictionaries(KEYS, CHILD),
        slow=st.booleans(),
        queries=st.lists(st.sampled_from(QUERIES), min_size=1, max_size=3),
    )
    def watch(self, value: Any, slow: bool, queries: list[Query | None]) -> None:
        self.store.set("/p", value)
        size = 2 if slow else 100
        for query in queries:
            feed = self.store.watch("/p", query, events=EVENTS, queue_events=size)
            self.feeds.append((query, feed, [], {}))
            stream = self.store.watch("/p", query, queue_events=size)
            self.streams.append((query, stream, [None]))

    @rule(key=KEYS, inner=INNER, child=CHILD, ephemeral=st.booleans())
    def set(self, key: str, inner: str, child: Any, ephemeral: bool) -> None:
        if inner.endswith("priority"):
            child = child if type(child) in (int, str) else None
        self.store.set(f"/p/{key}{inner}", child, ephemeral=ephemeral)

    @rule(values=st.dictionaries(KEYS, CHILD, max_size=3), inner=st.sampled_from(["", "/n"]))
    def update(self, values: dict[str, Any], inner: str) -> None:
        self.store.update("/p", {f"{key}{inner}": child for key, child in values.items()})

    @rule(value=st.one_of(SCALARS, st.dictionaries(KEYS, CHILD)), above=st.booleans())
    def replace(self, value: Any, above: bool) -> None:
        if above:
            self.store.set("/", {"p": value, "q": 1})
        else:
            self.store.set("/p", value)

    @rule()
    def catch_up(self) -> None:
        for query, feed, keys, values in self.feeds:
            follow_all(keys, values, drain(feed))
            expected = self.expected(query or EVERYTHING)
            assert keys == list(expected), query
            assert values == {key: present(child) for key, child in expected.items()}
        for query, stream, held in self.streams:
            for event in drain(stream):
                held[0] = replay(held[0], event)
            with self.store.admin.snapshot() as view:
                whole = view.get(("p",))
            expected = self.expected(query or EVERYTHING)
            assert (
                (held[0] == whole) if query in (None, EVERYTHING) else (held[0] or {}) == expected
            )

    def expected(self, query: Query) -> dict[str, Stored]:
        with self.store.admin.snapshot() as view:
            return run_query(query, view, ("p",))

    def teardown(self) -> None:
        try:
            self.catch_up()
        finally:
            self.store.close()


def children(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inner if child is not None]


def follow_all(keys: list[str], values: dict[str, Any], events: list[ViewEvent]) -> None:
    """Follow the events of several writes, each of which ends with a value."""
    write: list[ViewEvent] = []
    for event in events:
        if event.type != "value":
            write.append(event)
            continue
        follow(keys, values, write)
        assert len(values) == len(children(event.value))
        write.clear()
    assert not write


def follow(keys: list[str], values: dict[str, Any], events: list[ViewEvent]) -> None:
    """Keep an ordered list of children by nothing but the events of one write.

    A previous key is the one after the whole write, so what was placed waits for what precedes it.
    """
    for event in events:
        assert event.key is not None
        if event.type == "child_removed":
            assert values.pop(event.key) == event.value
        else:
            assert (event.type == "child_added") is (event.key not in values)
            values[event.key] = event.value
    placed = {e.key: e.previous_key for e in events if e.type in ("child_added", "child_moved")}
    keys[:] = [key for key in keys if key in values and key not in placed]
    while placed:
        key = next(k for k, previous in placed.items() if previous is None or previous in keys)
        previous = placed.pop(key)
        assert key is not None
        keys.insert(0 if previous is None else keys.index(previous) + 1, key)
    for event in events:
        if event.key in values:
            index = keys.index(event.key)
            assert event.previous_key == (keys[index - 1] if index else None)


ViewMachine.TestCase.settings = settings(
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
TestWindows = pytest.mark.slow(ViewMachine.TestCase)
