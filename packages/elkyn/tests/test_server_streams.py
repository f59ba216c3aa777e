"""Event streams: where they resume, what ends them, and the form that browsers read."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from elkyn.server.realtime.feed import Batch, Opening
from elkyn.server.realtime.hub import Hub
from elkyn.server.resume import ResumePoint, id_of, missed_events, parse_id, try_missed
from elkyn.storage.terms import Terms
from elkyn.storage.transactions import ReadTransaction
from elkyn.store import ElkynStore
from elkyn.tree.events import Event


@pytest.mark.slow
def test_every_event_has_the_position_of_its_commit(emulator: Any) -> None:
    put = emulator.client.put
    put("/a.json?ns=ids", json=1)
    with emulator.stream("/a.json?ns=ids") as stream:
        first = next(stream)
        put("/a/b.json?ns=ids", json=2)
        put("/other.json?ns=ids", json=2)
        put("/a/c.json?ns=ids", json=3)
        events = [next(stream), next(stream)]
    assert first[:2] == ("put", {"path": "/", "data": 1})
    assert [event[1]["path"] for event in events] == ["/b", "/c"]
    assert [event[2] - first[2] for event in events] == [1, 3]


def test_a_client_that_reconnects_gets_what_it_missed(emulator: Any) -> None:
    client = emulator.client
    client.put("/a.json?ns=back", json={"n": 0})
    with emulator.stream("/a.json?ns=back") as stream:
        position = next(stream)[2]
    client.put("/a/n.json?ns=back", json=1)
    client.put("/other.json?ns=back", json=1)
    client.patch("/a.json?ns=back", json={"n": 2, "m/k": 3})
    client.delete("/.json?ns=back")
    with emulator.stream("/a.json?ns=back", **{"Last-Event-ID": str(position)}) as stream:
        missed = [next(stream) for _ in range(3)]
        client.put("/a.json?ns=back", json=4)
        missed.append(next(stream))
    assert [event[:2] for event in missed] == [
        ("put", {"path": "/n", "data": 1}),
        ("patch", {"path": "/", "data": {"n": 2, "m/k": 3}}),
        ("put", {"path": "/", "data": None}),
        ("put", {"path": "/", "data": 4}),
    ]
    with emulator.stream("/a.json?ns=back", **{"Last-Event-ID": "99999"}) as stream:
        assert next(stream)[:2] == ("put", {"path": "/", "data": 4})


@pytest.mark.nightly
def test_a_stream_does_not_resume_in_a_store_that_was_restored(
    start_server: Any, tmp_path: Path
) -> None:
    def first(served: Any, last_seen: str = "") -> tuple[str, Any]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last_seen, **served.headers}
        url = f"{served.url}/a.json"
        with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
            lines = answer.iter_lines()
            _event, data, number = next(lines), next(lines), next(lines)
        return number.removeprefix("id: "), json.loads(data.removeprefix("data: "))

    served = start_server(data=tmp_path / "store")
    served.client.put("/a.json", json={"n": 1})
    served.stop()
    shutil.copytree(tmp_path / "store", tmp_path / "restored")
    served = start_server(data=tmp_path / "store")
    served.client.put("/a/n.json", json=2)
    seen, event = first(served)
    assert event == {"path": "/", "data": {"n": 2}}
    served.client.put("/a/m.json", json=3)
    assert first(served, seen)[1] == {"path": "/m", "data": 3}
    missed, _event = first(served, seen)
    served.client.put("/a/m.json", json=4)
    assert first(served, missed)[1] == {"path": "/m", "data": 4}
    served.stop()
    served = start_server(data=tmp_path / "restored")
    for number in (5, 6):
        served.client.put("/a/m.json", json=number)
    assert first(served, seen)[1] == {"path": "/", "data": {"m": 6, "n": 1}}


def test_no_stream_resumes_from_an_event_that_is_in_no_log() -> None:
    terms = Terms()
    assert parse_id(id_of(terms, 7, 0)) == ResumePoint(7, 1, 0)
    with ElkynStore(mode="memory") as store:
        store.set("/a", 1)
        (entry,) = store.oplog.read(0, 9)
        assert try_missed(store, ("a",), ResumePoint(1, 1, entry.time_ms), 1) == []
        for time_ms in (0, entry.time_ms + 1):
            assert try_missed(store, ("a",), ResumePoint(1, 1, time_ms), 1) is None


@pytest.mark.slow
def test_a_slow_start_serves_the_same_events(emulator: Any) -> None:
    client, large = emulator.client, {f"k{number:03}": "x" * 900 for number in range(200)}
    client.put("/a.json?ns=long", json=large)
    with emulator.stream("/a.json?ns=long") as stream:
        kind, body, position = next(stream)
    assert (kind, body) == ("put", {"path": "/", "data": large})
    for number in range(150):
        client.put(f"/a/n{number}.json?ns=long", json=number)
    with emulator.stream("/a.json?ns=long", **{"Last-Event-ID": str(position)}) as stream:
        missed = [next(stream) for _ in range(150)]
    assert [event[1] for event in missed] == [
        {"path": f"/n{number}", "data": number} for number in range(150)
    ]


def test_a_client_that_does_not_wait_learns_of_a_pending_commit() -> None:
    def opener(view: ReadTransaction) -> Opening:
        return Opening((view.get(("a",)),))

    async def begin(store: ElkynStore) -> list[Any]:
        follower = Hub(asyncio.get_running_loop()).follow(store, ("a",), lambda _feed: None)
        with store._writer.between_commits():
            with pytest.raises(BlockingIOError):
                follower.channel.begin(opener, at_once=True)
            starting = asyncio.create_task(follower.start(opener))
            await asyncio.sleep(0.05)
            assert not starting.done()
        return list((await starting).frames)

    with ElkynStore(mode="memory") as store:
        store.set("/a", 1)
        assert asyncio.run(begin(store)) == [1]


class BatchRecorder:
    """A follower of `/a` and the batches that it was handed."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    async def start(self, hub: Hub, store: ElkynStore, *, batched: bool) -> None:
        self.follower = hub.follow(store, ("a",), lambda _feed: None, batched=batched)
        await self.follower.start(lambda _view: Opening(()))
        self.follower.sink = self.record

    def record(self, batch: Batch) -> bool:
        self.batches.append([event.data for event in batch.events])
        return True


