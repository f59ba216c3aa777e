"""Long bodies that a thread reads from the socket: each byte once, and the connection goes on after them."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from elkyn.server.asgi import BODY_READER
from elkyn.server.http import body_thread
from elkyn.server.http.body_thread import BODY_BYTES_MIN, BodyReader, BodyThreads
from elkyn.server.http.protocol import bounded_protocol
from elkyn.server.limits import Limits

LONG = b"GET / HTTP/1.1\r\n\r\n" * (BODY_BYTES_MIN // 9)  # about 2 MiB that look like requests
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Hashing:
    """Answers the path, the hash of the body, and how many of its bytes a thread has read."""

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.disconnected = threading.Event()
        self.sink: Callable[[memoryview], None] = lambda _: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        digest, more, by_thread = hashlib.sha256(), True, 0

        def sink(piece: memoryview) -> None:
            self.threads.add(threading.current_thread().name)
            digest.update(piece)
            self.sink(piece)

        reader: BodyReader | None = scope["extensions"].get(BODY_READER)
        status = 200
        while more:
            message = await receive()
            if message["type"] != "http.request":
                self.disconnected.set()
                return
            digest.update(message["body"])
            more = message["more_body"]
            if reader is not None:
                try:
                    by_thread = await reader.read_into(sink)
                except ValueError:
                    status, more = 507, False
                reader = None
        body = f"{scope['path']} {digest.hexdigest()} {bool(by_thread)};".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(app: Any, limits: Limits | None = None) -> AsyncIterator[tuple[str, int]]:
    config = uvicorn.Config(app, log_config=None)
    config.load()
    state = ServerState()
    kind = bounded_protocol(limits or Limits())
    server = await asyncio.get_running_loop().create_server(
        lambda: kind(config, state, {}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.close()
        for task in list(state.tasks):
            await asyncio.wait([task])


def run(loop: Any, work: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(work())  # type: ignore[arg-type]  # a coroutine


def request(path: str, body: bytes, *headers: str) -> bytes:
    more = "".join(f"{header}\r\n" for header in headers)
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def talk(address: tuple[str, int], pieces: Sequence[bytes], until: bytes) -> str:
    """Send pieces; return what the server answers, up to a text or the end of the connection."""
    with socket.create_connection(address, timeout=60) as client:
        sending = threading.Thread(target=lambda: deque(map(client.sendall, pieces), maxlen=0))
        sending.start()
        answer = b""
        while until not in answer and (read := client.recv(1 << 16)):
            answer += read
        sending.join()
    return answer.decode()


def line(path: str, body: bytes, *, by_thread: bool) -> str:
    return f"{path} {hashlib.sha256(body).hexdigest()} {by_thread};"


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_long_body_is_read_by_a_thread_and_the_next_request_by_the_loop(loop: Any) -> None:
    app = Hashing()

    async def work() -> str:
        async with served(app) as address:
            pieces = [request("/a", LONG) + request("/b", b"short"), request("/last", LONG)]
            return await asyncio.to_thread(talk, address, pieces, b"/last")

    answer = run(loop, work)

    assert line("/a", LONG, by_thread=True) in answer
    assert line("/b", b"short", by_thread=False) in answer
    assert line("/last", LONG, by_thread=True) in answer
    assert app.threads == {"elkyn-body"}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(LONG)), st.integers(1, 1 << 20)), max_size=4))
@example([(0, 1 << 20), (0, 1), (len(LONG), 1)])  # the second request waits while the third is read
def test_bodies_of_any_length_in_any_reads(requests: list[tuple[int, int]]) -> None:
    stream = b"".join(request(f"/{index}", LONG[:size]) for index, (size, _) in enumerate(requests))
    pieces, start = [], 0
    for _, size in requests:
        pieces.append(stream[start : start + size])
        start += size
    pieces += [stream[start:], request("/last", b"x")]

    async def work() -> str:
        async with served(Hashing()) as address:
            return await asyncio.to_thread(talk, address, pieces, b"/last")

    answer = run(uvloop.new_event_loop, work)

    hashes = re.findall(r" ([0-9a-f]{64}) ", answer)
    sent = [LONG[:size] for size, _ in requests] + [b"x"]
    assert hashes == [hashlib.sha256(body).hexdigest() for body in sent]


def test_the_loop_receives_the_rest_from_a_slow_client(monkeypatch: pytest.MonkeyPatch) -> None:
    app, waits = Hashing(), threading.Event()
    monkeypatch.setattr(body_thread, "_WAIT_SECONDS", 0.01)
    real = BodyReader._read

    def read(self: BodyReader, *arguments: Any) -> None:
        real(self, *arguments)
        waits.set()

    monkeypatch.setattr(BodyReader, "_read", read)

    def slow(address: tuple[str, int]) -> str:
        message = request("/slow", LONG)
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(message[:-100_000])
            assert waits.wait(60), "the thread ends without the client"
            client.sendall(message[-100_000:])
            return client.recv(1 << 16).decode()

    async def work() -> str:
        async with served(app) as address:
            return await asyncio.to_thread(slow, address)

    assert line("/slow", LONG, by_thread=True) in run(uvloop.new_event_loop, work)


def test_a_client_that_stalls_gets_a_timeout() -> None:
    app = Hashing()

    def stall(address: tuple[str, int]) -> str:
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(request("/stall", LONG)[:-1])
            return client.recv(1 << 16).decode()

    async def work() -> str:
        async with served(app, Limits(head_seconds=1.0)) as address:
            return await asyncio.to_thread(stall, address)

    assert "408 Request Timeout" in run(uvloop.new_event_loop, work)
    assert app.disconnected.wait(60)


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_the_app_learns_that_a_client_is_gone(loop: Any) -> None:
    app, sunk = Hashing(), threading.Event()
    app.sink = lambda _: sunk.set()

    def leave(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(request("/gone", LONG)[:-1])
            assert sunk.wait(60)
        assert app.disconnected.wait(60)

    async def work() -> None:
        async with served(app) as address:
            await asyncio.to_thread(leave, address)

    run(loop, work)


def test_an_error_of_the_sink_ends_the_thread_and_not_the_connection() -> None:
    app = Hashing()

    def fail(_: memoryview) -> None:
        raise ValueError("the disk is full")

    app.sink = fail

    async def work() -> str:
        async with served(app) as address:
            pieces = [request("/full", LONG), request("/next", b"x")]
            return await asyncio.to_thread(talk, address, pieces, b"/next")

    answer = run(uvloop.new_event_loop, work)

    assert "507" in answer
    assert line("/next", b"x", by_thread=False) in answer


def test_a_cancelled_app_goes_on_after_its_thread_has_ended() -> None:
    ended, sunk = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        reading = asyncio.ensure_future(
            scope["extensions"][BODY_READER].read_into(lambda _: sunk.set())
        )
        await asyncio.to_thread(sunk.wait, 60)
        reading.cancel()
        await asyncio.sleep(0)
        reading.cancel()  # a second time, while it waits for the thread
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not [each for each in threading.enumerate() if each.name == "elkyn-body"]
        ended.set()

    def begin(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(request("/", LONG)[:-1])
            assert ended.wait(60)

    async def work() -> None:
        async with served(app) as address:
            await asyncio.to_thread(begin, address)

    run(uvloop.new_event_loop, work)


def test_bodies_beyond_the_limit_of_threads_are_received_by_the_loop() -> None:
    threads = BodyThreads(1)
    assert threads.try_take()

    def unexpected(*_: object) -> None:
        raise AssertionError

    reader = BodyReader(unexpected, unexpected, threads)

    assert asyncio.run(reader.read_into(lambda _: None)) == 0
    threads.give_back()
    assert threads.try_take()


def test_no_thread_reads_what_is_encrypted_chunked_or_closes_the_connection() -> None:
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(BODY_READER in scope["extensions"])

    class Connection(asyncio.Transport):
        def is_closing(self) -> bool:
            return False

        def close(self) -> None: ...
        def pause_reading(self) -> None: ...
        def resume_reading(self) -> None: ...
        def write(self, data: Any) -> None: ...

    async def receive(head: bytes, extra: dict[str, Any]) -> None:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        protocol = bounded_protocol(Limits())(config, ServerState(), {})
        protocol.connection_made(Connection(extra))
        protocol.data_received(head)
        await asyncio.sleep(0)
        protocol.connection_lost(None)

    chunked = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    asyncio.run(receive(request("/", LONG)[:4096], {}))
    asyncio.run(receive(request("/", LONG)[:4096], {"sslcontext": object()}))
    asyncio.run(receive(chunked, {}))
    asyncio.run(receive(request("/", LONG, "Connection: close")[:4096], {}))

    assert seen == [True, False, False, False]
