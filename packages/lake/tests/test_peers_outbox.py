"""Messages that wait for their receiver, and how long a node waits for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lake.peers.transport import channel as channel_module
from lake.peers.transport import network as network_module
from lake.peers.transport import relay as relay_module
from lake.peers.transport.outbox import PENDING_MAX, Outbox
from lake.peers.transport.relay import RelayOpen
from lake.peers.transport.session import Piece, Session
from sennit_core.errors import Unavailable

from .peers_world import TIMEOUT, Note, World, world


def run(folder: Path, test: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT), world(folder, "oslo", "rome", **options) as nodes:
            await test(nodes)

    asyncio.run(limited())


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the state of a real session has no event
        await asyncio.sleep(0.01)


@asynccontextmanager
async def silent_listener() -> AsyncIterator[str]:
    """The address of a program that accepts connections and sends nothing."""
    done = asyncio.Event()

    async def wait(_reader: object, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        done.set()


def test_messages_arrive_in_their_order(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        outbox = Outbox(nodes.networks["oslo"].session)
        for number in range(50):
            outbox.put(nodes.ids["rome"], Note(str(number)))
        found = [await nodes.notes["rome"].get() for _ in range(50)]
        assert found == [(nodes.ids["oslo"], Note(str(number))) for number in range(50)]
        await outbox.end()

    run(tmp_path, test)


def test_a_node_that_is_slow_to_reach_gets_the_newest_messages(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        reachable = asyncio.Event()

        async def session(node: str) -> Session:
            await reachable.wait()
            return await nodes.networks["oslo"].session(node)

        outbox = Outbox(session)
        for number in range(1000):
            outbox.put(nodes.ids["rome"], Note(str(number)))
        assert outbox.dropped == 1000 - PENDING_MAX
        reachable.set()
        found = [(await nodes.notes["rome"].get())[1] for _ in range(PENDING_MAX)]
        assert found == [Note(str(number)) for number in range(1000 - PENDING_MAX, 1000)]
        await outbox.end()

    run(tmp_path, test)


def test_a_node_that_reads_nothing_costs_a_bounded_number_of_messages(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        await nodes.connect("rome", "oslo")
        hostile = nodes.networks["rome"].open_session(nodes.ids["oslo"])
        assert hostile is not None
        transport = hostile.channel._connection.transport  # type: ignore[attr-defined]
        transport.pause_reading()
        outbox = Outbox(nodes.networks["oslo"].session)
        for _ in range(600):
            outbox.put(nodes.ids["rome"], Note("x" * 100_000))
            await asyncio.sleep(0)
        assert outbox.dropped > 400
        assert len(outbox._pending[nodes.ids["rome"]]) <= PENDING_MAX
        assert len(outbox._tasks) == 1
        await outbox.end()
        transport.resume_reading()  # so that the end of the test waits for nothing

    run(tmp_path, test)


def test_a_node_that_cannot_be_reached_is_not_dialed_for_each_message(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        outbox = Outbox(nodes.networks["oslo"].session)
        for number in range(10):
            outbox.put(nodes.ids["rome"], Note(str(number)))
        await until(lambda: not outbox._pending)
        assert nodes.notes["rome"].empty()

    run(tmp_path, test, undialable=("rome",))


def test_the_wait_for_a_dial_ends_and_the_dial_goes_on(tmp_path: Path) -> None:
    async def test(nodes: World) -> None:
        oslo, rome = nodes.networks["oslo"], nodes.ids["rome"]
        async with silent_listener() as address:
            oslo.set_addresses(rome, [address])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await oslo.session(rome)
            dialing = oslo._peers[rome].dialing
            assert dialing is not None
            assert not dialing.done()

    run(tmp_path, test)


def test_a_pause_between_dials_begins_at_the_end_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_DIAL_SECONDS", 0.2)
    monkeypatch.setattr(network_module, "_REDIAL_SECONDS", (0.1, 1.0))

    async def test(nodes: World) -> None:
        oslo, rome = nodes.networks["oslo"], nodes.ids["rome"]
        oslo._peers.clear()
        async with silent_listener() as address:
            oslo.set_addresses(rome, [address])
            with pytest.raises(Unavailable):
                await oslo.session(rome)
            with pytest.raises(Unavailable, match="just before"):
                await oslo.session(rome)

    run(tmp_path, test)


def test_a_relay_that_does_not_answer_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_HANDSHAKE_SECONDS", 0.1)

    async def wait(_session: Session, _message: RelayOpen, _body: bytes) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def test() -> None:
        async with asyncio.timeout(TIMEOUT), world(
            tmp_path, "seed", "oslo", "rome", undialable=("rome",)
        ) as nodes:  # fmt: skip
            await nodes.connect("rome", "seed")
            await nodes.connect("oslo", "seed")
            nodes.networks["seed"]._handlers[RelayOpen] = wait
            with pytest.raises(Unavailable, match=nodes.ids["rome"][:16]):
                await nodes.session("oslo", "rome")
            seed = nodes.networks["seed"].open_session(nodes.ids["oslo"])
            assert seed is not None
            await until(lambda: not seed._served)  # it was cancelled there

    asyncio.run(test())
