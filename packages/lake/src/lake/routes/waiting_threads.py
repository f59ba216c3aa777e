"""Threads that wait for executors, so that the event loop and the threads of other routes do not.

A pool like anyio's without its limiter and checkpoints of cancellation: a call costs 0.02 ms instead of
0.1 ms on the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias, TypeVar

__all__ = ["WaitingThreads"]

T = TypeVar("T")
_IDLE_SECONDS = 10.0


class _Call(NamedTuple):
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


_Calls: TypeAlias = "SimpleQueue[_Call]"


class WaitingThreads:
    """Runs blocking calls of event loops, each in one of up to `count_max` threads.

    Args:
        count_max: Threads at most; further calls wait for one.
        idle_seconds: A thread ends when it had nothing to do for so long.
    """

    def __init__(self, count_max: int, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._count_max = count_max
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        # All of these are read and changed under the lock alone. Each thread has a queue of its own;
        # of the idle ones, the one that worked last is used next: its stack is in the caches.
        self._idle: list[_Calls] = []
        self._waiting: deque[_Call] = deque()
        self._count = 0

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Call a function in a thread; return the future of its result.

        When the future is cancelled, the call continues, and its result is dropped.

        Args:
            work: The function, which may block.
        """
        loop = asyncio.get_running_loop()
        call = _Call(work, loop, loop.create_future())
        calls: _Calls | None = None
        with self._lock:
            if self._idle:
                calls = self._idle.pop()
            elif self._count == self._count_max:
                self._waiting.append(call)
                return call.future
            else:
                self._count += 1
        if calls is None:
            calls = SimpleQueue()
            threading.Thread(
                target=self._serve, args=(calls,), name="lake-waiting", daemon=True
            ).start()
        calls.put(call)
        return call.future

    def _serve(self, calls: _Calls) -> None:
        call: _Call | None = calls.get()
        while call is not None:
            _answer(call)
            call = self._next(calls)

    def _next(self, calls: _Calls) -> _Call | None:
        """Wait for the next call of a thread; None if it is to end."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(calls)
        with suppress(Empty):
            return calls.get(timeout=self._idle_seconds)
        with self._lock:
            if calls in self._idle:
                self._idle.remove(calls)
                self._count -= 1
                return None
        return calls.get()  # it was chosen meanwhile


def _answer(call: _Call) -> None:
    result, error = None, None
    try:
        result = call.work()
    except BaseException as raised:  # noqa: BLE001 - it is raised where the result is awaited
        error = raised
    with suppress(RuntimeError):  # the loop is closed, and nothing awaits the result
        call.loop.call_soon_threadsafe(_settle, call.future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
