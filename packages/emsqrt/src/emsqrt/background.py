"""`BackgroundWorker`: a second thread that does one piece of background work after another.

It sorts and spills rows while others are read, and writes output while the next rows are merged.
The kernel's loops and system calls release the GIL, so both threads run at once. An exception of
background work is raised again when the next piece is submitted or waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread, stack_size

STACK_BYTES = 256 << 10
"""Reserved for the thread's stack; the thread touches about a tenth of it."""


@contextmanager
def thread_stack(size_bytes: int) -> Iterator[None]:
    """Start threads with a stack of this size: the usual 8 MiB would count against a cap."""
    before = stack_size(size_bytes)
    try:
        yield
    finally:
        stack_size(before)


class _Job:
    """A piece of work, and whether it has begun and ended."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.begun = False
        self.ended = Event()
        self.error: BaseException | None = None
        self._work: Callable[[], None] | None = work

    def do(self) -> None:
        """Do the work on the first call; later calls do nothing."""
        work, self._work = self._work, None
        if work is None:
            return
        self.begun = True
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self.error = error
        del work
        self.ended.set()


class BackgroundWorker:
    """Do one piece of work at a time in the background. Used by one thread; close it.

    An interrupt may hit the using thread between any two steps. So a piece is recorded before it is
    submitted, may be submitted twice, and stays ended once it has ended.

    Args:
        threads: 1 to do all work synchronously on the calling thread.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._thread: Thread | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._current: _Job | None = None

    @property
    def is_second(self) -> bool:
        """Return whether work runs on a second thread."""
        return self._threads > 1

    def run(self, work: Callable[[], None]) -> None:
        """Start a piece of work after the previous one has ended.

        Raises:
            BaseException: raised by the previous piece; the new piece is not started then.
        """
        self.wait()
        if self.is_second and self._thread is None:
            self._start()
        if self._thread is None:
            work()
            return
        self._current = _Job(work)
        self._queue.put(self._current)

    def wait(self) -> None:
        """Wait until no work is running.

        Raises:
            BaseException: raised by the last piece of work.
        """
        self.wait_idle()
        job, self._current = self._current, None
        if job is not None and job.error is not None:
            raise job.error

    def wait_idle(self) -> None:
        """Wait until no work is running; leave its exception for `wait` to raise."""
        job = self._current
        if job is not None:
            if not job.begun:
                self._queue.put(job)
            job.ended.wait()

    def close(self) -> None:
        """Finish the last piece of work and end the thread. Closing twice is fine."""
        self.wait_idle()
        thread, self._thread, self._threads = self._thread, None, 1
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _start(self) -> None:
        """Start the thread; if its stack cannot be allocated, work stays on this thread."""
        thread = Thread(target=self._serve, name="emsqrt-background", daemon=True)
        try:
            with thread_stack(STACK_BYTES):
                thread.start()
            self._thread = thread
        except RuntimeError:
            self._threads = 1

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            job.do()
            del job
