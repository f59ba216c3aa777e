"""A member with a valid key breaks the protocol over a real socket: the node goes on, in bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from held_copies import HOLDER, WRITER, Asking, fill
from measured_memory import MeasuredMemory
from networks import Member, all_become_alive, eventually, invite, members
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lake.catalog.node_key import NodeKey
from lake.peers.changes.claims import Claims
from lake.peers.members import membership
from lake.peers.members.invites import Invite
from lake.peers.members.membership import Probe
from lake.peers.queries import restricted
from lake.peers.queries.restricted import DescribeRestricted
from lake.peers.sharing import publications
from lake.peers.sharing.publications import Entries, LogKey, Want
from lake.peers.transport import session
from lake.peers.transport.channel import FRAME_BYTES_MAX
from lake.peers.transport.hello import PROTOCOL, PROTOCOL_MIN, Hello
from lake.peers.transport.identity import Identity
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.session import ErrorReply
from lake.statements.limits import Requester
from nodes import RunningNode, platform
from sennit_core.units import MIB

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # real nodes
GROWTH_MAX = 200 * MIB
CODEC = MessageCodec(
    (Hello, *session.MESSAGES, *membership.MESSAGES, *publications.MESSAGES, *restricted.MESSAGES)
)
GREETING = CODEC.encode(Hello("mallory", "0.1.0", PROTOCOL, PROTOCOL_MIN, ""))


class Attack:
    """The attacked node, and the identity of a member that is under the attacker's control."""

    def __init__(self, attacked: Member, stolen: Member) -> None:
        self.node = attacked.node
        self.identity = Identity(NodeKey(stolen.node.data / "lake" / "node.key"))
        self.target = Identity(NodeKey(attacked.node.data / "lake" / "node.key")).id
        self._address = f"127.0.0.1:{attacked.proxy.port}"

    @asynccontextmanager
    async def connected(self, *, greets: bool = True) -> AsyncIterator[ClientConnection]:
        """Connect, with an offer of permessage-deflate (RFC 7692)."""
        async with connect(
            f"wss://{self._address}/peers",
            ssl=self.identity.client_context(),
            compression="deflate",
            max_size=None,
            proxy=None,
        ) as found:
            assert found.protocol.extensions == [], "compression was accepted"
            if greets:
                await found.send(GREETING)
            yield found


async def until_closed(connection: ClientConnection) -> ConnectionClosed:
    """Return how the other side has closed a connection."""
    async with asyncio.timeout(60):
        while True:
            try:
                await connection.recv()
            except ConnectionClosed as closed:
                return closed


@contextmanager
def attacked(tmp_path: Path) -> Iterator[tuple[Attack, dict[str, Member]]]:
    """Run an attack on the writer, which answers queries meanwhile."""
    with members(tmp_path, WRITER, HOLDER) as nodes:
        fill(nodes)
        attack = Attack(nodes[WRITER], nodes[HOLDER])
        with MeasuredMemory(attack.node) as memory, Asking(attack.node) as asking:
            asking.more(1)
            yield attack, nodes
            asking.more(2)
        assert asking.errors == []
        assert all(rows == asking.answers[0] for rows in asking.answers)
        assert attack.node.process.poll() is None
        assert memory.growth_bytes < GROWTH_MAX, f"{memory.growth_bytes / MIB:.0f} MiB more"


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def header(first: int, size: int) -> bytes:
    """Return the header of a masked frame, whose mask is zero (RFC 6455, 5.2)."""
    return bytes((first, 0x80 | 127)) + size.to_bytes(8, "big") + bytes(4)


COMPRESSED, BINARY, UNFINISHED, CONTINUED = 0xC2, 0x82, 0x02, 0x00


def test_frames_that_break_the_protocol_end_their_connection(tmp_path: Path) -> None:
    async def break_it() -> None:
        over = FRAME_BYTES_MAX + 1
        endless = header(UNFINISHED, MIB) + bytes(MIB) + 8 * (header(CONTINUED, MIB) + bytes(MIB))
        frames = {
            "compressed": (header(COMPRESSED, 100) + bytes(100), 1002),
            "over the limit": (header(BINARY, over) + bytes(over), 1009),
            "announced as 8 GiB": (header(BINARY, 8 << 30), 1009),
            "in endless fragments": (endless, 1009),
        }
        for greets in (True, False):
            for what, (data, code) in frames.items():
                async with attack.connected(greets=greets) as connection:
                    connection.transport.write(data)
                    closed = await until_closed(connection)
                    # A reset may overtake the frame that says why.
                    assert closed.rcvd is None or closed.rcvd.code == code, what

    with attacked(tmp_path) as (attack, _):
        run(break_it)


