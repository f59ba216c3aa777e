"""How the parts of a response are written to its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from elkyn.server.http.protocol import bounded_protocol
from elkyn.server.limits import Limits

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTH = [(b"content-length", b"5")]


class Recorded:
    """A transport that records what is written to it at once."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


def serve(app: Any, client: Client) -> list[bytes]:
    """Serve an app on a free port while a client runs; return what the server wrote."""
    writes: list[bytes] = []
    config = uvicorn.Config(app, http=bounded_protocol(Limits()), lifespan="off", log_level="error")
    config.load()
    base: Any = config.http_protocol_class

    class Protocol(base):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Recorded(transport, writes))

    async def main() -> None:
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                await asyncio.wait_for(client(reader, writer), 20)
            finally:
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())
    return writes


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_small_response_is_one_write() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")

    writes = serve(hello, client)
    assert [write.count(b"200 OK") for write in writes] == [1, 1, 1]
    assert all(write.endswith(b"\r\n\r\nhello") for write in writes)


def test_a_head_does_not_wait_for_a_body_that_comes_later() -> None:
    arrived = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        await arrived.wait()
        await send({"type": "http.response.body", "body": b"hello"})

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        assert await reader.readexactly(5) == b"hello"

    serve(app, client)


def test_responses_without_a_body_keep_their_place_among_others() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + GET + HEAD + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        first, second, after = (await reader.read()).split(b"hello")
        assert [first.count(b"200 OK"), second.count(b"200 OK"), after] == [2, 2, b""]

    serve(hello, client)


def test_an_app_that_fails_after_the_head_closes_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        raise RuntimeError("the app fails")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        assert (await reader.read()).endswith(b"\r\n\r\n")  # a head, and no body

    serve(app, client)
