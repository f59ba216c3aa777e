"""The context of an entry point: its cap, its budget, and outputs for payloads and progress."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from emsqrt._kernel import release_freed
from emsqrt.memory import MemoryBudget, UsageReader
from sennit_core.errors import Cancelled, CapTooSmall, DeadlineExceeded, SennitError

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer

    from emsqrt.io.emitter import BufferedEmitter
    from emsqrt.io.messages import MessageStream

_MIB = 1 << 20
_PROGRESS_SECONDS = 0.1
_PROGRESS_NAMES = {
    "done": "done",
    "total": "total",
    "bytes_done": "bytesDone",
    "bytes_total": "bytesTotal",
    "rows": "rows",
    "memory_bytes": "memoryBytes",
    "cap_bytes": "capBytes",
    "spilled_bytes": "spilledBytes",
    "phase": "phase",
}
"""Fields of `sennit_core.records.Progress`, which an executor would otherwise not import."""


class PayloadWriter(Protocol):
    """Receives payloads: a Strand writer, or a list in a test."""

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload that one write accepts."""

    def write_bytes(self, payload: Buffer) -> None:
        """Publish one payload; wait until there is room."""


class EntryContext:
    """The context of one running entry point.

    Args:
        what: the entry's name, for errors.
        cap_bytes: the cap on the whole process.
        writer: receives the payloads.
        send_progress: called with changed progress fields (camelCase), at most ten times a second.
        spill_dir: a folder for this run alone, created on first use, removed by `close`.
        deadline_seconds: from now; None for none.
        budget: the budget of the entry; None creates one from what is left of the cap.
        slack: returns how much of a cap is kept out of the budget for memory that is not reserved:
            interpreter, allocators, kernels' scratch; what the libraries need when None.
    """

    def __init__(  # noqa: PLR0913 - made in two places, read in none
        self,
        what: str,
        cap_bytes: int,
        writer: PayloadWriter,
        send_progress: Callable[[dict[str, Any]], None],
        spill_dir: Path,
        deadline_seconds: float | None = None,
        budget: MemoryBudget | None = None,
        slack: Callable[[int], int] | None = None,
    ) -> None:
        self.what = what
        self.cap_bytes = cap_bytes
        self.deadline_seconds = deadline_seconds
        self.measure: Callable[[], int] = _charged_now
        """Returns what the kernel charges the process now, in bytes."""
        self.measure_peak: Callable[[], int] = _charged_now
        """Returns the most that the kernel charged the process during this run, in bytes."""
        self.room_bytes: Callable[[], int] = lambda: sys.maxsize
        """Returns how much the process may still grow before it is asked to stop."""
        self.has_emitted = False
        """Whether some of the output has left this process."""
        self.spilling: Mapping[str, Any] = {}
        """Options of the spill manager apart from its folder: `EngineConfig.spilling`."""
        self.operators: Mapping[str, Mapping[str, Any]] = {}
        """Operators that the caller of the engine passes for this run, by name: `make`, a factory as
        "module:name", and what it needs."""
        self.owns_process = False
        """Whether the process belongs to the engine, so that its allocator may be configured."""
        self.is_trial = False
        """Whether the run is only a trial of admission."""
        self.make_room_for_error: Callable[[], None] = lambda: None
        """Call it before importing what only an error needs: large allocations are allowed
        again."""
        self.forgive_reserved: Callable[[], None] = lambda: None
        """Call it after importing a library during a run: what it has reserved and not touched then
        does not count as requested."""
        self._writer = writer
        self._send_progress = send_progress
        self._spill_dir = spill_dir
        self._made_spill_dir = False
        self._started = time.monotonic()
        self._budget = budget
        self._held_bytes: int | None = None
        self._slack = slack or _slack_of_libraries
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._stopped: SennitError | None = None
        self._progress: dict[str, Any] = {}
        self._progress_at = 0.0
        self._arrow: tuple[MessageStream, BufferedEmitter] | None = None

    @property
    def budget(self) -> MemoryBudget:
        """The budget: what is left of the cap after what the process held at the first look.

        Slack and the pages of a stream's payloads are left out of it.

        Raises:
            CapTooSmall: nothing is left.
        """
        if self._budget is None:
            self._budget = MemoryBudget(self.left_bytes(), self.cap_bytes)
        return self._budget

    def left_bytes(self) -> int:
        """Return what the process in its current state leaves of the cap for buffers.

        Raises:
            CapTooSmall: nothing is left.
        """
        held = self._look()
        aside = self._aside_bytes(self.cap_bytes)
        if held + aside >= self.cap_bytes:
            raise CapTooSmall(
                cap_bytes=self.cap_bytes,
                needed_bytes=held + aside + 4 * _MIB,
                because=f"{self.what} holds {held >> 20} MiB before it reads anything",
            )
        return self.cap_bytes - held - aside

    def look(self) -> None:
        """Measure what the process holds; budgets under other caps are computed from this."""
        self._look()

    def _look(self) -> int:
        # Freed memory goes back to the system first: how much of it planning leaves in the heap
        # differs from run to run, and between the first run of a process and the next.
        release_freed()
        self._held_bytes = self.measure()
        return self._held_bytes

    def left_bytes_under(self, cap_bytes: int) -> int:
        """Return what another cap would leave for buffers, negative when the cap is too small.

        Computed from what the process held at the last `look`; calls it if it was never called.
        """
        if self._held_bytes is None and self._budget is not None:
            return self._budget.cap_bytes + cap_bytes - self._budget.whole_bytes
        if self._held_bytes is None:
            self._look()
            assert self._held_bytes is not None
        return cap_bytes - self._held_bytes - self._aside_bytes(cap_bytes)

    def _aside_bytes(self, cap_bytes: int) -> int:
        return self._slack(cap_bytes) + 2 * self._writer.payload_bytes_max

    def grown_bytes(self) -> int:
        """Return how much the process has grown since the last `look`."""
        return 0 if self._held_bytes is None else max(0, self.measure() - self._held_bytes)

    def trial(self, budget: MemoryBudget) -> EntryContext:
        """Return a context with another budget, to try whether a plan would be admitted."""
        context = EntryContext(
            self.what,
            self.cap_bytes,
            self._writer,
            lambda _: None,
            self._spill_dir,
            budget=budget,
        )
        context.owns_process = self.owns_process
        context.spilling = self.spilling
        context.is_trial = True
        return context

    @property
    def spill_place(self) -> Path:
        """Where `spill_dir` is, or would be."""
        return self._spill_dir

    @property
    def process_folder(self) -> Path:
        """A folder for files of this process that outlive a run; the caller creates it.

        The pool removes it when the process ends.
        """
        return process_folder(self._spill_dir.parent, os.getpid())

    @property
    def spill_dir(self) -> Path:
        """A folder of this run's own; it is removed when the run ends."""
        if not self._spill_dir.exists():
            self._spill_dir.mkdir(mode=0o700, parents=True)
            self._made_spill_dir = True  # so this context removes it
        return self._spill_dir

    def emit(self, payload: Buffer) -> None:
        """Publish bytes to the caller, in one payload or, when large, several.

        Waits while the reader is slow. Raises as `check`.
        """
        self.has_emitted = True
        view = memoryview(payload).cast("B")
        step = max(self._writer.payload_bytes_max // 2, 1)
        for start in range(0, len(view), step):
            self.check()
            try:
                self._writer.write_bytes(view[start : start + step])
            except Cancelled:  # the reader aborted the ring; raise the reason if it is known
                self.check()
                raise

    def emit_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish a batch as messages of an Arrow IPC stream, after its schema the first time."""
        if self._arrow is None:
            from emsqrt.io.emitter import BufferedEmitter
            from emsqrt.io.messages import MessageStream

            pieces = BufferedEmitter(self.emit)
            self._arrow = MessageStream(batch.schema, pieces.put), pieces
        stream, pieces = self._arrow
        stream.write(batch)
        pieces.flush()

    def progress(self, **fields: Any) -> None:
        """Report progress: fields of `sennit_core.records.Progress`, absolute values."""
        named = {_PROGRESS_NAMES[name]: value for name, value in fields.items()}
        now = time.monotonic()
        with self._lock:
            self._progress.update(named)
            if now - self._progress_at < _PROGRESS_SECONDS:
                return
            self._progress_at = now
            changed, self._progress = self._progress, {}
        self._send_progress(changed)

    def flush_progress(self) -> None:
        """Send progress that was held back because the previous report was too recent."""
        with self._lock:
            changed, self._progress = self._progress, {}
        if changed:
            self._send_progress(changed)

    def check(self) -> None:
        """Raise if the work should stop; call it often.

        Raises:
            Cancelled: the request was cancelled.
            DeadlineExceeded: the deadline has passed.
            MemoryCapExceeded: the process is about to exceed its cap.
        """
        if self._stopped is not None:
            raise self._stopped
        limit = self.deadline_seconds
        if limit is not None and time.monotonic() - self._started > limit:
            raise DeadlineExceeded(self.what, limit)

    @property
    def stopped(self) -> SennitError | None:
        """The reason to stop, once there is one."""
        return self._stopped

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Register a callback for a stop, called on another thread, to interrupt blocking calls."""
        with self._lock:
            self._callbacks.append(callback)
            overdue = self._stopped is not None
        if overdue:
            _call(callback)

    def stop(self, reason: SennitError) -> None:
        """Make `check` raise `reason` and run the `on_cancel` callbacks; the first reason stays."""
        with self._lock:
            if self._stopped is not None:
                return
            self._stopped = reason
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            _call(callback)

    def close(self) -> None:
        """Remove the spill folder, if one was made."""
        if self._made_spill_dir:
            import shutil

            shutil.rmtree(self._spill_dir, ignore_errors=True)


def process_folder(spill_area: Path, pid: int) -> Path:
    """Return the folder of the executor process `pid` in its pool's spill area."""
    return spill_area / f"process-{pid}"


def _slack_of_libraries(cap_bytes: int) -> int:
    return max(3 * _MIB, cap_bytes * 6 // 100)


def _charged_now() -> int:
    with UsageReader() as reader:
        return reader.read().charged_bytes


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - the work is being stopped; that goes on
        from sennit_core.logs import get_logger

        get_logger("emsqrt.executor").exception("an on_cancel callback failed")
