"""The executor process: `python -P -m emsqrt.executor.process FD`, FD its control socket.

It starts small (no pyarrow, no numpy) and imports what an entry point needs on first use. The main
thread runs one task at a time, a second thread reads control frames, and a watchdog enforces the
cap while a task runs. The process ends when its control socket is closed, however the parent died:
at once when idle, otherwise after the task has removed its files, 5 seconds at most.
"""

from __future__ import annotations

import gc
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from emsqrt._kernel import release_freed
from emsqrt.executor.context import EntryContext
from emsqrt.executor.control import Control, Task
from emsqrt.executor.frames import VERSION, Frame, encode_frame
from emsqrt.executor.payload_sender import PayloadSender
from emsqrt.memory import CapLevels, MemoryUse, Reactions, Watch, Watchdog
from emsqrt.process_setup import block_pandas
from emsqrt.system_errors import any_error
from emsqrt.termination import EXIT_CAP, end_after_cleanup
from sennit_core.errors import (
    Cancelled,
    CapTooSmall,
    Closed,
    DeadlineExceeded,
    InternalError,
    MemoryCapExceeded,
    SennitError,
)
from sennit_core.logs import get_logger

_log = get_logger("emsqrt.executor")

_SWITCH_SECONDS = 0.001
_COLLECT_BYTES = 8 << 20
_NEWS_SECONDS = 0.25
_STACK_BYTES = 512 << 10
"""Of other threads: a stack reserved during a run counts at once (`memory.allocation_limit`)."""

_prepared: set[str] = set()
_last_used: list[ModuleType | None] = [None]
"""The module of the last entry; only this module may keep something between runs."""

Entry = Callable[[dict[str, Any], EntryContext], dict[str, Any]]


class Server:
    """Runs tasks until the parent sends `drain` or goes away."""

    def __init__(self, control: Control) -> None:
        self._control = control
        # Tasks, entry points to prepare, and None at the end.
        self._tasks: queue.SimpleQueue[Task | str | None] = queue.SimpleQueue()
        self._watchdog = Watchdog()
        self._lock = threading.Lock()
        self._running: tuple[str, EntryContext] | None = None
        self._early_cancel: Frame | None = None
        self._is_deserted = False
        self._is_resumable = False
        self._settled_bytes = 0

    def serve(self) -> None:
        """Send hello and run tasks."""
        threading.Thread(target=self._listen, name="emsqrt-control", daemon=True).start()
        self._control.send(encode_frame("hello", version=VERSION, pid=os.getpid()))
        while (task := self._tasks.get()) is not None:
            if isinstance(task, str):
                self._prepare(task)
                continue
            last = self._answer(task)
            del task
            # One write: the parent then knows of the idle process before its caller can submit the
            # next request, which is sent to the same process with its cached state.
            self._control.send(last + self._credit())

    def _listen(self) -> None:
        try:
            while True:
                for frame in self._control.receive():
                    self._obey(frame)
        except Closed:
            self._end()
        except BaseException:  # noqa: BLE001 - no frame can be received after any error
            _log.exception("the control socket broke")
            os._exit(1)

    def _end(self) -> None:
        """End the process, because the parent is gone; a running task cleans up first."""
        with self._lock:
            running, self._is_deserted = self._running, True
        if running is None or self._is_resumable:
            os._exit(0)
        running[1].stop(Cancelled(running[1].what))
        end_after_cleanup()

    def _obey(self, frame: Frame | Task) -> None:
        if isinstance(frame, Task):
            self._tasks.put(frame)
        elif frame["word"] == "prepare":
            self._tasks.put(frame["entry"])
        elif frame["word"] == "drain":
            self._tasks.put(None)
        elif frame["word"] == "cancel":
            self._cancel(frame)

    def _cancel(self, frame: Frame) -> None:
        with self._lock:
            running = self._running
            if running is None or running[0] != frame["attempt"]:
                self._early_cancel = frame  # the task is queued, or its entry is being imported
                return
        _stop(running[1], frame)

    def _prepare(self, path: str) -> None:
        """Load an entry point before its first task; that task reports what fails here."""
        try:
            module = _prepared_module(path)
            getattr(module, "warm", _nothing)()
        except Exception:  # noqa: BLE001 - nobody waits for it
            _log.warning("%s could not be loaded in advance", path, exc_info=True)
            return
        frame = encode_frame("prepared", entry=path, memoryBytes=self._charged_bytes())
        self._control.send(frame)

    def _answer(self, task: Task) -> bytes:
        """Run a task; return its final frame if it is still to be sent."""
        sender = PayloadSender(self._control, task.attempt, task.ring_bytes)
        try:
            return sender.finish(self._run(task, sender))
        except BaseException as error:  # noqa: BLE001 - it crosses to the parent
            failure = _as_sennit_error(error, task)
            return sender.fail(failure.to_json(), str(failure))
        finally:
            sender.close()

    def _run(self, task: Task, sender: PayloadSender) -> dict[str, Any]:
        is_first = task.entry not in _prepared
        entry = load_entry(task.entry, task.name, task.cap_bytes)
        if is_first:  # imports cannot be interrupted, so the pool allows more time before it
            self._control.send(encode_frame("loaded", attempt=task.attempt))
        context = EntryContext(
            task.name,
            task.cap_bytes,
            sender,
            lambda fields: self._send_progress(task.attempt, fields),
            task.spill_dir,
            task.deadline_seconds,
        )
        context.owns_process = True
        context.measure = self._charged_bytes
        context.left_bytes()  # refuse a cap below what is held before the watchdog starts
        reactions = Reactions(
            lambda use: context.stop(_exceeded(task, use)),
            lambda use: self._stop_at_cap(task, use),
            _Reporter(context, sender),
        )
        watch = self._watchdog.watch(CapLevels.below(task.cap_bytes), reactions)
        context.measure_peak = watch.peak
        context.room_bytes = watch.room
        context.forgive_reserved = watch.forgive
        context.make_room_for_error = watch.lift_allocation_limit
        self._is_resumable = task.request.get("resume") is not None
        self._begin(task.attempt, context)
        try:
            context.check()  # it may have been stopped during the imports
            with watch:
                return _call(entry, task.request, context, watch)
        finally:
            context.close()
            with self._lock:
                self._running = None
                if self._is_deserted:
                    os._exit(0)

    def _begin(self, attempt: str, context: EntryContext) -> None:
        with self._lock:
            self._running = (attempt, context)
            early = self._early_cancel
        if early is not None and early["attempt"] == attempt:
            _stop(context, early)

    def _send_progress(self, attempt: str, fields: dict[str, Any]) -> None:
        self._control.send(encode_frame("renew", attempt=attempt, progress=fields))

    def _stop_at_cap(self, task: Task, use: MemoryUse) -> None:
        error = _exceeded(task, use).to_json()
        self._control.send_last(encode_frame("failed", attempt=task.attempt, error=error))
        os._exit(EXIT_CAP)

    def _credit(self) -> bytes:
        """Return a frame that reports the idle process's memory, after freeing garbage."""
        held = self._charged_bytes()
        if held > self._settled_bytes + _COLLECT_BYTES:
            gc.collect()
            release_freed()
            held = self._settled_bytes = self._charged_bytes()
        keeps_cache = hasattr(_last_used[0], "release")
        return encode_frame("credit", memoryBytes=held, keepsCache=keeps_cache)

    def _charged_bytes(self) -> int:
        return self._watchdog.charged_bytes()


