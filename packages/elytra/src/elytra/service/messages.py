"""The scheduler's inputs (events) and outputs (instructions); plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from elytra.service.job_options import JobOptions
from sennit_core.records import AttemptState, JobState, TaskState

JsonObject: TypeAlias = dict[str, Any]


# Events: what happened, reported by the loop.


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; all times of the scheduler are those of ticks.

    Args:
        now: Seconds of a monotonic clock; never less than before.
    """

    now: float


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was accepted and is queued.

    Args:
        job: Its id.
        tasks: The keys of its tasks, in shard order.
        has_merge: Whether a merge computes the result; if not, the only task's partial is the
            result.
        engine: The backend whose workers run its tasks.
        user: Who submitted it; users share the workers by weight.
        options: Of the submission; its deadline counts from this event.
        sizes: Input bytes of tasks, where known.
        inputs: The object id of a task's shard, where it has one.
        holds_partials: Whether the results of its tasks are on disk until a merge has read them.
        done: Results of tasks that a previous run of the node has.
        first_attempt: Number of a task's first attempt, above those of previous runs of the node.
        user_weight: The user's weight; above 0.
    """

    job: str
    tasks: tuple[str, ...]
    has_merge: bool = True
    engine: str = ""
    user: str = ""
    options: JobOptions = field(default_factory=JobOptions)
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    holds_partials: bool = False
    done: Mapping[str, JsonObject] = field(default_factory=dict)
    first_attempt: int = 1
    user_weight: float = 1.0


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
class WorkerDiscredited:
    """A worker has returned wrong rows, so no result is used that names its token.

    Args:
        token: The member `token` of results of all workers that had it.
    """

    token: str


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker started an attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class AttemptProgressed:
    """An attempt has read or written more than before, which renews its lease."""

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
    Tick
    | JobSubmitted
    | WorkerJoined
    | WorkerLeft
    | WorkerDiscredited
    | AttemptStarted
    | AttemptProgressed
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
class SkippedTask:
    """A poisoned task whose input is missing in the result of its job."""

    task: str
    attempts: int
    error: JsonObject


@dataclass(frozen=True, slots=True)
class JobChanged:
    """Record a job's new state.

    Args:
        job: Its id.
        state: The new state.
        error: Of a failed job.
        result: Of a job that is done.
        task: The task whose error it is, if it is a task's.
        skipped: Of a job that is done: the tasks that its result lacks.
    """

    job: str
    state: JobState
    error: JsonObject | None = None
    result: JsonObject | None = None
    task: str | None = None
    skipped: tuple[SkippedTask, ...] = ()


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
    """Record an attempt's new state; the error is that of a failed or expired one."""

    job: str
    task: str
    attempt: str
    worker: str
    state: AttemptState
    error: JsonObject | None = None


Change: TypeAlias = JobChanged | TaskChanged | AttemptChanged
Instruction: TypeAlias = StartAttempt | StopAttempt | StartMerge | StopMerge | DropPartial | Change
