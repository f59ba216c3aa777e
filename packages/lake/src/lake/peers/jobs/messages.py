"""Messages by which a node lets another one run a task of a job over shards that it holds.

    asking node                                   holder of the shards
    TaskRequest (claim), body: the task  ──▶      is it one that may run here, for this user?
                                         ◀──      TaskProgress, every few seconds, also while it waits
                                         ◀──      TaskPiece …: the partial, as an Arrow IPC stream
                                         ◀──      TaskDone: what it has read and used

The task is text that only `elytra` understands: a plan over named shards, without a path
(`elytra.backends.task_spec`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement
from lake.peers.transport.stop import SECONDS_MAX
from sennit_core.errors import BadInput, TooLarge
from sennit_core.hashing import sha256_hex
from sennit_core.records import Progress, Record
from sennit_core.units import KIB

__all__ = [
    "MESSAGES",
    "OBJECTS_MAX",
    "TASK_BYTES_MAX",
    "TaskDone",
    "TaskPiece",
    "TaskProgress",
    "TaskRequest",
    "TaskShards",
]

OBJECTS_MAX = 2000
"""Shards of a request; their ids are 64 digits each, and a head is bounded."""
TASK_BYTES_MAX = 128 * KIB
"""A plan that people write has a few KiB; each shard of a task that reads many adds some 120 bytes. Reading as
much takes 0.1 s of CPU, which a hostile node can ask for again and again."""
_DATASETS_MAX = 64
_ATTEMPT_LETTERS = 64
_NUMBER_MAX = 1 << 53


@dataclass(frozen=True, slots=True)
class TaskShards(Record):
    """The shards of one dataset that a task reads.

    Args:
        dataset: Id of the dataset.
        objects: Their object ids.
    """

    dataset: str
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskRequest(Message):
    """Asks the receiver to run a task, which is in the body.

    Args:
        attempt: Names the attempt; its `TaskDone` repeats it.
        task: SHA-256 of the body, so that the claim is for this task.
        shards: All that it reads.
        seconds: Its time limit.
        claim: Who asks.
    """

    kind: ClassVar[str] = "task"
    attempt: str
    task: str
    shards: tuple[TaskShards, ...]
    seconds: float
    claim: Statement | None = None

    def check(self, body: bytes) -> None:
        """Refuse a request that no node of this version makes.

        Raises:
            BadInput: A member is out of range, or the body is another one than was signed.
            TooLarge: The task is too large.
        """
        if len(body) > TASK_BYTES_MAX:
            raise TooLarge("a task of a peer", TASK_BYTES_MAX, len(body))
        objects = sum(len(each.objects) for each in self.shards)
        if not 0 < objects <= OBJECTS_MAX or len(self.shards) > _DATASETS_MAX:
            raise BadInput("a task of a peer", reason=f"it has {objects} shards")
        if not 0 < self.seconds <= SECONDS_MAX or len(self.attempt) > _ATTEMPT_LETTERS:
            raise BadInput("a task of a peer", reason="its time limit or id is out of range")
        if sha256_hex(body) != self.task:
            raise BadInput("a task of a peer", reason="its text is not the one that was signed")


@dataclass(frozen=True, slots=True)
class TaskProgress(Message):
    """How far a task has come; also sent while it waits for an executor, as a sign of life."""

    kind: ClassVar[str] = "task-progress"
    progress: Progress


@dataclass(frozen=True, slots=True)
class TaskPiece(Message):
    """Bytes of the partial, in the body."""

    kind: ClassVar[str] = "task-piece"


@dataclass(frozen=True, slots=True)
class TaskDone(Message):
    """The end of a task, after all pieces; what it says of the execution is only shown.

    Args:
        attempt: As of the request.
        rows_in: Rows that it has read.
        peak_bytes: Memory that it has used.
        cap_bytes: The cap that it ran under.
        spilled_bytes: Bytes that it has spilled.
    """

    kind: ClassVar[str] = "task-done"
    attempt: str
    rows_in: int = 0
    peak_bytes: int = 0
    cap_bytes: int = 0
    spilled_bytes: int = 0

    def check(self, attempt: str) -> None:
        """Refuse the end of another attempt, and numbers that JSON does not hold.

        Raises:
            BadInput: It is one.
        """
        numbers = (self.rows_in, self.peak_bytes, self.cap_bytes, self.spilled_bytes)
        if self.attempt != attempt or not all(0 <= each < _NUMBER_MAX for each in numbers):
            raise BadInput("the partial of a peer", reason="it is not of this attempt")


MESSAGES: tuple[type[Message], ...] = (TaskRequest, TaskProgress, TaskPiece, TaskDone)
