"""Opening a plan under a cap; a refusal names a cap that would do, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeAlias, TypeVar

from emsqrt._kernel import release_freed
from emsqrt.attempts import LookAhead
from emsqrt.fingerprints import remembered
from emsqrt.io.once import looking_once
from emsqrt.memory import MemoryBudget
from emsqrt.run import Run
from emsqrt.weight import WEIGHING_BYTES, Weight
from sennit_core.errors import CapacityError, CapTooSmall

T = TypeVar("T")
Trial: TypeAlias = Callable[[int], CapTooSmall | None]
"""Tries a cap, and returns why it is refused; None when it is not."""

_TRIES_MAX = 16
_UNEVEN_SHARE = 128
"""One part in so many of a cap: by so much the heaps of two runs of one plan differ."""
_PRECISE_BYTES = 256 << 10
"""How close to look for a cap, and what a process may hold more than it grew, the next time."""


def admit(
    open_all: Callable[[Run, ExitStack], T], run: Run, stack: ExitStack, look: LookAhead
) -> T:
    """Open everything that a plan needs; whatever can be refused is refused here.

    Args:
        open_all: opens it for a run, on a stack that closes it; also called for runs of a trial.
        run: the run that is to be carried out.
        stack: closes what was opened.
        look: looks for the longest row, so that the cap that is named is enough for it.

    Raises:
        CapTooSmall: the cap cannot do it, told before the first row is read; one that can is named.
    """
    used_bytes = run.budget.used_bytes  # a sink that was not entered lets go of nothing
    try:
        with ExitStack() as opened:
            made = open_all(run, opened)
            stack.push(opened.pop_all())
            return made
    except CapTooSmall as error:
        refused = _released(error)
    run.context.make_room_for_error()
    whole_bytes = run.budget.whole_bytes
    because = refused.because if run.met is None else run.met.because
    _expect_longest(run, look)
    needed_bytes = _enough(refused, open_all, run, used_bytes)
    needed_bytes += _grown(run, used_bytes, needed_bytes)
    raise CapTooSmall(cap_bytes=whole_bytes, needed_bytes=needed_bytes, because=because)


def weigh(
    open_all: Callable[[Run, ExitStack], object],
    run: Run,
    cap_bytes: int,
    names_bytes: int = 0,
    look: LookAhead = lambda _: None,
) -> Weight:
    """Look for the smallest cap that a plan is admitted with, and at what it has under one.

    Args:
        open_all: as for `admit`.
        run: that would be carried out; its context has looked at what the process holds.
        cap_bytes: asked about.
        names_bytes: what is reserved for the names of input files while it is open.
        look: as for `admit`, where a cap is named that was refused.
    """
    run.context.make_room_for_error()
    _expect_longest(run, look)
    trial = _trials(open_all, run)
    first = CapTooSmall(cap_bytes=0, needed_bytes=_PRECISE_BYTES, because="it takes that much")
    with looking_once():
        refused, least_bytes = halve(trial, *climb(trial, first, _PRECISE_BYTES), _PRECISE_BYTES)
    least_bytes += _grown(run, names_bytes, least_bytes)
    opened = run.trial(_budget(run, max(cap_bytes, least_bytes)))
    with suppress(CapacityError), ExitStack() as stack:
        open_all(opened, stack)
    working_bytes = opened.working_bytes if cap_bytes >= least_bytes else 0
    return Weight(least_bytes, refused.because, working_bytes, opened.leasts)


def _expect_longest(run: Run, look: LookAhead) -> None:
    """Have trials make room for the longest row that is to come."""
    found = look(WEIGHING_BYTES // 2)
    if found is not None and found.is_news_to(run.met):
        run.met = found if run.met is None else run.met.or_longer(found)


def beside_names(
    files: int, open_all: Callable[[Run, ExitStack], object]
) -> Callable[[Run, ExitStack], object]:
    """Return what opens a plan beside what its input files take to be remembered."""

    def open_both(run: Run, stack: ExitStack) -> None:
        stack.enter_context(remembered(files, run.budget))
        open_all(run, stack)

    return open_both


def _grown(run: Run, reserved_bytes: int, cap_bytes: int) -> int:
    """Return what a cap has to be larger for what the process holds more, the next time.

    Args:
        run: which asks what it holds more now than when it looked.
        reserved_bytes: what of that is reserved.
        cap_bytes: the cap that would have done when it looked.
    """
    context = run.context
    gc.collect()
    release_freed()  # what trials left behind in the heap is no part of a run
    grown_bytes = max(0, context.grown_bytes() - reserved_bytes)
    grown_bytes += max(_PRECISE_BYTES, cap_bytes // _UNEVEN_SHARE)
    # Of a larger cap more is set aside, so that it leaves less than it is larger.
    left_bytes = context.left_bytes_under(cap_bytes + grown_bytes)
    return 2 * grown_bytes - (left_bytes - context.left_bytes_under(cap_bytes))


def _released(error: CapTooSmall) -> CapTooSmall:
    """Let go of what was open when it was raised: trials have to find room beside the cap's."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _enough(
    error: CapTooSmall, open_all: Callable[[Run, ExitStack], object], run: Run, used_bytes: int
) -> int:
    trial = _trials(open_all, run, used_bytes)
    with looking_once():
        refused, refused_bytes, cap_bytes = climb(trial, error, _PRECISE_BYTES)
        if refused is error:
            return cap_bytes
        return halve(trial, refused, refused_bytes, cap_bytes, _PRECISE_BYTES)[1]


