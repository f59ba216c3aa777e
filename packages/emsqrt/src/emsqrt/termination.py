"""SIGTERM and SIGINT: how a process is asked to end.

SIGTERM: a run that is asked to end removes what it spilled and what it had begun to write.

A run that can be resumed ends at once instead, as by SIGKILL: cleaning up would remove the sorted
runs that it is to be resumed from. The resumed run removes the rest.

SIGINT: a command line that is interrupted before it has begun anything exits at once. It becomes
another program twice, and Python prints a traceback for a SIGINT that comes while it starts: so the
signal is blocked until the next program has a handler for it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

EXIT_INTERRUPTED = 130
EXIT_CAP = 87
"""Of a process that ended itself rather than pass its cap."""
CLEANUP_SECONDS = 5.0
"""What a run whose parent is gone may take to clean up before its process ends."""


def exit_on_sigterm() -> None:
    """Have SIGTERM unwind the main thread, with the status that shells report for it (143).

    The default action ends the process at once, and leaves its temporary files.
    """
    signal.signal(signal.SIGTERM, _exit)


def end_on_sigterm() -> None:
    """Have SIGTERM end the process at once, for a run that can be resumed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_after_cleanup() -> None:
    """Give the main thread time to clean up and end, then end the process; for a daemon thread.

    It waits on the calling thread: near the cap there may be no room for the stack of another one.
    """
    threading.Event().wait(CLEANUP_SECONDS)
    os._exit(0)


def exit_on_early_sigint() -> None:
    """Have SIGINT end the process at once and without a word, for there is nothing to clean up."""
    if _heeds_sigint():
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def hold_sigint() -> None:
    """Let SIGINT wait until the program that this process becomes can handle it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def interrupt_on_sigint() -> None:
    """Have SIGINT raise KeyboardInterrupt, also one that has waited."""
    if _heeds_sigint():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _heeds_sigint() -> bool:
    """Return False for a job in the background, whose shell has SIGINT ignored."""
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def _exit(signum: int, _: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    raise SystemExit(128 + signum)
