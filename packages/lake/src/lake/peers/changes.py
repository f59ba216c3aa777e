"""Sends changes to the writers of datasets, and makes those that other nodes send; see `forwarding`.

Used in the event loop of the network; statements run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from lake.foreign_statements import ForeignChanges, MadeChange
from lake.limits import Requester
from lake.peers.claims import Claims
from lake.peers.forwarding import (
    STATEMENT_BYTES_MAX,
    ChangeLedger,
    ChangeReply,
    ChangeRequest,
    ChangeSender,
    Made,
    Outcome,
    Refused,
    Step,
    Unreached,
)
from lake.peers.machine import Call, Effect, Failed, Replied
from lake.peers.messages import Message
from lake.peers.publications import Publications
from lake.peers.returned_rows import (
    RETURNED_BYTES_MAX,
    KeptRows,
    ReturnedPiece,
    ReturnedRequest,
    ReturnedResults,
)
from lake.peers.roster import Roster
from lake.peers.session import Piece, Session
from lake.peers.sharing import SharedDataset, Shares
from lake.peers.stop import SECONDS_MAX, Stop
from lake.receipts import Receipt, Receipts
from lake.remote_shards import Changed, ForeignChange
from sennit_core.clock import Clock
from sennit_core.errors import (
    BadInput,
    Busy,
    Denied,
    NotFound,
    SennitError,
    TooLarge,
    Unavailable,
    Unsupported,
    error_from_json,
)
from sennit_core.ids import new_id
from sennit_core.logs import get_logger
from sennit_core.private_files import FILE_MODE

__all__ = ["Changes", "ChangesHost", "WriterParts"]

_log = get_logger(__name__)
_MARGIN_SECONDS = 600.0
"""A request can be made so long after its time limit, as clocks of nodes differ."""
_ADOPTED_SECONDS = 10.0
_ASK_SECONDS = 0.5
_RECEIPTS_MAX = 50_000
_RECEIPTS_OF_NODE_MAX = 10_000
"""So that one node, which may let them count for a day, does not use up those of all."""
_SWEEP_SECONDS = 600.0
_READ_SECONDS = 30.0


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
    """

    statements: ForeignChanges
    receipts: Receipts
    shares: Shares
    version: Callable[[str], int]
    returned: ReturnedResults


