"""Handle SIGTERM and SIGINT.

SIGTERM: the run removes its spill and its unfinished output.

A resumable run ends at once instead, as by SIGKILL: cleaning up would remove the sorted runs that
it is to be resumed from. The resumed run removes the rest.

SIGINT: a command that is interrupted before it has begun to work exits at once. The command
re-executes itself as another program twice, and Python prints a traceback for a SIGINT during
startup; so the signal is blocked until the next program has a handler for it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

EXIT_INTERRUPTED = 130
EXIT_CAP = 87
"""Exit status of a process that ended itself rather than exceed its cap."""
CLEANUP_SECONDS = 5.0
"""Time for a run whose parent process is gone to clean up before its process ends."""


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind the main thread, with the exit status that shells report for it (143).

    The default action ends the process at once and leaves its temporary files.
    """
    signal.signal(signal.SIGTERM, _exit)


def end_on_sigterm() -> None:
    """Let SIGTERM end the process at once, for a resumable run."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_after_cleanup() -> None:
    """Let the main thread clean up and end for a while, then end the process; for a daemon thread.

    It waits on the calling thread: near the cap the stack of another thread might not fit.
    """
    threading.Event().wait(CLEANUP_SECONDS)
    os._exit(0)


def exit_on_early_sigint() -> None:
    """Let SIGINT end the process at once without a message, as there is nothing to clean up yet."""
    if _heeds_sigint():
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def hold_sigint() -> None:
    """Block SIGINT until the program that this process becomes can handle it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def interrupt_on_sigint() -> None:
    """Let SIGINT raise KeyboardInterrupt, including one that was blocked."""
    if _heeds_sigint():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _heeds_sigint() -> bool:
    """Return False for a background job, whose shell has set SIGINT to be ignored."""
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def _exit(signum: int, _: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    raise SystemExit(128 + signum)
