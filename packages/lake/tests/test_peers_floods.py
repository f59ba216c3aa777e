"""A member that floods a real node with each kind of message, and reads nothing of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from lake.peers.copies.chunks import ChunkRequest
from lake.peers.joined import JoinedNetwork
from lake.peers.members.membership import Compare, News, Probe, ProbeFor
from lake.peers.members.reports import ReportRequest
from lake.peers.members.roster import RosterHead, RosterNews
from lake.peers.service import PeerService
from lake.peers.sharing.publications import Entries, Heads, Want
from lake.peers.transport.channel import WebSocketChannel, dial
from lake.peers.transport.hello import PROTOCOL, PROTOCOL_MIN, Hello
from lake.peers.transport.identity import Identity
from lake.peers.transport.messages import Message
from lake.peers.transport.outbox import PENDING_MAX
from lake.peers.transport.relay import RelayOpen, RelayWrite

from .test_peers_service import Office, eventually, publish

pytestmark = pytest.mark.slow  # thousands of frames to a real node, one after the other
FRAMES = 2500
TASKS_MAX = 200
ONE_WAY: tuple[Message, ...] = (
    Probe(1),
    ProbeFor(1, "0" * 64),
    Compare({}),
    News(()),
    Heads({}),
    Want("0/*", 0),
    Entries(()),
    RosterHead("other"),
    RosterNews(()),
)
REQUESTS: Mapping[str, Message] = {
    "reports": ReportRequest(dial=True),
    "tunnels": RelayOpen("0" * 64, "t"),
    "writes": RelayWrite("t"),
    "chunks": ChunkRequest("0" * 64, 0, ""),
}


@pytest.fixture
def offices(tmp_path: Path) -> dict[str, Office]:
    return {name: Office(tmp_path, name) for name in ("oslo", "rome", "bern")}


def network_of(service: PeerService) -> JoinedNetwork:
    assert service._network is not None
    return service._network


async def connect(oslo: PeerService, hostile: Identity) -> WebSocketChannel:
    """Connect as a member that reads nothing after the greeting."""
    channel = await dial(hostile, oslo.identity.id, f"127.0.0.1:{oslo.port}")
    await channel.send(oslo._codec.encode(Hello("rome", "0", PROTOCOL, PROTOCOL_MIN, "")))
    await channel.receive()
    channel._connection.transport.pause_reading()
    return channel


async def flood(oslo: PeerService, hostile: Identity, frames: list[bytes]) -> None:
    """Send frames; what they lead to at the node stays bounded."""
    channel = await connect(oslo, hostile)
    network = network_of(oslo)
    try:
        for number, frame in enumerate(frames):
            async with asyncio.timeout(20):
                await channel.send(frame)
            if number % 100 == 0:
                check(network, hostile.id)
    except TimeoutError:
        pass  # the node reads no more of it for now
    finally:
        check(network, hostile.id)
        channel.abort()


def check(network: JoinedNetwork, node: str) -> None:
    """What one member causes is limited: tasks, messages, effects, requests, probes."""
    assert len(network._tasks) + len(network.outbox._tasks) < TASKS_MAX
    assert len(network.sessions._tasks) < TASKS_MAX
    assert len(network.outbox._pending.get(node, ())) <= PENDING_MAX
    assert len(network.effects) < 4096
    assert len(network.members._probes) < 4096
    for session in network.sessions._sessions.get(node, ()):
        assert len(session._served) <= 64


def test_a_flood_of_each_kind_leaves_the_node_as_it_was(offices: dict[str, Office]) -> None:
    with (
        offices["oslo"].running() as oslo,
        offices["bern"].running() as bern,
        offices["rome"].running() as rome,
    ):
        for service in (bern, rome):
            service.join(oslo.invite())
        publish(oslo, "something", "*")
        hostile = rome.identity
        rome.close()
        encode = oslo._codec.encode
        for message in ONE_WAY:
            asyncio.run(flood(oslo, hostile, [encode(message)] * FRAMES))
        for message in REQUESTS.values():
            frames = [encode(message, r=2 * n + 1, s=0) for n in range(FRAMES)]
            asyncio.run(flood(oslo, hostile, frames))
        assert oslo.counters().refused_messages > 0
        # The other member saw nothing of it, or sees this node as alive again.
        states = {node.member.name: node for node in bern.nodes()}
        assert "oslo" in states
        eventually(lambda: "alive" in [n.state for n in bern.nodes() if n.member.name == "oslo"])
        eventually(lambda: not network_of(oslo).outbox._pending.get(hostile.id))
