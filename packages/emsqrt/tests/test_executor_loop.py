from __future__ import annotations

import threading
import time
from collections.abc import Callable

from emsqrt.executor.loop import Loop


class Due:
    """When a loop is due, and how often it asked and was called."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.asked = 0
        self.called = threading.Event()

    def next_due(self) -> float | None:
        self.asked += 1
        return self.at

    def on_due(self) -> None:
        self.at = None
        self.called.set()


def soon(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds."""
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        threading.Event().wait(0.001)
    return condition()


def test_a_time_that_is_set_later_is_kept() -> None:
    due = Due()
    loop = Loop(due.next_due, due.on_due)
    assert soon(lambda: due.asked > 0)
    due.at = time.monotonic()
    loop.wake_by(due.at)
    assert due.called.wait(20)
    loop.close()


def test_a_time_after_the_one_that_the_loop_sleeps_for_does_not_wake_it() -> None:
    due = Due()
    due.at = time.monotonic() + 3000
    loop = Loop(due.next_due, due.on_due)
    assert soon(lambda: due.asked == 1)
    called = threading.Event()
    loop.call(called.set)  # by then it sleeps
    assert called.wait(20)
    assert soon(lambda: due.asked == 2)
    for later in range(100):
        loop.wake_by(due.at + later)
    due.at = time.monotonic()
    loop.wake_by(due.at)
    assert due.called.wait(20)
    loop.close()
    assert due.asked <= 6


def test_a_time_that_moves_away_and_comes_back_is_kept() -> None:
    due = Due()
    due.at = time.monotonic() + 0.05
    loop = Loop(due.next_due, due.on_due)
    assert soon(lambda: due.asked == 1)
    due.at = None  # a run ends
    loop.wake()
    due.at = time.monotonic() + 0.2  # the next one begins
    loop.wake_by(due.at)
    assert due.called.wait(20)
    loop.close()
