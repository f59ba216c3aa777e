"""`Lane`: a second thread for what nobody has to wait for, one piece of work after the other.

Rows are sorted and spilled there while others are read, and output is written while the next is
merged. The kernel's loops and the system's calls let the interpreter go, so both threads work.
What such work raises is raised again by whoever hands over the next piece, or waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

STACK_BYTES = 256 << 10
"""Reserved for the thread's stack; it touches a tenth of it."""


class Lane:
    """Does one piece of work at a time. Used by one thread; close it.

    Args:
        threads: 1 to do all work at once, on the thread that hands it over.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._thread: threading.Thread | None = None
        self._begin, self._end = threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._end.acquire()
        self._work: Callable[[], None] | None = None
        self._busy = False
        self._error: BaseException | None = None

    @property
    def is_second(self) -> bool:
        """Whether work goes on behind whoever hands it over."""
        return self._threads > 1

    def run(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before has ended.

        Raises:
            BaseException: what the one before raised; this one is not begun then.
        """
        self.wait()
        if self.is_second and self._thread is None:
            self._start()
        if self._thread is None:
            work()
            return
        self._work, self._busy = work, True
        self._begin.release()

    def wait(self) -> None:
        """Return when nothing is being worked on.

        Raises:
            BaseException: what the last piece of work raised.
        """
        self.settle()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def settle(self) -> None:
        """Return when nothing is being worked on; what that raised is left for `wait`."""
        if self._busy:
            self._end.acquire()
            self._busy = False

    def close(self) -> None:
        """End the thread, after the last piece of work. Closing twice is fine."""
        self.settle()
        thread, self._thread, self._threads = self._thread, None, 1
        if thread is not None:
            self._begin.release()
            thread.join()

    def _start(self) -> None:
        """Start the thread; where the system has no room for its stack, there is none."""
        before = threading.stack_size(STACK_BYTES)
        thread = threading.Thread(target=self._serve, name="behind", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:
            self._threads = 1
        finally:
            threading.stack_size(before)

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            work, self._work = self._work, None
            if work is None:
                return
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                self._error = error
            del work
            self._end.release()
