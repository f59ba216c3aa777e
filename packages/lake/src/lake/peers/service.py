"""A node's part in its network: one thread that runs the protocols over real connections.

    with PeerService(identity, tree, options) as peers:
        text = peers.invite()                 # founds a network, if there is none

The machines (`membership`, `publications`, …) run in the event loop of that thread and nowhere else, so
they need no locks. They return effects, which are performed in order: what must be durable before a
message leaves is durable. Methods of `PeerService` may be called by any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lake.distributed.remote_shards import Changed, ForeignChange
from lake.peers.codec import peer_codec
from lake.peers.copies.copy_states import Handover
from lake.peers.copies.placement import Placement
from lake.peers.copies.repair_calls import RepairCalls
from lake.peers.data import DataParts
from lake.peers.handovers.calls import HandOverCalls
from lake.peers.jobs.calls import JobCalls
from lake.peers.joined import JoinedNetwork, NodeParts, PeerOptions
from lake.peers.members.admission import JOIN_SECONDS, ask_for_admission
from lake.peers.members.announcements import Listening
from lake.peers.members.discovery import LocalDiscovery
from lake.peers.members.health import Finding, NodeState
from lake.peers.members.invites import INVITE_SECONDS, Invite
from lake.peers.members.joining import Waiting
from lake.peers.members.roster import Member, Roster, check_node_name, found_network
from lake.peers.members.store import PeerStore
from lake.peers.members.survey import NetworkMap, Survey
from lake.peers.queries.distributed_query import Distributed, DistributedQuery
from lake.peers.queries.distributor import Distributor
from lake.peers.queries.plan_cache import PlanCache
from lake.peers.queries.restricted_client import RestrictedClient
from lake.peers.queries.step_dispatch import Coordinator
from lake.peers.sharing.publications import EVERYONE
from lake.peers.sharing.seeding import Seeder
from lake.peers.sharing.shared_calls import SharedCalls
from lake.peers.sharing.sharing import ShareInfo, Shares
from lake.peers.transport.addresses import parse_address
from lake.peers.transport.identity import Identity
from lake.peers.transport.network import Counters
from lake.peers.transport.stop import Stop, result_of
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    Closed,
    Conflict,
    SennitError,
    Unavailable,
    WaitingToJoin,
)

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["NodeState", "PeerOptions", "PeerService"]

T = TypeVar("T")

_CALL_SECONDS = 30.0
_FETCH_SECONDS = 300.0
_JOIN_POLL_SECONDS = 2.0
_THREADS = 160
"""32 parts of queries, as many queries, 32 tasks of jobs and 16 changes hold one each while a peer reads; the rest is
for files."""


class PeerService:
    """A node's part in its network; a context manager.

    Args:
        identity: The node's own.
        tree: The namespace `sys`.
        options: Its name, where it listens, its limits.
        duckdb: The version of this node's DuckDB.
        data: The lake whose datasets are shared; None shares none.
        clock: Source of time.
    """

    def __init__(
        self,
        identity: Identity,
        tree: ElkynStore,
        options: PeerOptions,
        *,
        duckdb: str = "",
        data: DataParts | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        check_node_name(options.name)
        self.identity = identity
        self.options = options
        self._clock = clock
        self._store = PeerStore(tree)
        self._codec = peer_codec()
        self.discovery = LocalDiscovery(identity.id, self._listening) if options.discovery else None
        """What is announced on the local network; None unless the node searches there."""
        self._parts = NodeParts(
            identity, options, self._store, self._codec, duckdb, clock, data, self.discovery
        )
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "lake-peers"))
        self._thread = threading.Thread(target=self._run_loop, name="lake-peers", daemon=True)
        # Set while the node is in a network; changed in the loop only.
        self._network: JoinedNetwork | None = None
        self._plans = PlanCache()
        self._closed = False
        self.away_seconds = 0.0
        """For how long this node was not part of its network before it was opened."""

    # Life

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._open_stored())
            if self.discovery is not None:
                self.discovery.__enter__()
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
        if self.discovery is not None:
            self.discovery.close()
        if self._thread.is_alive():
            self._submit(self._close_network()).result(_CALL_SECONDS)
            self._submit(self._loop.shutdown_default_executor()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open_stored(self) -> None:
        members = self._store.load_roster()
        if members is not None:
            now = self._clock.now()
            self.away_seconds = max(0.0, now - (self._store.active_at() or now))
            await self._open_network(members)
        else:
            # Also that of an earlier version of this node, whose id was not that of its key.
            self._store.keep_nodes({self.identity.id})

    async def _open_network(self, members: Roster) -> None:
        network = JoinedNetwork(self._parts, members)
        await network.start()
        self._network = network

    def _listening(self) -> Listening | None:
        network = self._network
        return None if network is None else network.listening()

    async def _close_network(self) -> None:
        network, self._network = self._network, None
        if network is not None:
            await network.stop()

    # Calls of other threads

    @property
    def is_revoked(self) -> bool:
        """Whether this node was removed from its network; it may still leave."""
        return self._network is not None and self._network.is_revoked

    @property
    def was_lost(self) -> bool:
        """Whether this node was away for so long that others have replaced its copies."""
        data = self._parts.data
        return data is not None and self.away_seconds > data.copies.loss_seconds

    @property
    def network_id(self) -> str | None:
        """The id of the network; None if this node is in none."""
        return None if self._network is None else self._network.roster.network

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
        """Ask a node to be admitted, and wait until an admin accepts this node there.

        Args:
            address: Where it listens.
            node: Its id, which its owner reads out.
            wait_seconds: How long to wait.

        Raises:
            WaitingToJoin: No admin has accepted this node in time.
        """
        parse_address(address)
        self._call(self._ask_to_join(address, node, wait_seconds), wait_seconds + _CALL_SECONDS)

    def waiting(self) -> list[Waiting]:
        """Return the nodes that wait to be accepted here."""
        network = self._network
        return [] if network is None else self._call(_now(lambda: network.host.waiting))

    def accept(self, fingerprint: str) -> Member:
        """Admit a node that waits; raises as `joining.Host.accept`."""
        return self._call(self._required().accept(fingerprint))

    def revocable(self, id_or_name: str) -> Member:
        """Return the member that `revoke` would remove; raises as it."""
        roster = self._required().roster
        return self._call(
            _now(lambda: roster.check_revoke(self.identity.id, roster.find(id_or_name).id))
        )

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
            return network.roster.members[member.id]

        return self._call(_now(lambda: network.change_roster(revoke)))

    def start_leaving(self) -> float:
        """Announce that this node leaves, so that it holds no copies any more; return the time."""
        network = self._required()
        return self._call(_now(network.start_leaving))

    def stay(self) -> None:
        """Announce that this node does not leave after all."""
        network = self._required()
        self._call(_now(network.stay))

    def handover(self, since: float) -> Mapping[str, Handover]:
        """Return what this node is still needed for, by dataset.

        Args:
            since: What `start_leaving` returned.
        """
        exchange = self._required().exchange
        return {} if exchange is None else self._call(exchange.handover(since))

    def leave(self) -> None:
        """Leave the network: announce it, close all connections, forget the roster."""
        self._required()
        self._call(self._leave())

    def nodes(self) -> list[NodeState]:
        """Return all members, this node first."""
        network = self._network
        return [] if network is None else self._call(_now(network.states))

    def check(self) -> list[Finding]:
        """Ask the whole network, and return what is right and wrong with it."""
        return self._call(Survey(self._required(), self._parts.data).check())

    def map(self) -> NetworkMap:
        """Ask the whole network for its connections, and return its map."""
        return self._call(Survey(self._required(), self._parts.data).map())

    @property
    def repairs(self) -> RepairCalls:
        """Repairs copies now."""
        return RepairCalls(self._call, self._required)

    @property
    def shared(self) -> SharedCalls:
        """Says what is known of shared datasets."""
        return SharedCalls(self._call, self._required)

    def counters(self) -> Counters:
        """Return what is open, and what was refused or dropped since this node is in its network."""
        network = self._network
        return Counters() if network is None else self._call(_now(network.counters))

    def fetch(
        self,
        objects: Collection[str],
        /,
        *,
        dataset: str | None = None,
        seconds: float | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Fetch objects of shared datasets that this node lacks; blocks.

        Args:
            objects: Their ids.
            dataset: As of `Exchange.fetch`.
            seconds: The longest time to wait; None for five minutes.
            stop: Stops it.

        Raises:
            Cancelled: It was stopped.
            Unavailable: No node that can be reached has one of them, or this node is in no network.
            DeadlineExceeded: It was not done in time.
        """
        network = self._network
        if network is None or network.exchange is None:
            raise Unavailable(
                f"{len(objects)} shards on other nodes", hint="this node is in no network"
            )
        future = self._submit(network.exchange.fetch(objects, dataset))
        result_of(future, "fetching shards", seconds or _FETCH_SECONDS, stop or Stop())

    def accepts_changes(self, dataset: str) -> bool:
        """Return whether the writer of a dataset makes changes for users of this node."""
        network = self._network
        changes = None if network is None else network.changes
        return changes is not None and changes.accepts(self.identity.id, dataset)

    def may_have(self, dataset: str, node: str) -> bool:
        """Return whether a node may have the rows of a dataset that another node writes."""
        network = self._network
        changes = None if network is None else network.changes
        return changes is not None and changes.may_have(dataset, node)

    def is_shared(self, name: str) -> bool:
        """Return whether an object is a shard of a dataset that is shared in the network."""
        network = self._network
        exchange = None if network is None else network.exchange
        return exchange is not None and exchange.is_shared(name)

    def change(self, change: ForeignChange) -> Future[Changed]:
        """Let the writer of a dataset make a change; see `Changes.send`.

        Raises:
            Conflict: This node is in no network.
        """
        changes = self._required().changes
        assert changes is not None, "a node with a lake asks"
        return self._submit(changes.send(change))

    def share(
        self,
        dataset: str,
        nodes: Sequence[str] | None,
        placement: Placement | None = None,
        *,
        read_only: bool | None = None,
    ) -> ShareInfo:
        """Share a dataset of this node with other nodes.

        Args:
            dataset: Id or name.
            nodes: Names or ids of members; None for all, those that join later too.
            placement: Where copies are to be; None for one copy, here.
            read_only: Whether the nodes only read it; None if it is shared with all. Otherwise
                their users may change its rows.

        Raises:
            NotFound: There is no such dataset or node.
            UsageError: All nodes were to change it.
            Denied: Another node writes it.
            Unsupported: It cannot be shared in this version.
        """
        network = self._required()
        shares = self._shares()
        chosen = placement or Placement()
        pins, only = (
            [network.roster.find(n).id for n in each] for each in (chosen.pins, chosen.only)
        )
        placed = replace(chosen, pins=tuple(pins), only=tuple(only))
        ids = [EVERYONE] if nodes is None else [network.roster.find(node).id for node in nodes]
        return shares.set(
            dataset, ids, placed, read_only=nodes is None if read_only is None else read_only
        )

    def unshare(self, dataset: str) -> ShareInfo | None:
        """Make a dataset private again; other nodes forget it. Return how it was shared."""
        return self._shares().remove(dataset)

    def shares(self) -> dict[str, ShareInfo]:
        """Return how the datasets of this node are shared, by their ids."""
        return self._shares().all()

    def _shares(self) -> Shares:
        assert self._parts.data is not None, "the service has a lake"
        return self._parts.data.shares

    def distribute(self, query: DistributedQuery, stop: Stop) -> Distributed | None:
        """Run a query's parts at the nodes that hold its shards; blocks. See `Distributor.run`."""
        network, data = self._network, self._parts.data
        if network is None or data is None:
            return None
        coordinator = Coordinator(
            self.identity.id,
            data.fragments,
            network,
            data.space,
            self.options.query_bytes,
        )
        work = Distributor(coordinator, data.pool, data.staging, self._plans).run(query, stop)
        return result_of(self._submit(work), "the query", query.seconds, stop)

    @property
    def restricted(self) -> RestrictedClient:
        """Reads datasets that other nodes restrict."""
        assert self._parts.data is not None, "the service has a lake"
        return RestrictedClient(
            self._submit, lambda: self._network, self._parts.data.space, self.options.query_bytes
        )

    @cached_property
    def jobs(self) -> JobCalls:
        """Runs tasks of jobs at other nodes."""
        assert self._parts.data is not None, "the service has a lake"
        return JobCalls(
            self._submit, lambda: self._network, self._parts.data.space, self.options.query_bytes
        )

    @property
    def seeder(self) -> Seeder:
        """Adds copies of shared datasets from bundles."""
        return Seeder(self._submit, lambda: self._network)

    @property
    def hand_overs(self) -> HandOverCalls:
        """Hands datasets over to other nodes, and takes them over."""
        return HandOverCalls(self._call, self._required)

    def find_node(self, name: str) -> str | None:
        """Return the id of another member by its id or name; None if there is none, or several."""
        network = self._network
        if network is None:
            return None
        found = [
            node for node, member in list(network.roster.members.items())
            if name in (node, member.name) and not member.revoked and node != self.identity.id
        ]  # fmt: skip
        return found[0] if len(found) == 1 else None

    def ciphertext_of(self, dataset: str) -> str | None:
        """Return the id under which copies of an encrypted dataset of this node are known, if it has any."""
        return self._shares().ciphertexts.find_id(dataset)

    def _required(self) -> JoinedNetwork:
        if self._network is None:
            raise Conflict(
                "this node is in no network",
                hint="`platform net invite` founds one, net join joins",
            )
        return self._network

    def _call(self, work: Coroutine[Any, Any, T], seconds: float = _CALL_SECONDS) -> T:
        """Run a coroutine in the loop, and wait for it."""
        return self._submit(work).result(seconds + JOIN_SECONDS)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if not self._thread.is_alive():
            work.close()
            raise Closed("the node's part in the network")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # In the loop

    async def _invite(self, seconds: float, admin: bool) -> str:
        if self._network is None:
            if self.options.host is None and not self.options.announce:
                raise _no_address()  # before a network is founded that none can join
            members = found_network(self.identity, self.options.name, self._clock.now())
            self._store.save_roster(members)
            await self._open_network(members)
        network = self._required()
        network.roster.check_may(self.identity.id, "inviting a node", as_founder=False)
        addresses = network.addresses()
        if not addresses:
            raise _no_address()
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
        members, statuses = await ask_for_admission(self._parts, address, node, invite)
        self._store.save_roster(members)
        self._store.save_known({str(each.body.get("node")): each for each in statuses})
        await self._open_network(members)

    async def _leave(self) -> None:
        network = self._required()
        await network.announce_leaving()
        await self._close_network()
        # Before the roster: after a crash in between, this node is still in the network.
        if self._parts.data is not None:
            await asyncio.to_thread(self._parts.data.leave)
        self._store.forget_network(self.identity.id)


def _no_address() -> Conflict:
    return Conflict(
        "this node cannot invite others, as they have no address to reach it",
        hint="set network.peer_listen or network.peer_addresses, or invite at another node",
    )


async def _now(compute: Callable[[], T]) -> T:
    """Compute something in the loop's thread."""
    return compute()
