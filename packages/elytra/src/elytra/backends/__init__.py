"""elytra.backends: where the tasks and merges of jobs run.

A backend is one module with a class that implements `Backend`; `JobService` creates it and hands it
to the scheduler's loop. There is one: `local`, the executors of this node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

if TYPE_CHECKING:
    from lake.verification import ShardFile

__all__ = ["ENGINES", "Backend", "IngestTask", "PlanTask", "Report", "TaskSpec"]

ENGINES = ("auto", "local", "browser", "ray", "peers")
"""The engines that a submission may name; a node refuses those whose backend it does not have."""


@dataclass(frozen=True, slots=True)
class PlanTask:
    """One execution of a plan, for a task or for a merge.

    Args:
        id: Identifies the execution in `stop` and in reports; never reused.
        job: The job's id.
        key: The task's key; "merge" for a merge.
        plan: The plan's JSON; its scans name files, and its sink the output file or a stream.
        output: The output file.
        streamed: Whether the plan's sink is a stream, which the backend writes to the output file.
        copy_bytes_max: The rows are in the result too, as the Arrow IPC stream `rows`, if it has no
            more bytes than this; 0 for never.
        shards: The shards that the plan reads, which are verified first.
        sources: Queries whose rows the plan reads, in the form of `lake.plan`.
        memory: The members of requests for temporary files in memory, if encrypted datasets are read.
        secret: The key that encrypts the output file; None for no encryption.
        datasets: The ids of the shards' datasets by their names.
        mem_cap_bytes: Memory cap of the execution; None uses the executor's cap.
        user: The user on whose behalf it runs.
    """

    id: str
    job: str
    key: str
    plan: Mapping[str, Any]
    output: str
    streamed: bool
    copy_bytes_max: int = 0
    shards: tuple[ShardFile, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    secret: bytes | None = field(default=None, repr=False)
    datasets: Mapping[str, str] = field(default_factory=dict)
    mem_cap_bytes: int | None = None
    user: str = ""


@dataclass(frozen=True, slots=True)
class IngestTask:
    """One execution of an ingest.

    Args:
        id: Identifies the execution in `stop` and in reports; never reused.
        job: The job's id.
        key: The task's key.
        upload_id: The sealed upload.
        owner: Owner of the new dataset.
    """

    id: str
    job: str
    key: str
    upload_id: str
    owner: str


TaskSpec: TypeAlias = PlanTask | IngestTask


class Report(Protocol):
    """Receives the progress of one execution, from any thread."""

    def started(self) -> None:
        """The execution has started."""

    def finished(self, result: dict[str, Any]) -> None:
        """The execution has ended with this result."""

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        """The execution has ended with this error, in the form of `SennitError.to_json`."""


class Backend(Protocol):
    """Runs tasks; all methods return without waiting for a task, except `close`."""

    name: ClassVar[str]
    """The engine that a job's record names."""

    def start(self, task: TaskSpec, report: Report) -> None:
        """Start a task; its end is reported exactly once, unless the backend is closed first.

        Args:
            task: The task.
            report: Receives its start and its end.
        """

    def stop(self, task_id: str) -> None:
        """Cancel a task; its end is still reported. No effect if it has ended."""

    def close(self) -> None:
        """Stop all tasks and wait a few seconds for them to end."""
