"""Write shards on a second thread while the next rows are parsed.

Parsing and encoding cost about the same, and both run in C without the interpreter's lock, so an ingest
on two threads needs little more than half the time. The second thread does all of `ShardWriter.write`,
one batch after the other: it makes the same decisions in the same order as without it, and the shards
have the same bytes.

    parse ─▶ batches, at most `held_bytes` ─▶ encode, compress, write, hash
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emsqrt.background import thread_stack
from lake.ingest.shards import Shard, ShardWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.memory import BudgetGuard

__all__ = ["BACKGROUND_BYTES", "BackgroundWriter", "Writer"]

_HELD_BYTES = 16 << 20
"""Bytes of batches that wait: a row group of this size is encoded at once, and about as much arrives
meanwhile. With less, the parser would wait for the end of each row group."""
_STACK_BYTES = 1 << 20
"""Reserved for the thread, which runs Arrow's Parquet writer; it touches a tenth of this."""
BACKGROUND_BYTES = _HELD_BYTES + _STACK_BYTES
"""Memory of a `BackgroundWriter`."""


@dataclass(frozen=True)
class _Rows:
    """A batch, and the range of the source that it was parsed from."""

    batch: pa.RecordBatch
    start: int | None
    stop: int | None
    line: int


class BackgroundWriter:
    """A `ShardWriter` on a thread of its own; used by one thread, which calls `discard` at the end.

    Args:
        writer: Writes the shards.
        guard: The reservation of `BACKGROUND_BYTES`; released by `discard`.
        is_busy: Returns whether others need the second core. Then this thread writes, and waits.
    """

    def __init__(
        self, writer: ShardWriter, guard: BudgetGuard, is_busy: Callable[[], bool]
    ) -> None:
        self._writer = writer
        self._guard = guard
        self._is_busy = is_busy
        # Guarded by `_changed`. The first of `_waiting` is the one that is being written: it is
        # removed when it is done, so an empty queue means that the thread does nothing.
        self._changed = threading.Condition()
        self._waiting: deque[_Rows] = deque()
        self._waiting_bytes = 0
        self._error: BaseException | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def shards(self) -> list[Shard]:
        """The finished shards, after everything that was written before."""
        self._wait_for(self._is_idle)
        return self._writer.shards

    def write(
        self, batch: pa.RecordBatch, *, start: int | None, stop: int | None, line: int = 1
    ) -> None:
        """Append the batch as `ShardWriter.write`; waits while too much is waiting.

        Raises:
            BaseException: The error of an earlier batch; nothing is written after it.
        """
        alone = batch.nbytes > _HELD_BYTES or self._is_busy() or not self._has_thread()
        if alone:
            self._wait_for(self._is_idle)
            self._writer.write(batch, start=start, stop=stop, line=line)
            return
        self._wait_for(lambda: self._waiting_bytes + batch.nbytes <= _HELD_BYTES)
        with self._changed:
            self._waiting.append(_Rows(batch, start, stop, line))
            self._waiting_bytes += batch.nbytes
            self._changed.notify_all()

    def cut(self) -> None:
        """Finish the current shard, if any, after everything that was written before."""
        self._wait_for(self._is_idle)
        self._writer.cut()

    def discard(self) -> None:
        """End the thread, and close an unfinished file after a failure."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()  # at most one batch, or one row group, is still written
        self._waiting.clear()
        self._waiting_bytes = 0
        self._writer.discard()
        self._guard.release()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true; raise the error of the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or condition())
            if self._error is not None:
                raise self._error

    def _is_idle(self) -> bool:
        return not self._waiting

    def _has_thread(self) -> bool:
        """Start the thread at the first call; False if there is no memory for its stack."""
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="lake-shard-writer", daemon=True)
            try:
                with thread_stack(_STACK_BYTES):
                    thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _serve(self) -> None:
        while (rows := self._next()) is not None:
            size = rows.batch.nbytes
            try:
                self._writer.write(rows.batch, start=rows.start, stop=rows.stop, line=rows.line)
            except BaseException as error:  # noqa: BLE001 - raised again by the next `write`
                self._fail(error)
                return
            del rows
            with self._changed:
                self._waiting.popleft()
                self._waiting_bytes -= size
                self._changed.notify_all()

    def _next(self) -> _Rows | None:
        """Return the next rows, None at the end; they stay in the queue until they are written."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            return None if self._closed else self._waiting[0]

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()


Writer = ShardWriter | BackgroundWriter
"""What writes the rows of an ingest: on the calling thread, or on a second one."""
