"""One run of a local pipeline: its limits, and the execution that it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from emsqrt.engine import Engine
from emsqrt.plan import Plan
from sennit_core.clock import SYSTEM
from sennit_core.errors import Cancelled, DeadlineExceeded
from sennit_core.records import Progress

if TYPE_CHECKING:
    from emsqrt.executor.execution import Execution


class LocalRun:
    """Executes the plans of a run one after the other: those before Python functions, then the last.

    Args:
        engine: Runs them in processes of its own.
        mem_cap: The cap of each, such as "64MiB"; the engine's when None.
        timeout_seconds: For the whole run, Python functions included; None for no limit.
        on_progress: Called with each new `Progress`.
    """

    def __init__(
        self,
        engine: Engine,
        mem_cap: str | int | None = None,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        self._engine = engine
        self._mem_cap = mem_cap
        self._timeout_seconds = timeout_seconds
        self._until = None if timeout_seconds is None else SYSTEM.monotonic() + timeout_seconds
        self._on_progress = on_progress
        self._lock = Lock()  # guards the two fields below
        self._execution: Execution | None = None  # the one that runs now
        self._cancelled = False  # never reset: no plan starts afterwards

    @contextmanager
    def open(self, plan: Plan) -> Iterator[Execution]:
        """Execute a plan over files, whose batches are read inside the `with`.

        Raises:
            Cancelled: `cancel` was called.
            DeadlineExceeded: The time limit of the run is over.
        """
        self.check()
        left = None if self._until is None else max(0.0, self._until - SYSTEM.monotonic())
        with self._engine.open_execution(
            plan, mem_cap=self._mem_cap, deadline_seconds=left, on_progress=self._on_progress
        ) as execution:
            with self._lock:
                self._execution = execution
            try:
                self.check()  # a cancellation that came while the execution was opened
                yield execution
            finally:
                with self._lock:
                    self._execution = None

    def check(self) -> None:
        """Raise if the run was cancelled or its time is over; between two batches of a function."""
        if self._cancelled:
            raise Cancelled("the run")
        if self._until is not None and SYSTEM.monotonic() > self._until:
            raise DeadlineExceeded("the run", self._timeout_seconds)

    def cancel(self) -> None:
        """Stop the run, from any thread; a Python function that runs ends its batch first."""
        with self._lock:
            self._cancelled = True
            execution = self._execution
        if execution is not None:
            execution.cancel()
