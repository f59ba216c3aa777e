"""A session: messages, requests and streams of answers between two nodes, over one channel.

Either side sends requests, whichever of them has dialed, so a node behind a NAT is as good as any
other. A frame's envelope says what it is:

    {}            a message without an answer
    {r, s: 0}     request r                     {r, s: 3}  its refusal or failure, an `ErrorReply`
    {r, s: 1}     a piece of its answer         {r, s: 4}  the asking side has cancelled it
    {r, s: 2}     the only piece                {r, s: 5}  the asking side accepts one more piece
    {r, s: 6}     the end after some pieces

The dialing side uses odd numbers and the other even ones. An answer has at most `WINDOW` pieces under
way, so that a slow reader of one answer stops only that answer, and heartbeats pass between its pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from typing import Any, ClassVar

from lake.peers.transport.channel import CLOSE_SECONDS, Channel, ChannelClosed
from lake.peers.transport.limits import PeerLimits, RateLimit
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.tasks import TaskSet, cancel_once
from lake.peers.transport.traffic import Traffic
from sennit_core.errors import (
    BadInput,
    Busy,
    DeadlineExceeded,
    InternalError,
    SennitError,
    Unsupported,
    error_from_json,
)
from sennit_core.logs import get_logger
from sennit_core.units import KIB

__all__ = ["MESSAGES", "WINDOW", "ErrorReply", "Handler", "Piece", "Session"]

_log = get_logger(__name__)

WINDOW = 8
# What counts as one more message: heads have signatures, which are slow to verify; bodies cost memory.
_HEAD_BYTES = 4 * KIB
_BODY_BYTES = 64 * KIB
_PAUSE_SECONDS = 0.002
_LATE_MAX = 1024
Piece = tuple[Message, bytes | memoryview]
Handler = Callable[["Session", Any, bytes], Awaitable[Piece] | AsyncGenerator[Piece, None]]
"""Answers a request and its body: with one piece, or with a stream of them.

A `SennitError` is sent to the asking side.
"""


class _Step(IntEnum):
    REQUEST = 0
    PIECE = 1
    LAST = 2
    ERROR = 3
    CANCEL = 4
    ACCEPT = 5
    END = 6


@dataclass(frozen=True, slots=True)
class ErrorReply(Message):
    """The error that a request led to, in the form of `SennitError.to_json`."""

    kind: ClassVar[str] = "error"
    error: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """The asking side does not want the rest of an answer."""

    kind: ClassVar[str] = "cancel"


@dataclass(frozen=True, slots=True)
class End(Message):
    """All pieces of an answer were sent."""

    kind: ClassVar[str] = "end"


@dataclass(frozen=True, slots=True)
class Accept(Message):
    """The asking side has consumed a piece."""

    kind: ClassVar[str] = "accept"


MESSAGES: tuple[type[Message], ...] = (ErrorReply, Cancel, End, Accept)


@dataclass(slots=True, eq=False)
class _Asked:
    """A request of this side: its pieces as they arrive, then an error or the end."""

    pieces: asyncio.Queue[tuple[Piece | SennitError | None, bool]] = field(
        default_factory=asyncio.Queue
    )


@dataclass(slots=True, eq=False)
class _Served:
    """A request of the other side.

    `size` is that of its body. `window` counts the pieces that may be sent before the next `ACCEPT`,
    `sent` those that were sent and not accepted.
    """

    size: int = 0
    window: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WINDOW))
    sent: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled, and ends."""
        return self.task is not None and self.task.cancelling() > 0

    def accept(self) -> None:
        """Let one more piece be sent.

        Raises:
            BadInput: The other side has accepted more than was sent.
        """
        if self.sent == 0:
            raise BadInput("a frame of a peer", reason="it accepts a piece that was not sent")
        self.sent -= 1
        self.window.release()


