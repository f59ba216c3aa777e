"""Runs one task of a job at a node that holds its shards: its attempts, driven by a `Dispatch`.

    holders ──▶ attempt at one ──▶ received file ──▶ validated by the job's node ──▶ done
                  │ node lost, silent, busy, refuses, wrong or too many bytes: another holder
                  └ no holder that runs tasks: the shards are fetched, and the task runs here

A task is one unit: all of its shards at one node. The attempt whose result is accepted counts, and no
other one is looked at, so no shard is counted twice.

The death of the process that ran it ends the task with `worker-lost`, as on the node itself: the job's scheduler makes the next
attempt, elsewhere if possible, and gives up after some. Otherwise a task that ends its processes would do
that at every holder several times.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import uniform
from typing import TYPE_CHECKING, Protocol

from lake.distributed.network_jobs import RemoteTask, TaskHost
from lake.distributed.partial import ShardsUnavailable
from lake.objects.durable import storage_errors
from lake.peers.jobs.messages import (
    TaskDone,
    TaskPiece,
    TaskProgress,
    TaskRequest,
    TaskShards,
)
from lake.peers.queries.attempts import OF_THE_NODE, Attempts
from lake.peers.queries.dispatch import Dispatch, RunAttempt, Unit
from lake.peers.queries.distributed_query import Placed
from lake.peers.transport.limits import ByteLimit
from lake.peers.transport.stop import SECONDS_MAX, Stop
from lake.statements.deadline import Deadline
from sennit_core.errors import (
    BadInput,
    Busy,
    DeadlineExceeded,
    SennitError,
    StorageFull,
    TooLarge,
    Unavailable,
    WorkerLost,
)
from sennit_core.hashing import sha256_hex
from sennit_core.ids import new_id
from sennit_core.records import Progress

if TYPE_CHECKING:
    from lake.objects.disk_space import DiskSpace
    from lake.peers.changes.claims import Claims

__all__ = ["JobDispatch", "JobStates", "TaskNetwork", "holders_of"]

_SILENT_SECONDS = 30.0
"""Fifteen signs of life (`lake.peers.jobs.server`): a node that is alive and silent for so long has lost the task."""
_BUSY_SECONDS = (0.2, 1.5)
"""The pause after all holders were busy, at first and at most."""
_RETURN_SECONDS = 15.0
"""How long a task waits for a holder once: a node that has just started does not know the others yet, and one that
restarts is back by then."""
_JOBS_MAX = 256
_DURATIONS_MAX = 64


class TaskNetwork(Placed, Protocol):
    """What a task of a job needs of the network."""

    claims: Claims

    @property
    def node_id(self) -> str:
        """The id of this node."""
        ...

    def wall(self) -> float:
        """Return Unix seconds."""
        ...

    def size_of(self, name: str) -> int:
        """Return the bytes of a shard; 0 if it is not known."""
        ...

    def runs_tasks(self, node: str) -> bool:
        """Return whether another node runs tasks of jobs, as it has greeted or announced."""
        ...


@dataclass(slots=True)
class _JobState:
    """What the tasks of one job share.

    `failed` has the nodes at which each task has lost its process: its next attempt is elsewhere, at last here.
    """

    limit: ByteLimit
    durations: list[float] = field(default_factory=list)
    failed: dict[str, set[str]] = field(default_factory=dict)


class JobStates:
    """What is known of the jobs that ran last, and how much each node has to do for them.

    Args:
        bytes_max: What other nodes may send for one job, in bytes; 0 for no limit.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._jobs: OrderedDict[str, _JobState] = OrderedDict()
        self.load: Counter[str] = Counter()
        """Bytes of the shards of running attempts, by node."""

    def of(self, job: str) -> _JobState:
        """Return the state of a job; a new one if it is not known any more."""
        found = self._jobs.setdefault(job, _JobState(ByteLimit(self._bytes_max)))
        self._jobs.move_to_end(job)
        if len(self._jobs) > _JOBS_MAX:
            self._jobs.popitem(last=False)
        del found.durations[:-_DURATIONS_MAX]
        return found


