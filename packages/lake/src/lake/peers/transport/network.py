"""The sessions of a node with the members of its network: listened for, dialed, or relayed.

    async with PeerNetwork(…) as network:
        session = await network.session(node_id)

A listener accepts members, whom TLS has verified, and nodes without a certificate, which may only ask to
join. Between two nodes there may be two sessions, if both have dialed at the same time: both stay, and
the one that the node with the lesser id dialed is used.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve

from lake.peers.members.bootstrap import Bootstrap
from lake.peers.members.roster import Roster
from lake.peers.transport.addresses import dialable, network_of
from lake.peers.transport.channel import (
    CLOSE_SECONDS,
    FRAME_BYTES_MAX,
    QUEUED_FRAMES,
    Channel,
    ChannelClosed,
    WebSocketChannel,
    dial,
    peer_of,
)
from lake.peers.transport.hello import BULK, Hello, check_protocol
from lake.peers.transport.identity import Identity
from lake.peers.transport.limits import PeerLimits
from lake.peers.transport.listener import PeerListener
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.relay import Relay, RelayAccept, RelayChannel, RelayOpen, RelayWrite
from lake.peers.transport.session import Handler, Session
from lake.peers.transport.tasks import TaskSet
from lake.peers.transport.traffic import Traffic
from sennit_core.errors import BadInput, Conflict, SennitError, Unavailable
from sennit_core.logs import get_logger
from sennit_core.records import Record
from sennit_core.units import KIB

__all__ = ["Counters", "NetworkOptions", "PeerNetwork"]

_log = get_logger(__name__)

_HELLO_SECONDS = 10.0
_NEAR_SECONDS = 3.0
_REDIAL_SECONDS = (1.0, 60.0)
UNKNOWN_MAX = 32
UNKNOWN_PER_HOST_MAX = 4
_UNKNOWN_SECONDS = 60.0
_UNKNOWN_FRAME_BYTES_MAX = 64 * KIB  # a request to join and an invite, of some KiB each
_ACCEPTED_MAX = 4
_RELAYS_TRIED = 3


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The options of a node's sessions.

    Args:
        host: Address to listen on; None if this node only dials.
        port: Port to listen on; 0 for any free one.
        limits: Of each peer.
        bootstrap: Addresses to try when no member is reached where it was.
    """

    host: str | None = "127.0.0.1"
    port: int = 0
    limits: PeerLimits = field(default_factory=PeerLimits)
    bootstrap: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters(Record):
    """What is open at a node, and what it has refused since it started.

    Args:
        sessions: Open sessions.
        unverified: Open connections that have proved no identity, to the listener.
        refused_connections: Connections that were closed because of the limits.
        refused_messages: Messages and requests of members beyond their limits, or of unknown kinds.
        dropped_messages: Messages to members that waited for too long.
    """

    sessions: int = 0
    unverified: int = 0
    refused_connections: int = 0
    refused_messages: int = 0
    dropped_messages: int = 0


@dataclass(slots=True, eq=False)
class _Peer:
    """What is known of reaching a node. `retry_at` and `wait` delay dialing after a failure."""

    addresses: tuple[str, ...] = ()
    hello: Hello | None = None
    retry_at: float = 0.0
    wait: float = _REDIAL_SECONDS[0]
    # One dial at a time, which outlives the callers that stop to wait for it.
    dialing: asyncio.Task[Session] | None = None
    traffic: Traffic = field(default_factory=Traffic)


class _Accepted(ServerConnection):
    """A connection that was accepted; one without a certificate may only send small frames."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the limit: TLS is established, and no frame was read."""
        super().connection_made(transport)
        if not peer_of(self):
            self.protocol.max_message_size = _UNKNOWN_FRAME_BYTES_MAX


