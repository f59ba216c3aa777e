"""A simulated node that runs every machine of a real one: membership, logs, copies, queries.

What `lake.peers.exchange` does between the machines with threads and files, this does with a dictionary
as its disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from lake.peers.changes import forwarding
from lake.peers.copies import chunks, have_messages
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply, ListRequest
from lake.peers.copies.copy_states import CopyState
from lake.peers.copies.have_messages import HaveReply, HaveRequest, have_bits
from lake.peers.copies.placement import Candidate
from lake.peers.copies.replication import (
    DropCopy,
    FetchCopy,
    Pause,
    Replica,
    Replication,
    ReplicationOptions,
    SharedObjects,
    StopFetch,
)
from lake.peers.copies.transfers import (
    FindKept,
    ObjectComplete,
    ObjectUnobtainable,
    TransferOptions,
    Transfers,
    WriteChunk,
    at_most,
)
from lake.peers.handovers import messages as handover_messages
from lake.peers.members import membership, roster
from lake.peers.members.membership import Membership, MembershipOptions, PeerChanged
from lake.peers.members.roster import RosterNews
from lake.peers.members.roster_exchange import RosterChanged, RosterExchange
from lake.peers.members.statuses import NodeStatus
from lake.peers.queries.dispatch import Dispatch
from lake.peers.sharing import publications
from lake.peers.sharing.publication_log import LogKey
from lake.peers.sharing.publications import (
    EVERYONE,
    LogForked,
    PublicationOptions,
    Publications,
    Published,
    StoreLog,
)
from lake.peers.sharing.sharing import SharedDataset, read_shared
from lake.peers.transport.machine import Call, Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.signed import Statement
from lake.testing.simulation import Disk
from sennit_core.errors import Corrupt, NotFound, SennitError, Unsupported

from . import simulated_queries
from .simulated_appends import Appends
from .simulated_data import (
    CHUNK,
    EntrySigner,
    GossipSigner,
    StoredObject,
    Version,
    version_of,
)
from .simulated_hand_overs import Transfers as HandOverTransfers
from .simulated_queries import Part, PartReply, Queries, Query

if TYPE_CHECKING:
    from .simulated_world import World

# A tenth of the product's, so that a history is short.
MEMBERSHIP = MembershipOptions(compare_seconds=10.0, settled_seconds=2.0, flapping_seconds=20.0)
LOGS = PublicationOptions(compare_seconds=3.0, checkpoint_entries=6, renewal_seconds=5.0)
COPIES = ReplicationOptions(
    plan_seconds=1.0, confirm_seconds=6.0, loss_seconds=8.0, timeout_seconds=2.0
)
TRANSFERS = TransferOptions(timeout_seconds=3.0, wrong_seconds=20.0)
SCRUB_SECONDS = 5.0
ADOPT_SECONDS_MAX = 60.0
VERSIONS_KEPT = 4
MANIFEST_BYTES_MAX = 64 * 1024


CODEC = MessageCodec(
    (*membership.MESSAGES, *publications.MESSAGES, *have_messages.MESSAGES, *chunks.MESSAGES,
     *simulated_queries.MESSAGES, *forwarding.MESSAGES, *handover_messages.MESSAGES,
     *roster.MESSAGES)
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Pending:
    """A publication to be adopted, as in `lake.peers.sharing.adoption`."""

    news: Published
    retry_at: float = 0.0
    wait: float = 1.0


class SimulatedNode:
    """One life of a node, from a start to a crash."""

    dispatch: type[Dispatch] = Dispatch

    def __init__(self, world: World, name: str, disk: Disk) -> None:
        self.world, self.name, self.disk = world, name, disk
        self._log_key = LogKey(name)
        disk["number"] = disk.get("number", 0) + 1
        self.objects: dict[str, StoredObject] = disk.setdefault("objects", {})
        # Kept versions of each dataset, the newest last; who writes it, and how it is described.
        self.versions: dict[str, list[Version]] = disk.setdefault("versions", {})
        self.shared: dict[str, tuple[str, SharedDataset]] = disk.setdefault("shared", {})
        self.roster = world.revocations.roster_from(disk.setdefault("revocations", []))
        now, wall = world.simulation.clock(name), lambda: world.wall(name)
        random = Random(world.simulation.random.random())
        # Only in a network in which nodes are revoked: its messages would be most of the others'.
        self.spread = RosterExchange(self.roster, random) if world.size.revokes else None
        status = NodeStatus(name, disk["number"], zone=world.zones[name], capacity=1)
        self.members = Membership(
            status,
            GossipSigner(name),
            self.roster.is_member,
            random,
            MEMBERSHIP,
            now=now,
            wall=wall,
        )
        if "known" not in disk:
            disk["known"] = world.known_nodes(name)
        for statement in disk["known"]:
            self.members.add(statement)
        self.logs = Publications(
            name, EntrySigner(name), self.roster.is_member, random, LOGS,
            logs=disk.setdefault("logs", {}), wall=wall,
        )  # fmt: skip
        self.copies = Replication(name, lambda _, name: name in self.objects, COPIES)
        self.transfers = Transfers(TRANSFERS, now=now)
        # By publisher and dataset: what one says of a dataset replaces nothing that another says.
        self.pending: dict[tuple[str, str], Pending] = {}
        for key, dataset, item in self.logs.items():
            if key.publisher != name:
                self._expect(Published(key, dataset, item))
        self.queries = Queries(self, self.dispatch)
        self.appends = Appends(self)
        self.hand_overs = HandOverTransfers(self)
        self._adopting: dict[str, tuple[Published, SharedDataset]] = {}
        self._partial: dict[str, dict[int, bytes]] = disk.setdefault("partial", {})
        # What is to be done with the answer of each request of the process.
        self._calls: dict[int, tuple[Any, int, str]] = {}
        self._number = 0
        self._scrubbed_at = now
        self._noted = [self.objects_of(dataset) for dataset in self.shared]
        world.revocations.note(self)

    @property
    def is_revoked(self) -> bool:
        """Whether it knows that it was removed from the network."""
        return not self.roster.is_member(self.name)

    def accepts(self, peer: str) -> bool:
        """Return whether it keeps connections with a node, as `lake.peers.transport.network` does."""
        return self.roster.is_member(peer)

    # The process

    def tick(self, now: float) -> Iterator[Effect]:
        for stage in (
            self._tick_members,
            self._tick_datasets,
            self._tick_copies,
            self.queries.tick,
            self.appends.tick,
            self.hand_overs.tick,
        ):
            if self.world.is_up(self.name):  # it may crash in each
                yield from stage(now)

    def _tick_members(self, now: float) -> Iterator[Effect]:
        if self.is_revoked:
            return
        yield from self._own(self.members.tick(now))
        yield from self._own(self.logs.tick(now, self.members.alive()))
        if self.spread is not None:
            yield from self._own(self.spread.tick(now, self.members.peers))

    def _tick_datasets(self, now: float) -> Iterator[Effect]:
        for each in [each for each in self.pending.values() if each.retry_at <= now]:
            each.retry_at, each.wait = now + each.wait, min(2 * each.wait, ADOPT_SECONDS_MAX)
            self._adopt(each.news)
        yield from self._own(self._publish())

    def _tick_copies(self, now: float) -> Iterator[Effect]:
        if now - self._scrubbed_at > SCRUB_SECONDS:
            self._scrubbed_at = now
            self._scrub()
            self._expire()
            self.disk["known"] = [peer.statement for peer in self.members.peers.values()]
        if self.copies.is_due(now):
            nodes = self._candidates(now)
            plan = self.copies.tick(now, self._noted, nodes, self.members.alive())
            yield from self._own(plan, self.copies)
        yield from self._own(self.transfers.tick(now), self.transfers)

    def _candidates(self, now: float) -> list[Candidate]:
        """Return the nodes that count for placement, as `lake.peers.exchange` does."""
        peers = self.members.peers
        gone = {n for n, p in peers.items() if p.state == "dead" or not p.stays}
        lost = {n for n in gone if peers[n].stays and now - peers[n].since < COPIES.loss_seconds}
        writers = {writer for writer, _ in self.shared.values()} & ({self.name, *peers} - gone)
        nodes = sorted({*self.members.settled(now), *lost, *writers})
        return [Candidate(node, self.world.zones[node]) for node in nodes]

    def receive(self, peer: str, message: Message, now: float) -> Iterator[Effect]:
        if isinstance(message, roster.MESSAGES):
            if self.spread is not None:
                alive = self.members.alive()
                yield from self._own(self.spread.receive(peer, message, now, alive))
        elif isinstance(message, membership.MESSAGES):
            yield from self._own(self.members.receive(peer, message, now))
        else:
            yield from self._own(self.logs.receive(peer, message, self.members.alive()))

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        match message:
            case HaveRequest():
                names = [name for _, name in message.pairs]
                return HaveReply(), have_bits([self._claims(name) for name in names])
            case ListRequest(name):
                found = self._read(name)
                return ListReply(len(found.data), CHUNK), bytes.fromhex("".join(found.digests))
            case ChunkRequest(name, index, doubted=is_doubted):
                found = self._read(name, verifies=is_doubted)
                return Chunk(), found.data[index * CHUNK :][:CHUNK]
            case forwarding.ChangeRequest():
                return self.appends.serve(peer, message), b""
            case handover_messages.HandOverRequest() | handover_messages.HandOverRefusal():
                return self.hand_overs.serve(peer, message), b""
            case Part(_, names):
                shards, total = self.sum(names)
                return PartReply(shards, total), b""
        raise Unsupported(message.kind)

    def settled(self, result: Replied | Failed, now: float) -> Iterator[Effect]:
        owner, number, peer = self._calls.pop(result.id)
        if isinstance(result, Replied):
            self.world.revocations.answered(self.name, peer)
        if isinstance(owner, tuple) and owner[0] is self.hand_overs:
            self.hand_overs.ended(owner[1], owner[2], result)
            return
        if isinstance(owner, tuple):
            self.appends.ended(owner[1], number, result, now)
            return
        if isinstance(owner, Query):
            yield from self.queries.ended(owner, number, result, now)
            return
        if isinstance(result, Replied):
            reply = Replied(number, result.message, result.body)
            if owner is self.copies:
                with suppress(SennitError):  # it was too short: asked again later
                    self.copies.replied(reply)
            else:
                yield from self._own(self.transfers.replied(reply, now), owner)
        elif owner is self.copies:
            self.copies.failed(Failed(number, result.code, result.reason))
        else:
            failure = Failed(number, result.code, result.reason)
            yield from self._own(self.transfers.failed(failure, now), owner)

    def _own(self, effects: Iterable[Effect], owner: Any = None) -> Iterator[Effect]:
        """Perform what is not of the network; between any two effects the node may crash."""
        for effect in effects:
            if self.world.crashes_now(self.name):
                return
            match effect:
                case Send():
                    yield effect
                case Call(peer, number, message, seconds):
                    yield self.call(peer, message, seconds, owner, number)
                case FindKept() | WriteChunk():
                    yield from self._own(self._work(effect), owner)
                case RosterChanged(statements):
                    yield from self._note_members(statements)
                case _:
                    self._perform(effect)

    def revoke(self, other: str, now: float) -> Iterator[Effect]:
        """Remove another node from the network, as its admin does."""
        assert self.spread is not None, "nodes are revoked"
        before = len(self.roster.statements)
        self.roster.revoke(self.world.keys[self.name], other, now=self.world.wall(self.name))
        new = self.roster.statements[before:]
        self.world.revocations.statements[other] = new[0]
        yield from self._own(self.spread.changed(new, self.members.alive()))

    def _note_members(self, new: Iterable[Statement]) -> Iterator[Effect]:
        """Store revocations, forget the revoked nodes, and send them the proof before the connection ends."""
        self.disk["revocations"] = [*self.disk["revocations"], *new]
        for each in new:
            node = str(each.body["node"])
            self.members.forget(node)
            yield Send(node, RosterNews((each,)))
        self.copies.soon()
        self.world.revocations.note(self)

    def _work(self, effect: FindKept | WriteChunk) -> Iterable[Effect]:
        """Do what other threads do in a real node."""
        now = self.world.simulation.clock(self.name)
        chunks = self._partial.setdefault(effect.object, {})
        if isinstance(effect, FindKept):
            kept = {index: hashlib.sha256(data).hexdigest() for index, data in chunks.items()}
            return self.transfers.found_kept(effect, kept, now)
        is_right = self._is_right(effect)
        if is_right:
            chunks[effect.index] = bytes(effect.data)
        return self.transfers.written(effect, is_right=is_right, now=now)

    def _is_right(self, effect: WriteChunk) -> bool:
        return hashlib.sha256(effect.data).hexdigest() == effect.digest

    def call(self, peer: str, message: Message, seconds: float, owner: Any, number: int) -> Call:
        """Return a request, whose answer is for one of the machines, or a query."""
        self._number += 1
        self._calls[self._number] = (owner, number, peer)
        return Call(peer, self._number, message, seconds)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case PeerChanged():
                self.copies.soon()
            case StoreLog(key, entries, pruned):
                stored = [*self.disk["logs"].get(key, []), *entries]
                self.disk["logs"][key] = [e for e in stored if e.body["number"] >= pruned]
            case Published(key):
                if key.publisher != self.name:
                    self._expect(effect)
            case LogForked(key):
                self.world.forked.append((self.name, key.publisher))
            case _:
                self._perform_copy(effect)

    def _perform_copy(self, effect: Effect) -> None:
        match effect:
            case Pause():
                pass
            case FetchCopy(dataset, name, size, sources, copies):
                if sources:
                    self.transfers.want(
                        dataset, name, sources, priority=copies, admit=at_most(size)
                    )
            case StopFetch(dataset, name):
                self.transfers.cancel(dataset, name)
            case DropCopy(name):
                if not self.hand_overs.needs(name):
                    del self.objects[name]
            case ObjectComplete(dataset, name, _, _, digests):
                self.transfers.stored(dataset, name)
                chunks = self._partial.pop(name, {})
                self._store(name, b"".join(chunks[index] for index in range(len(digests))))
            case ObjectUnobtainable(dataset, name):
                self.copies.unobtainable(dataset, name)
                self._adopting.pop(name, None)
            case _:
                raise AssertionError(f"nothing performs {effect}")

    # Objects

    def _store(self, name: str, data: bytes) -> None:
        self.world.check(StoredObject.of(data).name == name, f"{name} was accepted with wrong data")
        self.objects[name] = self.world.contents[name]
        self.copies.soon()
        if name in self._adopting:
            self._adopted(name)

    def _read(self, name: str, *, verifies: bool = True) -> StoredObject:
        """Return an object that a peer or a query may read."""
        if not self._may_have(name):
            raise NotFound("object", name[:16], suggestion=None)
        return self._stored(name, verifies=verifies)

    def _stored(self, name: str, *, verifies: bool = True) -> StoredObject:
        found = self.objects.get(name)
        if found is None:
            raise NotFound("object", name[:16], suggestion=None)
        if verifies and not self.world.is_intact(found):
            self._quarantine(name)
            raise Corrupt(f"object {name[:16]}", "its content", "another")
        return found

    def _claims(self, name: str) -> bool:
        return name in self.objects and self._may_have(name) and not self.copies.is_leaving(name)

    def _may_have(self, name: str) -> bool:
        return any(name in v.names for versions in self.versions.values() for v in versions)

    def _scrub(self) -> None:
        for each in [e for e in self.objects.values() if not self.world.is_intact(e)]:
            self._quarantine(each.name)

    def _quarantine(self, name: str) -> None:
        del self.objects[name]
        self.copies.soon()

    def sum(self, names: Iterable[str]) -> tuple[int, int]:
        """Return the number of some shards and what a query counts of them."""
        found = [self._read(name) for name in names]
        return len(found), sum(each.total for each in found)

    # Datasets

    def head(self, dataset: str) -> Version | None:
        versions = self.versions.get(dataset)
        return versions[-1] if versions else None

    def commit(self, version: Version, shared: SharedDataset, writer: str) -> None:
        """Make a version the head, whose manifest is stored."""
        kept = self.versions.setdefault(version.dataset, [])
        if version not in kept:
            kept.append(version)
        self.shared[version.dataset] = (writer, shared)
        self._noted = [self.objects_of(dataset) for dataset in self.shared]
        self.copies.soon()

    def take(self, shared: SharedDataset) -> None:
        """Write a dataset from now on, which another node wrote."""
        self.shared[shared.id] = (self.name, shared)
        self.world.taken(self.name, self.versions[shared.id][-1])
        self._noted = [self.objects_of(dataset) for dataset in self.shared]

    def _expire(self) -> None:
        """Forget old versions of datasets whose newest one has all its copies."""
        for dataset, kept in self.versions.items():
            if len(kept) <= VERSIONS_KEPT or not self.copies_of(dataset).is_placed:
                continue
            before: set[str] = set().union(*(each.names for each in kept))
            del kept[:-VERSIONS_KEPT]
            current: set[str] = set().union(*(v.names for vs in self.versions.values() for v in vs))
            for name in before - current:
                self.objects.pop(name, None)

    def objects_of(self, dataset: str) -> SharedObjects:
        """Return what is to be copied of a dataset."""
        writer, shared = self.shared[dataset]
        shards = self.versions[dataset][-1].shards
        replicas = tuple(Replica(name, name, size) for name, size in shards)
        return SharedObjects(dataset, writer, shared.placement, None, replicas)

    def copies_of(self, dataset: str) -> CopyState:
        """Return what this node knows of the copies of a dataset, which its owner sees."""
        now, alive = self.world.simulation.clock(self.name), self.members.alive()
        shared = self.objects_of(dataset)
        return self.copies.state(shared, shared.objects, alive, now)

    def _publish(self) -> Iterator[Effect]:
        for dataset, (writer, shared) in self.shared.items():
            if writer == self.name:
                chain = self.hand_overs.chain_of(dataset)
                is_same = len(chain) == len(shared.handovers)
                signed = shared if is_same else replace(shared, handovers=chain)
                yield from self._describe(signed)
        for moved in self.hand_overs.moved():
            yield from self._describe(moved)

    def _describe(self, shared: SharedDataset) -> Iterator[Effect]:
        log = self.logs.logs.get(self._log_key)
        known = None if log is None else log.items.get(shared.id)
        state = (shared.manifest, len(shared.handovers))
        if known is None or (known["manifest"], len(known.get("handovers", ()))) != state:
            alive = self.members.alive()
            yield from self.logs.publish(shared.id, shared.to_json(), EVERYONE, alive)

    def _expect(self, news: Published) -> None:
        self.pending[news.key.publisher, news.dataset] = Pending(news)

    def _adopt(self, news: Published) -> None:
        """Adopt a publication if its manifest is here, else fetch that."""
        known = self.shared.get(news.dataset)
        try:
            shared = None if news.item is None else read_shared(news.item, news.dataset)
        except SennitError:
            return
        publisher = news.key.publisher
        if shared is None:
            is_frozen = self.hand_overs.is_frozen(news.dataset)
            if (known is None or known[0] == publisher) and not is_frozen:
                self.shared.pop(news.dataset, None)
            del self.pending[publisher, news.dataset]
            return
        try:
            found = self.hand_overs.follow(publisher, shared)
        except SennitError:
            return
        if found is None:  # it has handed the dataset over: the next writer describes it
            del self.pending[publisher, news.dataset]
            return
        shared = found[1]
        self._adopting[shared.manifest] = (news, shared)
        with suppress(SennitError):
            self._stored(shared.manifest)
            self._adopted(shared.manifest)
            return
        sources = [news.key.publisher, *self.members.alive()]
        self.transfers.want(
            news.dataset,
            shared.manifest,
            sources,
            by="adoption",
            priority=-1.0,
            admit=at_most(MANIFEST_BYTES_MAX),
        )

    def _adopted(self, manifest: str) -> None:
        news, shared = self._adopting.pop(manifest)
        pending = self.pending.get((news.key.publisher, news.dataset))
        if pending is None or pending.news is not news:  # there is a newer one
            return
        version = version_of(self.objects[manifest])
        try:  # it may have met another writer while the manifest was fetched
            found = self.hand_overs.follow(news.key.publisher, shared)
        except SennitError:
            return
        if found is None:
            return
        self.world.adopts(self.name, version)
        self.hand_overs.adopted(shared)
        self.commit(version, shared, news.key.publisher)
        del self.pending[news.key.publisher, news.dataset]
