"""Watching: every change once, in order, to each subscriber, at any speed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore, Event
from elkyn.tree.events import replay
from elkyn.tree.values import present
from sennit_core.errors import Closed, Unsupported


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree") as store:
        yield store


def put(path: str, data: Any) -> Event:
    return Event("put", path, data)


def drain(subscription: Any) -> list[Event]:
    events = []
    while (event := subscription.poll()) is not None:
        events.append(event)
    return events


def test_the_first_event_is_the_current_value(store: ElkynStore) -> None:
    store.set("/a", {"b": [1, 2]})
    with store.watch("/a") as events, store.watch("/none") as nothing:
        assert drain(events) == [put("/", {"b": [1, 2]})]
        assert drain(nothing) == [put("/", None)]


def test_writes_below_arrive_with_relative_paths(store: ElkynStore) -> None:
    with store.watch("/a") as events:
        store.set("/a/b/c", 1)
        store.update("/a/b", {"c": None, "d/e": 2})
        store.delete("/a/b", ephemeral=True)
        store.set("/other", 1)
        assert drain(events)[1:] == [
            put("/b/c", 1),
            Event("patch", "/b", {"c": None, "d/e": 2}),
            put("/b", None),
        ]


def test_a_write_above_arrives_only_when_the_value_changed(store: ElkynStore) -> None:
    with store.watch("/a/b") as events:
        store.set("/a", {"b": 1, "c": 1})
        store.set("/a", {"b": 1, "c": 2})
        store.update("/", {"a": {"b": 1}, "z": 1})
        store.delete("/a")
        assert drain(events)[1:] == [put("/", 1), put("/", None)]


def test_a_value_written_again_is_no_event_but_another_type_is(store: ElkynStore) -> None:
    store.set("/a", {"n": 1})
    with store.watch("/a") as events:
        store.set("/a/n", 1)
        store.update("/a", {"n": 1})
        store.set("/a/n", True)
        assert drain(events)[1:] == [put("/n", True)]


def test_events_carry_resolved_server_values(store: ElkynStore) -> None:
    with store.watch("/") as events:
        store.set("/n", {".sv": {"increment": 3}})
        assert drain(events)[1:] == [put("/n", 3)]


@pytest.mark.slow
def test_a_slow_listener_is_resynchronised_and_memory_stays_bounded(store: ElkynStore) -> None:
    with store.watch("/", queue_events=10) as slow:
        for number in range(1000):
            store.set(f"/k{number % 7}", number)
            assert len(slow._events) <= 10
        [fresh] = drain(slow)
        assert fresh == put("/", store.get("/"))
        store.set("/k0", "after")
        assert drain(slow) == [put("/k0", "after")]


def test_large_events_count_by_their_size(store: ElkynStore) -> None:
    with store.watch("/", queue_bytes=1_000_000) as slow:
        for number in range(20):
            store.set("/big", str(number) * 400_000)
            assert slow._waiting_bytes <= 1_000_000
        assert drain(slow)[-1] == put("/", store.get("/"))


def test_an_event_larger_than_the_bound_still_arrives(store: ElkynStore) -> None:
    with store.watch("/", queue_bytes=1000) as events:
        drain(events)
        store.set("/big", "x" * 5000)
        assert drain(events) == [put("/big", "x" * 5000)]


def test_listeners_under_load_see_every_step_once_and_in_order(store: ElkynStore) -> None:
    def write(name: str) -> None:
        for number in range(60):
            store.set(f"/{name}", number, ephemeral=number % 2 == 0)

    with store.watch("/") as events:
        writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for writer in writers:
            writer.start()
        seen: dict[str, list[int]] = {"/a": [], "/b": [], "/c": []}
        for event in events:
            if event.path != "/":
                seen[event.path].append(event.data)
            if sum(map(len, seen.values())) == 180:
                break
        for writer in writers:
            writer.join()
    assert all(numbers == list(range(60)) for numbers in seen.values())


def test_watching_while_others_write_has_no_gap(store: ElkynStore) -> None:
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            store.set(f"/k{number % 5}", number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    open_ends = [store.watch("/") for _ in range(30)]
    done.set()
    writer.join()
    for events in open_ends:
        value = None
        for event in drain(events):
            value = replay(value, event)
        assert present(value) == store.get("/")


def test_close_ends_an_iterator_that_waits(store: ElkynStore) -> None:
    events = store.watch("/")
    seen: list[Event] = []
    listener = threading.Thread(target=lambda: seen.extend(events))
    listener.start()
    events.close()
    events.close()
    listener.join(timeout=10)
    assert not listener.is_alive()
    with pytest.raises(Closed):
        events.poll()


def test_closing_the_store_ends_its_subscriptions(tmp_path: Path) -> None:
    store = ElkynStore(tmp_path / "t")
    events, called = store.watch("/"), store.on("/", "value", lambda value: None)
    store.close()
    assert (list(events), events.closed) == ([], True)
    called.close()


def test_nothing_is_kept_for_listeners_that_left(store: ElkynStore) -> None:
    for _ in range(50):
        store.watch("/a/b/c").close()
    store.on("/a", "value", print).close()
    assert not store._watchers.concerned(())
    assert store._subscriptions._feeds == {}


def test_it_can_be_awaited(store: ElkynStore) -> None:
    async def listen() -> list[Event]:
        seen = []
        with store.watch("/n", queue_events=4) as events:
            async for event in events:
                seen.append(event)
                if event.data == "end":
                    break
                if event.data is None:  # more than fits: must be resynchronised
                    await asyncio.to_thread(lambda: [store.set("/n", n) for n in range(10)])
                elif event.data == 9:
                    asyncio.get_running_loop().call_later(0.01, store.set, "/n", "end")
        return seen

    assert asyncio.run(listen()) == [put("/", None), put("/", 9), put("/", "end")]


def test_closing_ends_an_awaited_stream(store: ElkynStore) -> None:
    async def listen() -> int:
        events = store.watch("/")
        asyncio.get_running_loop().call_later(0.01, events.close)
        return len([event async for event in events])

    assert asyncio.run(listen()) == 1


def test_a_callback_gets_each_value_and_survives_its_own_errors(store: ElkynStore) -> None:
    values: list[Any] = []
    done = threading.Event()

    def note(value: Any) -> None:
        values.append(value)
        if value == {"a": [1, 2]}:
            done.set()
        if value == {"a": [1]}:
            raise RuntimeError("a user's mistake")

    with store.on("/", "value", note):
        store.set("/a/0", 1)
        store.set("/a/1", 2)
        assert done.wait(10)
    store.set("/a/2", 3)
    assert values == [None, {"a": [1]}, {"a": [1, 2]}]


def test_an_unknown_event_name_is_refused(store: ElkynStore) -> None:
    with pytest.raises(Unsupported, match="child_add"):
        store.on("/", "child_add", print)
