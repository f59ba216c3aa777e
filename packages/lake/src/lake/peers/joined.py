"""The machines and sessions of a node that is in a network, and what they lead to.

Effects of the logs are performed one after the other, so that an entry is durable before it is sent. Those
of the membership protocol store nothing, and wait for no disk: a late heartbeat is a suspicion.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TypeVar

from lake.peers.changes.changes import Changes
from lake.peers.changes.claims import Claims
from lake.peers.changes.deliveries import Deliveries
from lake.peers.changes.forwarding import ChangeKnown, ChangeRequest
from lake.peers.changes.returned_rows import ReturnedRequest
from lake.peers.copies.chunks import ChunkRequest, ListRequest
from lake.peers.copies.have_messages import HaveRequest
from lake.peers.copies.repairs import RepairRequest
from lake.peers.data import DataParts
from lake.peers.exchange import Exchange
from lake.peers.handovers.messages import HandOverRefusal, HandOverRequest
from lake.peers.members import membership
from lake.peers.members.announcements import Listening, network_tag
from lake.peers.members.discovery import LocalDiscovery
from lake.peers.members.health import NodeState
from lake.peers.members.hints import follow_hints
from lake.peers.members.joining import Host, Join, Welcome, digits_of
from lake.peers.members.membership import Membership, MembershipOptions, PeerChanged
from lake.peers.members.node_states import node_states
from lake.peers.members.reports import ReportRequest, Reports
from lake.peers.members.roster import Member, Roster, RosterHead, RosterNews
from lake.peers.members.roster_exchange import RosterChanged, RosterExchange
from lake.peers.members.statuses import NodeStatus, StatementSigner
from lake.peers.members.store import PeerStore
from lake.peers.queries.fragments import FragmentRequest
from lake.peers.queries.restricted_server import RestrictedServer
from lake.peers.sharing import publications
from lake.peers.sharing.publications import (
    LogForked,
    Publications,
    Published,
    StatementEntrySigner,
    StoreLog,
)
from lake.peers.transport.addresses import network_of, reachable_host
from lake.peers.transport.bulk_client import BulkClient
from lake.peers.transport.bulk_server import BulkServer
from lake.peers.transport.effect_queue import EffectQueue
from lake.peers.transport.hello import FEATURES, PROTOCOL, PROTOCOL_MIN, TASKS, Hello
from lake.peers.transport.identity import Identity
from lake.peers.transport.limits import PeerLimits
from lake.peers.transport.machine import TICK_SECONDS, Call, Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.network import Counters, NetworkOptions, PeerNetwork
from lake.peers.transport.outbox import Outbox
from lake.peers.transport.session import Handler, Piece, Session
from lake.peers.transport.signed import Statement
from lake.peers.transport.tasks import TaskSet
from lake.peers.transport.traffic import Traffic
from sennit_core.clock import Clock
from sennit_core.errors import DeadlineExceeded, NotFound, SennitError, WaitingToJoin
from sennit_core.logs import get_logger
from sennit_core.records import NodeInfo
from sennit_core.units import GIB

__all__ = ["JoinedNetwork", "NodeParts", "NodeState", "PeerOptions"]

_log = get_logger(__name__)
T = TypeVar("T")

_SAVE_SECONDS = 30.0
_DESCRIBE_SECONDS = 60.0
_WELCOMED = 16
_ACCEPT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """The options of a node in a network.

    Args:
        name: What it is called.
        host: Address to listen on; None to dial only, as behind a NAT.
        port: Port to listen on; 0 for any free one.
        announce: Addresses under which others reach it; empty for the one that it listens on.
        bootstrap: Addresses of members to try when none is reached where it was.
        discovery: Whether it is announced, and searches for others, on the local network.
        zone: The failure domain that it is in.
        capacity: Bytes that it offers for copies.
        replication: How many nodes hold each shard of a dataset that is shared without a number.
        query_bytes: What other nodes may send for one query of this one; 0 for no limit.
        limits: Of each peer.
        membership: Times of the membership protocol.
    """

    name: str
    host: str | None = "127.0.0.1"
    port: int = 0
    announce: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()
    discovery: bool = False
    zone: str = ""
    capacity: int = 0
    replication: int = 1
    query_bytes: int = 16 * GIB
    limits: PeerLimits = field(default_factory=PeerLimits)
    membership: MembershipOptions = field(default_factory=MembershipOptions)


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node brings into a network; members as the arguments of `PeerService`."""

    identity: Identity
    options: PeerOptions
    store: PeerStore
    codec: MessageCodec
    duckdb: str
    clock: Clock
    data: DataParts | None = None
    discovery: LocalDiscovery | None = None