class _Reporter:
    """Reports memory use four times a second, and flushes pending output."""

    def __init__(self, context: EntryContext, sender: PayloadSender) -> None:
        self._context = context
        self._sender = sender
        self._next = time.monotonic() + _NEWS_SECONDS

    def __call__(self, use: MemoryUse) -> None:
        self._sender.flush()
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _NEWS_SECONDS
            self._context.progress(
                memory_bytes=use.charged_bytes, cap_bytes=self._context.cap_bytes
            )


def load_entry(path: str, what: str, cap_bytes: int) -> Entry:
    """Import an entry point named as `module:function`.

    Its module may define `FLOOR_BYTES`, the smallest usable cap, and `prepare()`, which is called
    before the cap is watched: to import libraries and to start their threads, both of which reserve
    more than they use. It may define `release()`, which is called before a run of another entry: to
    free what it keeps between its own runs; and `warm()`, which is called in a process that waits
    for its first run: to load what most runs need.

    Raises:
        CapTooSmall: the cap is below `FLOOR_BYTES`; nothing was prepared.
    """
    module_name, _, name = path.partition(":")
    module = importlib.import_module(module_name)
    floor = getattr(module, "FLOOR_BYTES", 0)
    if cap_bytes < floor:
        raise CapTooSmall(
            cap_bytes=cap_bytes,
            needed_bytes=floor,
            because=f"{what} needs this much for its libraries and one block",
        )
    _prepared_module(path)
    if module is not _last_used[0]:
        getattr(_last_used[0], "release", _nothing)()
        _last_used[0] = module
    return getattr(module, name)  # type: ignore[no-any-return]


def _prepared_module(path: str) -> ModuleType:
    """Import the module of an entry point, and call its `prepare` once."""
    module = importlib.import_module(path.partition(":")[0])
    if path not in _prepared:
        getattr(module, "prepare", _nothing)()
        # What was imported stays. Collections after large runs would look at all of it: 40 ms each.
        gc.collect()
        gc.freeze()
    _prepared.add(path)
    return module


def _nothing() -> None:
    """A hook of a module that has none."""


def _call(
    entry: Entry, request: dict[str, Any], context: EntryContext, watch: Watch
) -> dict[str, Any]:
    try:
        return entry(request, context)
    except BaseException as error:
        watch.lift_allocation_limit()
        if context.stopped is not None and error is not context.stopped:
            raise context.stopped from error  # not what was interrupted, but why
        raise


def _stop(context: EntryContext, frame: Frame) -> None:
    if frame["reason"] == "deadline":
        context.stop(DeadlineExceeded(context.what, context.deadline_seconds))
    else:
        context.stop(Cancelled(context.what))


def _exceeded(task: Task, use: MemoryUse) -> MemoryCapExceeded:
    return MemoryCapExceeded(
        cap_bytes=task.cap_bytes,
        what=f"{task.name}, at {use.charged_bytes / (1 << 20):.1f} MiB",
        hint="use a larger cap, or run less at once",
    )


def _as_sennit_error(error: BaseException, task: Task) -> SennitError:
    reported = any_error(error, task.name, task.cap_bytes)
    if isinstance(reported, InternalError):
        _log.error("%s failed", task.name, exc_info=error)
    return reported


def main(control_file: int) -> None:
    """Serve the control socket of a descriptor, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    sys.setswitchinterval(_SWITCH_SECONDS)  # so that a watchdog that waits 5 ms runs in time
    threading.stack_size(_STACK_BYTES)
    block_pandas()
    with socket.socket(fileno=control_file) as sock:
        Server(Control(sock)).serve()
        sys.stdout.flush()
        os._exit(0)  # skip the libraries' teardown: nothing is left to save


if __name__ == "__main__":
    main(int(sys.argv[1]))
