"""Shared datasets of a network: published, adopted, copied, and fetched for queries.

    own dataset ──▶ shares ──▶ publications ──▶ other nodes
    other node  ──▶ publications ──▶ manifest fetched ──▶ row of the catalog ──▶ copies by placement

Runs in the event loop of the network; what reads or writes files is done by threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lake.catalog import Catalog
from lake.disk_space import DiskSpace
from lake.objects import ObjectStore
from lake.partial import ShardsUnavailable
from lake.peers.copies import Copies
from lake.peers.fragments import FragmentRequest, FragmentRunner, serve_fragment
from lake.peers.health import SharedCopies
from lake.peers.machine import Call, Effect, Failed, Replied
from lake.peers.placement import Candidate
from lake.peers.publications import EVERYONE, Publications, Published
from lake.peers.replication import (
    CopyState,
    DropCopy,
    HaveRequest,
    Replica,
    SharedObjects,
)
from lake.peers.roster import Roster
from lake.peers.session import Piece, Session
from lake.peers.sharing import SharedDataset, Shares, read_shared
from lake.peers.transfers import (
    ChunkRequest,
    ListRequest,
    ObjectComplete,
    ObjectUnobtainable,
    WriteChunk,
)
from lake.retention import Retention
from sennit_core.errors import Busy, Denied, NotFound, SennitError, Unavailable
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo, ShardInfo
from sennit_core.schema import Schema
from sennit_core.units import MIB

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.peers.membership import Membership

__all__ = ["DataParts", "Exchange", "ExchangeHost"]

_log = get_logger(__name__)
_PUBLISH_SECONDS = 0.5
_METADATA_BYTES_MAX = 64 * MIB
_ADOPT_SECONDS = 120.0
_VERSIONS_KEPT = 8
_MEASURE_SECONDS = 5.0
_FRAGMENTS_MAX = 32
_FIRST = -1.0
"""Priority of what somebody waits for, before all copies (which have 0 and more)."""


@dataclass(frozen=True, slots=True)
class DataParts:
    """What a lake brings into a network.

    Args:
        catalog: Its datasets.
        objects: Its objects.
        retention: Deletes objects.
        shares: What it shares.
        copies: The copies of shared objects.
        fragments: Runs parts of queries here.
        pool: The executors.
        staging: Folder for parts of queries.
        space: The disk.
    """

    catalog: Catalog
    objects: ObjectStore
    retention: Retention
    shares: Shares
    copies: Copies
    fragments: FragmentRunner
    pool: ExecutorPool
    staging: Path
    space: DiskSpace


class ExchangeHost(Protocol):
    """What an exchange needs of the network that it is part of."""

    roster: Roster
    members: Membership
    logs: Publications

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def put(self, effects: Iterable[Effect]) -> None:
        """Perform effects in their order."""
        ...

    async def call(self, call: Call) -> Replied | Failed:
        """Send a request and return how it ended."""
        ...


@dataclass(frozen=True, slots=True)
class _Mirrored:
    """A shared dataset as this node knows it.

    Args:
        shared: As its writer describes it.
        writer: The id of the writer.
        objects: The shards of its newest version, which are placed and copied.
        names: All objects of the versions that are kept, manifests too.
        sizes: The bytes of each shard of these.
    """

    shared: SharedDataset
    writer: str
    objects: SharedObjects
    names: frozenset[str]
    sizes: Mapping[str, int]


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
        # Shared datasets by id, this node's own too.
        self._datasets: dict[str, _Mirrored] = {}
        # Where each shard of a shared dataset is named.
        self._replicas: dict[str, list[tuple[SharedObjects, Replica]]] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._news: asyncio.Queue[Published] = asyncio.Queue()
        self._calls: dict[int, Callable[[Replied | Failed], Iterable[Effect]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._file_work = asyncio.Lock()
        self._fragments = 0
        self._published_at = self._measured_at = 0.0
        self._copied_bytes = 0

    # The network

    def published(self, news: Published) -> None:
        """Note what another node publishes."""
        self._news.put_nowait(news)

    async def run(self) -> None:
        """Adopt what is published, one after the other, until it is cancelled."""
        for key, dataset, item in list(self._host.logs.items()):
            if key.publisher != self._node:
                self._news.put_nowait(Published(key, dataset, item))
        try:
            while True:
                news = await self._news.get()
                try:
                    async with asyncio.timeout(_ADOPT_SECONDS):
                        await self._apply(news)
                except (SennitError, TimeoutError) as error:
                    publisher = news.key.publisher[:16]
                    _log.warning("dataset %s of node %s: %s", news.dataset, publisher, error)
        finally:
            for task in list(self._tasks):
                task.cancel()

    async def tick(self) -> None:
        """Let time pass: publish what has changed, plan copies, continue transfers."""
        now = self._host.now()
        if now - self._published_at >= _PUBLISH_SECONDS:
            self._published_at = now
            await self._publish()
        alive = self._host.members.alive()
        datasets = [each.objects for each in self._datasets.values()]
        copies = self._parts.copies
        if now - self._measured_at >= _MEASURE_SECONDS:
            self._measured_at = now
            self._copied_bytes = await asyncio.to_thread(self._measure)
        room = self._host.members.own.capacity - self._copied_bytes
        plan = copies.tick(now, datasets, self._candidates(now), alive, room)
        await self._perform(plan, copies.replication.replied)
        self._perform_transfers(copies.transfers.tick(now))

    def _measure(self) -> int:
        """Return the bytes of copies of other nodes' datasets."""
        sizes = {
            replica.object: replica.bytes
            for each in list(self._datasets.values())
            if each.writer != self._node
            for replica in each.objects.objects
        }
        return sum(size for name, size in sizes.items() if name in self._parts.objects)

    @property
    def copied_bytes(self) -> int:
        """Bytes of copies of other nodes' datasets, as measured last."""
        return self._copied_bytes

    def _candidates(self, now: float) -> list[Candidate]:
        """Return the nodes that count for placement.

        A lost one does for a while, and a writer as soon as it is seen: it has all its shards.
        """
        members = self._host.members
        limit = self._parts.copies.loss_seconds
        lost = [n for n, p in members.peers.items() if p.state == "dead" and now - p.since < limit]
        gone = {n for n, p in members.peers.items() if p.state in ("dead", "left")}
        known = {self._node, *members.peers}
        writers = {each.writer for each in self._datasets.values()} & (known - gone)
        found = []
        for node in sorted({*members.settled(now), *lost, *writers}):
            status = members.own if node == self._node else members.peers[node].status
            found.append(Candidate(node, status.zone, status.capacity))
        return found

    # Publishing

    async def _publish(self) -> None:
        try:
            described = await asyncio.to_thread(lambda: list(self._parts.shares.described()))
        except SennitError as error:
            _log.warning("nothing is published: %s", error)
            return
        own: set[str] = set()
        alive = self._host.members.alive()
        for audience, dataset, shared in described:
            item = None if shared is None else shared.to_json()
            self._host.put(self._host.logs.publish(dataset, item, audience, alive))
            if shared is not None:
                own.add(dataset)
                known = self._datasets.get(dataset)
                if known is None or known.shared != shared:
                    await self._note(shared, self._node)
        for dataset in [d for d, m in self._datasets.items() if m.writer == self._node]:
            if dataset not in own:
                self._withdraw(dataset)

    def _withdraw(self, dataset: str) -> None:
        """Withdraw a dataset of this node from all logs that have it."""
        self._datasets.pop(dataset, None)
        alive = self._host.members.alive()
        for key, each, _ in list(self._host.logs.items()):
            if key.publisher == self._node and each == dataset:
                self._host.put(self._host.logs.publish(dataset, None, key.audience, alive))

    # Adopting

    async def _apply(self, news: Published) -> None:
        writer = news.key.publisher
        if writer == self._node:
            return
        known = self._parts.catalog.find_known(news.dataset)
        if known is not None and known.node != writer:
            raise Denied("publishing a dataset that another node writes")
        if news.item is None:
            await self._forget(news.dataset)
            return
        shared = read_shared(news.item, news.dataset)
        if EVERYONE not in shared.nodes and self._node not in shared.nodes:
            raise Denied("publishing a dataset to a node that it is not shared with")
        if known is not None and known.head == shared.head and news.dataset in self._datasets:
            if self._datasets[news.dataset].shared != shared:
                await self._note(shared, writer)
            return
        await self._adopt(shared, writer, known)

    async def _adopt(self, shared: SharedDataset, writer: str, known: DatasetInfo | None) -> None:
        catalog = self._parts.catalog
        async with self._fetched([shared.manifest], writer, _METADATA_BYTES_MAX):
            stored = catalog.adopter.read_manifest(shared.manifest)
            lists = [each.object for each in stored.lists]
            async with self._fetched(lists, writer, _METADATA_BYTES_MAX):
                info = DatasetInfo(
                    shared.id, self._free_name(shared, writer, known),
                    f"{shared.owner}@{self._host.roster.name_of(writer)}", Schema(()),
                    created_at=shared.created_at, visibility="shared",
                    replication=shared.placement.factor, node=writer,
                )  # fmt: skip
                await asyncio.to_thread(self._take_over, info, shared.manifest)
        await self._note(shared, writer)

    def _take_over(self, info: DatasetInfo, manifest: str) -> None:
        self._parts.catalog.adopt(info, manifest)
        # Time travel reaches back as far as this; the writer has the rest.
        now = self._parts.catalog.manifest(info.id).created_at
        self._parts.retention.expire(info.id, keep=_VERSIONS_KEPT, before=now)

    def _free_name(self, shared: SharedDataset, writer: str, known: DatasetInfo | None) -> str:
        """Return the name of an adopted dataset here: its own, if no other has that."""
        if known is not None and known.name.partition("@")[0] == shared.name:
            return known.name
        other = self._parts.catalog.find_id(shared.name)
        is_free = other is None or other == shared.id
        return shared.name if is_free else f"{shared.name}@{self._host.roster.name_of(writer)}"

    async def _forget(self, dataset: str) -> None:
        self._datasets.pop(dataset, None)
        if self._parts.catalog.find_id(dataset) is not None:
            await asyncio.to_thread(self._parts.retention.delete_dataset, dataset)

    async def _note(self, shared: SharedDataset, writer: str) -> None:
        """Remember the objects of a shared dataset."""
        self._datasets[shared.id] = await asyncio.to_thread(self._mirrored, shared, writer)
        self._index()
        self._parts.copies.replication.soon()

    def _index(self) -> None:
        found: dict[str, list[tuple[SharedObjects, Replica]]] = {}
        for each in self._datasets.values():
            for replica in each.objects.objects:
                found.setdefault(replica.object, []).append((each.objects, replica))
        self._replicas = found

    def _mirrored(self, shared: SharedDataset, writer: str) -> _Mirrored:
        catalog = self._parts.catalog
        manifest = catalog.manifest(shared.id, shared.head)
        replicas = tuple(
            Replica(shard.object, _placement_key(shard), shard.bytes)
            for shard in manifest.snapshot.shards
        )
        nodes = self._host.roster.members if EVERYONE in shared.nodes else shared.nodes
        allowed = frozenset((*nodes, writer))
        objects = SharedObjects(writer, shared.placement, allowed, replicas)
        names: set[str] = set()
        sizes: dict[str, int] = {}
        for stored in catalog.snapshots(shared.id, limit=_VERSIONS_KEPT):
            names |= catalog.objects_of(shared.id, stored.snapshot.id)
            version = catalog.manifest(shared.id, stored.snapshot.id)
            sizes |= {shard.object: shard.bytes for shard in version.snapshot.shards}
        return _Mirrored(shared, writer, objects, frozenset(names), sizes)

    def holders(self, name: str) -> list[str]:
        """Return the live nodes that hold a shard, this node first if it does."""
        now, alive = self._host.now(), self._host.members.alive()
        found: list[str] = [self._node] if name in self._parts.objects else []
        for shared, replica in self._replicas.get(name, ()):
            live = self._parts.copies.replication.holders_of(shared, replica, alive, now)
            # The writer has all its shards, whether or not it was asked for this one.
            also = [shared.writer] if shared.writer in alive else []
            found += [node for node in (*live, *also) if node not in found]
        return found

    def known_holders(self, name: str) -> tuple[str, ...]:
        """Return the names of the nodes that are known to hold a shard, reachable or not."""
        now, roster = self._host.now(), self._host.roster
        found: dict[str, None] = {}
        for each in self._datasets.values():
            if name in each.sizes:
                found[each.writer] = None
        for shared, replica in self._replicas.get(name, ()):
            copies = self._parts.copies.replication
            found |= dict.fromkeys(copies.holders_of(shared, replica, roster.members, now))
        return tuple(map(roster.name_of, found))

    # Serving

    def may_have(self, peer: str, name: str) -> bool:
        """Return whether a node may have an object: whether a dataset with it is shared with it."""
        return any(
            name in each.names and peer in each.objects.nodes for each in self._datasets.values()
        )

    async def serve_have(self, session: Session, message: HaveRequest, _body: bytes) -> Piece:
        """Answer which objects this node has."""
        return self._parts.copies.have(message, lambda name: self.may_have(session.peer, name))

    async def serve_list(self, session: Session, message: ListRequest, _body: bytes) -> Piece:
        """Send the chunk hashes of an object."""
        self._check(session.peer, message.object)
        return await asyncio.to_thread(self._parts.copies.chunk_list, message)

    async def serve_chunk(self, session: Session, message: ChunkRequest, _body: bytes) -> Piece:
        """Send a chunk of an object."""
        self._check(session.peer, message.object)
        return await asyncio.to_thread(self._parts.copies.chunk, message)

    def serve_fragment(
        self, session: Session, message: FragmentRequest, _body: bytes
    ) -> AsyncGenerator[Piece, None]:
        """Run a part of a query over shards that are here."""
        return self._limited(serve_fragment(self._parts.fragments, self.may_have, session, message))

    async def _limited(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        async with aclosing(pieces):
            if self._fragments >= _FRAGMENTS_MAX:
                raise Busy("the node", hint="it runs too many parts of queries of other nodes")
            self._fragments += 1
            try:
                async for piece in pieces:
                    yield piece
            finally:
                self._fragments -= 1

    def _check(self, peer: str, name: str) -> None:
        # The same answer for an object that is not here and one that is not shared.
        if not self.may_have(peer, name):
            raise NotFound("object", name[:64], suggestion=None)

    # Fetching

    async def fetch(self, names: Collection[str]) -> None:
        """Fetch objects of shared datasets that this node lacks, for a query.

        Raises:
            Unavailable: No node that can be reached has one of them.
        """
        missing = [name for name in names if name not in self._parts.objects]
        alive = self._host.members.alive()
        sources: dict[str, list[str]] = {}
        sizes: dict[str, int] = {}
        for name in missing:
            for each in [m for m in self._datasets.values() if name in m.sizes]:
                sizes[name] = each.sizes[name]
                # Those that hold it as far as it is known, the writer, then any that may.
                may = [node for node in (each.writer, *alive) if node in each.objects.nodes]
                known = [*self.holders(name), *(node for node in may if node in alive)]
                sources.setdefault(name, []).extend(dict.fromkeys(known))
        found = [name for name in missing if sources.get(name)]
        results = await asyncio.gather(
            *(self._obtain(name, sources[name], sizes[name]) for name in found),
            return_exceptions=True,
        )
        problems = [each for each in results if isinstance(each, BaseException)]
        for problem in problems:
            if not isinstance(problem, Unavailable):
                raise problem
        obtained = {n for n, each in zip(found, results, strict=True) if each is None}
        lost = [name for name in missing if name not in obtained]
        if lost:
            raise ShardsUnavailable(
                f"{len(lost)} of {len(names)} shards",
                {name: self.known_holders(name) for name in lost},
                hint="no node that holds them can be reached; see `platform net nodes`",
            )

    @asynccontextmanager
    async def _fetched(
        self, names: Sequence[str], writer: str, size_max: int
    ) -> AsyncIterator[None]:
        """Fetch objects that no row references yet, and keep them until the context is left."""
        held = self._parts.retention.acquire(names)
        try:
            sources = [writer, *(n for n in self._host.members.alive() if n != writer)]
            missing = [name for name in names if name not in self._parts.objects]
            await asyncio.gather(*(self._obtain(name, sources, size_max) for name in missing))
            yield
        finally:
            self._parts.retention.release(held)

    async def _obtain(self, name: str, sources: Sequence[str], size_max: int) -> None:
        """Fetch an object now.

        Raises:
            Unavailable: No source has it.
        """
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(waiting)
        kept = await asyncio.to_thread(self._parts.copies.kept_chunks, name)
        transfers = self._parts.copies.transfers
        transfers.want(name, sources, priority=_FIRST, kept=kept, size_max=size_max)
        self._perform_transfers(transfers.tick(self._host.now()))
        await waiting

    def _perform_transfers(self, effects: Iterable[Effect]) -> None:
        task = asyncio.create_task(self._transfer_effects(list(effects)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _transfer_effects(self, effects: Sequence[Effect]) -> None:
        transfers = self._parts.copies.transfers
        calls = [effect for effect in effects if isinstance(effect, Call)]
        for call in calls:
            self._spawn_call(call, transfers.replied, transfers.failed)
        # In their order: the chunks of an object are written before it is complete.
        async with self._file_work:
            for effect in effects:
                if not isinstance(effect, Call):
                    await self._transfer_effect(effect)

    async def _transfer_effect(self, effect: Effect) -> None:
        copies = self._parts.copies
        match effect:
            case WriteChunk():
                await asyncio.to_thread(copies.write, effect)
            case ObjectComplete(name):
                problem: SennitError | None = None
                try:
                    await asyncio.to_thread(copies.complete, effect)
                except SennitError as error:
                    problem = error
                    _log.warning("the copy of object %s was not stored: %s", name[:16], error)
                self._settle(name, problem)
                copies.replication.soon()
            case ObjectUnobtainable(name, reason):
                await asyncio.to_thread(copies.forget, name)
                self._settle(name, Unavailable(f"object {name[:16]}", hint=reason or None))

    def _settle(self, name: str, problem: SennitError | None) -> None:
        for waiting in self._waiting.pop(name, []):
            if waiting.done():
                continue
            if problem is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(problem)

    def _spawn_call(
        self,
        call: Call,
        replied: Callable[[Replied, float], Iterable[Effect]],
        failed: Callable[[Failed, float], Iterable[Effect]],
    ) -> None:
        async def run() -> None:
            result = await self._host.call(call)
            now = self._host.now()
            effects = replied(result, now) if isinstance(result, Replied) else failed(result, now)
            self._perform_transfers(effects)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(
        self, effects: Iterable[object], replied: Callable[[Replied, float], None]
    ) -> None:
        """Perform the effects of a plan of copies."""
        for effect in effects:
            match effect:
                case Call():
                    self._spawn_question(effect, replied)
                case DropCopy(name):
                    await asyncio.to_thread(self._parts.copies.drop, [name])
                case _:
                    raise AssertionError(f"nothing performs {effect}")

    def _spawn_question(self, call: Call, replied: Callable[[Replied, float], None]) -> None:
        async def run() -> None:
            result = await self._host.call(call)
            if isinstance(result, Replied):
                with suppress(SennitError):  # it was too short: asked again later
                    replied(result, self._host.now())
            else:
                self._parts.copies.replication.failed(result)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def shared_copies(self) -> Iterator[tuple[str, SharedCopies]]:
        """Yield the id of each shared dataset, with its name here, its writer and its copies."""
        for dataset, state in self.states().items():
            info = self._parts.catalog.find_known(dataset)
            mirrored = self._datasets[dataset]
            name = mirrored.shared.name if info is None else info.name
            yield dataset, SharedCopies(name, mirrored.writer, state)

    def states(self) -> Mapping[str, CopyState]:
        """Return the state of the copies of each shared dataset."""
        now, alive = self._host.now(), self._host.members.alive()
        copies = self._parts.copies
        return {d: copies.state(each.objects, alive, now) for d, each in self._datasets.items()}


def _placement_key(shard: ShardInfo) -> str:
    """Return what a shard is placed by: its bucket, so that equal buckets are on the same nodes."""
    for key, value in shard.partition.items():
        if key.startswith("bucket("):
            buckets = key.removeprefix("bucket(").partition(",")[0]
            return f"bucket {buckets}/{value}"
    return shard.object
