"""Requests of any size, against memory that has one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from elkyn.server.limits import Limits
from sennit._asgi import Message, Receive, Scope, Send
from sennit.limits import UNAUTHENTICATED_BYTES_MAX, BodyLimit, protocols_for

BODY_BYTES_MAX = 2 << 20


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body, as the application behind the limit sees it."""
    size = 0
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        size += len(message.get("body", b""))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    pieces: list[bytes], *, path: str = "/api/query", known: bool = True, announced: int = 0
) -> tuple[int, bytes, int]:
    """The status and the body of the answer, and how many chunks of the request were read."""
    left, sent = list(pieces), []

    async def receive() -> Message:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", str(announced).encode())] if announced else []
    state = {"principal": "ann" if known else None}
    scope: Scope = {"type": "http", "path": path, "headers": headers, "state": state}
    asyncio.run(BodyLimit(count, BODY_BYTES_MAX)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], len(pieces) - len(left)


def test_a_body_within_the_limit_arrives_whole() -> None:
    assert ask([b"x" * 1000] * 30)[:2] == (200, b"30000")


@pytest.mark.parametrize(
    ("known", "limit"), [(True, BODY_BYTES_MAX), (False, UNAUTHENTICATED_BYTES_MAX)]
)
def test_a_body_beyond_the_limit_is_not_read_to_its_end(known: bool, limit: int) -> None:
    status, body, read = ask([b"x" * 10_000] * 1000, known=known)
    assert status == 413
    assert json.loads(body)["details"]["limitBytes"] == limit
    assert read == limit // 10_000 + 1


def test_a_body_that_announces_too_much_is_not_read_at_all() -> None:
    assert ask([b"x"], announced=1 << 40)[::2] == (413, 0)


def test_uploads_stream_past_the_limit() -> None:
    assert ask([b"x" * (1 << 20)] * 4, path="/api/upload")[:2] == (200, b"4194304")


LARGE = b"x" * 20_000_000  # more than the systems of both sides buffer

UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


gone = threading.Event()


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends more than the buffers of a client that does not read."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": LARGE})
    elif scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        return
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": LARGE})
    await receive()


@pytest.fixture
def port() -> Iterator[int]:
    """Where `endless` is served as a node is, to clients that have little time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limits = Limits(head_seconds=1, send_seconds=1)
        protocols = protocols_for(listener, limits)
        config = uvicorn.Config(
            endless, loop="uvloop", lifespan="off", log_config=None, **protocols
        )
        server = uvicorn.Server(config)
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        serving.start()
        yield listener.getsockname()[1]
        server.should_exit = server.force_exit = True
        serving.join()


def until_closed(client: socket.socket) -> bytes:
    received = bytearray()
    try:
        while part := client.recv(1 << 20):
            received += part
    except ConnectionError:
        pass
    return bytes(received)


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("more", [b"", UPGRADE])
def test_a_client_that_reads_nothing_is_disconnected(port: int, more: bytes) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % more)
        time.sleep(3)
        assert len(until_closed(client)) < len(LARGE)


@pytest.mark.slow
def test_a_client_that_does_not_end_its_head_gets_an_error(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        answer = until_closed(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "deadline-exceeded"


def test_a_client_that_disconnects_before_its_response_is_detected(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not gone.wait(0.2)
    assert gone.wait(20)
