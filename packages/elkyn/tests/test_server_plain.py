"""Requests that the server answers without a task, and those that turn out to take more."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import httpx
import uvicorn
from uvicorn.server import ServerState

from elkyn.server.http_protocol import bounded_protocol
from elkyn.server.limits import Limits

AUTH = b"Host: localhost\r\nAuthorization: Bearer owner\r\n"


def exchange(served: Any, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(served.port)), timeout=20) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_a_body_that_comes_in_parts_is_written_like_one_that_comes_at_once(emulator: Any) -> None:
    head = b"PUT /parts.json HTTP/1.1\r\n%bContent-Length: 6\r\n\r\n" % AUTH
    chunked = (
        b"PUT /chunks.json HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n" % AUTH
    )
    assert exchange(emulator, head, b'"ab', b'cd"').endswith(b'"abcd"')
    assert exchange(emulator, chunked + b"2\r\n2]\r\n0\r\n\r\n").endswith(b"[1,2]")
    assert exchange(emulator, chunked, b"2\r\n3]\r\n0\r\n\r\n").endswith(b"[1,3]")


def test_who_asks_for_a_continuation_gets_it_unless_all_has_come(emulator: Any) -> None:
    head = b"PUT /on.json HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 1\r\n\r\n" % AUTH
    assert exchange(emulator, head, b"1").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert exchange(emulator, head + b"1").startswith(b"HTTP/1.1 200")


def test_a_read_that_goes_to_a_thread_is_counted_once(start_server: Any) -> None:
    served = start_server("--emulator", "--rate", "3")
    many = {f"k{number}": "x" * 2000 for number in range(200)}
    assert served.client.put("/many.json?print=silent", json=many).status_code == 204
    statuses = [served.client.get("/many.json").status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    time.sleep(1)
    text = served.client.get("/metrics").text
    assert 'elkyn_requests_total{method="GET",status="200"} 2' in text
    assert "elkyn_reads_total 2" in text


def test_a_connection_without_a_further_request_is_closed_in_time() -> None:
    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> float:
        config = uvicorn.Config(answer, log_config=None, timeout_keep_alive=1)
        config.load()
        made = bounded_protocol(Limits(head_seconds=0.2))
        loop, state = asyncio.get_running_loop(), ServerState()
        server = await loop.create_server(lambda: made(config, state, {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _request in range(2):
            await asyncio.sleep(0.15)  # less than a head may take
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        started = loop.time()
        assert await reader.read() == b""
        writer.close()
        server.close()
        return loop.time() - started

    assert asyncio.run(run()) > 0.8


def test_what_the_rules_refuse_is_in_the_audit_log(start_server: Any) -> None:
    served = start_server("--log-level", "info")
    for method in ("GET", "PUT"):
        answer = httpx.request(method, f"{served.url}/secret.json", content=b"1")
        assert (answer.status_code, answer.json()) == (401, {"error": "Permission denied"})
    _code, logged = served.stop()
    assert logged.count("elkyn.audit") == 2
