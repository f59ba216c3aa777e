"""A pool of executor processes: started when needed, kept warm, replaced when they die."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

from emsqrt.executor.execution import Execution, OnProgress
from emsqrt.executor.frames import EXIT_CAP, VERSION, Frame, encode_frame
from emsqrt.executor.loop import Loop
from emsqrt.executor.spill import SpillArea, default_spill_dir
from emsqrt.executor.worker import Worker
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    Busy,
    Closed,
    DeadlineExceeded,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    Unavailable,
    UsageError,
    WorkerLost,
    nearest,
)
from sennit_core.ids import new_id

_MIB = 1 << 20
ENTRY_GROUP = "sennit.executor"
GRACE_SECONDS = 1.0
"""What is asked to stop and does not is killed after this."""
_RING_BYTES_MIN = 256 << 10
_TRIES = 3


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One look at a pool: processes working and idle, requests waiting, processes ever started."""

    size: int
    busy: int
    idle: int
    waiting: int
    started: int
    pids: tuple[int, ...]


@dataclass(slots=True)
class _Run:
    """What a busy process works on, and when it has to be stopped or, failing that, killed."""

    execution: Execution
    cap_bytes: int
    stop_at: float | None
    kill_at: float | None = None

    @property
    def due(self) -> float | None:
        """When something has to be done about this run."""
        if self.execution.done:
            return None
        return self.stop_at if self.kill_at is None else self.kill_at


