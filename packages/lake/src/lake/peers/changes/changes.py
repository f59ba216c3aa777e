"""Sends changes to the writers of datasets; see `forwarding`.

Used in the event loop of the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from lake.distributed.queued_appends import QueuedAppends
from lake.distributed.remote_shards import Changed, ForeignChange
from lake.peers.changes.append_queue import QueuedAppend
from lake.peers.changes.change_server import ChangedDatasets, ChangeServer, ChangesHost, WriterParts
from lake.peers.changes.forwarding import (
    STATEMENT_BYTES_MAX,
    ChangeKnown,
    ChangeRequest,
    ChangeSender,
    Made,
    Outcome,
    Refused,
    Unknown,
    Unreached,
)
from lake.peers.changes.returned_rows import (
    RETURNED_BYTES_MAX,
    ReturnedPiece,
    ReturnedRequest,
)
from lake.peers.sharing.publications import EVERYONE
from lake.peers.sharing.sharing import SharedDataset
from lake.peers.transport.machine import Call, Failed, Replied
from lake.peers.transport.messages import Message
from lake.peers.transport.stop import SECONDS_MAX
from lake.statements.limits import Requester
from sennit_core.clock import Clock
from sennit_core.errors import (
    BadInput,
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

__all__ = ["Changes"]

_log = get_logger(__name__)
_MARGIN_SECONDS = 600.0
"""A request can be made so long after its time limit, as clocks of nodes differ."""
_ADOPTED_SECONDS = 10.0
_ASK_SECONDS = 0.5
_READ_SECONDS = 30.0
_FindUser: TypeAlias = Callable[[], Awaitable[Requester]]
"""Called when a request is about to leave; its errors stop the sending."""


class Changes:
    """The changes that this node sends, and makes for others.

    Args:
        host: The network.
        datasets: The shared datasets.
        writer: Makes changes.
        queued: Appends that wait for their writers.
        clock: Source of times.
    """

    def __init__(
        self,
        host: ChangesHost,
        datasets: ChangedDatasets,
        writer: WriterParts,
        queued: QueuedAppends,
        clock: Clock,
    ) -> None:
        self._host = host
        self._queued = queued
        self._datasets = datasets
        self._writer = writer
        self._clock = clock
        self.server = ChangeServer(host, datasets, writer, clock)

    def accepts(self, node: str, dataset: str) -> bool:
        """Return whether the writer of a dataset makes changes for a node, as far as is known."""
        found = self._datasets.described(dataset)
        return found is not None and found[0].accepts_changes_of(node)

    def may_have(self, dataset: str, node: str) -> bool:
        """Return whether a node may have the rows of a shared dataset, as far as is known."""
        found = self._datasets.described(dataset)
        if found is None or found[0].restricted or found[0].encrypted:
            return False
        shared, writer = found
        return node == writer or bool({EVERYONE, node} & set(shared.nodes))

    async def send(self, change: ForeignChange) -> Changed:
        """Let the writer of a dataset make a change.

        Raises:
            Unavailable: It cannot be reached; the hint says whether the change may have been made.
            TooLarge: The statement is too long to be sent.
            SennitError: The error of the statement there: nothing was changed.
        """
        shared, writer = self._found(change.dataset, change.name)
        request = self._request(change)
        self._check_can(writer, change)
        outcome: Outcome = Unreached()
        # Behind those that wait already, so that rows come in their order.
        if not (change.queue and self._queued.holds(change)):
            with self._datasets.staging.offered(writer, change.dataset, change.inputs):
                sender = self._sender(writer, request)
                outcome = await self._ask(sender, lambda: _now(change.user))
        if change.queue and isinstance(outcome, Unreached | Unknown):
            was_sent = isinstance(outcome, Unknown)
            await asyncio.to_thread(self._queued.add, change, writer, was_sent=was_sent)
            return Changed(0, 0, is_here=True, queued=request.id)
        made = self._made(outcome, shared, writer, change)
        if change.queue and not change.is_repeated:
            await self.say_known(writer, request.id)
        if change.place is not None:
            await self._receive(writer, request.id, made, change.place)
        return Changed(made.version, made.count, await self._arrives(shared, writer, made.version))

    def writer_of(self, append: QueuedAppend) -> str:
        """Return the node that an append is sent to.

        Raises:
            NotFound: The dataset is not shared with this node any more.
            SennitError: As `QueuedAppends.user_of`.
        """
        # Only the node that it was sent to has its receipt (design 0160).
        if append.was_sent:
            return append.writer
        found = self._datasets.described(append.dataset)
        if found is None:
            self._queued.user_of(append)
            raise Unavailable(f"the description of dataset {append.name!r}")
        return found[1]

    async def deliver(self, append: QueuedAppend, writer: str) -> Outcome:
        """Send an append that has waited.

        Raises:
            SennitError: It was not sent, this time.
        """
        change = ForeignChange(
            append.dataset, append.name, append.sql, append.params, Requester(append.user),
            append.seconds, inputs=append.inputs, id=append.id, expires_at=append.expires_at,
        )  # fmt: skip
        sender = self._sender(writer, self._request(change), was_sent=append.was_sent)
        with self._datasets.staging.offered(writer, change.dataset, change.inputs):
            return await self._ask(
                sender, lambda: asyncio.to_thread(self._queued.sending, append, writer)
            )

    async def say_known(self, writer: str, append: str) -> None:
        """Tell a writer that an append is never sent again; at most its receipt stays for longer."""
        with suppress(SennitError):
            session = await self._host.session(writer)
            await session.call(ChangeKnown(append), timeout_seconds=_READ_SECONDS)

    def _found(self, dataset: str, name: str) -> tuple[SharedDataset, str]:
        found = self._datasets.described(dataset)
        if found is None:
            raise NotFound("shared dataset", name, suggestion=None)
        return found

    def _request(self, change: ForeignChange) -> ChangeRequest:
        seconds = min(change.seconds, SECONDS_MAX)
        request = ChangeRequest(
            change.id or new_id(self._clock), change.dataset, change.name, change.sql,
            change.params, seconds,
            change.expires_at or self._clock.now() + seconds + _MARGIN_SECONDS,
            max_rows=change.max_rows, inputs=change.inputs or None,
        )  # fmt: skip
        if request.statement_bytes > STATEMENT_BYTES_MAX:
            what = "a statement for another node, with its parameters"
            raise TooLarge(what, STATEMENT_BYTES_MAX, request.statement_bytes)
        request.check()
        return request

    def _sender(
        self, writer: str, request: ChangeRequest, *, was_sent: bool = False
    ) -> ChangeSender:
        now = self._host.now()
        return ChangeSender(
            writer, request, now=now, answer_seconds=request.seconds, was_sent=was_sent
        )

    def _check_can(self, writer: str, change: ForeignChange) -> None:
        """Refuse what a writer of an earlier version cannot do, and more rows than may be sent."""
        for feature, what, is_needed in (
            ("returning", "RETURNING", change.place is not None),
            ("inputs", "rows of files or of other datasets", bool(change.inputs)),
            ("queue", "queueing", change.queue),
        ):
            if is_needed and not self._host.can(writer, feature):
                name = self._host.roster.name_of(writer)
                raise Unsupported(
                    f"{what} in a change that node {name} makes",
                    hint="update Sennit at that node",
                )
        self._writer.check_size(change.inputs)

    async def _ask(self, sender: ChangeSender, user: _FindUser) -> Outcome:
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

    async def _call(self, call: Call, find_user: _FindUser) -> Replied | Failed:
        assert isinstance(call.message, ChangeRequest), "a sender asks for changes"
        try:
            session = await self._host.session(call.peer)
        except SennitError as error:
            return Failed(call.id, ChangeSender.UNREACHED, str(error))
        user = await find_user()
        # A claim counts for a minute.
        claim = self._host.claims.sign(user, call.peer, call.message, self._clock.now())
        message: Message = replace(call.message, claim=claim)
        try:
            message, _ = await session.call(message, timeout_seconds=call.timeout_seconds)
        except SennitError as error:
            return Failed(call.id, error.code, str(error))
        return Replied(call.id, message)

    def _made(
        self, outcome: Outcome, shared: SharedDataset, writer: str, change: ForeignChange
    ) -> Made:
        name = self._host.roster.name_of(writer)
        what = f"node {name}, which writes dataset {shared.name!r},"
        match outcome:
            case Made():
                return outcome
            case Refused(error):
                raise error_from_json(error)
            case Unreached():
                hint = "nothing was changed: repeat it when the node is back"
                queue = ", let it wait here with --queue" if change.appends else ""
                raise Unavailable(what, hint=f"{hint}{queue}, or change a copy: platform fork")
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


async def _now(user: Requester) -> Requester:
    return user


def _not_kept(made: Made) -> Unavailable:
    return Unavailable(
        "the rows that the statement returns",
        hint=f"the change is made, of {made.count} rows, and the writer keeps these no more: query the "
        "dataset, and do not repeat the statement",
    )
