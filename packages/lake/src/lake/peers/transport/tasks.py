"""Background tasks of one owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from sennit_core.errors import SennitError
from sennit_core.logs import get_logger

__all__ = ["TaskSet", "cancel_once"]

_log = get_logger(__name__)
T = TypeVar("T")


def cancel_once(task: asyncio.Task[Any]) -> None:
    """Cancel a task, unless it was: a second time would interrupt what it does to end."""
    if not task.cancelling():
        task.cancel()


class TaskSet:
    """Tasks that nothing need await: their owner cancels them, and unexpected errors are logged.

    asyncio keeps no reference to a task, and reports its error only when that is collected.

    Args:
        what: What they do, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task, and return it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """Cancel all tasks; `end` waits for them too."""
        for task in self._tasks:
            cancel_once(task)

    async def end(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # A `SennitError` is of a peer or of the disk: who needs to know awaits the task.
        if error is not None and not isinstance(error, SennitError):
            _log.error("%s: an unexpected error", self._what, exc_info=error)
