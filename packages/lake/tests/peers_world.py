"""Nodes of a network in one process, with real keys and TLS on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from lake.catalog.node_key import NodeKey
from lake.peers.members.roster import Roster, found_network
from lake.peers.transport.hello import Hello
from lake.peers.transport.identity import Identity
from lake.peers.transport.limits import PeerLimits
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.network import NetworkOptions, PeerNetwork
from lake.peers.transport.relay import MESSAGES as RELAY_MESSAGES
from lake.peers.transport.session import MESSAGES as SESSION_MESSAGES
from lake.peers.transport.session import Handler, Piece, Session

NOW = 1_800_000_000.0
TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Note(Message):
    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, slots=True)
class Ask(Message):
    """`pieces` answers with `text`, each with `size` bytes."""

    kind: ClassVar[str] = "ask"
    text: str = ""
    pieces: int = 1
    size: int = 0


CODEC = MessageCodec((Hello, Note, Ask, *SESSION_MESSAGES, *RELAY_MESSAGES))


def identity(folder: Path, name: str) -> Identity:
    return Identity(NodeKey(folder / f"{name}.key"))


def network_of(folder: Path, *names: str) -> tuple[list[Identity], list[Roster]]:
    """Return the identities of some nodes, the first the founder, and the roster of each."""
    identities = [identity(folder, name) for name in names]
    first = found_network(identities[0], names[0], NOW)
    for each, name in zip(identities[1:], names[1:], strict=True):
        first.admit(identities[0].key, each.certificate, name, now=NOW)
    return identities, [Roster(first.network, first.statements) for _ in names]


class World:
    """Running nodes, by name; `notes` are the messages that each has received."""

    def __init__(self) -> None:
        self.networks: dict[str, PeerNetwork] = {}
        self.ids: dict[str, str] = {}
        self.rosters: dict[str, Roster] = {}
        self.notes: dict[str, asyncio.Queue[tuple[str, Message]]] = {}
        self.cancelled = asyncio.Event()
        self.sent_pieces = 0

    async def session(self, source: str, target: str) -> Session:
        return await self.networks[source].session(self.ids[target])

    async def connect(self, source: str, target: str) -> None:
        """Open a session that both sides have: the target knows it once it has answered."""
        await (await self.session(source, target)).call(Ask(), timeout_seconds=5)

    async def answer(self, session: Session, ask: Ask, body: bytes) -> AsyncGenerator[Piece, None]:
        try:
            for number in range(ask.pieces):
                yield Ask(f"{ask.text}{number}"), body or bytes(ask.size)
                self.sent_pieces += 1
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled.set()
            raise


@asynccontextmanager
async def world(
    folder: Path,
    *names: str,
    undialable: tuple[str, ...] = (),
    handlers: Mapping[type[Message], Handler] | None = None,
    limits: PeerLimits | None = None,
) -> AsyncIterator[World]:
    """Start the nodes of a network, which know each other's addresses."""
    identities, rosters = network_of(folder, *names)
    made = World()
    async with AsyncExitStack() as stack:
        for name, own, roster in zip(names, identities, rosters, strict=True):
            made.ids[name], made.rosters[name] = own.id, roster
            notes = made.notes[name] = asyncio.Queue()
            greeting = Hello(name, "0.1.0", 1, 1, "2.0.0")
            host = None if name in undialable else "127.0.0.1"
            network = PeerNetwork(
                own,
                roster,
                CODEC,
                {Ask: made.answer, **(handlers or {})},
                partial(_note, notes),
                partial(_same, greeting),
                NetworkOptions(host, 0, limits or PeerLimits()),
            )
            made.networks[name] = await stack.enter_async_context(network)
        for name, network in made.networks.items():
            for other in names:
                port = made.networks[other].port
                if other != name and port:
                    network.set_addresses(made.ids[other], [f"127.0.0.1:{port}"])
        yield made


def _note(notes: asyncio.Queue[tuple[str, Message]], peer: str, message: Message) -> None:
    notes.put_nowait((peer, message))


def _same(greeting: Hello) -> Hello:
    return greeting
