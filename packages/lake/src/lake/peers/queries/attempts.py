"""Performs the attempts of a `Dispatch`: each is a task of the event loop, and all of them end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from lake.peers.queries.dispatch import Dispatch, Finished, RunAttempt, StopAttempt
from lake.peers.transport.machine import Effect
from lake.peers.transport.stop import Stop
from sennit_core.errors import (
    Busy,
    Cancelled,
    Corrupt,
    NotFound,
    SennitError,
    Unavailable,
)

if TYPE_CHECKING:
    from lake.peers.queries.distributed_query import Placed

__all__ = ["OF_THE_NODE", "Attempts"]

_TICK_SECONDS = 0.25
OF_THE_NODE = (Unavailable, Busy, NotFound, Corrupt, Cancelled)
"""Errors that another holder of the shards may not have. All others are of the work, at every node."""


class Attempts:
    """The attempts of one dispatch, of a query's step or of a task of a job.

    Args:
        placed: Knows which nodes can be reached.
        stop: Stops all of them.
        run: Runs one; what it raises as a `SennitError` is a failure of this attempt.
        failed: Called with each failure, before its units go to other nodes.
        what: What is stopped, for the error.
    """

    def __init__(
        self,
        placed: Placed,
        stop: Stop,
        run: Callable[[RunAttempt], Awaitable[object]],
        failed: Callable[[RunAttempt, SennitError], object],
        what: str = "the query",
    ) -> None:
        self._what = what
        self._placed = placed
        self._stop = stop
        self._run = run
        self._failed = failed
        self.started: dict[int, RunAttempt] = {}
        """By their numbers."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._end: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

    async def finish(self, dispatch: Dispatch) -> Finished:
        """Perform a dispatch; return its end. No attempt of it runs any more then.

        Raises:
            Cancelled: It was stopped.
            Exception: What an attempt has raised that is no `SennitError`, or was given to `abort`.
        """
        known = set(self._placed.alive())
        self._dispatch = dispatch
        try:
            self._perform(dispatch.start(self._now()))
            while not self._end.done():
                await asyncio.wait((self._end,), timeout=_TICK_SECONDS)
                if self._stop.stopped:
                    raise Cancelled(self._what)
                for lost in known - set(self._placed.alive()):
                    self._perform(dispatch.node_lost(lost, self._now()))
                known &= set(self._placed.alive())
                self._perform(dispatch.tick(self._now()))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        return self._end.result()

    def abort(self, error: Exception) -> None:
        """End the dispatch with an error, which `finish` raises."""
        if not self._end.done():
            self._end.set_exception(error)

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case RunAttempt(number):
                    self.started[number] = effect
                    self._tasks[number] = asyncio.create_task(self._attempt(effect))
                case StopAttempt(number):
                    self._tasks[number].cancel()
                case Finished() if not self._end.done():
                    self._end.set_result(effect)

    async def _attempt(self, attempt: RunAttempt) -> None:
        number = attempt.attempt
        try:
            await self._run(attempt)
        except SennitError as error:
            self._failed(attempt, error)
            if self._end.done():  # aborted: nothing is tried again
                return
            retry = getattr(error, "retryable", False)
            self._perform(self._dispatch.failed(number, str(error), self._now(), retry=retry))
        except Exception as error:  # noqa: BLE001 - raised by `finish`: a full disk here, or a fault
            self.abort(error)
        else:
            self._perform(self._dispatch.succeeded(number, self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
