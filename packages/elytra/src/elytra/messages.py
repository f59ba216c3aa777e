"""The scheduler's inputs (events) and outputs (instructions); plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from sennit_core.records import AttemptState, JobState, TaskState

JsonObject: TypeAlias = dict[str, Any]


# Events: what happened, reported by the loop.


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was accepted and is queued.

    Args:
        job: Its id.
        task: The only task of a job without planning and merge; its partial is the result.
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
    """A worker offers slots; without lease_seconds its loss is reported, not inferred."""

    worker: str
    slots: int = 1
    lease_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone, and its attempts with it."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker started an attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class AttemptProgressed:
    """A worker reported progress of an attempt, which renews its lease."""

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


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; leases may have expired."""


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


# Instructions: what the loop must do, in this order.


@dataclass(frozen=True, slots=True)
class PlanJob:
    """Split the job's plan, then report JobPlanned or JobUnplannable."""

    job: str


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Assign a task to a worker; lease_until is None for a worker without leases."""

    attempt: str
    job: str
    task: str
    worker: str
    lease_until: float | None


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
