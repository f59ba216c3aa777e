"""Clients that send requests in line, hang up half way, or offer more than HTTP/1.1."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from typing import Any

import pytest
import uvicorn
from elkyn_server import Served, until
from uvicorn.server import ServerState

from elkyn.server.http.protocol import bounded_protocol
from elkyn.server.limits import Limits

HEAD = b"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer owner\r\n"


def connection(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(served.port)), timeout=20)


def until_closed(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def open_streams(served: Served) -> int:
    text = served.client.get("/metrics").text
    return int(float(text.partition('elkyn_connections{kind="sse"} ')[2].split()[0]))


@pytest.mark.slow
def test_a_stream_ends_with_its_connection_though_another_request_waits(emulator: Any) -> None:
    before = open_streams(emulator)
    with connection(emulator) as client:
        stream = b"GET /in-line.json %bAccept: text/event-stream\r\n\r\n" % HEAD
        client.sendall(stream + b"GET /in-line.json %b\r\n" % HEAD)
        until(lambda: b"event: put" in client.recv(4096))
        assert open_streams(emulator) == before + 1
    until(lambda: open_streams(emulator) == before, seconds=10)


@pytest.mark.slow
def test_pipelined_requests_are_answered_in_order_to_a_client_that_sends_no_more(
    emulator: Any,
) -> None:
    sent = [
        b"PUT /line/%d.json %bContent-Length: %d\r\n\r\n%d" % (n, HEAD, len(str(n)), n)
        for n in range(1000, 2000)
    ]
    with connection(emulator) as client:
        client.sendall(b"".join(sent))
        client.shutdown(socket.SHUT_WR)
        answers = until_closed(client).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [int(answer.rpartition(b"\r\n")[2]) for answer in answers] == list(range(1000, 2000))
    assert len(emulator.client.get("/line.json?shallow=true").json()) == 1000


class Flood(asyncio.Transport):
    """A connection over which requests come as fast as they are read."""

    def __init__(self, request: bytes, count: int) -> None:
        super().__init__()
        self.left, self.read, self.answers = request * count, True, 0

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.read = False

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        self.read = True

    def write(self, data: Any) -> None:
        self.answers += bytes(data).count(b"200 OK")

    def receive(self) -> bytes:
        """Return the bytes of one read."""
        received, self.left = self.left[: 256 * 1024], self.left[256 * 1024 :]
        return received


@pytest.mark.nightly
def test_requests_that_come_faster_than_answers_go_wait_unread() -> None:
    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> int:
        config = uvicorn.Config(answer, log_config=None)
        config.load()
        protocol = bounded_protocol(Limits())(config, ServerState(), {})
        transport = Flood(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2_000)
        protocol.connection_made(transport)
        longest = 0
        while transport.left or transport.answers < 2_000:
            if transport.read:
                protocol.data_received(transport.receive())
            longest = max(longest, len(protocol.pending))
            await asyncio.sleep(0)
        assert transport.answers == 2_000
        protocol.connection_lost(None)
        return longest

    assert 0 < asyncio.run(run()) < 1000


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
def test_a_request_to_upgrade_with_a_body_is_answered(emulator: Any, offer: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n" % offer
    with connection(emulator) as client:
        client.sendall(b"PUT /offer.json %b%bContent-Length: 2\r\n\r\n" % (HEAD, upgrade))
        client.sendall(b"42")
        first = client.recv(4096)
        assert (b"200 OK" in first) == (offer == b"h2c")
        client.shutdown(socket.SHUT_WR)
    if offer == b"h2c":
        assert emulator.client.get("/offer.json").json() == 42


@pytest.mark.slow
def test_a_stray_line_end_does_not_end_a_stream(start_server: Any) -> None:
    served = start_server("--emulator", "--head-timeout", "0.5")
    with connection(served) as client:
        client.sendall(b"GET /stray.json %bAccept: text/event-stream\r\n\r\n" % HEAD)
        assert client.recv(4096)
        client.sendall(b"\r\n")
        time.sleep(1.2)
        served.client.put("/stray.json", json=1)
        assert b'"data":1' in until(lambda: client.recv(4096).partition(b"event: put")[2])


@pytest.mark.slow
def test_a_stream_to_http_1_0_is_not_chunked_and_ends_with_its_connection(
    start_server: Any,
) -> None:
    served = start_server("--emulator")
    sent = b"GET /old.json HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer owner\r\nAccept: %b\r\n\r\n"
    with connection(served) as client, connection(served) as gone:
        for one in (client, gone):
            one.sendall(sent % b"text/event-stream")
        first = b'event: put\ndata: {"path":"/","data":null}\nid: 0\n\n'
        got = b""
        while not got.endswith(first):
            got += client.recv(4096)
        head = got.removesuffix(first)
        assert head.endswith(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close\r\n" in head
        assert open_streams(served) == 2
        gone.shutdown(socket.SHUT_WR)
        until(lambda: open_streams(served) == 1)
        served.client.put("/old.json", json="x" * 300_000)
        served.client.put("/old.json", json=2)
        got = b""
        while not (got.endswith(b"\n\n") and b'"data":2' in got):
            got += client.recv(1 << 20)
        large = b'event: put\ndata: {"path":"/","data":"%b"}\nid: 1.1.N\n\n' % (b"x" * 300_000)
        second = b'event: put\ndata: {"path":"/","data":2}\nid: 2.1.N\n\n'
        assert re.sub(rb"[0-9]{13}", b"N", got) == large + second
        served.stop()
        assert until_closed(client) == b""


def test_plain_answers_to_http_1_0_have_their_length(emulator: Any) -> None:
    emulator.client.put("/old.json", json="x" * 300_000)
    for path, size in ((b"/old", 300_002), (b"/none", 4)):
        with connection(emulator) as client:
            client.sendall(
                b"GET %b.json HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer owner\r\n\r\n"
                % path
            )
            head, _end, body = until_closed(client).partition(b"\r\n\r\n")
        assert len(body) == size
        assert b"content-length: %d" % size in head
        assert b"transfer-encoding" not in head
