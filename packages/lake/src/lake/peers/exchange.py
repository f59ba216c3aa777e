"""Shared datasets of a network: published, adopted, copied, and fetched for queries.

    own dataset ──▶ shares ──▶ publications ──▶ other nodes
    other node  ──▶ publications ──▶ manifest fetched ──▶ row of the catalog ──▶ copies by placement

Runs in the event loop of the network; what reads or writes files is done by threads.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from functools import partial, reduce
from operator import add
from typing import Protocol

from lake.distributed.fork_origins import ForkOrigin
from lake.distributed.partial import ShardsUnavailable
from lake.peers.changes.claims import Claims
from lake.peers.changes.staging import Staging
from lake.peers.copies.bulk_chunks import ChunkServer
from lake.peers.copies.chunks import ChunkRequest, ListRequest
from lake.peers.copies.copy_states import CopyState, Handover
from lake.peers.copies.downloads import Caller, Downloads
from lake.peers.copies.have_messages import HaveRequest
from lake.peers.copies.placement import Candidate
from lake.peers.copies.repairs import Repairs
from lake.peers.copies.replication import DropCopy, Pause
from lake.peers.copies.transfers import at_most
from lake.peers.data import DataParts
from lake.peers.handovers.accepting import Taker
from lake.peers.handovers.giving import Giver, HandOverParts
from lake.peers.handovers.handovers import HandOvers
from lake.peers.handovers.rows import Terms
from lake.peers.jobs.server import JobServer, TaskRunner
from lake.peers.members.health import Contested, SharedCopies
from lake.peers.queries.fragments import FragmentRequest, serve_fragment
from lake.peers.sharing.adoption import Adoption, AdoptionHost
from lake.peers.sharing.metadata import MetadataUse
from lake.peers.sharing.publications import Published
from lake.peers.sharing.publishing import Publishing, PublishingHost
from lake.peers.sharing.seeding import Seeds
from lake.peers.sharing.shared_index import KnownDataset, SharedIndex
from lake.peers.sharing.sharing import SharedDataset
from lake.peers.transport.limits import Slots
from lake.peers.transport.machine import Call, Replied
from lake.peers.transport.session import Piece, Session
from sennit_core.errors import NotFound, SennitError, Unavailable
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo

__all__ = ["Exchange", "ExchangeHost"]

_log = get_logger(__name__)
_PUBLISH_SECONDS = 0.5
_MEASURE_SECONDS = 5.0
_REFRESH_SECONDS = 60.0
_STATES_AT_ONCE = 500


class ExchangeHost(AdoptionHost, PublishingHost, Caller, Protocol):
    """What an exchange needs of the network that it is part of."""


class Exchange:
    """The shared datasets of one node.

    Args:
        node: The node's id.
        host: The network.
        parts: The lake.
    """

    def __init__(self, node: str, host: ExchangeHost, parts: DataParts) -> None:
        self._node = node
        self._host = host
        self._parts = parts
        copies = parts.copies
        self._index = SharedIndex(
            node, lambda each: host.roster.is_member(each), copies.held, parts.shares.is_open
        )
        self._downloads = Downloads(host, copies, parts.retention)
        self.chunks = ChunkServer(copies, self._index.may_send)
        statements = HandOvers(parts.key, host.roster.network)
        terms = Terms(node, parts.handovers, statements)
        self._adoption = Adoption(
            node, host, parts.catalog, parts.retention, parts.policies, parts.shares, terms,
            parts.forgotten, self._index, self._downloads,
            MetadataUse(parts.objects, lambda size: parts.space.check_disk("a list of shards", size)),
            copies.replication.soon,
        )  # fmt: skip
        self._publishing = Publishing(
            node, host, parts.catalog, parts.shares, self._index, self._adoption.alone,
            copies.replication.soon,
        )  # fmt: skip
        self.seeds = Seeds(
            node, host, self._adoption, self._index, copies, lambda: self._copied_bytes
        )
        handed = HandOverParts(
            node, parts.catalog, parts.shares, parts.handovers, terms, statements,
            self._adoption.alone, self.publish_soon,
        )  # fmt: skip
        self.giver = Giver(host, handed)
        self.taker = Taker(host, handed, self._index, self._downloads, parts.objects, parts.quotas)
        self._fragments = Slots("parts of queries")
        self._published_at = self._measured_at = self._refreshed_at = -math.inf
        self._copied_bytes = 0
        self.repairs = Repairs(host, parts.copies)
        self.staging = Staging(self._index.offers, self._downloads, parts.retention, parts.space)

    # The network

    def published(self, news: Published) -> None:
        """Note what another node publishes."""
        self._adoption.expect(news.key.publisher, news.dataset)

    async def delete(self, dataset: str) -> DatasetInfo:
        """Delete a dataset of a removed node here; raises as `Adoption.delete`."""
        return await self._adoption.delete(dataset)

    async def start(self) -> None:
        """Adopt what was published, and forget what was withdrawn, while this node was away."""
        try:
            await asyncio.to_thread(self.giver.start)
            await asyncio.to_thread(self.taker.start)
            await self._adoption.start()
        except SennitError as error:
            _log.warning("datasets of other nodes: %s", error)

    async def end(self) -> None:
        """Stop what is under way."""
        await self._adoption.end()
        await self.taker.end()
        await self._downloads.end()

    async def tick(self) -> None:
        """Let time pass: publish what has changed, plan copies, continue transfers."""
        now = self._host.now()
        if now - self._published_at >= _PUBLISH_SECONDS:
            self._published_at = now
            await self._publishing.publish()
        if now - self._refreshed_at >= _REFRESH_SECONDS:
            self._refreshed_at = now
            copies = self._parts.copies
            await asyncio.to_thread(copies.held.refresh)
            await asyncio.to_thread(copies.sweep, copies.wanted)
        if now - self._measured_at >= _MEASURE_SECONDS:
            self._measured_at = now
            self._copied_bytes = await asyncio.to_thread(self._measure)
            await self._adoption.expire(self._is_placed)
            await self._adoption.expect_lost()
        self._adoption.tick(now)
        await self.giver.tick(now)
        self.taker.tick(now)
        await self._plan(now)
        self._downloads.tick()

    async def _plan(self, now: float) -> None:
        """Find out which copies to make and to drop."""
        copies = self._parts.copies
        if not copies.replication.is_due(now):
            return
        datasets = [each.objects for each in self._index]
        room = self._host.members.own.capacity - self._copied_bytes
        alive = self._host.members.alive()
        dropped: list[str] = []
        for effect in copies.tick(now, datasets, self._candidates(now), alive, room):
            match effect:
                case Pause():
                    await asyncio.sleep(0)
                case Call():
                    self._downloads.spawn(self._ask(effect))
                case DropCopy(name):
                    dropped.append(name)
                case _:
                    raise AssertionError(f"nothing performs {effect}")
        if dropped:
            await asyncio.to_thread(copies.drop, dropped)

    async def _ask(self, call: Call) -> None:
        """Ask a node which objects it has."""
        result = await self._host.call(call)
        replication = self._parts.copies.replication
        if isinstance(result, Replied):
            with suppress(SennitError):  # it was too short: asked again later
                replication.replied(result)
        else:
            replication.failed(result)

    def _measure(self) -> int:
        """Return the bytes of copies of other nodes' datasets, unfinished ones too."""
        copies = self._parts.copies
        sizes: dict[str, int] = {}
        for each in self._index:
            if each.writer != self._node:
                sizes.update(each.sizes)
        kept = sum(size for name, size in sizes.items() if copies.held.is_here(name))
        return kept + copies.incoming_bytes()

    @property
    def copied_bytes(self) -> int:
        """Bytes of copies of other nodes' datasets, as measured last."""
        return self._copied_bytes

    def _candidates(self, now: float) -> list[Candidate]:
        """Return the nodes that count for placement.

        A lost one does for a while, and a writer as soon as it is seen: it has all its shards.
        """
        members = self._host.members
        lost = self.repairs.awaited(now)
        gone = {n for n, p in members.peers.items() if p.state == "dead" or not p.stays}
        known = {*members.peers} if members.own.state != "alive" else {self._node, *members.peers}
        writers = {each.writer for each in self._index} & (known - gone)
        found = []
        for node in sorted({*members.settled(now), *lost, *writers}):
            status = members.own if node == self._node else members.peers[node].status
            found.append(Candidate(node, status.zone, status.capacity))
        return found

    # Publishing

    def contested(self) -> list[Contested]:
        """Return the datasets that several nodes publish as theirs."""
        found = []
        for (dataset, publisher), name in self._adoption.contested.items():
            known = self._index.get(dataset)
            found.append(Contested(name, self._node if known is None else known.writer, publisher))
        return found

    def publish_soon(self) -> None:
        """Publish what has changed at the next tick."""
        self._published_at = -math.inf

    async def arrived(self, dataset: str, version: int) -> None:
        """Return when a version of a shared dataset, or a newer one, is here."""
        await self._index.versions.wait(dataset, version)

    def described(self, dataset: str) -> tuple[SharedDataset, str] | None:
        """Return how a dataset is shared, and its writer; None if it is not known to be."""
        found = self._index.get(dataset)
        return None if found is None else (found.shared, found.writer)

    def origins(self) -> dict[str, ForkOrigin]:
        """Return what shared datasets are forks of, by id."""
        return {each.shared.id: each.shared.fork for each in self._index if each.shared.fork}

    def is_shared(self, name: str) -> bool:
        """Return whether an object is a shard of a dataset that is shared; for any thread."""
        return bool(self._index.named(name))

    def holders(self, name: str) -> list[str]:
        """Return the live nodes that hold a shard, this node first if it does."""
        now, alive = self._host.now(), self._host.members.alive()
        found = [self._node] if self._parts.copies.held.is_here(name) else []
        for known in self._index.named(name):
            found += [n for n in self._holders_of(known, name, alive, now) if n not in found]
        return found

    def _holders_of(
        self, known: KnownDataset, name: str, alive: Collection[str], now: float
    ) -> list[str]:
        live = self._parts.copies.replication.holders_of(known.objects, name, alive, now)
        # The writer has all its shards, whether or not it was asked for this one.
        is_added = known.writer in alive and known.writer not in live
        return [*live, known.writer] if is_added else live

    def size_of(self, name: str) -> int:
        """Return the bytes of a shard of a shared dataset; 0 if it is not known."""
        return max((known.sizes[name] for known in self._index.named(name)), default=0)

    def known_holders(self, name: str) -> tuple[str, ...]:
        """Return the names of the nodes that are known to hold a shard, reachable or not."""
        now, roster = self._host.now(), self._host.roster
        replication = self._parts.copies.replication
        found: dict[str, None] = {}
        for known in self._index.named(name):
            found[known.writer] = None
            found |= dict.fromkeys(replication.holders_of(known.objects, name, roster.members, now))
        return tuple(map(roster.name_of, found))

    # Serving

    async def serve_have(self, session: Session, message: HaveRequest, _body: bytes) -> Piece:
        """Answer which objects this node has."""
        return self._parts.copies.have(message, partial(self._index.may_send, session.peer))

    async def serve_list(self, session: Session, message: ListRequest, _body: bytes) -> Piece:
        """Send the chunk hashes of an object."""
        # The same answer for an object that is not here and one that is not shared.
        if not self._index.may_send(session.peer, message.dataset, message.object):
            raise NotFound("object", message.object[:64], suggestion=None)
        return await asyncio.to_thread(self._parts.copies.chunk_list, message)

    async def serve_chunk(self, session: Session, message: ChunkRequest, _body: bytes) -> Piece:
        """Send a chunk of an object."""
        await self.chunks.admit(session.peer, message)
        return await asyncio.to_thread(self.chunks.read, message)

    def serve_fragment(
        self, session: Session, message: FragmentRequest, body: bytes
    ) -> AsyncGenerator[Piece, None]:
        """Run a part of a query over shards that are here."""
        pieces = serve_fragment(self._parts.fragments, self._index, session, message, body)
        return self._limited(session.peer, pieces)

    def job_server(
        self, runner: TaskRunner, claims: Claims, known_as: Callable[[str], str]
    ) -> JobServer:
        """Return what runs tasks of other nodes' jobs over shards that are here."""
        return JobServer(runner, self._index, claims, self._host.wall, known_as)

    def may_have_rows(self, node: str, dataset: str, snapshot: str) -> bool:
        """Return whether all users of a node may read all rows of a snapshot, as far as is known now."""
        known = self._index.get(dataset)
        if known is None or not self._index.may_read(node, dataset, snapshot):
            return False
        # What this node has just made private is published so within a second.
        share = self._parts.shares.get(dataset) if known.writer == self._node else None
        return known.writer != self._node or (share is not None and share.is_with(node))

    async def _limited(
        self, peer: str, pieces: AsyncGenerator[Piece, None]
    ) -> AsyncGenerator[Piece, None]:
        async with aclosing(pieces):
            with self._fragments.take(peer):
                async for piece in pieces:
                    yield piece

    # Fetching

    async def fetch(self, names: Collection[str], dataset: str | None = None) -> None:
        """Fetch objects of shared datasets that this node lacks.

        Args:
            names: The objects.
            dataset: The dataset as whose they are fetched, also if they are here for another one; None
                for any, as for a query.

        Raises:
            Unavailable: No node that can be reached has one of them.
        """
        held = self._parts.copies.held
        missing = [
            name
            for name in names
            if name not in self._parts.objects
            or (dataset is not None and not held.was_received(dataset, name))
        ]
        results = await asyncio.gather(
            *(self._fetch(name, dataset) for name in missing), return_exceptions=True
        )
        problems = [each for each in results if isinstance(each, BaseException)]
        for problem in problems:
            if not isinstance(problem, Unavailable):
                raise problem
        lost = [n for n, each in zip(missing, results, strict=True) if each is not None]
        if lost:
            raise ShardsUnavailable(
                f"{len(lost)} of {len(names)} shards",
                {name: self.known_holders(name) for name in lost},
                hint=self._why_missing(lost),
            )

    def _why_missing(self, names: Collection[str]) -> str:
        alive = self._host.members.alive()
        writers = {known.writer for name in names for known in self._index.named(name)}
        if writers and writers <= set(alive):
            return (
                "the nodes that write them have them no more: query a newer version, or try again"
            )
        return "no node that holds them can be reached; see `platform net nodes`"

    async def _fetch(self, name: str, dataset: str | None) -> None:
        """Fetch a shard as one of a dataset; or of the first for which a node has it."""
        now, alive = self._host.now(), self._host.members.alive()
        problem = Unavailable(f"object {name[:16]}")
        for known in self._index.named(name):
            if dataset not in (None, known.shared.id):
                continue
            # Those that hold it as far as it is known, the writer, then any that may.
            others = [node for node in alive if known.objects.may_hold(node)]
            sources = dict.fromkeys((*self._holders_of(known, name, alive, now), *others))
            sources.pop(self._node, None)
            if not sources:
                continue
            try:
                await self._downloads.obtain(
                    known.shared.id, name, list(sources), at_most(known.sizes[name])
                )
            except Unavailable as error:
                problem = error
            else:
                return
        raise problem

    async def states(self) -> Mapping[str, CopyState]:
        """Return the state of the copies of each shared dataset."""
        return {known.shared.id: await self._state_of(known) for known in self._index}

    async def _state_of(self, known: KnownDataset) -> CopyState:
        parts = [self._state(known, 0)]
        for start in range(_STATES_AT_ONCE, len(known.objects.objects), _STATES_AT_ONCE):
            await asyncio.sleep(0)
            parts.append(self._state(known, start))
        return reduce(add, parts)

    async def _is_placed(self, dataset: str) -> bool:
        """Return whether all nodes that are to hold a dataset do; of one that is gone, True."""
        known = self._index.get(dataset)
        return known is None or (await self._state_of(known)).is_placed

    def _state(self, known: KnownDataset, start: int) -> CopyState:
        now, alive = self._host.now(), frozenset(self._host.members.alive())
        part = known.objects.objects[start : start + _STATES_AT_ONCE]
        return self._parts.copies.replication.state(known.objects, part, alive, now)

    async def handover(self, since: float) -> dict[str, Handover]:
        """Return what this node is still needed for, by dataset; see `Replication.handover`."""
        replication, now = self._parts.copies.replication, self._host.now()
        replication.ask_again(now, since)
        found: dict[str, Handover] = {}
        for known in self._index:
            total, objects = Handover(), known.objects.objects
            for start in range(0, len(objects), _STATES_AT_ONCE):
                part = objects[start : start + _STATES_AT_ONCE]
                total += replication.handover(known.objects, part, since, now)
                await asyncio.sleep(0)
            found[known.shared.id] = total
        return found

    async def shared_copies(self) -> dict[str, SharedCopies]:
        """Return each shared dataset by its id: its name here, its writer and its copies."""
        found: dict[str, SharedCopies] = {}
        for dataset, state in (await self.states()).items():
            known, info = self._index.get(dataset), self._parts.catalog.find_known(dataset)
            if known is not None and not known.shared.restricted:
                name = known.shared.name if info is None else info.name
                found[dataset] = SharedCopies(name, known.writer, state)
        return found
