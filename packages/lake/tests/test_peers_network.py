"""Sessions between real nodes: TLS with pinned keys, requests, streams, relays, hostile peers."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from lake.peers.transport.channel import ChannelClosed, dial
from lake.peers.transport.hello import Hello
from lake.peers.transport.identity import Identity
from lake.peers.transport.limits import PeerLimits
from lake.peers.transport.messages import Message
from lake.peers.transport.network import NetworkOptions, PeerNetwork
from lake.peers.transport.session import ErrorReply, Session
from sennit_core.errors import (
    Busy,
    Denied,
    SennitError,
    Unavailable,
    Unsupported,
    error_from_json,
)

from .peers_world import CODEC, TIMEOUT, Ask, Note, World, identity, world


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT):
            await test

    asyncio.run(limited())


async def ask_unknown(own: Identity, peer: str, address: str, presents_certificate: bool) -> None:
    """Send a request as a node that is no member; raise the refusal."""
    channel = await dial(own, peer, address, anonymous=not presents_certificate)
    try:
        await channel.send(CODEC.encode(Ask("secret"), r=1, s=0))
        message, _, _ = CODEC.decode(await channel.receive())
        assert isinstance(message, ErrorReply)
        raise error_from_json(message.error)
    finally:
        await channel.close()


def test_a_message_arrives_with_the_verified_id_of_its_sender(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome") as nodes:
            session = await nodes.session("oslo", "rome")
            await session.send(Note("hello"))
            assert await nodes.notes["rome"].get() == (nodes.ids["oslo"], Note("hello"))

    run(test())


def test_either_side_asks_over_one_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome", undialable=("oslo",)) as nodes:
            await nodes.connect("oslo", "rome")
            session = await nodes.session("rome", "oslo")
            message, body = await session.call(Ask("x"), b"payload", timeout_seconds=5)
            assert (message, body) == (Ask("x0"), b"payload")

    run(test())


def test_two_nodes_that_dial_at_once_agree_on_a_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome") as nodes:
            one, other = await asyncio.gather(
                nodes.session("oslo", "rome"), nodes.session("rome", "oslo")
            )
            assert (await one.call(Ask("a"), timeout_seconds=5))[0] == Ask("a0")
            assert (await other.call(Ask("b"), timeout_seconds=5))[0] == Ask("b0")
            used = [await nodes.session("oslo", "rome"), await nodes.session("rome", "oslo")]
            assert used[0].dialed != used[1].dialed

    run(test())


def test_a_slow_reader_stops_the_answer_and_not_the_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome") as nodes:
            session = await nodes.session("oslo", "rome")
            pieces = session.stream(Ask("p", pieces=100, size=1000), timeout_seconds=5)
            assert (await anext(pieces))[0] == Ask("p0")
            await session.call(Ask("other"), timeout_seconds=5)
            assert nodes.sent_pieces < 20
            assert len([each async for each in pieces]) == 99

    run(test())


def test_an_answer_that_is_not_wanted_any_more_is_cancelled(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome") as nodes:
            session = await nodes.session("oslo", "rome")
            pieces = session.stream(Ask("p", pieces=1000), timeout_seconds=5)
            await anext(pieces)
            await pieces.aclose()
            await nodes.cancelled.wait()

    run(test())


def test_a_member_behind_a_nat_is_reached_through_another(tmp_path: Path) -> None:
    async def test() -> None:
        hidden = ("oslo", "rome")
        async with world(tmp_path, "seed", *hidden, undialable=hidden) as nodes:
            await nodes.connect("rome", "seed")
            await nodes.connect("oslo", "seed")
            session = await nodes.session("oslo", "rome")
            assert session.peer == nodes.ids["rome"]
            message, body = await session.call(Ask("x", size=900_000), timeout_seconds=5)
            assert (message, len(body)) == (Ask("x0"), 900_000)
            back = await nodes.session("rome", "oslo")
            assert (await back.call(Ask("y"), timeout_seconds=5))[0] == Ask("y0")

    run(test())


def test_the_end_of_a_relayed_session_is_known_on_both_sides(tmp_path: Path) -> None:
    async def test() -> None:
        hidden = ("oslo", "rome")
        async with world(tmp_path, "seed", *hidden, undialable=hidden) as nodes:
            await nodes.connect("rome", "seed")
            await nodes.connect("oslo", "seed")
            await nodes.connect("oslo", "rome")
            at_rome = nodes.networks["rome"].open_session(nodes.ids["oslo"])
            assert at_rome is not None
            pieces = at_rome.stream(Ask("p", pieces=100, size=1_000_000), timeout_seconds=5)
            await anext(pieces)  # so that bytes are under way
            seed = nodes.networks["oslo"].open_session(nodes.ids["seed"])
            assert seed is not None
            await seed.close("as if the connection was lost")
            await at_rome.closed.wait()
            with pytest.raises(Unavailable):
                await anext(pieces)

    run(test())


def test_a_node_that_no_other_can_reach_is_unavailable(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "seed", "oslo", "rome", undialable=("rome",)) as nodes:
            await nodes.session("oslo", "seed")
            with pytest.raises(Unavailable, match=nodes.ids["rome"][:16]):
                await nodes.session("oslo", "rome")

    run(test())


def test_another_node_at_an_address_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome", "bern") as nodes:
            address = f"127.0.0.1:{nodes.networks['bern'].port}"
            nodes.networks["oslo"].set_addresses(nodes.ids["rome"], [address])
            with pytest.raises(Unavailable, match=nodes.ids["rome"][:16]):
                await nodes.session("oslo", "rome")
            assert nodes.networks["bern"].peers == {}

    run(test())


@pytest.mark.parametrize("presents_certificate", [True, False])
def test_a_node_that_is_no_member_gets_no_session(
    tmp_path: Path, *, presents_certificate: bool
) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo") as nodes:
            address = f"127.0.0.1:{nodes.networks['oslo'].port}"
            other = identity(tmp_path, "mallory")
            with pytest.raises(SennitError):
                await ask_unknown(other, nodes.ids["oslo"], address, presents_certificate)
            assert nodes.sent_pieces == 0

    run(test())


def test_a_revoked_member_loses_its_session_and_gets_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome") as nodes:
            await nodes.connect("rome", "oslo")
            session = await nodes.session("rome", "oslo")
            oslo = nodes.networks["oslo"]
            key = identity(tmp_path, "oslo").key
            nodes.rosters["oslo"].revoke(key, nodes.ids["rome"], now=1_900_000_000.0)
            oslo.update_members()
            with pytest.raises(Unavailable):
                await session.call(Ask("x"), timeout_seconds=5)
            with pytest.raises(Unavailable):
                await nodes.connect("rome", "oslo")

    run(test())


class _ReadsNothing:
    """The channel to a node that accepts no data and sends for as long as it is connected."""

    peer, relay, host = "ab" * 32, "", "127.0.0.1"

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        await asyncio.Event().wait()

    async def receive(self) -> bytes:
        await asyncio.sleep(0)
        if self.closed.is_set():
            raise ChannelClosed("node")
        return CODEC.encode(Note("still here"))

    async def close(self, reason: str = "") -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()


def test_a_revoked_node_that_reads_nothing_is_closed_and_no_more_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        heard, first = [], asyncio.Event()

        def hear(_peer: str, message: Message) -> None:
            heard.append(message)
            first.set()

        session = Session(
            _ReadsNothing(), CODEC, {}, hear,
            limits=PeerLimits(), dialed=False,
        )  # fmt: skip
        running = asyncio.create_task(session.run())
        await first.wait()
        closing = asyncio.create_task(session.close("the node was revoked", Note("proof")))
        await session.closed.wait()
        count = len(heard)
        await asyncio.gather(closing, running)
        assert len(heard) == count

    monkeypatch.setattr("lake.peers.transport.session.CLOSE_SECONDS", 0.05)
    run(test())


def test_a_request_that_no_handler_serves_is_refused_by_name(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome") as nodes:
            session = await nodes.session("oslo", "rome")
            with pytest.raises(Unsupported, match="note"):
                await session.call(Note("x"), timeout_seconds=5)

    run(test())


def test_a_peer_over_its_limit_is_refused_and_counted(tmp_path: Path) -> None:
    async def test() -> None:
        limits = PeerLimits(messages_per_second=0.001, messages_burst=3)
        async with world(tmp_path, "oslo", "rome", limits=limits) as nodes:
            session = await nodes.session("oslo", "rome")
            for _ in range(3):
                await session.call(Ask("x"), timeout_seconds=5)
            with pytest.raises(Busy):
                await session.call(Ask("x"), timeout_seconds=5)
            rome = nodes.networks["rome"].open_session(nodes.ids["oslo"])
            assert rome is not None
            assert rome.refused_messages == 1

    run(test())


MALFORMED = [
    b"",
    b"\x01\x00",
    struct.pack("<I", 2**32 - 1) + b"x",
    struct.pack("<I", 1) + b"\xc1",
    struct.pack("<I", 1) + b"\x90",
    CODEC.encode(Note("x"), r=2, s=0),
    CODEC.encode(Note("x"), r=1, s=99),
    CODEC.encode(Ask("x"), bytes(2 << 20)),
]


@pytest.mark.parametrize("frame", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_frame_ends_its_session_alone(tmp_path: Path, frame: bytes) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome", "bern") as nodes:
            hostile = await nodes.session("rome", "oslo")
            other = await nodes.session("bern", "oslo")
            await hostile.channel.send(frame)
            await hostile.closed.wait()
            assert (await other.call(Ask("y"), timeout_seconds=5))[0] == Ask("y0")

    run(test())


def test_older_tls_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo") as nodes:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await connect(f"wss://127.0.0.1:{nodes.networks['oslo'].port}", ssl=context)

    run(test())


def test_an_unexpected_node_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo") as nodes:
            address = f"127.0.0.1:{nodes.networks['oslo'].port}"
            with pytest.raises(Denied, match=nodes.ids["oslo"][:16]):
                await dial(identity(tmp_path, "rome"), "f" * 64, address, anonymous=True)

    run(test())


@asynccontextmanager
async def moved_node(nodes: World, folder: Path, *bootstrap: str) -> AsyncIterator[PeerNetwork]:
    """A second network of paris, which knows where no member is but for the bootstrap addresses."""
    options = NetworkOptions(None, bootstrap=bootstrap)
    async with PeerNetwork(
        identity(folder, "paris"), nodes.rosters["paris"], CODEC, {Ask: nodes.answer},
        lambda _peer, _message: None, lambda: Hello("paris", "0.1.0", 1, 1, "2.0.0"), options,
    ) as network:  # fmt: skip
        yield network


def test_a_node_that_reaches_no_member_finds_all_by_one_bootstrap_address(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, "oslo", "rome", "paris") as nodes:
            await nodes.connect("rome", "oslo")
            rome = f"127.0.0.1:{nodes.networks['rome'].port}"
            async with moved_node(nodes, tmp_path, "127.0.0.1:1", rome) as paris:
                session = await paris.session(nodes.ids["oslo"])
                assert session.channel.relay == nodes.ids["rome"]
                assert (await session.call(Ask("x"), timeout_seconds=5))[0] == Ask("x0")
                direct = await paris.session(nodes.ids["rome"])
                assert (direct.dialed, direct.channel.relay) == (True, "")

    run(test())


def test_a_stranger_at_a_bootstrap_address_is_not_used(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            world(tmp_path, "oslo", "paris") as nodes,
            world(tmp_path / "other", "rome") as others,
        ):
            stranger = f"127.0.0.1:{others.networks['rome'].port}"
            async with moved_node(nodes, tmp_path, stranger) as paris:
                with pytest.raises(Unavailable):
                    await paris.session(nodes.ids["oslo"])
                assert paris.counters().sessions == 0

    run(test())