def test_a_flood_of_greetings_and_probes_is_bounded(tmp_path: Path) -> None:
    async def flood() -> None:
        probe = CODEC.encode(Probe(1))
        for _ in range(3):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(12):
                    tasks.create_task(one(GREETING, probe))

    async def one(*frames: bytes) -> None:
        with suppress(ConnectionClosed, OSError, TimeoutError, EOFError):
            async with asyncio.timeout(30), attack.connected() as connection:
                for _ in range(500):
                    for frame in frames:
                        await connection.send(frame)

    with attacked(tmp_path) as (attack, nodes):
        nodes[HOLDER].kill()
        run(flood)


def tables(node: RunningNode) -> str:
    return platform("sql", "SHOW TABLES", data=node.data).stdout


def test_what_was_signed_before_is_of_no_use_again(tmp_path: Path) -> None:
    recorded: list[bytes] = []

    async def record() -> None:
        log = LogKey(attack.identity.id).text
        async with attack.connected() as connection:
            await connection.send(CODEC.encode(Want(log, 0)))
            async with asyncio.timeout(60):
                while not any(isinstance(each, Entries) for each in map(message_of, recorded)):
                    recorded.append(bytes(await connection.recv(decode=False)))

    async def replay() -> None:
        entries = next(e for e in map(message_of, recorded) if isinstance(e, Entries))
        forged = tuple(replace(e, body={**e.body, "number": 10_000}) for e in entries.entries)
        async with attack.connected() as connection:
            for _ in range(50):
                for frame in recorded:
                    await connection.send(frame)
                await connection.send(CODEC.encode(entries))
                await connection.send(CODEC.encode(Entries(forged)))
            await is_answered(connection)

    with attacked(tmp_path) as (attack, nodes):
        thief = nodes[HOLDER].node
        platform("sql", "CREATE TABLE note AS SELECT 1 AS a", data=thief.data)
        platform("share", "note", "--with", "all", data=thief.data)
        eventually(lambda: "note" in tables(attack.node))
        nodes[HOLDER].kill()  # so that the answers come to the attacker's connection
        run(record)
        nodes[HOLDER].up()
        all_become_alive(attack.node, nodes[HOLDER].node)
        platform("unshare", "note", data=thief.data)
        eventually(lambda: "note" not in tables(attack.node))
        nodes[HOLDER].kill()
        run(replay)
        assert "note" not in tables(attack.node)
        assert "log" in tables(attack.node)


def message_of(frame: bytes) -> Message | None:
    return CODEC.decode(frame)[0]


async def is_answered(connection: ClientConnection) -> None:
    """All that was sent before is handled."""
    answer = await ask(connection, DescribeRestricted("none"), 9999)
    assert answer.error["code"] == "denied"


async def ask(connection: ClientConnection, message: Message, number: int) -> ErrorReply:
    """Return the refusal of a request."""
    await connection.send(CODEC.encode(message, r=number, s=0))
    async with asyncio.timeout(60):
        while True:
            found, _, envelope = CODEC.decode(await connection.recv(decode=False))
            if envelope.get("r") == number:
                assert isinstance(found, ErrorReply), found
                return found


def test_a_claim_counts_for_its_request_at_its_node(tmp_path: Path) -> None:
    async def claim() -> None:
        claims = Claims(attack.identity.key, Invite.parse(invite(attack.node), time.time()).network)
        user, now = Requester("root", role="admin"), time.time()
        asked = DescribeRestricted("first")
        right = claims.sign(user, attack.target, asked, now)
        others = {
            "another request": (DescribeRestricted("second"), right),
            "another node": (asked, claims.sign(user, attack.identity.id, asked, now)),
            "expired": (asked, claims.sign(user, attack.target, asked, now - 4000)),
            "signature": (asked, replace(right, body={**right.body, "user": "other"})),
        }
        async with attack.connected() as connection:
            accepted = await ask(connection, replace(asked, claim=right), 1)
            assert accepted.error["code"] == "not-found", accepted
            for number, (what, (message, used)) in enumerate(others.items()):
                refused = await ask(connection, replace(message, claim=used), 3 + 2 * number)
                assert refused.error["code"] == "denied", what
                assert what in str(refused.error)

    with attacked(tmp_path) as (attack, nodes):
        nodes[HOLDER].kill()
        run(claim)
