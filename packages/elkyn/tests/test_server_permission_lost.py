"""A write revokes a permission: no open stream or listen gets that write or a later one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from elkyn_server import Served, Wire

RULES = {".write": True, "room": {".read": "root.child('open').val() === true", ".indexOn": "n"}}
SECRET = {"x": {"n": 9, "text": "secret"}}


def with_it(server: httpx.Client) -> None:
    server.patch("/.json?ns=lost", json={"open": False, "room": SECRET})


def after_it(server: httpx.Client) -> None:
    server.put("/open.json?ns=lost", json=False)
    server.put("/room.json?ns=lost", json=SECRET)


def soon_after_it(server: httpx.Client) -> None:
    server.patch("/.json?ns=lost", json={"open": False})
    for _ in range(5):
        server.patch("/room/x.json?ns=lost", json={"text": "secret"})


@pytest.fixture(params=[with_it, after_it, soon_after_it])
def lose(request: pytest.FixtureRequest, emulator: Served) -> Callable[[], None]:
    emulator.rules("lost", RULES)
    emulator.client.put("/.json?ns=lost", json={"open": True, "room": {"x": {"n": 1}}})
    return lambda: request.param(emulator.client)


@pytest.mark.parametrize("query", ["", '&orderBy="n"&limitToLast=2'])
def test_a_stream_is_cancelled_first(
    emulator: Served, lose: Callable[[], None], query: str
) -> None:
    url = f"{emulator.url}/room.json?ns=lost{query}"
    with httpx.stream("GET", url, headers={"Accept": "text/event-stream"}, timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: put"
        lose()
        text = "\n".join(lines)
    assert "event: cancel" in text
    assert "secret" not in text


@pytest.mark.parametrize("query", [{}, {"q": {"i": "n", "l": 2, "vf": "r"}, "t": 1}])
def test_a_listen_is_revoked_first(
    emulator: Served, lose: Callable[[], None], query: dict[str, Any]
) -> None:
    with emulator.wire("lost") as wire:
        wire.ask("q", p="/room", h="", **query)
        lose()
        pushes = pushed(wire, "c")
    assert "secret" not in str(pushes)


def pushed(wire: Wire, last: str) -> list[Any]:
    """Return what is pushed, up to the action `last`."""
    while last not in [action for action, _body in wire.pushes]:
        message = wire.read()["d"]
        wire.pushes.append((message["a"], message["b"]))
    return wire.drain()
