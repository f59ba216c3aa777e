"""The scheduler's inputs (events) and outputs (instructions); plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from sennit_core.records import JobState, TaskState

JsonObject: TypeAlias = dict[str, Any]


# Events: what happened, reported by the loop.


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was accepted and is queued.

    Args:
        job: Its id.
        tasks: The keys of its tasks, in shard order.
        has_merge: Whether a merge computes the result; if not, the only task's partial is the
            result.
        engine: The backend whose workers run its tasks.
    """

    job: str
    tasks: tuple[str, ...]
    has_merge: bool = True
    engine: str = ""


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker of a backend can run tasks; for a known worker: it has other slots or inputs now.

    Args:
        worker: Its id.
        slots: How many attempts it runs at the same time; 0 while it drains.
        engine: Its backend.
        cached: Object ids of the inputs that it has.
        lease_seconds: Time without progress after which its attempts fail; None for no leases.
    """

    worker: str
    slots: int = 1
    engine: str = ""
    cached: frozenset[str] = frozenset()
    lease_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker is gone, and with it its attempts; the error is theirs."""

    worker: str
    error: JsonObject


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker started an attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """An attempt delivered its partial result."""

    attempt: str
    partial: JsonObject


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended in an error; only retryable errors are tried on another worker."""

    attempt: str
    error: JsonObject
    retryable: bool


@dataclass(frozen=True, slots=True)
class MergeFinished:
    """A merge delivered the job's result."""

    job: str
    number: int
    result: JsonObject


@dataclass(frozen=True, slots=True)
class MergeFailed:
    """A merge ended in an error."""

    job: str
    number: int
    error: JsonObject
    retryable: bool


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A client cancelled a job."""

    job: str


Event: TypeAlias = (
    JobSubmitted
    | WorkerJoined
    | WorkerLeft
    | AttemptStarted
    | AttemptFinished
    | AttemptFailed
    | MergeFinished
    | MergeFailed
    | CancelRequested
)


# Instructions: what the loop must do, in this order.


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Assign a task to a worker."""

    attempt: str
    job: str
    task: str
    worker: str


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Stop an attempt whose result is no longer needed."""

    attempt: str
    worker: str


@dataclass(frozen=True, slots=True)
class StartMerge:
    """Merge the partials, one per task, in shard order."""

    job: str
    number: int
    partials: tuple[JsonObject, ...]


@dataclass(frozen=True, slots=True)
class StopMerge:
    """Stop a merge whose result is no longer needed."""

    job: str
    number: int


@dataclass(frozen=True, slots=True)
class DropPartial:
    """Acknowledge an outdated or duplicate result and delete its files."""

    attempt: str
    partial: JsonObject


@dataclass(frozen=True, slots=True)
class JobChanged:
    """Record a job's new state."""

    job: str
    state: JobState
    error: JsonObject | None = None
    result: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """Record a task's new state."""

    job: str
    task: str
    state: TaskState
    attempts: int
    partial: JsonObject | None = None


Instruction: TypeAlias = (
    StartAttempt | StopAttempt | StartMerge | StopMerge | DropPartial | JobChanged | TaskChanged
)
