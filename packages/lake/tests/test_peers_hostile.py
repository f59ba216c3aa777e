"""Peers that attack a real listener: other sessions go on, and what the node holds stays bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from lake.peers.transport import network as network_module
from lake.peers.transport.channel import FRAME_BYTES_MAX, WebSocketChannel, dial
from lake.peers.transport.hello import Hello
from lake.peers.transport.limits import PeerLimits
from lake.peers.transport.listener import UNVERIFIED_MAX, UNVERIFIED_PER_HOST_MAX
from lake.peers.transport.network import UNKNOWN_MAX, UNKNOWN_PER_HOST_MAX
from lake.peers.transport.session import ErrorReply, Session
from sennit_core.errors import Busy, Unavailable

from .peers_world import CODEC, TIMEOUT, Ask, Note, World, identity, world


def run(test: Callable[[World], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    """Run a test with Oslo, which is attacked, and Rome, a member with an open session."""

    async def limited() -> None:
        async with asyncio.timeout(3 * TIMEOUT), world(folder, "oslo", "rome", **options) as nodes:
            await nodes.connect("rome", "oslo")
            await test(nodes)
            await assert_served(nodes)

    asyncio.run(limited())


async def assert_served(nodes: World) -> None:
    """Rome's session still works."""
    session = await nodes.session("rome", "oslo")
    assert (await session.call(Ask("still"), timeout_seconds=TIMEOUT))[0] == Ask("still0")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the state of a real listener has no event
        await asyncio.sleep(0.01)


