"""Long bodies, which pass the parser only in part: each byte arrives once, and the next request is parsed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from elkyn.server.http.protocol import bounded_protocol
from elkyn.server.limits import Limits

LONG = 64 * 1024  # from here on a body does not pass the parser


class Connection(asyncio.Transport):
    """A connection whose answers are collected."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.closed = b"", False
        self.may_read = asyncio.Event()
        self.may_read.set()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.may_read.clear()

    def resume_reading(self) -> None:
        self.may_read.set()

    def write(self, data: Any) -> None:
        self.sent += bytes(data)


async def hashing(scope: Any, receive: Any, send: Any) -> None:
    """Answer the path and the hash of the body; refuse `/early` before its body has come."""
    digest, more = hashlib.sha256(), scope["path"] != "/early"
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        digest.update(message["body"])
        more = message["more_body"]
    body = f"{scope['path']} {digest.hexdigest()};".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def answers(pieces: Sequence[bytes]) -> list[str]:
    """Return the bodies that a server answers to these bytes, one read for each piece."""

    async def run() -> bytes:
        config = uvicorn.Config(hashing, log_config=None)
        config.load()
        protocol = bounded_protocol(Limits())(config, ServerState(), {})
        connection = Connection()
        protocol.connection_made(connection)
        for piece in pieces:
            await connection.may_read.wait()
            protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return connection.sent

    texts = asyncio.run(run()).decode().split("\r\n\r\n")[1:]
    return [text.partition(";")[0] for text in texts]


def request(path: str, body: bytes, extra: str = "") -> bytes:
    return (
        f"PUT {path} HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def expected(path: str, body: bytes) -> str:
    return f"{path} {hashlib.sha256(body).hexdigest()}"


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if a < b]


BODIES = st.integers(0, 5).flatmap(
    lambda kind: st.integers(0, 40) if kind < 2 else st.integers(LONG - 2, 3 * LONG)
)


@settings(deadline=None)
@given(
    sizes=st.lists(BODIES, min_size=1, max_size=3),
    places=st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_bodies_of_any_size_in_any_reads_arrive_as_they_were_sent(
    sizes: list[int], places: list[int]
) -> None:
    # Bodies that look like requests: a wrong count would answer what is in them.
    bodies = [
        (b"GET /inside HTTP/1.1\r\nHost: a\r\n\r\n" * (size // 34 + 1))[:size] for size in sizes
    ]
    sent = b"".join(request(f"/{at}", body) for at, body in enumerate(bodies))
    found = answers(cut(sent, places))
    assert found == [expected(f"/{at}", body) for at, body in enumerate(bodies)]


def test_small_reads_of_a_long_body_arrive() -> None:
    body = bytes(range(256)) * 300
    sent = request("/", body) + request("/next", b"x")
    pieces = [sent[at : at + 97] for at in range(0, len(sent), 97)]
    assert answers(pieces) == [expected("/", body), expected("/next", b"x")]


def test_a_long_body_that_was_refused_early_is_skipped() -> None:
    body = b"GET /inside HTTP/1.1\r\nHost: a\r\n\r\n" * 6000
    sent = request("/early", body) + request("/next", b"x")
    found = answers(cut(sent, range(0, len(sent), 50_000)))
    assert found == [expected("/early", b""), expected("/next", b"x")]


@pytest.mark.parametrize("length", [b"-70000", b"+70000", b"70000, 70000", b"0x11170", b"7e4"])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % length
    assert answers([head, b"x" * 70_000, request("/next", b"")]) in (
        [],
        ["Invalid HTTP request received."],
    )


def test_chunks_pass_the_parser() -> None:
    body = b"y" * 100_000
    head = b"PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + request("/next", b"x")
    found = answers(cut(sent, [70, 40_000, 90_000]))
    assert found == [expected("/chunked", body), expected("/next", b"x")]