def test_after_a_batch_for_very_many_events_gather_unless_one_follower_is_unbatched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minutes = count(0.0, 60.0)  # the duration of sending a batch
    monkeypatch.setattr(
        "elkyn.server.realtime.hub.time", SimpleNamespace(monotonic=lambda: next(minutes))
    )
    monkeypatch.setattr("elkyn.server.realtime.hub._PAUSE_SECONDS_MAX", 60.0)
    many, one = [BatchRecorder() for _ in range(200)], BatchRecorder()

    async def run(store: ElkynStore) -> None:
        hub = Hub(asyncio.get_running_loop())
        for recorder in many:
            await recorder.start(hub, store, batched=True)
        for number in range(1, 5):
            store.set("/a", number)
            await asyncio.sleep(0.01)
        assert [recorder.batches for recorder in many] == [[[1]]] * 200
        await one.start(hub, store, batched=False)
        store.set("/a", 5)
        await asyncio.sleep(0.01)

    with ElkynStore(mode="memory") as store:
        asyncio.run(run(store))
    assert [recorder.batches for recorder in many] == [[[1], [2, 3, 4, 5]]] * 200
    assert one.batches == []  # a part of a batch is still queued
    assert [event.data for batch in one.follower.dequeue() or () for event in batch.events] == [5]


def test_nothing_is_resumed_over_ephemeral_values_or_a_log_that_was_cut() -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/a", 1)
        before = store.position
        store.set("/a", 2)
        assert try_missed(store, ("a",), ResumePoint(before, 1), store.position) == [
            Event("put", "/", 2)
        ]
        store.set("/a", 3, ephemeral=True)
        assert try_missed(store, ("a",), ResumePoint(before, 1), store.position) is None
        store.set("/a", 4)
        assert try_missed(store, ("a",), ResumePoint(store.position, 1), store.position) == []
        assert try_missed(store, ("a",), ResumePoint(store.position + 1, 1), store.position) is None


def test_missed_events_add_up_to_the_value(tmp_path: Any) -> None:
    with ElkynStore(tmp_path / "s") as store:
        store.set("/a/b", {"x": 1})
        start = store.position
        store.update("/", {"a/b/y": 2, "a/c": 3, "z": 4})
        store.set("/a", {"b": {"x": 5}})
        store.set("/a/b/x/deep", 6)
        store.set("/q", 1)
        seen = list(missed_events(store.oplog.read(start), ("a", "b")))
    assert [(event.type, event.path, event.data) for event in seen] == [
        ("put", "/y", 2),
        ("put", "/", {"x": 5}),
        ("put", "/x/deep", 6),
    ]