class Session:
    """The conversation with one node; `run` reads until the channel closes.

    Args:
        channel: Carries the frames.
        codec: Of all messages.
        handlers: Answer requests, by the class of the message.
        on_message: Called with each message that needs no answer.
        limits: Of what the other side may send.
        dialed: Whether this side has dialed.
    """

    def __init__(
        self,
        channel: Channel,
        codec: MessageCodec,
        handlers: Mapping[type[Message], Handler],
        on_message: Callable[[str, Message], None],
        *,
        limits: PeerLimits,
        dialed: bool,
    ) -> None:
        self.channel = channel
        self.traffic = Traffic()
        """Counts what is exchanged; replaced before `run` by that of all sessions with the node."""
        self.dialed = dialed
        self.closed = asyncio.Event()
        self.refused_messages = 0
        """Messages of the peer that exceeded its limits, or were malformed."""
        self._codec = codec
        self._handlers = handlers
        self._on_message = on_message
        self._limits = limits
        self._rate = RateLimit(limits.messages_per_second, limits.messages_burst)
        self._numbers = count(1 if dialed else 2, 2)
        self._asked: dict[int, _Asked] = {}
        self._served: dict[int, _Served] = {}
        self._tasks = TaskSet("requests of a node")
        # Frames that may still be under way about requests that have ended here: pieces of answers that
        # were cancelled, and what the other side says of answers that were sent.
        self._late_answers = 0
        self._late_steps = 0

    @property
    def peer(self) -> str:
        """The other node's id."""
        return self.channel.peer

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return not self.closed.is_set()

    async def run(self) -> None:
        """Handle frames until the channel closes or the peer breaks the protocol."""
        reason = ""
        try:
            while True:
                frame = await self.channel.receive()
                self.traffic.note_received(frame)
                # What arrives while the channel closes is read, so that the close frame behind it is.
                if self.is_open:
                    await self._handle(frame)
        except ChannelClosed as closed:
            reason = closed.hint or ""
        except BadInput as error:
            reason = str(error)
            _log.warning("closing the session of node %s: %s", self.peer[:16], error)
        except Exception:  # noqa: BLE001 - logged; what a peer sends must end no other session
            reason = "the node met an unexpected error"
            _log.exception("closing the session of node %s", self.peer[:16])
        finally:
            await self.close(reason)

    async def close(self, reason: str = "", last: Message | None = None) -> None:
        """Close the channel; all requests fail, all answers end.

        Args:
            reason: For the other side.
            last: A message to send before, unless the other side reads nothing for some seconds.
        """
        if self.closed.is_set():
            return
        self.closed.set()
        self._tasks.cancel()
        for asked in self._asked.values():
            asked.pieces.put_nowait((ChannelClosed(f"node {self.peer[:16]}"), True))
        if last is not None:
            with suppress(ChannelClosed, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._send_frame(self._codec.encode(last))
        await self.channel.close(reason)
        # What they hold, such as an executor, is released before this returns.
        await self._tasks.end()

    async def send(self, message: Message) -> None:
        """Send a message that needs no answer.

        Raises:
            ChannelClosed: The session is closed.
        """
        await self._send_frame(self._codec.encode(message))

    async def call(self, message: Message, body: bytes = b"", *, timeout_seconds: float) -> Piece:
        """Send a request; return the first piece of its answer, which should be the only one.

        Raises:
            ChannelClosed: The session was closed meanwhile.
            DeadlineExceeded: There was no answer in time.
            SennitError: The error of the other side.
        """
        pieces = self.stream(message, body, timeout_seconds=timeout_seconds)
        async with aclosing(pieces):
            async for piece in pieces:
                return piece
        raise BadInput(f"the answer of node {self.peer[:16]}", reason="it is empty")

    async def stream(
        self, message: Message, body: bytes = b"", *, timeout_seconds: float
    ) -> AsyncGenerator[Piece, None]:
        """Send a request; yield the pieces of its answer.

        Args:
            message: The request.
            body: Its bytes.
            timeout_seconds: How long to wait for each piece.

        Raises:
            As `call`.
        """
        number = next(self._numbers)
        asked = self._asked[number] = _Asked()
        is_over = False
        try:
            await self._send_step(number, _Step.REQUEST, message, body)
            while not is_over:
                try:
                    async with asyncio.timeout(timeout_seconds):
                        piece, is_over = await asked.pieces.get()
                except TimeoutError:
                    what = f"the answer of node {self.peer[:16]}"
                    raise DeadlineExceeded(what, timeout_seconds) from None
                if isinstance(piece, SennitError):
                    is_over = True
                    raise piece
                if piece is not None:
                    yield piece
                if not is_over:
                    await self._send_step(number, _Step.ACCEPT, Accept())
        finally:
            del self._asked[number]
            if not is_over and self.is_open:
                self._late_answers = min(self._late_answers + WINDOW + 1, _LATE_MAX)
                with suppress(ChannelClosed):
                    await self._send_step(number, _Step.CANCEL, Cancel())

    async def _send_step(
        self, number: int, step: _Step, message: Message, body: bytes | memoryview = b""
    ) -> None:
        await self._send_frame(self._codec.encode(message, body, r=number, s=int(step)))

    async def _send_frame(self, frame: bytes) -> None:
        await self.channel.send(frame)
        self.traffic.note_sent(frame)

    async def _handle(self, frame: bytes) -> None:
        message, body, envelope = self._codec.decode(frame)
        number, step = _envelope_of(envelope)
        # What this side has asked for, or allowed, is bounded by that; the rest by its rate.
        if number is None or not self._is_expected(number, step):
            head = len(frame) - len(body)
            cost = 1 + head // _HEAD_BYTES + len(body) // _BODY_BYTES
            if not self._rate.take(cost):
                await self._refuse(number, step, cost)
                return
        if number is not None:
            await self._handle_step(number, step, message, body)
        elif message is None:  # of a kind that only newer versions know
            self.refused_messages += 1
        else:
            self._on_message(self.peer, message)

    async def _handle_step(
        self, number: int, step: _Step, message: Message | None, body: memoryview
    ) -> None:
        if step == _Step.REQUEST:
            await self._handle_request(number, message, bytes(body))
        elif step in (_Step.PIECE, _Step.LAST, _Step.END, _Step.ERROR):
            self._handle_answer(number, step, message, body)
        elif (served := self._served.get(number)) is not None:
            if step == _Step.ACCEPT:
                served.accept()
            elif served.task is not None:
                cancel_once(served.task)

    def _is_expected(self, number: int, step: _Step) -> bool:
        if step == _Step.REQUEST:
            return False
        if step not in (_Step.CANCEL, _Step.ACCEPT):
            return number in self._asked or self._takes_late(answers=1)
        served = self._served.get(number)
        if served is None:
            return self._takes_late(steps=1)
        return step == _Step.ACCEPT or not served.is_cancelled

    def _takes_late(self, *, answers: int = 0, steps: int = 0) -> bool:
        """Count a frame about a request that has ended; return whether it may be one."""
        if self._late_answers < answers or self._late_steps < steps:
            return False
        self._late_answers -= answers
        self._late_steps -= steps
        return True

    async def _refuse(self, number: int | None, step: _Step, cost: int) -> None:
        """Drop a frame that is over the limit, as a network may drop it: the protocols expect that.

        A request is answered. Nothing more is read for a moment, so that a flood does not take the
        whole time of this process.
        """
        self.refused_messages += 1
        if number is not None and step == _Step.REQUEST:
            await self._send_step(number, _Step.ERROR, ErrorReply(_busy().to_json()))
        await asyncio.sleep(_PAUSE_SECONDS * (1 + cost / 10))

    def _handle_answer(
        self, number: int, step: _Step, message: Message | None, body: memoryview
    ) -> None:
        asked = self._asked.get(number)
        if asked is None:  # an answer to a request that was cancelled
            return
        if asked.pieces.qsize() > WINDOW:
            raise BadInput("an answer of a peer", reason="it has more pieces than were accepted")
        result: Piece | SennitError | None
        if isinstance(message, ErrorReply):
            result = _error_of(message)
        elif step == _Step.END:
            result = None
        elif message is None:
            result = Unsupported("the answer is of a kind that only newer versions know")
        else:
            result = (message, body)
        is_over = step != _Step.PIECE or isinstance(result, SennitError)
        asked.pieces.put_nowait((result, is_over))

    async def _handle_request(self, number: int, message: Message | None, body: bytes) -> None:
        if number in self._served or number % 2 == int(self.dialed):
            raise BadInput("a request of a peer", reason=f"its number {number} is not its own")
        refusal = self._refusal(message, len(body))
        if refusal is not None:
            await self._send_step(number, _Step.ERROR, ErrorReply(refusal.to_json()))
            return
        assert message is not None, "see `_refusal`"
        served = self._served[number] = _Served(len(body))
        served.task = self._tasks.spawn(self._serve(number, message, body, served))
        # Not in the task: one that is cancelled before it has begun runs nothing.
        served.task.add_done_callback(lambda _task: self._end_served(number))

    def _end_served(self, number: int) -> None:
        served = self._served.pop(number)
        self._late_steps = min(self._late_steps + served.sent + 1, _LATE_MAX)

    def _refusal(self, message: Message | None, size: int) -> SennitError | None:
        if message is None or type(message) not in self._handlers:
            kind = "of a newer version" if message is None else repr(message.kind)
            return Unsupported(f"this node serves no request {kind}", hint="update the node")
        size += sum(each.size for each in self._served.values())
        is_full = len(self._served) >= self._limits.requests_max
        if is_full or size > self._limits.request_bytes_max:
            self.refused_messages += 1
            return _busy()
        return None

    async def _serve(self, number: int, message: Message, body: bytes, served: _Served) -> None:
        try:
            answer = self._handlers[type(message)](self, message, body)
            if isinstance(answer, Awaitable):
                await self._send_step(number, _Step.LAST, *await answer)
                return
            # Closed here, so that what an answer holds is released when it is cancelled.
            async with aclosing(answer) as pieces:
                async for piece in pieces:
                    await served.window.acquire()
                    served.sent += 1
                    await self._send_step(number, _Step.PIECE, *piece)
            await self._send_step(number, _Step.END, End())
        except ChannelClosed:
            pass
        except SennitError as error:
            await self._send_error(number, error)
        except Exception:  # noqa: BLE001 - logged, and reported to the asking side
            _log.exception("a request %s of node %s failed", message.kind, self.peer[:16])
            await self._send_error(number, InternalError("the node met an unexpected error"))

    async def _send_error(self, number: int, error: SennitError) -> None:
        with suppress(ChannelClosed):
            await self._send_step(number, _Step.ERROR, ErrorReply(error.to_json()))


def _envelope_of(members: Mapping[str, Any]) -> tuple[int | None, _Step]:
    """Return the number of a frame's request, and what the frame is; None for a message.

    Raises:
        BadInput: They have another form.
    """
    number, step = members.get("r"), members.get("s")
    if number is None:
        return None, _Step.REQUEST
    if not isinstance(number, int) or step not in tuple(_Step):
        raise BadInput("a frame of a peer", reason="its envelope is not one")
    return number, _Step(step)


def _busy() -> Busy:
    return Busy("the node", hint="it serves too many requests of this peer")


def _error_of(reply: ErrorReply) -> SennitError:
    return error_from_json(reply.error)
