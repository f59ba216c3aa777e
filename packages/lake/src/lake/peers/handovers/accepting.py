"""The taker of a hand-over: fetches all that it lacks of a dataset, asks its writer for it, and writes it from then on.

What is under way is a row (`lake.peers.handovers.rows`), so it goes on after a restart. The last step is one write: until
then the dataset is read as before, and the giver answers the same request again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from lake.access.quotas import Quotas
from lake.catalog.snapshots import METADATA_BYTES_MAX
from lake.distributed.foreign_users import is_foreign
from lake.objects.store import ObjectStore
from lake.peers.copies.downloads import Caller, Downloads
from lake.peers.copies.transfers import at_most
from lake.peers.handovers import steps
from lake.peers.handovers.giving import HandOverHost, HandOverParts
from lake.peers.handovers.handovers import HandOver
from lake.peers.handovers.messages import HandOverRefusal, HandOverReply, HandOverRequest
from lake.peers.handovers.rows import ACCEPTING, REFUSED, SETTLED, HandOverRow
from lake.peers.sharing.publications import EVERYONE
from lake.peers.sharing.shared_index import KnownDataset, SharedIndex
from lake.peers.sharing.sharing import DATASETS_MAX, SharedDataset, ShareInfo
from lake.peers.transport.machine import Call, Failed, Replied
from lake.peers.transport.signed import Statement
from lake.peers.transport.tasks import TaskSet
from sennit_core.errors import (
    Conflict,
    Denied,
    NotFound,
    SennitError,
    StorageFull,
    Unavailable,
    Unsupported,
    UsageError,
    error_from_json,
)
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo

__all__ = ["Taker"]

_log = get_logger(__name__)
_AT_ONCE = 16
_ASK_SECONDS = 30.0
_RETRY_SECONDS = (0.5, 60.0)
_REFUSED = ("not-found", "denied", "unsupported", "bad-input", "conflict")
"""Codes after which the writer will not hand the dataset over, unless it is asked to anew."""


@dataclass(slots=True, eq=False)
class _Attempts:
    """When a dataset is asked for again.

    Args:
        at: The next time, of the host's clock.
        wait: Seconds until the one after that.
        is_asked: Whether the giver may have signed already, so that a full quota ends nothing: if both nodes
            had stopped, none would write.
    """

    at: float = 0.0
    wait: float = _RETRY_SECONDS[0]
    is_asked: bool = False


class TakerHost(HandOverHost, Caller, Protocol):
    """What a taker needs of the network."""


class _Refusal(Exception):
    """The dataset will not be handed over."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Taker:
    """The hand-overs of which a node is the taker; used in one event loop.

    Args:
        host: The network.
        parts: The node.
        index: The shared datasets.
        downloads: Fetches objects.
        objects: The store.
        quotas: What users may store.
    """

    def __init__(
        self,
        host: TakerHost,
        parts: HandOverParts,
        index: SharedIndex,
        downloads: Downloads,
        objects: ObjectStore,
        quotas: Quotas,
    ) -> None:
        self._host = host
        self._parts = parts
        self._index = index
        self._downloads = downloads
        self._objects = objects
        self._quotas = quotas
        self._attempts: dict[str, _Attempts] = {}
        self._running: set[str] = set()
        self._tasks = TaskSet("hand-overs")

    def start(self) -> None:
        """Go on with what was under way; blocks.

        Raises:
            Corrupt: The rows cannot be read.
        """
        table = self._parts.table
        for dataset in (*table.under_way(ACCEPTING), *table.under_way(REFUSED)):
            # Whether it was asked before the end of this node is not known.
            self._attempts[dataset] = _Attempts(is_asked=True)

    async def end(self) -> None:
        """Stop; what is under way goes on after the next start."""
        await self._tasks.end()

    async def accept(self, dataset: str, owner: str) -> None:
        """Begin to accept a dataset that its writer has offered to this node.

        Args:
            dataset: Its id.
            owner: The user who is to own it.

        Raises:
            NotFound: It is no dataset of another node, or was not offered.
            Unavailable: Its writer cannot be reached.
            Unsupported: It is restricted or encrypted, or its writer is of an earlier version.
            Conflict: This node shares too many datasets.
            StorageFull: The user has no room for it.
            UsageError: The owner is no user of this node.
        """
        if not owner.strip() or owner.startswith("*@") or is_foreign(owner):
            raise UsageError(f"{owner!r} is no user of this node", hint="--owner USER names one")
        known = self._required(dataset)
        await self._ask(known.writer, HandOverRequest(dataset))
        if len(await asyncio.to_thread(self._parts.shares.all)) >= DATASETS_MAX:
            raise Conflict(f"this node shares {DATASETS_MAX} datasets, the most that are possible")
        await asyncio.to_thread(self._check_room, dataset, owner)
        async with self._parts.alone(dataset):
            await asyncio.to_thread(self._begin, dataset, known.writer, owner)
        before = self._attempts.get(dataset)
        self._attempts[dataset] = _Attempts(is_asked=before is not None and before.is_asked)

    def _check_room(self, dataset: str, owner: str) -> None:
        self._quotas.check_owner(owner, self._parts.catalog.get(dataset))

    def _required(self, dataset: str) -> KnownDataset:
        known = self._index.get(dataset)
        if known is None or known.writer == self._parts.node:
            raise NotFound("dataset of another node", dataset[:64], suggestion=None)
        if known.shared.restricted or known.shared.encrypted:
            raise Unsupported(
                f"accepting dataset {known.shared.name!r}, which is encrypted or has an access policy"
            )
        return known

    def _begin(self, dataset: str, writer: str, owner: str) -> None:
        table = self._parts.table
        with self._parts.catalog.writing():
            row, info = table.get(dataset), self._parts.catalog.get(dataset)
            if info.node != writer:
                raise Conflict(f"dataset {info.name!r} has another writer since", hint="try again")
            table.put(dataset, steps.accepted(row, writer, owner))

    async def undo(self, dataset: str) -> bool:
        """Stop accepting a dataset; return whether it was being accepted.

        The writer hears of it, and commits again. If it has signed already, this node does become the
        writer: else none would be.

        Args:
            dataset: Its id.
        """
        async with self._parts.alone(dataset):
            is_accepting = await asyncio.to_thread(
                self._note_refusal,
                dataset,
                "its administrator does not accept the dataset any more",
            )
        if is_accepting:
            self._attempts[dataset] = _Attempts(is_asked=True)
        return is_accepting

    def tick(self, now: float) -> None:
        """Let time pass.

        Args:
            now: Seconds that never run backwards.
        """
        for dataset, attempts in self._attempts.items():
            if attempts.at <= now and dataset not in self._running:
                self._running.add(dataset)
                self._tasks.spawn(self._run(dataset, attempts))

    async def _run(self, dataset: str, attempts: _Attempts) -> None:
        wait, attempts.wait = attempts.wait, min(attempts.wait * 2, _RETRY_SECONDS[1])
        try:
            if await self._step(dataset, attempts) and self._attempts.get(dataset) is attempts:
                del self._attempts[dataset]
        except SennitError as error:
            _log.warning("the hand-over of dataset %s: %s", dataset[:40], error)
        finally:
            attempts.at = self._host.now() + wait
            self._running.discard(dataset)

    async def _step(self, dataset: str, attempts: _Attempts) -> bool:
        """Go one step on; return whether nothing is under way any more."""
        row = await asyncio.to_thread(self._parts.table.get, dataset)
        if row.state == REFUSED:
            return await self._tell_refusal(dataset, row)
        if row.state != ACCEPTING:
            return True
        try:
            return await self._try(dataset, row, attempts)
        except _Refusal as error:
            _log.warning("dataset %s is not handed over: %s", dataset[:40], error.reason)
            async with self._parts.alone(dataset):
                await asyncio.to_thread(self._note_refusal, dataset, error.reason)
            attempts.wait = _RETRY_SECONDS[0]
            return False

    def _note_refusal(self, dataset: str, reason: str) -> bool:
        """Note that this node does not want a dataset that it accepts; return whether it did."""
        with self._parts.catalog.writing():
            row = self._parts.table.get(dataset)
            if row.state == ACCEPTING:
                self._parts.table.put(dataset, steps.refused(row, reason))
            return row.state in (ACCEPTING, REFUSED)

    async def _tell_refusal(self, dataset: str, row: HandOverRow) -> bool:
        """Tell the writer that this node refuses, until it answers; return whether that was all."""
        call = Call(row.peer, 0, HandOverRefusal(dataset, row.refusal), _ASK_SECONDS)
        result = await self._host.call(call)
        is_known = isinstance(result, Replied) or result.code in _REFUSED
        if not is_known and self._host.roster.is_member(row.peer):
            return False
        is_signed = isinstance(result, Replied) and bool(getattr(result.message, "chain", ()))
        async with self._parts.alone(dataset):
            await asyncio.to_thread(self._end_refusal, dataset, is_signed)
        return not is_signed

    def _end_refusal(self, dataset: str, is_signed: bool) -> None:
        with self._parts.catalog.writing():
            row = self._parts.table.get(dataset)
            if row.state == REFUSED:
                again = steps.accepted(row, row.peer, row.owner)
                new = again if is_signed else steps.ended(row, row.refusal)
                self._parts.table.put(dataset, new)

    async def _try(self, dataset: str, row: HandOverRow, attempts: _Attempts) -> bool:
        """Go one step on; return whether this node writes the dataset now."""
        known = self._index.get(dataset)
        if known is None:  # its manifest is being fetched, or it was withdrawn: its row goes then
            return False
        try:
            self._required(dataset)
        except (NotFound, Unsupported) as error:
            raise _Refusal(str(error)) from None
        manifest = known.shared.manifest
        await self._obtain(known)
        try:
            if not attempts.is_asked:  # versions came since it was accepted
                await asyncio.to_thread(self._check_room, dataset, row.owner)
        except StorageFull as error:
            raise _Refusal(str(error)) from None
        attempts.is_asked = True
        try:
            chain = await self._ask(known.writer, HandOverRequest(dataset, manifest))
        except SennitError as error:
            if error.code in _REFUSED:
                raise _Refusal(str(error)) from None
            raise
        if not chain:
            # The writer has stopped, or commits go on: what is missing is published already.
            attempts.wait = _RETRY_SECONDS[0]
            return False
        async with self._parts.alone(dataset):
            await asyncio.to_thread(self._write, known.shared, row.owner, chain)
        self._parts.changed()
        return True

    async def _ask(self, writer: str, message: HandOverRequest) -> tuple[Statement, ...]:
        result = await self._host.call(Call(writer, 0, message, _ASK_SECONDS))
        if isinstance(result, Failed):
            name = self._host.roster.name_of(writer)
            if result.code == "not-found":
                raise NotFound(
                    "dataset offered to this node", message.dataset, suggestion=None,
                    hint=f"at node {name}: platform hand-over NAME --to NODE",
                )  # fmt: skip
            if result.code not in _REFUSED:
                raise Unavailable(f"node {name}, which writes the dataset", hint=result.reason)
            raise error_from_json({"code": result.code, "error": f"node {name}: {result.reason}"})
        if not isinstance(result.message, HandOverReply):
            raise Unsupported(
                "the answer to a hand-over", hint="the nodes are of different versions"
            )
        return result.message.chain

    # Objects

    async def _obtain(self, known: KnownDataset) -> None:
        """Fetch all objects of the kept versions which this node has not as those of the dataset."""
        dataset = known.shared.id
        missing = await asyncio.to_thread(self._missing, dataset)
        alive = self._host.members.alive()
        others = [n for n in alive if n != known.writer and known.objects.may_hold(n)]
        sources = [known.writer, *others]
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            await asyncio.gather(
                *(
                    self._downloads.obtain(
                        dataset, name, sources, at_most(known.sizes.get(name, METADATA_BYTES_MAX))
                    )
                    for name in part
                )
            )

    def _missing(self, dataset: str) -> list[str]:
        held = self._downloads.copies.held
        return [
            name
            for name in sorted(self._needed(dataset))
            if name not in self._objects or not held.was_received(dataset, name)
        ]

    def _needed(self, dataset: str) -> Collection[str]:
        catalog = self._parts.catalog
        versions = catalog.snapshots(dataset)
        return {name for each in versions for name in catalog.objects_of(dataset, each.snapshot.id)}

    # The last step

    def _write(self, shared: SharedDataset, owner: str, chain: tuple[Statement, ...]) -> None:
        """Become the writer, in one write."""
        parts, dataset = self._parts, shared.id
        with parts.catalog.writing():
            info, row = parts.catalog.get(dataset), parts.table.get(dataset)
            if row.state != ACCEPTING or info.node is None or info.head is None:
                raise Conflict(f"dataset {info.name!r} is not being handed over any more")
            term = parts.terms.follow(dataset, info, parts.node, chain, self._host.wall())
            if term is None or not chain:
                raise Denied("accepting a dataset by statements that end at another node")
            last = HandOver.from_known(chain[-1].body)
            head, _ = parts.catalog.adopter.manifest_of(info, info.head)
            missing = self._missing(dataset)
            if last.manifest != head or missing:
                raise Unavailable(
                    f"{len(missing)} objects of the last version of dataset {info.name!r}"
                )
            nodes = shared.nodes
            if EVERYONE not in nodes:
                nodes = tuple({n: None for n in (*nodes, last.giver) if n != parts.node})
            share = ShareInfo(dataset, nodes, shared.placement, shared.read_only)
            forked = shared.fork and parts.shares.forks.change(dataset, shared.fork)
            parts.catalog.adopter.put(
                replace(info, node=None, owner=owner, name=self._name(info), replication=1),
                parts.table.change(dataset, HandOverRow(SETTLED, chain)),
                parts.shares.change(dataset, share),
                *([forked] if forked else []),
            )

    def _name(self, info: DatasetInfo) -> str:
        """Return the name of a dataset without that of its former writer, if it is free."""
        name = info.name.partition("@")[0]
        return name if self._parts.catalog.find_id(name) in (None, info.id) else info.name