@pytest.mark.slow
def test_a_watch_path_streams_messages_for_browsers(emulator: Any) -> None:
    emulator.client.put("/a/b?ns=watch", json=1)
    with emulator.client.stream("GET", "/a/.watch?ns=watch") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next(lines) == 'data: {"type":"put","path":"/","data":{"b":1}}'
        assert next(lines).startswith("id: ")
        emulator.client.patch("/a?ns=watch", json={"b": 2, "c": 3})
        found = [next(lines) for _ in range(2)]
        assert found[1] == 'data: {"type":"patch","path":"/","data":{"b":2,"c":3}}'
        assert next(line for line in lines if line.startswith(":")) == ": keep-alive"


def test_a_stream_of_a_query_follows_its_window(emulator: Any) -> None:
    emulator.client.put("/q.json?ns=qs", json={"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3}})
    with emulator.stream('/q.json?ns=qs&orderBy="n"&limitToLast=1') as stream:
        assert next(stream)[1] == {"path": "/", "data": {"c": {"n": 3}}}
        emulator.client.put("/q/a/n.json?ns=qs", json=9)
        value: dict[str, Any] = {"c": {"n": 3}}
        while value != {"a": {"n": 9}}:
            kind, event, _id = next(stream)
            new = event["data"] if kind == "patch" else {event["path"][1:]: event["data"]}
            value = {**value, **new} if event["path"] != "/" or kind == "patch" else event["data"]
            value = {key: child for key, child in value.items() if child is not None}


def test_new_rules_cancel_a_stream_at_once(emulator: Any) -> None:
    emulator.rules("cancel", {".read": True, ".write": True})
    headers = {"Accept": "text/event-stream", "Authorization": ""}
    url = "/a.json?ns=cancel"
    with emulator.client.stream("GET", url, headers=headers) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: put"
        emulator.rules("cancel", {".read": "auth != null"})
        assert list(lines)[-3:] == ["event: cancel", "data: null", ""]
    assert httpx.get(f"{emulator.url}{url}").status_code == 401


@pytest.mark.nightly
def test_five_hundred_abandoned_streams_leave_nothing_behind(
    start_server: Callable[..., Any],
) -> None:
    import socket

    served = start_server("--emulator")
    host, port = served.url.removeprefix("http://").split(":")
    request = (
        b"GET /a.json HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        b"Authorization: Bearer owner\r\n\r\n"
    )
    for _ in range(5):
        held = [socket.create_connection((host, int(port))) for _ in range(100)]
        for one in held:
            one.sendall(request)
        for one in held:
            assert one.recv(20)
        for one in held:
            one.close()
    deadline = time.monotonic() + 20
    while 'elkyn_connections{kind="sse"} 0' not in served.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_user_removed_from_a_group_by_a_write_is_cancelled(emulator: Any) -> None:
    member = "root.child('members').child(auth.uid).val() === true"
    emulator.rules("group", {"room": {".read": member}})
    emulator.client.put("/members/ann.json?ns=group", json=True)
    url = '/room.json?ns=group&auth_variable_override={"uid":"ann"}'
    for query in ("", '&orderBy="$key"&limitToFirst=1'):
        emulator.client.put("/members/ann.json?ns=group", json=True)
        with emulator.stream(url + query) as stream:
            assert next(stream)[0] == "put"
            emulator.client.put("/other.json?ns=group", json=1)
            emulator.client.delete("/members/ann.json?ns=group")
            started = time.monotonic()
            kinds = [kind for kind, _data, _id in stream if kind != "keep-alive"]
            assert kinds[-1] == "cancel"
            assert time.monotonic() - started < 10
    with emulator.wire("group") as wire:
        emulator.client.put("/members/ann.json?ns=group", json=True)
        wire.ask("gauth", cred="owner", authvar={"uid": "ann"})
        assert wire.ask("q", p="/room", h="")["s"] == "ok"
        emulator.client.delete("/members/ann.json?ns=group")
        assert wire.read()["d"] == {"a": "c", "b": {"p": "room"}}
