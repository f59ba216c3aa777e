"""Events of a served tree under load: in the order of commits, none missing, none twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from elkyn_server import Served

from elkyn import ElkynStore
from elkyn.server.app import elkyn_app
from elkyn.storage.writer import put_write

WRITERS = 4
WRITES = 120
LAST = {f"w{writer}": WRITES - 1 for writer in range(WRITERS)}


def write(served: Served, writer: int) -> None:
    with httpx.Client(base_url=served.url, headers=served.headers, timeout=30) as client:
        for number in range(WRITES):
            answer = client.put(f"/load/w{writer}.json?ns=order&print=silent", json=number)
            assert answer.status_code == 204


def changed(path: str, data: Any) -> dict[str, Any]:
    """Return what an event says of the writers' values."""
    key = path.strip("/")
    if key:
        return {key: data}
    return data or {}


def listen(served: Served, ready: threading.Barrier) -> list[tuple[int, dict[str, Any]]]:
    seen: list[tuple[int, dict[str, Any]]] = []
    state: dict[str, Any] = {}
    with served.stream("/load.json?ns=order") as events:
        next(events)
        ready.wait(20)
        for kind, event, position in events:
            if kind in ("put", "patch"):
                assert position is not None
                seen.append((position, changed(event["path"], event["data"])))
                state |= seen[-1][1]
            if state == LAST:
                return seen
    raise AssertionError("the stream ended")


def listen_by_socket(served: Served, ready: threading.Barrier) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    state: dict[str, Any] = {}
    with served.wire("order") as wire:
        assert wire.ask("q", p="/load", h="")["s"] == "ok"
        wire.drain()
        ready.wait(20)
        while state != LAST:
            push = wire.read()["d"]
            path = push["b"]["p"].removeprefix("load")
            seen.append(changed(path, push["b"]["d"]))
            state |= seen[-1]
    return seen


def histories(seen: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for change in seen:
        for key, value in change.items():
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.slow
def test_every_listener_sees_every_write_once_in_the_order_of_commits(emulator: Served) -> None:
    ready = threading.Barrier(6)
    whole = {key: list(range(WRITES)) for key in LAST}
    with ThreadPoolExecutor(5 + WRITERS) as pool:
        streams = [pool.submit(listen, emulator, ready) for _ in range(3)]
        sockets = [pool.submit(listen_by_socket, emulator, ready) for _ in range(2)]
        ready.wait(20)
        writes = [pool.submit(write, emulator, writer) for writer in range(WRITERS)]
        for done in writes:
            done.result(60)
        by_stream = [done.result(60) for done in streams]
        by_socket = [done.result(60) for done in sockets]
    order = [change for _position, change in by_stream[0]]
    for seen in by_stream:
        positions = [position for position, _change in seen]
        assert positions == sorted(set(positions))
        assert [change for _position, change in seen] == order
    for changes in [order, *by_socket]:
        assert histories(changes) == whole
    assert all(changes == order for changes in by_socket)


def test_changes_committed_together_are_sent_together() -> None:
    sent: list[bytes] = []
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def follow(store: ElkynStore) -> None:
        app = elkyn_app({"default": store}, authorize=lambda *_question: None)
        requested, gone = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not requested.is_set():
                requested.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and b"event: p" in message["body"]:
                await bodies.put(message["body"])

        headers = [(b"accept", b"text/event-stream")]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/n.json",
            "raw_path": b"/n.json",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
        }
        stream = asyncio.create_task(app(scope, receive, send))
        sent.append(await bodies.get())
        store.admin.apply([put_write(("n",), number) for number in range(50)])  # holds up the loop
        while b'"data":49' not in sent[-1]:
            sent.append(await bodies.get())
        gone.set()
        await stream
        app.close()

    with ElkynStore(mode="memory") as store:
        asyncio.run(asyncio.wait_for(follow(store), 30))
    first, *rest = sent
    assert b'"data":null' in first
    assert len(rest) == 1
    data = [line for line in rest[0].decode().splitlines() if line.startswith("data: ")]
    assert [json.loads(line[6:])["data"] for line in data] == list(range(50))


@pytest.mark.slow
def test_a_listen_starts_with_the_writes_that_were_sent_before_it(
    start_server: Callable[..., Served],
) -> None:
    served = start_server()
    with served.wire("default") as wire:
        assert wire.ask("auth", cred=served.token)["s"] == "ok"
        listens = []
        for number in range(200):
            wire.send("p", p=f"/n{number}", d=number)
            listens.append(wire.send("q", p=f"/n{number}", h=""))
        assert {wire.answer(listen)["s"] for listen in listens} == {"ok"}
        assert wire.drain() == [("d", {"p": f"n{number}", "d": number}) for number in range(200)]


@pytest.mark.nightly
def test_a_write_for_the_disconnect_is_checked_after_the_writes_before_it(
    start_server: Callable[..., Served],
) -> None:
    served = start_server()
    served.rules(
        "default",
        {".read": True, "open": {".write": True}, "x": {".write": "root.hasChild('open')"}},
    )
    with served.wire("default") as wire:
        answers = []
        for number in range(50):
            wire.send("p", p="/open", d=None)
            wire.send("p", p="/open", d=number)
            answers.append(wire.send("o", p="/x", d=number))
        assert {wire.answer(later)["s"] for later in answers} == {"ok"}