class Changes:
    """The changes that this node sends, and makes for others.

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

    # Sending

    def accepts(self, node: str, dataset: str) -> bool:
        """Return whether the writer of a dataset makes changes for a node, as far as is known."""
        found = self._datasets.described(dataset)
        return found is not None and found[0].accepts_changes_of(node)

    async def send(self, change: ForeignChange) -> Changed:
        """Let the writer of a dataset make a change.

        Raises:
            Unavailable: It cannot be reached; the hint says whether the change may have been made.
            TooLarge: The statement is too long to be sent.
            SennitError: The error of the statement there: nothing was changed.
        """
        found = self._datasets.described(change.dataset)
        if found is None:
            raise NotFound("shared dataset", change.name, suggestion=None)
        shared, writer = found
        seconds = min(change.seconds, SECONDS_MAX)
        request = ChangeRequest(
            new_id(self._clock), change.dataset, change.name, change.sql, change.params,
            seconds, self._clock.now() + seconds + _MARGIN_SECONDS, max_rows=change.max_rows,
        )  # fmt: skip
        if request.statement_bytes > STATEMENT_BYTES_MAX:
            what = "a statement for another node, with its parameters"
            raise TooLarge(what, STATEMENT_BYTES_MAX, request.statement_bytes)
        request.check()
        if change.place is not None and not self._host.can(writer, "returning"):
            what = f"RETURNING in a change that node {self._host.roster.name_of(writer)} makes"
            raise Unsupported(what, hint="query the dataset afterwards, or update that node")
        sender = ChangeSender(writer, request, now=self._host.now(), answer_seconds=seconds)
        made = self._made(await self._ask(sender, change.user), shared, writer)
        if change.place is not None:
            await self._receive(writer, request.id, made, change.place)
        return Changed(made.version, made.count, await self._arrives(shared, writer, made.version))

    async def _ask(self, sender: ChangeSender, user: Requester) -> Outcome:
        while sender.outcome is None:
            for effect in sender.tick(self._host.now()):
                assert isinstance(effect, Call), "a sender asks"
                result = await self._call(effect, user)
                if isinstance(result, Replied):
                    sender.replied(result)
                else:
                    sender.failed(result, self._host.now())
            if sender.outcome is None:
                await asyncio.sleep(sender.wait_seconds(self._host.now()))
        return sender.outcome

    async def _call(self, call: Call, user: Requester) -> Replied | Failed:
        assert isinstance(call.message, ChangeRequest), "a sender asks for changes"
        # A claim counts for a minute.
        claim = self._host.claims.sign(user, call.peer, call.message, self._clock.now())
        message: Message = replace(call.message, claim=claim)
        try:
            session = await self._host.session(call.peer)
        except SennitError as error:
            return Failed(call.id, ChangeSender.UNREACHED, str(error))
        try:
            message, _ = await session.call(message, timeout_seconds=call.timeout_seconds)
        except SennitError as error:
            return Failed(call.id, error.code, str(error))
        return Replied(call.id, message)

    def _made(self, outcome: Outcome, shared: SharedDataset, writer: str) -> Made:
        name = self._host.roster.name_of(writer)
        what = f"node {name}, which writes dataset {shared.name!r},"
        match outcome:
            case Made():
                return outcome
            case Refused(error):
                raise error_from_json(error)
            case Unreached():
                hint = "nothing was changed: repeat it when the node is back"
                raise Unavailable(what, hint=f"{hint}, or change a copy: platform fork")
            case _:
                hint = (
                    "its answer was lost, and the change may have been made: look before repeating"
                )
                raise Unavailable(what, hint=hint)

    async def _receive(self, writer: str, change: str, made: Made, place: Path) -> None:
        """Write the rows that a change returns to a file."""
        returned = made.returned
        if returned is None:
            raise _not_kept(made)
        if not 0 < returned <= RETURNED_BYTES_MAX:
            raise BadInput("the rows that a change returns", reason=f"{returned} bytes")
        await asyncio.to_thread(place.touch, FILE_MODE)
        with place.open("wb") as file:
            offset = 0
            while offset < returned:
                piece = await self._piece(writer, ReturnedRequest(change, offset))
                if not 0 < len(piece) <= returned - offset:
                    raise _not_kept(made)
                await asyncio.to_thread(file.write, piece)
                offset += len(piece)
        with suppress(SennitError):  # it removes them some minutes later, too
            await self._piece(writer, ReturnedRequest(change, offset))

    async def _piece(self, writer: str, request: ReturnedRequest) -> bytes:
        """Return a piece of returned rows, b"" if they are not kept any more."""
        end = self._host.now() + _READ_SECONDS
        while True:
            try:
                session = await self._host.session(writer)
                message, body = await session.call(request, timeout_seconds=_READ_SECONDS)
            except (NotFound, Denied, BadInput, Unsupported):
                return b""
            except SennitError:
                if self._host.now() >= end:
                    return b""
                await asyncio.sleep(_ASK_SECONDS)
            else:
                return bytes(body) if isinstance(message, ReturnedPiece) else b""

    async def _arrives(self, shared: SharedDataset, writer: str, version: int) -> bool:
        """Wait until a version of a dataset is here, so that its user reads it; say whether it is."""
        waiting = asyncio.create_task(self._datasets.arrived(shared.id, version))
        try:
            end = self._host.now() + _ADOPTED_SECONDS
            while not waiting.done() and self._host.now() < end:
                # The writer pushes news to some nodes only, and answers this with the others.
                self._host.put([self._host.logs.greet(writer)])
                await asyncio.wait((waiting,), timeout=_ASK_SECONDS)
            if not waiting.done():
                _log.warning(
                    "version %d of dataset %s is written, but has not arrived", version, shared.name
                )
            return waiting.done()
        finally:
            waiting.cancel()

    # Serving

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
        begun = self._ledger.begin(session.peer, message, now)
        if isinstance(begun, Receipt):
            return await self._reply(message.dataset, begun.count, key), b""
        if begun is Step.RUN:
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

        known = replace(user, name=f"{user.name}@{self._known_as(user.node)}")
        place = self._writer.returned.place()
        change = ForeignChange(
            message.dataset, message.name, message.sql, message.params, known, message.seconds,
            place, message.max_rows,
        )  # fmt: skip

        def run() -> MadeChange:
            self._check(user.node, message.dataset)
            try:
                made = self._writer.statements.run(
                    change, lambda count: receipts.change(key, receipt(count)), stop
                )
            except SennitError:
                # It is committed or not; what failed after that is no reason to say it is not.
                done = receipts.find(key)
                if done is None or done.digest != message.digest:
                    raise
                return MadeChange(done.count)
            return replace(made, count=receipts.put(key, receipt(made.count)).count)

        try:
            made = await asyncio.to_thread(run)
            if made.returned is not None:
                kept = KeptRows(user.node, place, made.returned, self._host.now())
                self._writer.returned.keep(key, kept)
            return made.count
        finally:
            self._ledger.end(user.node, message)
            self._running.pop(key, None)

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

    def _known_as(self, node: str) -> str:
        """Return the name of a node, if no other has it: it is in the author and the audit log."""
        name = self._host.roster.name_of(node)
        others = (each for each in self._host.roster.members.values() if each.id != node)
        return node[:16] if any(each.name == name for each in others) else name


def _not_kept(made: Made) -> Unavailable:
    return Unavailable(
        "the rows that the statement returns",
        hint=f"the change is made, of {made.count} rows, and the writer keeps these no more: query the "
        "dataset, and do not repeat the statement",
    )
