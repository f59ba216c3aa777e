"""Waiting for several rings at once."""

from __future__ import annotations

import time
from collections.abc import Iterable

from sennit_core.errors import UsageError
from strand import _native, layout
from strand.role import NAP_NANOSECONDS, SPIN_NANOSECONDS
from strand.view import StrandView

__all__ = ["select"]

_GLANCES = 8 if SPIN_NANOSECONDS else 0


def select(views: Iterable[StrandView], timeout_seconds: float | None = None) -> list[StrandView]:
    """Wait until one of several views has something to tell, and return all that do.

    A view is ready when it has records that were not given back, and when its stream has ended or
    failed: reading on then ends or raises. The views may be of any rings; this is one sleep for all
    of them (futex_waitv, Linux 5.16; before it and above 128 views, a glance every millisecond).

    Args:
        views: whom to wait for.
        timeout_seconds: None waits as long as it takes; 0 only looks.

    Returns:
        The ready views in the order given; none at the timeout.

    Raises:
        UsageError: no views.
    """
    watched = list(views)
    if not watched:
        raise UsageError("select() waits for one view at least")
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    for _ in range(_GLANCES):
        if any(view.committed_count > view.window_start for view in watched):
            break
    while True:
        # The bells before the look: whatever comes after the look changes them.
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
    """Whether there is something to read, or will never be: words in shared memory, no locks."""
    if view._status() >= layout.EOS or view._aborted():  # noqa: SLF001 - of one package
        return True
    return view.committed_count != view.window_start  # less: a stream began anew
