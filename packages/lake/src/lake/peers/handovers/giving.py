"""The giver of a hand-over: offers a dataset to another node, stops writing it, and signs that the other one writes.

    giver                                              taker
    offer: the taker may ask
    commits go on         ◀── has all of version 7 ───  fetches every object of the kept versions
    stopped at version 9  ─── not signed ───────────▶   fetches versions 8 and 9
    signs and stores      ◀── has all of version 9 ───
    signed                ─── the statements ───────▶   writes from now on, and publishes

A request may be lost, sent twice, or come after a crash of either: the answer follows from the stored row
(`lake.peers.handovers.rows`). After the signature there is no way back, as the taker may write already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from lake.catalog.catalog import Catalog
from lake.peers.handovers import steps
from lake.peers.handovers.handovers import HandOvers
from lake.peers.handovers.messages import HandOverRefusal, HandOverReply, HandOverRequest
from lake.peers.handovers.rows import (
    OFFERED,
    SIGNED,
    STOPPED,
    HandOverRow,
    HandOverTable,
    Terms,
)
from lake.peers.handovers.steps import Answer
from lake.peers.members.membership import Membership
from lake.peers.members.roster import Roster
from lake.peers.sharing.sharing import VERSIONS_KEPT, Shares
from lake.peers.transport.session import Piece, Session
from lake.peers.transport.signed import Statement
from sennit_core.errors import Conflict, Denied, NotFound, Unsupported, UsageError
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo

__all__ = ["Giver", "HandOverParts"]

_log = get_logger(__name__)
_FEATURE = "handover"
_STOPPED_SECONDS = 600.0
"""After so long without a question of the taker, a writer that has stopped commits again."""


class HandOverHost(Protocol):
    """What hand-overs need of the network."""

    roster: Roster
    members: Membership

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def wall(self) -> float:
        """Return Unix seconds."""
        ...


@dataclass(frozen=True, slots=True)
class HandOverParts:
    """What a hand-over needs of a node.

    Args:
        node: The node's id.
        catalog: The datasets.
        shares: What is shared.
        table: The rows of hand-overs.
        terms: Who writes a dataset.
        statements: Signs hand-overs.
        alone: Returns what is held while it is decided who writes a dataset.
        changed: Called after the writer of a dataset has changed.
    """

    node: str
    catalog: Catalog
    shares: Shares
    table: HandOverTable
    terms: Terms
    statements: HandOvers
    alone: Callable[[str], AbstractAsyncContextManager[None]]
    changed: Callable[[], object]


class Giver:
    """The hand-overs of which a node is the giver; used in one event loop.

    Args:
        host: The network.
        parts: The node.
    """

    def __init__(self, host: HandOverHost, parts: HandOverParts) -> None:
        self._host = host
        self._parts = parts
        # Datasets that this node has stopped to write, and when their takers have last asked.
        self._stopped: dict[str, float] = {}

    def start(self) -> None:
        """Go on with what was under way; blocks.

        Raises:
            Corrupt: The rows cannot be read.
        """
        now = self._host.now()
        self._stopped = dict.fromkeys(self._parts.table.under_way(STOPPED), now)

    async def tick(self, now: float) -> None:
        """Commit again to datasets of which the taker is gone, or has not asked for long.

        Args:
            now: Seconds that never run backwards.
        """
        for dataset, asked_at in list(self._stopped.items()):
            row = await asyncio.to_thread(self._parts.table.get, dataset)
            if row.state != STOPPED:
                del self._stopped[dataset]
            elif self._has_left(row.peer):
                await self._end(dataset, "it is not in the network any more")
            elif now - asked_at > _STOPPED_SECONDS:
                async with self._parts.alone(dataset):
                    await asyncio.to_thread(self._resume, dataset)

    def _has_left(self, taker: str) -> bool:
        peer = self._host.members.peers.get(taker)
        is_gone = peer is not None and peer.state == "left"
        return is_gone or not self._host.roster.is_member(taker)

    async def offer(self, dataset: str, taker: str) -> None:
        """Let a node become the writer of a dataset.

        Args:
            dataset: Its id.
            taker: The node's id.

        Raises:
            Denied: Another node writes the dataset.
            NotFound: It is not shared with that node.
            Conflict: It is offered to another one, or was handed over too often.
            Unsupported: It is encrypted or has a policy, its files are kept, or a node is of an earlier version.
        """
        if taker == self._parts.node:
            raise UsageError("a dataset is handed over to another node than its writer")
        self._check_features()
        async with self._parts.alone(dataset):
            await asyncio.to_thread(self._offer, dataset, taker)

    async def undo(self, dataset: str) -> None:
        """Withdraw an offer, or forget why one was refused.

        Raises:
            Conflict: None is under way, or the taker may write the dataset already.
        """
        async with self._parts.alone(dataset):
            await asyncio.to_thread(self._undo, dataset)
        self._parts.changed()

    async def serve(self, session: Session, message: HandOverRequest, _body: bytes) -> Piece:
        """Answer the node to which a dataset was offered.

        Raises:
            NotFound: It was not offered to this node, or not shared with it.
        """
        parts = self._parts
        # Before the lock, which others must not keep waiting.
        await asyncio.to_thread(self._check_taker, session.peer, message.dataset)
        async with parts.alone(message.dataset):
            chain = await asyncio.to_thread(self._answer, session.peer, message)
        # Looked at by `tick`, which forgets it if the dataset is not stopped.
        self._stopped[message.dataset] = self._host.now()
        if message.manifest:
            parts.changed()
        return HandOverReply(chain), b""

    async def serve_refusal(
        self, session: Session, message: HandOverRefusal, _body: bytes
    ) -> Piece:
        """Commit again to a dataset that the node to which it was offered does not want.

        What is signed is answered: that node may have the statements, and completes it.

        Raises:
            NotFound: It was not offered to this node.
        """
        row = await asyncio.to_thread(self._check_taker, session.peer, message.dataset)
        if row.state != SIGNED:
            row = await self._end(message.dataset, message.reason, of=session.peer)
        return HandOverReply(row.chain if row.state == SIGNED else ()), b""

    async def _end(self, dataset: str, reason: str, *, of: str = "") -> HandOverRow:
        """End what is not signed; return the row after that."""
        async with self._parts.alone(dataset):
            row = await asyncio.to_thread(self._refused, dataset, reason, of)
        self._parts.changed()
        return row

    # In threads

    def _refused(self, dataset: str, reason: str, of: str) -> HandOverRow:
        parts = self._parts
        with parts.catalog.writing():
            row = self._check_taker(of, dataset) if of else parts.table.get(dataset)
            if row.state not in (OFFERED, STOPPED):
                return row
            name = self._host.roster.name_of(row.peer)
            _log.warning("dataset %s is not handed over: node %s: %s", dataset[:40], name, reason)
            return self._write_again(dataset, row, steps.ended(row, f"node {name}: {reason}"))

    def _resume(self, dataset: str) -> None:
        parts = self._parts
        with parts.catalog.writing():
            row = parts.table.get(dataset)
            if row.state == STOPPED:
                self._write_again(dataset, row, steps.resumed(row))

    def _write_again(self, dataset: str, row: HandOverRow, new: HandOverRow) -> HandOverRow:
        """Write the row of a hand-over that is not signed; this node commits as before."""
        parts = self._parts
        if row.state == STOPPED:
            # In one write: whoever commits is decided by the row and by `node` alike.
            info = replace(parts.catalog.get(dataset), node=None)
            parts.catalog.adopter.put(info, parts.table.change(dataset, new))
        else:
            parts.table.put(dataset, new)
        return new

    def check_done(self) -> None:
        """Refuse to leave the network while the taker of a dataset may not know that it writes it.

        Raises:
            Conflict: There is one.
        """
        for dataset, row in self._parts.table.under_way(SIGNED).items():
            info = self._parts.catalog.find_known(dataset)
            name = dataset if info is None else info.name
            taker = self._host.roster.name_of(row.peer)
            raise Conflict(
                f"dataset {name!r} was handed over to node {taker}, which does not write it yet",
                hint="leave when that node was there, and writes it",
            )

    def _check_features(self) -> None:
        peers = self._host.members.peers
        old = [node for node, peer in peers.items() if _FEATURE not in peer.status.features]
        if old:
            names = ", ".join(sorted(map(self._host.roster.name_of, old)))
            raise Unsupported(
                f"handing a dataset over in a network with nodes of an earlier version: {names}",
                hint="update them first: they would not follow it to its next writer",
            )

    def _offer(self, dataset: str, taker: str) -> None:
        parts = self._parts
        with parts.catalog.writing():
            info = parts.catalog.get(dataset)
            row = parts.table.get(dataset)
            if info.node is not None:
                raise Denied(f"handing dataset {info.name!r} over, which another node writes")
            if row.state == OFFERED and row.peer != taker:
                raise Conflict(
                    f"dataset {info.name!r} is offered to another node",
                    hint="undo that first: platform hand-over NAME --undo",
                )
            self._check(info, taker)
            parts.statements.check_length(dataset, parts.terms.current(dataset, info))
            parts.table.put(dataset, steps.offered(row, taker))

    def _check(self, info: DatasetInfo, taker: str) -> None:
        """Refuse a dataset that the taker could not go on with."""
        parts, what = self._parts, f"handing dataset {info.name!r} over"
        share = parts.shares.get(info.id)
        if share is None or not share.is_with(taker):
            raise NotFound(
                "dataset that is shared with the node", info.name, suggestion=None,
                hint="share it first: platform share NAME --with NODE",
            )  # fmt: skip
        if not parts.shares.is_open(info.id):
            raise Unsupported(f"{what}, which is encrypted or has an access policy")
        for manifest in parts.catalog.adopter.newest_manifests(info.id, VERSIONS_KEPT):
            snapshot = parts.catalog.adopter.read_whole(manifest).snapshot
            if any(shard.source_object is not None for shard in snapshot.shards):
                raise Unsupported(
                    f"{what}, of which this node keeps the files that it was loaded from",
                    hint="they are shared with no other node; `platform fork` there copies the rows",
                )

    def _undo(self, dataset: str) -> None:
        parts = self._parts
        with parts.catalog.writing():
            info, row = parts.catalog.get(dataset), parts.table.get(dataset)
            if row.state == SIGNED:
                raise Conflict(
                    f"dataset {info.name!r} was handed over, and the other node may write it already",
                    hint="let that node finish, and hand it back. If it is gone for ever: platform net revoke "
                    f"{self._host.roster.name_of(row.peer)}, platform fork {info.name} NEW, then delete "
                    f"{info.name}",
                )
            if row.state not in (OFFERED, STOPPED) and not row.refusal:
                raise Conflict(f"dataset {info.name!r} is not being handed over")
            self._write_again(dataset, row, steps.ended(row))

    def _check_taker(self, peer: str, dataset: str) -> HandOverRow:
        # The same answer whether or not there is such a dataset.
        not_offered = NotFound(
            "dataset offered to this node", dataset[:64], suggestion=None,
            hint="at its writer: platform hand-over NAME --to NODE",
        )  # fmt: skip
        if self._parts.catalog.find_known(dataset) is None:
            raise not_offered
        row = self._parts.table.get(dataset)
        if not steps.is_asked_by(row, peer):
            raise not_offered
        return row

    def _answer(self, peer: str, message: HandOverRequest) -> tuple[Statement, ...]:
        parts, dataset = self._parts, message.dataset
        with parts.catalog.writing():
            row = self._check_taker(peer, dataset)
            info = parts.catalog.get(dataset)
            if row.state != SIGNED:
                self._check(info, peer)
                if not message.manifest:
                    return ()
            assert info.head is not None, "a dataset that is shared has versions"
            head, version = parts.catalog.adopter.manifest_of(info, info.head)
            newest = parts.catalog.adopter.newest_manifests(dataset, VERSIONS_KEPT)
            match steps.answer(row, message.manifest, head, newest):
                case Answer.REPEAT:
                    return row.chain
                case Answer.SIGN:
                    return self._sign(info, row, (info.head, head, version))
                case Answer.STOP:
                    stopped = parts.table.change(dataset, replace(row, state=STOPPED))
                    parts.catalog.adopter.put(replace(info, node=peer), stopped)
            return ()

    def _sign(
        self, info: DatasetInfo, row: HandOverRow, head: tuple[str, str, int]
    ) -> tuple[Statement, ...]:
        parts, dataset = self._parts, info.id
        term = parts.terms.current(dataset, info)
        statement = parts.statements.sign(dataset, term, row.peer, head, self._host.wall())
        signed = replace(row, state=SIGNED, chain=(*row.chain, statement))
        # In one write, and durable before it is sent: this node commits no more.
        parts.catalog.adopter.put(replace(info, node=row.peer), parts.table.change(dataset, signed))
        return signed.chain
