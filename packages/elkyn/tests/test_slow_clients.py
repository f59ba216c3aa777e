"""Clients that send requests and do not read: they are disconnected, their buffers are limited."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from elkyn_server import Served, until

from elkyn import ElkynStore
from elkyn.server.app import ElkynApp
from elkyn.server.auth_backend import HookBackend
from elkyn.server.limits import Limits
from elkyn.server.settings import Settings
from elkyn.server.slow_clients import SlowClientCloser, watch_listener

LARGE = ["x" * 4_000_000] * 3  # more than the systems of both sides buffer
HEAD = b"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer owner\r\n"
GET = b"GET /large.json %b\r\n" % HEAD
STREAM = b"GET /large.json %bAccept: text/event-stream\r\n\r\n" % HEAD
UPGRADE = (
    b"GET /.ws?v=5&ns=default %bConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % HEAD
)


def metric(served: Served, name: str) -> int:
    text: str = served.client.get("/metrics").text
    return int(float(text.partition(f"\n{name} ")[2].split()[0]))


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", int(served.port)))
        yield client


def frame(message: Any) -> bytes:
    """Return a message as one masked frame."""
    text = json.dumps(message).encode()
    return b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text


def rest_of(client: socket.socket) -> int:
    """Return how many bytes still come before the connection ends."""
    count = 0
    try:
        while part := client.recv(1 << 20):
            count += len(part)
    except ConnectionError:
        pass
    return count


@pytest.fixture
def served(start_server: Callable[..., Served]) -> Served:
    served = start_server("--emulator", "--send-timeout", "1", "--log-level", "info")
    served.client.put("/large.json?print=silent", json=LARGE)
    return served


def listen(client: socket.socket) -> None:
    client.sendall(UPGRADE)
    assert client.recv(4096)
    client.sendall(frame({"t": "d", "d": {"r": 1, "a": "auth", "b": {"cred": "owner"}}}))
    client.sendall(frame({"t": "d", "d": {"r": 2, "a": "q", "b": {"p": "/large", "h": ""}}}))


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["get", "stream", "socket"])
def test_a_client_that_reads_nothing_is_disconnected(served: Served, kind: str) -> None:
    with connected(served) as client:
        if kind == "socket":
            listen(client)
        else:
            client.sendall(GET if kind == "get" else STREAM)
        until(lambda: metric(served, "elkyn_unsent_bytes") > 8_000_000)
        until(lambda: metric(served, "elkyn_stalled_total") == 1)
        until(lambda: metric(served, "elkyn_unsent_bytes") == 0)
        assert rest_of(client) < 12_000_000
    open_now = served.client.get("/metrics").text
    assert 'elkyn_connections{kind="sse"} 0' in open_now
    assert 'elkyn_connections{kind="ws"} 0' in open_now
    _code, log = served.stop()
    lines = [line for line in log.splitlines() if "slow client" in line]
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]


@pytest.mark.nightly
def test_a_client_that_reads_slowly_gets_everything(served: Served) -> None:
    with connected(served) as client:
        client.sendall(GET)
        begun, count = time.monotonic(), 0
        while time.monotonic() < begun + 3:
            count += len(client.recv(64 * 1024))
            time.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        assert count + rest_of(client) > 12_000_000
    assert metric(served, "elkyn_stalled_total") == 0


@pytest.mark.slow
def test_a_client_that_half_closes_gets_the_whole_response(served: Served) -> None:
    with connected(served) as client:
        client.sendall(GET)
        count = len(client.recv(1000))
        client.shutdown(socket.SHUT_WR)
        assert count + rest_of(client) > 12_000_000


@pytest.mark.slow
def test_the_kernel_drops_a_client_that_acknowledges_no_data() -> None:
    closed = []
    with socket.socket() as listener:
        watch_listener(listener, 0.4)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as served:
            served.settimeout(20)
            with pytest.raises(TimeoutError) as error:
                served.sendall(b"x" * 20_000_000)
    assert error.value.errno == errno.ETIMEDOUT
    stalls = SlowClientCloser(0.4, lambda: closed.append(True))
    stalls.lost(SimpleNamespace(client=None), error.value)
    stalls.lost(SimpleNamespace(client=None), None)
    assert closed == [True]


@pytest.mark.nightly
def test_a_silent_stream_that_is_read_stays(served: Served) -> None:
    with connected(served) as client:
        client.sendall(STREAM.replace(b"/large", b"/small"))
        assert client.recv(4096)
        time.sleep(2.5)
        served.client.put("/small.json", json=1)
        assert b'"data":1' in until(lambda: client.recv(4096))
    assert metric(served, "elkyn_stalled_total") == 0


class Reader:
    """One GET of an app, whose client reads the response once `reading` is set."""

    def __init__(self, app: ElkynApp, path: str, accept: str = "", client: str = "") -> None:
        self.reading = asyncio.Event()
        self.status = 0
        self.answered = asyncio.Event()
        self.read_bytes = 0
        self.whole = asyncio.Event()
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b""}
        scope["client"] = (client, 1)
        headers = [(b"accept", accept.encode())]
        self.task = asyncio.create_task(app({**scope, "headers": headers}, self._get, self._send))

    async def _get(self) -> dict[str, Any]:
        if self.status:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.answered.set()
        body = message.get("body", b"")
        assert len(body) <= 256 * 1024
        if body:
            await self.reading.wait()
        self.read_bytes += len(body)
        if self.read_bytes >= 1_000_000:
            self.whole.set()


@pytest.mark.parametrize("accept", ["", "text/event-stream"])
def test_a_client_that_reads_little_leaves_room_for_others(accept: str) -> None:
    async def run(app: ElkynApp) -> list[int]:
        readers, statuses = [], []
        for client in ("a", "a", "a", "b", "b", "c"):
            readers.append(Reader(app, "/large.json", accept, client))
            await asyncio.wait_for(readers[-1].answered.wait(), 20)
            statuses.append(readers[-1].status)
            if statuses[-1] == 429:
                readers[-1].reading.set()
        assert app.send_buffer.of_client.keys() == {"a", "b"}
        for reader in readers:
            reader.reading.set()
        await asyncio.wait_for(readers[0].whole.wait(), 20)
        again = Reader(app, "/large.json", accept, "a")
        await asyncio.wait_for(again.answered.wait(), 20)
        for reader in (*readers, again):
            reader.task.cancel()
        await asyncio.gather(*(r.task for r in (*readers, again)), return_exceptions=True)
        assert not app.send_buffer.of_client
        return [*statuses, again.status]

    with ElkynStore(mode="memory") as store:
        store.set("/", {"large": "x" * 1_000_000})
        limits = Limits(unsent_bytes=3_500_000, client_unsent_bytes=2_500_000)
        app = ElkynApp(
            {"default": store}, HookBackend(lambda *_args: None), Settings(limits=limits)
        )
        assert asyncio.run(run(app)) == [200, 200, 429, 200, 429, 429, 200]
        app.close()


@pytest.mark.parametrize("accept", ["", "text/event-stream"])
def test_large_answers_that_wait_are_bounded_together(accept: str) -> None:
    async def until_answered(reader: Reader) -> int:
        await asyncio.wait_for(reader.answered.wait(), 20)
        return reader.status

    async def run(app: ElkynApp) -> None:
        first = Reader(app, "/large.json", accept)
        assert await until_answered(first) == 200
        assert app.send_buffer.bytes >= 1_000_000
        second = Reader(app, "/large.json", accept)
        second.reading.set()
        assert await until_answered(second) == 429
        small = Reader(app, "/small.json")
        assert await until_answered(small) == 200
        first.reading.set()
        for _step in range(100):
            await asyncio.sleep(0)
        assert app.send_buffer.bytes == 0
        assert first.read_bytes >= 1_000_000
        third = Reader(app, "/large.json", accept)
        assert await until_answered(third) == 200
        for reader in (first, second, small, third):
            reader.task.cancel()
        await asyncio.gather(
            *(r.task for r in (first, second, small, third)), return_exceptions=True
        )
        assert app.send_buffer.bytes == 0

    with ElkynStore(mode="memory") as store:
        store.set("/", {"large": "x" * 1_000_000, "small": 1})
        limits = Limits(unsent_bytes=1_500_000)
        app = ElkynApp(
            {"default": store}, HookBackend(lambda *_args: None), Settings(limits=limits)
        )
        asyncio.run(run(app))
        app.close()
