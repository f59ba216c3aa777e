"""What a node's jobs ask of its network (`lake.distributed.network_jobs`)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from lake.distributed.network_jobs import Assigned, RemoteTask, TaskHost, TaskShardsInfo
from lake.peers.jobs.dispatch import JobDispatch, JobStates, TaskNetwork, holders_of
from lake.peers.queries.dispatch import Dispatch, RunAttempt, Unit
from lake.peers.transport.stop import Stop
from sennit_core.errors import Unavailable

if TYPE_CHECKING:
    from lake.objects.disk_space import DiskSpace

__all__ = ["JobCalls"]

_ASSIGN_SECONDS = 30.0


class JobCalls:
    """Runs tasks of jobs at the nodes that hold their shards; see `lake.distributed.network_jobs.NetworkJobs`.

    Args:
        submit: Runs a coroutine in the loop.
        network: Returns the network; None while the node is in none.
        space: The disk.
        bytes_max: What other nodes may send for one job, in bytes; 0 for no limit.
    """

    def __init__(
        self,
        submit: Callable[[Coroutine[Any, Any, Any]], Future[Any]],
        network: Callable[[], TaskNetwork | None],
        space: DiskSpace,
        bytes_max: int,
    ) -> None:
        self._submit = submit
        self._network = network
        self._space = space
        self._states = JobStates(bytes_max)

    @property
    def is_joined(self) -> bool:
        """Whether this node is in a network."""
        return self._network() is not None

    def run(self, task: RemoteTask, host: TaskHost, stop: Stop) -> Future[int]:
        """Run a task; the result is the number of the attempt that counts. See `JobDispatch.run`.

        Raises:
            Unavailable: This node is in no network.
        """
        network = self._required()
        return self._submit(_run(network, self._states, self._space, task, host, stop))

    def assign(self, tasks: Sequence[TaskShardsInfo]) -> Assigned:
        """Return where tasks would run now; blocks.

        Raises:
            Unavailable: This node is in no network.
        """
        network = self._required()
        found: Assigned = self._submit(_assign(network, tasks)).result(_ASSIGN_SECONDS)
        return found

    def _required(self) -> TaskNetwork:
        network = self._network()
        if network is None:
            raise Unavailable(
                "the nodes of a network, as this node is in none",
                hint="`platform net invite` founds one, net join joins",
            )
        return network


async def _run(
    network: TaskNetwork,
    states: JobStates,
    space: DiskSpace,
    task: RemoteTask,
    host: TaskHost,
    stop: Stop,
) -> int:
    return await JobDispatch(network, states, space, task, host, stop).run()


async def _assign(network: TaskNetwork, tasks: Sequence[TaskShardsInfo]) -> Assigned:
    units, missing = [], {}
    for task in tasks:
        lost = {n: network.known_holders(n) for n in task.objects if not network.holders(n)}
        if lost:
            missing[task.key] = lost
            continue
        holders = holders_of(network, task.objects)
        if holders:
            size = sum(map(network.size_of, task.objects))
            units.append(Unit(task.key, size, tuple(holders), len(task.objects)))
    effects = Dispatch(units, [*network.alive(), network.node_id]).start(0.0)
    nodes = {task.key: "" for task in tasks if task.key not in missing}
    for effect in effects:
        if isinstance(effect, RunAttempt):
            nodes |= dict.fromkeys(effect.units, effect.node)
    names = {node: network.name(node) for node in {*nodes.values(), network.node_id} if node}
    return Assigned(nodes, missing, names, network.node_id)