class PeerNetwork:
    """The sessions of one node; use it in one event loop.

    Args:
        identity: The node's own.
        roster: The members; `update_members` after a change.
        codec: Of all messages.
        handlers: Answer the requests of members, by the class of the message.
        on_message: Called with each message of a member that needs no answer.
        hello: Returns what this node says of itself.
        options: Where it listens, and its limits.
        on_session: Called with the node of each new session.
        join: Answers requests of nodes that are no members, by the class of the message.
        on_stream: Serves a connection that begins a bulk stream, as `BulkServer.accept`.
    """

    def __init__(  # noqa: PLR0913 - the parts of a network
        self,
        identity: Identity,
        roster: Roster,
        codec: MessageCodec,
        handlers: Mapping[type[Message], Handler],
        on_message: Callable[[str, Message], None],
        hello: Callable[[], Hello],
        options: NetworkOptions,
        *,
        on_session: Callable[[str], None] = lambda _node: None,
        join: Mapping[type[Message], Handler] | None = None,
        on_stream: Callable[[socket.socket, ssl.SSLContext, Callable[[], None]], None]
        | None = None,
    ) -> None:
        self._on_stream = on_stream
        self._identity = identity
        self._roster = roster
        self._codec = codec
        self._on_message = on_message
        self._hello = hello
        self._options = options
        self._join = join or {}
        self._on_session = on_session
        self._refused_messages = 0  # by sessions that have ended
        self._context = identity.server_context(roster.certificates())
        self._trusted = set(roster.certificates())
        self._listener: PeerListener | None = None
        self._server: Server | None = None
        self._peers: dict[str, _Peer] = {}
        self._sessions: dict[str, list[Session]] = {}
        # Connections without a certificate, the oldest first, with the host of each.
        self._unknown: dict[WebSocketChannel, str] = {}
        self._dials = TaskSet("dialing nodes")
        self._bootstrap = Bootstrap(identity, roster, self._options.bootstrap)
        self._tasks = TaskSet("sessions of the network")
        self.relay = Relay(
            identity, self.open_session, roster.is_member, roster.certificates, self._accept_relayed
        )
        self._handlers: dict[type[Message], Handler] = {
            **handlers,
            RelayOpen: self.relay.serve_open,
            RelayAccept: self.relay.serve_accept,
            RelayWrite: self.relay.serve_write,
        }

    async def __aenter__(self) -> Self:
        if self._options.host is not None:
            try:
                self._listener = PeerListener(
                    self._options.host, self._options.port, self._accept_stream, _HELLO_SECONDS
                )
            except OSError as error:
                where = f"{self._options.host}:{self._options.port}"
                raise Conflict(
                    f"cannot listen for peers on {where}: {error.strerror}",
                    hint="set network.peer_port",
                ) from error
            self._server = await serve(
                self._accept,
                sock=self._listener,
                ssl=self._context,
                compression=None,
                max_size=FRAME_BYTES_MAX,
                max_queue=QUEUED_FRAMES,
                open_timeout=_HELLO_SECONDS,
                close_timeout=CLOSE_SECONDS,
                server_header=None,
                create_connection=_Accepted,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What may become a session ends first.
        if self._server is not None:
            self._server.close()
        await self._dials.end()
        # Together, as each may wait for a node that does not answer.
        closing = [session.close("the node is stopping") for session in self._all_sessions()]
        await asyncio.gather(*closing, return_exceptions=True)
        if self._server is not None and self._listener is not None:
            await self._listener.end_unverified()
            await self._server.wait_closed()
        await self._tasks.end()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 if it does not."""
        return 0 if self._listener is None or self._server is None else self._listener.port

    @property
    def host(self) -> str:
        """The IP address that it listens on; "" if it does not."""
        return "" if self._listener is None else self._listener.host

    def counters(self) -> Counters:
        """Return what is open, and what was refused since the start."""
        listener, sessions = self._listener, self._all_sessions()
        return Counters(
            sum(each.is_open for each in sessions),
            0 if listener is None else listener.unverified,
            0 if listener is None else listener.refused,
            self._refused_messages + sum(each.refused_messages for each in sessions),
        )

    @property
    def peers(self) -> Mapping[str, Hello]:
        """What each node with an open session has said of itself, by id."""
        return {
            node: peer.hello
            for node, peer in self._peers.items()
            if peer.hello is not None and self.open_session(node) is not None
        }

    def greeting(self, node: str) -> Hello | None:
        """Return what a node with an open session has said of itself; None if there is no session."""
        peer = self._peers.get(node)
        return None if peer is None or self.open_session(node) is None else peer.hello

    def traffic(self, node: str) -> Traffic:
        """Return what was exchanged with a node."""
        return self._peer(node).traffic

    def set_addresses(self, node: str, addresses: Sequence[str]) -> None:
        """Note where a node listens, as it has announced."""
        peer = self._peer(node)
        if tuple(addresses) != peer.addresses:
            peer.addresses = tuple(addresses)
            peer.retry_at = 0.0

    def update_members(self, proofs: Mapping[str, Message] | None = None) -> None:
        """Accept members that were admitted, and close the sessions of those that were revoked.

        Args:
            proofs: The last message to each node that was revoked, so that it knows that too.
        """
        for certificate in set(self._roster.certificates()) - self._trusted:
            self._context.load_verify_locations(cadata=certificate)
            self._trusted.add(certificate)
        for session in self._all_sessions():
            if not self._roster.is_member(session.peer):
                last = (proofs or {}).get(session.peer)
                self._tasks.spawn(session.close("the node was revoked", last))

    def open_session(self, node: str) -> Session | None:
        """Return an open session with a node; None if there is none."""
        found = [each for each in self._sessions.get(node, ()) if each.is_open]
        preferred = [each for each in found if each.dialed == (self._identity.id < node)]
        return next(iter(preferred or found), None)

    async def session(self, node: str) -> Session:
        """Return a session with a member; dials it, or asks others to relay.

        Raises:
            Unavailable: The node cannot be reached.
        """
        if not self._roster.is_member(node):
            raise Unavailable(f"node {node[:16]}", hint="it is no member of the network")
        found = self.open_session(node)
        if found is not None:
            return found
        peer = self._peer(node)
        dialing = peer.dialing
        if dialing is None or dialing.done():
            if _now() < peer.retry_at:
                raise Unavailable(f"node {node[:16]}", hint="it could not be reached just before")
            dialing = peer.dialing = self._dials.spawn(self._dial(node, peer))
        # Who waits has a deadline of its own; the next one then finds the dial, or its end.
        return await asyncio.shield(dialing)

    async def _dial(self, node: str, peer: _Peer) -> Session:
        try:
            channel = await self._reach(node, peer)
            session = await self._start(channel, dialed=True)
        except SennitError:
            # Counted from the end of the dial, which may have waited for longer than the pause is.
            # Random, so that all nodes do not come back to one at the same time.
            peer.retry_at = _now() + peer.wait * random.uniform(0.5, 1.0)
            peer.wait = min(peer.wait * 2, _REDIAL_SECONDS[1])
            raise
        peer.wait = _REDIAL_SECONDS[0]
        return session

    async def _reach(self, node: str, peer: _Peer) -> Channel:
        """Return a channel to a node: direct if possible, else through another member."""
        problem: SennitError | None = None
        for address in dialable(peer.addresses, from_loopback=self._is_local):
            try:
                return await dial(self._identity, node, address)
            except SennitError as error:
                problem = error
        found = await self._bootstrap.reach(
            node, lambda: not self._sessions, partial(self._start, dialed=True)
        )
        if found is not None:
            return found
        others = [each for each in self._sessions if each != node and self.open_session(each)]
        for other in random.sample(others, min(_RELAYS_TRIED, len(others))):
            session = self.open_session(other)
            if session is None:
                continue
            try:
                return await self.relay.open(session, node)
            except SennitError as error:
                problem = problem or error
        hint = None if problem is None else str(problem)
        raise Unavailable(f"node {node[:16]}", hint=hint or "it announces no address to dial")

    def stream_addresses(self, node: str) -> list[str]:
        """Return where a bulk stream to a node may be dialed; none without a direct session."""
        session, peer = self.open_session(node), self._peer(node)
        if session is None or session.channel.relay:
            return []
        if peer.hello is None or BULK not in peer.hello.features:
            return []
        return dialable(peer.addresses, from_loopback=self._is_local)

    async def try_address(self, node: str, address: str) -> None:
        """Connect to a node at an address, and end the connection.

        Raises:
            Unavailable: Nothing answers there, or this node dials no such address.
            Denied: Another node answers there.
        """
        await (await self._dial_at(node, address)).close()

    async def connect(self, node: str, address: str) -> None:
        """Start a session with a member at an address that was announced on the local network.

        Raises:
            Unavailable: Nothing answers there within some seconds.
            Denied: Another node answers there.
        """
        try:
            async with asyncio.timeout(_NEAR_SECONDS):
                channel = await self._dial_at(node, address)
        except TimeoutError:
            raise Unavailable(f"node {node[:16]} at {address}") from None
        await self._start(channel, dialed=True)

    async def _dial_at(self, node: str, address: str) -> Channel:
        if not dialable((address,), from_loopback=self._is_local):
            raise Unavailable(f"node {node[:16]} at {address}", hint="others dial no such address")
        return await dial(self._identity, node, address)

    @property
    def _is_local(self) -> bool:
        host = self._options.host
        return host is None or host in ("127.0.0.1", "::1", "localhost")

    async def _start(self, channel: Channel, *, dialed: bool) -> Session:
        """Exchange greetings over a channel, and run its session."""
        own = self._hello()
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                await channel.send(self._codec.encode(own))
                message, _, _ = self._codec.decode(await channel.receive())
            if not isinstance(message, Hello):
                raise BadInput("the first message of a peer", reason="it is no greeting")
            check_protocol(own, message)
        except TimeoutError:
            await channel.close("no greeting")
            raise Unavailable(f"node {channel.peer[:16]}", hint="it did not greet") from None
        except SennitError as error:
            await channel.close(str(error))
            raise
        except BaseException:
            channel.abort()  # the node is stopping
            raise
        session = Session(
            channel, self._codec, self._handlers, self._on_message,
            limits=self._options.limits, dialed=dialed,
        )  # fmt: skip
        if not dialed:
            # A member needs one, or two after a lost connection; each of more would cost memory.
            accepted = [each for each in self._sessions.get(channel.peer, ()) if not each.dialed]
            for older in accepted[: 1 - _ACCEPTED_MAX]:
                await older.close("the node has connected again")
        peer = self._peer(channel.peer)
        peer.hello = message
        session.traffic = peer.traffic
        if message.addresses:
            self.set_addresses(channel.peer, message.addresses)
        self._sessions.setdefault(channel.peer, []).append(session)
        self._spawn(session)
        self._on_session(channel.peer)
        return session

    def _spawn(self, session: Session) -> None:
        async def run() -> None:
            try:
                await session.run()
            finally:
                self._refused_messages += session.refused_messages
                remaining = self._sessions.get(session.peer, [])
                if session in remaining:
                    remaining.remove(session)
                if not remaining:
                    self._sessions.pop(session.peer, None)

        self._tasks.spawn(run())

    def _accept_stream(self, connection: socket.socket, verified: Callable[[], None]) -> None:
        if self._on_stream is None:
            connection.close()
            verified()
        else:
            self._on_stream(connection, self._context, verified)

    async def _accept(self, connection: ServerConnection) -> None:
        peer = peer_of(connection)
        channel = WebSocketChannel(connection, peer)
        if not peer:
            await self._serve_unknown(channel)
            return
        # TLS accepts the certificate of a member that was revoked since the start.
        if not self._roster.is_member(peer):
            await channel.close("the node was revoked")
            return
        assert self._listener is not None, "it has accepted the connection"
        self._listener.verified(connection.remote_address)
        with suppress(SennitError):
            await self._start(channel, dialed=False)
            await connection.wait_closed()

    async def _serve_unknown(self, channel: WebSocketChannel) -> None:
        """Let a node that is no member ask to join, and nothing else."""
        self._make_room_for(network_of(channel.host))
        self._unknown[channel] = network_of(channel.host)
        try:
            session = Session(
                channel, self._codec, self._join, lambda _peer, _message: None,
                limits=PeerLimits(messages_per_second=1, messages_burst=10, requests_max=2),
                dialed=False,
            )  # fmt: skip
            async with asyncio.timeout(_UNKNOWN_SECONDS):
                await session.run()
        except TimeoutError:
            await channel.close("it was too slow to join")
        finally:
            self._unknown.pop(channel, None)

    def _make_room_for(self, host: str) -> None:
        """Close the oldest connection of a host if it has many, or of the one with the most.

        A request takes a fraction of a second, so one that is newer than others is made in time however
        many connections somebody keeps open.
        """
        counts = Counter(self._unknown.values())
        if counts[host] < UNKNOWN_PER_HOST_MAX:
            if len(self._unknown) < UNKNOWN_MAX:
                return
            host = counts.most_common(1)[0][0]
        oldest = next(each for each, its in self._unknown.items() if its == host)
        del self._unknown[oldest]
        self._tasks.spawn(oldest.close("others ask to join"))

    def _accept_relayed(self, channel: RelayChannel) -> None:
        async def start() -> None:
            with suppress(SennitError, ChannelClosed):
                await self._start(channel, dialed=False)

        self._tasks.spawn(start())

    def _peer(self, node: str) -> _Peer:
        return self._peers.setdefault(node, _Peer())

    def _all_sessions(self) -> list[Session]:
        return [each for sessions in self._sessions.values() for each in sessions]


def _now() -> float:
    return asyncio.get_running_loop().time()
