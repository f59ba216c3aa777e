"""A pool of executor processes: started when needed, kept warm, replaced when they die.

`scheduling.Scheduler` decides what runs; this module carries its orders out: it owns the processes,
the clock and the locks. Orders are created under the lock and carried out without it, in any
thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from emsqrt.executor.execution import Execution, OnProgress
from emsqrt.executor.frames import VERSION, Frame, encode_frame
from emsqrt.executor.loop import Loop
from emsqrt.executor.placement import Fit, choose
from emsqrt.executor.scheduling import PRIORITIES, Action, Order, Scheduler, State, Ticket
from emsqrt.executor.spill import SpillArea, default_spill_dir
from emsqrt.executor.worker import Worker
from emsqrt.system_errors import any_error
from emsqrt.termination import EXIT_CAP
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    Cancelled,
    CapTooSmall,
    Closed,
    DeadlineExceeded,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    Unavailable,
    Unsupported,
    UsageError,
    WorkerLost,
    nearest,
)
from sennit_core.ids import new_id

_MIB = 1 << 20
ENTRY_GROUP = "sennit.executor"
GRACE_SECONDS = 1.0
"""A process that was asked to stop and does not is killed after this."""
SHORT_SECONDS = 1.0
"""A run in a reserved executor counts as short until this much time has passed."""
LOADING_GRACE_SECONDS = 10.0
"""The same limit while the process still imports the libraries of its entry point."""
_RING_BYTES_MIN = 256 << 10
_TRIES = 3
_FULL = (CapTooSmall.code, MemoryCapExceeded.code)
"""Errors of a run that may have had room in a process that holds less."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool: processes working and idle, requests waiting, processes started."""

    size: int
    busy: int
    idle: int
    waiting: int
    started: int
    pids: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Request:
    """One request from its arrival to its end.

    Attributes:
        attempt: id of its current or last attempt.
        frame: its task frame as `submit` has encoded it, for a start that needs no other.
        stop_at: its deadline, by `time.monotonic`.
        short_until: when it stops counting as short; None if that changes nothing.
        kill_at: when its process is killed; set once the process was asked to stop.
        stop_reason: why it was stopped for good.
        restarting: whether its attempt has ended, or was asked to, so that it can start again.
        worker: the process that works on it.
        data: what it is over; see `placement`.
        lean: whether it needs a process that holds little: one that held more was too full for it.
    """

    ticket: Ticket
    execution: Execution
    entry: str
    path: str
    request: dict[str, Any]
    cap_bytes: int
    deadline_seconds: float | None
    stop_at: float | None
    attempt: str
    frame: bytes | None = None
    short_until: float | None = None
    kill_at: float | None = None
    stop_reason: str | None = None
    restarting: bool = False
    worker: Worker | None = None
    data: str = ""
    lean: bool = False

    @property
    def fit(self) -> Fit:
        """Which processes it may be given."""
        # A run that cannot be repeated gets the memory of a lean process at once.
        return Fit(self.cap_bytes, self.lean or not self.ticket.restartable)

    @property
    def due(self) -> float | None:
        """When the pool must act on this run next."""
        if self.kill_at is not None:
            return None if self.execution.done and not self.restarting else self.kill_at
        if self.execution.done:
            return None
        dues = [due for due in (self.stop_at, self.short_until) if due is not None]
        return min(dues, default=None)


