"""Runs the statements of one request in their order; each commits by itself, or in its transaction.

The execution has the interface of a single statement's, and the result of its last one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from lake.statements.script_text import Block, Piece, Step, placed
from sennit_core.errors import Cancelled, SennitError
from sennit_core.records import Progress

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScriptExecution", "StepExecution", "drain", "pieces_of"]


class StepExecution(Protocol):
    """The interface of a statement's execution."""

    @property
    def engine(self) -> str:
        """The engine in use."""
        ...

    @property
    def pid(self) -> int:
        """The process id of the executor."""
        ...

    @property
    def progress(self) -> Progress:
        """The current progress."""
        ...

    def payloads(self) -> Iterator[memoryview]:
        """Yield the result's bytes."""
        ...

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the result as Arrow batches."""
        ...

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the report."""
        ...

    def cancel(self) -> None:
        """Request cancellation."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class ScriptExecution:
    """Statements that run one after another; a context manager.

    Args:
        steps: The statements and transactions.
        begin: Starts one; it gets whether that is the last, whose result is read, and the numbers of
            the statements that are committed.
        changes: Whether a step changes data, so that it is committed when it has ended.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        begin: Callable[[Step, bool, Sequence[int]], StepExecution],
        changes: Callable[[Step], bool],
    ) -> None:
        self._steps = steps
        self._begin = begin
        self._changes = changes
        self._committed: list[int] = []
        self._next = 0  # the index of the step that starts next
        # Guards the two below: a cancellation between two steps counts for the next.
        self._lock = threading.Lock()
        self._current: StepExecution | None = None
        self._cancelled = False
        self._finished = False
        self._error: SennitError | None = None  # after it, no other statement starts

    @property
    def engine(self) -> str:
        """The engine of the statement that runs."""
        return "duckdb" if self._current is None else self._current.engine

    @property
    def cache(self) -> str | None:
        """How the last statement used the result cache."""
        return getattr(self._current, "cache", None) if self._at_last else None

    @property
    def pid(self) -> int:
        """The process id of the executor; 0 between two statements."""
        return 0 if self._current is None else self._current.pid

    @property
    def progress(self) -> Progress:
        """The progress of the statement that runs."""
        return Progress() if self._current is None else self._current.progress

    @property
    def done(self) -> bool:
        """Whether the last statement has ended."""
        return self._finished

    def payloads(self) -> Iterator[memoryview]:
        """Run all statements; yield the bytes of the last one's result."""
        last = self._advance()
        with self._placed_errors():
            yield from last.payloads()
        self._finished = True

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run all statements; yield the last one's result (format `arrow` only)."""
        last = self._advance()
        with self._placed_errors():
            yield from last.batches()
        self._finished = True

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Run all statements; return the report of the last one.

        Args:
            timeout: Seconds to wait for the last one, if it is a query.
        """
        last = self._advance()
        with self._placed_errors():
            report = last.result(timeout)
        self._finished = True
        return report

    def cancel(self) -> None:
        """Stop the statement that runs, and start no other; what is committed stays."""
        with self._lock:
            self._cancelled = True
            current = self._current
        if current is not None:
            current.cancel()

    def close(self) -> None:
        """Cancel what runs; may be called twice."""
        self.cancel()
        if self._current is not None:
            self._current.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _at_last(self) -> bool:
        return self._next == len(self._steps)

    def _advance(self) -> StepExecution:
        """Run the statements before the last one, once; return the execution of the last."""
        if self._error is not None:
            raise self._error
        while not self._at_last:
            step = self._steps[self._next]
            self._next += 1
            with self._placed_errors():
                self._start(step)
                if not self._at_last:
                    self._finish(step)
        assert self._current is not None, "there is a last statement, and it has started"
        return self._current

    def _start(self, step: Step) -> None:
        self._check_cancelled()
        execution = self._begin(step, self._at_last, self._committed)
        with self._lock:
            self._current = execution
            cancelled = self._cancelled
        if cancelled:
            execution.cancel()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise Cancelled("the statements")

    def _finish(self, step: Step) -> None:
        assert self._current is not None, "it has started"
        try:
            drain(self._current)
        finally:
            self._current.close()
        if self._changes(step):
            self._committed += [each.number for each in pieces_of(step)]

    @contextmanager
    def _placed_errors(self) -> Iterator[None]:
        step = self._steps[min(self._next, len(self._steps)) - 1]
        try:
            yield
        except SennitError as error:
            self._finished = True
            self._error = error
            if isinstance(step, Block):
                raise  # a transaction names its statement by itself
            self._error = placed(error, step, self._committed)
            raise self._error from error


def drain(execution: StepExecution, keep_bytes_max: int = 0) -> tuple[dict[str, Any], bytes]:
    """Run an execution to its end; return its report, and its result's first bytes."""
    kept = bytearray()
    for payload in execution.payloads():
        kept += payload[: max(0, keep_bytes_max - len(kept))]
    return execution.result(), bytes(kept)


def pieces_of(step: Step) -> Sequence[Piece]:
    """Return the statements of a step."""
    return step.pieces if isinstance(step, Block) else (step,)
