"""Adopts the datasets that other nodes publish: rows of the catalog, with their manifests.

What is to be adopted follows from the logs (`lake.peers.sharing.publications`), and is compared with the catalog, so
nothing depends on having seen each change: a publication stays pending until it was adopted, and what no log publishes
is forgotten.

    logs ──▶ pending (publisher, dataset) ──▶ manifest and lists fetched ──▶ row of the catalog
                     ▲          │
                     └─ later ──┘ the publisher is away, the disk is full, …
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

from elkyn.records import Change
from lake.access.policies import Policies
from lake.catalog.catalog import Catalog
from lake.maintenance.retention import Retention
from lake.peers.copies.downloads import Downloads
from lake.peers.copies.transfers import at_most
from lake.peers.handovers.handovers import HandOver
from lake.peers.handovers.rows import ACCEPTING, SETTLED, SIGNED, STOPPED, Terms
from lake.peers.members.membership import Membership
from lake.peers.members.roster import Roster
from lake.peers.sharing.forgotten_datasets import ForgottenDatasets, check_removed
from lake.peers.sharing.held import HeldObjects
from lake.peers.sharing.metadata import MetadataUse
from lake.peers.sharing.publications import EVERYONE, LogKey, Publications
from lake.peers.sharing.shared_index import KnownDataset, SharedIndex, read_known
from lake.peers.sharing.sharing import (
    DATASETS_MAX,
    VERSIONS_KEPT,
    SharedDataset,
    Shares,
    read_shared,
)
from lake.peers.transport.tasks import TaskSet
from sennit_core.errors import Conflict, Corrupt, Denied, NotFound, SennitError
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo

__all__ = ["Adoption", "AdoptionHost"]

_log = get_logger(__name__)
_ADOPT_SECONDS = 120.0
_RESTORE_SECONDS = 60.0
_RETRY_SECONDS = (1.0, 600.0)
_AT_ONCE = 8
"""Publishers whose datasets are adopted at the same time: one that answers slowly delays no other."""
_VERSIONS_MAX = 8 * VERSIONS_KEPT
_OF_NODE_MAX = 2 * DATASETS_MAX
"""A dataset and its ciphertext are two. Each one more costs a row here, and all lists of datasets."""


class AdoptionHost(Protocol):
    """What adoption needs of the network."""

    roster: Roster
    members: Membership
    logs: Publications

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def wall(self) -> float:
        """Return Unix seconds."""
        ...


@dataclass(slots=True, eq=False)
class _Pending:
    """A dataset to be compared with the logs. `retry_at` and `wait` delay it after a failure."""

    retry_at: float = 0.0
    wait: float = _RETRY_SECONDS[0]


class Adoption:
    """Adopts what other nodes publish; used in one event loop.

    Args:
        node: This node's id.
        host: The network.
        catalog: The datasets.
        retention: Deletes what is not shared any more.
        policies: Say what users see of restricted datasets.
        shares: What this node shares.
        terms: Who writes a dataset.
        forgotten: The datasets of removed nodes that were deleted here.
        index: The shared datasets.
        downloads: Fetches manifests.
        metadata: Limits what one publisher may cause.
        changed: Called after a dataset was adopted or forgotten.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        node: str,
        host: AdoptionHost,
        catalog: Catalog,
        retention: Retention,
        policies: Policies,
        shares: Shares,
        terms: Terms,
        forgotten: ForgottenDatasets,
        index: SharedIndex,
        downloads: Downloads,
        metadata: MetadataUse,
        changed: Callable[[], object],
    ) -> None:
        self._node = node
        self._host = host
        self._catalog = catalog
        self._retention = retention
        self._policies = policies
        self._shares = shares
        self._terms, self._handovers = terms, terms.table
        self._forgotten = forgotten
        self._index = index
        self._downloads = downloads
        self._metadata = metadata
        self._changed = changed
        # Adopted ones that may have more versions than are kept.
        self._with_old_versions: set[str] = set()
        # Manifests and lists of the datasets that are being adopted, or could not be adopted yet.
        self._fetched: dict[str, set[str]] = {}
        self.contested: dict[tuple[str, str], str] = {}
        """Names of datasets here, by their id and another node that publishes it too."""
        # When something was lost of a dataset, and fetched as far as possible.
        self._restored_at: dict[str, float] = {}
        # By publisher, and then by dataset.
        self._pending: dict[str, dict[str, _Pending]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # One task for each publisher at a time: its datasets are adopted one after the other.
        self._running: set[str] = set()
        self._tasks = TaskSet("adopting datasets")
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def alone(self, dataset: str) -> asyncio.Lock:
        """Return a lock that is held while it is decided who writes a dataset."""
        return self._locks.setdefault(dataset, asyncio.Lock())

    def expect(self, publisher: str, dataset: str) -> None:
        """Compare a dataset with what its publisher says of it, at the next tick."""
        if publisher != self._node:
            self._pending.setdefault(publisher, {})[dataset] = _Pending()

    async def expect_lost(self) -> None:
        """Fetch what is not here any more of the manifests and lists that were adopted.

        A scrub has moved it into quarantine, or a file was removed.
        """

        def lost() -> list[tuple[str, str]]:
            others = (each for each in self._index if each.writer != self._node)
            return [(each.writer, each.shared.id) for each in others if self._lost(each)]

        now = self._host.now()
        for writer, dataset in await asyncio.to_thread(lost):
            # No node may have what is lost of a version that the writer has expired.
            if now - self._restored_at.get(dataset, -_RESTORE_SECONDS) >= _RESTORE_SECONDS:
                self._restored_at[dataset] = now
                self.expect(writer, dataset)

    def _lost(self, known: KnownDataset) -> list[str]:
        is_here = self._downloads.copies.held.is_here
        return [name for name in (*known.versions, *known.lists) if not is_here(name)]

    async def _restore(self, known: KnownDataset) -> None:
        """Fetch what is lost of a dataset's manifests and lists, as far as a node has it."""
        downloads = self._downloads
        admit = at_most(self._metadata.limits.object_bytes)
        for name in self._lost(known):
            with suppress(SennitError):  # the writer has expired that version
                sources = self._sources(known.writer)
                async with downloads.held(known.shared.id, {name: admit}, sources):
                    _log.info("object %s of dataset %s is back", name[:16], known.shared.name)

    def _sources(self, writer: str) -> list[str]:
        return [writer, *(node for node in self._host.members.alive() if node != writer)]

    async def start(self) -> None:
        """Compare all that is published, and all datasets of other nodes that are here.

        Raises:
            Corrupt: The catalog cannot be read.
        """
        for key, dataset, _ in self._host.logs.items():
            self.expect(key.publisher, dataset)
        for info in await asyncio.to_thread(self._catalog.list):
            # A log of a member that is damaged or lost here says nothing until others have sent it.
            if info.node is not None and (
                info.node not in self._host.roster.members or self._host.logs.is_whole(info.node)
            ):
                self.expect(info.node, info.id)

    def published_here(self, dataset: str) -> tuple[str, SharedDataset] | None:
        """Return the writer of a dataset that is shared with this node, and what it says of it.

        None if no node shares it, or two nodes do and neither was adopted.
        """
        known = self._catalog.find_known(dataset)
        publishers = {key.publisher for key in self._host.logs.logs} - {self._node}
        found = []
        for publisher in publishers if known is None else publishers & {known.node}:
            shared = self._published(publisher, dataset)
            if shared is not None and not {EVERYONE, self._node}.isdisjoint(shared.nodes):
                found.append((publisher, shared))
        return found[0] if len(found) == 1 else None

    def tick(self, now: float) -> None:
        """Let time pass.

        Args:
            now: Seconds that never run backwards.
        """
        for publisher, pending in self._pending.items():
            due = [dataset for dataset, each in pending.items() if each.retry_at <= now]
            if due and publisher not in self._running:
                self._running.add(publisher)
                self._tasks.spawn(self._run(publisher, due))

    async def end(self) -> None:
        """Stop."""
        await self._tasks.end()

    async def _run(self, publisher: str, due: Sequence[str]) -> None:
        try:
            for dataset in due:
                async with self._slots:
                    await self._try(publisher, dataset)
        finally:
            self._running.discard(publisher)

    async def _try(self, publisher: str, dataset: str) -> None:
        pending = self._pending[publisher]
        entry, wait = pending[dataset], pending[dataset].wait
        entry.wait = min(wait * 2, _RETRY_SECONDS[1])
        try:
            async with asyncio.timeout(_ADOPT_SECONDS), self.alone(dataset):
                await self._compare(publisher, dataset)
        except (SennitError, TimeoutError) as error:
            await asyncio.to_thread(self._note_fetched, publisher, dataset)
            if wait == _RETRY_SECONDS[0]:
                _log.warning("dataset %s of node %s: %s", dataset[:40], publisher[:16], error)
        else:
            # Unless there was news of it meanwhile.
            if pending[dataset] is entry:
                del pending[dataset]
        finally:
            entry.retry_at = self._host.now() + wait

    def _note_fetched(self, publisher: str, dataset: str) -> None:
        """Count what was fetched of a dataset that could not be adopted."""
        fetched = self._fetched.get(dataset)
        if fetched is not None:
            known = self._index.get(dataset)
            names = set() if known is None else {*known.versions, *known.lists}
            shards = self._metadata.shards_of(dataset)
            self._metadata.note(dataset, publisher, names | fetched, shards)

    async def _compare(self, writer: str, dataset: str) -> None:
        """Adopt, or forget, a dataset as the logs say."""
        known = self._catalog.find_known(dataset)
        shared = self._published(writer, dataset)
        self.contested.pop((dataset, writer), None)
        if shared is None:
            # What this node hands over is its own until the other node publishes it.
            is_frozen = known is not None and self._handovers.is_frozen(dataset)
            if (known is None or known.node == writer) and not is_frozen:
                await self._forget(dataset)
            return
        if known is None and await asyncio.to_thread(self._forgotten.has, dataset, writer):
            return
        # Also one that this node has never had: the next writer may never publish it.
        if known is None or known.node == writer:
            shared = _until_followed(shared, writer)
        if known is not None and self._is_replaced(shared, writer, known):
            await self._forget(dataset)  # the node that was first has been revoked
            known = None
        term = self._terms.follow(dataset, known, writer, shared.handovers, self._host.wall())
        if term is None:
            return  # it has handed the dataset over: the next writer describes it
        if EVERYONE not in shared.nodes and self._node not in shared.nodes:
            raise Denied("publishing a dataset to a node that it is not shared with")
        self._check_count(writer, known)
        if not shared.restricted and shared.version < term.version:
            raise Denied("publishing a version from before it wrote the dataset")
        if known is not None and known.node is None:
            self._check_history(shared, known)
        await self._follow(shared, writer, known)

    def _is_replaced(self, shared: SharedDataset, writer: str, known: DatasetInfo) -> bool:
        """Return whether a dataset is of a node that was revoked, and another one may publish it.

        Raises:
            Denied: Another node writes it.
        """
        dataset, wall = shared.id, self._host.wall()
        try:
            self._terms.follow(dataset, known, writer, shared.handovers, wall)
        except Denied:
            is_own = known.node in (None, writer) or self._handovers.is_frozen(dataset)
            if not is_own and not self._host.roster.is_member(known.node or ""):
                return True
            if known.node != writer:
                self.contested[dataset, writer] = known.name
            raise
        return False

    def _check_count(self, writer: str, known: DatasetInfo | None) -> None:
        if known is None and sum(each.writer == writer for each in self._index) >= _OF_NODE_MAX:
            raise Denied(f"publishing more than {_OF_NODE_MAX} datasets")

    def _check_history(self, shared: SharedDataset, known: DatasetInfo) -> None:
        """Refuse to follow a hand-over of this node that it does not remember, if that loses a version.

        It was restored from a backup of before, and may have made versions since.
        """
        head = "" if known.head is None else self._catalog.adopter.manifest_of(known, known.head)[0]
        last = HandOver.from_known(shared.handovers[-1].body)
        if head not in (last.manifest, shared.manifest, *shared.manifests):
            raise Conflict(
                f"this node has handed dataset {known.name!r} over, and has another version of it",
                hint="it was restored from a backup: platform fork keeps its rows, then delete it",
            )

    def _has_news(self, shared: SharedDataset) -> bool:
        """Return whether a dataset was handed over since it was adopted."""
        row = self._handovers.get(shared.id)
        return row.chain != shared.handovers or row.state in (STOPPED, SIGNED)

    async def _follow(self, shared: SharedDataset, writer: str, known: DatasetInfo | None) -> None:
        """Make the catalog and the index what a writer says of a dataset."""
        dataset, before = shared.id, self._index.get(shared.id)
        if shared.restricted:
            if known is None or before is None or before.shared != shared:
                self._index.remove(dataset)
                await asyncio.to_thread(self._list_restricted, shared, writer, known)
        else:
            if before is not None:
                await self._restore(before)
            if (
                known is None
                or (known.head, known.node) != (shared.head, writer)
                or not self._has_manifest(known, shared)
                or self._has_news(shared)
            ):
                await self._adopt(shared, writer, known)
            if shared.manifests:
                await asyncio.to_thread(self._expire_others, shared)
        found = self._index.get(dataset)
        if found is None or found.shared != shared:
            found = await asyncio.to_thread(read_known, self._catalog, shared, writer, before)
            self._index.put(found)
        self._index.versions.note(dataset, shared.version)
        if found is not before:
            await asyncio.to_thread(self._downloads.copies.held.keep, dataset, found.names)
            metadata = (*found.versions, *found.lists)
            shards = len(found.objects.objects)
            await asyncio.to_thread(self._metadata.note, dataset, writer, metadata, shards)
            self._fetched.pop(dataset, None)
            self._changed()

    def _expire_others(self, shared: SharedDataset) -> None:
        """Forget the versions that the writer has no more: no node sends their shards.

        After a purge of the writer that is all that has the purged rows, as each manifest is another one
        then. The head alone does not show it: it may be a version that was committed after the purge.
        """
        adopter, current = self._catalog.adopter, {shared.manifest, *shared.manifests}
        is_purged = shared.purges > adopter.purge_count(shared.id)
        self._retention.expire_others(shared.id, current, purged=is_purged)
        if is_purged:  # after all is gone, as a crash in between repeats it
            adopter.note_purges(shared.id, shared.purges)

    def _has_manifest(self, known: DatasetInfo, shared: SharedDataset) -> bool:
        # The manifest too: a purge of the writer replaces it, and the snapshot's id stays.
        if known.head != shared.head:
            return False
        with suppress(Corrupt):  # its row is lost: adopted anew
            return self._catalog.adopter.manifest_of(known, shared.head)[0] == shared.manifest
        return False

    def _published(self, publisher: str, dataset: str) -> SharedDataset | None:
        """Return what a publisher says of a dataset; None if it is withdrawn.

        While a publisher moves it to another log it is in both, and the newer description counts; or
        the one for this node alone, if that restricts it.
        """
        found = []
        for audience in (EVERYONE, self._node):
            log = self._host.logs.logs.get(LogKey(publisher, audience))
            item = None if log is None else log.items.get(dataset)
            if item is not None:
                found.append(read_shared(item, dataset))
        return max(found, key=lambda each: (each.restricted, each.version), default=None)

    async def _adopt(self, shared: SharedDataset, writer: str, known: DatasetInfo | None) -> None:
        downloads, sources = self._downloads, self._sources(writer)
        own = self._index.get(shared.id)
        if own is not None and own.writer == self._node:
            # This node wrote it: so far its objects needed no proof of where they are from.
            await asyncio.to_thread(downloads.copies.held.note_own, shared.id, own.names)

        budget = self._metadata.budget(writer)

        def held(names: Sequence[str]) -> AbstractAsyncContextManager[None]:
            return downloads.held(shared.id, dict.fromkeys(names, budget.admit), sources)

        if shared.manifest not in self._fetched.get(shared.id, ()):
            self._begin(shared.id, {shared.manifest})
        async with held([shared.manifest]):
            stored = self._catalog.adopter.read_manifest(shared.manifest)
            is_here = downloads.copies.held.is_here
            lists = sum(not is_here(name) for name in stored.list_objects)
            self._begin(shared.id, {shared.manifest, *stored.list_objects})
            budget.check(lists, stored.shards - self._metadata.shards_of(shared.id))
            async with held(stored.list_objects):
                # Before the row: who sees that may ask for shards at once.
                before = self._index.get(shared.id)
                found = await asyncio.to_thread(read_known, self._catalog, shared, writer, before)
                self._index.put(found)
                info = self._row(shared, writer, known)
                try:
                    await asyncio.to_thread(self._write, info, shared, known)
                except BaseException:
                    self._index.remove(shared.id)
                    if before is not None:
                        self._index.put(before)
                    raise

    def _begin(self, dataset: str, names: set[str]) -> None:
        """Note which objects are fetched, which count even if the dataset is not adopted.

        Those of another attempt are deleted, as a publisher may go on to the next manifest each time.
        """
        earlier = self._fetched.get(dataset, set()) - names
        self._fetched[dataset] = names
        if earlier:
            self._retention.discard(earlier)

    def _row(self, shared: SharedDataset, writer: str, known: DatasetInfo | None) -> DatasetInfo:
        return DatasetInfo(
            shared.id, self._free_name(shared, writer, known),
            f"{shared.owner}@{self._host.roster.name_of(writer)}", shared.columns,
            created_at=shared.created_at, visibility="shared",
            replication=1 if shared.restricted else shared.placement.factor,
            encrypted=shared.encrypted, node=writer,
        )  # fmt: skip

    def _list_restricted(
        self, shared: SharedDataset, writer: str, known: DatasetInfo | None
    ) -> None:
        """List a dataset whose rows are read at its writer; what is here of it is dropped."""
        # First, so that no user sees a name or a column that the writer hides.
        self._policies.adopt(shared.id, shared.rules, writer)
        if known is not None and known.head is not None:
            self._downloads.copies.held.forget(shared.id)
        row = self._row(shared, writer, known)
        self._retention.discard(self._catalog.adopt(row, None, *self._settled(shared)))

    def _settled(self, shared: SharedDataset) -> list[Change]:
        """Return what is noted in one write with the adoption of a dataset that was handed over."""
        row, share = self._handovers.get(shared.id), self._shares.get(shared.id)
        if row.chain == shared.handovers and row.state not in (STOPPED, SIGNED):
            return []
        audiences = row.audiences if share is None else share.audiences
        state = ACCEPTING if row.state == ACCEPTING else SETTLED
        peer = row.peer if state == ACCEPTING else ""
        new = replace(row, state=state, peer=peer, chain=shared.handovers, audiences=audiences)
        return [
            self._handovers.change(shared.id, new),
            *([] if share is None else [self._shares.change(shared.id, None)]),
        ]

    def _write(self, info: DatasetInfo, shared: SharedDataset, known: DatasetInfo | None) -> None:
        manifest = shared.manifest
        if info.encrypted:  # listed for admins alone
            self._policies.adopt(info.id, (), info.node or "")
        elif known is not None and known.head is None:
            # It was restricted. First, as who sees the row with all columns may ask for all; until then
            # its rows are read at the writer, which applies its own policy.
            self._policies.remove(info.id)
        purged = self._catalog.adopt(info, manifest, *self._settled(shared))
        if purged:
            # The manifests of all earlier versions were replaced too, and have what was removed.
            self._retention.expire_others(info.id, {manifest})
            self._retention.discard(purged)
        self._with_old_versions.add(info.id)
        if self._catalog.adopter.count_of(info.id) > _VERSIONS_MAX:
            # A writer that publishes faster than copies are made: rows that only it has would be lost.
            self._forget_versions(info.id)

    async def expire(self, is_placed: Callable[[str], Awaitable[bool]]) -> None:
        """Forget old versions of the datasets whose newest one is on all nodes that are to hold it.

        Before that, rows that are lost with the writer may be in no other version.

        Args:
            is_placed: Says that of a dataset.
        """
        for dataset in list(self._with_old_versions):
            if await is_placed(dataset):
                self._with_old_versions.discard(dataset)
                with suppress(NotFound):  # deleted meanwhile
                    await asyncio.to_thread(self._forget_versions, dataset)

    def _forget_versions(self, dataset: str) -> None:
        # Time travel reaches back as far as this; the writer has the rest.
        info = self._catalog.find_known(dataset)
        if info is not None and info.node is not None:  # else it was handed over to this node
            keep = 1 if info.encrypted else VERSIONS_KEPT
            newest = self._catalog.manifest(dataset).created_at
            self._retention.expire(dataset, keep=keep, before=newest, is_own=False)

    def _free_name(self, shared: SharedDataset, writer: str, known: DatasetInfo | None) -> str:
        """Return the name of an adopted dataset here: its own, if no other has that."""
        if known is not None and known.name.partition("@")[0] == shared.name:
            return known.name
        other = self._catalog.find_id(shared.name)
        is_free = other is None or other == shared.id
        return shared.name if is_free else f"{shared.name}@{self._host.roster.name_of(writer)}"

    async def delete(self, dataset: str) -> DatasetInfo:
        """Delete a dataset whose writer was removed from the network, with its copies here.

        The other nodes keep it.

        Args:
            dataset: Its id or name.

        Raises:
            NotFound: There is none.
            Denied: Its writer was not removed.
        """
        roster = self._host.roster
        dataset = (await asyncio.to_thread(self._catalog.get, dataset)).id
        async with self.alone(dataset):
            known = await asyncio.to_thread(self._catalog.get, dataset)
            writer = known.node or ""
            check_removed(known, roster.name_of(writer), is_member=roster.is_member(writer))
            # First: after a crash in between it is still listed, and can be deleted again.
            await asyncio.to_thread(self._forgotten.add, dataset, writer)
            await self._forget(dataset)
        return known

    async def _forget(self, dataset: str) -> None:
        self._index.remove(dataset)
        self._metadata.forget(dataset)
        self._restored_at.pop(dataset, None)
        self._retention.discard(self._fetched.pop(dataset, set()))
        for other, publisher in self.contested:
            if other == dataset:  # it may be this one's
                self.expect(publisher, dataset)
        await asyncio.to_thread(
            forget_adopted, self._retention, self._policies, self._downloads.copies.held, dataset
        )
        await asyncio.to_thread(self._handovers.remove, dataset)
        self._changed()


def _until_followed(shared: SharedDataset, writer: str) -> SharedDataset:
    """Return the last description of a writer that has handed a dataset over as it was before.

    It is read as that writer says until the next one publishes it, also by a node that starts meanwhile.
    """
    is_last = shared.manifest and shared.handovers and shared.handovers[-1].signer == writer
    return replace(shared, handovers=shared.handovers[:-1]) if is_last else shared


def forget_adopted(
    retention: Retention, policies: Policies, held: HeldObjects, dataset: str
) -> None:
    """Delete a dataset that another node writes, with its copies here."""
    with suppress(NotFound):  # it may never have been adopted
        retention.delete_dataset(dataset)
    policies.remove(dataset)
    held.forget(dataset)