class ExecutorPool:
    """Runs entry points in up to `size` processes; a context manager that ends them all on exit.

    Args:
        size: processes at most.
        memory_bytes: memory for all of them together; the cap of each is an equal share.
        spill_dir: where runs may spill, shared with other pools; None for the user's temporary
            folder.
        ring_bytes: heap of a result ring, a power of two; less under a small cap.
        reserved: executors kept free of long runs, so that short requests need not wait for those;
            fewer than `size`. See `scheduling`.
        short_seconds: how long a run in a reserved executor counts as short.
        queue_limit: requests that may wait; further ones are refused as `Busy`.
        user_queue_limit: the same for each user; None for no other limit.
        clock: stamps the runs' ids.
        allow_module_entries: whether `submit` accepts "module:function" too; for tests.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        size: int,
        *,
        memory_bytes: int,
        spill_dir: Path | str | None = None,
        ring_bytes: int = 1 * _MIB,
        reserved: int = 0,
        short_seconds: float = SHORT_SECONDS,
        queue_limit: int = 256,
        user_queue_limit: int | None = None,
        clock: Clock = SYSTEM,
        allow_module_entries: bool = False,
    ) -> None:
        if size < 1:
            raise UsageError(f"a pool needs at least one executor, not {size}")
        self.size = size
        self.executor_bytes = memory_bytes // size
        self._ring_bytes = ring_bytes
        self._short_seconds = short_seconds
        self._clock = clock
        self._allow_module_entries = allow_module_entries
        # Its threads do not exist in a process that is forked from this one, where a run would wait
        # for ever.
        self._pid = os.getpid()
        self._lock = threading.Condition()
        # All of these are read and changed under the lock alone.
        self._scheduler = Scheduler(
            size, reserved=reserved, waiting_max=queue_limit, user_waiting_max=user_queue_limit
        )
        self._runs: dict[Ticket, _Request] = {}
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._running: dict[Worker, _Request] = {}
        self._started = 0
        self._runs_placed = 0
        self._closed = False
        self._spill = SpillArea(Path(spill_dir) if spill_dir else default_spill_dir())
        self._loop = Loop(self._next_due, self._on_due)

    def submit(  # noqa: PLR0913 - what a request may say, all by keyword
        self,
        entry: str,
        request: dict[str, Any],
        *,
        mem_cap_bytes: int | None = None,
        deadline_seconds: float | None = None,
        on_progress: OnProgress | None = None,
        user: str = "",
        restartable: bool = False,
        bounded: bool = True,
        data: str = "",
        priority: str = "interactive",
    ) -> Execution:
        """Start an entry point in an executor, or queue it while all are busy.

        Args:
            entry: a name registered in the entry point group `sennit.executor`.
            request: values that MessagePack can encode.
            mem_cap_bytes: cap for this run; an executor's share when None or larger.
            deadline_seconds: from now, waiting included.
            on_progress: called with each new `Progress` on the pool's thread.
            user: on whose behalf; queued users are served in rotation.
            restartable: whether the run may be stopped and started again before any of its output
                was read. Only such runs may use a reserved executor.
            bounded: whether the queue limits apply to this request.
            data: names what it is over: it gets a process that ran the same, if one is idle.
            priority: `interactive`, or `batch`, which waits for these while executors are busy.

        Raises:
            NotFound: there is no such entry.
            UsageError: there is no such priority.
            Busy: too many requests wait.
            Closed: the pool is closed.
            Unsupported: this process was forked from the pool's.
        """
        if os.getpid() != self._pid:
            raise Unsupported(
                "an executor pool in a forked process",
                hint="open it after the fork, or start processes with multiprocessing's 'spawn'",
            )
        path = self._resolve(entry)
        if priority not in PRIORITIES:
            raise UsageError(f"priority {priority!r} is none of {', '.join(PRIORITIES)}")
        if deadline_seconds is not None:  # locks refuse to wait for longer than three centuries
            deadline_seconds = min(deadline_seconds, threading.TIMEOUT_MAX / 2)
        execution = Execution(
            entry, deadline_seconds, on_progress, lambda reason: self._stop(run, reason)
        )
        run = _Request(
            Ticket(user, restartable, bounded, priority=priority),
            execution,
            entry,
            path,
            request,
            cap_bytes=min(mem_cap_bytes or self.executor_bytes, self.executor_bytes),
            deadline_seconds=deadline_seconds,
            stop_at=None if deadline_seconds is None else time.monotonic() + deadline_seconds,
            attempt=new_id(self._clock),
            data=data,
        )
        run.frame = self._frame(run)  # refuse a request that cannot be encoded before it waits
        self._enqueue(run)
        return execution

    def prepare(self, *groups: Sequence[str]) -> None:
        """Start idle processes that load the libraries of entry points, as many as there is room for.

        Returns at once; a run may be given such a process before it is ready.

        Args:
            groups: the entries of each process, by their registered names.

        Raises:
            NotFound: there is no such entry.
        """
        for group in groups:
            paths = [self._resolve(entry) for entry in group]
            with self._lock:
                if self._closed or len(self._idle) + len(self._running) >= self.size:
                    return
                worker = self._start_worker()
                self._idle.append(worker)
            for path in paths:
                worker.send("prepare", entry=path)

    def stats(self) -> PoolStats:
        """Return what the pool's processes do now."""
        with self._lock:
            return PoolStats(
                size=self.size,
                busy=len(self._running),
                idle=len(self._idle),
                waiting=self._scheduler.waiting,
                started=self._started,
                pids=tuple(sorted(worker.pid for worker in self._workers)),
            )

    def close(self) -> None:
        """Cancel requests, end every process, remove the spill folder. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            runs, workers = tuple(self._runs.values()), tuple(self._workers)
            idle = set(self._idle)
            for run in runs:
                if self._scheduler.leave(run.ticket):
                    del self._runs[run.ticket]
        for run in runs:
            if run.worker is None:
                run.execution.on_failure(Closed("the executor pool"))
            else:
                run.execution.cancel()
        for worker in workers:
            if worker in idle:  # it has nothing to clean up, and may be loading libraries
                worker.kill()
            else:
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

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the executor pool")

    def _frame(self, run: _Request) -> bytes:
        left = None if run.stop_at is None else max(run.stop_at - time.monotonic(), 0.0)
        return encode_frame(
            "task",
            attempt=run.attempt,
            name=run.entry,
            entry=run.path,
            request=run.request,
            capBytes=run.cap_bytes,
            deadlineSeconds=left,
            spillDir=str(self._spill.attempt_dir(run.attempt)),
            ringBytes=self._ring_bytes_for(run.cap_bytes),
        )

    def _enqueue(self, run: _Request) -> None:
        """Admit a request: start it, or let it wait."""
        with self._lock:
            self._check_open()
            orders = self._scheduler.arrive(run.ticket)
            self._runs[run.ticket] = run
        try:
            self._carry_out(orders)
        except BaseException:  # Ctrl-C while a process is started, which takes some milliseconds
            self._abandon(run)
            raise
        if run.ticket.state is State.WAITING and run.stop_at is not None:
            self._loop.wake_by(run.stop_at)  # the loop has perhaps not scheduled this deadline yet

    def _carry_out(self, orders: list[Order]) -> None:
        for action, ticket in orders:
            with self._lock:
                run = self._runs.get(ticket)
            if run is None:  # it has ended meanwhile
                continue
            if action is Action.START:
                self._start(run)
            elif action is Action.RELEASE:
                run.short_until = None
                run.execution.release()
            else:
                self._restart(run)

    def _start(self, run: _Request) -> None:
        try:
            frame, run.frame = run.frame, None
            if frame is None:
                run.attempt = new_id(self._clock)
                frame = self._frame(run)
            run.execution.begin(run.attempt)
            self._hand_over(run, frame)
        except (OSError, SennitError) as error:
            run.execution.on_failure(any_error(error, run.entry))
            self._retire(run)

    def _hand_over(self, run: _Request, frame: bytes) -> None:
        for _ in range(_TRIES):
            worker = self._acquire_worker(run)
            run.execution.on_start(worker.pid)
            if run.ticket.state is State.LONG:  # and so it will never be restarted
                run.execution.release()
            try:
                worker.start_task(frame)
            except OSError:
                worker.kill()
                with self._lock:
                    if self._running.pop(worker, None) is None:
                        return  # the loop saw it die first and has ended the execution
                    run.worker = None
                continue
            if run.stop_reason is not None:  # while it was being started
                self._ask_to_stop(run, run.stop_reason)
            elif (due := run.due) is not None:
                self._loop.wake_by(due)
            return
        raise Unavailable("an executor process")

    def _acquire_worker(self, run: _Request) -> Worker:
        """Return the idle process that suits the run best, or a new one."""
        with self._lock:
            self._check_open()
            self._idle = [worker for worker in self._idle if worker.alive]
            worker = choose(self._idle, run.path, run.data, run.fit)
            if worker is not None:
                self._idle.remove(worker)
            else:
                self._make_room()
                worker = self._start_worker()
            self._runs_placed += 1
            worker.warm.note_run(run.path, run.data, self._runs_placed)
            self._running[worker] = run
            run.worker = worker
        return worker

    def _make_room(self) -> None:
        """End an idle process if there are as many processes as there may be."""
        if self._idle and len(self._idle) + len(self._running) >= self.size:
            oldest = min(self._idle, key=lambda worker: worker.warm.used)
            self._idle.remove(oldest)
            oldest.send("drain")

    def _start_worker(self) -> Worker:
        worker = Worker(self._loop, self)
        self._workers.add(worker)
        self._started += 1
        return worker

    def _stop(self, run: _Request, reason: str) -> None:
        """End a request for good, in whichever state it is."""
        with self._lock:
            if run.execution.done:
                return
            run.stop_reason = run.stop_reason or reason
            has_left = self._scheduler.leave(run.ticket)
            if has_left:
                self._runs.pop(run.ticket, None)
            restarting = run.restarting
        if has_left or restarting:
            run.execution.on_failure(_stopped_in_queue(run, reason))
        else:
            run.execution.on_stop(reason)
            self._ask_to_stop(run, reason)

    def _abandon(self, run: _Request) -> None:
        """End a request whose caller was interrupted before it got the execution."""
        self._stop(run, "cancelled")
        with self._lock:
            has_no_process = run.ticket in self._runs and run.worker is None
        if has_no_process:
            run.execution.on_failure(Cancelled(run.entry))
            self._retire(run)

    def _restart(self, run: _Request) -> None:
        """Stop the attempt of a request, so that it waits again when its executor is free."""
        run.short_until = None
        with self._lock:  # the executor must not be freed between the two
            run.restarting = run.execution.try_restart()
        if run.restarting:
            run.frame = None
            self._ask_to_stop(run, "restart")

    def _ask_to_stop(self, run: _Request, reason: str) -> None:
        worker = run.worker
        if worker is None:
            return
        # A process that is killed while it imports is replaced by one that has to import again: on
        # a busy machine, requests with short deadlines would then never find a ready one.
        is_loaded = run.path in worker.warm.loaded
        grace_seconds = GRACE_SECONDS if is_loaded else LOADING_GRACE_SECONDS
        if run.kill_at is None:
            run.kill_at = time.monotonic() + grace_seconds
        worker.send("cancel", attempt=run.attempt, reason=reason)
        self._loop.wake()

    def _next_due(self) -> float | None:
        with self._lock:
            dues = [run.due for run in self._runs.values()]
        return min((due for due in dues if due is not None), default=None)

    def _on_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            overdue = [run for run in self._runs.values() if (run.due or now + 1) <= now]
        for run in overdue:
            worker = run.worker
            if run.kill_at is not None and run.kill_at <= now:
                if worker is not None:
                    worker.kill()
            elif run.stop_at is not None and run.stop_at <= now:
                self._stop(run, "deadline")
            else:
                with self._lock:
                    run.short_until = None
                    orders = self._scheduler.outlive(run.ticket)
                self._carry_out(orders)

    # Callbacks of workers, on the loop's thread.

    def on_frame(self, worker: Worker, frame: Frame) -> None:
        """Pass a frame to the execution; reuse the process when it is ready."""
        if frame["word"] == "hello":
            assert frame["version"] == VERSION, "both sides are one installation"
        elif frame["word"] == "credit":
            worker.warm.keeps_cache = frame["keepsCache"]
            self._reclaim(worker, frame["memoryBytes"])
        elif frame["word"] == "prepared":
            worker.warm.loaded.add(frame["entry"])
            worker.warm.idle_bytes = frame["memoryBytes"]
        else:
            run = self._running.get(worker)
            if run is not None:
                worker.warm.loaded.add(run.path)
                if not self._begin_again(run, worker, frame):
                    run.execution.on_frame(frame)
                    self._begin_short_time(run)
            elif "file" in frame:
                os.close(frame["file"])

    def on_death(self, worker: Worker, reason: str, exit_status: int) -> None:
        """End the execution with an error, and make room for a new process."""
        with self._lock:
            run = self._running.pop(worker, None)
            self._workers.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            self._lock.notify_all()
        self._spill.remove_process(worker.pid)
        if run is not None:
            self._spill.remove(run.attempt)
            run.execution.on_failure(_loss(run, worker, reason, exit_status), run.attempt)
            self._retire(run)

    def _begin_again(self, run: _Request, worker: Worker, frame: Frame) -> bool:
        """Have a run start again in a lean process if its cap was too small beside a warm one's."""
        if frame["word"] != "failed" or frame["error"].get("code") not in _FULL:
            return False
        lean = Fit(run.cap_bytes, lean=True)
        if run.fit.lean or worker.warm.idle_bytes <= lean.idle_bytes_max:
            return False
        with self._lock:
            again = run.stop_reason is None and run.execution.try_again()
            run.restarting |= again
        if again:
            run.lean, run.frame = True, None
        return again

    def _begin_short_time(self, run: _Request) -> None:
        """Start the time limit of a short run at its first progress: imports do not count."""
        if run.ticket.state is State.SHORT and run.short_until is None:
            run.short_until = time.monotonic() + self._short_seconds

    def _reclaim(self, worker: Worker, memory_bytes: int) -> None:
        worker.warm.idle_bytes = memory_bytes
        with self._lock:
            run = self._running.pop(worker, None)
            if run is None:
                return
            if not self._closed:
                self._idle.append(worker)
        self._retire(run)

    def _retire(self, run: _Request) -> None:
        """Record that a run holds no process any more; a restarted run waits again."""
        with self._lock:
            again = run.restarting and not run.execution.done
            run.restarting, run.worker, run.kill_at, run.short_until = False, None, None, None
            orders = self._scheduler.finish(run.ticket, again=again)
            if run.ticket.state is State.GONE:
                self._runs.pop(run.ticket, None)
        self._carry_out(orders)


def _stopped_in_queue(run: _Request, reason: str) -> SennitError:
    if reason == "deadline":
        return DeadlineExceeded(f"waiting for an executor for {run.entry}", run.deadline_seconds)
    return Cancelled(run.entry)


def _loss(run: _Request, worker: Worker, reason: str, exit_status: int) -> SennitError:
    if exit_status == EXIT_CAP:
        return MemoryCapExceeded(cap_bytes=run.cap_bytes, what=run.execution.what)
    return WorkerLost(what="executor", worker=str(worker.pid), reason=reason)


@cache
def _registered_entries() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {found.name: found.value for found in entry_points(group=ENTRY_GROUP)}
