"""Run tasks on the node's own executors, and wait for them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from elytra.backends.local import LocalBackend
from sennit_core.errors import SennitError, error_from_json

if TYPE_CHECKING:
    from elytra.backends import NodeFiles, NodeParts, TaskSpec
    from sennit_core.records import Progress

__all__ = ["LocalRuns", "TaskFailed"]


class TaskFailed(Exception):
    """A task has failed on the node.

    Args:
        error: In the form of `SennitError.to_json`.
        retryable: Whether it may succeed later.
    """

    def __init__(self, error: dict[str, Any], *, retryable: bool) -> None:
        super().__init__(error.get("error", ""))
        self.error = error
        self.retryable = retryable

    @property
    def code(self) -> str:
        """The kind of failure."""
        return str(self.error.get("code", ""))

    def to_error(self) -> SennitError:
        """Return the error as an exception of this process."""
        return error_from_json(self.error)


class LocalRuns:
    """Tasks that the node runs for remote workers: inputs, results, and checks of results.

    Args:
        node: The node's lake and executors.
    """

    def __init__(self, node: NodeParts) -> None:
        self._backend = LocalBackend(node)

    def run(self, task: TaskSpec, files: NodeFiles) -> dict[str, Any]:
        """Run a task and return its result.

        Raises:
            TaskFailed: It failed, or was stopped.
        """
        outcome = _Outcome()
        self._backend.start(task, files, outcome, "")
        outcome.end.wait()
        if outcome.failure is not None:
            raise outcome.failure
        assert outcome.result is not None
        return outcome.result

    def stop(self, task_id: str) -> None:
        """Stop a task, which then fails."""
        self._backend.stop(task_id)

    def close(self) -> None:
        """Stop all tasks."""
        self._backend.close()


class _Outcome:
    """Receives the report of one execution."""

    def __init__(self) -> None:
        # Either is set before `end` is.
        self.result: dict[str, Any] | None = None
        self.failure: TaskFailed | None = None
        self.end = threading.Event()

    def started(self) -> None:
        pass

    def progressed(self, progress: Progress) -> None:
        pass

    def finished(self, result: dict[str, Any]) -> None:
        self.result = result
        self.end.set()

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        self.failure = TaskFailed(error, retryable=retryable)
        self.end.set()