def _trials(open_all: Callable[[Run, ExitStack], object], run: Run, used_bytes: int = 0) -> Trial:
    def trial(cap_bytes: int) -> CapTooSmall | None:
        gc.collect()  # what was opened before refers to its run, which refers to it
        try:
            with ExitStack() as opened:
                open_all(run.trial(_budget(run, cap_bytes, used_bytes)), opened)
        except CapTooSmall as refusal:
            return _released(refusal)
        return None

    return trial


def _budget(run: Run, cap_bytes: int, used_bytes: int = 0) -> MemoryBudget:
    """Return the budget that the process would have under another cap.

    Raises:
        CapTooSmall: it would have none.
    """
    left_bytes = run.context.left_bytes_under(cap_bytes) - used_bytes
    if left_bytes <= 0:
        raise CapTooSmall(
            cap_bytes=cap_bytes,
            needed_bytes=cap_bytes - left_bytes + 1,
            because=f"{run.context.what} takes that before it reads anything",
        )
    return MemoryBudget(left_bytes, cap_bytes)


def climb(trial: Trial, refused: CapTooSmall, step_bytes: int) -> tuple[CapTooSmall, int, int]:
    """Try the caps that refusals name, by larger and larger steps, until one is not refused.

    Readers and sinks want more when there is more, so that a cap with what is missing may not do.

    Args:
        trial: tries a cap.
        refused: the first refusal.
        step_bytes: the first step at least; then twice that, and so on.

    Returns:
        The last refusal, the cap that was refused, and one that is not.
    """
    refused_bytes, cap_bytes = refused.cap_bytes, refused.needed_bytes
    for _ in range(_TRIES_MAX):
        again = trial(cap_bytes)
        if again is None:
            break
        refused, refused_bytes = again, cap_bytes
        cap_bytes = max(again.needed_bytes, cap_bytes + step_bytes)
        step_bytes *= 2
    return refused, refused_bytes, cap_bytes


def halve(
    trial: Trial, refused: CapTooSmall, refused_bytes: int, cap_bytes: int, precise_bytes: int
) -> tuple[CapTooSmall, int]:
    """Try caps between one that is refused and one that is not, until they are close.

    Returns:
        The refusal of the largest cap that was refused, and a cap at most so much above that one.
    """
    while cap_bytes - refused_bytes > precise_bytes:
        middle = (cap_bytes + refused_bytes) // 2
        again = trial(middle)
        if again is None:
            cap_bytes = middle
        else:
            refused, refused_bytes = again, middle
    return refused, cap_bytes
