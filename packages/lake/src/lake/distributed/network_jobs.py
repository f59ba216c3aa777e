"""Tasks of jobs that run at other nodes, as a job service sees them; `lake.peers.jobs.dispatch` runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lake.peers.jobs.messages import OBJECTS_MAX, TASK_BYTES_MAX, TaskDone
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.records import Progress

__all__ = ["Assigned", "NetworkJobs", "RemoteTask", "TaskHost", "TaskShardsInfo"]


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """A task that may run at another node.

    Args:
        job: The job's id.
        key: The task's key in it.
        text: The task.
        shards: What it reads: object ids by the ids of their datasets.
        user: For whom it runs.
        received: Where to write what other nodes send; the attempt's number is added to the name.
        seconds: Its time limit; None for none.
        bytes_max: The longest answer; None for the limit of this node alone.
    """

    job: str
    key: str
    text: bytes
    shards: Mapping[str, tuple[str, ...]]
    user: Requester
    received: Path
    seconds: float | None = None
    bytes_max: int | None = None

    @property
    def objects(self) -> list[str]:
        """All of its shards."""
        return list(dict.fromkeys(name for names in self.shards.values() for name in names))

    @property
    def may_leave(self) -> bool:
        """Whether it is small enough for a request."""
        return len(self.text) <= TASK_BYTES_MAX and len(self.objects) <= OBJECTS_MAX


class TaskHost(Protocol):
    """The job's side of a task; methods run in the loop of the network."""

    async def run_here(self, attempt: int) -> None:
        """Run the task on this node, over shards that are here."""
        ...

    async def accept(self, attempt: int, received: Path, done: TaskDone) -> None:
        """Validate what another node has sent, and make the attempt's result of it.

        Raises:
            SennitError: It is not a result of the task; another holder is asked.
        """
        ...

    def progressed(self, progress: Progress) -> None:
        """Note how far the task has come."""
        ...


@dataclass(frozen=True, slots=True)
class TaskShardsInfo:
    """The shards of a task, to find out where it would run.

    Args:
        key: The task's key.
        objects: Their object ids.
    """

    key: str
    objects: Sequence[str]


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where tasks would run now.

    Args:
        nodes: The node of each task, by its key; "" if its shards would be fetched, and the task run here.
        missing: The tasks with a shard that no node has which can be reached: for each shard the names
            of the nodes that are known to have it.
        names: What the nodes are called.
        own: The id of this node.
    """

    nodes: Mapping[str, str]
    missing: Mapping[str, Mapping[str, tuple[str, ...]]]
    names: Mapping[str, str]
    own: str


class NetworkJobs(Protocol):
    """What jobs ask of the network of their node; for any thread but the network's."""

    @property
    def is_joined(self) -> bool:
        """Whether this node is in a network."""
        ...

    def run(self, task: RemoteTask, host: TaskHost, stop: Stop) -> Future[int]:
        """Run a task; the result is the number of the attempt that counts.

        Its error is a `SennitError`: `Unavailable` if no node that can be reached has a shard, `WorkerLost` if
        the process that ran it has ended, `DeadlineExceeded`, `Cancelled`, or that of the task.

        Raises:
            Unavailable: This node is in no network.
        """
        ...

    def assign(self, tasks: Sequence[TaskShardsInfo]) -> Assigned:
        """Return where tasks would run now; blocks.

        Raises:
            Unavailable: This node is in no network.
        """
        ...
