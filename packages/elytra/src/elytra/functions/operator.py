"""The operator that applies a Python function, in an executor; the function runs in a process of its own.

An executor may read the lake's files and goes on to run plans of others, so it never runs a function
itself. It starts `elytra.functions.child`, which gives up its rights before it compiles the function's
text (`elytra.functions.sandbox`), and exchanges rows with it:

    executor   start ─▶                  rows ─▶                      end ─▶
    process            ◀─ ready ◀─ more          ◀─ rows … ◀─ more            ◀─ rows … ◀─ end

One side waits for the other at each point, so neither pipe fills up with both writing.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

from elytra.errors import StepFailed
from elytra.functions.frames import (
    FRAME_BYTES_MAX,
    BadFrame,
    read_frame,
    rows_bytes,
    rows_of_bytes,
    write_frame,
)
from elytra.functions.step import FunctionStep
from elytra.local.python_steps import BATCH_ROWS
from emsqrt.environment import LEAN_ENVIRONMENT
from sennit_core.errors import SennitError, error_from_json
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.execution_context import ExecutionContext
    from emsqrt.operators.operator import Operator
    from emsqrt.plan import Custom

__all__ = ["FunctionRows", "granted"]

_WAIT_SECONDS = 0.1
"""Interval at which cancellation is noticed while the function runs."""
_START_SECONDS = 120.0
"""Python and pyarrow load in a second of CPU; this does not count as the function's time."""
_TEXT_MAX = 2000
_MEMORY_HINT = "elytra.python_bytes is the memory of a function"
_ENVIRONMENT = {
    **LEAN_ENVIRONMENT,
    # Otherwise pyarrow's other allocator starts a thread, and a process with threads is not confined.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
"""All that the process has: no variable of the node, whose settings may be secret."""


def granted(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the member of a request that lets an executor run the functions of its plan.

    Args:
        limits: `FunctionLimits.to_json`.
    """
    return {"make": "elytra.functions.operator:FunctionRows", "options": dict(limits)}


class FunctionRows:
    """The rows that a function returns.

    Args:
        node: The operator; its options are those of `FunctionStep`.
        inputs: One operator, whose rows the function receives.
        run: The run; the caller of the engine has granted the function its limits.
    """

    def __init__(self, node: Custom, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        (self._input,) = inputs
        self._step = FunctionStep.from_json(node.options)
        self.schema: Schema = node.schema or self._input.schema
        self._run = run
        self._limits: Mapping[str, Any] = run.context.operators[node.name]["options"]
        because = f"{self._step.label} exchanges rows with its process"
        self._guard = run.admit(2 * FRAME_BYTES_MAX, "python", because)

    def batches(self) -> Generator[Any]:
        """Yield what the function returns.

        Raises:
            StepFailed: It raised, took too long or too much memory, ended its process, or returned
                what the columns cannot hold.
        """
        with (
            self._guard,
            closing(self._input.batches()) as rows,
            _Process(
                self._step, self._limits, self._input.schema, self.schema, self._run
            ) as process,
        ):
            yield from process.results(self._cut(rows))

    def _cut(self, rows: Iterator[pa.RecordBatch]) -> Iterator[memoryview]:
        at = 0
        for batch in rows:
            self._run.check()
            for begin in range(0, batch.num_rows, BATCH_ROWS):
                piece = batch.slice(begin, BATCH_ROWS)
                yield from self._fitting(piece, at + begin)
            at += batch.num_rows

    def _fitting(self, batch: pa.RecordBatch, at: int) -> Iterator[memoryview]:
        # The size of the columns first: a stream of rows that are too large is not made.
        if batch.nbytes <= FRAME_BYTES_MAX:
            data = rows_bytes(batch)
            if len(data) <= FRAME_BYTES_MAX:
                yield data
                return
        if batch.num_rows == 1:
            reason = (
                f"the row has {batch.nbytes:,} bytes, and a function receives {FRAME_BYTES_MAX:,}"
            )
            raise StepFailed(
                self._step.label, reason, row=at, hint="select fewer columns before it"
            )
        half = batch.num_rows // 2
        yield from self._fitting(batch.slice(0, half), at)
        yield from self._fitting(batch.slice(half), at + half)


class _Process:
    """The process of a function; a context manager that ends it.

    Args:
        step: The function.
        limits: `FunctionLimits.to_json`.
        received: The columns that it receives.
        schema: The columns of what it returns.
        run: Asked for cancellation.
    """

    def __init__(
        self,
        step: FunctionStep,
        limits: Mapping[str, Any],
        received: Schema,
        schema: Schema,
        run: ExecutionContext,
    ) -> None:
        self._step = step
        self._schema = schema.to_arrow()
        self._run = run
        self._is_ready = False
        self._seconds = float(limits["seconds"])
        # Of the time that this process waits for that one; until it is ready, of its start.
        self._left = _START_SECONDS
        counter = os.memfd_create("calls", os.MFD_CLOEXEC)
        try:
            os.ftruncate(counter, 8)
            self._calls = mmap.mmap(counter, 8)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "elytra.functions.child", str(counter)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[counter],
                env=_ENVIRONMENT,
                cwd="/",
                bufsize=0,
            )
        finally:
            os.close(counter)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        # A function that takes over the protocol may stop reading: no write may block.
        os.set_blocking(self._to, False)
        self._start = {
            **step.to_json(),
            "received": received.to_json(),
            "schema": schema.to_json(),
            "memoryBytes": limits["memoryBytes"],
            "seconds": self._seconds,
            "parent": os.getpid(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._calls.close()

    def results(self, pieces: Iterator[memoryview]) -> Iterator[pa.RecordBatch]:
        """Send pieces of rows as they are asked for, and yield the rows that come back."""
        self._send("start", json.dumps(self._start).encode())
        while True:
            kind, payload = self._receive()
            if kind == "end":
                return
            if kind == "rows":
                try:
                    yield rows_of_bytes(payload, self._schema)
                except BadFrame as problem:
                    raise self._failed(str(problem)) from None
            elif kind == "ready":
                self._left = min(self._left, self._seconds) if self._is_ready else self._seconds
                self._is_ready = True
            elif kind == "more":
                piece = next(pieces, None)
                self._send("end") if piece is None else self._send("rows", piece)
            elif kind == "failed":
                raise self._error(payload)
            else:
                raise self._failed("it sent bytes that are no frame")

    def _send(self, kind: str, payload: bytes | memoryview = b"") -> None:
        try:
            write_frame(self._to, kind, payload, wait=lambda: self._wait(select.POLLOUT))
        except BrokenPipeError:
            raise self._ended() from None

    def _receive(self) -> tuple[str, bytes]:
        try:
            return read_frame(self._read)
        except BadFrame as problem:
            raise self._failed(str(problem)) from None

    def _read(self, size: int) -> bytes:
        pieces = []
        while size:
            self._wait(select.POLLIN)
            piece = os.read(self._from, min(size, 1 << 20))
            if not piece:
                raise self._ended()
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _wait(self, event: int) -> None:
        """Wait until a pipe is ready; raise if the run was stopped, or the function's time is over."""
        poll = select.poll()
        poll.register(self._from if event == select.POLLIN else self._to, event)
        while True:
            began = time.monotonic()
            ready = poll.poll(1000 * min(_WAIT_SECONDS, max(self._left, 0.001)))
            self._left -= time.monotonic() - began
            if ready:
                return
            self._run.check()
            if self._left <= 0:
                raise self._too_long()

    def _too_long(self) -> SennitError:
        if not self._is_ready:
            return self._failed(f"its process has not started within {_START_SECONDS:g} seconds")
        return self._failed(
            f"it has not ended within {self._seconds:g} seconds",
            hint="elytra.python_seconds is the limit of a task's functions",
        )

    def _ended(self) -> SennitError:
        """Return the error of a process that has ended by itself."""
        status = self._process.wait()
        if status >= 0:
            return self._failed(f"it ended its process with status {status}")
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return self._failed(
            f"its process was ended by {name}",
            hint=f"a library that gets no memory may do that: {_MEMORY_HINT}",
        )

    def _error(self, payload: bytes) -> SennitError:
        """Return the error that the process reports; its text is the function's, so it is cut."""
        try:
            document = json.loads(payload)
            text = str(document["error"])[:_TEXT_MAX]
            if document.get("code") == StepFailed.code:
                found = error_from_json(document)
                if isinstance(found, StepFailed):
                    row = found.row if isinstance(found.row, int) else None
                    column = None if found.column is None else str(found.column)[:_TEXT_MAX]
                    reason = str(found.reason)[:_TEXT_MAX]
                    hint = None if found.hint is None else str(found.hint)[:_TEXT_MAX]
                    if reason.startswith(MemoryError.__name__):
                        hint = _MEMORY_HINT
                    return StepFailed(self._step.label, reason, row, column, hint=hint)
        except (ValueError, KeyError, TypeError, AttributeError):
            text = "its process reported an error that is not readable"
        return self._failed(text)

    def _failed(self, reason: str, hint: str | None = None) -> StepFailed:
        return StepFailed(self._step.label, reason, row=self._row, hint=hint)

    @property
    def _row(self) -> int | None:
        """The row of the call that was made last; None before the first, and for batches."""
        calls = int.from_bytes(self._calls[:8], sys.byteorder)
        return None if not calls or self._step.verb == "map_batches" else calls - 1
