"""`Lane`: a second thread for what nobody has to wait for, one piece of work after the other.

Rows are sorted and spilled there while others are read, and output is written while the next is
merged. The kernel's loops and the system's calls let the interpreter go, so both threads work.
What such work raises is raised again by whoever hands over the next piece, or waits.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread, stack_size

STACK_BYTES = 256 << 10
"""Reserved for the thread's stack; it touches a tenth of it."""


class _Piece:
    """Some work, and whether it has begun and ended."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.begun = False
        self.ended = Event()
        self.error: BaseException | None = None
        self._work: Callable[[], None] | None = work

    def do(self) -> None:
        """Do the work, once however often it is asked for."""
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


class Lane:
    """Does one piece of work at a time. Used by one thread; close it.

    An interrupt may come between any two steps of that thread. So a piece is known before it is
    handed over, may be handed over twice, and stays ended once it has ended.

    Args:
        threads: 1 to do all work at once, on the thread that hands it over.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._thread: Thread | None = None
        self._handed: SimpleQueue[_Piece | None] = SimpleQueue()
        self._piece: _Piece | None = None

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
        self._piece = _Piece(work)
        self._handed.put(self._piece)

    def wait(self) -> None:
        """Return when nothing is being worked on.

        Raises:
            BaseException: what the last piece of work raised.
        """
        self.settle()
        piece, self._piece = self._piece, None
        if piece is not None and piece.error is not None:
            raise piece.error

    def settle(self) -> None:
        """Return when nothing is being worked on; what that raised is left for `wait`."""
        piece = self._piece
        if piece is not None:
            if not piece.begun:
                self._handed.put(piece)
            piece.ended.wait()

    def close(self) -> None:
        """End the thread, after the last piece of work. Closing twice is fine."""
        self.settle()
        thread, self._thread, self._threads = self._thread, None, 1
        if thread is not None:
            self._handed.put(None)
            thread.join()

    def _start(self) -> None:
        """Start the thread; where the system has no room for its stack, there is none."""
        before = stack_size(STACK_BYTES)
        thread = Thread(target=self._serve, name="behind", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:
            self._threads = 1
        finally:
            stack_size(before)

    def _serve(self) -> None:
        while (piece := self._handed.get()) is not None:
            piece.do()
            del piece
