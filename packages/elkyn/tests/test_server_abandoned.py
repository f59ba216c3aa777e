"""Thousands of clients that stop reading, or vanish: the server releases their memory."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from elkyn_server import Served, until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

CLIENTS = 5000
REQUEST = (
    b"GET /live.json HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
    b"Authorization: Bearer owner\r\n\r\n"
)


def memory_kib(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


def open_streams(served: Served) -> int:
    text = served.client.get("/metrics").text
    return int(float(text.partition('elkyn_connections{kind="sse"} ')[2].split()[0]))


@contextmanager
def streams(served: Served, count: int) -> Iterator[list[socket.socket]]:
    """Open streams whose first event is read, and no more."""
    with ExitStack() as opened:
        held = []
        for _number in range(count):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", int(served.port))))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(REQUEST)
            held.append(one)
        for one in held:
            one.settimeout(60)
            assert one.recv(20)
        yield held


@pytest.fixture
def served(start_server: Callable[..., Any]) -> Any:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CLIENTS + 200:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return start_server("--emulator", "--keep-alive", "30")


def test_five_thousand_that_do_not_read_hold_no_events(served: Served) -> None:
    with streams(served, CLIENTS):
        until(lambda: open_streams(served) == CLIENTS)
        for number in range(20):
            served.client.put("/live.json?print=silent", json=f"{number:05}" * 400)
        before = memory_kib(served)
        for number in range(600):
            served.client.put("/live.json?print=silent", json=f"{number:05}" * 400)
        grown = memory_kib(served) - before
        assert grown < 400_000, grown  # 600 values of 2 KB for each of them would be 6 GB
        assert served.client.get("/live.json").json().startswith("00599")


def test_memory_of_five_thousand_clients_is_released_when_they_are_gone(served: Served) -> None:
    with streams(served, 500):
        until(lambda: open_streams(served) == 500)
    until(lambda: open_streams(served) == 0)
    before = memory_kib(served)
    for _round in range(2):
        with streams(served, CLIENTS):
            until(lambda: open_streams(served) == CLIENTS)
        until(lambda: open_streams(served) == 0)
    with streams(served, 500):
        until(lambda: open_streams(served) == 500)
    until(lambda: open_streams(served) == 0)
    grown = memory_kib(served) - before
    assert grown < 150_000, grown
