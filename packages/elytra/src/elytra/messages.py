"""What the scheduler hears (events) and what it orders (instructions); values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from sennit_core.records import AttemptState, JobState, TaskState

JsonObject: TypeAlias = dict[str, Any]


# Events: what happened, told by the shell.


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was accepted and waits for a place.

    Args:
        job: Its id.
        task: The one task of a job that needs neither plan nor merge; its partial is the result.
    """

    job: str
    task: str | None = None


@dataclass(frozen=True, slots=True)
class JobPlanned:
    """The plan of a job was split into tasks, named in shard order."""

    job: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobUnplannable:
    """The plan of a job could not be split (unknown dataset, unknown column …)."""

    job: str
    error: JsonObject


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker offers slots; lease_seconds None means that its loss is always told, never guessed."""

    worker: str
    slots: int = 1
    lease_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone, with all that it was doing."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker took up an attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class AttemptProgressed:
    """A worker said that an attempt moves on; renews its lease."""

    attempt: str


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """An attempt delivered its partial result."""

    attempt: str
    partial: JsonObject


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended in an error; only a retryable one is worth another worker."""

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
    """Somebody wants a job to stop."""

    job: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; leases may have run out."""


Event: TypeAlias = (
    JobSubmitted
    | JobPlanned
    | JobUnplannable
    | WorkerJoined
    | WorkerLost
    | AttemptStarted
    | AttemptProgressed
    | AttemptFinished
    | AttemptFailed
    | MergeFinished
    | MergeFailed
    | CancelRequested
    | Tick
)


# Instructions: what the shell must do, in this order.


@dataclass(frozen=True, slots=True)
class PlanJob:
    """Split the job's plan, then tell JobPlanned or JobUnplannable."""

    job: str


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Give a task to a worker; lease_until is None for a worker without leases."""

    attempt: str
    job: str
    task: str
    worker: str
    lease_until: float | None


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Nobody waits for this attempt any more."""

    attempt: str
    worker: str


@dataclass(frozen=True, slots=True)
class StartMerge:
    """Merge the partials, one a task and in shard order."""

    job: str
    number: int
    partials: tuple[JsonObject, ...]


@dataclass(frozen=True, slots=True)
class StopMerge:
    """Nobody waits for this merge any more."""

    job: str
    number: int


@dataclass(frozen=True, slots=True)
class DropPartial:
    """A late or second result: acknowledge it and delete what it left."""

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


@dataclass(frozen=True, slots=True)
class AttemptChanged:
    """Record an attempt's new state."""

    attempt: str
    job: str
    task: str
    worker: str
    state: AttemptState
    lease_until: float | None = None
    error: JsonObject | None = None


Instruction: TypeAlias = (
    PlanJob
    | StartAttempt
    | StopAttempt
    | StartMerge
    | StopMerge
    | DropPartial
    | JobChanged
    | TaskChanged
    | AttemptChanged
)
