"""A node's part in its network: one thread that runs the protocols over real connections.

    with PeerService(identity, tree, options) as peers:
        text = peers.invite()                 # founds a network, if there is none

The machines (`membership`, `publications`, …) run in the event loop of that thread and nowhere else, so
they need no locks. They return effects, which are performed in order: what must be durable before a
message leaves is durable. Methods of `PeerService` may be called by any thread.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lake.peers import joining, membership, publications, relay, roster, session
from lake.peers.addresses import parse_address
from lake.peers.channel import dial
from lake.peers.hello import FEATURES, PROTOCOL, PROTOCOL_MIN, Hello
from lake.peers.identity import Identity
from lake.peers.invites import INVITE_SECONDS, Invite, JoinRequest
from lake.peers.joining import Host, Join, Waiting, WaitingToJoin, Welcome
from lake.peers.limits import PeerLimits
from lake.peers.machine import TICK_SECONDS, Effect, Send
from lake.peers.membership import Membership, MembershipOptions, PeerChanged
from lake.peers.messages import Message, MessageCodec
from lake.peers.network import NetworkOptions, PeerNetwork
from lake.peers.publications import (
    LogForked,
    Publications,
    Published,
    StatementEntrySigner,
    StoreLog,
)
from lake.peers.roster import (
    ROSTER_PART,
    Member,
    Roster,
    RosterNews,
    check_node_name,
    found_network,
)
from lake.peers.session import Handler, Session
from lake.peers.statuses import NodeStatus, StatementSigner
from lake.peers.store import PeerStore
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Closed, Conflict, Denied, SennitError, Unavailable
from sennit_core.logs import get_logger
from sennit_core.records import NodeInfo

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["NodeState", "PeerOptions", "PeerService"]

_log = get_logger(__name__)
T = TypeVar("T")

_CALL_SECONDS = 30.0
_JOIN_SECONDS = 20.0
_JOIN_POLL_SECONDS = 2.0
_SAVE_SECONDS = 30.0
_WELCOMED = 16


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How a node takes part in a network.

    Args:
        name: What it is called.
        host: Address to listen on; None to dial only, as behind a NAT.
        port: Port to listen on; 0 for any free one.
        announce: Addresses under which others reach it; empty for the one that it listens on.
        zone: The failure domain that it is in.
        capacity: Bytes that it offers for copies.
        limits: Of each peer.
        membership: Times of the membership protocol.
    """

    name: str
    host: str | None = "127.0.0.1"
    port: int = 0
    announce: tuple[str, ...] = ()
    zone: str = ""
    capacity: int = 0
    limits: PeerLimits = field(default_factory=PeerLimits)
    membership: MembershipOptions = field(default_factory=MembershipOptions)


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node of the network, as this one sees it.

    Args:
        member: Who it is.
        state: `alive`, `suspect`, `dead`, `leaving`, `left`, or `unknown` before it was heard of.
        status: What it said last; None if nothing.
        rtt_seconds: Of a round trip; None if it was not measured.
        cannot: What this node and that one cannot do together.
    """

    member: Member
    state: str
    status: NodeStatus | None
    rtt_seconds: float | None = None
    cannot: tuple[str, ...] = ()


class PeerService:
    """A node's part in its network; a context manager.

    Args:
        identity: The node's own.
        tree: The namespace `sys`.
        options: How it takes part.
        duckdb: The version of this node's DuckDB.
        handlers: Answer further requests of members, by the class of the message.
        messages: The messages of these handlers, and what they answer.
        on_published: Called in the service's thread with what other nodes publish.
        clock: Source of time.
    """

    def __init__(  # noqa: PLR0913 - independent parts, most by keyword
        self,
        identity: Identity,
        tree: ElkynStore,
        options: PeerOptions,
        *,
        duckdb: str = "",
        handlers: Mapping[type[Message], Handler] | None = None,
        messages: Sequence[type[Message]] = (),
        on_published: Callable[[Published], object] = lambda published: None,
        clock: Clock = SYSTEM,
    ) -> None:
        check_node_name(options.name)
        self.identity = identity
        self.options = options
        self._duckdb = duckdb
        self._store = PeerStore(tree)
        self._clock = clock
        self._handlers = dict(handlers or {})
        self._on_published = on_published
        self._codec = MessageCodec(
            (
                Hello, *session.MESSAGES, *relay.MESSAGES, *joining.MESSAGES,
                *membership.MESSAGES, *publications.MESSAGES, *roster.MESSAGES, *messages,
            )
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="lake-peers", daemon=True)
        # Set while the node is in a network; changed in the loop only.
        self._network: _Network | None = None
        self._closed = False

    # Life

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._open_stored())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the network's connections and stop; the membership stays."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            self._submit(self._close_network()).result(_CALL_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open_stored(self) -> None:
        roster = self._store.load_roster()
        if roster is not None:
            await self._open_network(roster)

    async def _open_network(self, roster: Roster) -> None:
        network = _Network(self, roster)
        await network.start()
        self._network = network

    async def _close_network(self) -> None:
        network, self._network = self._network, None
        if network is not None:
            await network.stop()

    # Calls of other threads

    @property
    def is_in_network(self) -> bool:
        """Whether this node belongs to a network."""
        return self._network is not None

    @property
    def port(self) -> int:
        """The port that it listens on; 0 if it does not."""
        return self._network.sessions.port if self._network is not None else 0

    def invite(self, *, seconds: float = INVITE_SECONDS, admin: bool = False) -> str:
        """Return an invite for one node; found a network if this node is in none.

        Args:
            seconds: For how long it can be used.
            admin: Whether the new node may admit and revoke others.

        Raises:
            Denied: This node may not admit others.
        """
        return self._call(self._invite(seconds, admin))

    def join(self, invite: str) -> None:
        """Join the network that an invite is of.

        Raises:
            BadInput: It is not an invite.
            Conflict: This node is in a network.
            Denied: The invite was used, or has expired.
            Unavailable: The inviting node cannot be reached.
        """
        self._call(self._join(Invite.parse(invite, self._clock.now())))

    def ask_to_join(self, address: str, node: str, *, wait_seconds: float) -> None:
        """Ask a node to be admitted, and wait until somebody accepts this node there.

        Args:
            address: Where it listens.
            node: Its id, which its owner reads out.
            wait_seconds: How long to wait.

        Raises:
            WaitingToJoin: Nobody has accepted this node in time.
        """
        parse_address(address)
        self._call(self._ask_to_join(address, node, wait_seconds), wait_seconds + _CALL_SECONDS)

    def waiting(self) -> list[Waiting]:
        """Return the nodes that wait to be accepted here."""
        network = self._network
        return [] if network is None else self._call(_now(lambda: network.host.waiting))

    def accept(self, fingerprint: str) -> Member:
        """Admit a node that waits; raises as `joining.Host.accept`."""
        network = self._required()
        return self._call(network.change_roster(lambda: network.host.accept(fingerprint)))

    def revoke(self, id_or_name: str) -> Member:
        """Remove a node from the network for ever.

        Raises:
            NotFound: There is no such member.
            Denied: This node may not revoke it.
        """
        network = self._required()

        def revoke() -> Member:
            member = network.roster.find(id_or_name)
            network.roster.revoke(self.identity.key, member.id, now=self._clock.now())
            network.members.forget(member.id)
            return member

        return self._call(network.change_roster(revoke))

    def leave(self) -> None:
        """Leave the network: announce it, close all connections, forget the roster."""
        self._required()
        self._call(self._leave())

    def nodes(self) -> list[NodeState]:
        """Return all members, this node first."""
        network = self._network
        return [] if network is None else self._call(_now(network.states))

    def publish(self, dataset: str, item: Mapping[str, Any] | None, audience: str) -> None:
        """Publish a dataset, or withdraw it; see `Publications.publish`."""
        network = self._required()
        self._call(network.publish(dataset, item, audience))

    def _required(self) -> _Network:
        if self._network is None:
            raise Conflict(
                "this node is in no network",
                hint="`platform net invite` founds one, net join joins",
            )
        return self._network

    def _call(self, work: Coroutine[Any, Any, T], seconds: float = _CALL_SECONDS) -> T:
        """Run a coroutine in the loop, and wait for it."""
        return self._submit(work).result(seconds + _JOIN_SECONDS)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if not self._thread.is_alive():
            work.close()
            raise Closed("the node's part in the network")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # In the loop

    async def _invite(self, seconds: float, admin: bool) -> str:
        if self._network is None:
            roster = found_network(self.identity, self.options.name, self._clock.now())
            self._store.save_roster(roster)
            await self._open_network(roster)
        network = self._required()
        if not network.roster.is_admin(self.identity.id):
            raise Denied("inviting a node", needed="an admin of the network")
        addresses = network.addresses()
        if not addresses:
            raise Unavailable("this node", hint="set network.peer_host: it listens on no address")
        invite = Invite.make(
            self.identity.key, network.roster.network, addresses,
            now=self._clock.now(), seconds=seconds, admin=admin,
        )  # fmt: skip
        return invite.text

    async def _join(self, invite: Invite) -> None:
        problem: SennitError = Unavailable(f"node {invite.node[:16]}")
        for address in invite.addresses:
            try:
                await self._join_at(address, invite.node, invite)
            except Unavailable as error:
                problem = error
            else:
                return
        raise problem

    async def _ask_to_join(self, address: str, node: str, wait_seconds: float) -> None:
        end = self._loop.time() + wait_seconds
        while True:
            try:
                await self._join_at(address, node, None)
            except WaitingToJoin:
                if self._loop.time() >= end:
                    raise
                await asyncio.sleep(_JOIN_POLL_SECONDS)
            else:
                return

    async def _join_at(self, address: str, node: str, invite: Invite | None) -> None:
        if self._network is not None:
            raise Conflict("this node is in a network", hint="leave it first: platform net leave")
        channel = await dial(self.identity, node, address, anonymous=True)
        talk = Session(
            channel, self._codec, {}, lambda _peer, _message: None,
            limits=self.options.limits, dialed=True,
        )  # fmt: skip
        reading = asyncio.create_task(talk.run())
        try:
            request = JoinRequest.make(
                self.identity, self.options.name, node, now=self._clock.now(), invite=invite
            )
            join = Join(request.statement, None if invite is None else invite.statement)
            welcome, _ = await talk.call(join, timeout_seconds=_JOIN_SECONDS)
        finally:
            await talk.close()
            await asyncio.wait((reading,))
        if not isinstance(welcome, Welcome):
            raise Denied("joining: the answer is no welcome")
        roster = Roster(welcome.network, welcome.roster)
        if invite is not None and invite.network != roster.network:
            raise Denied("joining: the answer is of another network")
        if not (roster.is_member(self.identity.id) and roster.is_member(node)):
            raise Denied("joining: the answer's roster has not both nodes")
        self._store.save_roster(roster)
        self._store.save_known({str(each.body.get("node")): each for each in welcome.statuses})
        await self._open_network(roster)

    async def _leave(self) -> None:
        network = self._required()
        await network.announce_leaving()
        await self._close_network()
        self._store.forget_network()


class _Network:
    """The machines and sessions of a node that is in a network; lives in the service's loop."""

    def __init__(self, service: PeerService, roster: Roster) -> None:
        self._service = service
        self._store = service._store  # noqa: SLF001 - two halves of one object
        self._clock = service._clock  # noqa: SLF001
        self._codec = service._codec  # noqa: SLF001
        self._on_published = service._on_published  # noqa: SLF001
        self.roster = roster
        identity, options = service.identity, service.options
        self.host = Host(identity.key, roster, self._store.redeem, self._clock.now)
        self.sessions = PeerNetwork(
            identity, roster, self._codec, service._handlers, self._receive,  # noqa: SLF001
            self._hello, NetworkOptions(options.host, options.port, options.limits),
            join={Join: self._serve_join},
        )  # fmt: skip
        number = self._store.next_number(int(self._clock.now() * 1000))
        chance = random.Random()
        self.members = Membership(
            NodeStatus(
                identity.id, number, zone=options.zone, version=version("sennit-lake"),
                duckdb=service._duckdb, features=FEATURES, capacity=options.capacity,  # noqa: SLF001
            ),
            StatementSigner(identity.key), roster.is_member, chance, options.membership,
            now=self._now(), wall=self._clock.now,
        )  # fmt: skip
        self.logs = Publications(
            identity.id, StatementEntrySigner(identity.key), roster.is_member, chance,
            logs=self._store.load_logs(), wall=self._clock.now,
        )  # fmt: skip
        # Effects wait here in their order, as some take time.
        self._effects: asyncio.Queue[Effect] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._saved_at = 0.0

    async def start(self) -> None:
        """Listen, and start the machines."""
        await self.sessions.__aenter__()
        for status in self._store.known_nodes():
            self.members.add(status)
        addresses = self.addresses()
        self._put(self.members.update(self._now(), addresses=tuple(addresses)))
        self._spawn(self._perform_all())
        self._spawn(self._tick_forever())

    async def stop(self) -> None:
        """Stop the machines, and close all sessions."""
        self._save_known()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sessions.__aexit__(None, None, None)

    def addresses(self) -> list[str]:
        """Return where others reach this node."""
        options = self._service.options
        if options.announce:
            return list(options.announce)
        if options.host is None:
            return []
        host = f"[{options.host}]" if ":" in options.host else options.host
        return [f"{host}:{self.sessions.port}"]

    def states(self) -> list[NodeState]:
        """Return all members, this node first."""
        own = self._service.identity.id
        found = []
        for node, member in self.roster.members.items():
            if member.revoked:
                continue
            if node == own:
                found.append(NodeState(member, self.members.own.state, self.members.own))
                continue
            peer = self.members.peers.get(node)
            if peer is None:
                found.append(NodeState(member, "unknown", None))
            else:
                cannot = self._cannot(peer.status)
                found.append(NodeState(member, peer.state, peer.status, peer.rtt, cannot))
        return sorted(found, key=lambda each: (each.member.id != own, each.member.name))

    def _cannot(self, status: NodeStatus) -> tuple[str, ...]:
        lacking = tuple(each for each in FEATURES if each not in status.features)
        own = self.members.own.duckdb
        return (*lacking, "aggregate-states") if own != status.duckdb else lacking

    async def publish(self, dataset: str, item: Mapping[str, Any] | None, audience: str) -> None:
        """Publish a dataset in one of this node's logs."""
        self._put(self.logs.publish(dataset, item, audience, self.members.alive()))

    async def change_roster(self, change: Callable[[], T]) -> T:
        """Change the roster, make that durable, and send it to the other nodes."""
        before = {each.digest for each in self.roster.statements}
        result = change()
        self._store.save_roster(self.roster)
        await self.sessions.update_members()
        new = [each for each in self.roster.statements if each.digest not in before]
        self._spread_roster(new, without="")
        return result

    async def announce_leaving(self) -> None:
        """Let others know that this node has left, as far as they can be reached."""
        for effect in self.members.leave(self._now(), "left"):
            if isinstance(effect, Send):
                with suppress(SennitError):
                    await self._send(effect)

    # Time and messages

    async def _tick_forever(self) -> None:
        while True:
            now = self._now()
            self._put(self.members.tick(now))
            self._put(self.logs.tick(now, self.members.alive()))
            if now - self._saved_at > _SAVE_SECONDS:
                self._saved_at = now
                self._save_known()
                self._spread_roster(self.roster.statements, without="", everyone=False)
            await asyncio.sleep(TICK_SECONDS)

    def _receive(self, peer: str, message: Message) -> None:
        try:
            if isinstance(message, RosterNews):
                self._merge_roster(peer, message)
            elif isinstance(message, membership.MESSAGES):
                self._put(self.members.receive(peer, message, self._now()))
            elif isinstance(message, publications.MESSAGES):
                self._put(self.logs.receive(peer, message, self.members.alive()))
        except SennitError as error:
            _log.warning("ignoring a message of node %s: %s", peer[:16], error)

    def _put(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._effects.put_nowait(effect)

    async def _perform_all(self) -> None:
        while True:
            effect = await self._effects.get()
            try:
                await self._perform(effect)
            except SennitError as error:
                # A full disk, for example. The machines repeat what did not arrive.
                _log.error("the network: %s", error)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._spawn(self._send(effect))
            case PeerChanged(node):
                self._note_node(node)
            case StoreLog():
                await asyncio.to_thread(self._store.store_log, effect)
            case Published():
                self._on_published(effect)
            case LogForked(key, number):
                _log.warning(
                    "node %s has published two entries %d: it was restored from a backup, or its key "
                    "is used twice", key.publisher[:16], number,
                )  # fmt: skip
            case _:
                raise AssertionError(f"nothing performs {effect}")

    async def _send(self, effect: Send) -> None:
        with suppress(SennitError):
            found = await self.sessions.session(effect.peer)
            await found.send(effect.message)

    def _note_node(self, node: str) -> None:
        peer = self.members.peers.get(node)
        if peer is not None:
            self.sessions.set_addresses(node, peer.status.addresses)
        status = self.members.own if peer is None else peer.status
        state = status.state if peer is None else peer.state
        row = NodeInfo(
            node, status.addresses, status.zone or None, status.capacity, status.used, state,
            self._clock.now(),
        )  # fmt: skip
        self._store.nodes.put(node, row, ephemeral=True)

    def _save_known(self) -> None:
        known = {node: peer.statement for node, peer in self.members.peers.items()}
        try:
            self._store.save_known(known)
        except SennitError as error:
            _log.warning("the nodes of the network were not stored: %s", error)

    # Members

    def _spread_roster(
        self, statements: Sequence[Any], *, without: str, everyone: bool = True
    ) -> None:
        """Send statements of the roster to all nodes, or to one, which then has what it missed."""
        others = [node for node in self.members.alive() if node != without]
        if not everyone and others:
            others = [random.choice(others)]
        for start in range(0, len(statements), ROSTER_PART):
            part = RosterNews(tuple(statements[start : start + ROSTER_PART]))
            self._put(Send(node, part) for node in others)

    def _merge_roster(self, peer: str, message: RosterNews) -> None:
        new = self.roster.merge(message.statements)
        if new:
            self._store.save_roster(self.roster)
            self._spawn(self.sessions.update_members())
            self._spread_roster(new, without=peer)

    async def _serve_join(
        self, _session: Session, message: Join, _body: bytes
    ) -> tuple[Message, bytes]:
        await self.change_roster(lambda: self.host.admit(message))
        statuses = tuple(self.members.statements()[:_WELCOMED])
        return Welcome(self.roster.network, self.roster.statements, statuses), b""

    def _hello(self) -> Hello:
        own = self.members.own
        return Hello(
            self._service.options.name, own.version, PROTOCOL, PROTOCOL_MIN, own.duckdb,
            own.features, own.addresses,
        )  # fmt: skip

    def _now(self) -> float:
        return self._clock.monotonic()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _now(compute: Callable[[], T]) -> T:
    """Compute something in the loop's thread."""
    return compute()
