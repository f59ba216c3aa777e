"""Wait for several rings at once."""

from __future__ import annotations

import time
from collections.abc import Iterable

from sennit_core.errors import UsageError
from strand import _native, layout
from strand.role import NAP_NANOSECONDS, SPIN_NANOSECONDS
from strand.view import StrandView

__all__ = ["select"]

_POLLS = 8 if SPIN_NANOSECONDS else 0  # polls of all views before a sleep in the kernel


def select(views: Iterable[StrandView], timeout_seconds: float | None = None) -> list[StrandView]:
    """Wait until at least one of several views is ready, and return all ready views.

    A view is ready when it has unacknowledged records, or when its stream has ended or failed, so
    that reading it ends or raises. The views may belong to different rings; one sleep waits for all
    of them (futex_waitv, Linux 5.16; with older kernels or more than 128 views, a poll every
    millisecond).

    Args:
        views: the views to wait for.
        timeout_seconds: how long to wait at most; None: no limit; 0 only checks.

    Returns:
        The ready views, in the order of `views`; none at the timeout.

    Raises:
        UsageError: no views.
    """
    watched = list(views)
    if not watched:
        raise UsageError("select() needs at least one view")
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    for _ in range(_POLLS):
        if any(view.committed_count > view.window_start for view in watched):
            break
    while True:
        # The bells are read before the check: a record published after the check changes them.
        seen = [view._arm(view.window_start + 1) for view in watched]  # noqa: SLF001
        if ready := [view for view in watched if _is_ready(view)]:
            return ready
        nap = NAP_NANOSECONDS
        if deadline is not None:
            nap = max(0, min(nap, int((deadline - time.monotonic()) * 1e9)))
        rung = nap and _native.nap_any([view._bell for view in watched], seen, nap)  # noqa: SLF001
        if not rung and (failed := [view for view in watched if view.find_failure()]):
            return failed
        if deadline is not None and time.monotonic() >= deadline:
            return [view for view in watched if _is_ready(view)]


def _is_ready(view: StrandView) -> bool:
    """Whether there are records to read, or the stream has ended; reads shared words, no locks."""
    if view._status() >= layout.EOS or view._aborted():  # noqa: SLF001 - of one package
        return True
    return view.committed_count != view.window_start  # less: a new stream began
