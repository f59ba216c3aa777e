"""Runs the lake's maintenance in the background: one task at a time, slowly, and again and again.

    task         each run                                       default of a node
    scrub        reads and verifies every object                30 days
    compact      writes small shards anew as larger ones        1 hour
    expire       removes old snapshots where a rule says so     1 hour, without a default rule
    sweep        deletes old objects that nothing references    1 day

A thread of the lowest priority runs a task when its time has come, waits while statements need the
executors, and keeps its place in the tree, so that a restart continues. Periods vary by 15 %, so that
the nodes of a network do not all read at once. Between tasks it deletes retired objects whose time
has come.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from lake.maintenance.tasks import Step, Task
from sennit_core.clock import Clock
from sennit_core.errors import Cancelled, NotFound, SennitError, nearest
from sennit_core.ids import new_id
from sennit_core.logs import get_logger
from sennit_core.records import Progress

__all__ = ["Maintenance", "MaintenanceRun", "RunObserver"]

_log = get_logger(__name__)

_FIRST_SECONDS = 1.0  # a node that starts has more urgent work
_WAKE_SECONDS = 60.0
_YIELD_SECONDS = 0.2
_NICE_MAX = 19


@dataclass(frozen=True, slots=True)
class MaintenanceRun:
    """A run of a task.

    Args:
        id: Its id; that of a job, if an observer makes one.
        task: Name of the task.
        user: Who asked for it; "" if it is due.
    """

    id: str
    task: str
    user: str = ""


class RunObserver(Protocol):
    """Shows runs to users, for example as jobs."""

    def started(self, task: str, user: str) -> str:
        """Note a run that starts or waits; return its id."""
        ...

    def progressed(self, run_id: str, progress: Progress) -> None:
        """Note how far a run is."""
        ...

    def ended(self, run_id: str, result: dict[str, Any], error: SennitError | None) -> None:
        """Note the end of a run."""
        ...

    def is_cancelled(self, run_id: str) -> bool:
        """Return whether a user has cancelled a run."""
        ...


class _Unobserved:
    def started(self, task: str, user: str) -> str:
        del task, user
        return new_id()

    def progressed(self, run_id: str, progress: Progress) -> None:
        pass

    def ended(self, run_id: str, result: dict[str, Any], error: SennitError | None) -> None:
        pass

    def is_cancelled(self, run_id: str) -> bool:
        del run_id
        return False


class Maintenance:
    """The maintenance of one lake; a context manager that starts and closes it.

    Args:
        tasks: What there is to do.
        is_busy: Whether statements need the executors; called between steps.
        tidy: Called between tasks.
        clock: Source of time.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        is_busy: Callable[[], bool],
        tidy: Callable[[], object],
        clock: Clock,
    ) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.observer: RunObserver = _Unobserved()
        self._is_busy = is_busy
        self._tidy = tidy
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._running = threading.Lock()  # held by a run: one at a time
        self.current: str | None = None  # the task of that run
        # Runs that users asked for, oldest first.
        self._requested: deque[MaintenanceRun] = deque()

    def start(self) -> None:
        """Plan the tasks that have a period, and start the thread if there are any."""
        periodic = [task for task in self.tasks.values() if task.period_seconds]
        for task in periodic:
            if not task.state.next_at:
                task.plan()
        if periodic:
            self._start_thread()

    def close(self) -> None:
        """Stop the thread; a task continues at the next start."""
        self._stop.set()
        self._wake.set()
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join()
        while self._requested:
            run = self._requested.popleft()
            self.observer.ended(run.id, {"task": run.task}, Cancelled("the maintenance"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, name: str) -> Task:
        """Return a task.

        Raises:
            NotFound: There is none of this name.
        """
        if name not in self.tasks:
            known = tuple(self.tasks)
            raise NotFound(
                "maintenance task",
                name[:80],
                suggestion=nearest(name, known),
                hint=f"the tasks are {', '.join(known)}",
            )
        return self.tasks[name]

    def request(self, name: str, user: str = "") -> MaintenanceRun:
        """Let the thread run a task next; a task that waits already is not added again.

        Raises:
            NotFound: There is no such task.
        """
        self.find(name)
        with self._starting:
            for run in self._requested:
                if run.task == name:
                    return run
            run = MaintenanceRun(self.observer.started(name, user), name, user)
            self._requested.append(run)
        self._start_thread()
        self._wake.set()
        return run

    def run(self, name: str, cancelled: Callable[[], bool] | None = None) -> Step:
        """Run a task, or the rest of it, in this thread; return what it did.

        Raises:
            NotFound: There is no such task.
            Cancelled: `cancelled` returned True; the next run continues there.
        """
        task = self.find(name)
        with self._exclusive(task):
            check = self._checker(cancelled or (lambda: False), yields=False)
            return self._finish(task, check, _Shown(_Unobserved(), task))

    def run_due(self) -> list[str]:
        """Run each task whose time has come in this thread; return their names."""
        ran = []
        while (task := self._due()) is not None:
            ran.append(task.name)
            self._run_scheduled(task)
        return ran

    def to_json(self) -> list[dict[str, Any]]:
        """Return the state of every task, for GET /api/maintenance."""
        return [
            {
                "task": task.name,
                "periodSeconds": task.period_seconds,
                "running": self.current == task.name,
                **task.state.to_json(),
            }
            for task in self.tasks.values()
        ]

    def _start_thread(self) -> None:
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._loop, name="lake-maintenance", daemon=True
                )
                self._thread.start()

    def _loop(self) -> None:
        with suppress(OSError):  # only Linux knows threads here
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE_MAX)
        self._wake.wait(_FIRST_SECONDS)
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._tidy()
                while self._requested and not self._stop.is_set():
                    self._run_requested(self._requested.popleft())
                task = self._due()
                if task is not None:
                    self._run_scheduled(task)
                    continue
            except (SennitError, OSError) as error:
                # Such as a full disk: a state could not be written. The next round tries again.
                _log.warning("maintenance was interrupted: %s", error)
            self._wake.wait(_WAKE_SECONDS)

    def _due(self) -> Task | None:
        """Return the task that has waited for longest; None if no time has come."""
        now = self._clock.now()
        due = []
        for task in self.tasks.values():
            if task.period_seconds and not self._stop.is_set():
                next_at = task.state.next_at
                if not next_at:
                    task.plan()
                elif next_at <= now:
                    due.append((next_at, task.name))
        return self.tasks[min(due)[1]] if due else None

    def _run_requested(self, run: MaintenanceRun) -> None:
        task = self.tasks[run.task]
        check = self._checker(lambda: self.observer.is_cancelled(run.id), yields=False)
        with self._exclusive(task), suppress(SennitError):  # its observer has the error
            self._finish(task, check, _Shown(self.observer, task, run.id))

    def _run_scheduled(self, task: Task) -> None:
        shown = _Shown(self.observer, task)
        try:
            with self._exclusive(task):
                self._finish(task, self._checker(shown.is_cancelled, yields=True), shown)
        except SennitError as error:
            # A run that the end of the process stops is due at the next start.
            if not self._stop.is_set():
                _log.warning("maintenance task %s: %s", task.name, error)
                task.plan()

    def _finish(self, task: Task, check: Callable[[], None], shown: _Shown) -> Step:
        """Run a task to its end, and show it."""
        step, error = Step(), None
        shown.begin()
        try:
            for step in task.run(check):
                shown.progressed(step)
        except SennitError as problem:
            error = problem
            raise
        finally:
            shown.ended(step, error)
        return step

    def _checker(self, is_cancelled: Callable[[], bool], *, yields: bool) -> Callable[[], None]:
        def check() -> None:
            while True:
                if self._stop.is_set():
                    raise Cancelled("the maintenance", hint="the next start continues it")
                if is_cancelled():
                    raise Cancelled("the maintenance")
                if not (yields and self._is_busy()):
                    return
                self._stop.wait(_YIELD_SECONDS)

        return check

    @contextmanager
    def _exclusive(self, task: Task) -> Iterator[None]:
        with self._running:
            self.current = task.name
            try:
                yield
            finally:
                self.current = None


class _Shown:
    """A run as its observer sees it.

    A run that is due is shown once it has changed something, or if it is long: a list of jobs is not
    to be full of runs without work.

    Args:
        observer: Shows it.
        task: What runs.
        run_id: Its id, if it is shown from the start.
    """

    def __init__(self, observer: RunObserver, task: Task, run_id: str | None = None) -> None:
        self._observer = observer
        self._task = task
        self._run_id = run_id

    def begin(self) -> None:
        if self._run_id is not None:
            self._observer.progressed(self._run_id, Progress(phase=self._task.name))

    def progressed(self, step: Step) -> None:
        if self._run_id is None and (step.changed or self._task.is_long):
            self._run_id = self._observer.started(self._task.name, "")
        if self._run_id is not None:
            self._observer.progressed(self._run_id, step.progress(self._task.name))

    def ended(self, step: Step, error: SennitError | None) -> None:
        if self._run_id is not None:
            result = {"task": self._task.name, **step.to_json()}
            self._observer.ended(self._run_id, result, error)

    def is_cancelled(self) -> bool:
        return self._run_id is not None and self._observer.is_cancelled(self._run_id)
