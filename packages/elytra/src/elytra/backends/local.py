"""Run attempts and merges on this node: one thread for each, which watches an executor process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

from elytra.messages import Event, JsonObject
from sennit_core.errors import Cancelled, InternalError, SennitError
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from emsqrt.executor import Execution

_CLOSE_SECONDS = 3.0
_log = get_logger(__name__)


class Run:
    """A running attempt or merge that can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._execution: Execution | None = None
        self._stopped = False
        self.ended = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested."""
        return self._stopped

    def attach(self, execution: Execution) -> None:
        """Set the execution that `stop` cancels; cancel it now if a stop was already requested."""
        with self._lock:
            self._execution = execution
            stopped = self._stopped
        if stopped:
            execution.cancel()

    def detach(self) -> None:
        """Clear the execution after it has ended."""
        with self._lock:
            self._execution = None

    def stop(self) -> None:
        """Cancel the current execution and any that is attached later."""
        with self._lock:
            self._stopped = True
            execution = self._execution
        if execution is not None:
            execution.cancel()

    def check(self) -> None:
        """Raise Cancelled when a stop was requested."""
        if self._stopped:
            raise Cancelled("the attempt")


Work: TypeAlias = Callable[[Run], JsonObject]
"""The work of an attempt, run in its own thread; returns its partial result."""


class LocalBackend:
    """Runs work on threads and reports its outcome.

    Args:
        report: Called from those threads with each event.
        threads: Maximum concurrent attempts and merges.
    """

    def __init__(self, report: Callable[[Event], None], threads: int) -> None:
        self._report = report
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="elytra-attempt")
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}

    def start(
        self,
        key: str,
        work: Work,
        *,
        started: Event | None,
        finished: Callable[[JsonObject], Event],
        failed: Callable[[JsonObject, bool], Event],
    ) -> None:
        """Start work.

        Args:
            key: Identifies the work for `stop`.
            work: The work to run.
            started: Event to report when it starts.
            finished: Creates the event for its result.
            failed: Creates the event for (error, whether it is retryable).
        """
        run = Run()
        with self._lock:
            self._runs[key] = run

        def body() -> None:
            try:
                event = self._attempt(run, work, started, finished, failed)
            finally:
                with self._lock:
                    del self._runs[key]
                run.ended.set()
            self._report(event)

        self._threads.submit(body)

    def stop(self, key: str) -> None:
        """Cancel work; its outcome is still reported."""
        with self._lock:
            run = self._runs.get(key)
        if run is not None:
            run.stop()

    def close(self) -> None:
        """Stop all work and wait a few seconds for it to end."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stop()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for run in runs:
            run.ended.wait(max(0.0, deadline - time.monotonic()))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _attempt(
        self,
        run: Run,
        work: Work,
        started: Event | None,
        finished: Callable[[JsonObject], Event],
        failed: Callable[[JsonObject, bool], Event],
    ) -> Event:
        try:
            run.check()
            if started is not None:
                self._report(started)
            return finished(work(run))
        except SennitError as error:
            return failed(error.to_json(), error.retryable)
        except Exception as problem:  # noqa: BLE001 - it ends the attempt, never the thread
            _log.exception("an attempt failed unexpectedly")
            mistake = InternalError(
                f"an attempt failed unexpectedly: {type(problem).__name__}: {problem}"
            )
            return failed(mistake.to_json(), False)