class JobDispatch:
    """The attempts of one task.

    Args:
        network: Knows where shards are.
        states: Of this node's jobs.
        space: Refuses results for which the disk has no room.
        task: The task.
        host: Validates results, and runs the task here.
        stop: Stops it.
    """

    def __init__(
        self,
        network: TaskNetwork,
        states: JobStates,
        space: DiskSpace,
        task: RemoteTask,
        host: TaskHost,
        stop: Stop,
    ) -> None:
        self._network = network
        self._states = states
        self._state = states.of(task.job)
        self._space = space
        self._task = task
        self._host = host
        self._stop = stop
        self._bytes = sum(map(network.size_of, task.objects))
        self._deadline = Deadline(task.seconds)
        self._error: SennitError | None = None  # of the attempt that has failed last
        self._refused: set[str] = set()  # nodes that have failed it, and were not just busy
        self._is_fetched = self._has_waited = False
        self._numbers = count(1)  # of attempts, of all dispatches: each has files of its own
        self._numbered: dict[int, int] = {}  # these, by the numbers of the current dispatch

    async def run(self) -> int:
        """Run the task; return the number of the attempt that counts, in this node's files.

        Raises:
            ShardsUnavailable: No node that can be reached has a shard.
            DeadlineExceeded: It was not done in time.
            WorkerLost: The process that ran it has ended.
            SennitError: The error of the task, if every holder has one.
        """
        try:
            async with asyncio.timeout(self._task.seconds):
                return await self._run()
        except TimeoutError:
            what = f"task {self._task.key} of job {self._task.job}"
            raise DeadlineExceeded(what, self._task.seconds) from None

    async def _run(self) -> int:
        pause = _BUSY_SECONDS[0]
        while True:
            holders = self._holders()
            end = await self._attempt_at(holders) if holders else None
            if end is not None:
                return end
            if holders and isinstance(self._error, Busy):
                # As on the node itself, a task waits for its turn, whatever the queue.
                await asyncio.sleep(uniform(0.5, 1.0) * pause)
                pause = min(pause * 2, _BUSY_SECONDS[1])
            elif self._is_fetched:
                raise self._error or ShardsUnavailable(f"the shards of task {self._task.key}")
            else:
                await self._fetch()

    async def _fetch(self) -> None:
        """Fetch the shards, as no holder has run the task: what it does here is the last word.

        What a peer says of a task may be wrong, its errors too, so none of them fails the job.
        """
        try:
            await self._network.fetch(self._task.objects)
        except SennitError as error:
            if isinstance(error, ShardsUnavailable) and await self._returned():
                return
            if self._error is not None and not isinstance(self._error, OF_THE_NODE):
                raise self._error from error
            raise
        self._is_fetched = True

    async def _returned(self) -> bool:
        """Wait, once, until a node can be reached that holds the shards; return whether there is one."""
        if self._has_waited:
            return False
        self._has_waited = True
        self._refused.clear()  # it may have been away, and the others are asked once more
        end = self._network_time() + _RETURN_SECONDS
        while self._network_time() < end and not self._stop.stopped:
            if self._holders():
                return True
            await asyncio.sleep(0.2)
        return False

    def _network_time(self) -> float:
        return asyncio.get_running_loop().time()

    async def _attempt_at(self, holders: Sequence[str]) -> int | None:
        """Try the task at its holders; return the number of the attempt that counts."""
        task = self._task
        self._numbered = {}
        self._attempts = Attempts(
            self._network, self._stop, self._attempt, self._failed, "the task"
        )
        unit = Unit(task.key, self._bytes, tuple(holders), len(task.objects))
        alive = [*self._network.alive(), self._network.node_id]
        dispatch = Dispatch([unit], alive, durations=self._state.durations)
        end = await self._attempts.finish(dispatch)
        return self._numbered[end.attempts[0]] if end.attempts else None

    def _holders(self) -> list[str]:
        """Return the nodes that may run the task, the best first."""
        own = self._network.node_id
        if self._is_fetched:
            return [own] if own not in self._refused else []
        found = holders_of(self._network, self._task.objects)
        if not self._task.may_leave:
            found = [node for node in found if node == own]
        without = {*self._refused, *self._state.failed.get(self._task.key, ())}
        load = self._states.load
        # Stable, so this node is the first of equals.
        return sorted((node for node in found if node not in without), key=lambda node: load[node])

    def _failed(self, attempt: RunAttempt, error: SennitError) -> None:
        self._error = error
        if not isinstance(error, Busy):
            self._refused.add(attempt.node)

    async def _attempt(self, attempt: RunAttempt) -> None:
        load, node = self._states.load, attempt.node
        number = self._numbered[attempt.attempt] = next(self._numbers)
        load[node] += self._bytes
        try:
            if node == self._network.node_id:
                await self._host.run_here(number)
            else:
                await self._run_at(node, number)
        except WorkerLost as error:
            self._state.failed.setdefault(self._task.key, set()).add(node)
            self._attempts.abort(error)
            raise
        finally:
            load[node] -= self._bytes

    async def _run_at(self, node: str, number: int) -> None:
        place = self._task.received.with_name(f"{self._task.received.name}-{number}")
        answer = _Answer(self._task, self._state.limit, self._space, place)
        try:
            done = await self._receive(node, answer)
            answer.end()
            await self._host.accept(number, place, done)
        except StorageFull as error:
            if answer.is_full:  # no other holder would change that
                self._attempts.abort(error)
            raise
        except DeadlineExceeded as error:
            # Of the session, or of the other node's clock: this task's own limit is in `run`.
            raise Unavailable(f"node {node[:16]}", hint=str(error)) from error
        else:
            answer.counts = True
        finally:
            answer.close()

    async def _receive(self, node: str, answer: _Answer) -> TaskDone:
        session = await self._network.session(node)
        # Again, by the greeting of this session: the node may have come back with another version.
        if not self._network.runs_tasks(node):
            raise Unavailable(f"node {node[:16]}", hint="its version runs no tasks of jobs")
        request = self._request(node)
        done: TaskDone | None = None
        pieces = session.stream(request, self._task.text, timeout_seconds=_SILENT_SECONDS)
        async with aclosing(pieces):
            async for message, body in pieces:
                if done is not None:
                    raise BadInput("the partial of a peer", reason="it goes on after its end")
                match message:
                    case TaskPiece():
                        await answer.write(body)
                    case TaskProgress(progress):
                        self._host.progressed(_plain(progress))
                    case TaskDone():
                        message.check(request.attempt)
                        done = message
                    case _:
                        raise BadInput("the partial of a peer", reason=f"a {message.kind} in it")
        if done is None:
            raise BadInput("the partial of a peer", reason="it was cut off")
        return done

    def _request(self, node: str) -> TaskRequest:
        task = self._task
        shards = tuple(TaskShards(dataset, names) for dataset, names in task.shards.items())
        seconds = min(self._deadline.left or SECONDS_MAX, SECONDS_MAX)
        request = TaskRequest(new_id(), sha256_hex(task.text), shards, seconds)
        claim = self._network.claims.sign(task.user, node, request, self._network.wall())
        return replace(request, claim=claim)


