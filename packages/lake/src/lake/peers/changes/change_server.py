"""Makes the changes that other nodes send; see `forwarding`.

Used in the event loop of the network; statements run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from elkyn.records import Change
from lake.access.quotas import Quotas
from lake.distributed.foreign_statements import ForeignChanges, MadeChange
from lake.distributed.receipts import Receipt, Receipts
from lake.distributed.remote_shards import ForeignChange
from lake.distributed.staged_inputs import StagedInput, bytes_of
from lake.peers.changes.claims import Claims
from lake.peers.changes.forwarding import (
    ChangeKnown,
    ChangeLedger,
    ChangeReply,
    ChangeRequest,
    Step,
)
from lake.peers.changes.returned_rows import (
    KeptRows,
    ReturnedPiece,
    ReturnedRequest,
    ReturnedResults,
)
from lake.peers.changes.staging import Staging
from lake.peers.members.roster import Roster
from lake.peers.sharing.publications import Publications
from lake.peers.sharing.sharing import SharedDataset, Shares
from lake.peers.transport.machine import Effect
from lake.peers.transport.messages import Message
from lake.peers.transport.session import Piece, Session
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.clock import Clock
from sennit_core.errors import (
    Busy,
    Denied,
    NotFound,
    SennitError,
    TooLarge,
)
from sennit_core.records import DatasetInfo
from sennit_core.units import GIB

__all__ = ["ChangeServer", "ChangedDatasets", "ChangesHost", "WriterParts"]

_SWEEP_SECONDS = 600.0
_KNOWN_SECONDS = 3600.0
"""No request of a connection that was lost arrives so late."""
_RECEIPTS_MAX = 50_000
_RECEIPTS_OF_NODE_MAX = 10_000
"""So that one node, which may let them count for two weeks, does not use up those of all."""


class ChangesHost(Protocol):
    """What changes need of the network."""

    roster: Roster
    logs: Publications
    claims: Claims

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def put(self, effects: Iterable[Effect]) -> None:
        """Perform effects in their order."""
        ...

    async def session(self, node: str) -> Session:
        """Return a session with a node."""
        ...

    def can(self, node: str, feature: str) -> bool:
        """Return whether a node has a feature, as far as is known."""
        ...


class ChangedDatasets(Protocol):
    """What changes need of the shared datasets (`lake.peers.exchange.Exchange`)."""

    def described(self, dataset: str) -> tuple[SharedDataset, str] | None:
        """Return how a dataset is shared, and its writer."""
        ...

    def publish_soon(self) -> None:
        """Publish what has changed at the next tick."""
        ...

    async def arrived(self, dataset: str, version: int) -> None:
        """Return when a version of a shared dataset, or a newer one, is here."""
        ...

    staging: Staging


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A change that runs for another node."""

    task: asyncio.Task[int]
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, slots=True)
class WriterParts:
    """What makes the changes of other nodes.

    Args:
        statements: Runs them.
        receipts: Their receipts.
        shares: Say which nodes change which datasets.
        version: Returns the version of a dataset of this node.
        returned: Keeps the rows of RETURNING.
        find: Returns the row of a dataset.
        quotas: What users of other nodes may store.
        change_bytes_max: The most rows that a change brings, or that this node sends with one.
    """

    statements: ForeignChanges
    receipts: Receipts
    shares: Shares
    version: Callable[[str], int]
    returned: ReturnedResults
    find: Callable[[str], DatasetInfo]
    quotas: Quotas
    change_bytes_max: int = GIB

    def check_size(self, inputs: Sequence[StagedInput]) -> None:
        """Refuse rows that are too many to be sent or fetched.

        Raises:
            TooLarge: They are.
        """
        found = bytes_of(inputs)
        if found > self.change_bytes_max:
            raise TooLarge(
                "what a change sends to another node", self.change_bytes_max, found,
                hint="send fewer rows at once, or set network.change_bytes at both nodes",
            )  # fmt: skip


