"""Run tasks at the nodes of the network that hold their shards.

    start ──▶ lake.peers.jobs.dispatch ──▶ this node has the shards: an executor here
                                      └─▶ another one: its partial arrives as a file ──▶ validated in an executor here

There is one worker with many slots: which node runs a task follows from where its shards are, and the dispatcher
knows that, with what each node has to do. It also asks another holder when a node is lost (design 0185).

What another node sends is Arrow data of a stranger. Its schema must be that of the task, and an executor reads
all of it, checked in full, and writes the file that the task was to make. So no byte of a peer is read unchecked.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elytra.backends import NodeFiles, NodeParts, Report, TaskInput, TaskSpec, Workers
from elytra.backends.local import LocalBackend
from emsqrt.plan import Files, Scan, check
from lake.distributed.network_jobs import RemoteTask
from lake.peers.jobs.messages import TaskDone
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import (
    BadInput,
    Cancelled,
    InternalError,
    NotFound,
    SennitError,
    Unavailable,
    UsageError,
    error_from_json,
)
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder
from sennit_core.records import Progress
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elytra.service.messages import JsonObject

__all__ = ["PeersBackend", "shards_by_dataset"]

SLOTS = 16
"""As many tasks as one node runs for another at the same time (`lake.peers.transport.limits.Slots`)."""
_CLOSE_SECONDS = 3.0
_log = get_logger(__name__)


class PeersBackend:
    """Runs tasks at other nodes, and those of which the shards are here on this one.

    Args:
        node: The node's lake and executors.
    """

    name: ClassVar[str] = "peers"

    def __init__(self, node: NodeParts) -> None:
        self._lake = node.lake
        # Of its own, so that validating partials does not wait for the threads of local jobs. Its
        # workers are not reported: the scheduler knows only those of the engine `local`.
        self._local = LocalBackend(node)
        self._lock = threading.Lock()
        # The tasks that were started and have not ended, by id.
        self._running: dict[str, tuple[Stop, Future[Any]]] = {}

    def open(self, workers: Workers) -> None:
        """Report the one worker; see `Backend.open`."""
        workers.joined("network", SLOTS)

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """Start a task at a node that holds its shards; see `Backend.start`."""
        del worker  # the dispatcher chooses the node
        stop = Stop()
        attempts = _Attempts(self._local, task, files, report)
        try:
            jobs = self._lake.remote.jobs
            if jobs is None:
                raise Unavailable("the nodes of a network, as this process is no node of one")
            remote = _remote_task(task, files)
            make_private_folder(files.output.parent)
            report.started()
            done = jobs.run(remote, attempts, stop)
        except SennitError as error:
            report.failed(error.to_json(), retryable=error.retryable)
            return
        with self._lock:
            self._running[task.id] = stop, done
        done.add_done_callback(lambda ended: self._end(task.id, ended, attempts, report))

    def stop(self, task_id: str) -> None:
        """Cancel a task at all nodes; its end is still reported."""
        with self._lock:
            running = self._running.get(task_id)
        if running is not None:
            running[0].stop()

    def close(self) -> None:
        """Stop all tasks and wait a few seconds for them to end."""
        with self._lock:
            running = list(self._running.values())
        for stop, _ in running:
            stop.stop()
        wait_for([done for _, done in running], timeout=_CLOSE_SECONDS)
        self._local.close()
        for _, done in running:  # one whose execution here never began reports no end
            done.cancel()

    def _end(self, task_id: str, done: Future[int], attempts: _Attempts, report: Report) -> None:
        """Report the end of a task; runs in the loop of the network."""
        with self._lock:
            del self._running[task_id]
        try:
            outcome: JsonObject | SennitError = attempts.result(done.result())
        except SennitError as error:
            outcome = error
        except FutureCancelled:
            outcome = Cancelled("the task")
        except Exception as problem:  # noqa: BLE001 - it ends the task, never the loop
            _log.exception("a task at other nodes failed unexpectedly")
            outcome = InternalError(f"a task failed unexpectedly: {type(problem).__name__}")
        attempts.clean()
        # Reported last: the receiver may rely on the task having ended here.
        if isinstance(outcome, SennitError):
            report.failed(outcome.to_json(), retryable=outcome.retryable)
        else:
            report.finished(outcome)


class _Attempts:
    """The attempts at one task, as `lake.peers.jobs.dispatch.TaskHost`: each has an output file.

    Args:
        local: Runs plans in this node's executors.
        task: The task.
        files: Its files on this node.
        report: Receives its progress.
    """

    def __init__(
        self, local: LocalBackend, task: TaskSpec, files: NodeFiles, report: Report
    ) -> None:
        self._local = local
        self._task = task
        self._files = files
        self._report = report
        # What the attempts that ended well have reported, by their numbers.
        self._results: dict[int, JsonObject] = {}

    async def run_here(self, attempt: int) -> None:
        """Run the task in an executor of this node."""
        task = replace(self._task, id=f"{self._task.id}-{attempt}")
        files = replace(self._files, output=self._output(attempt))
        await self._run(task, files, attempt, self._report.progressed)

    async def accept(self, attempt: int, received: Path, done: TaskDone) -> None:
        """Read what another node has sent in full, and write it as the task's output."""
        expected = check(self._task.plan)
        await asyncio.to_thread(_check_schema, received, expected)
        name = "partial-0"
        task = replace(
            self._task,
            id=f"{self._task.id}-{attempt}",
            plan=Scan(Files((name,), "arrow"), expected),
            inputs=(TaskInput(name, "partial", received.name),),
        )
        files = NodeFiles({name: str(received)}, self._output(attempt))
        await self._run(task, files, attempt, lambda _: None)  # not that of the task
        result = self._results[attempt]
        # Of the execution that has read the shards; of the other one only what it has written counts.
        manifest = {
            **result["manifest"],
            "rowsIn": done.rows_in,
            "peakBytes": done.peak_bytes,
            "capBytes": done.cap_bytes,
            "spilledBytes": done.spilled_bytes,
        }
        self._results[attempt] = {**result, "manifest": manifest}

    def progressed(self, progress: Progress) -> None:
        """Report the progress of the node that runs the task."""
        self._report.progressed(progress)

    def result(self, attempt: int) -> JsonObject:
        """Move the output of the attempt that counts to its place; return what it has reported."""
        output = self._files.output
        self._output(attempt).rename(output)
        return {**self._results[attempt], "file": output.name}

    def clean(self) -> None:
        """Remove the output of the other attempts."""
        for number in self._results:
            self._output(number).unlink(missing_ok=True)

    def _output(self, attempt: int) -> Path:
        output = self._files.output
        return output.with_name(f"{output.stem}.{attempt}{output.suffix}")

    async def _run(
        self,
        task: TaskSpec,
        files: NodeFiles,
        attempt: int,
        progressed: Callable[[Progress], object],
    ) -> None:
        end: Future[JsonObject] = Future()
        self._local.start_merge(task, files, _Ended(end, progressed))
        ended = asyncio.wrap_future(end)
        try:
            await asyncio.wait([ended])  # to cancel this does not cancel what it waits for
        except asyncio.CancelledError:
            self._local.stop(task.id)
            # Its files are removed next: it must not write them any more.
            await asyncio.wait([ended])
            ended.exception()
            files.output.unlink(missing_ok=True)
            raise
        self._results[attempt] = ended.result()