def context() -> ssl.SSLContext:
    """A client that verifies nothing and presents no certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


@asynccontextmanager
async def silent_connections(nodes: World, count: int, host: str) -> AsyncIterator[list[Any]]:
    """TCP connections from one address that send nothing."""
    port = nodes.networks["oslo"].port
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
            stack.callback(writer.close)
            found.append(reader)
        yield found


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


def test_silent_connections_of_one_host_leave_room_for_others(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        oslo = nodes.networks["oslo"]
        async with silent_connections(nodes, 3 * UNVERIFIED_PER_HOST_MAX, "127.0.0.2") as readers:
            await asyncio.gather(*map(is_closed, readers[UNVERIFIED_PER_HOST_MAX:]))
            assert oslo.counters().unverified == UNVERIFIED_PER_HOST_MAX
            rome = nodes.networks["rome"].open_session(nodes.ids["oslo"])
            assert rome is not None
            await rome.close("to connect again")
            await assert_served(nodes)
        await until(lambda: oslo.counters().unverified == 0)

    run(test, tmp_path)


def test_silent_connections_of_many_hosts_are_bounded(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        oslo = nodes.networks["oslo"]
        hosts = [f"127.0.0.{2 + index}" for index in range(8)]
        async with AsyncExitStack() as stack:
            for host in hosts:
                await stack.enter_async_context(silent_connections(nodes, 12, host))
            await until(lambda: oslo.counters().unverified == UNVERIFIED_MAX)
            rome = nodes.networks["rome"].open_session(nodes.ids["oslo"])
            assert rome is not None
            await rome.close("to connect again")
            await assert_served(nodes)
            assert oslo.counters().unverified <= UNVERIFIED_MAX
        await until(lambda: oslo.counters().unverified == 0)

    run(test, tmp_path)


def test_a_silent_connection_ends_with_the_node(tmp_path: Path) -> None:
    async def test() -> None:
        async with asyncio.timeout(TIMEOUT), AsyncExitStack() as stack:
            async with world(tmp_path, "oslo") as nodes:
                opened = silent_connections(nodes, 2, "127.0.0.2")
                readers = await stack.enter_async_context(opened)
                await until(lambda: nodes.networks["oslo"].counters().unverified == 2)
            assert all([await is_closed(reader) for reader in readers])

    asyncio.run(test())


@pytest.mark.slow
@pytest.mark.parametrize("step", ["connect", "tls", "websocket"])
def test_a_connection_that_goes_no_further_is_closed(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not shorter: Rome has to connect in this time too.
    monkeypatch.setattr(network_module, "_HELLO_SECONDS", 2.0)
    monkeypatch.setattr(network_module, "_UNKNOWN_SECONDS", 0.2)

    async def test(nodes: World) -> None:
        address = "127.0.0.1", nodes.networks["oslo"].port
        if step == "websocket":
            async with connect(f"wss://{address[0]}:{address[1]}/peers", ssl=context()) as opened:
                with pytest.raises(ConnectionClosed):
                    await opened.recv()
            return
        tls = context() if step == "tls" else None
        reader, writer = await asyncio.open_connection(*address, ssl=tls)
        assert await is_closed(reader)
        writer.close()

    run(test, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, b"A" * 200_000, b"\r\n" * 50_000]
)
@pytest.mark.parametrize("in_tls", [True, False])
def test_bytes_of_another_protocol_end_their_connection(
    tmp_path: Path, garbage: bytes, monkeypatch: pytest.MonkeyPatch, *, in_tls: bool
) -> None:
    monkeypatch.setattr(network_module, "_HELLO_SECONDS", 2.0)

    async def test(nodes: World) -> None:
        port = nodes.networks["oslo"].port
        tls = context() if in_tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        with suppress(ConnectionError):
            writer.write(garbage)
            await writer.drain()
            while await reader.read(4096):
                pass
        writer.close()
        await until(lambda: nodes.networks["oslo"].counters().unverified == 0)

    run(test, tmp_path)


async def anonymous(nodes: World, folder: Path) -> WebSocketChannel:
    address = f"127.0.0.1:{nodes.networks['oslo'].port}"
    return await dial(identity(folder, "mallory"), nodes.ids["oslo"], address, anonymous=True)


def test_a_node_without_a_certificate_may_send_small_frames_only(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        channel = await anonymous(nodes, tmp_path)
        with suppress(Unavailable):
            await channel.send(bytes(100_000))
        with pytest.raises(Unavailable):
            await channel.receive()

    run(test, tmp_path)


def test_a_host_with_many_connections_without_a_certificate_keeps_the_newest(
    tmp_path: Path,
) -> None:
    async def test(nodes: World) -> None:
        unknown = nodes.networks["oslo"]._unknown
        async with AsyncExitStack() as stack:
            for _ in range(3 * UNKNOWN_PER_HOST_MAX):
                channel = await anonymous(nodes, tmp_path)
                stack.push_async_callback(channel.close)
            await until(lambda: len(unknown) == UNKNOWN_PER_HOST_MAX)
            assert [each.peer for each in unknown] == [""] * UNKNOWN_PER_HOST_MAX
            await channel.send(CODEC.encode(Ask("still open"), r=1, s=0))
            message, _, _ = CODEC.decode(await channel.receive())
            assert isinstance(message, ErrorReply)  # the only thing that it may ask is to join

    run(test, tmp_path)


def test_a_host_with_few_connections_displaces_one_with_many(tmp_path: Path) -> None:
    class Opened(WebSocketChannel):
        def __init__(self) -> None:
            self.is_closed = False

        async def close(self, reason: str = "") -> None:
            self.is_closed = True

    async def test(nodes: World) -> None:
        oslo = nodes.networks["oslo"]
        hosts = [f"10.0.0.{n // UNKNOWN_PER_HOST_MAX}" for n in range(UNKNOWN_MAX)]
        opened = [Opened() for _ in hosts]
        oslo._unknown.update(zip(opened, hosts, strict=True))
        await (await anonymous(nodes, tmp_path)).close()
        await until(lambda: opened[0].is_closed)
        assert not any(each.is_closed for each in opened[1:])

    run(test, tmp_path)


def test_a_member_with_many_connections_keeps_the_newest(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        oslo, address = nodes.networks["oslo"], f"127.0.0.1:{nodes.networks['oslo'].port}"
        async with AsyncExitStack() as stack:
            for _ in range(12):
                channel = await dial(identity(tmp_path, "rome"), nodes.ids["oslo"], address)
                stack.push_async_callback(channel.close)
                await channel.send(CODEC.encode(Hello("rome", "0.1.0", 1, 1, "2.0.0")))
                await channel.receive()
            await channel.send(CODEC.encode(Ask("new"), r=1, s=0))
            message, _, _ = CODEC.decode(await channel.receive())
            assert message == Ask("new0")
            assert len(oslo._sessions[nodes.ids["rome"]]) <= 4

    run(test, tmp_path)


@pytest.mark.parametrize("text_bytes", [10, 50_000])
def test_a_flood_of_messages_is_dropped_beyond_the_limit(tmp_path: Path, text_bytes: int) -> None:
    limits = PeerLimits(messages_per_second=1.0, messages_burst=100)

    async def test(nodes: World) -> None:
        await nodes.connect("bern", "oslo")
        hostile = await nodes.session("bern", "oslo")
        at_oslo = nodes.networks["oslo"].open_session(nodes.ids["bern"])
        assert at_oslo is not None
        for _ in range(120):
            await hostile.channel.send(CODEC.encode(Note("x" * text_bytes)))
        await until(lambda: at_oslo.refused_messages > 10)
        # One of 4 KiB counts as one, and a larger one as several.
        received = nodes.notes["oslo"].qsize()
        assert received <= (110 if text_bytes < 4096 else 110 * 4096 // text_bytes)

    with_bern(test, tmp_path, limits)


def test_a_flood_of_requests_is_refused_beyond_the_limits(tmp_path: Path) -> None:
    limits = PeerLimits(requests_max=4, request_bytes_max=2 << 20)
    waiting = asyncio.Event()

    async def wait(_session: Session, _message: Ask, _body: bytes) -> tuple[Ask, bytes]:
        await waiting.wait()
        return Ask("done"), b""

    async def test(nodes: World) -> None:
        hostile = await nodes.session("bern", "oslo")
        asked = [
            asyncio.create_task(hostile.call(Ask(str(n)), bytes(1 << 20), timeout_seconds=TIMEOUT))
            for n in range(8)
        ]
        refused = [await failure for failure in asyncio.as_completed(map(error_of, asked[2:]))]
        assert all(isinstance(each, Busy) for each in refused)
        waiting.set()
        assert [(await each)[0] for each in asked[:2]] == [Ask("done")] * 2

    with_bern(test, tmp_path, limits, handlers={Ask: wait}, serves_rome=False)


async def error_of(asked: Awaitable[Any]) -> BaseException | None:
    try:
        await asked
    except Busy as error:
        return error
    return None


def with_bern(
    test: Callable[[World], Coroutine[Any, Any, None]],
    folder: Path,
    limits: PeerLimits,
    *,
    handlers: Any = None,
    serves_rome: bool = True,
) -> None:
    """Run a test in which Bern, a member, attacks Oslo."""

    async def limited() -> None:
        async with (
            asyncio.timeout(3 * TIMEOUT),
            world(folder, "oslo", "rome", "bern", limits=limits, handlers=handlers) as nodes,
        ):
            await test(nodes)
            if serves_rome:
                await assert_served(nodes)

    asyncio.run(limited())


@pytest.mark.parametrize("size", [FRAME_BYTES_MAX + 1, 8 << 20])
def test_a_huge_frame_of_a_member_ends_its_session(tmp_path: Path, size: int) -> None:
    async def test(nodes: World) -> None:
        hostile = await nodes.session("bern", "oslo")
        with suppress(Unavailable):
            await hostile.channel.send(bytes(size))
        await hostile.closed.wait()

    with_bern(test, tmp_path, PeerLimits())
