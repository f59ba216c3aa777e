"""elytra.backends: where the tasks of jobs run.

A backend is a module with a class that implements `Backend`, and an entry in `elytra.backends.table`.
`local` is the executors of this node, `peers` the nodes of its network that hold the shards. `elytra.testing.BackendContract`
has the tests that each must pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from elytra.backends.task_spec import NodeFiles, TaskInput, TaskLimits, TaskSpec

if TYPE_CHECKING:
    from elytra.functions.step import FunctionLimits
    from emsqrt.executor import ExecutorPool
    from lake import Lake
    from sennit_core.records import Progress

__all__ = [
    "CACHED_MAX",
    "ENGINES",
    "FUNCTION_ENGINE",
    "NODE_ENGINE",
    "Backend",
    "IngestTask",
    "NodeBackend",
    "NodeFiles",
    "NodeParts",
    "Report",
    "TaskInput",
    "TaskLimits",
    "TaskSpec",
    "Workers",
]

CACHED_MAX = 10_000
"""Cached inputs of a worker that the scheduler knows; a tab's cache of 8 MiB shards has 80 GiB then."""

NODE_ENGINE = "local"
"""The backend that every node has: it also runs merges and ingests."""

ENGINES = ("auto", NODE_ENGINE, "browser", "ray", "peers")
"""The engines that a submission may name; a node refuses those whose backend it does not have."""

FUNCTION_ENGINE = "browser-functions"
"""The backend of jobs with JavaScript functions, whose engine is `browser` in submissions and records."""


@dataclass(frozen=True, slots=True)
class IngestTask:
    """One execution of an ingest, which only the node itself runs.

    Args:
        id: Identifies the execution in `stop`; never reused.
        upload_id: The sealed upload.
        owner: Owner of the new dataset.
    """

    id: str
    upload_id: str
    owner: str


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a backend is made of.

    Args:
        lake: Datasets and uploads of the node.
        pool: Its executors.
        workers: How many of them tasks may use at the same time.
        functions: What Python functions of plans may use; None if none run.
    """

    lake: Lake
    pool: ExecutorPool
    workers: int
    functions: FunctionLimits | None = None


class Workers(Protocol):
    """Receives which workers a backend has, from any thread."""

    def joined(
        self,
        worker: str,
        slots: int = 1,
        cached: Sequence[str] = (),
        lease_seconds: float | None = None,
    ) -> None:
        """A worker can run tasks; called again for one that has joined, it replaces what was said.

        Args:
            worker: Its id, unique in its backend.
            slots: How many attempts it runs at the same time; 0 for a worker that drains: it ends
                those that it has, and gets no more.
            cached: Object ids of shards whose bytes it has: tasks over these go to it first. At most
                `CACHED_MAX` count.
            lease_seconds: After so much time without progress an attempt of it has failed, and is
                made again by another; None for workers whose end the node always notices.
        """

    def discredited(self, token: str) -> None:
        """A token's workers have returned wrong rows: their results, which name it, are computed again."""

    def left(self, worker: str) -> None:
        """A worker is gone; its attempts are made again by others, and later reports of it are ignored."""


class Report(Protocol):
    """Receives what happens in one execution, from any thread."""

    def started(self) -> None:
        """The execution has started."""

    def progressed(self, progress: Progress) -> None:
        """The execution has come this far; more bytes or rows than before renew its lease."""

    def finished(self, result: dict[str, Any]) -> None:
        """The execution has ended with this result; its rows are in the output file."""

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        """The execution has ended with this error, in the form of `SennitError.to_json`.

        Args:
            error: Its `code` is the kind of failure.
            retryable: Whether another worker may succeed.
        """


class Backend(Protocol):
    """Runs tasks; all methods return without waiting for a task, except `close`."""

    name: ClassVar[str]
    """The engine that a job's record names."""

    def open(self, workers: Workers) -> None:
        """Start, and report the workers; called once, before all other methods.

        Args:
            workers: Receives each worker that joins or leaves.
        """

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """Start a task; its end is reported, unless the backend is closed first.

        Of several ends only the first counts.

        A backend ends each task within its limits, also one whose worker has died: with `failed`, or
        with `Workers.left`. A task that has ended with an error leaves no output file.

        Args:
            task: The task.
            files: Its inputs on this node, and the file that its rows go to.
            report: Receives its start, progress and end.
            worker: One that has joined and has a free slot.
        """

    def stop(self, task_id: str) -> None:
        """Cancel a task; its end is still reported. No effect if it has ended."""

    def close(self) -> None:
        """Stop all tasks and wait a few seconds for them to end."""


class NodeBackend(Backend, Protocol):
    """The backend `NODE_ENGINE`: its tasks and more may use the node's files."""

    def start_merge(self, task: TaskSpec, files: NodeFiles, report: Report) -> None:
        """Start a merge, which takes no worker's slot; see `start`."""

    def start_ingest(self, task: IngestTask, report: Report) -> None:
        """Start an ingest; see `start`."""