@dataclass(frozen=True, slots=True)
class _Ended:
    """The report of an execution here, as a future."""

    end: Future[JsonObject]
    on_progress: Callable[[Progress], object]

    def started(self) -> None:
        """No event: the task has started."""

    def progressed(self, progress: Progress) -> None:
        self.on_progress(progress)

    def finished(self, result: JsonObject) -> None:
        self.end.set_result(result)

    def failed(self, error: JsonObject, *, retryable: bool) -> None:
        del retryable  # follows from the error
        self.end.set_exception(error_from_json(error))


def shards_by_dataset(files: NodeFiles) -> dict[str, tuple[str, ...]]:
    """Return the object ids of a task's shards, by the ids of their datasets.

    Raises:
        NotFound: An input is no shard of a dataset that is known.
    """
    found: dict[str, list[str]] = {}
    for shard in files.shards:
        dataset = files.datasets.get(shard.dataset)
        if dataset is None:
            raise NotFound("dataset of a shard", shard.dataset, suggestion=None)
        found.setdefault(dataset, []).append(Path(shard.path).name)
    if not found:
        raise NotFound("shard", "of a task of other nodes", suggestion=None)
    return {dataset: tuple(names) for dataset, names in found.items()}


def _remote_task(task: TaskSpec, files: NodeFiles) -> RemoteTask:
    shards = shards_by_dataset(files)
    named = {name for names in shards.values() for name in names}
    if any(each.kind != "shard" or each.id not in named for each in task.inputs):
        raise UsageError(f"task {task.id} reads more than shards of datasets, so only here")
    # The user's name is in the claim, which is signed; in the text it would be a second one.
    text = json.dumps(replace(task, user="", copy_bytes_max=0).to_json(), separators=(",", ":"))
    return RemoteTask(
        job=task.job,
        key=task.key,
        text=text.encode(),
        shards=shards,
        user=Requester(task.user),
        received=files.output.with_suffix(".received"),
        seconds=task.limits.seconds,
        # Of a Parquet file, the size is known only when it is written.
        bytes_max=task.limits.output_bytes_max if task.output == "arrow" else None,
    )


def _check_schema(received: Path, expected: Schema) -> None:
    """Refuse a partial with other columns than the task's, in the order of these.

    Raises:
        BadInput: It has others, or is not Arrow IPC.
    """
    import pyarrow as pa

    from sennit_core.arrow_ipc import open_arrow

    what = "the partial of a peer"
    with pa.OSFile(str(received)) as file, open_arrow(file, what) as reader:
        if not reader.schema.equals(expected.to_arrow()):
            raise BadInput(what, reason="its columns are not those of the task")