class JoinedNetwork:
    """The machines and sessions of a node that is in a network; used in one event loop.

    Args:
        parts: The node.
        roster: The members.
    """

    def __init__(self, parts: NodeParts, roster: Roster) -> None:
        self._parts = parts
        identity, options = parts.identity, parts.options
        self._store, self._clock = parts.store, parts.clock
        self.roster = roster
        self.exchange: Exchange | None = None
        self.changes: Changes | None = None
        self._deliveries: Deliveries | None = None
        self.bulk_server: BulkServer | None = None
        if (data := parts.data) is not None:
            self.exchange = Exchange(identity.id, self, data)
            self.changes = Changes(self, self.exchange, data.writer, data.queued, self._clock)
            self._deliveries = Deliveries(self, self.changes, data.queued)
            self.bulk_server = BulkServer(
                parts.codec, roster.is_member, self.exchange.chunks, self._traffic
            )
        self.claims = Claims(identity.key, roster.network)
        self.host = Host(identity.key, roster, self._store.redeem, self._clock.now)
        self.reports = Reports(self)
        self.sessions = PeerNetwork(
            identity, roster, parts.codec, self._handlers(), self._receive, self._hello,
            NetworkOptions(options.host, options.port, options.limits, options.bootstrap),
            on_session=self._greet, join={Join: self._serve_join},
            on_stream=None if self.bulk_server is None else self.bulk_server.accept,
        )  # fmt: skip
        self.bulk_client = BulkClient(
            identity, parts.codec, self.sessions.stream_addresses, self.sessions.traffic
        )
        # Milliseconds, so that it is greater after a restart even if what was stored is lost.
        number = self._store.next_number(int(self._clock.now() * 1000))
        chance = random.Random()
        self.members = Membership(
            NodeStatus(
                identity.id, number, zone=options.zone, version=version("sennit-lake"),
                duckdb=parts.duckdb, features=self._features(), capacity=options.capacity,
            ),
            StatementSigner(identity.key), roster.is_member, chance, options.membership,
            now=self.now(), wall=self._clock.now,
        )  # fmt: skip
        logs, damaged = self._store.load_logs()
        self.logs = Publications(
            identity.id, StatementEntrySigner(identity.key), roster.is_member, chance,
            logs=logs, damaged=damaged, wall=self._clock.now,
        )  # fmt: skip
        self.effects = EffectQueue(self._perform)
        self._tasks = TaskSet("the network")
        self.outbox = Outbox(self.sessions.session)
        self._spread = RosterExchange(roster, chance)
        # Set when a node without an invite has asked to be admitted.
        self._asked = asyncio.Event()
        self._saved_at = self._described_at = 0.0

    def holders(self, name: str) -> list[str]:
        """Return the live nodes that hold a shard, this node first if it does."""
        return [] if self.exchange is None else self.exchange.holders(name)

    def known_holders(self, name: str) -> tuple[str, ...]:
        """Return the names of the nodes that are known to hold a shard, reachable or not."""
        return () if self.exchange is None else self.exchange.known_holders(name)

    def size_of(self, name: str) -> int:
        """Return the bytes of a shard of a shared dataset; 0 if it is not known."""
        return 0 if self.exchange is None else self.exchange.size_of(name)

    async def fetch(self, names: Collection[str]) -> None:
        """Fetch shards that this node lacks from any node that has them; see `Exchange.fetch`."""
        assert self.exchange is not None, "the node has a lake"
        await self.exchange.fetch(names)

    async def session(self, node: str) -> Session:
        """Return a session with a node."""
        return await self.sessions.session(node)

    def alive(self) -> list[str]:
        """Return the nodes that can be reached."""
        return self.members.alive()

    def has_same_duckdb(self, node: str) -> bool:
        """Return whether a node has this node's version of DuckDB, whose states it can exchange."""
        own, peer = self.members.own, self.members.peers.get(node)
        return node == own.node or (peer is not None and peer.status.duckdb == own.duckdb != "")

    def runs_tasks(self, node: str) -> bool:
        """Return whether another node runs tasks of jobs, as it has greeted or announced."""
        hello, peer = self.sessions.greeting(node), self.members.peers.get(node)
        if hello is not None:
            return TASKS in hello.features
        return peer is not None and TASKS in peer.status.features

    def _features(self) -> tuple[str, ...]:
        data = self._parts.data
        return FEATURES if data is None or data.tasks is None else (*FEATURES, TASKS)

    def can(self, node: str, feature: str) -> bool:
        """Return whether a node has a feature, as far as is known (`lake.peers.transport.hello`)."""
        peer = self.members.peers.get(node)
        return peer is None or feature in peer.status.features

    def may_receive(self, node: str, dataset: str, snapshot: str) -> bool:
        """Return whether a node runs fragments that rows come with, and may have all rows of a snapshot."""
        peer = self.members.peers.get(node)
        is_able = peer is not None and "broadcast" in peer.status.features
        return (
            is_able
            and self.exchange is not None
            and self.exchange.may_have_rows(node, dataset, snapshot)
        )

    def name(self, node: str) -> str:
        """Return what a node is called."""
        return self.roster.name_of(node)

    def _handlers(self) -> dict[type[Message], Handler]:
        found: dict[type[Message], Handler] = {
            ReportRequest: self.reports.serve,
        }
        if self.exchange is not None:
            found[HaveRequest] = self.exchange.serve_have
            found[ListRequest] = self.exchange.serve_list
            found[ChunkRequest] = self.exchange.serve_chunk
            found[FragmentRequest] = self.exchange.serve_fragment
            found[RepairRequest] = self.exchange.repairs.serve
            found[HandOverRequest] = self.exchange.giver.serve
            found[HandOverRefusal] = self.exchange.giver.serve_refusal
        if self._parts.data is not None:
            reads = self._parts.data.restricted
            found |= RestrictedServer(
                reads, self.claims, self.wall, self.roster.unique_name_of
            ).handlers()
            if (tasks := self._parts.data.tasks) is not None and self.exchange is not None:
                found |= self.exchange.job_server(
                    tasks, self.claims, self.roster.unique_name_of
                ).handlers()
        if self.changes is not None:
            found[ChangeRequest] = self.changes.server.serve
            found[ChangeKnown] = self.changes.server.serve_known
            found[ReturnedRequest] = self.changes.server.serve_returned
        return found

    async def start(self) -> None:
        """Listen, and start the machines."""
        await self.sessions.__aenter__()
        self._forget_nodes()
        for status in self._store.known_nodes():
            self.members.add(status)
        addresses = self.addresses()
        self._perform_now(self.members.update(self.now(), addresses=tuple(addresses)))
        self._tasks.spawn(self.effects.run())
        self._tasks.spawn(self._tick_forever())
        if (discovery := self._parts.discovery) is not None:
            self._tasks.spawn(
                follow_hints(discovery.found, self.sessions, self._is_missed, self.now)
            )
        if self.exchange is not None:
            await self.exchange.start()
            self._tasks.spawn(self._exchange_forever(self.exchange))
        if self._deliveries is not None:
            self._tasks.spawn(self._deliveries.run())

    async def stop(self) -> None:
        """Stop the machines, and close all sessions."""
        self._save_known()
        if self.changes is not None:
            self.changes.server.stop()
        await self._tasks.end()
        if self._deliveries is not None:
            await self._deliveries.end()
        if self.exchange is not None:
            await self.exchange.end()
        await self.bulk_client.stop()
        if self.bulk_server is not None:
            await self.bulk_server.stop()
        await self.outbox.end()
        await self.sessions.__aexit__(None, None, None)

    @property
    def node_id(self) -> str:
        """The id of this node."""
        return self._parts.identity.id

    @property
    def is_revoked(self) -> bool:
        """Whether this node was removed from the network."""
        return not self.roster.is_member(self._parts.identity.id)

    def addresses(self) -> list[str]:
        """Return where others reach this node."""
        options = self._parts.options
        if options.announce:
            return list(options.announce)
        if options.host is None:
            return []
        host = reachable_host(options.host)
        if host is None:
            return []
        return [f"[{host}]:{self.sessions.port}" if ":" in host else f"{host}:{self.sessions.port}"]

    def listening(self) -> Listening | None:
        """Return what may be announced on the local network; any thread may call it."""
        if self.is_revoked:
            return None
        return Listening(
            self.node_id, self._parts.options.name, network_tag(self.roster.network),
            self.sessions.host, self.sessions.port,
        )  # fmt: skip

    def _is_missed(self, node: str) -> bool:
        """Return whether a node is another member, and no session with it is open."""
        is_other = node != self.node_id and self.roster.is_member(node)
        return is_other and not self.is_revoked and self.sessions.open_session(node) is None

    def states(self) -> list[NodeState]:
        """Return all members, this node first."""
        return node_states(self.roster, self.members, self.sessions)

    def counters(self) -> Counters:
        """Return what is open, and what was refused or dropped since the start."""
        return replace(self.sessions.counters(), dropped_messages=self.outbox.dropped)

    def change_roster(self, change: Callable[[], T]) -> T:
        """Change the roster, make that durable, and send it to the other nodes."""
        before = len(self.roster.statements)
        result = change()
        new = self.roster.statements[before:]  # it only grows
        self._perform_now(self._spread.changed(new, self.members.alive()))
        return result

    async def accept(self, fingerprint: str) -> Member:
        """Admit a node that waits, or that asks again in some seconds; raises as `Host.accept`.

        A node that waits asks every two seconds, and may have had to make room for others meanwhile.
        """
        end = self.now() + _ACCEPT_SECONDS
        while True:
            self._asked.clear()
            try:
                return self.change_roster(lambda: self.host.accept(fingerprint))
            except NotFound:
                if not digits_of(fingerprint) or self.now() >= end:
                    raise
            with suppress(TimeoutError):
                async with asyncio.timeout(max(end - self.now(), 0)):
                    await self._asked.wait()

    def start_leaving(self) -> float:
        """Announce that this node hands over what it stores; return the time, as of `now`."""
        now = self.now()
        self._perform_now(self.members.leave(now, "leaving"))
        return now

    def stay(self) -> None:
        """Announce that this node does not leave after all."""
        if self.members.own.state == "leaving":
            self._perform_now(self.members.update(self.now(), state="alive"))

    async def announce_leaving(self) -> None:
        """Let others know that this node has left, as far as they can be reached.

        Raises:
            Conflict: A node that is to write a dataset of this one may not know that yet.
        """
        if self.exchange is not None and not self.is_revoked:
            await asyncio.to_thread(self.exchange.giver.check_done)
        for effect in self.members.leave(self.now(), "left"):
            if isinstance(effect, Send):
                with suppress(SennitError):
                    await self._send(effect)

    # Time and messages

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.is_revoked:  # no other node accepts it
                continue
            now = self.now()
            self._perform_now(self.members.tick(now))
            if not self.effects.is_full:
                self.put(self.logs.tick(now, self.members.alive()))
            self._perform_now(self._spread.tick(now, self.members.peers))
            if now - self._saved_at > _SAVE_SECONDS:
                self._saved_at = now
                self._save_known()

    async def _exchange_forever(self, exchange: Exchange) -> None:
        # A loop of its own: planning many copies must not delay heartbeats.
        while True:
            try:
                await exchange.tick()
                self._describe(exchange)
            except SennitError as error:
                _log.warning("copies of shared datasets: %s", error)
            except Exception:  # noqa: BLE001 - logged; a defect must not end the copying of datasets
                _log.exception("copies of shared datasets: an unexpected error")
            await asyncio.sleep(TICK_SECONDS)

    def _describe(self, exchange: Exchange) -> None:
        """Announce how much of the offered space is used; rarely, as each time all nodes hear of it."""
        now, used = self.now(), exchange.copied_bytes
        if used != self.members.own.used and now - self._described_at > _DESCRIBE_SECONDS:
            self._described_at = now
            self._perform_now(self.members.update(now, used=used))

    async def call(self, call: Call) -> Replied | Failed:
        """Send a request to a node; return its answer, or how it failed."""
        try:
            async with asyncio.timeout(call.timeout_seconds):
                piece = await self._call_by_stream(call)
                if piece is None:
                    found = await self.sessions.session(call.peer)
                    piece = await found.call(call.message, timeout_seconds=call.timeout_seconds)
        except TimeoutError:
            overdue = DeadlineExceeded(f"the answer of node {call.peer[:16]}", call.timeout_seconds)
            return Failed(call.id, overdue.code, str(overdue))
        except SennitError as error:
            return Failed(call.id, error.code, str(error))
        return Replied(call.id, *piece)

    def _traffic(self, node: str) -> Traffic:
        return self.sessions.traffic(node)

    async def _call_by_stream(self, call: Call) -> Piece | None:
        if not isinstance(call.message, ChunkRequest):
            return None
        return await self.bulk_client.call(call.peer, call.message)

    def _receive(self, peer: str, message: Message) -> None:
        try:
            if isinstance(message, (RosterNews, RosterHead)):
                alive = self.members.alive()
                self._perform_now(self._spread.receive(peer, message, self.now(), alive))
            elif isinstance(message, membership.MESSAGES):
                self._perform_now(self.members.receive(peer, message, self.now()))
            elif self.effects.is_full or self.outbox.is_busy(peer):
                return  # the disk, or the node, is slower than what it asks for, which it repeats
            elif isinstance(message, publications.MESSAGES):
                self.put(self.logs.receive(peer, message, self.members.alive()))
        except SennitError as error:
            _log.warning("ignoring a message of node %s: %s", peer[:16], error)

    def _greet(self, node: str) -> None:
        """Compare what both know at once with a node that was just connected."""
        self._perform_now([self._spread.greet(node)])
        self.put([self.logs.greet(node)])

    def put(self, effects: Iterable[Effect]) -> None:
        """Perform effects in their order."""
        self.effects.put(effects)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case StoreLog():
                await asyncio.to_thread(self._store.store_log, effect)
            case Published():
                if self.exchange is not None:
                    self.exchange.published(effect)
            case LogForked(key, number):
                _log.warning(
                    "node %s has published two entries %d: it has left the network and joined again, it "
                    "was restored from a backup, or its key is used twice", key.publisher[:16], number,
                )  # fmt: skip
            case _:
                self._perform_now([effect])

    def _perform_now(self, effects: Iterable[Effect]) -> None:
        """Perform effects that wait for nothing."""
        for effect in effects:
            match effect:
                case Send(peer, message):
                    self.outbox.put(peer, message)
                case PeerChanged(node):
                    self._note_node(node)
                case RosterChanged(statements):
                    self._note_members(statements)
                case _:
                    raise AssertionError(f"nothing performs {effect}")

    async def _send(self, effect: Send) -> None:
        with suppress(SennitError):
            found = await self.sessions.session(effect.peer)
            await found.send(effect.message)

    def _note_node(self, node: str) -> None:
        """Publish what is known of another node; this one's row is the gateway's."""
        peer = self.members.peers.get(node)
        if peer is None:
            return
        self.sessions.set_addresses(node, peer.status.addresses)
        status = peer.status
        row = NodeInfo(
            node, status.addresses, status.zone or None, status.capacity, status.used, peer.state,
            self._clock.now(),
        )  # fmt: skip
        self._store.nodes.put(node, row, ephemeral=True)

    def _save_known(self) -> None:
        known = {node: peer.statement for node, peer in self.members.peers.items()}
        try:
            self._store.save_known(known)
            self._store.note_active(self._clock.now())
        except SennitError as error:
            _log.warning("the nodes of the network were not stored: %s", error)

    # Members

    def _note_members(self, new: Iterable[Statement]) -> None:
        """Accept nodes that were admitted, and none that was revoked; store the roster."""
        # Also with a full disk, which the last step reports, is a revoked node refused from now on.
        self._forget_nodes()
        proofs = {str(each.body.get("node")): RosterNews((each,)) for each in new}
        self.sessions.update_members(proofs)
        self._store.save_roster(self.roster)

    def _forget_nodes(self) -> None:
        for node in [each for each in self.members.peers if not self.roster.is_member(each)]:
            self.members.forget(node)
        current = {each for each in self.roster.members if self.roster.is_member(each)}
        self._store.keep_nodes({*current, self._parts.identity.id})

    async def _serve_join(
        self, session: Session, message: Join, _body: bytes
    ) -> tuple[Message, bytes]:
        host = network_of(session.channel.host)
        try:
            member = self.change_roster(lambda: self.host.admit(message, host))
        except WaitingToJoin:
            self._asked.set()
            raise
        shown = self.roster.introduction(self._parts.identity.id, member.id)
        statuses = tuple(self.members.statements()[:_WELCOMED])
        return Welcome(self.roster.network, shown, statuses), b""

    def _hello(self) -> Hello:
        own = self.members.own
        return Hello(
            self._parts.options.name, own.version, PROTOCOL, PROTOCOL_MIN, own.duckdb,
            own.features, own.addresses,
        )  # fmt: skip

    def now(self) -> float:
        """Return seconds that never run backwards."""
        return self._clock.monotonic()

    def wall(self) -> float:
        """Return Unix seconds."""
        return self._clock.now()
