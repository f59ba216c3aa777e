"""Listens that resume after the last event that their client received."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from elkyn_server import Served, Wire


def listen(wire: Wire, path: str, resume: Any = None) -> Any:
    """Listen with ids, from `resume` on; returns the point to resume from next time."""
    assert wire.ask("auth", cred="owner")["s"] == "ok"
    answer = wire.ask("q", p=path, h="", **(resume or {"i": "", "m": ""}))
    assert answer["s"] == "ok"
    return answer["d"]


def pong(wire: Wire) -> Any:
    wire.socket.send(json.dumps({"t": "c", "d": {"t": "p", "d": {}}}))
    while (message := wire.read())["t"] != "c":
        wire.pushes.append((message["d"]["a"], message["d"]["b"]))
    return message["d"]["d"]


def put(served: Served, path: str, value: Any) -> None:
    assert served.client.put(f"{path}?ns=resume", json=value).status_code == 200


@pytest.mark.slow
def test_a_listen_resumes_with_the_missed_events_alone(emulator: Any) -> None:
    put(emulator, "/a/b.json", {"n": 1, "large": "x" * 10_000})
    with emulator.wire("resume") as wire:
        resume = listen(wire, "/a")
        assert [body.get("i") for _action, body in wire.drain()] == [None]  # the whole value
        put(emulator, "/a/b/n.json", 2)
        _action, body = wire.read()["d"].values()
        assert (body["p"], body["d"]) == ("a/b/n", 2)
        last = {**resume, "i": body["i"]}
    put(emulator, "/a/b/n.json", 3)
    put(emulator, "/other.json", 3)
    assert emulator.client.patch("/a.json?ns=resume", json={"b/n": 4, "c": 5}).status_code == 200
    with emulator.wire("resume") as wire:
        at = listen(wire, "/a", last)
        bodies = [(action, body["p"], body["d"]) for action, body in wire.drain()]
        assert bodies == [("d", "a/b/n", 3), ("m", "a", {"b/n": 4, "c": 5})]
    with emulator.wire("resume") as wire:
        assert listen(wire, "/a", at) == at
        assert wire.drain() == []


@pytest.mark.slow
def test_an_answer_to_a_ping_says_the_point_to_resume_from(emulator: Any) -> None:
    put(emulator, "/quiet.json", 1)
    with emulator.wire("resume") as wire:
        assert wire.ask("auth", cred="owner")["s"] == "ok"
        assert pong(wire) is None
        first = listen(wire, "/quiet")
        wire.drain()
        for number in range(1100):
            wire.ask("p", p="/noise", d=number)
        resume = pong(wire)
        assert wire.drain() == []
    put(emulator, "/quiet.json", 2)
    for known, values in ((first, [("quiet", 2, None)]), (resume, [("quiet", 2, "id")])):
        with emulator.wire("resume") as wire:
            listen(wire, "/quiet", known)
            shown = [(b["p"], b["d"], b.get("i") and "id") for _action, b in wire.drain()]
            assert shown == values


@pytest.mark.slow
def test_a_position_of_another_store_is_not_resumed(
    start_server: Callable[..., Served], tmp_path: Any
) -> None:
    last: Any = None
    for name in ("first", "wiped"):
        served = start_server("--emulator", data=tmp_path / name)
        put(served, "/a.json", {"in": name})
        with served.wire("resume") as wire:
            resume = listen(wire, "/a", last)
            assert [body["d"] for _action, body in wire.drain()] == [{"in": name}]
            last = last or resume


@pytest.mark.parametrize(
    "resume",
    [
        {"i": "7", "m": ""},
        {"i": "7.2", "m": "7:"},
        {"i": "99999999999999999999", "m": "1:00"},
        {"i": "-1", "m": "x"},
        {"i": "1", "m": "99999999999999999999:0"},
    ],
)
def test_a_resume_from_an_unknown_position_gets_the_whole_value(emulator: Any, resume: Any) -> None:
    put(emulator, "/a.json", 1)
    with emulator.wire("resume") as wire:
        listen(wire, "/a", resume)
        assert [body["d"] for _action, body in wire.drain()] == [1]
