"""One request in an executor, as its caller sees it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import emsqrt.errors  # noqa: F401 - errors arrive as the classes that they were
from emsqrt.executor.frames import Frame
from sennit_core.errors import (
    Cancelled,
    DeadlineExceeded,
    SennitError,
    error_from_json,
)
from sennit_core.logs import get_logger
from sennit_core.records import Progress
from strand import ProducerDied, Ring, StrandAbortError, StrandView, attach_ring

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer

_log = get_logger("emsqrt.executor")

_SMALL_BYTES = 64 << 10

OnProgress = Callable[[Progress], object]


class Execution:
    """The result of `ExecutorPool.submit`. A context manager: exit cancels a running request.

    1. `payloads()` or `batches()` yield what the entry emits, as it emits it; a slow reader slows
       the entry down (a Strand ring holds unread output, once an answer is not small).
    2. `result()` returns the entry's answer, or raises its error. An entry that emits more than the
       ring holds waits for its reader, so read the payloads first.

    The request may first wait in the pool's queue, and may be stopped and run again before any of
    its output was handed on. `cancel` ends it in each of these states.

    Args:
        what: the entry's name, for errors.
        deadline_seconds: as it was requested, for errors.
        on_progress: called with each new `Progress`, on the pool's thread; must return quickly.
        stop: called with a reason; stops the request in whichever state it is.
    """

    def __init__(
        self,
        what: str,
        deadline_seconds: float | None,
        on_progress: OnProgress | None,
        stop: Callable[[str], None],
    ) -> None:
        self.what = what
        self.attempt = ""
        """Id of the current attempt; frames of any other attempt are outdated."""
        self._on_progress = on_progress
        self._progress: dict[str, Any] = {}
        self._result: dict[str, Any] | None = None
        self._error: SennitError | None = None
        self._ended = False
        self._stop = stop
        self._stop_reason: str | None = None
        self._deadline_seconds = deadline_seconds
        # Guards the fields below and `attempt`, `_result` and `_ended`; notified of each change.
        self._news = threading.Condition()
        self._inline: deque[bytes] = deque()  # arrived in frames and not read yet
        self._ring: Ring | None = None
        self._view: StrandView | None = None  # of the ring, which continues where `_inline` ends
        self._readable = False  # True once the output may be read: no restart can happen any more
        self._was_read = False  # whether any output was handed on
        self._pid = 0

    @property
    def pid(self) -> int:
        """The process that works or worked on this; 0 before it was started."""
        return self._pid

    @property
    def progress(self) -> Progress:
        """The last reported progress."""
        return Progress.from_json(self._progress)

    @property
    def done(self) -> bool:
        """Whether the entry has ended, with or without an error; payloads may still be unread."""
        return self._ended

    def payloads(self) -> Iterator[memoryview]:
        """Yield what the entry emits; each view is valid until the next one is requested.

        Raises:
            SennitError: the entry's error, after everything that it emitted before.
        """
        while (piece := self._next_inline()) is not None:
            yield memoryview(piece)
        with self._news:
            view = self._view
            self._was_read |= view is not None
        if view is not None:
            try:
                yield from view.payloads()
            except (StrandAbortError, ProducerDied):
                self.result()
                raise
        self.result()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the Arrow batches of an entry that emits an Arrow IPC stream; they are copies.

        Raises:
            SennitError: the entry's error, after everything that it emitted before.
        """
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        payloads = self.payloads()
        first = next(payloads, None)
        if first is None:
            return
        file = pa.PythonFile(_PayloadFile(first, payloads, pa.allocate_buffer), mode="r")
        with open_arrow(file, "the executor's answer") as stream:
            yield from stream
        for _ in payloads:
            pass

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the entry's answer, without reading payloads.

        Args:
            timeout: seconds to wait; None waits without a limit.

        Raises:
            DeadlineExceeded: `timeout` has passed; the request continues.
            SennitError: raised by the entry.
            WorkerLost: its process died.
        """
        if not self.wait(timeout):
            raise DeadlineExceeded(f"waiting for {self.what}", timeout)
        if self._error is not None:
            raise self._error
        assert self._result is not None, "an execution ends with a result or an error"
        return self._result

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for its end; return whether it has ended."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, timeout)

    def cancel(self) -> None:
        """Stop the request; `result` then raises `Cancelled`. Does nothing when it has ended."""
        self._stop("cancelled")

    def close(self) -> None:
        """Cancel the request if it runs, wait until it has stopped, and free the ring."""
        if not self._ended:
            self.cancel()
            self.wait()
        self._close_ring()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The pool calls the methods below.

    def begin(self, attempt: str) -> None:
        """Accept the frames of an attempt that is about to start."""
        with self._news:
            self.attempt = attempt

    def on_start(self, pid: int) -> None:
        """Record which process works on this."""
        self._pid = pid

    def release(self) -> None:
        """Allow the output to be read: this run will not be started again."""
        with self._news:
            self._readable = True
            self._news.notify_all()

    def try_restart(self) -> bool:
        """Drop the attempt and its output; return False when it has ended already."""
        with self._news:
            if self._ended or self._readable:
                return False
            self.attempt = ""
            self._inline.clear()
        self._close_ring()  # wakes an entry that waits for room in it
        return True

    def try_again(self) -> bool:
        """As `try_restart`, for a run whose output may be read; False if any was handed on."""
        with self._news:
            if self._ended or self._was_read:
                return False
            self.attempt = ""
            self._inline.clear()
        self._close_ring()
        return True

    def on_stop(self, reason: str) -> None:
        """Record why this is being stopped and wake an entry that waits for room in the ring."""
        self._stop_reason = self._stop_reason or reason
        self._abort_ring()

    def on_frame(self, frame: Frame) -> None:
        """Process a frame of the current attempt: progress, a part of the answer, or the end."""
        match frame["word"]:
            case "renew":
                if frame["attempt"] == self.attempt:
                    self._progress.update(frame["progress"])
                    self._report_progress()
            case "ring":
                self._on_ring(frame["attempt"], frame["file"])
            case "bytes" | "partial":
                self._on_bytes(frame)
            case "failed":
                self.on_failure(error_from_json(frame["error"]), frame["attempt"])

    def on_failure(self, error: SennitError, attempt: str | None = None) -> None:
        """End with an error; a previous result or error stays.

        Args:
            error: the error.
            attempt: the attempt that failed; None to end the request in any attempt.
        """
        with self._news:
            if attempt is not None and attempt != self.attempt:
                return
            if not self._ended:
                self._error = self._stop_error() or error
                self._end()
        self._abort_ring()

    def _on_bytes(self, frame: Frame) -> None:
        with self._news:
            if frame["attempt"] != self.attempt:
                return
            self._inline.extend(frame["payloads"])
            if frame["word"] == "partial":
                self._result = frame["result"]
                self._end()
            self._news.notify_all()

    def _on_ring(self, attempt: str, file: int) -> None:
        """Attach to the ring that carries the rest of an answer."""
        try:
            ring = attach_ring(file)
            view = ring.consumer()
        except BaseException:
            self.cancel()  # without a reader the entry would wait for room forever
            raise
        finally:
            os.close(file)
        view.spin_nanoseconds = 0  # waking for each payload costs less than spinning
        with self._news:
            is_wanted = attempt == self.attempt and not self._ended
            if is_wanted:
                self._ring, self._view = ring, view
                self._news.notify_all()
        if not is_wanted or self._stop_reason is not None:
            ring.signal_abort()  # the entry may be waiting for room in it
        if not is_wanted:
            ring.close()

    def _next_inline(self) -> bytes | None:
        """Wait for bytes that arrive in frames; return None when there are no more of them."""
        with self._news:
            self._news.wait_for(self._has_output)
            self._was_read |= bool(self._inline)
            return self._inline.popleft() if self._inline else None

    def _has_output(self) -> bool:
        has_some = bool(self._inline) or self._view is not None
        return self._ended or (self._readable and has_some)

    def _end(self) -> None:
        self._ended = self._readable = True
        self._news.notify_all()

    def _report_progress(self) -> None:
        if self._on_progress is None:
            return
        try:
            self._on_progress(self.progress)
        except Exception:  # noqa: BLE001 - the caller's trouble must not cost it the answer
            _log.exception("an on_progress callback failed")

    def _stop_error(self) -> SennitError | None:
        if self._stop_reason == "deadline":
            return DeadlineExceeded(self.what, self._deadline_seconds)
        return Cancelled(self.what) if self._stop_reason is not None else None

    def _abort_ring(self) -> None:
        with self._news:
            if self._ring is not None:
                self._ring.signal_abort()

    def _close_ring(self) -> None:
        with self._news:
            ring, self._ring, self._view = self._ring, None, None
        if ring is not None:
            ring.close()


class _PayloadFile:
    """Payloads as a file from which Arrow reads a stream; Arrow keeps one copy of each part.

    It keeps no reference to a payload.
    """

    closed = False

    def __init__(
        self,
        first: memoryview,
        rest: Iterator[memoryview],
        allocate: Callable[[int], pa.Buffer],
    ) -> None:
        self._view = first
        self._size = len(first)
        self._at = 0
        self._rest = rest
        self._allocate = allocate

    def read(self, size: int) -> Buffer:
        """Return up to `size` bytes, fewer at the end of the stream."""
        end = self._at + size
        if end > self._size or size > _SMALL_BYTES:
            return self.read_buffer(size)
        piece = self._view[self._at : end].tobytes()
        self._at = end
        return piece

    def read_buffer(self, size: int) -> Buffer:
        """As `read`; a large result is in Arrow's memory, since a large `bytes` has cold pages."""
        if size <= _SMALL_BYTES and self._at + size <= self._size:
            return self.read(size)
        target = self._allocate(size)
        with memoryview(target).cast("B") as view:
            filled = self._fill(view)
        whole: Buffer = target.slice(0, filled)
        return whole

    def _fill(self, target: memoryview) -> int:
        done, size = 0, len(target)
        while done < size:
            count = min(size - done, self._size - self._at)
            target[done : done + count] = self._view[self._at : self._at + count]
            done += count
            self._at += count
            if done < size and not self._advance():  # not earlier: it may wait
                break
        return done

    def _advance(self) -> bool:
        view = next(self._rest, None)
        if view is None:
            return False
        self._view, self._size, self._at = view, len(view), 0
        return True