class ExecutorPool:
    """Runs entry points in up to `size` processes; a context manager that leaves none behind.

    Args:
        size: processes at most.
        memory_bytes: memory for all of them together; each gets an even share as its cap.
        spill_dir: where runs may spill, shared with other pools; None for the user's temporary one.
        ring_bytes: heap of a result ring, a power of two; less under a small cap.
        queue_limit: requests that may wait; more are refused as `Busy`.
        clock: stamps the runs' ids.
        allow_module_entries: whether `submit` takes "module:function" too; for tests.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        size: int,
        *,
        memory_bytes: int,
        spill_dir: Path | str | None = None,
        ring_bytes: int = 1 * _MIB,
        queue_limit: int = 256,
        clock: Clock = SYSTEM,
        allow_module_entries: bool = False,
    ) -> None:
        if size < 1:
            raise UsageError(f"a pool needs at least one executor, not {size}")
        self.size = size
        self.executor_bytes = memory_bytes // size
        self._ring_bytes = ring_bytes
        self._queue_limit = queue_limit
        self._clock = clock
        self._allow_module_entries = allow_module_entries
        self._lock = threading.Condition()
        self._free = size
        self._waiting: deque[threading.Event] = deque()
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._running: dict[Worker, _Run] = {}
        self._started = 0
        self._closed = False
        self._spill = SpillArea(Path(spill_dir) if spill_dir else default_spill_dir())
        self._loop = Loop(self._next_due, self._on_due)

    def submit(
        self,
        entry: str,
        request: dict[str, Any],
        *,
        mem_cap_bytes: int | None = None,
        deadline_seconds: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Execution:
        """Start an entry point in an executor; waits, first come first served, while all are busy.

        Args:
            entry: a name registered in the entry point group `sennit.executor`.
            request: what MessagePack can carry.
            mem_cap_bytes: cap for this run; an executor's share when None or larger.
            deadline_seconds: from now, waiting included.
            on_progress: called with each new `Progress` on the pool's thread.

        Raises:
            NotFound: there is no such entry.
            Busy: too many requests wait.
            DeadlineExceeded: no executor became free in time.
            Closed: the pool is closed.
        """
        path = self._resolve(entry)
        cap_bytes = min(mem_cap_bytes or self.executor_bytes, self.executor_bytes)
        if deadline_seconds is not None:  # locks refuse to wait for longer than three centuries
            deadline_seconds = min(deadline_seconds, threading.TIMEOUT_MAX / 2)
        stop_at = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        self._acquire(entry, deadline_seconds)
        with ExitStack() as undo:
            undo.callback(self._release)
            attempt = new_id(self._clock)
            frame = encode_frame(
                "task",
                attempt=attempt,
                name=entry,
                entry=path,
                request=request,
                capBytes=cap_bytes,
                deadlineSeconds=None if stop_at is None else stop_at - time.monotonic(),
                spillDir=str(self._spill.attempt_dir(attempt)),
                ringBytes=self._ring_bytes_for(cap_bytes),
            )
            execution = Execution(attempt, entry, deadline_seconds, on_progress)
            undo.callback(execution.discard)
            self._start(_Run(execution, cap_bytes, stop_at), frame)
            undo.pop_all()
        return execution

    def stats(self) -> PoolStats:
        """Return what the pool's processes do now."""
        with self._lock:
            return PoolStats(
                size=self.size,
                busy=len(self._running),
                idle=len(self._idle),
                waiting=len(self._waiting),
                started=self._started,
                pids=tuple(sorted(worker.pid for worker in self._workers)),
            )

    def close(self) -> None:
        """Cancel what runs, end every process, remove the spill folder. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting, running = tuple(self._waiting), tuple(self._running.values())
            workers = tuple(self._workers)
            self._waiting.clear()
        for ticket in waiting:
            ticket.set()
        for run in running:
            run.execution.cancel()
        for worker in workers:
            worker.send("drain")
        with self._lock:
            if not self._lock.wait_for(lambda: not self._workers, timeout=GRACE_SECONDS):
                for worker in self._workers:
                    worker.kill()
            self._lock.wait_for(lambda: not self._workers)
        self._loop.close()
        self._spill.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self, entry: str) -> str:
        if self._allow_module_entries and ":" in entry:
            return entry
        entries = _registered_entries()
        if entry not in entries:
            raise NotFound("entry point", entry, nearest(entry, tuple(entries)))
        return entries[entry]

    def _ring_bytes_for(self, cap_bytes: int) -> int:
        share = 1 << max(cap_bytes // 16, 1).bit_length() - 1
        return max(_RING_BYTES_MIN, min(self._ring_bytes, share))

    def _acquire(self, what: str, timeout_seconds: float | None) -> None:
        """Take the right to use one executor, in order of arrival."""
        with self._lock:
            self._check_open()
            if self._free and not self._waiting:
                self._free -= 1
                return
            if len(self._waiting) >= self._queue_limit:
                raise Busy(f"{self.size} executors are busy and {self._queue_limit} requests wait")
            ticket = threading.Event()
            self._waiting.append(ticket)
        ticket.wait(timeout_seconds)
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                raise DeadlineExceeded(f"waiting for an executor for {what}", timeout_seconds)
            self._check_open()

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the executor pool")

    def _start(self, run: _Run, frame: bytes) -> None:
        execution = run.execution
        for _ in range(_TRIES):
            worker = self._take_worker(run)
            execution.on_start(worker.pid, partial(self._stop, worker, run))
            try:
                worker.start_task(frame)
            except OSError:
                worker.kill()
                with self._lock:
                    if self._running.pop(worker, None) is None:
                        return  # the loop saw it die first and has told the execution
                continue
            if run.stop_at is not None:
                self._loop.wake()
            return
        raise Unavailable("an executor process")

    def _take_worker(self, run: _Run) -> Worker:
        """Return an idle process that is small enough for the cap, or a new one."""
        with self._lock:
            self._check_open()
            while self._idle:
                worker = self._idle.pop()
                if worker.alive and worker.idle_bytes <= 40 * _MIB + run.cap_bytes // 8:
                    break
                worker.send("drain")
            else:
                worker = Worker(self._loop, self)
                self._workers.add(worker)
                self._started += 1
            self._running[worker] = run
        return worker

    def _stop(self, worker: Worker, run: _Run, reason: str) -> None:
        if run.execution.done:
            return
        run.execution.on_stop(reason)
        run.kill_at = time.monotonic() + GRACE_SECONDS
        worker.send("cancel", attempt=run.execution.attempt, reason=reason)
        self._loop.wake()

    def _next_due(self) -> float | None:
        with self._lock:
            dues = [run.due for run in self._running.values()]
        return min((due for due in dues if due is not None), default=None)

    def _on_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [(w, run) for w, run in self._running.items() if run.due and run.due <= now]
        for worker, run in late:
            if run.kill_at is None:
                self._stop(worker, run, "deadline")
            else:
                worker.kill()

    # What workers tell, on the loop's thread.

    def on_frame(self, worker: Worker, frame: Frame) -> None:
        """Pass news to the execution; take the process back when it is ready for more."""
        if frame["word"] == "hello":
            assert frame["version"] == VERSION, "both sides are one installation"
        elif frame["word"] == "credit":
            self._take_back(worker, frame["memoryBytes"])
        else:
            run = self._running.get(worker)
            if run is not None and frame["attempt"] == run.execution.attempt:
                run.execution.on_frame(frame)
            elif "file" in frame:
                os.close(frame["file"])

    def on_death(self, worker: Worker, reason: str, exit_status: int) -> None:
        """Tell the execution, and make room for a new process."""
        with self._lock:
            run = self._running.pop(worker, None)
            self._workers.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            self._lock.notify_all()
        self._spill.remove_process(worker.pid)
        if run is not None:
            self._spill.remove(run.execution.attempt)
            run.execution.on_failure(_loss(run, worker, reason, exit_status))
            self._release()

    def _take_back(self, worker: Worker, memory_bytes: int) -> None:
        worker.idle_bytes = memory_bytes
        with self._lock:
            if self._running.pop(worker, None) is None:
                return
            if not self._closed:
                self._idle.append(worker)
        self._release()


def _loss(run: _Run, worker: Worker, reason: str, exit_status: int) -> SennitError:
    if exit_status == EXIT_CAP:
        return MemoryCapExceeded(cap_bytes=run.cap_bytes, what=run.execution.what)
    return WorkerLost(what="executor", worker=str(worker.pid), reason=reason)


@cache
def _registered_entries() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {found.name: found.value for found in entry_points(group=ENTRY_GROUP)}
