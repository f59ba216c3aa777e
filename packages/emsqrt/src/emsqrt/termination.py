"""SIGTERM: a run that is asked to end removes what it spilled and what it had begun to write.

A run that can be resumed ends at once instead, as by SIGKILL: cleaning up would remove the sorted
runs that it is to be resumed from. The resumed run removes the rest.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

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


def _exit(signum: int, _: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    raise SystemExit(128 + signum)
