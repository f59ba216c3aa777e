"""The realtime protocol on a real socket: order of traffic, queries, transactions, disconnects."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from elkyn import ElkynStore
from elkyn.server.app import ElkynApp
from elkyn.server.auth_backend import HookBackend
from elkyn.server.settings import Settings


@pytest.mark.slow
def test_a_connection_begins_with_hello(emulator: Any) -> None:
    with emulator.wire("hello") as wire:
        hello = wire.hello
        assert (hello["t"], hello["d"]["v"], len(hello["d"]["s"]) > 10) == ("h", "5", True)
        assert hello["d"]["h"] == emulator.url.removeprefix("http://")
        assert abs(hello["d"]["ts"] - time.time() * 1000) < 60_000
        wire.socket.send("0")
        wire.socket.send('{"t":"c","d":{"t":"p","d":{}}}')
        assert wire.read() == {"t": "c", "d": {"t": "o", "d": None}}
        assert wire.ask("s", c={"sdk.js": 1})["s"] == "ok"


def test_the_value_comes_before_the_answer_to_a_listen(emulator: Any) -> None:
    emulator.client.put("/a.json?ns=listen", json={"b": [1, 2]})
    with emulator.wire("listen") as wire:
        assert wire.ask("q", p="/a", h="") == {"s": "ok", "d": {}}
        assert wire.drain() == [("d", {"p": "a", "d": {"b": [1, 2]}})]
        assert wire.ask("n", p="/a")["s"] == "ok"
        assert wire.ask("p", p="/a/b", d=None)["s"] == "ok"
        assert wire.drain() == []


def test_events_of_a_write_come_before_its_response(emulator: Any) -> None:
    with emulator.wire("order") as wire:
        wire.ask("q", p="/", h="")
        wire.drain()
        for number in range(20):
            assert wire.ask("p", p="/a/n", d=number)["s"] == "ok"
            assert wire.drain() == [("d", {"p": "a/n", "d": number})]
        assert wire.ask("m", p="/a", d={"n": None, "x/y": 1})["s"] == "ok"
        assert wire.drain() == [("m", {"p": "a", "d": {"n": None, "x/y": 1}})]


def test_writes_sent_together_are_answered_in_order(emulator: Any) -> None:
    with emulator.wire("pipeline") as wire:
        numbers = [wire.send("p", p="/n", d=number) for number in range(200)]
        assert [wire.answer(number)["s"] for number in numbers] == ["ok"] * 200
        assert wire.ask("g", p="/n", q={}) == {"s": "ok", "d": 199}


def test_a_client_that_has_the_value_is_not_sent_it(emulator: Any) -> None:
    emulator.client.put("/a.json?ns=known", json={"a": 1, "b": "x", "c": {"d": True}})
    with emulator.wire("known") as wire:
        assert wire.ask("q", p="/a", h="hqzLU5l3sFRUPgv4HTKxJBdqAsE=")["s"] == "ok"
        assert wire.drain() == []


def test_a_query_listens_to_its_window(emulator: Any) -> None:
    emulator.client.put("/q.json?ns=query", json={"x": {"n": 3}, "y": {"n": 1}, "z": {"n": 2}})
    query = {"l": 2, "vf": "l", "i": "n"}
    with emulator.wire("query") as wire:
        assert wire.ask("q", p="/q", q=query, t=7, h="")["s"] == "ok"
        assert wire.drain() == [("d", {"p": "q", "d": {"y": {"n": 1}, "z": {"n": 2}}, "t": 7})]
        value: Any = {"y": {"n": 1}, "z": {"n": 2}}
        wire.ask("p", p="/q/w", d={"n": 0})
        value = _replayed(value, wire.drain())
        assert value == {"w": {"n": 0}, "y": {"n": 1}}
        wire.ask("p", p="/q/w", d=None)
        assert _replayed(value, wire.drain()) == {"y": {"n": 1}, "z": {"n": 2}}
        assert wire.ask("g", p="/q", q=query) == {
            "s": "ok",
            "d": {"y": {"n": 1}, "z": {"n": 2}},
        }
        assert wire.ask("n", p="/q", q=query, t=7)["s"] == "ok"


def _replayed(value: Any, pushes: list[Any]) -> Any:
    for action, body in pushes:
        path = body["p"].split("/")[1:]
        changes = {"/".join(path): body["d"]}
        if action == "m":
            changes = {"/".join((*path, name)): new for name, new in body["d"].items()}
        for where, new in changes.items():
            key, _slash, rest = where.partition("/")
            assert not rest
            value = {**value, key: new} if key else new
    return {key: child for key, child in value.items() if child is not None}


def test_a_query_without_its_index_is_answered_with_a_warning(emulator: Any) -> None:
    emulator.rules("noindex", {".read": True, ".write": True, "q": {".indexOn": "m"}})
    emulator.client.put("/q.json?ns=noindex", json={"x": {"n": 3}, "y": {"n": 1}})
    query = {"l": 1, "vf": "l", "i": "n"}
    with emulator.wire("noindex") as wire:
        assert wire.ask("q", p="/q", q=query, t=1, h="") == {"s": "ok", "d": {"w": ["no_index"]}}
        answer = wire.ask("g", p="/q", q=query)
        text = 'Index not defined, add ".indexOn": "n", for path "/q", to the rules'
        assert (answer["s"], answer["d"]) == ("failure", text)
        assert wire.ask("g", p="/q", q={"l": 1, "vf": "l", "i": "m"})["s"] == "ok"


def test_a_transaction_on_stale_data_writes_nothing(emulator: Any) -> None:
    with emulator.wire("stale") as wire:
        assert wire.ask("p", p="/n", d=1, h="")["s"] == "ok"
        assert wire.ask("p", p="/n", d=2, h="")["s"] == "datastale"
        assert wire.ask("p", p="/n", d=2, h="YPVfR2bXt/lcDjiQZ8pOkAd3qkQ=")["s"] == "ok"
        assert wire.ask("g", p="/n", q={})["d"] == 2


def test_long_messages_go_in_frames_both_ways(emulator: Any) -> None:
    text = "é" * 100_000
    with emulator.wire("frames") as wire:
        assert wire.ask("p", p="/long", d=text)["s"] == "ok"
        assert wire.ask("g", p="/long", q={})["d"] == text


def test_on_disconnect_writes_are_applied_once(emulator: Any) -> None:
    with emulator.wire("gone") as watcher:
        watcher.ask("q", p="/", h="")
        with emulator.wire("gone") as leaver:
            assert leaver.ask("o", p="/me", d="gone")["s"] == "ok"
            assert leaver.ask("om", p="/", d={"left": {".sv": {"increment": 1}}, "x/y": 1})["s"]
            assert leaver.ask("oc", p="/x")["s"] == "ok"
            assert watcher.ask("g", p="/", q={})["d"] is None
        seen: dict[str, Any] = {}
        while len(seen) < 2:
            message = watcher.read()["d"]
            seen[message["b"]["p"]] = message["b"]["d"]
        assert seen == {"me": "gone", "left": 1}
    assert emulator.client.get("/.json?ns=gone").json() == {"left": 1, "me": "gone"}


@pytest.mark.slow
def test_a_server_that_stops_applies_on_disconnect_writes_too(
    start_server: Callable[..., Any],
) -> None:
    served = start_server("--emulator")
    with served.wire("default") as wire:
        assert wire.ask("o", p="/me", d="gone")["s"] == "ok"
        assert served.stop()[0] == 0
    with ElkynStore(served.data / "default") as store:
        assert store.get("/") == {"me": "gone"}


def test_rules_check_every_request_and_their_change_revokes_listens(emulator: Any) -> None:
    emulator.rules("rules", {"open": {".read": True, ".write": "newData.isNumber()"}})
    with emulator.wire("rules") as wire:
        assert wire.ask("p", p="/open", d=1)["s"] == "ok"
        refused = wire.ask("p", p="/open", d="x")
        assert refused == {"s": "permission_denied", "d": "Permission denied"}
        for action in ("q", "g", "o"):
            assert wire.ask(action, p="/other", d=1, h="")["s"] == "permission_denied"
        assert wire.ask("q", p="/open", h="")["s"] == "ok"
        wire.drain()
        emulator.rules("rules", {".read": False})
        assert wire.read()["d"] == {"a": "c", "b": {"p": "open"}}
        assert wire.ask("p", p="/open", d=2)["s"] == "permission_denied"


def test_credentials_change_on_an_open_connection(emulator: Any) -> None:
    emulator.rules("auth", {".read": "auth != null", ".write": "auth.uid === 'ann'"})
    with emulator.wire("auth") as wire:
        assert wire.ask("g", p="/", q={})["s"] == "permission_denied"
        assert wire.ask("gauth", cred="owner") == {"s": "ok", "d": {"auth": None, "expires": None}}
        assert wire.ask("p", p="/", d=1)["s"] == "ok"
        acting = wire.ask("gauth", cred="owner", authvar={"uid": "bob"})
        assert acting["d"]["auth"] == {"uid": "bob"}
        assert wire.ask("p", p="/", d=2)["s"] == "permission_denied"
        assert wire.ask("q", p="/", h="")["s"] == "ok"
        wire.drain()
        assert wire.ask("unauth")["s"] == "ok"
        assert wire.read()["d"] == {"a": "c", "b": {"p": ""}}
        assert wire.ask("auth", cred="wrong")["s"] == "invalid_token"


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("p", {"p": "/a.b", "d": 1}, "failure"),
        ("p", {"p": "/a", "d": {"b$": 1}}, "failure"),
        ("m", {"p": "/a", "d": [1]}, "failure"),
        ("m", {"p": "/a", "d": {"b": 1, "b/c": 2}}, "failure"),
        ("q", {"p": 5}, "failure"),
        ("q", {"p": "/a", "q": {"i": 5}, "t": 1}, "failure"),
        ("q", {"p": "/a", "q": {"l": 1, "i": ".key"}}, "failure"),
        ("gauth", {"cred": 5}, "failure"),
        ("nope", {}, "unknown_action"),
    ],
)
def test_a_request_that_cannot_be_is_answered_with_why(
    emulator: Any, action: str, body: Any, status: str
) -> None:
    with emulator.wire("bad") as wire:
        answer = wire.ask(action, **body)
        assert (answer["s"], bool(answer["d"])) == (status, True)
        assert wire.ask("g", p="/", q={}) == {"s": "ok", "d": None}


def test_no_protocol_ends_the_connection(emulator: Any) -> None:
    with emulator.wire("garbage") as wire:
        wire.socket.send("[1,2")
        assert wire.read()["d"]["t"] == "e"
        with pytest.raises(ConnectionClosedError):
            wire.read()


def test_a_listen_that_waits_for_a_leader_does_not_wait_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run(app: ElkynApp) -> Any:
        listen = {"t": "d", "d": {"r": 1, "a": "q", "b": {"p": "/a", "h": ""}}}
        observe_term = iter(
            [{"type": "websocket.connect"}, {"type": "", "text": json.dumps(listen)}]
        )
        closed = asyncio.get_running_loop().create_future()

        async def receive() -> Any:
            return next(observe_term, None) or (await closed, {"type": "websocket.disconnect"})[1]

        async def send(message: Any) -> None:
            if message["type"] == "websocket.close":
                closed.set_result(message)

        scope = {"type": "websocket", "path": "/.ws", "query_string": b"", "headers": []}
        await asyncio.wait_for(app(scope, receive, send), 20)
        return closed.result()["code"]

    monkeypatch.setattr("elkyn.server.realtime.socket._READABLE_SECONDS", 0.05)
    with ElkynStore(mode="memory") as store:
        store.admin.divergence.note(True)
        app = ElkynApp({"default": store}, HookBackend(lambda *_args: None), Settings())
        assert asyncio.run(run(app)) == 1013
        assert app.metrics.open["ws"] == 0
        app.close()
