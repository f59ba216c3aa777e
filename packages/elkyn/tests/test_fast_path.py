"""Requests that the server answers without a task, and those that need one."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.server.app import ElkynApp
from elkyn.server.auth_backend import AuthenticatorBackend
from elkyn.server.http.fast_path import FastPath
from elkyn.server.http.protocol import bounded_protocol
from elkyn.server.http.timeouts import PendingRead, ReadTimeouts
from elkyn.server.limits import Limits
from elkyn.server.settings import Settings
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import put_write
from elkyn.store import ElkynStore

AUTH = b"Host: localhost\r\nAuthorization: Bearer owner\r\n"


def exchange(served: Any, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(served.port)), timeout=20) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.slow
def test_a_body_that_comes_in_parts_is_written_like_one_that_comes_at_once(emulator: Any) -> None:
    head = b"PUT /parts.json HTTP/1.1\r\n%bContent-Length: 6\r\n\r\n" % AUTH
    chunked = (
        b"PUT /chunks.json HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n" % AUTH
    )
    assert exchange(emulator, head, b'"ab', b'cd"').endswith(b'"abcd"')
    assert exchange(emulator, chunked + b"2\r\n2]\r\n0\r\n\r\n").endswith(b"[1,2]")
    assert exchange(emulator, chunked, b"2\r\n3]\r\n0\r\n\r\n").endswith(b"[1,3]")


def test_a_client_that_expects_100_continue_gets_it_unless_the_body_has_arrived(
    emulator: Any,
) -> None:
    head = b"PUT /on.json HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 1\r\n\r\n" % AUTH
    assert exchange(emulator, head, b"1").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert exchange(emulator, head + b"1").startswith(b"HTTP/1.1 200")


@pytest.mark.slow
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


def test_a_read_whose_answer_is_large_is_counted_once(emulator: Any) -> None:
    emulator.client.put("/long.json?print=silent", json="x" * 300_000)
    before = reads(emulator)
    assert len(emulator.client.get("/long.json").content) == 300_002
    assert reads(emulator) == before + 1


def reads(served: Any) -> int:
    text: str = served.client.get("/metrics").text
    return int(text.partition("\nelkyn_reads_total ")[2].split()[0])


class Time:
    """A loop's time and the one call that waits in it."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        self._at, self._call = self.now + seconds, partial(call, *arguments)

    def go_on(self) -> None:
        self.now = self._at
        self._call()


class Waiting:
    """A connection that waits for its client."""

    def __init__(self, seconds: float) -> None:
        self.what, self.out = PendingRead(object(), object(), seconds), False

    def pending_read(self) -> PendingRead:
        return self.what

    def close_on_timeout(self) -> None:
        self.out = True


def test_a_client_that_stops_sending_is_closed_in_time() -> None:
    time, idle, slow, still = Time(), Waiting(75), Waiting(9), Waiting(9)
    ReadTimeouts(10).start(time, [idle, slow, still])  # type: ignore[arg-type]
    closed: list[tuple[bool, bool, bool]] = []
    for _sweep in range(9):
        time.go_on()
        closed.append((idle.out, slow.out, still.out))
        slow.what = slow.what._replace(progress=object())
    assert closed[0] == (False, False, False)
    assert closed[1:8] == [(False, False, True)] * 7
    assert closed[8] == (True, False, True)


def test_a_connection_between_requests_may_wait_longer_than_one_in_a_head() -> None:
    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        config = uvicorn.Config(answer, log_config=None, timeout_keep_alive=75)
        config.load()
        connection = bounded_protocol(Limits(head_seconds=20))(config, ServerState(), {})
        transport = Mock(is_closing=lambda: False, get_extra_info=lambda _name: None)
        connection.connection_made(transport)
        waits = [connection.pending_read()]
        connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        waits.append(connection.pending_read())
        await asyncio.gather(*connection.tasks)
        waits.append(connection.pending_read())
        connection.data_received(b"GET /")
        waits.append(connection.pending_read())
        assert [wait and wait.seconds for wait in waits] == [9, None, 75, 9]
        connection.connection_lost(None)

    asyncio.run(run())


def test_a_body_within_one_piece_has_its_bound_too() -> None:
    async def run(app: ElkynApp) -> bytes:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        connection = bounded_protocol(Limits(), None, FastPath(app))(config, ServerState(), {})
        transport = Mock(is_closing=lambda: False, get_extra_info=lambda _name: None)
        answered = asyncio.get_running_loop().create_future()
        transport.write = answered.set_result
        connection.connection_made(transport)
        connection.data_received(
            b"PUT /a.json HTTP/1.1\r\n%bContent-Length: 6\r\n\r\n[1,23]" % AUTH
        )
        answer = await answered
        connection.connection_lost(None)
        return bytes(answer)

    with ElkynStore(mode="memory") as store, Authenticator(AuthSettings(emulator=True)) as known:
        for body_bytes, status in ((5, 413), (6, 200)):
            settings = Settings(limits=Limits(body_bytes=body_bytes))
            app = ElkynApp({"default": store}, AuthenticatorBackend(known, True), settings)
            assert asyncio.run(run(app)).startswith(b"HTTP/1.1 %d " % status)
            app.close()


@pytest.mark.slow
def test_writes_refused_by_rules_are_in_the_audit_log(start_server: Any) -> None:
    served = start_server("--log-level", "info")
    for method in ("GET", "PUT"):
        answer = httpx.request(method, f"{served.url}/secret.json", content=b"1")
        assert (answer.status_code, answer.json()) == (401, {"error": "Permission denied"})
    _code, logged = served.stop()
    assert logged.count("elkyn.audit") == 2


def test_the_loop_steps_aside_while_writes_are_made_and_not_for_long() -> None:
    write, making, go_on = put_write(("a",), 1), threading.Event(), threading.Event()

    def check(_view: ReadTransaction) -> None:
        making.set()
        assert go_on.wait(20)

    write.check = check
    with ElkynStore(mode="memory") as store:
        committing = threading.Thread(target=store.admin.apply, args=([write],))
        committing.start()
        assert making.wait(20)
        store.admin.yield_to_writer(0.01)
        assert not write.done
        threading.Timer(0.05, go_on.set).start()
        store.admin.yield_to_writer(20)
        assert go_on.is_set()
        committing.join()
        store.admin.yield_to_writer(0)
        assert store.get("/a") == 1
