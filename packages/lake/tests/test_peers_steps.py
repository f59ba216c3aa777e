"""Frames that a peer sends out of turn: pieces that nobody asked for, accepts, cancels, tunnels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lake.peers.transport import relay as relay_module
from lake.peers.transport.limits import PeerLimits
from lake.peers.transport.relay import RelayAccept, RelayBytes, RelayOpen, RelayReady
from lake.peers.transport.session import Accept, Cancel, Piece, Session
from sennit_core.errors import Busy, SennitError, Unsupported

from .peers_world import CODEC, TIMEOUT, Ask, Note, World, world
from .test_peers_outbox import until

REQUEST, PIECE, CANCEL, ACCEPT = 0, 1, 4, 5


def run(
    folder: Path,
    test: Callable[[World, Session, Session], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    """Run a test with the two ends of a session: Rome's, which is hostile, and Oslo's."""

    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT), world(folder, "oslo", "rome", **options) as nodes:
            await nodes.connect("rome", "oslo")
            own = nodes.networks["oslo"].open_session(nodes.ids["rome"])
            assert own is not None
            await test(nodes, await nodes.session("rome", "oslo"), own)

    asyncio.run(limited())


@pytest.mark.parametrize("step", [PIECE, CANCEL, ACCEPT])
def test_frames_about_no_request_are_limited(tmp_path: Path, step: int) -> None:
    async def test(_nodes: World, hostile: Session, own: Session) -> None:
        for number in range(60):
            frame = CODEC.encode(Ask("x"), r=number * 2 + 1001, s=step)
            await hostile.channel.send(frame)
        await until(lambda: own.refused_messages > 10)

    run(tmp_path, test, limits=PeerLimits(messages_per_second=1.0, messages_burst=20))


def test_a_body_counts_as_several_messages(tmp_path: Path) -> None:
    async def test(_nodes: World, hostile: Session, _own: Session) -> None:
        await hostile.call(Ask("small"), bytes(1000), timeout_seconds=TIMEOUT)
        with pytest.raises(Busy):
            await hostile.call(Ask("large"), bytes(1_000_000), timeout_seconds=TIMEOUT)
        await hostile.call(Ask("small"), bytes(1000), timeout_seconds=TIMEOUT)

    run(tmp_path, test, limits=PeerLimits(messages_per_second=0.001, messages_burst=16))


def test_what_a_peer_was_sent_does_not_count(tmp_path: Path) -> None:
    async def test(_nodes: World, asking: Session, _own: Session) -> None:
        pieces = asking.stream(Ask("p", pieces=50, size=100_000), timeout_seconds=TIMEOUT)
        assert len([each async for each in pieces]) == 50
        await asking.call(Ask("more"), timeout_seconds=TIMEOUT)

    run(tmp_path, test, limits=PeerLimits(messages_per_second=0.001, messages_burst=4))


def test_more_pieces_are_accepted_than_were_sent(tmp_path: Path) -> None:
    async def test(_nodes: World, hostile: Session, own: Session) -> None:
        await hostile.channel.send(CODEC.encode(Ask("p"), r=1001, s=REQUEST))
        await hostile.channel.send(CODEC.encode(Accept(), r=1001, s=ACCEPT))
        await own.closed.wait()

    run(tmp_path, test, handlers={Ask: Slow().answer})


def test_a_repeated_cancel_does_not_interrupt_what_ends(tmp_path: Path) -> None:
    slow = Slow()

    async def test(_nodes: World, hostile: Session, _own: Session) -> None:
        await hostile.channel.send(CODEC.encode(Ask("p"), r=1001, s=REQUEST))
        await slow.begun.wait()
        for _ in range(3):
            await hostile.channel.send(CODEC.encode(Cancel(), r=1001, s=CANCEL))
        with pytest.raises(Unsupported):  # when all of these were read
            await hostile.call(Note(""), timeout_seconds=TIMEOUT)
        slow.proceed.set()
        await slow.ended.wait()

    run(tmp_path, test, handlers={Ask: slow.answer})


def test_a_request_that_is_cancelled_before_it_begins_leaves_nothing(tmp_path: Path) -> None:
    async def test(_nodes: World, hostile: Session, own: Session) -> None:
        await own._handle(CODEC.encode(Ask("p"), r=1001, s=REQUEST))
        await own._handle(CODEC.encode(Cancel(), r=1001, s=CANCEL))
        await until(lambda: not own._served)

    run(tmp_path, test, handlers={Ask: Slow().answer})


class Slow:
    """Answers the first request with nothing, and takes a while to end it."""

    def __init__(self) -> None:
        self.begun, self.ending, self.proceed, self.ended = (asyncio.Event() for _ in range(4))

    async def answer(self, _session: Session, message: Ask, _body: bytes) -> Piece:
        if message == Ask():  # of `World.connect`
            return message, b""
        self.begun.set()
        try:
            await asyncio.Event().wait()
            raise AssertionError("nothing sets it")
        finally:
            self.ending.set()
            await self.proceed.wait()
            self.ended.set()


async def never(_session: Session, _message: Any, _body: bytes) -> AsyncGenerator[Piece, None]:
    yield RelayReady(), b""
    await asyncio.Event().wait()


def test_a_node_opens_a_limited_number_of_tunnels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "TUNNELS_PER_NODE_MAX", 3)

    async def test(nodes: World, hostile: Session, _own: Session) -> None:
        await nodes.connect("bern", "oslo")
        nodes.networks["bern"]._handlers[RelayAccept] = never
        opened = []
        for number in range(3):
            request = RelayOpen(nodes.ids["bern"], str(number))
            opened.append(hostile.stream(request, timeout_seconds=TIMEOUT))
            await anext(opened[-1])
        with pytest.raises(Busy):
            await hostile.call(RelayOpen(nodes.ids["bern"], "more"), timeout_seconds=TIMEOUT)
        for each in opened:
            await each.aclose()

    run_three(tmp_path, test)


def test_a_tunnel_with_large_pieces_is_ended(tmp_path: Path) -> None:
    async def flood(_session: Session, _message: Any, _body: bytes) -> AsyncGenerator[Piece, None]:
        yield RelayReady(), b""
        while True:
            yield RelayBytes(), bytes(1_000_000)

    async def test(nodes: World, asking: Session, _own: Session) -> None:
        await nodes.connect("bern", "oslo")
        nodes.networks["bern"]._handlers[RelayAccept] = flood
        pieces = asking.stream(RelayOpen(nodes.ids["bern"], "t"), timeout_seconds=TIMEOUT)
        await anext(pieces)
        with pytest.raises(SennitError, match="too large"):
            await anext(pieces)

    run_three(tmp_path, test)


def run_three(
    folder: Path, test: Callable[[World, Session, Session], Coroutine[Any, Any, None]]
) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT), world(folder, "oslo", "rome", "bern") as nodes:
            await nodes.connect("rome", "oslo")
            own = nodes.networks["oslo"].open_session(nodes.ids["rome"])
            assert own is not None
            await test(nodes, await nodes.session("rome", "oslo"), own)

    asyncio.run(limited())
