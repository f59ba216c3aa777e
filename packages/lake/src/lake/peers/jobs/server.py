"""Runs tasks of other nodes' jobs over shards that are here, in the event loop of the network.

The asking node may be hostile. What it may read are shards of datasets that are shared with it now, as for
parts of queries; a dataset with a policy and an encrypted one are none of these. Which user asks is its signed word
(`lake.peers.changes.claims`), by which quotas and the list of statements go. The task itself is validated by the
`TaskRunner`, as text from anyone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from lake.peers.changes.claims import Claims
from lake.peers.jobs.messages import TaskPiece, TaskProgress, TaskRequest
from lake.peers.queries.fragments import stream_messages
from lake.peers.sharing.shared_index import SharedIndex
from lake.peers.transport.limits import Slots
from lake.peers.transport.messages import BODY_BYTES_MAX, Message
from lake.peers.transport.session import Handler, Piece, Session
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import Denied, NotFound
from sennit_core.records import Progress

__all__ = ["JobServer", "TaskCall", "TaskRunner", "cut_pieces"]

_RENEW_SECONDS = 2.0
"""A progress message at least so often; the asking node waits for fifteen times as long."""


@dataclass(frozen=True, slots=True)
class TaskCall:
    """A task that another node asks for.

    Args:
        text: The task.
        shards: What it may read: object ids by the ids of their datasets.
        user: Who asks.
        shown_as: The user with the node's name, for lists and logs.
        seconds: Its time limit.
        attempt: What its end is to name.
    """

    text: bytes
    shards: Mapping[str, tuple[str, ...]]
    user: Requester
    shown_as: str
    seconds: float
    attempt: str


class TaskRunner(Protocol):
    """Runs tasks over shards of this node."""

    def run(
        self, call: TaskCall, stop: Stop, progressed: Callable[[Progress], object]
    ) -> Iterator[Piece]:
        """Yield the pieces of the answer, the last a `TaskDone`; blocks its thread.

        Args:
            call: The task; nothing of it was validated but what it may read.
            stop: Stops it.
            progressed: Called with each progress, from any thread.
        """
        ...


class JobServer:
    """Checks requests for tasks, and answers them.

    Args:
        runner: Runs tasks.
        index: Knows what is shared with a peer.
        claims: Checks claims.
        wall: Returns Unix seconds.
        known_as: Returns the name of a node.
    """

    def __init__(
        self,
        runner: TaskRunner,
        index: SharedIndex,
        claims: Claims,
        wall: Callable[[], float],
        known_as: Callable[[str], str],
    ) -> None:
        self._runner = runner
        self._index = index
        self._claims = claims
        self._wall = wall
        self._known_as = known_as
        self._slots = Slots("tasks of jobs")

    def handlers(self) -> dict[type[Message], Handler]:
        """Return what answers which request."""
        return {TaskRequest: self._serve}

    async def _serve(
        self, session: Session, message: TaskRequest, body: bytes
    ) -> AsyncGenerator[Piece, None]:
        message.check(body)
        if message.claim is None:
            raise Denied("running a task of a job without a claim")
        user = self._claims.check(message.claim, session.peer, message, self._wall())
        for each in message.shards:
            if not self._index.may_compute(session.peer, each.dataset, each.objects):
                # The same answer for a shard that is not here and one that is not shared.
                raise NotFound("shard of a task", each.dataset[:64], suggestion=None)
        shown_as = f"{user.name}@{self._known_as(user.node)}"
        shards = {each.dataset: each.objects for each in message.shards}
        call = TaskCall(body, shards, user, shown_as, message.seconds, message.attempt)
        last = TaskProgress(Progress())

        def progressed(progress: Progress) -> None:
            nonlocal last
            last = TaskProgress(progress)

        with self._slots.take(session.peer):
            answer = stream_messages(
                lambda stop: self._runner.run(call, stop, progressed),
                idle=(_RENEW_SECONDS, lambda: (last, b"")),
            )
            async with aclosing(answer) as pieces:
                async for piece in pieces:
                    yield piece


def cut_pieces(payload: memoryview) -> Iterator[Piece]:
    """Yield a payload as pieces of an answer."""
    for start in range(0, len(payload), BODY_BYTES_MAX):
        yield TaskPiece(), bytes(payload[start : start + BODY_BYTES_MAX])
