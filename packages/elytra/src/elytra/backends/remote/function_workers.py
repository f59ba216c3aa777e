"""The backend `browser-functions`: the remote workers whose owners run functions of others.

The scheduler has a pool of workers for each backend, in which all are alike. Such a worker is in two
pools, with slots of its own in each, so that its tasks of both kinds never exceed its credit:

    slots of a worker    1 here, for tasks with functions     the others in `browser`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from elytra.backends import FUNCTION_ENGINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elytra.backends import NodeFiles, Report, TaskSpec, Workers
    from elytra.backends.remote.backend import RemoteBackend
    from elytra.backends.remote.sessions import SessionInfo

__all__ = ["FunctionWorkers", "why_no_functions"]


class FunctionWorkers:
    """A backend whose tasks another one carries out; see `Backend`.

    Args:
        remote: Has the connections of all remote workers.
    """

    name: ClassVar[str] = FUNCTION_ENGINE

    def __init__(self, remote: RemoteBackend) -> None:
        self._remote = remote

    def open(self, workers: Workers) -> None:
        """Report the workers whose owners run functions; see `Backend.open`."""
        self._remote.open_functions(workers)

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """Assign a task to a worker; see `Backend.start`."""
        self._remote.start(task, files, report, worker)

    def stop(self, task_id: str) -> None:
        """Cancel a task; see `Backend.stop`."""
        self._remote.stop(task_id)

    def close(self) -> None:
        """Nothing: the other backend closes the connections."""


def why_no_functions(workers: Iterable[SessionInfo]) -> str | None:
    """Return what a job with JavaScript functions waits for; None if one of the workers runs them."""
    if any(each.functions and each.state == "connected" for each in workers):
        return None
    return "a tab whose owner runs functions of others: none is connected"
