"""The giver of a hand-over: offers a dataset to another node, stops writing it, and signs that the other one writes.

    giver                                              taker
    offer: the taker may ask
    commits go on         ◀── has all of version 7 ───  fetches every object of the kept versions
    stopped at version 9  ─── not signed ───────────▶   fetches versions 8 and 9
    signs and stores      ◀── has all of version 9 ───
    signed                ─── the statements ───────▶   writes from now on, and publishes

A request may be lost, sent twice, or come after a crash of either: the answer follows from the stored row
(`lake.peers.handover_rows`). After the signature there is no way back, as the taker may write already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from lake.catalog import Catalog
from lake.peers.handover_rows import (
    ACCEPTING,
    OFFERED,
    SETTLED,
    SIGNED,
    STOPPED,
    HandOverRow,
    HandOverTable,
    Terms,
)
from lake.peers.handovers import HandOvers
from lake.peers.membership import Membership
from lake.peers.messages import Message
from lake.peers.roster import Roster
from lake.peers.session import Piece, Session
from lake.peers.sharing import VERSIONS_KEPT, Shares
from lake.peers.signed import Statement
from sennit_core.errors import Conflict, Denied, NotFound, Unsupported, UsageError
from sennit_core.records import DatasetInfo

__all__ = ["MESSAGES", "Giver", "HandOverParts", "HandOverReply", "HandOverRequest"]

_FEATURE = "handover"


@dataclass(frozen=True, slots=True)
class HandOverRequest(Message):
    """Asks the writer of a dataset to hand it over to the sender, to whom it was offered.

    Args:
        dataset: Its id.
        manifest: Object id of the newest manifest of which the sender has every object; "" only asks
            whether it is offered.
    """

    kind: ClassVar[str] = "hand-over"
    dataset: str
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class HandOverReply(Message):
    """The answer.

    Args:
        chain: The statements that make the sender the writer; empty if it lacks a version.
    """

    kind: ClassVar[str] = "handed-over"
    chain: tuple[Statement, ...] = ()


MESSAGES: tuple[type[Message], ...] = (HandOverRequest, HandOverReply)


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
        """Withdraw an offer, or stop accepting one.

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
        if message.manifest:
            parts.changed()
        return HandOverReply(chain), b""

    # In threads

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
            parts.table.put(dataset, replace(row, state=OFFERED, peer=taker))

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
            new = HandOverRow(SETTLED, row.chain, audiences=row.audiences)
            if row.state in (OFFERED, ACCEPTING):
                parts.table.put(dataset, new)
            elif row.state == STOPPED:
                change = parts.table.change(dataset, new)
                parts.catalog.adopter.put(replace(info, node=None), change)
            elif row.state == SIGNED:
                raise Conflict(
                    f"dataset {info.name!r} was handed over, and the other node may write it already",
                    hint="it can be handed over back",
                )
            else:
                raise Conflict(f"dataset {info.name!r} is not being handed over")

    def _check_taker(self, peer: str, dataset: str) -> HandOverRow:
        # The same answer whether or not there is such a dataset.
        not_offered = NotFound(
            "dataset offered to this node", dataset[:64], suggestion=None,
            hint="at its writer: platform hand-over NAME --to NODE",
        )  # fmt: skip
        if self._parts.catalog.find_known(dataset) is None:
            raise not_offered
        row = self._parts.table.get(dataset)
        if row.state not in (OFFERED, STOPPED, SIGNED) or row.peer != peer:
            raise not_offered
        return row

    def _answer(self, peer: str, message: HandOverRequest) -> tuple[Statement, ...]:
        parts, dataset = self._parts, message.dataset
        with parts.catalog.writing():
            row = self._check_taker(peer, dataset)
            info = parts.catalog.get(dataset)
            if row.state == SIGNED:
                return row.chain
            self._check(info, peer)
            if not message.manifest:
                return ()
            assert info.head is not None, "a dataset that is shared has versions"
            head, version = parts.catalog.adopter.manifest_of(info, info.head)
            if message.manifest != head:
                newest = parts.catalog.adopter.newest_manifests(dataset, VERSIONS_KEPT)
                if row.state == OFFERED and message.manifest in newest:
                    # The taker lacks the last few versions: no more may come.
                    stopped = parts.table.change(dataset, replace(row, state=STOPPED))
                    parts.catalog.adopter.put(replace(info, node=peer), stopped)
                return ()
            term = parts.terms.current(dataset, info)
            statement = parts.statements.sign(
                dataset, term, peer, (info.head, head, version), self._host.wall()
            )
            signed = replace(row, state=SIGNED, chain=(*row.chain, statement))
            # In one write, and durable before it is sent: this node commits no more.
            parts.catalog.adopter.put(replace(info, node=peer), parts.table.change(dataset, signed))
            return signed.chain