class ChangeServer:
    """Makes changes for other nodes.

    Args:
        host: The network.
        datasets: The shared datasets.
        writer: Makes changes.
        clock: Source of times.
    """

    def __init__(
        self, host: ChangesHost, datasets: ChangedDatasets, writer: WriterParts, clock: Clock
    ) -> None:
        self._host = host
        self._datasets = datasets
        self._writer = writer
        self._clock = clock
        self._ledger = ChangeLedger(writer.receipts.find)
        self._running: dict[str, _Running] = {}
        self._swept_at = host.now()

    def stop(self) -> None:
        """Stop what runs for other nodes; they ask again."""
        for each in self._running.values():
            each.stop.stop()

    async def serve(self, session: Session, message: ChangeRequest, _body: bytes) -> Piece:
        """Make a change for another node, or say how it ended."""
        message.check()
        if message.claim is None:
            raise Denied("changing a dataset without a claim")
        now = self._clock.now()
        user = self._host.claims.check(message.claim, session.peer, message, now)
        key = self._ledger.key(session.peer, message.id)
        self._sweep()
        self._check_room(session.peer, key)
        step = self._ledger.begin(session.peer, message, now)
        if isinstance(step, Receipt):
            return await self._reply(message.dataset, step.count, key), b""
        if step is Step.RUN:
            stop = Stop()
            task = asyncio.create_task(self._run(user, message, key, stop))
            self._running[key] = _Running(task, stop)
        running = self._running[key]
        try:
            # The change goes on when this connection ends: the sender asks again.
            count = await asyncio.shield(running.task)
        except asyncio.CancelledError:
            if session.is_open:  # the sender has cancelled it
                running.stop.stop()
            raise
        except SennitError as error:
            return ChangeReply(error=error.to_json()), b""
        return await self._reply(message.dataset, count, key), b""

    async def serve_known(self, session: Session, message: ChangeKnown, _: bytes) -> Piece:
        """Keep the receipt of a change only for what is still on its way."""
        key, until = self._ledger.key(session.peer, message.id), self._clock.now() + _KNOWN_SECONDS
        await asyncio.to_thread(self._writer.receipts.shorten, key, until)
        return message, b""

    async def serve_returned(self, session: Session, message: ReturnedRequest, _: bytes) -> Piece:
        """Send a piece of the rows that a change of the asking node returns."""
        key, returned = self._ledger.key(session.peer, message.id), self._writer.returned
        piece = await asyncio.to_thread(returned.read, key, message)
        if not piece:
            returned.drop(key)
        return ReturnedPiece(), piece

    async def _reply(self, dataset: str, count: int, key: str) -> Message:
        self._datasets.publish_soon()
        try:
            version = await asyncio.to_thread(self._writer.version, dataset)
        except SennitError:  # it was deleted since
            version = 0
        return ChangeReply(version, count, returned=self._writer.returned.find(key))

    async def _run(self, user: Requester, message: ChangeRequest, key: str, stop: Stop) -> int:
        receipts = self._writer.receipts

        def receipt(count: int) -> Receipt:
            return Receipt(message.dataset, message.digest, count, message.expires_at)

        def written(count: int, size: int) -> Sequence[Change]:
            dataset = self._writer.find(message.dataset)
            charge = self._writer.quotas.charge_foreign(user.node, dataset, size)
            return receipts.change(key, receipt(count)), charge

        known = replace(user, name=f"{user.name}@{self._host.roster.unique_name_of(user.node)}")
        place = self._writer.returned.place()
        change = ForeignChange(
            message.dataset, message.name, message.sql, message.params, known, message.seconds,
            place, message.max_rows, message.inputs or (),
        )  # fmt: skip

        def run() -> MadeChange:
            self._check(user.node, message.dataset)
            try:
                made = self._writer.statements.run(change, written, stop)
            except SennitError:
                # It is committed or not; what failed after that is no reason to say it is not.
                done = receipts.find(key)
                if done is None or done.digest != message.digest:
                    raise
                return MadeChange(done.count)
            return replace(made, count=receipts.put(key, receipt(made.count)).count)

        try:
            async with self._inputs(user.node, message):
                made = await asyncio.to_thread(run)
            if made.returned is not None:
                kept = KeptRows(user.node, place, made.returned, self._host.now())
                self._writer.returned.keep(key, kept)
            return made.count
        finally:
            self._ledger.end(user.node, message)
            self._running.pop(key, None)

    @asynccontextmanager
    async def _inputs(self, node: str, message: ChangeRequest) -> AsyncIterator[None]:
        """Fetch the rows that a change brings, and keep them until the context is left."""
        if not message.inputs:
            yield
            return
        self._writer.check_size(message.inputs)
        await asyncio.to_thread(self._check, node, message.dataset)
        size = bytes_of(message.inputs)
        # Before they are sent; what the change stores of them is counted with its commit.
        await asyncio.to_thread(self._writer.quotas.check_foreign, node, "the change", size)
        staging = self._datasets.staging
        async with staging.fetched(node, message.dataset, message.inputs, message.seconds):
            yield

    def _check(self, peer: str, dataset: str) -> None:
        share = self._writer.shares.get(dataset)
        if share is None or not share.is_with(peer):
            raise NotFound("dataset", dataset, suggestion=None)
        # A policy gives users of other nodes no right to change rows.
        if not share.accepts_changes_of(peer) or not self._writer.shares.is_open(dataset):
            raise Denied(
                "changing a dataset that is shared to be read",
                needed="its owner to share it without --read-only, with this node by name",
            )

    def _sweep(self) -> None:
        now = self._host.now()
        if now - self._swept_at >= _SWEEP_SECONDS or len(self._writer.receipts) >= _RECEIPTS_MAX:
            self._swept_at = now
            self._writer.receipts.sweep(self._clock.now())
        self._writer.returned.sweep(now)

    def _check_room(self, node: str, key: str) -> None:
        """Refuse a change whose receipt has no room; one that was made is answered all the same."""
        receipts = self._writer.receipts
        is_full = len(receipts) >= _RECEIPTS_MAX or receipts.count_of(node) >= _RECEIPTS_OF_NODE_MAX
        if is_full and receipts.find(key) is None:
            raise Busy("the writer", hint="it has made too many changes of other nodes just before")
