"""Run parts of a shuffle at the workers of a cluster, several at a time, and again where a worker is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

from elytra.backends import Report, TaskInput, TaskSpec
from elytra.backends.attempts import Run, WorkerGone
from elytra.backends.ray.attempt import Attempt
from elytra.backends.ray.cluster import Cluster
from elytra.backends.ray.files import InputFile
from elytra.backends.ray.shuffle_parts import Part
from sennit_core.errors import DeadlineExceeded, Unavailable
from sennit_core.records import Progress

__all__ = ["KeptRows", "PartRuns"]

_T = TypeVar("_T")
_S = TypeVar("_S")
_TRIES = 3


@dataclass(slots=True)
class KeptRows:
    """The rows of a part, which the worker that has run it keeps.

    Args:
        part: The part, whose rows have the column `KEY`.
        attempt: What has run it.
        sample: Keys, in the form of `ipc_of`.
        bytes: The size of the rows.
    """

    part: Part
    attempt: Attempt
    sample: bytes
    bytes: int


class PartRuns:
    """The runs of one attempt at a task; a context manager that ends them, and frees what they keep.

    Args:
        cluster: The workers.
        worker: The one that the task was assigned to.
        task: The task.
        output: The file of its result; other files are next to it.
        report: Receives progress.
    """

    def __init__(
        self, cluster: Cluster, worker: str, task: TaskSpec, output: Path, report: Report
    ) -> None:
        self._cluster, self._worker, self._task, self._output = cluster, worker, task, output
        self._report = report
        self._specs = {each.name: each for each in task.inputs}
        seconds = task.limits.seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._tasks, self._ended, self._placed = count(1), count(1), count()
        self._threads = ThreadPoolExecutor(
            max(1, self.worker_count), thread_name_prefix="elytra-shuffle"
        )
        self._lock = threading.Lock()
        # Guarded by the lock: what runs at the moment; whether no other run may begin any more; and
        # what workers keep.
        self._runs: list[Run] = []
        self._stopped = False
        self._kept: dict[str, Attempt] = {}
        self._temporary: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        with self._lock:
            kept = [*self._kept.values()]
        for attempt in kept:
            attempt.forget()
        for path in self._temporary:
            path.unlink(missing_ok=True)

    @property
    def worker_count(self) -> int:
        """How many workers there are."""
        return len(self._cluster.joined(self._worker))

    def cancel(self) -> None:
        """End all runs, also those that would begin later; from any thread."""
        with self._lock:
            self._stopped = True
            runs = list(self._runs)
        for run in runs:
            run.stop()

    def each(self, do: Callable[[_S], _T], items: Sequence[_S]) -> list[_T]:
        """Return the results of a function of each item, several at a time; the first error ends the others."""
        futures = [self._threads.submit(do, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            self.cancel()
            raise

    def keep(self, part: Part) -> KeptRows:
        """Run a part at any worker, which keeps its rows."""

        def spool(attempt: Attempt, run: Run) -> KeptRows:
            with self._lock:
                self._kept[attempt.task.id] = attempt
            return KeptRows(part, attempt, *attempt.spool(run, Quiet()))

        return self._somewhere(part, spool)

    def split(self, kept: KeptRows, ranges: bytes, options: str) -> list[list[Any]]:
        """Return the rows that a worker keeps, as references to their pieces, by range; it keeps them no more."""
        for _ in range(_TRIES):
            try:
                found = kept.attempt.split(ranges, options)
            except WorkerGone:  # and the rows with it
                with self._lock:
                    self._kept.pop(kept.attempt.task.id, None)
                kept = self.keep(kept.part)
            else:
                with self._lock:
                    self._kept.pop(kept.attempt.task.id, None)
                self._progress()
                return found
        raise Unavailable("Ray (workers were lost in each of three tries)")

    def write(self, part: Part, name: str) -> InputFile:
        """Run a part at any worker; return its rows as a file of this machine."""
        path = self._output.with_name(f".{self._task.id}-{name}.arrow")
        self._temporary.append(path)

        def run_into(attempt: Attempt, run: Run) -> None:
            replace(attempt, output=path).run(run, Quiet())

        self._somewhere(part, run_into)
        self._progress()
        return InputFile(name, str(path), path.stat().st_size, None)

    def run_last(self, part: Part, run: Run) -> dict[str, Any]:
        """Run the part that is the task's result, at the worker that the task was assigned to."""
        task = self._spec(self._task.id, part)
        files = [*part.files.values()]
        last = Attempt(self._cluster, self._worker, task, files, self._output, part.pieces)
        return last.run(run, self._report)

    def _somewhere(self, part: Part, do: Callable[[Attempt, Run], _T]) -> _T:
        """Run a part at any worker, and at another one if that is lost."""
        for _ in range(_TRIES):
            workers = self._cluster.joined(self._worker)
            if not workers:
                break
            worker = workers[next(self._placed) % len(workers)]
            task = self._spec(f"{self._task.id}-{next(self._tasks)}", part)
            limits = replace(task.limits, output_bytes_max=None)
            task = replace(task, output="arrow", copy_bytes_max=0, limits=limits)
            files = [*part.files.values()]
            attempt = Attempt(self._cluster, worker, task, files, self._output, part.pieces)
            with self._running() as run:
                try:
                    return do(attempt, run)
                except WorkerGone:
                    continue
        raise Unavailable("Ray (workers were lost in each of three tries)")

    @contextmanager
    def _running(self) -> Iterator[Run]:
        run = Run()
        with self._lock:
            self._runs.append(run)
            stopped = self._stopped
        if stopped:
            run.stop()
        try:
            run.check()
            yield run
        finally:
            with self._lock:
                self._runs.remove(run)

    def _spec(self, task_id: str, part: Part) -> TaskSpec:
        inputs = [
            self._specs.get(name) or TaskInput(name, "partial", name)
            for name in (*part.files, *part.pieces)
        ]
        limits = self._task.limits
        if self._deadline is not None:  # one for all parts together
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"task {self._task.id}", limits.seconds)
            limits = replace(limits, seconds=left)
        return replace(self._task, id=task_id, plan=part.plan, inputs=tuple(inputs), limits=limits)

    def _progress(self) -> None:
        self._report.progressed(Progress(rows=next(self._ended), phase="shuffle"))


class Quiet:
    """A report of a part, whose end its caller sees."""

    def started(self) -> None:
        pass

    def progressed(self, progress: Progress) -> None:
        pass

    def finished(self, result: dict[str, Any]) -> None:
        pass

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        pass