class _Answer:
    """What another node sends for one attempt: a file, of bounded size.

    Args:
        task: The task.
        limit: Of the job.
        space: The disk.
        place: The file, which `close` removes.
    """

    def __init__(self, task: RemoteTask, limit: ByteLimit, space: DiskSpace, place: Path) -> None:
        self._task = task
        self._limit = limit
        self._space = space
        self._place = place
        self._file = place.open("wb")
        self._size = 0
        self.counts = False
        """Whether it is used, so that it goes on to count for the job's limit."""
        self.is_full = False
        """Whether the disk of this node has no room for it."""

    async def write(self, body: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            TooLarge: They are too many for the task, or for the job.
            StorageFull: The disk has no room for them.
        """
        most, size = self._task.bytes_max, self._size + len(body)
        if most is not None and size > most:
            raise TooLarge(f"the result of task {self._task.key}", most, size)
        self._limit.add(len(body))
        self._size = size
        try:
            self._space.check_disk("partials of other nodes", len(body))
        except StorageFull:
            self.is_full = True
            raise
        with storage_errors(self._place.parent, len(body)):
            await asyncio.to_thread(self._file.write, body)

    def end(self) -> None:
        """Write what is buffered, so that the file can be read."""
        with storage_errors(self._place.parent, 0):
            self._file.close()

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):  # of a full disk, where it was not read
            self._file.close()
        self._place.unlink(missing_ok=True)
        if not self.counts:
            self._limit.remove(self._size)


def holders_of(network: TaskNetwork, objects: Sequence[str]) -> list[str]:
    """Return the nodes that hold all of some shards and run tasks of jobs, this node first."""
    own, found = network.node_id, None
    for name in objects:
        holders = network.holders(name)
        found = holders if found is None else [node for node in found if node in holders]
    return [node for node in found or () if node == own or network.runs_tasks(node)]


def _plain(progress: Progress) -> Progress:
    """Return the numbers of a progress that a peer sends, of which none is trusted."""
    most = 1 << 53

    def number(value: int) -> int:
        return min(max(value, 0), most)

    return Progress(
        bytes_done=number(progress.bytes_done),
        rows=number(progress.rows),
        memory_bytes=number(progress.memory_bytes),
        spilled_bytes=number(progress.spilled_bytes),
    )
